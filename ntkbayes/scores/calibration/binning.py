"""Partitions of confidences into bins."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from ntkbayes import ranges
from ntkbayes.scores.simplex import validated_weights


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

    @classmethod
    def suited(cls, num_points: int) -> "EqualWidth":
        """As many bins as hold ten of so many points each on average, but 5 to 15."""
        return cls(min(15, max(5, num_points // 10)))

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
        w = validated_weights(weights, len(confidences))
        _, group, size = np.unique(confidences, return_inverse=True, return_counts=True)
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(w[..., order], axis=-1)[..., np.cumsum(size) - 1]
        starts = np.concatenate([np.zeros_like(ends[..., :1]), ends[..., :-1]], axis=-1)
        bins = ((starts + ends) * self.num_bins // (2 * ends[..., -1:])).astype(np.int64)
        # Groups of weight zero at the far end would be in the bin after the last.
        return np.minimum(bins, self.num_bins - 1)[..., group]


DEFAULT_BINNING = EqualWidth(15)
