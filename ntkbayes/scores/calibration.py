"""Scores, reliability and uncertainty of class probabilities, on plain numpy arrays.

Everywhere `probabilities` and `targets` have shape (n, classes) and rows on the simplex; targets
may be soft. Nothing is clipped: a class that happened with probability zero costs infinity. Ranges
hold up to the 1e-6 by which rows may miss the simplex.

Three kinds of piece fit together. A per-point score gives one number a point (`brier`); `Mean`
makes it a `Score`, one number a data set; the calibration errors are scores already, and those
with bins take a `Binning`. `bootstrap` and `paired_difference` put intervals around any score:

>>> import numpy as np
>>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
>>> targets = np.array([[1.0, 0.0], [0.0, 1.0]])
>>> print(brier(probabilities, targets).round(2), Mean(brier)(probabilities, targets).round(2))
[0.02 0.72] 0.37
>>> print(top_label_ece(probabilities, targets, EqualWidth(num_bins=10)).round(2))
0.35
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from ntkbayes import ranges
from ntkbayes.errors import ConvergenceError, DataError

SIMPLEX_TOLERANCE = 1e-6
"""How far a row may sum from one; negative entries are refused whatever their size."""

CHUNK = 2**20
"""Numbers in one array of bootstrap weights, or of resampled gaps on the grid."""

GRID = 400
"""Intervals of the grid on which `smooth_ece` smooths."""

type Value = np.float64 | Float[np.ndarray, "resamples"]


# ------------------------------------------------------------------ per-point scores


def negative_log_likelihood(probabilities: ArrayLike, targets: ArrayLike) -> Float[np.ndarray, "n"]:
    """Cross-entropy −Σ_c y_c log p_c of each point, in nats, with 0 log 0 = 0 (Good 1952).

    In [0, ∞]; infinite where a class with y_c > 0 was given probability zero.
    """
    p, y = _validated(probabilities, targets)
    # Adding 0.0 turns -0.0 into 0.0.
    return -np.multiply(y, _log(p), where=y > 0, out=np.zeros_like(p)).sum(axis=1) + 0.0


def brier(probabilities: ArrayLike, targets: ArrayLike) -> Float[np.ndarray, "n"]:
    """Σ_c (p_c − y_c)² of each point, over all classes, not halved (Brier 1950). In [0, 2]."""
    p, y = _validated(probabilities, targets)
    return ((p - y) ** 2).sum(axis=1)


def correctness(probabilities: ArrayLike, targets: ArrayLike) -> Float[np.ndarray, "n"]:
    """Target probability y[argmax p] of the predicted class of each point, in [0, 1].

    0 or 1 for hard targets; its mean is the (expected) accuracy. The first of tied classes wins.
    """
    return _top_label(*_validated(probabilities, targets))[1]


# ------------------------------------------------------------------ scores of a data set


@runtime_checkable
class Score(Protocol):
    """One number for a data set: of shape () without weights or with weights (n,).

    Weights (resamples, n) give one number a resample, of shape (resamples,). Integer weights
    count how often each point occurs, so a score with weights is the score of repeated points.
    """

    def __call__(
        self, probabilities: ArrayLike, targets: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Value: ...


@dataclass(frozen=True)
class Mean:
    """The (weighted) mean of a per-point score, such as `Mean(brier)`: a `Score`."""

    per_point: Callable[[ArrayLike, ArrayLike], Float[np.ndarray, "n"]]

    def __call__(
        self, probabilities: ArrayLike, targets: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Value:
        terms = self.per_point(probabilities, targets)
        w = _weights(weights, len(terms))
        # A point of weight zero is absent, even where its term is infinite.
        total = np.multiply(w, terms, where=w > 0, out=np.zeros_like(w)).sum(axis=-1)
        return total / w.sum(axis=-1)


@runtime_checkable
class Binning(Protocol):
    """A partition of confidences into `num_bins` bins, numbered from 0."""

    @property
    def num_bins(self) -> int: ...

    def assign(
        self, confidences: ArrayLike, weights: ArrayLike | None = None
    ) -> Int[np.ndarray, "*resamples n"]:
        """The bin of each confidence; shape (n,), or weights' where they move the bins."""
        ...


