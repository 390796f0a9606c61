"""What every law of every method keeps to, whatever made it."""

import dataclasses
import itertools
import types
import typing
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataError, RidgeError
from ntkbayes.laws import Method
from ntkbayes.predictions import marginal_probabilities

NETWORK = nb.networks.mlp(
    depth=1, activation="relu", weight_std=1.5, bias_std=0.5, width=32, num_outputs=1
)
PRIOR = nb.NTKPrior(NETWORK, ridge=0.5)
KEY = jax.random.key(0)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0], [6.0, -6.0]])

METHODS = {
    "MAP": nb.MAP(),
    "first order": nb.FirstOrder(),
    "Laplace": nb.Laplace(),
    "pruned Laplace": nb.PrunedLaplace(),
    "random init": nb.RandomInit(num_inits=200),
    "NUTS": nb.NUTS(num_samples=200, num_warmup=200, num_chains=2),
    "split HMC": nb.SplitHMC(num_samples=200, num_warmup=200, num_chains=2),
    "finite ensemble": nb.FiniteEnsemble(network=NETWORK, num_networks=100),
    "perturbed ensemble": nb.PerturbedEnsemble(
        network=dataclasses.replace(NETWORK, width=512), num_networks=100
    ),
    "deep ensemble": nb.DeepEnsemble(
        network=NETWORK, num_networks=50, batch_size=8, num_epochs=5, validation_share=0.25
    ),
    "prior": nb.PriorPredictive(),
    "perturbed init": nb.PerturbedInit(num_inits=200),
    "variational": nb.Variational(),
    "mean field": nb.MeanField(),
    "EP": nb.ExpectationPropagation(),
    "Dirichlet GP": nb.DirichletGP(),
    "corrected": nb.ImportanceCorrected(nb.Laplace(), num_draws=40_000, num_resampled=200),
    "tempered": nb.TemperatureScaled(nb.FirstOrder(), num_folds=3),
    "full Bayes": nb.FullBayes(
        {"ridge": dist.LogNormal(np.log(0.5), 0.3)}, num_samples=200, num_warmup=200, num_chains=2
    ),
}
GAUSSIAN = ("first order", "Laplace")
STORED = {
    "random init": 200,
    "NUTS": 400,
    "split HMC": 400,
    "finite ensemble": 100,
    "perturbed ensemble": 100,
    "deep ensemble": 50,
    "perturbed init": 200,
    "corrected": 200,
    "full Bayes": 400,
}
CHAINS = ("NUTS", "split HMC", "full Bayes")
NETWORKS = ("finite ensemble", "perturbed ensemble", "deep ensemble")
SAMPLED_INITIALISATIONS = ("random init", *NETWORKS)
POSTERIORS = (
    "prior",
    "Laplace",
    "pruned Laplace",
    "NUTS",
    "split HMC",
    "perturbed init",
    "perturbed ensemble",
    "variational",
    "mean field",
    "EP",
    "Dirichlet GP",
    "full Bayes",
)
RIDGELESS = ("MAP", "first order", "random init")


def data_of(classes, count=24):
    features, labels = oracle.blobs(7, count, classes)
    return nb.Dataset(features, labels, class_names=range(classes))


DATA = {"binary": data_of(2), "3 classes": data_of(3)}


ONE_LOGIT = (
    "EP",
    "full Bayes",
    "perturbed ensemble",
    "deep ensemble",
)  # which take several, too, at more time
PAIRS = [
    (name, kind)
    for name, kind in itertools.product(METHODS, ("binary", "3 classes"))
    if kind == "binary" or name not in ONE_LOGIT
]


def method(name, kind):
    """The method, with a network of as many outputs as the data take where it trains one."""
    if name not in NETWORKS:
        return METHODS[name]
    network = dataclasses.replace(METHODS[name].network, num_outputs=1 if kind == "binary" else 3)
    return dataclasses.replace(METHODS[name], network=network)


def fast(name, kind="binary"):
    """The method with as little work as it allows, for data that are unusual."""
    if name in CHAINS:
        return dataclasses.replace(METHODS[name], num_samples=200, num_warmup=100, num_chains=2)
    if name == "deep ensemble":
        alone = {"batch_size": None, "validation_share": 0.0, "num_networks": 10, "num_epochs": 2}
        return dataclasses.replace(method(name, kind), **alone)
    return nb.RandomInit(num_inits=50) if name == "random init" else method(name, kind)


