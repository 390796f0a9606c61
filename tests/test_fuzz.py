"""Whatever the data: finite numbers, or an error that says what to do.

Some two hundred cases; `make fuzz` runs ten thousand.
"""

import dataclasses
import tempfile
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import ntkbayes as nb
from ntkbayes.errors import ConvergenceWarning, DataWarning, NTKBayesError

KEY = jax.random.key(4)
NUM_CASES = settings.default.max_examples
METHODS = {
    "MAP": nb.MAP(),
    "random init": nb.RandomInit(num_inits=3),
    "perturbed init": nb.PerturbedInit(num_inits=3),
    "first order": nb.FirstOrder(),
    "Laplace": nb.Laplace(),
    "pruned Laplace": nb.PrunedLaplace(),
    "mean field": nb.MeanField(tolerance=1e-5),
    "EP": nb.ExpectationPropagation(tolerance=1e-5),
    "Dirichlet GP": nb.DirichletGP(),
}
# Few shapes, as each is compiled anew, and a process cannot hold many programs (see conftest.py): one
# point, a point a class, and some of each.
SHAPES = [(1, 1, 2), (3, 2, 3), (7, 2, 3), (6, 2, 2)]
OF_NUMBERS = (7, 2, 1)
ARRANGEMENTS = [
    "apart",
    "copies",
    "collinear",
    "origin",
    "nearly copies",
    "one point",  # a constant feature, and nothing else
    "constant feature",
    "balanced",  # every label at every distinct input: no slope
    "XOR",
]