@dataclass(frozen=True)
class EqualWidth:
    """Bins (k/B, (k+1)/B] for k = 0 … B − 1, with 0 in the first (Guo et al. 2017)."""

    num_bins: int = 15

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_bins", ranges.whole("num_bins", self.num_bins))

    @property
    def edges(self) -> Float[np.ndarray, "edges"]:
        """The B + 1 edges from 0 to 1."""
        return np.arange(self.num_bins + 1) / self.num_bins

    def assign(
        self, confidences: ArrayLike, weights: ArrayLike | None = None
    ) -> Int[np.ndarray, "n"]:
        """The bin of each confidence, whatever the weights."""
        # Inner edges only: round-off beyond 0 or 1 stays in the outer bins.
        return np.searchsorted(self.edges[1:-1], np.asarray(confidences), side="left")


@dataclass(frozen=True)
class EqualMass:
    """Bins that hold nearly the same number of points each (Nixon et al. 2019).

    Points are laid end to end in increasing confidence, each as long as its weight. A point goes
    to the bin, one of B equal pieces of the whole, where its middle lies; points of equal
    confidence are one long point, so that ties stay together and the order of the data does not
    matter. Untied, bins differ by at most one point; with ties some may be empty.
    """

    num_bins: int = 15

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_bins", ranges.whole("num_bins", self.num_bins))

    def assign(
        self, confidences: ArrayLike, weights: ArrayLike | None = None
    ) -> Int[np.ndarray, "*resamples n"]:
        """The bin of each point, of shape (n,) or the weights' shape."""
        confidences = np.asarray(confidences)
        w = _weights(weights, len(confidences))
        _, group, size = np.unique(confidences, return_inverse=True, return_counts=True)
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(w[..., order], axis=-1)[..., np.cumsum(size) - 1]
        starts = np.concatenate([np.zeros_like(ends[..., :1]), ends[..., :-1]], axis=-1)
        bins = ((starts + ends) * self.num_bins // (2 * ends[..., -1:])).astype(np.int64)
        # Groups of weight zero at the far end would be in the bin after the last.
        return np.minimum(bins, self.num_bins - 1)[..., group]


DEFAULT_BINNING = EqualWidth(15)


def top_label_ece(
    probabilities: ArrayLike,
    targets: ArrayLike,
    binning: Binning = DEFAULT_BINNING,
    *,
    weights: ArrayLike | None = None,
) -> Value:
    """Expected calibration error of the predicted class (Guo et al. 2017), in [0, 1].

    Σ_b (n_b / n) |frequency_b − confidence_b|: within bin b, the mean of y[argmax p] against the
    mean of max p. Biased upwards on finite data, the more so the more bins.
    """
    confidence, hit = _top_label(*_validated(probabilities, targets))
    return _binned_error(confidence, hit, binning, _weights(weights, len(hit)))


def classwise_ece(
    probabilities: ArrayLike,
    targets: ArrayLike,
    binning: Binning = DEFAULT_BINNING,
    *,
    weights: ArrayLike | None = None,
) -> Value:
    """Mean over classes of the calibration error of p_c (Kull et al. 2019), in [0, 2/classes].

    (1 / C) Σ_c Σ_b (n_bc / n) |frequency_bc − mean probability_bc|, all points binned by p_c anew
    for each class; the static calibration error of Nixon et al. 2019.
    """
    p, y = _validated(probabilities, targets)
    w = _weights(weights, len(p))
    errors = [_binned_error(p[:, c], y[:, c], binning, w) for c in range(p.shape[1])]
    return np.mean(errors, axis=0)


def smooth_ece(
    probabilities: ArrayLike, targets: ArrayLike, *, weights: ArrayLike | None = None
) -> Value:
    """Smooth calibration error of the predicted class (Błasiok & Nakkiran 2023), in [0, 1].

    A kernel in place of bins: smECE_σ = ∫ |mean_i K_σ(t, max p_i) (y_i[argmax p_i] − max p_i)| dt
    over t in [0, 1], with K_σ the Gaussian kernel reflected at both ends. It falls as σ grows, to
    |accuracy − mean confidence|. The score is its value at the σ that it equals.

    t lies on a grid of 401 nodes. There each confidence is shared by its two neighbours, and K_σ
    is the reflected random walk of variance σ², so that smECE_σ still falls; its one fixed point
    is found to round-off. The grid's relative error was below 1e-3 for scores above 0.01.

    Raises ConvergenceError if no fixed point is found.
    """
    from scipy import fft
    from scipy.optimize import elementwise

    confidence, hit = _top_label(*_validated(probabilities, targets))
    w = _weights(weights, len(hit))
    # Cosines are the modes of the walk, with eigenvalues −rate.
    modes = fft.dct(_on_grid(confidence, hit - confidence, np.atleast_2d(w)), type=1)
    rate = GRID**2 * (1 - np.cos(np.pi * np.arange(GRID + 1) / GRID))
    rows = np.arange(len(modes))

    def smoothed(width: np.ndarray, row: np.ndarray) -> np.ndarray:
        gaps = np.abs(fft.dct(modes[row] * np.exp(-(width[:, None] ** 2) * rate), type=1))
        return (gaps.sum(axis=1) - (gaps[:, 0] + gaps[:, -1]) / 2) / GRID

    found = elementwise.find_root(
        lambda width, row: smoothed(width, row) - width,
        (np.zeros(len(rows)), np.full(len(rows), 2.0)),  # 1 plus round-off may be reached
        args=(rows,),
        tolerances={"xatol": 1e-14, "xrtol": 0},
    )
    if not found.success.all():
        raise ConvergenceError("smooth ECE: no fixed point was found; this is a bug, report it")
    values = smoothed(found.x, rows)
    return values if w.ndim == 2 else values[0]


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


# ------------------------------------------------------------------ reliability


@dataclass(frozen=True)
class ReliabilityCurve:
    """Top-label confidence against frequency, one entry a non-empty bin, in bin order."""

    confidence: Float[np.ndarray, "bins"]
    """Mean of max p in the bin."""
    frequency: Float[np.ndarray, "bins"]
    """Mean of y[argmax p] in the bin."""
    count: Int[np.ndarray, "bins"]
    """Number of points in the bin."""
    lower: Float[np.ndarray, "bins"]
    """Lower end of the Wilson interval of the frequency."""
    upper: Float[np.ndarray, "bins"]
    """Upper end of the Wilson interval of the frequency."""


def reliability_curve(
    probabilities: ArrayLike,
    targets: ArrayLike,
    binning: Binning = DEFAULT_BINNING,
    *,
    level: float = 0.9,
) -> ReliabilityCurve:
    """The reliability diagram of the predicted class, with two-sided Wilson (1927) intervals.

    With soft targets the frequency is a mean of probabilities, which varies less than the count
    Wilson assumes: the intervals are then an approximation, on the wide side.
    """
    check_level(level)
    top, hit = _top_label(*_validated(probabilities, targets))
    bins = binning.assign(top)
    count = np.bincount(bins, minlength=binning.num_bins)
    kept = count > 0
    n = count[kept]
    confidence = np.bincount(bins, weights=top, minlength=binning.num_bins)[kept] / n
    frequency = np.bincount(bins, weights=hit, minlength=binning.num_bins)[kept] / n
    z = NormalDist().inv_cdf((1 + level) / 2)
    spread = frequency * np.maximum(1 - frequency, 0)  # targets may exceed one by round-off
    centre = (frequency + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(spread / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    # Wilson intervals lie in [0, 1]; the bounds take off round-off at frequencies 0 and 1.
    return ReliabilityCurve(
        confidence, frequency, n, np.maximum(centre - half, 0), np.minimum(centre + half, 1)
    )


# ------------------------------------------------------------------ uncertainty


@dataclass(frozen=True)
class Uncertainty:
    """Entropies in nats, one a point, with total = aleatoric + epistemic (Depeweg et al. 2018)."""

    total: Float[np.ndarray, "n"]
    """Entropy of the mean prediction, in [0, log classes]."""
    aleatoric: Float[np.ndarray, "n"]
    """Mean entropy of the draws, in [0, total]."""
    epistemic: Float[np.ndarray, "n"]
    """Mutual information of label and draw, in [0, total]; zero iff all draws agree."""


def uncertainty(probability_draws: ArrayLike) -> Uncertainty:
    """Decompose the entropy of class probabilities drawn from a law, (draws, n, classes).

    The mutual information (Houlsby et al. 2011) is the mean divergence KL(p_s ‖ p̄) of the draws
    from their mean, a sum of terms ≥ 0, not a small difference of two entropies: its relative
    error is round-off over the relative spread of the draws, not over the square of it, and it
    is exactly zero when all draws agree.
    """
    p = check_simplex("probability_draws", probability_draws, ("draw", "row", "class"))
    mean = p[0] + (p - p[0]).mean(axis=0)  # exact when all draws are equal
    aleatoric = -np.multiply(p, _log(p), where=p > 0, out=np.zeros_like(p)).sum(axis=2).mean(axis=0)
    # With d = p / p̄ − 1, whose mean over draws is zero, KL is the mean of
    # p̄ ((1 + d) log(1 + d) − d), and every such term is ≥ 0. Where p = 0, 0 log 0 = 0.
    ratio = np.divide(p, mean, where=mean > 0, out=np.ones_like(p))
    d = np.divide(p - mean, mean, where=mean > 0, out=np.zeros_like(p))
    log = np.log(ratio, where=ratio > 0, out=np.zeros_like(p))
    log = np.log1p(d, where=np.abs(d) < 0.5, out=log)
    divergence = np.maximum(d * log + (log - d), 0)
    epistemic = (mean * divergence).sum(axis=2).mean(axis=0)
    aleatoric = aleatoric + 0.0  # -0.0 to 0.0
    return Uncertainty(total=aleatoric + epistemic, aleatoric=aleatoric, epistemic=epistemic)


# ------------------------------------------------------------------ intervals


@dataclass(frozen=True)
class Interval:
    """A score on the data and the ends of its interval over bootstrapped data."""

    value: float
    lower: float
    upper: float


def bootstrap(
    score: Score,
    probabilities: ArrayLike,
    targets: ArrayLike,
    *,
    num_resamples: int = 1000,
    level: float = 0.9,
    seed: int,
) -> Interval:
    """Percentile interval of a score over resampled test points (Efron 1979).

    Equal n and seed mean equal resamples, whatever the score and the predictions. Percentiles are
    order statistics, rounded outwards, so that infinite scores stay infinite; one undefined
    resample makes both ends nan. Calibration errors grow by resampling: their intervals lie high,
    and may lie above the value.
    """
    p, y = _validated(probabilities, targets)

    def statistic(weights: np.ndarray | None) -> Value:
        return score(p, y, weights=weights)

    return _percentile_interval(statistic, len(p), num_resamples, level, seed)


def paired_difference(
    score: Score,
    probabilities_a: ArrayLike,
    probabilities_b: ArrayLike,
    targets: ArrayLike,
    *,
    num_resamples: int = 1000,
    level: float = 0.9,
    seed: int,
) -> Interval:
    """Percentile interval of score(a) − score(b), both on the same resampled test points.

    Where both scores are infinite the difference is undefined: nan.
    """
    a, y = _validated(probabilities_a, targets)
    b, _ = _validated(probabilities_b, targets)

    def statistic(weights: np.ndarray | None) -> Value:
        with np.errstate(invalid="ignore"):
            return score(a, y, weights=weights) - score(b, y, weights=weights)

    return _percentile_interval(statistic, len(y), num_resamples, level, seed)


def scores(
    probabilities: ArrayLike,
    targets: ArrayLike,
    *,
    num_bins: int = 15,
    num_resamples: int = 1000,
    level: float = 0.9,
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


# ------------------------------------------------------------------ checks


def check_level(level: float) -> None:
    """Raise ConfigurationError unless 0 < level < 1."""
    ranges.real("level", level, ranges.Range.OPEN_UNIT)


def check_simplex(name: str, values: ArrayLike, axes: tuple[str, ...]) -> np.ndarray:
    """Probabilities as float64, with one axis for each name in `axes`, the last of them classes.

    Raises DataError, which calls them `name`, unless every row lies on the simplex.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(axes) or array.size == 0 or array.shape[-1] < 2:
        raise DataError(
            f"{name} have shape {array.shape}; the axes must be ({', '.join(axes)}), none empty, "
            "with at least two classes: give binary labels two columns"
        )
    if bad := np.argwhere(~(array >= 0)).tolist():  # negative or nan
        place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, bad[0], strict=True))
        raise DataError(f"{name}: {place} is {array[tuple(bad[0])]}, which is no probability")
    total = array.sum(axis=-1)
    if bad := np.argwhere(~(np.abs(total - 1) <= SIMPLEX_TOLERANCE)).tolist():
        place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, bad[0], strict=False))
        raise DataError(
            f"{name}: {place} sums to {total[tuple(bad[0])]}, not to 1 within {SIMPLEX_TOLERANCE}; "
            "normalise it (logits need a softmax first)"
        )
    return array


# ------------------------------------------------------------------ private


def _validated(probabilities: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (n, classes) with rows on the simplex."""
    p = check_simplex("probabilities", probabilities, ("row", "class"))
    y = check_simplex("targets", targets, ("row", "class"))
    if p.shape != y.shape:
        raise DataError(f"probabilities have shape {p.shape}, targets {y.shape}; they must agree")
    return p, y


def _weights(weights: ArrayLike | None, n: int) -> np.ndarray:
    if weights is None:
        return np.ones(n)
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim not in (1, 2) or w.shape[-1] != n:
        raise DataError(f"weights have shape {w.shape}; they must be ({n},) or (resamples, {n})")
    if not (np.isfinite(w).all() and (w >= 0).all() and (w.sum(axis=-1) > 0).all()):
        raise DataError("weights must be finite and not negative, and must not all be zero")
    return w


def _log(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(values)


def _top_label(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence max p and its hit y[argmax p]."""
    rows, label = np.arange(len(p)), p.argmax(axis=1)
    return p[rows, label], y[rows, label]


def _binned_error(
    confidence: np.ndarray, hit: np.ndarray, binning: Binning, w: np.ndarray
) -> Value:
    """Σ_b |Σ_{i in b} w_i (hit_i − confidence_i)| / Σ_i w_i: bin sizes cancel."""
    resamples = np.atleast_2d(w)
    bins = np.broadcast_to(binning.assign(confidence, w), resamples.shape)
    cells = bins + binning.num_bins * np.arange(len(resamples))[:, None]
    gaps = np.bincount(
        cells.ravel(),
        weights=(resamples * (hit - confidence)).ravel(),
        minlength=binning.num_bins * len(resamples),
    )
    errors = np.abs(gaps.reshape(len(resamples), -1)).sum(axis=1) / resamples.sum(axis=1)
    return errors if w.ndim == 2 else errors[0]


def _on_grid(
    confidence: np.ndarray, gap: np.ndarray, resamples: np.ndarray
) -> Float[np.ndarray, "resamples nodes"]:
    """Mean gaps as point masses on the grid, halved inside, where the type 1 transform doubles."""
    left = np.clip((confidence * GRID).astype(np.int64), 0, GRID - 1)
    share = confidence * GRID - left
    mass = resamples * gap / resamples.sum(axis=1, keepdims=True)
    cells = left + (GRID + 1) * np.arange(len(resamples))[:, None]
    nodes = np.bincount(
        np.concatenate([cells, cells + 1], axis=1).ravel(),
        weights=np.concatenate([mass * (1 - share), mass * share], axis=1).ravel(),
        minlength=(GRID + 1) * len(resamples),
    ).reshape(len(resamples), -1)
    nodes[:, 1:-1] /= 2
    return nodes


def _percentile_interval(
    statistic: Callable[[np.ndarray | None], Value],
    n: int,
    num_resamples: int,
    level: float,
    seed: int,
) -> Interval:
    check_level(level)
    num_resamples = ranges.whole("num_resamples", num_resamples)
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(n, GRID))
    values = []
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        values.append(np.asarray(statistic(weights.astype(np.float64))))
    resampled = np.sort(np.concatenate(values))
    value = float(statistic(None))
    if np.isnan(resampled[-1]):  # nan sorts last
        return Interval(value, float("nan"), float("nan"))
    tail = int((1 - level) / 2 * (num_resamples - 1))
    return Interval(value, float(resampled[tail]), float(resampled[-1 - tail]))
