"""The reliability diagram: confidence against frequency."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from ntkbayes.display import Configured
from ntkbayes.scores.calibration.binning import DEFAULT_BINNING, Binning
from ntkbayes.scores.simplex import check_level, top_label, validated


@dataclass(frozen=True, repr=False)
class ReliabilityCurve(Configured):
    """Top-label confidence against frequency, one entry per non-empty bin, in bin order."""

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
    top, hit = top_label(*validated(probabilities, targets))
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
