"""Objects show themselves in a few lines, at no cost, traced or not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import ntkbayes as nb
from ntkbayes import display
from ntkbayes.kernels import EmpiricalKernel

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (12, 2))
CLASSES = ["<b>one</b>", "two", "three"]
DATA = nb.Dataset(X, [CLASSES[i % 3] for i in range(12)], class_names=CLASSES, name="<i>toy</i>")
NETWORK = nb.networks.mlp(depth=1, activation="erf")
PRIOR = nb.NTKPrior(NETWORK, ridge=0.5)
METHODS = (
    nb.MAP(),
    nb.FirstOrder(),
    nb.Laplace(),
    nb.RandomInit(num_inits=5),
    nb.PriorPredictive(),
)


@pytest.fixture(scope="module")
def laws():
    return {method.name: method.fit(PRIOR, DATA, key=KEY) for method in METHODS}


@pytest.fixture(scope="module")
def predictions(laws):
    return {name: nb.predict(law, DATA, key=KEY) for name, law in laws.items()}


@pytest.fixture(scope="module")
def comparison(predictions):
    return nb.compare(predictions, DATA, key=KEY)


def shown(thing):
    text, page = repr(thing), thing._repr_html_()
    lines = text.split("\n")
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 100
    assert " at 0x" not in text + page
    for raw in ("<b>", "<i>"):
        assert raw not in page
    assert page.count("<table>") == page.count("</table>")
    return text


def test_every_law_tells_its_kind_points_classes_ridge_network_and_diagnostics(laws):
    for name, law in laws.items():
        text = shown(law)
        assert text.startswith(f"law: {law.kind.name}"), name
        for fact in ("12 points, 2 features", "3: <b>one</b>, two, three", "MLP(", "Erf()"):
            assert fact in " ".join(text.split()), (name, fact)
        assert "ridge" in text
        assert all(fact in text for fact in law.info.facts)
        assert shown(law.info).startswith(type(law.info).__name__)
        shown(law.problem)
    text = repr(laws["Laplace"])
    assert f"{laws['Laplace'].info.log_evidence:.6g} nats" in text
    assert "5, independent initialisations" in repr(laws["random init"])
    assert "none: all mass on one function" in repr(laws["MAP"])


@pytest.mark.parametrize(
    "thing",
    [
        *METHODS,
        nb.TemperatureScaled(nb.Laplace()),
        nb.NUTS(),
        nb.FullBayes({"ridge": dist.LogNormal(0.0, 1.0)}),
        PRIOR,
        nb.NTKPrior(EmpiricalKernel(NETWORK, NETWORK.init(KEY, X)), ridge=1.0),
        nb.linearise(NETWORK, NETWORK.init(KEY, X), ridge=1.0),
        nb.networks.mlp(activation=jnp.sin),
        nb.likelihood.Categorical(),
        nb.activations.get("relu"),
        nb.Study(data=DATA, prior=PRIOR),
        DATA,
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_configurations_show_themselves_in_a_few_lines(thing):
    text = shown(thing)
    if thing is not DATA:
        assert text.startswith(type(thing).__name__ + "(")


def test_settings_read_as_the_call_that_makes_them():
    method = nb.NUTS(num_samples=30, target_accept=0.85)
    again = eval(repr(method), {"NUTS": nb.NUTS})
    assert again == method
    text = repr(nb.FullBayes({"ridge": dist.LogNormal(0.0, 1.0)}))
    assert "{'ridge': LogNormal(loc=0.0, scale=1.0)}" in text


def test_a_comparison_shows_its_table(comparison):
    text = shown(comparison)
    for name, scores in comparison.scores.items():
        (line,) = (line for line in text.split("\n") if line.startswith(f"  {name}  "))
        values = line.removeprefix(f"  {name}").split()
        expected = [scores[score].value for score in ("accuracy", "nll", "brier", "ece")]
        np.testing.assert_allclose([float(v) for v in values[:4]], expected, atol=6e-4)
    assert f"reference    {comparison.reference}" in text


def test_a_comparison_of_many_laws_shows_the_first_and_says_that_there_are_more(predictions):
    many = {f"law {i}": predictions["MAP"] for i in range(30)}
    text = repr(nb.compare(many, DATA, key=KEY))
    assert "law 3" in text
    assert "law 29" not in text
    assert text.endswith("…")
    assert len(text.split("\n")) <= 15


def test_predictions_show_what_they_are_of(predictions):
    for p in predictions.values():
        assert shown(p).startswith(f"predictions: {p.name}")
    assert "points          12, held-out" in repr(predictions["Laplace"])


def test_what_is_traced_shows_itself_too(laws):
    texts = []

    def look(law):
        texts.append(repr(law) + law._repr_html_())
        return law.problem.features

    jax.jit(look)(laws["Laplace"])
    stacked = jax.tree.map(lambda v: jnp.stack([v, v]), laws["MAP"])
    jax.vmap(look)(stacked)
    jax.eval_shape(look, laws["random init"])
    repr(jax.tree.map(lambda v: None, laws["Laplace"].info))
    assert all("12 points, 2 features" in text for text in texts)

    @jax.jit
    def prior_of(ridge):
        prior = nb.NTKPrior(NETWORK, ridge=ridge)
        texts.append(repr(prior))
        return prior.ridge

    prior_of(0.5)
    assert "ridge=traced" in texts[-1]


def test_showing_a_comparison_computes_nothing_at_random_and_needs_no_float64(comparison):
    expected = repr(comparison)
    with jax.enable_x64(False):
        assert repr(comparison) == expected
    jax.jit(lambda x: (repr(comparison), x)[1])(1.0)


def test_deleted_arrays_show_their_shape():
    number = jnp.asarray(2.0)
    assert display.number(number) == "2"
    number.delete()
    assert display.number(number) == "float64[]"
