"""Whatever the data: finite numbers, or an error that says what to do.

Some two hundred cases; `make fuzz` runs over ten thousand.
"""

import dataclasses
import warnings

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ntkbayes as nb
from ntkbayes.errors import ConvergenceWarning, DataWarning, NTKBayesError

KEY = jax.random.key(4)
NUM_CASES = settings.default.max_examples // 4  # of each law
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


CASES = st.builds(
    Case,
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**32 - 1),
    arrangement=st.sampled_from(["apart", "copies", "collinear", "origin", "nearly copies"]),
    scale=powers(-8, 8),
    is_rare=st.booleans(),
    softness=st.sampled_from([0.0, 1e-300, 1e-12, 1e-3, 0.5, 1.0]),
    ridge=st.one_of(st.just(0.0), powers(-8, 8)),
    activation=st.sampled_from(["erf", "relu"]),
    weight_std=powers(-1, 1),
    bias_std=st.one_of(st.just(0.0), powers(-3, 1)),
)


def problem_of(case):
    """A prior and data: any scale, repeated and collinear points, extreme ridges, rare classes, soft
    targets near the boundary."""
    count, width, classes = case.shape
    rng = np.random.default_rng(case.seed)
    features = rng.normal(size=(count, width))
    if case.arrangement == "copies":
        features = features[rng.integers(0, (count + 1) // 2, count)]
    elif case.arrangement == "collinear":
        features = rng.normal(size=(count, 1)) * features[:1]
    elif case.arrangement == "origin":
        features[0] = 0
    elif case.arrangement == "nearly copies":
        features = features[:1] + 1e-9 * features
    labels = rng.integers(0, classes, count)
    if case.is_rare:  # all but a point a class are of one class
        labels = np.where(np.arange(count) < classes, np.arange(count) % classes, 0)
    targets = (1 - case.softness) * np.eye(classes)[labels] + case.softness / classes
    network = nb.networks.mlp(
        depth=1,
        activation=case.activation,
        weight_std=case.weight_std,
        bias_std=case.bias_std,
    )
    data = nb.Dataset(case.scale * features, targets, class_names=range(classes))
    return nb.NTKPrior(network, ridge=case.ridge), data


# A prior so wide, and singular, that no factor exists.
WIDE = Case((3, 2, 3), 0, "copies", 1e7, False, 1.0, 1e-4, "relu", 1.0, 0.0)

# A point so large that erf's determinant at its opposite was lost in round-off.
LARGE = Case((1, 1, 2), 73897583, "apart", 10.0**7.625, False, 1e-300, 1e-4, "erf", 1.0, 0.0)


@pytest.mark.parametrize("name", METHODS)
@example(case=WIDE)
@example(case=LARGE)
@settings(
    max_examples=NUM_CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=CASES)
def test_a_law_is_finite_or_refused(name, case):
    prior, data = problem_of(case)
    new = np.concatenate([data.features[:1], data.features[-1:] + 1.0, -3 * data.features[:1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataWarning)
        try:
            law = METHODS[name].fit(prior, data, key=KEY)
            draws, mean = np.asarray(law.sample(KEY, new, 3)), np.asarray(law.mean(new))
            variance = np.asarray(law.variance(new))
            probabilities = nb.predictive.predict_probabilities(law, new, key=KEY, num_draws=3)
        except NTKBayesError:
            return
    assert np.isfinite(draws).all()
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()
    assert (variance >= -1e-6 * (1 + np.abs(variance).max())).all()
    np.testing.assert_allclose(np.asarray(probabilities).sum(axis=-1), 1.0, atol=1e-9)