def training_data(name, kind):
    """Soft targets for temperature scaling: the held-out NLL of separable data has no minimum."""
    return DATA[kind].smooth(0.2) if name == "tempered" else DATA[kind]


def tolerance(name):
    """Of logits where g is known, up to jitter: of full Bayes a fixed one, 1e-9 of the variance."""
    return 5e-3 if name == "full Bayes" else 1e-3


@cache
def law_of(name, kind):
    return method(name, kind).fit(PRIOR, training_data(name, kind), key=KEY)


@pytest.fixture(params=PAIRS, ids="-".join)
def fitted(request):
    return *request.param, law_of(*request.param)


def only(*names):
    """A mark of tests of some methods' laws."""
    pairs = [pair for pair in PAIRS if pair[0] in names]
    return pytest.mark.parametrize("fitted", pairs, ids="-".join, indirect=True)


UNUSUAL = [name for name in METHODS if name != "full Bayes"]
every_method = pytest.mark.parametrize("name", UNUSUAL)
of_one_logit = pytest.mark.parametrize(
    "fitted", [pair for pair in PAIRS if pair[1] == "binary"], ids="-".join, indirect=True
)


def public_methods():
    named = [getattr(nb, name) for name in nb.__all__]
    return [
        one
        for one in named
        if isinstance(one, type) and issubclass(one, Method) and one is not Method
    ]


def test_every_public_method_keeps_this_contract():
    assert {type(one) for one in METHODS.values()} == set(public_methods())


def test_methods_of_one_kind_are_those_of_the_exact_posterior():
    kinds = [METHODS[name].kind for name in METHODS]
    shared = {kind.name for kind in kinds if kinds.count(kind) > 1}
    assert shared == {nb.NUTS.kind.name}
    assert all(kind.description.endswith(".") for kind in kinds)


def declared_info(annotation):
    """The class of the diagnostics of a law, by its annotation."""
    if arguments := typing.get_args(annotation):
        return arguments[0]
    (base,) = (b for b in types.get_original_bases(annotation) if typing.get_origin(b))
    return declared_info(base)


def test_a_law_has_the_diagnostics_that_its_method_declares(fitted):
    name, _, law = fitted
    returned = typing.get_type_hints(type(METHODS[name]).solve)["return"]
    assert type(law.info) is declared_info(returned)


def test_a_law_shows_itself_in_a_few_lines(fitted):
    _, _, law = fitted
    text = repr(law)
    assert text.startswith(f"law: {law.kind.name}\n  trained on ")
    assert len(text.split("\n")) <= 16
    assert " at 0x" not in text + law._repr_html_()


# --- pytrees -------------------------------------------------------------------------------------


def asked(law):
    return law.mean(NEW), law.covariance(NEW), law.sample(KEY, NEW), law.sample_marginals(KEY, NEW)


@of_one_logit
def test_a_law_says_the_same_as_an_argument_of_a_compiled_function(fitted):
    _, _, law = fitted
    for ours, theirs in zip(eqx.filter_jit(asked)(law), asked(law), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * scale)


@of_one_logit
def test_probabilities_at_new_inputs_are_the_mean_over_marginal_draws(fitted):
    _, _, law = fitted
    draws = marginal_probabilities(law, NEW, key=KEY)
    found = law.predict_proba(NEW, key=KEY)
    np.testing.assert_allclose(found, draws.mean(axis=0), atol=1e-12)
    if law.kind.sampling is nb.Sampling.POINT:
        np.testing.assert_array_equal(law.predict_proba(NEW), found)
    else:
        with pytest.raises(ConfigurationError, match="a mean over draws: give key"):
            law.predict_proba(NEW)


@of_one_logit
def test_a_law_says_the_same_within_a_compiled_function_of_the_inputs(fitted):
    _, _, law = fitted
    ours = jax.jit(lambda x: law.sample(KEY, x))(NEW)
    theirs = law.sample(KEY, NEW)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max())
    np.testing.assert_array_equal(law.sample(KEY, NEW), theirs)  # no tracer was kept


@pytest.mark.parametrize("name", ["MAP", "Laplace", "first order", "random init", "prior"])
def test_laws_of_several_data_sets_are_mapped_over_as_one(name):
    laws = [fast(name).fit(PRIOR, data, key=KEY) for data in (data_of(2), data_of(2).smooth(0.3))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *laws)
    means, covariances = eqx.filter_vmap(lambda law: (law.mean(NEW), law.covariance(NEW)))(stacked)
    for k, law in enumerate(laws):
        np.testing.assert_allclose(means[k], law.mean(NEW), atol=1e-10)
        np.testing.assert_allclose(covariances[k], law.covariance(NEW), atol=1e-10)


