"""Scores, reliability and uncertainty of class probabilities, on plain numpy arrays.

Everywhere `probabilities` and `targets` have shape (n, classes) and rows on the simplex; targets
may be soft. Nothing is clipped: a class that happened with probability zero costs infinity. Ranges
hold up to the 1e-6 by which rows may miss the simplex.

Three kinds of piece fit together. A per-point score gives one number per point (`brier`); `Mean`
makes it a `Score`, one number per data set; the calibration errors are scores already, and those
with bins take a `Binning`. `bootstrap` and `paired_difference` put intervals around any score:

>>> import numpy as np
>>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
>>> targets = np.array([[1.0, 0.0], [0.0, 1.0]])
>>> print(brier(probabilities, targets).round(2), Mean(brier)(probabilities, targets).round(2))
[0.02 0.72] 0.37
>>> print(top_label_ece(probabilities, targets, EqualWidth(num_bins=10)).round(2))
0.35
"""

from ntkbayes.scores.calibration.binning import DEFAULT_BINNING, Binning, EqualMass, EqualWidth
from ntkbayes.scores.calibration.entropy import Uncertainty, uncertainty
from ntkbayes.scores.calibration.errors import classwise_ece, smooth_ece, top_label_ece
from ntkbayes.scores.calibration.intervals import (
    bootstrap,
    difference,
    interval_of,
    paired_difference,
    scores,
    standard_scores,
)
from ntkbayes.scores.calibration.per_point import (
    Mean,
    Score,
    Statistic,
    Value,
    WeightedMean,
    brier,
    correctness,
    negative_log_likelihood,
    ranked_probability_score,
)
from ntkbayes.scores.calibration.reliability import ReliabilityCurve, reliability_curve
from ntkbayes.scores.intervals import Interval, Over

__all__ = [
    "DEFAULT_BINNING",
    "Binning",
    "EqualMass",
    "EqualWidth",
    "Interval",
    "Mean",
    "Over",
    "ReliabilityCurve",
    "Score",
    "Statistic",
    "Uncertainty",
    "Value",
    "WeightedMean",
    "bootstrap",
    "brier",
    "classwise_ece",
    "correctness",
    "difference",
    "interval_of",
    "negative_log_likelihood",
    "paired_difference",
    "ranked_probability_score",
    "reliability_curve",
    "scores",
    "smooth_ece",
    "standard_scores",
    "top_label_ece",
    "uncertainty",
]
