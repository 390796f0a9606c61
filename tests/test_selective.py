"""Risk–coverage curves against all orders of the points."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkbayes.errors import DataError
from ntkbayes.scores.calibration import correctness
from ntkbayes.scores.selective import risk_coverage

SEEDS = st.integers(0, 2**32 - 1)


def simulate(seed, n, classes=3):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), n), rng.dirichlet(np.ones(classes), n)


def test_curve_of_four_points_by_hand():
    p = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]
    y = [[1, 0], [1, 0], [1, 0], [0.5, 0.5]]  # errors 0, 1, 0, ½ by decreasing confidence
    curve = risk_coverage(p, y)
    np.testing.assert_array_equal(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 3 / 8])
    np.testing.assert_allclose(curve.best_risk, [0, 0, 1 / 6, 3 / 8])
    assert curve.aurc == pytest.approx((1 / 2 + 1 / 3 + 3 / 8) / 4)
    assert curve.excess_aurc == pytest.approx((1 / 2 + 1 / 6) / 4)


@given(SEEDS)
@settings(deadline=None, derandomize=True, max_examples=20)
def test_risk_is_the_mean_over_all_orders_that_confidence_allows(seed):
    p, y = simulate(seed, 6)
    confidence = np.random.default_rng(seed).integers(0, 3, 6)
    error = 1 - correctness(p, y)
    allowed = [
        order
        for order in permutations(range(6))
        if all(confidence[a] >= confidence[b] for a, b in pairwise(order))
    ]
    risks = np.cumsum(error[np.array(allowed)], axis=1) / np.arange(1, 7)
    curve = risk_coverage(p, y, confidence=confidence)
    np.testing.assert_allclose(curve.risk, risks.mean(axis=0), rtol=1e-12)


@given(SEEDS)
@settings(deadline=None, derandomize=True, max_examples=30)
def test_no_confidence_beats_the_order_of_the_errors(seed):
    p, y = simulate(seed, 30)
    curve = risk_coverage(p, y)
    assert (curve.risk >= curve.best_risk - 1e-14).all()
    assert curve.excess_aurc >= -1e-14
    assert curve.risk[-1] == pytest.approx(1 - correctness(p, y).mean())
    best = risk_coverage(p, y, confidence=correctness(p, y))
    assert best.excess_aurc == pytest.approx(0, abs=1e-14)
    np.testing.assert_allclose(best.risk, curve.best_risk, rtol=1e-12)


def test_equal_confidence_has_the_same_risk_at_every_coverage():
    p, y = simulate(0, 25)
    curve = risk_coverage(p, y, confidence=np.zeros(25))
    np.testing.assert_allclose(curve.risk, 1 - correctness(p, y).mean())
    assert curve.aurc == pytest.approx(1 - correctness(p, y).mean())


def test_best_area_of_hard_targets_tends_to_its_integral():
    # Risk r answered last: ∫ max(0, 1 − (1 − r)/c) dc = r + (1 − r) log(1 − r).
    n, r = 20_000, 0.3
    p = np.tile([0.8, 0.2], (n, 1))
    y = np.eye(2)[(np.arange(n) < r * n).astype(int)]
    curve = risk_coverage(p, y)
    # The sum is within one step, of risk at most r, of the integral.
    best = r + (1 - r) * np.log(1 - r)
    assert curve.aurc - curve.excess_aurc == pytest.approx(best, abs=r / n)


@pytest.mark.parametrize("confidence", [[1.0], [[1.0, 2.0]], []])
def test_confidences_of_other_shapes_are_refused(confidence):
    with pytest.raises(DataError, match=r"confidence has shape .*must be \(2,\)"):
        risk_coverage([[0.5, 0.5]] * 2, [[1, 0]] * 2, confidence=confidence)


def test_confidences_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="confidence 1 is nan"):
        risk_coverage([[0.5, 0.5]] * 2, [[1, 0]] * 2, confidence=[1, np.nan])
    with pytest.raises(DataError, match="sums to 2"):
        risk_coverage([[1, 1]], [[1, 0]])
