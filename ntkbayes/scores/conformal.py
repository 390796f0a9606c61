"""Split conformal prediction: sets of classes that hold the true one with a given probability.

A frequentist reference for the laws: whatever the predictive probabilities, sets cover the label of
a new point with probability ≥ level, over calibration and test points together, if these are
exchangeable (Vovk, Gammerman & Shafer 2005). No class enters a set unless its score is at most the
⌈(n + 1) level⌉-th smallest score of the n calibration labels. Calibration points must not have been
trained on.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from ntkbayes.display import Configured
from ntkbayes.errors import DataError
from ntkbayes.scores.simplex import check_level, check_simplex


@dataclass(frozen=True, eq=False, repr=False)
class PredictionSets(Configured):
    """Sets of classes, one per point."""

    members: Bool[np.ndarray, "n classes"]
    """Which classes are in the set."""
    level: float
    """Probability with which sets should cover the label."""
    threshold: float
    """The largest score in a set; infinite if there were too few calibration points."""

    def coverage(self, labels: ArrayLike) -> float:
        """Share of labels (n,), class indices, that are in their sets.

        Raises DataError for labels that are no class indices, or not n.
        """
        indices = _labels(labels, self.members.shape)
        return float(self.members[np.arange(len(indices)), indices].mean())

    @property
    def mean_size(self) -> float:
        """Mean number of classes in a set; smaller is sharper."""
        return float(self.members.sum(axis=1).mean())


def threshold_sets(
    calibration_probabilities: ArrayLike,
    calibration_labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    level: float = 0.9,
) -> PredictionSets:
    """The classes of probability ≥ 1 − threshold: score 1 − p_c (Sadinle, Lei & Wasserman 2019).

    The smallest sets on average if the probabilities are right, but some may be empty. Coverage is
    ⌈(n + 1) level⌉ / (n + 1), or above where scores tie.

    Args:
        calibration_probabilities: predictive class probabilities of points held out, (n, K).
        calibration_labels: their class indices, (n,).
        probabilities: of the points to predict, (m, K).
        level: probability of coverage. With fewer than level / (1 − level) calibration points no
            threshold covers that often: all classes are then in every set.

    Raises:
        DataError: rows off the simplex, other classes, or labels that are no class indices.
        ConfigurationError: a level outside (0, 1).
    """
    known, labels, new = _checked(
        calibration_probabilities, calibration_labels, probabilities, level
    )
    return _sets(1 - known, labels, 1 - new, level)


def adaptive_sets(
    calibration_probabilities: ArrayLike,
    calibration_labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    level: float = 0.9,
    seed: int,
) -> PredictionSets:
    """The most probable classes up to a common mass (Romano, Sesia & Candès 2020).

    The score of class c is the mass of the classes before it, by decreasing probability, plus
    U p_c, with one U uniform on [0, 1] a point. Sets are larger where a law is less sure, and
    coverage is closer to equal over points than that of `threshold_sets`. Thanks to U scores do
    not tie, and coverage is exactly ⌈(n + 1) level⌉ / (n + 1), unless labels have probability
    zero: then it is at least that. Sets may be empty.

    The other arguments and the errors are those of `threshold_sets`; `seed` is that of U.
    """
    known, labels, new = _checked(
        calibration_probabilities, calibration_labels, probabilities, level
    )
    rng = np.random.default_rng(seed)
    return _sets(_mass_before(known, rng), labels, _mass_before(new, rng), level)


def _mass_before(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mass of the classes before each class, by decreasing probability, plus a share of its own."""
    order = np.argsort(-p, axis=1, kind="stable")
    sorted_p = np.take_along_axis(p, order, axis=1)
    scores = np.empty_like(p)
    before = sorted_p.cumsum(axis=1) - sorted_p
    np.put_along_axis(scores, order, before + rng.random((len(p), 1)) * sorted_p, axis=1)
    return scores


def _sets(known: np.ndarray, labels: np.ndarray, new: np.ndarray, level: float) -> PredictionSets:
    """From the scores of all classes at calibration points and at new ones."""
    scores = np.sort(known[np.arange(len(labels)), labels])
    # Round-off must not push a whole number such as 100 · 0.07 to the next.
    rank = math.ceil((len(scores) + 1) * level * (1 - 1e-12))
    threshold = float(scores[rank - 1]) if rank <= len(scores) else math.inf
    return PredictionSets(members=new <= threshold, level=level, threshold=threshold)


def _checked(
    calibration_probabilities: ArrayLike,
    calibration_labels: ArrayLike,
    probabilities: ArrayLike,
    level: float,
) -> tuple[Float[np.ndarray, "n classes"], np.ndarray, Float[np.ndarray, "m classes"]]:
    check_level(level)
    known = check_simplex("calibration_probabilities", calibration_probabilities, ("row", "class"))
    new = check_simplex("probabilities", probabilities, ("row", "class"))
    if known.shape[1] != new.shape[1]:
        raise DataError(
            f"calibration_probabilities have {known.shape[1]} classes, probabilities "
            f"{new.shape[1]}; they must agree"
        )
    return known, _labels(calibration_labels, known.shape), new


def _labels(labels: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Labels as indices of the classes of an array of that shape, (n, classes)."""
    indices = np.asarray(labels)
    if indices.shape != shape[:1] or indices.dtype.kind not in "iu":
        raise DataError(
            f"labels have shape {indices.shape} and type {indices.dtype}; they must be {shape[0]} "
            "class indices, such as Dataset.labels"
        )
    if bad := np.flatnonzero((indices < 0) | (indices >= shape[1])).tolist():
        raise DataError(f"label {bad[0]} is {indices[bad[0]]}; classes are 0 to {shape[1] - 1}")
    return indices