def fuzzed(share):
    """Some of the cases of a run."""
    return settings(
        max_examples=max(1, int(NUM_CASES * share)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def outcome(work):
    """What some work gives; None if it is refused, with a message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataWarning)
        try:
            return work()
        except NTKBayesError as error:
            if not str(error):
                raise
            return None


def powers(low, high):
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem in a few numbers, made by `problem_of`."""

    shape: tuple[int, int, int]
    seed: int
    arrangement: str
    scale: float
    is_rare: bool
    softness: float
    ridge: float
    activation: str
    weight_std: float
    bias_std: float
    targets: str = "classes"
    unit: float = 1.0  # of real targets, and of counts where it is above 1
    is_noise_of_unit: bool = True


CASES = st.builds(
    Case,
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**32 - 1),
    arrangement=st.sampled_from(ARRANGEMENTS),
    scale=powers(-8, 8),
    is_rare=st.booleans(),
    softness=st.sampled_from([0.0, 1e-300, 1e-12, 1e-3, 0.5, 1.0]),
    ridge=st.one_of(st.just(0.0), powers(-8, 8)),
    activation=st.sampled_from(["erf", "relu"]),
    weight_std=powers(-1, 1),
    bias_std=st.one_of(st.just(0.0), powers(-3, 1)),
    targets=st.sampled_from(["classes", "classes", "real", "counts"]),
    unit=powers(-6, 6),
    is_noise_of_unit=st.booleans(),
)


def problem_of(case):
    """A prior, data and their likelihood: any scale and unit, repeated and collinear points, problems
    without a slope, extreme ridges, rare classes, soft targets near the boundary."""
    count, width, classes = case.shape if case.targets == "classes" else OF_NUMBERS
    rng = np.random.default_rng(case.seed)
    features = arranged(rng.normal(size=(count, width)), case.arrangement, rng, classes)
    network = nb.networks.mlp(
        depth=1,
        activation=case.activation,
        weight_std=case.weight_std,
        bias_std=case.bias_std,
    )
    prior = nb.NTKPrior(network, ridge=case.ridge)
    if case.targets == "real":
        noise = jnp.asarray(case.unit if case.is_noise_of_unit else 1.0)
        data = nb.Dataset.real(case.scale * features, case.unit * rng.normal(size=count))
        return prior, data, nb.likelihood.Normal(noise)
    if case.targets == "counts":
        data = nb.Dataset.real(case.scale * features, rng.poisson(max(case.unit, 1.0), size=count))
        return prior, data, nb.likelihood.Poisson()
    labels = rng.integers(0, classes, count)
    if case.arrangement == "balanced":
        labels = np.arange(count) % classes
    elif case.arrangement == "XOR":
        labels = (np.arange(count) % 4 // 2 + np.arange(count)) % 2
    elif case.is_rare:  # all but a point a class are of one class
        labels = np.where(np.arange(count) < classes, np.arange(count) % classes, 0)
    targets = (1 - case.softness) * np.eye(classes)[labels] + case.softness / classes
    data = nb.Dataset(case.scale * features, targets, class_names=range(classes))
    return prior, data, nb.likelihood.default_likelihood(data)


def arranged(features, arrangement, rng, classes):
    count = len(features)
    if arrangement == "copies":
        features = features[rng.integers(0, (count + 1) // 2, count)]
    elif arrangement == "collinear":
        features = rng.normal(size=(count, 1)) * features[:1]
    elif arrangement == "origin":
        features[0] = 0
    elif arrangement == "nearly copies":
        features = features[:1] + 1e-9 * features
    elif arrangement == "one point":
        features = np.repeat(features[:1], count, axis=0)
    elif arrangement == "constant feature":
        features[:, -1] = 1
    elif arrangement == "balanced":
        features = features[np.arange(count) // classes]
    elif arrangement == "XOR":
        corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        features = corners[np.arange(count) % 4, : features.shape[1]]
    return features


# A prior so wide, and singular, that no factor exists.
WIDE = Case((3, 2, 3), 0, "copies", 1e7, False, 1.0, 1e-4, "relu", 1.0, 0.0)

# A point so large that erf's determinant at its opposite was lost in round-off.
LARGE = Case((1, 1, 2), 73897583, "apart", 10.0**7.625, False, 1e-300, 1e-4, "erf", 1.0, 0.0)

# Features so large that the preconditioner sees nothing of the error of a draw's logits.
UNSEEN = Case((1, 1, 2), 428363620, "apart", 1e8, False, 0.0, 0.1, "relu", 1.0, 0.0)

# Labels that have no slope at the prior's mean.
SLOPELESS = Case((6, 2, 2), 0, "balanced", 1.0, False, 0.0, 0.1, "relu", 1.0, 0.1)

MILLIONS = Case(OF_NUMBERS, 0, "apart", 1.0, False, 0.0, 0.1, "relu", 1.0, 0.1, "real", 1e6, False)
COUNTS = dataclasses.replace(MILLIONS, targets="counts")


@pytest.mark.parametrize("name", METHODS)
@example(case=WIDE)
@example(case=LARGE)
@example(case=UNSEEN)
@example(case=SLOPELESS)
@example(case=MILLIONS)
@example(case=COUNTS)
@fuzzed(0.2)
@given(case=CASES)
def test_a_law_is_finite_or_refused(name, case):
    prior, data, likelihood = problem_of(case)
    new = np.concatenate([data.features[:1], data.features[-1:] + 1.0, -3 * data.features[:1]])

    def work():
        law = METHODS[name].fit(prior, data, key=KEY, likelihood=likelihood)
        draws, moments = law.sample(KEY, new, 3), (law.mean(new), law.variance(new))
        probabilities = np.ones((3, 3, 1))
        if case.targets == "classes":
            probabilities = nb.predictions.predict_probabilities(law, new, key=KEY, num_draws=3)
        return law.problem.num_outputs, *map(np.asarray, (draws, *moments, probabilities))

    found = outcome(work)
    if found is None:
        return
    num_outputs, draws, mean, variance, probabilities = found
    assert draws.shape == (3, *mean.shape)
    assert mean.shape == variance.shape == (3, num_outputs)
    assert np.isfinite(draws).all()
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()
    assert (variance >= -1e-6 * (1 + np.abs(variance).max())).all()
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1.0, atol=1e-9)


# --- what data say of themselves -------------------------------------------------------------------

POINTS = np.random.default_rng(0).normal(size=(6, 3)) * [1.0, 30.0, 0.1] + [0.0, 100.0, 3.0]
LABELS = np.arange(6) % 2
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    str.strip
)
NAMES = st.lists(TEXT, min_size=3, max_size=3, unique=True)
SCALINGS = [
    None,
    nb.datasets.Scaling.fit(POINTS),
    nb.datasets.Scaling(np.array([1.0, 50.0, 2.0]), np.array([3.0, 4.0, 5.0])),
]
WAYS = {  # of giving the same points to a law
    "data set": lambda frame, values: nb.Dataset(frame, LABELS),
    "frame": lambda frame, values: frame,
    "array": lambda frame, values: values,
    "masked": lambda frame, values: np.ma.masked_array(values, mask=values == values.max()),
    "no names": lambda frame, values: pd.DataFrame(values),
}


@fuzzed(0.1)
@given(
    names=NAMES,
    others=st.one_of(st.none(), NAMES),
    order=st.permutations(range(3)),
    dropped=st.booleans(),
    way=st.sampled_from(sorted(WAYS)),
    of_law=st.sampled_from(SCALINGS),
    of_data=st.sampled_from(SCALINGS),
)
def test_names_and_scale_are_obeyed_or_refused(names, others, order, dropped, way, of_law, of_data):
    columns = names if others is None else others
    assume(others is None or set(others) != set(names))
    if way in ("array", "masked", "no names"):
        order, of_data = list(range(3)), of_law  # these go by position, on the law's own scale
    elif way != "data set":
        of_data = of_law  # names, but no scale, are all that a frame states
    # Names are those of the points, whatever the order that they are given in.
    raw = nb.Dataset(POINTS, LABELS, feature_names=names)
    law = nb.MAP().fit(PRIOR, raw.rescaled(of_law))
    values = raw.rescaled(of_data).features
    frame = pd.DataFrame(values, columns=columns).iloc[:, list(order)]
    given_data = WAYS[way](frame.iloc[:, :2] if dropped else frame, values)
    if isinstance(given_data, nb.Dataset) and of_data is not None and not dropped:
        given_data = nb.Dataset(frame, LABELS, scaling=of_data.take(np.array(order)))
    mean = outcome(lambda: np.asarray(law.mean(given_data)))
    if mean is None:
        is_alike = others is None and not dropped and way == "data set"
        assert not (is_alike and (of_law is None) == (of_data is None))
        return
    assert way != "masked"
    assert not dropped or way in ("array", "no names")
    assert others is None or way in ("array", "no names")
    expected = np.asarray(law.mean(raw.rescaled(of_law).features))
    np.testing.assert_allclose(mean, expected, rtol=1e-7, atol=1e-7)


DTYPES = st.sampled_from(
    ["f2", "f4", "f8", "g", "i1", "u1", "i8", "u8", "?", "O", "U8", "c16", "M8[D]", jnp.bfloat16]
)


@fuzzed(0.08)
@given(
    kind=DTYPES,
    cells=st.lists(
        st.sampled_from([-1.5, 0.0, 1.0, 2.5, 3e4, 1e39, 1e200, np.nan, np.inf]),
        min_size=6,
        max_size=6,
    ),
    of_labels=st.sampled_from(["i8", "f8", "f2", "?", "U4", "O", "mask", "Categorical"]),
    mask=st.integers(0, 63),
)
def test_numbers_of_any_type_are_read_as_they_are_or_refused(kind, cells, of_labels, mask):
    masked = np.array([mask >> i & 1 for i in range(6)], bool).reshape(3, 2)
    labels = [0, 1, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of the casts made here
        given_cells = np.array(cells).reshape(3, 2).astype(kind)
        if mask % 3 == 0:
            given_cells = np.ma.masked_array(given_cells, mask=masked)
        if of_labels == "mask":
            given_labels = np.ma.masked_array(labels, mask=masked[:, 0])
        elif of_labels == "Categorical":
            given_labels = pd.Categorical(labels, categories=[1, 0], ordered=True)
        else:
            given_labels = np.array(labels).astype(of_labels)
    data = outcome(lambda: nb.Dataset(given_cells, given_labels))
    if data is None:
        return
    assert not np.ma.is_masked(given_cells)
    assert not np.ma.is_masked(given_labels)
    np.testing.assert_array_equal(data.features, np.asarray(given_cells).astype(np.float64))
    assert [int(data.class_names[c]) for c in data.labels] == labels
    mean = outcome(lambda: np.asarray(nb.MAP().fit(PRIOR, data).mean(given_cells)))
    if mean is None:
        return
    assert mean.shape == (3, 1)
    assert np.isfinite(mean).all()


# --- names on disk ---------------------------------------------------------------------------------

LAW_NAMES = st.one_of(
    TEXT, st.sampled_from(["MAP", "map", "M/A P", "α", "β", "..", "a/../b", "CON", "é", "e\u0301"])
)


@fuzzed(0.02)
@given(names=st.lists(LAW_NAMES, min_size=2, max_size=3, unique=True), classes=NAMES)
@example(names=["MAP", "map"], classes=["a", "b", "c"])
@example(names=["α", "β"], classes=["ü", "U", "u"])
def test_laws_come_back_from_disk_under_their_names_or_are_refused(names, classes):
    rng = np.random.default_rng(0)
    # Class names that nobody could see or tell apart are refused.
    test = outcome(lambda: nb.Dataset(POINTS, np.array(classes, dtype=object)[np.arange(6) % 3]))
    if test is None:
        return
    laws = {
        name: nb.predictions.predictions_from_probabilities(
            name, rng.dirichlet(np.ones(3), 6), test, key=KEY, num_draws=2
        )
        for name in names
    }

    def work(folder):
        nb.save(nb.compare(laws, test, key=KEY), folder)
        return nb.load(folder)

    with tempfile.TemporaryDirectory() as folder:
        found = outcome(lambda: work(folder))
    if found is None:
        return
    assert list(found.predictions) == names
    for name in names:
        assert found.predictions[name].class_names == test.class_names
        np.testing.assert_array_equal(
            found.predictions[name].probabilities, laws[name].probabilities
        )
