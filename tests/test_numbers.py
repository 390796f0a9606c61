"""Distributions of numbers and their scores, against numerical integration and brute force."""

import numpy as np
import pytest
from scipy import integrate, stats

from ntkbayes.errors import ConfigurationError
from ntkbayes.scores import calibration, numbers
from ntkbayes.scores.distributions import NormalMixture, Normals, PoissonMixture, Samples

RNG = np.random.default_rng(0)
DRAWS = 2 * RNG.normal(size=(50, 3, 1))
Y = np.array([[0.0], [3.0], [-8.0]])
ONE = Normals(DRAWS[0], np.full((3, 1), 0.3), np.full((3, 1), 0.9))
MIXED = NormalMixture(DRAWS, 0.4)
RATES = RNG.gamma(3.0, size=(40, 3, 1)) * np.array([1.0, 30.0, 4000.0])[:, None]
COUNTED = PoissonMixture(RATES)
COUNTS = np.array([[2.0], [100.0], [9000.0]])
EVERY_COUNT = np.arange(60_000)


def cdf_of(distributions, point):
    """P(Y ≤ x) of one point, by scipy."""
    if distributions is ONE:
        return stats.norm(ONE.mean[point, 0], np.sqrt(1.2)).cdf
    return lambda x: stats.norm.cdf(x, DRAWS[:, point, 0], 0.4).mean()


@pytest.mark.parametrize("distributions", [ONE, MIXED], ids=["normals", "mixture"])
@pytest.mark.parametrize("point", range(3))
def test_the_crps_is_the_integral_of_the_squared_difference(distributions, point):
    cdf, y = cdf_of(distributions, point), Y[point, 0]
    low = integrate.quad(lambda x: cdf(x) ** 2, y - 15, y, limit=500)[0]
    low += integrate.quad(lambda x: cdf(x) ** 2, -25, y - 15, limit=500)[0]
    high = integrate.quad(lambda x: (1 - cdf(x)) ** 2, y, y + 20, limit=500)[0]
    found = distributions.crps(Y)[point, 0]
    np.testing.assert_allclose(found, low + high, rtol=1e-7)
    np.testing.assert_allclose(distributions.cdf(Y)[point, 0], cdf(y), rtol=1e-12)
    np.testing.assert_allclose(cdf(distributions.quantile(0.3)[point, 0]), 0.3, rtol=1e-8)


@pytest.mark.parametrize(("point", "error"), [(0, 1e-12), (1, 1e-12), (2, 1e-4)])
def test_the_crps_of_counts_is_the_ranked_probability_score(point, error):
    cdf = stats.poisson.cdf(EVERY_COUNT, RATES[:, point]).mean(axis=0)
    brute_force = ((cdf - (COUNTS[point, 0] <= EVERY_COUNT)) ** 2).sum()
    np.testing.assert_allclose(COUNTED.crps(COUNTS)[point, 0], brute_force, rtol=error)
    for level in (0.05, 0.5, 0.95):
        at = int(COUNTED.quantile(level)[point, 0])
        assert cdf[at] >= level > (cdf[at - 1] if at else 0.0)
    found = COUNTED.below(COUNTS)[point, 0], COUNTED.cdf(COUNTS)[point, 0]
    expected = cdf[int(COUNTS[point, 0]) - 1], cdf[int(COUNTS[point, 0])]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_mixture_of_one_is_its_component():
    alone = NormalMixture(DRAWS[:1], np.sqrt(1.2))
    for level in (0.05, 0.5):
        np.testing.assert_allclose(alone.quantile(level), ONE.quantile(level), atol=1e-8)
    np.testing.assert_allclose(alone.crps(Y), ONE.crps(Y), rtol=1e-10)
    assert (PoissonMixture(RATES[:1]).spread == 0).all()


def test_draws_alone_give_the_scores_of_their_distribution_within_their_error():
    drawn = np.random.default_rng(1).normal(ONE.mean, ONE.std, size=(20_000, 3, 1))
    found = Samples(drawn)
    np.testing.assert_allclose(found.crps(Y), ONE.crps(Y), atol=0.03)
    np.testing.assert_allclose(found.cdf(Y), ONE.cdf(Y), atol=4.5 * 0.5 / np.sqrt(20_000))
    np.testing.assert_allclose(found.quantile(0.5), ONE.quantile(0.5), atol=0.05)
    assert np.isnan(found.noise).all()


def test_the_score_of_few_draws_is_unbiased():
    rng = np.random.default_rng(2)
    drawn = rng.normal(size=(5, 40_000, 1))  # five draws of each of many equal points
    expected = Normals(*(np.full((1, 1), v) for v in (0.0, 0.0, 1.0))).crps(np.full((1, 1), 0.7))
    found = Samples(drawn).crps(np.full((40_000, 1), 0.7))
    assert abs(found.mean() - expected[0, 0]) < 4 * found.std() / 200


