"""Scores, reliability, uncertainty and intervals against hand computation and naive oracles."""

import math
import subprocess
import sys
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.scores.calibration import (
    EqualMass,
    EqualWidth,
    Interval,
    Mean,
    Over,
    bootstrap,
    brier,
    classwise_ece,
    correctness,
    negative_log_likelihood,
    paired_difference,
    reliability_curve,
    scores,
    smooth_ece,
    standard_scores,
    top_label_ece,
    uncertainty,
)

BINNINGS = [EqualWidth(1), EqualWidth(10), EqualWidth(15), EqualMass(1), EqualMass(7)]
SEEDS = st.integers(0, 2**32 - 1)


def simulate(seed, n=200, classes=4):
    """Probabilities and hard targets that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.7), n)
    return probabilities, np.eye(classes)[rng.integers(classes, size=n)]


def coarse(seed, n=60, classes=3):
    """Probabilities in tenths, so full of ties, zeros, ones and bin edges; soft targets."""
    rng = np.random.default_rng(seed)
    draw = partial(rng.multinomial, 10, np.full(classes, 1 / classes))
    return draw(n) / 10, draw(n) / 10


# ------------------------------------------------------------------ oracle


def naive_bins(confidences, binning):
    """The bin of each confidence, point by point, in exact integer comparisons."""
    n, num_bins = len(confidences), binning.num_bins
    bins = []
    for c in confidences:
        if isinstance(binning, EqualWidth):
            found = [k for k in range(num_bins) if k / num_bins < c <= (k + 1) / num_bins]
            bins.append(found[0] if found else 0)
        else:
            below = sum(other < c for other in confidences)
            upto = sum(other <= c for other in confidences)
            bins.append((below + upto) * num_bins // (2 * n))
    return bins


def naive_error(confidences, hits, binning):
    bins = naive_bins(confidences, binning)
    error = 0.0
    for b in set(bins):
        members = [i for i in range(len(bins)) if bins[i] == b]
        confidence = sum(confidences[i] for i in members) / len(members)
        frequency = sum(hits[i] for i in members) / len(members)
        error += len(members) / len(bins) * abs(frequency - confidence)
    return error


def naive_smooth_error(confidences, gaps, num_nodes=1000):
    """Where ∫ |mean gap smoothed by width| = width, with the Gauss kernel's mirror images summed."""
    t = (np.arange(num_nodes) + 0.5) / num_nodes

    def smoothed(width):
        total = np.zeros(num_nodes)
        for shift in (-4, -2, 0, 2, 4):
            for side in (-1, 1):
                distance = t[:, None] - side * np.asarray(confidences) + shift
                total += np.exp(-((distance / width) ** 2) / 2) @ gaps
        return np.abs(total).mean() / (len(gaps) * width * math.sqrt(2 * math.pi))

    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if smoothed(middle) > middle else (low, middle)
    return low


# ------------------------------------------------------------------ per-point scores


def test_scores_of_two_points_by_hand():
    p = [[0.5, 0.25, 0.25], [0.2, 0.7, 0.1]]
    y = [[1, 0, 0], [0, 0.5, 0.5]]
    np.testing.assert_allclose(
        negative_log_likelihood(p, y), [math.log(2), -0.5 * math.log(0.07)], rtol=1e-15
    )
    np.testing.assert_allclose(brier(p, y), [0.375, 0.04 + 0.04 + 0.16], rtol=1e-14)
    np.testing.assert_array_equal(correctness(p, y), [1, 0.5])


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_means_of_scores_equal_scikit_learn(classes):
    p, y = simulate(0, classes=classes)
    labels, names = y.argmax(1), range(classes)
    assert Mean(negative_log_likelihood)(p, y) == pytest.approx(
        log_loss(labels, p, labels=names), rel=1e-12
    )
    assert Mean(brier)(p, y) == pytest.approx(
        brier_score_loss(labels, p, labels=names, scale_by_half=False), rel=1e-12
    )
    assert Mean(correctness)(p, y) == pytest.approx(accuracy_score(labels, p.argmax(1)), rel=1e-12)


