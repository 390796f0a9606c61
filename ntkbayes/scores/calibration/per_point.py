"""Scores of each point, and their mean over a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ntkbayes.scores.simplex import quiet_log, top_label, validated, validated_weights

type Value = np.float64 | Float[np.ndarray, "resamples"]


def negative_log_likelihood(probabilities: ArrayLike, targets: ArrayLike) -> Float[np.ndarray, "n"]:
    """Cross-entropy −Σ_c y_c log p_c of each point, in nats, with 0 log 0 = 0 (Good 1952).

    In [0, ∞]; infinite where a class with y_c > 0 was given probability zero.
    """
    p, y = validated(probabilities, targets)
    # Adding 0.0 turns -0.0 into 0.0.
    return -np.multiply(y, quiet_log(p), where=y > 0, out=np.zeros_like(p)).sum(axis=1) + 0.0


def brier(probabilities: ArrayLike, targets: ArrayLike) -> Float[np.ndarray, "n"]:
    """Σ_c (p_c − y_c)² of each point, over all classes, not halved (Brier 1950). In [0, 2]."""
    p, y = validated(probabilities, targets)
    return ((p - y) ** 2).sum(axis=1)


def correctness(probabilities: ArrayLike, targets: ArrayLike) -> Float[np.ndarray, "n"]:
    """Target probability y[argmax p] of the predicted class of each point, in [0, 1].

    0 or 1 for hard targets; its mean is the (expected) accuracy. The first of tied classes wins.
    """
    return top_label(*validated(probabilities, targets))[1]


def ranked_probability_score(
    probabilities: ArrayLike, targets: ArrayLike
) -> Float[np.ndarray, "n"]:
    """Σ_{k<K} (P_k − Y_k)² of each point, with P and Y cumulative over ordered classes (Epstein 1969).

    In [0, K − 1]: unlike the Brier score it charges more for probability on classes farther from what
    happened. It is the continuous ranked probability score of the class's index.
    """
    p, y = validated(probabilities, targets)
    return (np.cumsum(p - y, axis=1)[:, :-1] ** 2).sum(axis=1)


@runtime_checkable
class Score(Protocol):
    """One number for a data set: of shape () without weights or with weights (n,).

    Weights (resamples, n) give one number per resample, of shape (resamples,). Integer weights
    count how often each point occurs, so a score with weights is the score of repeated points.
    """

    def __call__(
        self, probabilities: ArrayLike, targets: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Value: ...


type Statistic = Callable[[ArrayLike | None], Value]
"""One number for some data: without weights, or with weights as a `Score` takes them."""


@dataclass(frozen=True)
class WeightedMean:
    """The (weighted) mean of one term per point, (n,): a `Statistic`."""

    terms: Float[np.ndarray, " n"]

    def __call__(self, weights: ArrayLike | None = None) -> Value:
        w = validated_weights(weights, len(self.terms))
        # A point of weight zero is absent, even where its term is infinite.
        total = np.multiply(w, self.terms, where=w > 0, out=np.zeros_like(w)).sum(axis=-1)
        return total / w.sum(axis=-1)


@dataclass(frozen=True)
class Mean:
    """The (weighted) mean of a per-point score, such as `Mean(brier)`: a `Score`."""

    per_point: Callable[[ArrayLike, ArrayLike], Float[np.ndarray, "n"]]

    def __call__(
        self, probabilities: ArrayLike, targets: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Value:
        return WeightedMean(self.per_point(probabilities, targets))(weights)
