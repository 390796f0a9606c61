"""Distances between draws of known laws, and their errors."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from ntkbayes.scores.distances import Distance, energy_coefficient, total_variation, variance_ratio

LOGIT_DISTANCES = (variance_ratio, energy_coefficient)


def normal(seed, mean=0.0, std=1.0, *, size=1000, points=1, outputs=1):
    return mean + std * np.random.default_rng(seed).standard_normal((size, points, outputs))


def two_classes(p):
    return np.concatenate([1 - p, p], axis=-1)


def beta(seed, a, b, *, size=1000, points=1):
    """Draws of the probabilities of two classes."""
    return two_classes(np.random.default_rng(seed).beta(a, b, (size, points, 1)))


def autocorrelated(seed, memory, *, size=1000):
    """A stationary AR(1) chain of variance 1, (size, 1, 1)."""
    noise = np.random.default_rng(seed).standard_normal(size)
    chain = np.empty(size)
    chain[0] = noise[0]
    for i in range(1, size):
        chain[i] = memory * chain[i - 1] + np.sqrt(1 - memory**2) * noise[i]
    return chain[:, None, None]


def mean_distance(shift, std):
    """E|Z| for Z ~ N(shift, std²)."""
    scaled = shift / std
    return std * np.sqrt(2 / np.pi) * np.exp(-(scaled**2) / 2) + shift * (
        1 - 2 * stats.norm.cdf(-scaled)
    )


# --- closed forms --------------------------------------------------------------------------------


def test_total_variation_is_half_the_gap_of_the_mean_probabilities():
    found = total_variation(beta(0, 2, 3, points=5), beta(1, 6, 2, points=5))
    assert abs(found.value - (6 / 8 - 2 / 5)) < 4 * found.error
    # 5 points of 1000 draws: Var[p] = 1/25 and 1/48.
    assert found.error == pytest.approx(np.sqrt((1 / 25 + 1 / 48) / 5000), rel=0.4)


def test_total_variation_of_opposite_certainties_is_one():
    certain = np.zeros((4, 3, 2))
    certain[..., 0] = 1
    assert total_variation(certain, certain[..., ::-1]) == Distance(1.0, 0.0)


def test_total_variation_by_hand():
    a = np.array([[[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], [[0.7, 0.1, 0.2], [0.0, 1.0, 0.0]]])
    b = np.array([[[0.2, 0.2, 0.6], [0.5, 0.0, 0.5]]])
    assert total_variation(a, b).value == pytest.approx((0.4 + 0.5) / 2)


def test_variance_ratio_of_gaussians_is_the_geometric_mean_of_their_ratios():
    a, b = normal(0, std=2.0, points=6, outputs=2), normal(1, std=3.0, points=6, outputs=2)
    a[:, :3] *= 5  # at half the points
    found = variance_ratio(a, b)
    truth = 4 / 9 * 5
    assert abs(found.value - truth) < 4 * found.error
    # Var[log s²] = 2 / (S − 1), two laws, 12 numbers.
    assert found.error == pytest.approx(truth * np.sqrt(2 * 2 / 999 / 12), rel=0.4)


@pytest.mark.parametrize(("shift", "std"), [(0.5, 1.0), (2.0, 1.0), (0.0, 3.0), (-1.0, 0.5)])
def test_energy_coefficient_of_gaussians_has_its_closed_form(shift, std):
    found = energy_coefficient(normal(0), normal(1, shift, std))
    across = mean_distance(shift, np.hypot(1, std))
    within = mean_distance(0, np.sqrt(2)) * (1 + std)
    assert abs(found.value - (1 - within / (2 * across))) < 4 * found.error
    assert found.error < 0.05


def test_energy_coefficient_equals_scipys_distance_in_one_dimension():
    size = 300
    a, b = normal(0, size=size), normal(1, 0.7, 2.0, size=size)
    across, within = cdist(a[:, 0], b[:, 0]).mean(), pdist(a[:, 0]).mean() + pdist(b[:, 0]).mean()
    biased = stats.energy_distance(a.ravel(), b.ravel()) ** 2  # pairs a draw with itself, too
    found = energy_coefficient(a, b).value
    np.testing.assert_allclose(2 * across * found + within / size, biased, rtol=1e-10)


@pytest.mark.parametrize(("size_a", "size_b", "most"), [(60, 90, 1000), (150, 60, 50)])
def test_energy_coefficient_equals_brute_force(size_a, size_b, most):
    a = normal(0, size=size_a, points=4, outputs=3)
    b = normal(1, 0.5, 1.5, size=size_b, points=4, outputs=3)
    found = energy_coefficient(a, b, max_draws=most).value
    rows = [x[np.arange(min(most, len(x))) * len(x) // min(most, len(x))] for x in (a, b)]
    x, y = (kept.reshape(len(kept), -1) for kept in rows)
    truth = 1 - (pdist(x).mean() + pdist(y).mean()) / (2 * cdist(x, y).mean())
    np.testing.assert_allclose(found, truth, rtol=1e-10)


def test_energy_coefficient_sees_dependence_between_points():
    noise = normal(0, points=4)
    together = np.repeat(normal(1), 4, axis=1)  # the same marginals
    found = energy_coefficient(noise, together)
    assert found.value > 10 * found.error
    ratio = variance_ratio(noise, together)
    assert abs(ratio.value - 1) < 4 * ratio.error


def test_energy_coefficient_does_not_lose_digits_far_from_the_origin():
    a, b = normal(0, size=50), normal(1, 1.0, size=50)
    near, far = energy_coefficient(a, b).value, energy_coefficient(a + 1e6, b + 1e6).value
    assert far == pytest.approx(near, rel=1e-6)


def test_a_logit_that_does_not_vary_makes_the_ratio_zero_infinite_or_none():
    vary, other = normal(0, points=3), normal(1, points=3)
    still = vary.copy()
    still[:, 1, 0] = 0.3
    assert variance_ratio(still, other) == Distance(0.0, 0.0)
    for a, b, value in ((other, still, np.inf), (still, still, np.nan)):
        found = variance_ratio(a, b)
        np.testing.assert_array_equal([found.value, found.error], [value, np.nan])
    one = still.copy()
    one[0, 1, 0] = 1.0  # but for one draw
    for a, b in ((one, other), (other, one)):
        found = variance_ratio(a, b)
        assert 0 < found.value < np.inf
        assert not found.error < 0.5 * found.value


def test_the_variance_ratio_of_two_draws_has_no_error():
    few, many = normal(0, points=3, size=2), normal(1, points=3)
    for a, b in ((few, many), (many, few)):
        found = variance_ratio(a, b)
        expected = np.exp(np.mean(np.log(a.var(axis=0)) - np.log(b.var(axis=0))))
        assert found.value == pytest.approx(expected)
        assert np.isnan(found.error)


# --- equal laws ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_equal_laws_are_no_distance_apart_within_the_error(seed):
    a, b = (normal(2 * seed + i, points=3, size=400) for i in (0, 1))
    ratio, energy = variance_ratio(a, b), energy_coefficient(a, b)
    assert abs(ratio.value - 1) < 4 * ratio.error
    assert abs(energy.value) < 4 * energy.error
    tv = total_variation(*(beta(2 * seed + i, 2, 3) for i in (0, 1)))
    assert tv.value < 4 * tv.error


# --- errors --------------------------------------------------------------------------------------

REPLICATIONS = 120


def replicate(distance, draw):
    found = [distance(*draw(2 * i)) for i in range(REPLICATIONS)]
    values, errors = (np.array([getattr(d, f) for d in found]) for f in ("value", "error"))
    return values.std(ddof=1), np.sqrt(np.mean(errors**2))


INDEPENDENT = {
    "tv": (total_variation, lambda i: (beta(i, 2, 3, size=200), beta(i + 1, 6, 2, size=200))),
    "variance_ratio": (
        variance_ratio,
        lambda i: (normal(i, std=0.5, size=200), normal(i + 1, size=200)),
    ),
    "energy": (
        energy_coefficient,
        lambda i: (normal(i, size=100), normal(i + 1, 1.0, 2.0, size=100)),
    ),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_error_is_the_spread_over_replications(name):
    spread, error = replicate(*INDEPENDENT[name])
    assert error == pytest.approx(spread, rel=0.3)


def test_the_error_accounts_for_the_memory_of_chains():
    def draw(i):
        return autocorrelated(i, 0.8, size=600), normal(i + 1, std=1.5, size=600)

    spread, error = replicate(variance_ratio, draw)
    assert error == pytest.approx(spread, rel=0.3)
    _, forgetful = replicate(variance_ratio, lambda i: (normal(i, size=600), draw(i)[1]))
    assert error > 1.3 * forgetful


def test_chains_with_memory_have_larger_errors_of_every_distance():
    other = normal(99, 0.5, 1.5)
    iid, chain = normal(0), autocorrelated(0, 0.9)
    for distance in LOGIT_DISTANCES:
        assert distance(chain, other).error > 1.5 * distance(iid, other).error
    logistic = [two_classes(1 / (1 + np.exp(-x))) for x in (iid, chain, other)]
    errors = [total_variation(x, logistic[2]).error for x in logistic[:2]]
    assert errors[1] > 1.5 * errors[0]


def test_more_draws_make_the_error_smaller():
    for distance in LOGIT_DISTANCES:
        few = distance(normal(0, size=50), normal(1, 1.0, size=50)).error
        many = distance(normal(0, size=800), normal(1, 1.0, size=800)).error
        assert many < few / 2


# --- points --------------------------------------------------------------------------------------

POINT = np.broadcast_to(np.random.default_rng(5).normal(0, 3, (4, 2)), (30, 4, 2))
SPREAD = normal(6, size=40, points=4, outputs=2)


def test_a_point_has_no_variance_next_to_a_law_that_has():
    assert variance_ratio(POINT, SPREAD) == Distance(0.0, 0.0)
    against = variance_ratio(SPREAD, POINT)
    assert against.value == np.inf
    assert np.isnan(against.error)
    both = variance_ratio(POINT, POINT)
    assert np.isnan(both.value)
    assert np.isnan(both.error)


def test_a_point_is_no_distance_from_itself_and_far_from_others():
    assert energy_coefficient(POINT, POINT) == Distance(0.0, 0.0)
    assert energy_coefficient(POINT, POINT[:7]) == Distance(0.0, 0.0)
    apart = energy_coefficient(POINT, POINT + 1e-3)
    assert apart.value == pytest.approx(1, abs=1e-9)
    assert apart.error < 1e-9
    sure = np.broadcast_to([[0.3, 0.7]], (9, 1, 2))
    assert total_variation(sure, sure) == Distance(0.0, 0.0)


def test_a_single_draw_is_a_point():
    many, one = energy_coefficient(SPREAD, POINT), energy_coefficient(SPREAD, POINT[:1])
    assert one.value == pytest.approx(many.value, abs=1e-12)
    assert one.error == pytest.approx(many.error, abs=1e-12)
    assert variance_ratio(POINT[:1], SPREAD) == Distance(0.0, 0.0)


# --- symmetries ----------------------------------------------------------------------------------


def test_distances_are_symmetric():
    a = normal(0, size=80, points=3)
    b = normal(1, 1.0, 2.0, size=60, points=3)
    p, q = beta(0, 2, 3, size=80), beta(1, 3, 3, size=60)
    for distance, pair in ((energy_coefficient, (a, b)), (total_variation, (p, q))):
        there, back = distance(*pair), distance(*pair[::-1])
        assert there.value == pytest.approx(back.value, rel=1e-12)
        assert there.error == pytest.approx(back.error, rel=1e-10)
    assert variance_ratio(a, b).value == pytest.approx(1 / variance_ratio(b, a).value, rel=1e-12)


def test_the_order_of_points_does_not_matter():
    order = np.array([3, 0, 2, 1])
    a, b = normal(0, size=80, points=4), normal(1, 1.0, 2.0, size=60, points=4)
    p, q = beta(0, 2, 3, size=80, points=4), beta(1, 3, 3, size=60, points=4)
    for distance, x, y in (
        (energy_coefficient, a, b),
        (variance_ratio, a, b),
        (total_variation, p, q),
    ):
        found, permuted = distance(x, y), distance(x[:, order], y[:, order])
        assert permuted.value == pytest.approx(found.value, rel=1e-12)
        assert permuted.error == pytest.approx(found.error, rel=1e-8)


def test_distances_of_logits_do_not_depend_on_units():
    a, b = normal(0, size=80, points=3), normal(1, 1.0, 2.0, size=60, points=3)
    for distance in LOGIT_DISTANCES:
        found, scaled = distance(a, b), distance(7 * a + 2, 7 * b + 2)
        assert scaled.value == pytest.approx(found.value, rel=1e-10)
        assert scaled.error == pytest.approx(found.error, rel=1e-8)
