"""Errors of logits: what a solve states bounds what 60 digits show (THEORY 8)."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.optimize
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import extended_precision as exact

import ntkbayes as nb
from ntkbayes.errors import ConvergenceError
from ntkbayes.likelihood import Bernoulli, Categorical, Normal, Poisson
from ntkbayes.linalg import SharedGram
from ntkbayes.training.accuracy import error_bounds
from ntkbayes.training.linearised import solver_for, train
from ntkbayes.training.objective import Objective

COUNT = 12
RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((COUNT, 2))
GRAM = nb.NTKPrior(nb.networks.mlp(), ridge=1.0).gram(jnp.asarray(FEATURES)).ntk
LABELS = RNG.integers(0, 2, COUNT)  # noise: there is nothing to learn
NOISE = RNG.standard_normal((COUNT, 1))

BINARY = Bernoulli(), exact.Logistic(), LABELS[:, None].astype(float)
MULTICLASS = Categorical(), exact.Softmax(), np.eye(3)[RNG.integers(0, 3, COUNT)]


def real(size):
    return Normal(1.0), exact.Gaussian(1), size * NOISE


def counts(size):
    return Poisson(), exact.Count(), np.round(size * np.exp(NOISE))


PROBLEMS = {
    "binary": BINARY,
    "3 classes": MULTICLASS,
    **{f"real targets of {size:g}": real(size) for size in (1e-6, 1.0, 1e6)},
    **{f"counts of {size:g}": counts(size) for size in (1.0, 1e6)},
}
RIDGES = (1e-12, 1e-8, 1e-3, 1.0, 1e6)


def draws(objective, starts, centre, **settings):
    """The trained predictors from many initial functions around a centre."""
    return solver_for(objective, centre=centre, **settings).solve(objective, starts)


def errors(truth, gram, targets, initial, a, logits):
    """By how much the logits are off, at most, beside the exact solution and its log determinant."""
    f, exact_a, log_determinant = exact.trained(truth, np.asarray(gram), targets, initial, a)
    apart = [abs(mpmath.mpf(float(v)) - w) for v, w in zip(logits.ravel(), f.ravel(), strict=True)]
    return float(max(apart)), (f, exact_a, log_determinant)


@pytest.mark.parametrize("ridge", RIDGES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_stated_error_of_logits_bounds_that_to_60_digits(name, ridge):
    likelihood, truth, targets = PROBLEMS[name]
    zero = jnp.zeros(targets.shape)
    found = train(Objective(likelihood, GRAM, jnp.asarray(targets), ridge), zero)
    given = truth, GRAM / ridge, targets, np.asarray(zero), ridge * np.asarray(found.alpha)
    error, _ = errors(*given, np.asarray(found.logits))
    assert error <= found.logit_error
    # ... and Newton's method goes on to round-off.
    assert found.logit_error <= 1e-9 * np.sqrt(np.mean(np.asarray(found.logits) ** 2))


@pytest.mark.parametrize("name", ["binary", "3 classes", "counts of 1"])
@pytest.mark.parametrize("ridge", [1e-8, 0.1])
def test_the_stated_error_of_draws_bounds_that_to_60_digits(name, ridge):
    likelihood, truth, targets = PROBLEMS[name]
    zero = jnp.zeros(targets.shape)
    starts = jax.random.normal(jax.random.key(1), (3, *targets.shape))
    given = likelihood, GRAM, jnp.asarray(targets)
    centre = train(Objective(*given, ridge), zero)
    many = draws(Objective(*given, ridge), starts, centre)
    for start, alpha, stated in zip(starts, many.alpha, many.logit_error, strict=True):
        f = np.asarray(start + GRAM @ alpha)
        start = np.asarray(start)
        error, _ = errors(truth, GRAM / ridge, targets, start, ridge * np.asarray(alpha), f)
        assert error <= stated <= 1e-6 * max(np.sqrt(np.mean(f**2)), likelihood.unit)


@pytest.mark.parametrize(
    ("name", "size", "ridge"),
    [*(("wine", 12, ridge) for ridge in (1e-12, 1e-6, 1.0, 1e6)), ("digits", 10, 1e-12)],
)
def test_the_stated_error_of_data_as_they_come_bounds_that_to_60_digits(name, size, ridge):
    """Not standardised: Θ of wine reaches 1e6, and Θ/ridge 1e18."""
    data = nb.datasets.load(name).subset(jax.random.key(0), size)
    pair = nb.NTKPrior(nb.networks.mlp(), ridge=1.0).gram(jnp.asarray(data.features))
    targets, gram = jnp.asarray(data.targets), pair.ntk
    objective, theta = Objective(Categorical(), gram, targets, ridge), np.asarray(gram.dense())
    mean = np.zeros(targets.shape)

    def error(initial, alpha):
        given = exact.Softmax(), theta / ridge, data.targets, initial, ridge * np.asarray(alpha)
        return errors(*given, initial + theta @ np.asarray(alpha))[0]

    found = train(objective, jnp.asarray(mean))
    assert error(mean, found.alpha) <= found.logit_error <= 1e-9
    if name == "wine":
        root = np.linalg.cholesky(pair.nngp.dense())
        starts = np.einsum(
            "ij,sjc->sic", root, np.random.default_rng(1).standard_normal((3, *mean.shape))
        )
        many = draws(objective, jnp.asarray(starts), found)
        for initial, alpha, stated in zip(starts, many.alpha, many.logit_error, strict=True):
            assert error(initial, alpha) <= stated <= 1e-3


def test_what_float64_cannot_reach_is_an_error_that_says_so():
    likelihood, _, targets = MULTICLASS
    objective = Objective(likelihood, GRAM, jnp.asarray(targets), 1e-3)
    with pytest.raises(ConvergenceError, match="tolerance 1e-17 of it: the limit of float64"):
        train(objective, jnp.zeros(targets.shape), tolerance=1e-17)


@settings(deadline=None, max_examples=30)
@example(kind="3 classes", log_ridge=-5.75, scale=0.1, seed=0)  # W of round-off was negative
@given(
    kind=st.sampled_from(["binary", "3 classes"]),
    log_ridge=st.floats(-6, 2),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
def test_the_bound_on_errors_of_draws_is_one_and_at_most_twice_the_energy_where_it_knows_the_curvature(
    kind, log_ridge, scale, seed
):
    likelihood, _, targets = PROBLEMS[kind]
    rng = np.random.default_rng(seed)
    n, size = targets.shape
    weight = jnp.asarray(10.0**log_ridge)
    gram = np.asarray((GRAM / weight).every_output(size))
    centre, f = scale * rng.standard_normal((2, 1, n, size))
    e = 1e-6 * np.asarray(likelihood.project(jnp.asarray(rng.standard_normal((1, n, size)))))
    a = e + np.asarray(likelihood.residual(jnp.asarray(targets), jnp.asarray(f[0])))[None]

    objective = Objective(likelihood, GRAM, jnp.asarray(targets), weight)

    def bound_at(centre):
        steps = objective.preconditioner(jnp.asarray(centre), num_draws=1, dtype=jnp.float64)
        initial, a_, f_ = (jnp.asarray(v) for v in (f, a, f))
        _, proposed = steps.apply(jnp.asarray(e), likelihood.project)
        return float(error_bounds(objective, initial, proposed, a_, f_)[1][0])

    blocks = np.asarray(likelihood.curvature(jnp.asarray(targets), jnp.asarray(f[0])).blocks)
    w = np.zeros((n, size, n, size))
    w[np.arange(n), :, np.arange(n), :] = blocks
    step = np.linalg.solve(np.eye(n * size) + gram @ w.reshape(n * size, -1), gram @ e.ravel())
    energy = np.sqrt(max(e.ravel() @ step, 0) * gram.max())
    assert np.abs(step).max() <= 1.001 * bound_at(centre[0])
    if kind == "binary" and scale <= 1:  # where the preconditioner at f itself is Σ
        assert bound_at(f[0]) <= 2 * energy + 1e-12 * np.abs(f).max()


# --- steps without a slope -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (np.ones((30, 1)), np.arange(30) % 2),
        (np.repeat(np.arange(15.0), 2)[:, None], np.arange(30) % 2),
    ],
    ids=["one point", "every point"],
)
def test_balanced_labels_at_every_point_leave_the_function_as_it_was(features, labels):
    prior = nb.NTKPrior(nb.networks.mlp(), ridge=0.1)
    data = nb.Dataset(features, labels)
    for method in (nb.MAP(), nb.Laplace()):
        law = method.fit(prior, data)
        np.testing.assert_allclose(law.mean(features), 0, atol=1e-12)
        np.testing.assert_allclose(law.alpha, (data.targets[:, 1:] - 0.5) / 0.1, atol=1e-12)


def test_balanced_labels_give_every_draw_its_answer():
    prior = nb.NTKPrior(nb.networks.mlp(), ridge=0.1)
    data = nb.Dataset(np.ones((30, 1)), np.arange(30) % 2)
    law = nb.RandomInit(num_inits=20).fit(prior, data, key=jax.random.key(0))
    # All points are one, of 30 labels with half of them 1: f = g + P (15 − 30 σ(f)).
    p = float(prior.gram(jnp.ones((1, 1))).ntk.dense()[0, 0]) / 0.1
    f = np.asarray(law.sample(jax.random.key(1), np.ones((1, 1))))[:, 0, 0]
    expected = [
        scipy.optimize.brentq(lambda f, g=g: f - g - p * (15 - 30 / (1 + np.exp(-f))), -9, 9)
        for g in np.asarray(law.g.values)[:, 0, 0]
    ]
    np.testing.assert_allclose(f, expected, atol=1e-5)


def test_a_kernel_of_zeros_leaves_the_prior():
    gram, targets = SharedGram(jnp.zeros((COUNT, COUNT))), jnp.asarray(MULTICLASS[2])
    starts = jax.random.normal(jax.random.key(0), (2, *targets.shape))
    given = Categorical(), gram, targets
    centre = train(Objective(*given, 0.1), jnp.zeros_like(targets))
    many = draws(Objective(*given, 0.1), starts, centre)
    np.testing.assert_allclose(0.1 * centre.alpha, targets - 1 / 3, atol=1e-15)
    np.testing.assert_allclose(0.1 * many.alpha, targets[None] - jax.nn.softmax(starts), atol=1e-14)
    assert centre.logit_error == 0


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [1e-3, 1.0, float("inf")])
def test_in_other_units_of_targets_and_noise_training_is_the_same(time):
    def mean(unit):
        data = nb.Dataset.real(FEATURES, unit * NOISE)
        prior = nb.NTKPrior(
            nb.networks.mlp(), ridge=1 / unit**2
        )  # its noise is in these units, too
        method = nb.MAP(training_time=time * unit**2)
        return np.asarray(method.fit(prior, data, likelihood=Normal(unit)).mean(FEATURES)) / unit

    one = mean(1.0)
    for unit in (1e-6, 1e6):
        np.testing.assert_allclose(mean(unit), one, rtol=1e-5, atol=1e-6 * np.abs(one).max())


def test_without_ridge_targets_of_any_size_are_reproduced():
    for size in (1e-6, 1.0, 1e6):
        data = nb.Dataset.real(FEATURES, size * NOISE)
        law = nb.MAP().fit(nb.NTKPrior(nb.networks.mlp(), ridge=0.0), data)
        np.testing.assert_allclose(law.mean(FEATURES), size * NOISE, rtol=1e-9)
        assert law.info.logit_error <= 1e-9 * size


@pytest.mark.parametrize("ridge", [1e-10, 1e-12])
def test_evidence_of_tiny_ridges_is_that_of_60_digits(ridge):
    features = np.random.default_rng(0).standard_normal((COUNT, 2))
    data = nb.Dataset(features, LABELS)
    prior = nb.NTKPrior(nb.networks.mlp(), ridge=ridge)
    law = nb.Laplace().fit(prior, data)
    gram = np.asarray(prior.gram(jnp.asarray(features)).ntk) / ridge
    zero = np.zeros((COUNT, 1))
    targets = np.asarray(data.targets)[:, 1:]
    _, solution = errors(
        exact.Logistic(), gram, targets, zero, ridge * np.asarray(law.alpha), np.asarray(law.logits)
    )
    expected = float(exact.laplace_evidence(exact.Logistic(), targets, zero, *solution))
    assert law.info.log_evidence == pytest.approx(expected, abs=1e-6)
    assert nb.log_evidence(prior, data) == pytest.approx(expected, abs=1e-6)


def test_residuals_of_classes_keep_their_digits_where_a_class_is_certain():
    logits = jnp.asarray([[50.0, 0.0, -3.0], [0.0, 0.0, 80.0], [1.0, 2.0, 0.5]])
    targets = jnp.eye(3)[jnp.asarray([0, 2, 1])]
    with mpmath.workdps(exact.DIGITS):
        rows = [
            exact.Softmax().residual_and_curvature(
                [mpmath.mpf(float(v)) for v in y], [mpmath.mpf(float(v)) for v in f]
            )[0]
            for y, f in zip(targets, logits, strict=True)
        ]
    expected = np.array(rows, dtype=float)
    np.testing.assert_allclose(Categorical().residual(targets, logits), expected, rtol=1e-14)
    f = jnp.asarray([[40.0], [-40.0]])
    np.testing.assert_allclose(
        Bernoulli().residual(jnp.asarray([[1.0], [0.0]]), f), np.exp(-40.0) * np.array([[1], [-1]])
    )