# --- draws ---------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_draws_and_another_key_others(fitted):
    name, _, law = fitted
    first, again = law.sample(KEY, NEW), law.sample(KEY, NEW)
    np.testing.assert_array_equal(first, again)
    other = law.sample(jax.random.key(1), NEW)
    if name in ("MAP", *NETWORKS):  # known functions, with nothing left to chance
        np.testing.assert_array_equal(first, other)
    else:
        assert bool(jnp.all(first != other))


def test_a_law_comes_back_from_its_file_with_the_same_draws(fitted, tmp_path):
    *_, law = fitted
    nb.save_law(law, tmp_path / "law")
    again = nb.load_law(tmp_path / "law")
    assert jax.tree.structure(again) == jax.tree.structure(law)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(law), strict=True):
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.sample(KEY, NEW), law.sample(KEY, NEW))


def test_what_was_asked_of_a_law_leaves_its_tree_as_it_was(fitted):
    *_, law = fitted
    before = jax.tree.structure(jax.tree.map(lambda leaf: leaf, law))
    law.sample(KEY, NEW)
    law.covariance(NEW)
    assert jax.tree.structure(law) == before
    assert {*vars(law)} == {field.name for field in dataclasses.fields(law)}


def test_a_fit_is_deterministic(fitted):
    name, kind, law = fitted
    again = method(name, kind).fit(PRIOR, training_data(name, kind), key=KEY)
    np.testing.assert_array_equal(law.mean(NEW), again.mean(NEW))
    np.testing.assert_array_equal(law.sample(KEY, NEW), again.sample(KEY, NEW))
    assert law.info == again.info


@pytest.mark.parametrize("which", ["sample", "sample_marginals"])
def test_draws_have_the_mean_and_variance_of_the_law(fitted, which):
    name, _, law = fitted
    draws = np.array(getattr(law, which)(KEY, NEW, None if name in STORED else 4000))
    mean, variance = np.array(law.mean(NEW)), np.array(law.variance(NEW))
    np.testing.assert_allclose(np.diagonal(law.covariance(NEW), axis1=1, axis2=2), variance)
    if name == "MAP":
        np.testing.assert_allclose(draws, np.broadcast_to(mean, draws.shape), rtol=1e-12)
        np.testing.assert_array_equal(variance, 0)
        return
    # The stored draws' own values are shared by both sides, Markov chains included: what differs is
    # the conditional noise away from the data, which is independent between draws.
    count = len(draws)
    assert np.abs((draws.mean(0) - mean) / np.sqrt(variance / count)).max() < 4.5
    ratio = draws.var(axis=0, ddof=1) / variance
    assert np.abs(ratio - 1).max() < 4.5 * np.sqrt(2 / (count - 1))


def test_draws_of_a_point_and_its_copy_are_equal(fitted):
    name, _, law = fitted
    draws = np.array(law.sample(KEY, np.concatenate([NEW, NEW[::-1]]), 50))
    spread = np.sqrt(np.max(PRIOR.diagonal(NEW).ntk) / PRIOR.ridge)
    atol = 3e-2 * tolerance(name) * spread
    np.testing.assert_allclose(draws[:, :4], draws[:, :3:-1], rtol=0, atol=atol)


def test_marginal_draws_at_an_input_depend_on_no_other_input(fitted):
    name, _, law = fitted
    draws = np.array(law.sample_marginals(KEY, NEW, 50))
    # Real networks compute in single precision.
    tolerance = 1e-5 if name in NETWORKS else 1e-9
    for chosen in ([2], [3, 0]):
        alone = law.sample_marginals(KEY, NEW[chosen], 50)
        np.testing.assert_allclose(alone, draws[:, chosen], atol=tolerance)


def test_marginal_draws_at_training_points_are_joint_ones(fitted):
    name, kind, law = fitted
    known = DATA[kind].features
    marginal = law.sample_marginals(KEY, known, 50)
    np.testing.assert_allclose(marginal, law.sample(KEY, known, 50), atol=tolerance(name))


