"""Conformal sets: coverage over random splits is the rank it should be, whatever the predictions."""

import math

import numpy as np
import pytest

from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.scores.conformal import adaptive_sets, threshold_sets


def simulate(rng, n, classes=4, sharpness=1.0):
    """Probabilities p, and labels drawn from p to the power of sharpness: calibrated at 1."""
    p = rng.dirichlet(np.ones(classes), n)
    truth = p**sharpness / (p**sharpness).sum(1, keepdims=True)
    return p, (rng.random((n, 1)) > truth.cumsum(1)[:, :-1]).sum(1)


def naive_adaptive_scores(p, u):
    """Mass before each class by decreasing probability plus u of its own, class by class."""
    return np.array(
        [
            [sum(q for q in row if q > row[c]) + share * row[c] for c in range(len(row))]
            for row, share in zip(p, u, strict=True)
        ]
    )


@pytest.mark.parametrize("sharpness", [1.0, -1.0], ids=["calibrated", "wrong"])
@pytest.mark.parametrize(
    ("level", "num_calibration", "expected"),
    [(0.9, 19, 18 / 20), (0.9, 15, 15 / 16), (0.07, 99, 7 / 100)],
)
def test_marginal_coverage_over_splits_is_the_rank(sharpness, level, num_calibration, expected):
    rng = np.random.default_rng(1)
    found = {"threshold": [], "adaptive": []}
    for seed in range(800):
        p, labels = simulate(rng, num_calibration + 20, sharpness=sharpness)
        known, new = slice(num_calibration), slice(num_calibration, None)
        split = (p[known], labels[known], p[new])
        sets = threshold_sets(*split, level=level)
        found["threshold"].append(sets.coverage(labels[new]))
        sets = adaptive_sets(*split, level=level, seed=seed)
        found["adaptive"].append(sets.coverage(labels[new]))
    for name, coverage in found.items():
        error = np.std(coverage) / math.sqrt(len(coverage))
        assert error < 0.004
        assert np.mean(coverage) == pytest.approx(expected, abs=3.5 * error), name


def test_threshold_sets_by_hand():
    known = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
    # Scores of the labels: 0.1, 0.6, 0.2; of four places the third is ¾: the largest.
    sets = threshold_sets(known, [0, 1, 1], [[0.95, 0.05], [0.5, 0.5], [0.3, 0.7]], level=0.75)
    assert sets.threshold == pytest.approx(0.6)
    np.testing.assert_array_equal(sets.members, [[True, False], [True, True], [False, True]])
    assert sets.mean_size == pytest.approx(4 / 3)
    assert sets.coverage([0, 1, 0]) == pytest.approx(2 / 3)
    # At level ½ the second: no class of an even prediction is probable enough.
    sets = threshold_sets(known, [0, 1, 1], [[0.95, 0.05], [0.5, 0.5]], level=0.5)
    np.testing.assert_array_equal(sets.members, [[True, False], [False, False]])


def test_adaptive_sets_equal_a_naive_loop():
    rng = np.random.default_rng(2)
    known, labels = simulate(rng, 29)
    new, _ = simulate(rng, 12)
    sets = adaptive_sets(known, labels, new, level=0.8, seed=7)
    shares = np.random.default_rng(7)
    scores = naive_adaptive_scores(known, shares.random(29))[range(29), labels]
    threshold = np.sort(scores)[23]  # 24th of 30 places
    assert sets.threshold == pytest.approx(threshold, rel=1e-12)
    expected = naive_adaptive_scores(new, shares.random(12)) <= threshold
    np.testing.assert_array_equal(sets.members, expected)


def test_adaptive_sets_grow_with_uncertainty_where_threshold_sets_vanish():
    rng = np.random.default_rng(3)
    known, labels = simulate(rng, 199)
    new = np.array([[0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])
    few = threshold_sets(known, labels, new, level=0.6).members.sum(axis=1)
    many = adaptive_sets(known, labels, new, level=0.6, seed=0).members.sum(axis=1)
    np.testing.assert_array_equal(few, [1, 0])
    assert many[1] >= 2


def test_threshold_sets_of_true_probabilities_are_the_smaller():
    rng = np.random.default_rng(4)
    known, labels = simulate(rng, 999)
    new, _ = simulate(rng, 1000)
    small = threshold_sets(known, labels, new)
    large = adaptive_sets(known, labels, new, seed=0)
    difference = large.members.sum(1) - small.members.sum(1)
    assert difference.mean() > 4 * difference.std() / math.sqrt(1000)


def test_too_few_calibration_points_give_all_classes():
    known, labels = simulate(np.random.default_rng(5), 9)
    enough = threshold_sets(known, labels, known, level=0.9)
    assert enough.threshold == np.max(1 - known[range(9), labels])
    for sets in (
        threshold_sets(known[:8], labels[:8], known, level=0.9),
        adaptive_sets(known[:8], labels[:8], known, level=0.9, seed=0),
    ):
        assert sets.threshold == math.inf
        assert sets.members.all()
        assert sets.mean_size == 4


def test_equal_seeds_give_equal_sets():
    rng = np.random.default_rng(6)
    known, labels = simulate(rng, 30)
    new, _ = simulate(rng, 200)
    first, second, other = (
        adaptive_sets(known, labels, new, seed=seed).members for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


HALVES = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("known", "labels", "new", "level", "error", "message"),
    [
        (HALVES, [0, 1, 2], HALVES, 0.9, DataError, "label 2 is 2; classes are 0 to 1"),
        (HALVES, [0, -1, 0], HALVES, 0.9, DataError, "label 1 is -1"),
        (HALVES, [0, 1], HALVES, 0.9, DataError, r"shape \(2,\)"),
        (HALVES, [0.0, 1.0, 1.0], HALVES, 0.9, DataError, "type float64"),
        (HALVES, np.eye(2)[[0, 1, 1]], HALVES, 0.9, DataError, r"shape \(3, 2\)"),
        (HALVES, [0, 1, 1], np.full((1, 4), 0.25), 0.9, DataError, "2 classes, probabilities 4"),
        (2 * HALVES, [0, 1, 1], HALVES, 0.9, DataError, "calibration_probabilities: row 0 sums"),
        (HALVES, [0, 1, 1], 2 * HALVES, 0.9, DataError, "probabilities: row 0 sums"),
        (HALVES, [0, 1, 1], HALVES, 90.0, ConfigurationError, "level must .*90"),
    ],
)
def test_bad_input_is_refused(known, labels, new, level, error, message):
    with pytest.raises(error, match=message):
        threshold_sets(known, labels, new, level=level)
    with pytest.raises(error, match=message):
        adaptive_sets(known, labels, new, level=level, seed=0)


def test_coverage_of_other_labels_is_refused():
    sets = threshold_sets(HALVES, [0, 1, 1], HALVES, level=0.5)
    with pytest.raises(DataError, match="label 0 is 5"):
        sets.coverage([5, 0, 0])
    with pytest.raises(DataError, match=r"shape \(1,\)"):
        sets.coverage([0])
