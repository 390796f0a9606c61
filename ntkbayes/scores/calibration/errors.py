"""Calibration errors: of the predicted class, of every class, and without bins."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ntkbayes.errors import ConvergenceError
from ntkbayes.scores.calibration.binning import DEFAULT_BINNING, Binning
from ntkbayes.scores.calibration.per_point import Value
from ntkbayes.scores.simplex import top_label, validated, validated_weights

GRID = 400
"""Intervals of the grid on which `smooth_ece` smooths."""


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

    Args:
        probabilities: of the classes at each point, (n, C).
        targets: classes as probabilities, (n, C).
        binning: how points are put into bins.
        weights: of the points; equal by default.
    """
    confidence, hit = top_label(*validated(probabilities, targets))
    return _binned_error(confidence, hit, binning, validated_weights(weights, len(hit)))


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

    Args:
        probabilities: of the classes at each point, (n, C).
        targets: classes as probabilities, (n, C).
        binning: how points are put into bins.
        weights: of the points; equal by default.
    """
    p, y = validated(probabilities, targets)
    w = validated_weights(weights, len(p))
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

    confidence, hit = top_label(*validated(probabilities, targets))
    w = validated_weights(weights, len(hit))
    # Cosines are the modes of the walk, with eigenvalues −rate.
    modes = fft.dct(_on_grid(confidence, hit - confidence, np.atleast_2d(w)), type=1)
    rate = GRID**2 * (1 - np.cos(np.pi * np.arange(GRID + 1) / GRID))
    rows = np.arange(len(modes))

    def smoothed(width: np.ndarray, row: np.ndarray) -> np.ndarray:
        gaps = np.abs(fft.dct(modes[row] * np.exp(-(width[:, None] ** 2) * rate), type=1))
        return (gaps.sum(axis=1) - (gaps[:, 0] + gaps[:, -1]) / 2) / GRID

    root = elementwise.find_root(
        lambda width, row: smoothed(width, row) - width,
        (np.zeros(len(rows)), np.full(len(rows), 2.0)),  # 1 plus round-off may be reached
        args=(rows,),
        tolerances={"xatol": 1e-14, "xrtol": 0},
    )
    if not root.success.all():
        raise ConvergenceError("smooth ECE: no fixed point was found; this is a bug, report it")
    values = smoothed(root.x, rows)
    return values if w.ndim == 2 else values[0]


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