def test_draws_at_training_points_do_not_depend_on_what_else_is_asked(fitted):
    name, kind, law = fitted
    known = DATA[kind].features
    alone = law.sample(KEY, known, 50)
    jointly = law.sample(KEY, np.concatenate([known, NEW]), 50)
    np.testing.assert_allclose(jointly[:, : len(known)], alone, atol=tolerance(name))
    copied = law.sample(KEY, np.concatenate([NEW, known[:3]]), 50)
    np.testing.assert_allclose(copied[:, 4:], alone[:, :3], atol=tolerance(name))


@only("MAP", "random init")
def test_trained_functions_solve_training_at_their_training_points(fitted):
    name, kind, law = fitted
    targets = law.problem.targets
    f = law.sample(KEY, DATA[kind].features)
    alpha = law.alpha if name == "random init" else law.alpha[None]
    residual = jax.vmap(lambda f: law.problem.likelihood.residual(targets, f))(f)
    np.testing.assert_allclose(residual, 0.5 * alpha, atol=1e-4)


@only(*GAUSSIAN)
def test_nearby_draws_are_correlated_as_the_law_says(fitted):
    name, kind, law = fitted
    truth = dense_law(name, kind)
    np.testing.assert_allclose(law.mean(NEW), truth.mean, atol=1e-8)
    size = truth.mean.shape[1]
    np.testing.assert_allclose(
        law.covariance(NEW), oracle.blocks(truth.covariance, size), atol=1e-8
    )
    np.testing.assert_allclose(law.joint_covariance(NEW), truth.covariance, atol=1e-8)
    draws = law.sample(KEY, NEW, 4000)
    assert np.abs(oracle.mean_errors(draws, truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, truth)).max() < 4.5
    off_diagonal = truth.covariance[:size, size : 2 * size]
    assert np.abs(off_diagonal).max() > 0.02  # so that there is something to see


def dense_law(name, kind):
    data = DATA[kind]
    binary = kind == "binary"
    truth = oracle.Logistic() if binary else oracle.Softmax()
    targets = data.targets[:, 1:] if binary else data.targets
    kernels = oracle.Kernels.of(PRIOR, data.features, NEW)
    zeros = np.zeros_like(targets), np.zeros((len(NEW), targets.shape[1]))
    if name == "Laplace":
        grams = [part / 0.5 for part in kernels.ntk]
        return oracle.laplace(truth, *grams, targets, *zeros)[0]
    return oracle.first_order(truth, kernels, targets, *zeros, 0.5)


def test_the_number_of_draws_is_respected(fitted):
    name, kind, law = fitted
    outputs = 1 if kind == "binary" else 3
    assert law.sample(KEY, NEW, 7).shape == (7, 4, outputs)
    default = STORED.get(name, 1 if name == "MAP" else law.default_draws)
    assert law.sample(KEY, NEW).shape == (default, 4, outputs)
    assert law.num_chains == (2 if name in CHAINS else 1)


def test_more_draws_than_are_stored_or_none_at_all_are_refused(fitted):
    name, _, law = fitted
    if name in STORED:
        with pytest.raises(ConfigurationError, match=f"holds {STORED[name]} draws, 401 were asked"):
            law.sample(KEY, NEW, 401)
    for number in (0, -1):
        with pytest.raises(ConfigurationError, match="draws"):
            law.sample(KEY, NEW, number)
        with pytest.raises(ConfigurationError, match="draws"):
            law.sample_marginals(KEY, NEW, number)


