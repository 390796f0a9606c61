"""Bootstrap intervals of scores, and of paired differences."""

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ntkbayes import ranges
from ntkbayes.scores.calibration.binning import EqualMass, EqualWidth
from ntkbayes.scores.calibration.errors import GRID, classwise_ece, smooth_ece, top_label_ece
from ntkbayes.scores.calibration.per_point import (
    Mean,
    Score,
    Statistic,
    Value,
    brier,
    correctness,
    negative_log_likelihood,
)
from ntkbayes.scores.intervals import LEVEL, Interval, Over
from ntkbayes.scores.simplex import check_level, validated

CHUNK = 2**20
"""Numbers in one array of bootstrap weights, or of resampled gaps on the grid."""


def standard_scores(num_bins: int = 15) -> dict[str, Score]:
    """The scores reported by `scores`, by name and in its order."""
    return {
        "accuracy": Mean(correctness),
        "nll": Mean(negative_log_likelihood),
        "brier": Mean(brier),
        "ece": partial(top_label_ece, binning=EqualWidth(num_bins)),
        "ece_equal_mass": partial(top_label_ece, binning=EqualMass(num_bins)),
        "ece_classwise": partial(classwise_ece, binning=EqualWidth(num_bins)),
        "smooth_ece": smooth_ece,
    }


def bootstrap(
    score: Score,
    probabilities: ArrayLike,
    targets: ArrayLike,
    *,
    num_resamples: int = 1000,
    level: float = LEVEL,
    seed: int,
) -> Interval:
    """Percentile interval of a score over resampled test points (Efron 1979).

    Equal n and seed mean equal resamples, whatever the score and the predictions. Percentiles are
    order statistics, rounded outwards, so that infinite scores stay infinite; one undefined
    resample makes both ends nan. Calibration errors grow by resampling: their intervals lie high,
    and may lie above the value.

    Args:
        score: one of this package's.
        probabilities: of the classes at each point, (n, C).
        targets: classes as probabilities, (n, C).
        num_resamples: how often the points are resampled.
        level: of the interval, in (0, 1).
        seed: of the resamples.
    """
    p, y = validated(probabilities, targets)
    return interval_of(
        lambda weights: score(p, y, weights=weights),
        len(p),
        num_resamples=num_resamples,
        level=level,
        seed=seed,
    )


def paired_difference(
    score: Score,
    probabilities_a: ArrayLike,
    probabilities_b: ArrayLike,
    targets: ArrayLike,
    *,
    num_resamples: int = 1000,
    level: float = LEVEL,
    seed: int,
) -> Interval:
    """Percentile interval of score(a) − score(b), both on the same resampled test points.

    Where both scores are infinite the difference is undefined: nan.

    Args:
        probabilities_a: of the classes at each point, (n, C), by the one model.
        probabilities_b: by the other.
        score, targets, num_resamples, level, seed: as for `bootstrap`.
    """
    a, y = validated(probabilities_a, targets)
    b, _ = validated(probabilities_b, targets)
    return interval_of(
        difference(
            lambda weights: score(a, y, weights=weights),
            lambda weights: score(b, y, weights=weights),
        ),
        len(y),
        num_resamples=num_resamples,
        level=level,
        seed=seed,
    )


def difference(a: Statistic, b: Statistic) -> Statistic:
    """a − b on the same resamples; nan where both are infinite."""

    def less(weights: ArrayLike | None = None) -> Value:
        with np.errstate(invalid="ignore"):
            return a(weights) - b(weights)

    return less


def scores(
    probabilities: ArrayLike,
    targets: ArrayLike,
    *,
    num_bins: int = 15,
    num_resamples: int = 1000,
    level: float = LEVEL,
    seed: int,
) -> dict[str, Interval]:
    """Bootstrapped scores in this order, all on the same resamples.

    "accuracy", "nll", "brier" are means of the per-point scores; "ece" and "ece_equal_mass" are
    `top_label_ece` with bins of equal width and of equal mass; "ece_classwise" is `classwise_ece`
    with bins of equal width; "smooth_ece" is `smooth_ece`, which has no bins.
    """
    return {
        name: bootstrap(
            score, probabilities, targets, num_resamples=num_resamples, level=level, seed=seed
        )
        for name, score in standard_scores(num_bins).items()
    }


def interval_of(
    statistic: Statistic,
    num_points: int,
    *,
    num_resamples: int = 1000,
    level: float = LEVEL,
    seed: int,
) -> Interval:
    """Percentile interval of a statistic over resampled points; see `bootstrap`.

    Args:
        statistic: weights of the points → a number.
        num_points: n.
        num_resamples, level, seed: as for `bootstrap`.
    """
    check_level(level)
    num_resamples = ranges.whole("num_resamples", num_resamples)
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(num_points, GRID))
    values = []
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        drawn = rng.integers(num_points, size=(size, num_points))
        drawn += num_points * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * num_points).reshape(size, num_points)
        values.append(np.asarray(statistic(weights.astype(np.float64))))
    resampled = np.sort(np.concatenate(values))
    value = float(statistic(None))
    if np.isnan(resampled[-1]):  # nan sorts last
        ends = float("nan"), float("nan")
    else:
        tail = int((1 - level) / 2 * (num_resamples - 1))
        ends = float(resampled[tail]), float(resampled[-1 - tail])
    return Interval(value, *ends, over=Over.POINTS, level=level)