def test_zero_probability_of_the_true_class_costs_infinity():
    p, y = [[0, 1], [1, 0], [0.5, 0.5]], [[1, 0], [1, 0], [1, 0]]
    np.testing.assert_array_equal(negative_log_likelihood(p, y), [np.inf, 0, math.log(2)])
    score = Mean(negative_log_likelihood)
    assert score(p, y) == np.inf
    assert score(p, y, weights=[0, 1, 1]) == pytest.approx(math.log(2) / 2, rel=1e-15)


def test_scores_reach_the_ends_of_their_ranges():
    right, wrong = [[1, 0]], [[0, 1]]
    assert (brier(right, right), brier(right, wrong)) == (0, 2)
    assert (correctness(right, right), correctness(right, wrong)) == (1, 0)
    for ece in (top_label_ece, classwise_ece):
        assert (ece(right, right), ece(right, wrong)) == (0, 1)


# ------------------------------------------------------------------ binning and ECE


def test_equal_width_bins_are_half_open_with_zero_in_the_first():
    confidences = [0, 1e-300, 0.1, np.nextafter(0.1, 1), 0.3, 0.7, np.nextafter(0.7, 1), 1]
    assert EqualWidth(10).assign(confidences).tolist() == [0, 0, 0, 1, 2, 6, 7, 9]
    np.testing.assert_array_equal(EqualWidth(4).edges, [0, 0.25, 0.5, 0.75, 1])


@given(SEEDS, st.integers(1, 100), st.integers(1, 20))
def test_equal_mass_bins_of_untied_points_differ_by_at_most_one(seed, n, num_bins):
    confidences = np.random.default_rng(seed).permutation(n) / n
    bins = EqualMass(num_bins).assign(confidences)
    counts = np.bincount(bins, minlength=num_bins)
    assert counts.sum() == n
    assert np.ptp(counts) <= 1
    assert (np.diff(bins[np.argsort(confidences)]) >= 0).all()


def test_equal_mass_bins_keep_ties_together():
    assert EqualMass(2).assign([0.1, 0.5, 0.5, 0.5, 0.9, 0.9]).tolist() == [0, 0, 0, 0, 1, 1]
    assert EqualMass(3).assign([0.5] * 4).tolist() == [1] * 4


def test_ece_of_four_points_by_hand():
    p = np.array([[0.55, 0.45], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    y = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])
    # Top label, halves of the upper half: {0.55, 0.6} hit once, {0.8}, {0.9} hit.
    assert top_label_ece(p, y, EqualWidth(10)) == pytest.approx((0.15 + 0.2 + 0.1) / 4)
    assert top_label_ece(p, y, EqualMass(2)) == pytest.approx((0.15 + 0.3) / 4)
    # Class 0 in two bins: {0.2} never, {0.55, 0.6, 0.9} twice; class 1: {0.45, 0.4, 0.1}, {0.8}.
    assert classwise_ece(p, y, EqualWidth(2)) == pytest.approx((0.2 + 0.05) / 4)


@pytest.mark.parametrize("binning", BINNINGS, ids=str)
@pytest.mark.parametrize("data", [simulate, coarse])
def test_calibration_errors_equal_a_naive_loop(data, binning):
    for seed in range(5):
        p, y = data(seed)
        hits = y[range(len(y)), p.argmax(1)]
        naive = naive_error(p.max(1).tolist(), hits.tolist(), binning)
        assert top_label_ece(p, y, binning) == pytest.approx(naive, abs=1e-14)
        naive = [
            naive_error(p[:, c].tolist(), y[:, c].tolist(), binning) for c in range(p.shape[1])
        ]
        assert classwise_ece(p, y, binning) == pytest.approx(np.mean(naive), abs=1e-14)