@only(*STORED)
def test_fewer_stored_draws_are_evenly_spaced_over_the_chains(fitted):
    name, kind, law = fitted
    some = law.sample(KEY, DATA[kind].features, STORED[name] // 10)
    every = law.sample(KEY, DATA[kind].features)
    np.testing.assert_allclose(some, every[::10], atol=tolerance(name))


# --- marginals -----------------------------------------------------------------------------------


def test_the_law_at_some_inputs_is_the_marginal_of_the_law_at_all(fitted):
    _, _, law = fitted
    chosen = [2, 0]
    np.testing.assert_allclose(law.mean(NEW)[np.array(chosen)], law.mean(NEW[chosen]), atol=1e-10)
    np.testing.assert_allclose(
        law.covariance(NEW)[np.array(chosen)], law.covariance(NEW[chosen]), atol=1e-10
    )


def test_moments_are_the_mean_and_the_covariance(fitted):
    *_, law = fitted
    mean, covariance = law.moments(NEW)
    np.testing.assert_allclose(mean, law.mean(NEW), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(covariance, law.covariance(NEW), rtol=1e-12, atol=1e-12)


def test_covariances_are_symmetric_and_positive(fitted):
    name, _, law = fitted
    covariance = np.array(law.covariance(NEW))
    np.testing.assert_allclose(covariance, covariance.transpose(0, 2, 1), atol=1e-12)
    smallest = np.linalg.eigvalsh(covariance).min()
    assert smallest == 0 if name == "MAP" else smallest > 0


def test_the_joint_covariance_is_symmetric_and_has_the_covariances_inside(fitted):
    name, _, law = fitted
    joint = np.array(law.joint_covariance(NEW))
    size = law.problem.num_outputs
    precision = 1e-6 if name in NETWORKS else 1e-10  # real networks are in float32
    np.testing.assert_allclose(oracle.blocks(joint, size), law.covariance(NEW), atol=1e-10)
    np.testing.assert_allclose(joint, joint.T, atol=1e-10)
    some = np.array(law.joint_covariance(NEW[[2, 0]]))
    rows = np.concatenate([2 * size + np.arange(size), np.arange(size)])
    np.testing.assert_allclose(some, joint[np.ix_(rows, rows)], rtol=precision, atol=precision)


@pytest.mark.parametrize("what", ["mean", "variance", "covariance", "sample", "sample_marginals"])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((3, 3)), "trained on 2 features, got 3"),
        (np.zeros(2), r"must be a matrix \(n, d\), got shape \(2,\)"),
        (np.zeros((0, 2)), "give at least one point"),
        (np.array([[0.0, np.nan]]), "nan in row 0, column 'x1'"),
        (np.array([[1e300, 0.0]]), "squares overflow float64"),
    ],
)
def test_inputs_unlike_the_training_features_are_refused(fitted, what, features, message):
    _, _, law = fitted
    ask = getattr(law, what)
    with pytest.raises(DataError, match=message):
        ask(KEY, features) if what.startswith("sample") else ask(features)


def test_every_number_of_the_info_is_finite(fitted):
    _, _, law = fitted
    fields = dataclasses.asdict(law.info)
    assert fields
    assert all(np.isfinite(value) for value in fields.values())


# --- unusual data --------------------------------------------------------------------------------


def finite_at(law, inputs):
    draws, mean = np.array(law.sample(KEY, inputs)), np.array(law.mean(inputs))
    assert np.isfinite(draws).all()
    assert np.isfinite(mean).all()
    assert (np.array(law.variance(inputs)) >= 0).all()
    return mean


@pytest.mark.parametrize("name", [name for name in UNUSUAL if name != "tempered"])
def test_one_point_is_enough_if_the_classes_are_named(name):
    data = nb.Dataset([[1.0, 0.5]], ["b"], class_names=["a", "b"])
    law = fast(name).fit(PRIOR, data, key=KEY)
    mean = finite_at(law, np.array([[1.0, 0.5], [0.9, 0.5]]))
    if name not in (*SAMPLED_INITIALISATIONS, "prior"):  # there it is up to few initial functions
        assert (mean > 0).all()


@every_method
def test_duplicated_points_are_no_difficulty(name):
    data = training_data(name, "binary").take([0, 1, 2, 3, 4, 0, 1, 2, 0, 0])
    law = fast(name).fit(PRIOR, data, key=KEY)
    finite_at(law, np.concatenate([NEW, data.features]))


@pytest.mark.parametrize("name", RIDGELESS)
@pytest.mark.parametrize("kind", DATA)
def test_without_ridge_copies_with_different_targets_act_as_one_point_with_their_mean(name, kind):
    base = DATA[kind].smooth(0.2)
    chosen = [0, 1, 2, 3, 4, 5, 0, 1]
    targets = base.targets[chosen].copy()
    targets[6] = np.roll(targets[6], 1)
    targets[7] = 0.5 * targets[7] + 0.5 / targets.shape[1]
    data = nb.Dataset(base.features[chosen], targets)
    means = targets[:6].copy()
    means[0] = (targets[0] + targets[6]) / 2
    means[1] = (targets[1] + targets[7]) / 2
    merged = nb.Dataset(base.features[:6], means)

    prior = nb.NTKPrior(NETWORK, ridge=0.0)
    law = fast(name).fit(prior, data, key=KEY)
    finite_at(law, np.concatenate([NEW, data.features]))
    same = fast(name).fit(prior, merged, key=KEY)
    np.testing.assert_allclose(law.mean(NEW), same.mean(NEW), atol=1e-8)
    np.testing.assert_allclose(law.covariance(NEW), same.covariance(NEW), atol=1e-8)
    # Training reproduces those means.
    probabilities = law.problem.likelihood.probabilities(law.sample(KEY, merged.features))
    np.testing.assert_allclose(
        probabilities, np.broadcast_to(means, probabilities.shape), atol=1e-4
    )