def test_the_variance_is_noise_and_spread():
    np.testing.assert_allclose(MIXED.variance, 0.16 + DRAWS.var(axis=0))
    rates = RATES[:, :, 0]
    np.testing.assert_allclose(COUNTED.variance[:, 0], rates.mean(axis=0) + rates.var(axis=0))


# --- calibration ----------------------------------------------------------------------------------


def truth_and_law(kind, scale=1.0):
    """Many targets of a law, and the law with its noise scaled."""
    rng = np.random.default_rng(3)
    if kind == "counts":
        rate = rng.gamma(2.0, size=(4000, 1))
        return rng.poisson(rate).astype(float), PoissonMixture(rate[None])
    mean = rng.normal(size=(4000, 1))
    law = Normals(mean, np.zeros_like(mean), np.full_like(mean, scale**2))
    return mean + rng.normal(size=mean.shape), law


@pytest.mark.parametrize("kind", ["numbers", "counts"])
def test_the_pit_of_the_truth_is_uniform(kind):
    y, law = truth_and_law(kind)
    pit = numbers.Pit.of(law, y)
    assert stats.kstest(pit.randomised(0).ravel(), "uniform").pvalue > 0.01
    for level in (0.5, 0.9):
        # Spreading a count over its interval cannot increase the variance of a hit.
        error = np.sqrt(level * (1 - level) / len(y))
        assert abs(pit.covered(level).mean() - level) < 4 * error
    assert numbers.PitError(pit)() < 0.02


def test_the_pit_of_counts_lies_between_below_and_up_to_the_count():
    y, law = truth_and_law("counts")
    pit = numbers.Pit.of(law, y)
    np.testing.assert_allclose(pit.upper - pit.lower, stats.poisson.pmf(y, law.mean), atol=1e-12)
    drawn = pit.randomised(1)
    assert ((pit.lower <= drawn) & (drawn <= pit.upper)).all()
    shares = pit.share_below([0.0, 0.3, 1.0])
    assert shares.shape == (4000, 1, 3)
    assert (shares[..., 0] == 0).all()
    assert (shares[..., 2] == 1).all()


@pytest.mark.parametrize(("scale", "coverage"), [(0.5, 0.589), (2.0, 0.99900)])
def test_a_law_with_wrong_noise_covers_too_little_or_too_much(scale, coverage):
    y, law = truth_and_law("numbers", scale)
    found = numbers.standard_scores(law, y, np.zeros(len(y)))
    error = np.sqrt(coverage * (1 - coverage) / len(y))
    assert abs(found["coverage_90"]() - coverage) < 4 * error
    np.testing.assert_allclose(found["width_90"](), 2 * 1.6448536 * scale, rtol=1e-6)
    assert found["pit_error"]() > 0.05


def test_scores_take_weights_as_repeated_points():
    y, law = truth_and_law("numbers")
    y, law = y[:9], Normals(law.mean[:9], law.spread[:9], law.noise[:9])
    weights = np.arange(9.0)
    rows = np.repeat(np.arange(9), np.arange(9))
    repeated = Normals(law.mean[rows], law.spread[rows], law.noise[rows])
    density = stats.norm.logpdf(y, law.mean)[:, 0]
    some = numbers.standard_scores(law, y, density)
    every = numbers.standard_scores(repeated, y[rows], density[rows])
    for name, score in some.items():
        np.testing.assert_allclose(score(weights), every[name](), rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(score(np.stack([weights, weights])), score(weights))
    np.testing.assert_allclose(some["rmse"](), np.sqrt(np.mean((y - law.mean) ** 2)))
    np.testing.assert_allclose(some["nll"](), -density.mean())


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5, np.nan])
def test_levels_outside_the_unit_interval_are_refused(level):
    for refused in (ONE.quantile, MIXED.quantile, COUNTED.quantile, Samples(DRAWS).quantile):
        with pytest.raises(ConfigurationError, match=r"level must lie in \(0, 1\)"):
            refused(level)
    with pytest.raises(ConfigurationError, match="level must lie"):
        numbers.Pit.of(ONE, Y).covered(level)


# --- ordered classes ------------------------------------------------------------------------------


def test_the_ranked_probability_score_charges_for_distance():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    targets = np.eye(3)[[2, 2, 1]]
    found = calibration.ranked_probability_score(probabilities, targets)
    np.testing.assert_allclose(found, [0.1**2 + 0.3**2, 0.7**2 + 0.9**2, 0.0], atol=1e-15)


def test_of_two_classes_it_is_half_the_brier_score():
    p = np.random.default_rng(4).dirichlet([1, 1], size=20)
    y = np.eye(2)[np.arange(20) % 2]
    expected = calibration.brier(p, y) / 2
    np.testing.assert_allclose(calibration.ranked_probability_score(p, y), expected, rtol=1e-12)