@pytest.mark.parametrize("binning", [EqualWidth(15), EqualMass(15)], ids=str)
def test_ece_of_calibrated_predictions_is_its_monte_carlo_size(binning):
    rng = np.random.default_rng(1)
    n, classes = 100_000, 3
    p = rng.dirichlet(np.ones(classes), n)
    y = np.eye(classes)[(rng.random((n, 1)) > p.cumsum(1)[:, :-1]).sum(1)]
    # The gap summed over a bin is Normal(0, v), of mean size √(2 v / π).
    confidence = p.max(1)
    v = np.bincount(binning.assign(confidence), weights=confidence * (1 - confidence))
    expected = np.sqrt(2 * v / np.pi).sum() / n
    error = np.sqrt((v * (1 - 2 / np.pi)).sum()) / n
    assert top_label_ece(p, y, binning) == pytest.approx(expected, abs=4 * error)
    assert expected + 4 * error < 0.01


@given(SEEDS)
@settings(deadline=None, max_examples=30)
def test_scores_do_not_depend_on_the_order_of_points_or_classes(seed):
    p, y = simulate(seed, n=40)
    rng = np.random.default_rng(seed)
    points, classes = rng.permutation(40), rng.permutation(4)
    for name, score in standard_scores(num_bins=8).items():
        permuted = score(p[points][:, classes], y[points][:, classes])
        assert permuted == pytest.approx(score(p, y), abs=1e-12), name


@given(SEEDS, st.sampled_from([simulate, coarse]))
@settings(deadline=None, max_examples=30)
def test_integer_weights_repeat_points(seed, data):
    p, y = data(seed, n=30)
    counts = np.random.default_rng(seed).integers(0, 4, size=(5, 30))
    counts[:, 0] += 1
    for name, score in standard_scores(num_bins=6).items():
        together = score(p, y, weights=counts)
        assert together.shape == (5,)
        for weighted, count in zip(together, counts, strict=True):
            repeated = score(p.repeat(count, 0), y.repeat(count, 0))
            assert weighted == pytest.approx(repeated, abs=1e-12), name
            assert score(p, y, weights=count) == pytest.approx(repeated, abs=1e-12), name


# ------------------------------------------------------------------ smooth calibration error


@pytest.mark.parametrize("data", [simulate, coarse])
def test_smooth_ece_equals_a_double_sum(data):
    for seed in range(3):
        p, y = data(seed, n=40)
        truth = naive_smooth_error(p.max(1), y[range(40), p.argmax(1)] - p.max(1))
        assert smooth_ece(p, y) == pytest.approx(truth, rel=1e-4)


def test_smooth_ece_of_a_small_error_equals_a_double_sum():
    rng = np.random.default_rng(0)
    distinct, which = rng.uniform(0.5, 1, 80), rng.integers(80, size=4000)
    top = distinct[which]
    hit = rng.random(4000) < top
    p, y = np.stack([top, 1 - top], axis=1), np.stack([hit, ~hit], axis=1)
    truth = naive_smooth_error(distinct, np.bincount(which, weights=hit - top) / 50)
    assert 0.01 < truth < 0.03
    assert smooth_ece(p, y) == pytest.approx(truth, rel=1e-3)


def test_smooth_ece_of_gaps_of_one_sign_is_their_mean():
    p, _ = simulate(1)
    wrong = np.eye(4)[p.argmin(1)]
    assert smooth_ece(p, wrong) == pytest.approx(p.max(1).mean(), abs=1e-13)
    assert smooth_ece([[1, 0]], [[0, 1]]) == pytest.approx(1, abs=1e-13)


def test_smooth_ece_of_gaps_that_cancel_nearby_is_less_than_the_binned_error():
    # Hits on one side of a bin's edge, misses on the other, 1e-3 away from it.
    p = np.tile([[0.599, 0.401], [0.601, 0.399]], (50, 1))
    y = np.tile(np.eye(2), (50, 1))
    assert top_label_ece(p, y, EqualWidth(10)) == pytest.approx((0.401 + 0.601) / 2)
    # Smoothed, the gaps nearly cancel: their mean 0.1 is left.
    assert smooth_ece(p, y) == pytest.approx(0.1, abs=1e-3)


# ------------------------------------------------------------------ reliability