@pytest.mark.parametrize("name", ["MAP", "first order", "Laplace", "pruned Laplace"])
def test_permuting_the_classes_permutes_the_law(name):
    data = DATA["3 classes"]
    order = [2, 0, 1]
    permuted = nb.Dataset(data.features, data.targets[:, order])
    law, other = (METHODS[name].fit(PRIOR, d) for d in (data, permuted))
    np.testing.assert_allclose(other.mean(NEW), law.mean(NEW)[:, np.array(order)], atol=1e-8)
    np.testing.assert_allclose(
        other.covariance(NEW), np.array(law.covariance(NEW))[:, order][:, :, order], atol=1e-8
    )


@pytest.mark.parametrize("name", ["MAP", "first order", "Laplace", "pruned Laplace"])
def test_swapping_two_classes_turns_the_sign_of_their_logit(name):
    data = DATA["binary"]
    law, other = (
        METHODS[name].fit(PRIOR, d)
        for d in (data, nb.Dataset(data.features, data.targets[:, ::-1]))
    )
    np.testing.assert_allclose(other.mean(NEW), -law.mean(NEW), atol=1e-8)
    np.testing.assert_allclose(other.variance(NEW), law.variance(NEW), atol=1e-8)


@pytest.mark.parametrize("name", [n for n in METHODS if n not in (*ONE_LOGIT, *CHAINS)])
def test_a_constant_added_to_all_logits_of_the_mean_changes_no_class_probability(name):
    # Of Markov chains rounding errors make others; their log density has the same differences.
    mean = np.array([0.5, -0.3, 0.1])
    draws = []
    for constant in (0.0, 7.0):
        prior = nb.NTKPrior(NETWORK, ridge=0.5, mean=mean + constant)
        law = method(name, "3 classes").fit(prior, training_data(name, "3 classes"), key=KEY)
        draws.append(law.sample(KEY, NEW, 50 if name != "MAP" else None))
    first, second = (jax.nn.softmax(f, axis=-1) for f in draws)
    tolerance = 2e-3 if name in NETWORKS else 1e-6  # it computes in float32
    np.testing.assert_allclose(second, first, rtol=0, atol=tolerance)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORED)
def test_methods_that_draw_need_a_key(name):
    with pytest.raises(ConfigurationError, match=r"give key=jax\.random\.key"):
        METHODS[name].fit(PRIOR, DATA["binary"])


@pytest.mark.parametrize(
    ("name", "kind"), [pair for pair in PAIRS if "deep ensemble" not in pair]
)  # which ends after its epochs
def test_one_hot_targets_without_ridge_are_refused(name, kind):
    with pytest.raises(RidgeError, match="ridge"):
        fast(name, kind).fit(nb.NTKPrior(NETWORK, ridge=0.0), DATA[kind], key=KEY)


@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriors_without_ridge_are_refused_whatever_the_targets(name):
    with pytest.raises(RidgeError, match="infinitely wide"):
        fast(name).fit(nb.NTKPrior(NETWORK, ridge=0.0), DATA["binary"].smooth(0.2), key=KEY)


@pytest.mark.parametrize("ridge", [-0.1, float("nan"), float("inf")])
def test_a_ridge_that_is_no_ridge_is_refused(ridge):
    with pytest.raises(ConfigurationError, match="the ridge must be at least 0"):
        nb.NTKPrior(NETWORK, ridge=ridge)


@pytest.mark.parametrize(
    "configure",
    [
        lambda: nb.RandomInit(num_inits=1),
        lambda: nb.RandomInit(training_time=-1.0),
        lambda: nb.MAP(training_time=float("nan")),
        lambda: nb.NUTS(num_samples=3),
        lambda: nb.NUTS(num_warmup=0),
        lambda: nb.NUTS(num_chains=0),
        lambda: nb.FiniteEnsemble(network=NETWORK, num_networks=1),
        lambda: nb.FiniteEnsemble(network=NETWORK, training_time=-1.0),
    ],
)
def test_settings_outside_their_range_are_refused(configure):
    with pytest.raises(ConfigurationError):
        configure()
