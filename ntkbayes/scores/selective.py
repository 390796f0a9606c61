"""Selective prediction: how much error a law avoids by abstaining where it is not sure.

>>> curve = risk_coverage([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], [[1, 0], [0, 1], [0, 1]])
>>> print(curve.coverage.round(2), curve.risk.round(2), round(curve.aurc, 2))
[0.33 0.67 1.  ] [0.   0.   0.33] 0.11
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ntkbayes.display import Configured
from ntkbayes.errors import DataError
from ntkbayes.scores.calibration import correctness


@dataclass(frozen=True, eq=False, repr=False)
class RiskCoverage(Configured):
    """The risk–coverage curve (Geifman & El-Yaniv 2017), one entry for each number k of answers."""

    coverage: Float[np.ndarray, "n"]
    """Share k/n of the points that are answered, the most confident ones."""
    risk: Float[np.ndarray, "n"]
    """Error rate among them; its expectation where ties in confidence are broken at random."""
    best_risk: Float[np.ndarray, "n"]
    """The same if points were ordered by their error: the least any confidence could reach."""

    @property
    def aurc(self) -> float:
        """Area under the curve: mean risk over all coverages (Geifman, Uziel & El-Yaniv 2019)."""
        return float(self.risk.mean())

    @property
    def excess_aurc(self) -> float:
        """AURC above that of the best order, ≥ 0: the confidence's share, not the accuracy's."""
        return float((self.risk - self.best_risk).mean())


def risk_coverage(
    probabilities: ArrayLike, targets: ArrayLike, *, confidence: ArrayLike | None = None
) -> RiskCoverage:
    """The risk–coverage curve of the predicted class.

    Args:
        probabilities: predictive class probabilities, (n, K).
        targets: (n, K), on the simplex. A point's error is 1 − y[argmax p]: for soft targets, the
            probability that the predicted class is wrong.
        confidence: what to order points by, (n,), largest first; max p by default. Minus the
            epistemic uncertainty is another.

    Raises:
        DataError: rows off the simplex, or confidences that are not n finite numbers.
    """
    error = 1 - correctness(probabilities, targets)
    if confidence is None:
        confidence = np.asarray(probabilities).max(axis=1)
    order = np.asarray(confidence, dtype=np.float64)
    if order.shape != error.shape:
        raise DataError(f"confidence has shape {order.shape}; it must be {error.shape}")
    if bad := np.flatnonzero(~np.isfinite(order)).tolist():
        raise DataError(f"confidence {bad[0]} is {order[bad[0]]}; it must be finite")
    answers = np.arange(1, len(error) + 1)
    return RiskCoverage(
        coverage=answers / len(error),
        risk=_by_decreasing(order, error).cumsum() / answers,
        best_risk=np.sort(error).cumsum() / answers,
    )


def _by_decreasing(confidence: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Errors in order of decreasing confidence, each the mean over its ties: its expectation."""
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(group, weights=error) / size, size)