@pytest.mark.parametrize("binning", BINNINGS, ids=str)
def test_reliability_curve_carries_the_ece(binning):
    p, y = simulate(3)
    curve = reliability_curve(p, y, binning)
    gap = (curve.count * np.abs(curve.frequency - curve.confidence)).sum() / curve.count.sum()
    assert gap == pytest.approx(top_label_ece(p, y, binning), abs=1e-14)
    assert curve.count.sum() == len(p)
    assert (curve.count > 0).all()
    assert (np.diff(curve.confidence) > 0).all()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_reliability_bands_solve_the_wilson_equation(level):
    p, y = simulate(4, n=500)
    curve = reliability_curve(p, y, EqualWidth(10), level=level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    for bound in (curve.lower, curve.upper):
        np.testing.assert_allclose(
            curve.count * (curve.frequency - bound) ** 2, z**2 * bound * (1 - bound), atol=1e-12
        )
    assert (curve.lower < curve.frequency).all()
    assert (curve.frequency < curve.upper).all()


def test_reliability_bands_of_certain_bins_stay_in_the_unit_interval():
    p = np.repeat([[0.9, 0.1], [0.3, 0.7]], [10, 20], axis=0)
    curve = reliability_curve(p, np.repeat([[1, 0], [1, 0]], [10, 20], axis=0), EqualWidth(5))
    z = NormalDist().inv_cdf(0.95)
    np.testing.assert_allclose(curve.confidence, [0.7, 0.9])
    np.testing.assert_array_equal(curve.frequency, [0, 1])
    np.testing.assert_array_equal(curve.count, [20, 10])
    np.testing.assert_allclose(curve.lower, [0, 10 / (10 + z**2)], atol=1e-15)
    np.testing.assert_allclose(curve.upper, [z**2 / (20 + z**2), 1], rtol=1e-14)
    assert curve.lower.min() >= 0
    assert curve.upper.max() <= 1


# ------------------------------------------------------------------ uncertainty


def entropy(p):
    return -(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum(-1)


@pytest.mark.parametrize("concentration", [0.01, 1, 1e8])
def test_total_uncertainty_is_the_entropy_of_the_mean(concentration):
    p = np.random.default_rng(0).dirichlet(np.full(5, concentration), (50, 20))
    u = uncertainty(p)
    np.testing.assert_allclose(u.total, entropy(p.mean(0)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(u.aleatoric, entropy(p).mean(0), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(u.total, u.aleatoric + u.epistemic)


@given(SEEDS, st.integers(1, 6), st.integers(2, 5), st.floats(-3, 3))
def test_mutual_information_lies_between_zero_and_log_classes(seed, draws, classes, log_scale):
    rng = np.random.default_rng(seed)
    u = uncertainty(rng.dirichlet(np.full(classes, 10**log_scale), (draws, 4)))
    assert (u.epistemic >= 0).all()
    assert (u.aleatoric >= 0).all()
    assert (u.epistemic <= min(math.log(classes), math.log(draws)) + 1e-14).all()
    assert (u.total <= math.log(classes) + 1e-14).all()


def test_mutual_information_is_zero_only_if_draws_are_equal():
    p = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    equal = np.stack([p] * 7)
    assert (uncertainty(equal).epistemic == 0).all()
    for shift in (1e-12, 1e-9, 1e-6, 1e-3):
        # Two draws p ± e, e = shift · p0 (1, −1, 0): the information is Σ e² / 2p to second order.
        e = shift * p.min(1, keepdims=True) * np.array([1.0, -1.0, 0.0])
        draws = np.stack([p + e, p - e])
        e = (draws[0] - draws[1]) / 2  # as rounded
        information = uncertainty(draws).epistemic
        assert (information > 0).all()
        if shift >= 1e-6:
            np.testing.assert_allclose(information, (e**2 / (2 * p)).sum(1), rtol=1e-5)


def test_opposed_certain_draws_are_all_epistemic():
    u = uncertainty([[[1, 0]], [[0, 1]]])
    assert u.total == pytest.approx(math.log(2), rel=1e-15)
    assert u.epistemic == u.total
    assert u.aleatoric == 0


def test_uncertainty_survives_vanishing_probabilities():
    tiny = 5e-324
    u = uncertainty([[[1, 0], [1, tiny]], [[1, tiny], [1e-200, 1]]])
    np.testing.assert_allclose(u.total, [0, math.log(2)], atol=1e-15)
    np.testing.assert_allclose(u.epistemic, [0, math.log(2)], atol=1e-15)


# ------------------------------------------------------------------ intervals


def test_bootstrap_of_a_mean_is_normal():
    n, num_resamples, level = 2000, 4000, 0.9
    p, y = simulate(5, n=n)
    interval = bootstrap(Mean(brier), p, y, num_resamples=num_resamples, level=level, seed=0)
    error = brier(p, y).std() / math.sqrt(n)
    normal = NormalDist(brier(p, y).mean(), error)
    tail = (1 - level) / 2
    # Standard error of a sample quantile: √(q (1 − q) / R) / density.
    end = normal.inv_cdf(tail)
    monte_carlo = math.sqrt(tail * (1 - tail) / num_resamples) / normal.pdf(end)
    assert interval.value == pytest.approx(normal.mean, rel=1e-14)
    assert interval.lower == pytest.approx(end, abs=4 * monte_carlo)
    assert interval.upper == pytest.approx(normal.inv_cdf(1 - tail), abs=4 * monte_carlo)


@pytest.mark.parametrize("chunk", [1, 90, 2**20])
def test_bootstrap_repeats_itself_whatever_the_chunks(monkeypatch, chunk):
    p, y = simulate(6, n=40)
    score = partial(top_label_ece, binning=EqualMass(5))
    draw = partial(bootstrap, score, p, y, num_resamples=50)
    whole = draw(seed=1)
    assert whole != draw(seed=2)
    monkeypatch.setattr("ntkbayes.scores.calibration.intervals.CHUNK", chunk)
    assert draw(seed=1) == whole


def test_bootstrap_of_a_constant_score_is_a_point():
    y = np.eye(3)[[0, 1, 2, 0]]
    for name, interval in scores(y, y, num_resamples=50, seed=0).items():
        best = 1.0 if name == "accuracy" else 0.0
        assert interval == Interval(best, best, best, over=Over.POINTS), name


def test_bootstrap_of_an_infinite_score_is_infinite_only_above():
    p, y = simulate(7, n=100)
    p[0], y[0] = [0, 0, 0, 1], [1, 0, 0, 0]
    interval = bootstrap(Mean(negative_log_likelihood), p, y, seed=0)
    assert interval.value == interval.upper == np.inf
    assert math.isfinite(interval.lower)  # more than a third of the resamples miss the point


def test_difference_of_identical_predictions_is_exactly_zero():
    p, y = simulate(8)
    for score in standard_scores().values():
        assert paired_difference(score, p, p, y, seed=0) == Interval(
            0.0, 0.0, 0.0, over=Over.POINTS
        )


def test_a_bootstrap_interval_says_that_it_is_over_test_points():
    p, y = simulate(8, n=30)
    found = bootstrap(Mean(brier), p, y, num_resamples=99, level=0.5, seed=0)
    assert (found.over, found.level) == (Over.POINTS, 0.5)
    ends = f"{found.lower:.6g} to {found.upper:.6g}"
    assert repr(found) == f"{found.value:.6g} ({ends}, 50% over test points)"
    assert {each.meaning for each in scores(p, y, num_resamples=9, seed=0).values()} == {
        "90% over test points"
    }


def test_difference_of_infinite_scores_is_undefined():
    p, y = [[0, 1], [0, 1]], [[1, 0], [1, 0]]
    difference = paired_difference(Mean(negative_log_likelihood), p, p, y, seed=0)
    assert np.isnan([difference.value, difference.lower, difference.upper]).all()


def test_differences_are_paired():
    a, y = simulate(9)
    b, _ = simulate(10)
    difference = paired_difference(Mean(brier), a, b, y, seed=0)
    per_point = brier(a, y) - brier(b, y)

    def mean_of_differences(probabilities, targets, *, weights=None):
        return per_point.mean() if weights is None else weights @ per_point / weights.sum(-1)

    expected = bootstrap(mean_of_differences, a, y, seed=0)
    for end in ("value", "lower", "upper"):
        assert getattr(difference, end) == pytest.approx(getattr(expected, end), abs=1e-13)


def test_scores_come_in_documented_order_around_their_values():
    p, y = simulate(11)
    found = scores(p, y, num_resamples=100, seed=0)
    calibration = ["ece", "ece_equal_mass", "ece_classwise", "smooth_ece"]
    assert list(found) == ["accuracy", "nll", "brier", *calibration]
    for name in ("accuracy", "nll", "brier"):
        assert found[name].lower < found[name].value < found[name].upper
    assert found["ece_equal_mass"].value == top_label_ece(p, y, EqualMass(15))
    assert found["ece_classwise"].value == classwise_ece(p, y, EqualWidth(15))
    assert found["smooth_ece"].value == smooth_ece(p, y)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("probabilities", "targets", "message"),
    [
        ([[0.5, 0.5]], [[1, 0, 0]], r"\(1, 2\), targets \(1, 3\)"),
        ([[0.5, 0.5]], [[1, 0], [0, 1]], r"\(1, 2\), targets \(2, 2\)"),
        ([0.5, 0.5], [1, 0], r"probabilities have shape \(2,\)"),
        ([[1.0]], [[1.0]], "at least two classes"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "none empty"),
        ([[0.5, 0.5], [np.nan, 1]], [[1, 0], [1, 0]], "probabilities: row 1, class 0 is nan"),
        ([[0.5, 0.5], [1.1, -0.1]], [[1, 0], [1, 0]], "row 1, class 1 is -0.1"),
        ([[0.5, 0.5], [0.5, 0.50000191]], [[1, 0], [1, 0]], r"row 1 sums to 1\.0000019"),
        ([[0.5, 0.5], [np.inf, 0]], [[1, 0], [1, 0]], "row 1 sums to inf"),
        ([[0.5, 0.5]], [[1, 1]], "targets: row 0 sums to 2"),
    ],
)
def test_predictions_off_the_simplex_are_refused_by_name(probabilities, targets, message):
    per_point = (brier, correctness, negative_log_likelihood)
    for score in (*per_point, top_label_ece, classwise_ece, smooth_ece):
        with pytest.raises(DataError, match=message):
            score(probabilities, targets)


def test_rows_within_tolerance_are_taken_as_they_are():
    p = np.array([[0.5, 0.5 + 9e-7]])
    assert negative_log_likelihood(p, [[0, 1]]) == -math.log(0.5 + 9e-7)


def test_draws_off_the_simplex_are_refused_by_name():
    draws = np.full((2, 3, 2), 0.5)
    draws[1, 2, 0] = 0.6
    with pytest.raises(DataError, match=r"draw 1, row 2 sums to 1\.1"):
        uncertainty(draws)


@pytest.mark.parametrize(
    "weights", [[1], [[[1, 1]]], [0, 0], [[1, 1], [0, 0]], [2, -1], [1, np.nan]]
)
def test_bad_weights_are_refused(weights):
    p = [[0.5, 0.5], [0.1, 0.9]]
    with pytest.raises(DataError, match="weights"):
        Mean(brier)(p, p, weights=weights)


def test_settings_out_of_range_are_refused():
    p = [[0.5, 0.5]]
    for binning in (EqualWidth, EqualMass):
        with pytest.raises(ConfigurationError, match="num_bins must be at least 1; got 0"):
            binning(0)
    for level in (0, 1, 90):
        with pytest.raises(ConfigurationError, match=rf"level must lie in \(0, 1\); got {level}"):
            bootstrap(Mean(brier), p, p, level=level, seed=0)
        with pytest.raises(ConfigurationError, match=rf"level must lie in \(0, 1\); got {level}"):
            reliability_curve(p, p, level=level)
    with pytest.raises(ConfigurationError, match="num_resamples must be at least 1"):
        bootstrap(Mean(brier), p, p, num_resamples=0, seed=0)


def test_calibration_loads_nothing_heavy():
    heavy = ["sklearn", "matplotlib", "pandas", "arviz", "xarray"]
    code = (
        "import sys, ntkbayes.scores.calibration; "
        f"sys.exit(str([m for m in {heavy} if m in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == "[]"
