"""Predictions of numbers against closed forms, quadrature, and simulated truth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle
from scipy import integrate, special, stats

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.likelihood import LogConcave, Normal, Poisson
from ntkbayes.predictions import NumberPredictions, predict
from ntkbayes.scores.distributions import NormalMixture, Normals, PoissonMixture, Samples

KEY = jax.random.key(0)
RIDGE, NOISE, MEAN = 0.5, 0.7, 0.4
PRIOR = nb.NTKPrior(
    nb.networks.mlp(depth=1, activation="erf", weight_std=1.2, bias_std=0.5), ridge=RIDGE, mean=MEAN
)
RNG = np.random.default_rng(5)
X, X_NEW = RNG.normal(size=(20, 2)), RNG.normal(size=(12, 2))
TRAIN = nb.Dataset.real(X, np.sin(2 * X[:, 0]) + 0.3 * RNG.normal(size=20))
TEST = nb.Dataset.real(X_NEW, np.sin(2 * X_NEW[:, 0]) + 0.3 * RNG.normal(size=12))
COUNTS = nb.Dataset.real(X, RNG.poisson(np.exp(X[:, 0])))
NEW_COUNTS = nb.Dataset.real(X_NEW, RNG.poisson(np.exp(X_NEW[:, 0])))


def ntk(x1, x2):
    return np.asarray(PRIOR.cross(x1, x2).ntk) / RIDGE


@pytest.fixture(scope="module")
def exact():
    return oracle.gp_regression(
        ntk(X, X), ntk(X, X_NEW), ntk(X_NEW, X_NEW), TRAIN.targets, MEAN, MEAN, NOISE
    )[0]


def test_a_gaussian_law_with_a_normal_likelihood_predicts_as_gp_regression(exact):
    law = nb.Laplace().fit(PRIOR, TRAIN, likelihood=Normal(NOISE))
    found = predict(law, TEST, key=KEY)
    assert isinstance(found, NumberPredictions)
    assert isinstance(found.distributions, Normals)
    np.testing.assert_allclose(found.distributions.mean, exact.mean, atol=1e-9)
    np.testing.assert_allclose(found.distributions.variance, exact.variance + NOISE**2, rtol=1e-9)
    truth = stats.norm(exact.mean, np.sqrt(exact.variance + NOISE**2))
    np.testing.assert_allclose(found.pointwise_elpd, truth.logpdf(TEST.targets)[:, 0], atol=1e-9)
    np.testing.assert_allclose(found.pit.upper, truth.cdf(TEST.targets), atol=1e-9)
    for end, level in zip(found.interval(0.8), (0.1, 0.9), strict=True):
        np.testing.assert_allclose(end, truth.ppf(level), atol=1e-8)
    np.testing.assert_allclose(found.uncertainty.epistemic, exact.variance[:, 0], rtol=1e-8)
    np.testing.assert_allclose(found.uncertainty.aleatoric, NOISE**2)


def test_a_point_has_the_noise_alone(exact):
    found = predict(nb.MAP().fit(PRIOR, TRAIN, likelihood=Normal(NOISE)), TEST, key=KEY)
    truth = stats.norm(exact.mean, NOISE)
    np.testing.assert_allclose(found.pointwise_elpd, truth.logpdf(TEST.targets)[:, 0], atol=1e-8)
    np.testing.assert_allclose(found.distributions.mean, exact.mean, atol=1e-8)
    assert (found.uncertainty.epistemic == 0).all()


def test_draws_of_the_posterior_are_a_mixture_near_the_closed_form(exact):
    method = nb.ImportanceCorrected(nb.Laplace())
    law = method.fit(PRIOR, TRAIN, key=KEY, likelihood=Normal(NOISE))
    found = predict(law, TEST, key=KEY)
    assert isinstance(found.distributions, NormalMixture)
    closed = Normals(exact.mean, exact.variance, np.full((12, 1), NOISE**2))
    error = np.sqrt(exact.variance / len(found.logits))
    assert (np.abs(found.distributions.mean - exact.mean) < 5 * error).all()
    np.testing.assert_allclose(
        found.distributions.crps(TEST.targets), closed.crps(TEST.targets), atol=5 * error.max()
    )
    by_hand = stats.norm.logpdf(TEST.targets[None], found.logits, NOISE)[..., 0]
    mean = special.logsumexp(by_hand, axis=0) - np.log(len(by_hand))
    np.testing.assert_allclose(found.pointwise_elpd, mean, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2])
def test_the_density_of_counts_is_that_of_brute_force_quadrature(count):
    train = nb.Dataset.real(X[:count], COUNTS.targets[:count])
    law = nb.Laplace().fit(PRIOR, train, likelihood=Poisson())
    found = predict(law, NEW_COUNTS, key=KEY)
    for point in range(0, 12, 4):
        m, v = found.mean[point, 0], found.variance[point, 0]
        y, reach = NEW_COUNTS.targets[point, 0], 12 * np.sqrt(v)
        mass = integrate.quad(
            lambda f, y=y, m=m, v=v: stats.poisson.pmf(y, np.exp(f)) * stats.norm.pdf(f, m, v**0.5),
            m - reach,
            m + reach,
            points=[m],
            limit=400,
        )[0]
        np.testing.assert_allclose(found.log_densities[point], np.log(mass), atol=1e-7)
    # The posterior itself, on a grid of the whitened logits at the training points.
    method = nb.ImportanceCorrected(nb.Laplace())
    drawn = predict(method.fit(PRIOR, train, key=KEY, likelihood=Poisson()), NEW_COUNTS, key=KEY)
    assert isinstance(drawn.distributions, PoissonMixture)
    exact, error = posterior_predictive(train, drawn)
    assert (np.abs(np.exp(drawn.log_densities) - exact) < 5 * error).all()


def posterior_predictive(train, drawn):
    """P(y | data) at the new points by quadrature, and the Monte Carlo error of as many draws."""
    nodes = np.linspace(-7, 7, 141)
    root = np.linalg.cholesky(ntk(train.features, train.features))
    grid = np.stack(np.meshgrid(*[nodes] * train.num_points, indexing="ij"), axis=-1)
    white = grid.reshape(-1, train.num_points)
    f = MEAN + white @ root.T
    weight = np.exp(-(white**2).sum(axis=1) / 2)
    weight *= np.exp(stats.poisson.logpmf(train.targets[:, 0], np.exp(f)).sum(axis=1))
    weight /= weight.sum()
    map_ = np.linalg.solve(root, ntk(train.features, X_NEW))  # of white to new logits
    left = np.diag(ntk(X_NEW, X_NEW)) - (map_**2).sum(axis=0)
    z, w = np.polynomial.hermite_e.hermegauss(60)
    new = MEAN + (white @ map_)[:, None] + np.sqrt(left) * z[:, None]
    chance = stats.poisson.pmf(NEW_COUNTS.targets[:, 0], np.exp(np.minimum(new, 600)))
    mean = weight @ (np.einsum("gqi,q->gi", chance, w / w.sum()))
    per_draw = stats.poisson.pmf(NEW_COUNTS.targets[:, 0], np.exp(drawn.logits[..., 0]))
    draws = drawn.info["effective_draws"]
    return mean, per_draw.std(axis=0) / np.sqrt(min(draws, len(per_draw)))


def test_the_pit_is_uniform_under_the_model():
    """Functions and noise from the prior itself: the law given some of the points predicts another.

    Each output is a data set of its own, as outputs are independent.
    """
    x, rng = np.concatenate([X[:6], X_NEW[:1]]), np.random.default_rng(6)
    root = np.linalg.cholesky(ntk(x, x) + 1e-12 * np.eye(7))
    y = MEAN + root @ rng.normal(size=(7, 300)) + NOISE * rng.normal(size=(7, 300))
    law = nb.Laplace().fit(PRIOR, nb.Dataset.real(x[:6], y[:6]), likelihood=Normal(NOISE))
    pit = predict(law, nb.Dataset.real(x[6:], y[6:]), key=KEY, num_draws=4).pit.upper[0]
    assert stats.kstest(pit, "uniform").statistic < 1.63 / np.sqrt(300)  # the 1% point


# --- likelihoods of one's own ---------------------------------------------------------------------


def logistic(target, logits):
    away = target[0] - logits[0]
    return -away - 2 * jax.nn.softplus(-away)


def draw_logistic(key, logits):
    return logits + jax.random.logistic(key, logits.shape)


OWN = LogConcave(logistic, num_logits=1, examples=[[0.0], [3.0]], draw=draw_logistic)


def test_a_likelihood_of_ones_own_predicts_by_draws_of_targets():
    found = predict(nb.MAP().fit(PRIOR, TRAIN, likelihood=OWN), TEST, key=KEY)
    assert isinstance(found.distributions, Samples)
    truth = stats.logistic(found.mean)
    np.testing.assert_allclose(found.pointwise_elpd, truth.logpdf(TEST.targets)[:, 0], atol=1e-9)
    error = 0.5 / np.sqrt(len(found.target_draws))
    assert (np.abs(found.pit.upper - truth.cdf(TEST.targets)) < 4.5 * error).all()
    assert np.isnan(found.uncertainty.epistemic).all()
    assert (found.uncertainty.total > 2.5).all()  # π²/3


def test_one_that_cannot_draw_is_told_to():
    silent = LogConcave(logistic, num_logits=1, examples=[[0.0]])
    law = nb.MAP().fit(PRIOR, TRAIN, likelihood=silent)
    with pytest.raises(ConfigurationError, match="cannot draw targets: pass draw="):
        predict(law, TEST, key=KEY)


# --- several outputs, training points, refusals ---------------------------------------------------


def test_several_outputs_are_predicted_each_and_scored_together():
    two = nb.Dataset.real(X, np.column_stack([TRAIN.targets, 2 * TRAIN.targets]))
    new = nb.Dataset.real(X_NEW, np.column_stack([TEST.targets, 2 * TEST.targets]))
    found = predict(nb.Laplace().fit(PRIOR, two, likelihood=Normal(NOISE)), new, key=KEY)
    each = stats.norm.logpdf(new.targets, found.distributions.mean, found.distributions.std)
    np.testing.assert_allclose(found.pointwise_elpd, each.sum(axis=1), atol=1e-9)
    np.testing.assert_allclose(
        found.statistics["crps"](), found.distributions.crps(new.targets).mean(), rtol=1e-12
    )
    assert found.target_draws.shape == (1000, 12, 2)


def test_at_training_points_a_gaussian_law_knows_what_leaving_one_out_does():
    law = nb.Laplace().fit(PRIOR, TRAIN, likelihood=Normal(NOISE))
    found = predict(law, TRAIN, key=KEY, held_out=False)
    np.testing.assert_allclose(found.leave_one_out, nb.leave_one_out(law))
    assert found.log_likelihood is None


def test_without_ridge_training_points_are_certain():
    train = nb.Dataset.real(X, COUNTS.targets + 1)
    law = nb.FirstOrder().fit(PRIOR.with_ridge(0.0), train, likelihood=Poisson())
    found = predict(law, train, key=KEY, held_out=False)
    expected = stats.poisson.logpmf(train.targets, train.targets)[:, 0]
    np.testing.assert_allclose(found.log_densities, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (-np.ones(12), "non-negative integers; point 0 has -1"),
        (np.full(12, 0.5), "non-negative integers; point 0 has 0.5"),
        (np.ones((12, 2)), "one count per point"),
    ],
)
def test_test_points_without_counts_are_refused(targets, message):
    law = nb.MAP().fit(PRIOR, COUNTS, likelihood=Poisson())
    with pytest.raises(DataError, match=message):
        predict(law, nb.Dataset.real(X_NEW, targets), key=KEY)


def test_classes_are_refused_by_a_law_of_numbers():
    law = nb.MAP().fit(PRIOR, TRAIN)
    with pytest.raises(ConfigurationError, match="make both data sets with"):
        predict(law, nb.Dataset(X_NEW, np.arange(12) % 2), key=KEY)


def test_predictions_show_what_they_are():
    found = predict(nb.Laplace().fit(PRIOR, TRAIN, likelihood=Normal(NOISE)), TEST, key=KEY)
    assert "numbers from" in repr(found)
    assert "12, held-out" in repr(found)
    assert dataclasses.replace(found, name="other").name == "other"
    assert jnp.zeros(1).dtype == float
