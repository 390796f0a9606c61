"""The delete-one-block jackknife over the draws of a law (Künsch 1989).

Blocks are of consecutive draws, so that the memory of Markov chains is accounted for. Every block is
summed once: means and variances without a block are those of the sums of the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int

NUM_BLOCKS = 20
Sample = Float[np.ndarray, "draws ..."]
Kept = Int[np.ndarray, " kept"]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of nearly equal size: `NUM_BLOCKS`, or as many as there are draws.

    Attributes:
        starts: the first draw of each.
        sizes: the number of draws of each.
    """

    starts: Int[np.ndarray, " blocks"]
    sizes: Int[np.ndarray, " blocks"]

    @classmethod
    def of(cls, num_draws: int) -> Self:
        """Of so many draws."""
        parts = np.array_split(np.arange(num_draws), min(NUM_BLOCKS, num_draws))
        return cls(np.array([part[0] for part in parts]), np.array([len(part) for part in parts]))

    def reduced(self, ufunc: np.ufunc, values: np.ndarray, axis: int = 0) -> np.ndarray:
        """One value per block, such as its sum by `np.add`."""
        return ufunc.reduceat(values, self.starts, axis=axis)

    def jackknifed(self, statistic: Callable[[Kept], np.ndarray]) -> "Jackknifed":
        """A statistic as a function of the blocks that are kept."""
        every = np.arange(len(self.sizes))
        without = [np.delete(every, block) for block in every] if len(every) > 1 else []
        return Jackknifed(statistic(every), [statistic(kept) for kept in without])


@dataclass(frozen=True, eq=False)
class Jackknifed:
    """A statistic of all draws, and without each of the blocks; of a single draw there are none."""

    whole: np.ndarray
    left_out: Sequence[np.ndarray]

    def to(
        self, function: Callable[..., np.ndarray | float], *others: "Jackknifed"
    ) -> "Jackknifed":
        """A function of the statistic, and of others of the same draws."""
        every = ((each.whole, *each.left_out) for each in (self, *others))
        whole, *left_out = (np.asarray(function(*each)) for each in zip(*every, strict=True))
        return Jackknifed(whole, left_out)

    @property
    def variance(self) -> np.ndarray:
        """Squared standard error of the statistic; 0 for a single draw."""
        if not self.left_out:
            return np.zeros_like(self.whole, dtype=float)
        return (len(self.left_out) - 1) * np.var(self.left_out, axis=0)


def means(draws: Sample) -> Jackknifed:
    """The mean over draws."""
    blocks = Blocks.of(len(draws))
    sums = blocks.reduced(np.add, draws)
    return blocks.jackknifed(lambda kept: sums[kept].sum(axis=0) / blocks.sizes[kept].sum())


def variances(draws: Sample, *, ddof: int = 0) -> Jackknifed:
    """The variance over draws; `ddof` is NumPy's."""
    blocks = Blocks.of(len(draws))
    moved = draws - draws.mean(axis=0)
    sums, squares = (blocks.reduced(np.add, part) for part in (moved, moved**2))

    def variance(kept: Kept) -> np.ndarray:
        size = blocks.sizes[kept].sum()
        mean = sums[kept].sum(axis=0) / size
        return np.maximum(squares[kept].sum(axis=0) - size * mean**2, 0.0) / (size - ddof)

    return blocks.jackknifed(variance)


def ranges(draws: Sample) -> Jackknifed:
    """The largest less the smallest, relative to the size of the largest number of all, and of 1."""
    blocks = Blocks.of(len(draws))
    high, low = (blocks.reduced(ufunc, draws) for ufunc in (np.maximum, np.minimum))

    def relative(kept: Kept) -> np.ndarray:
        top, bottom = high[kept].max(axis=0), low[kept].min(axis=0)
        return (top - bottom) / max(1.0, float(np.max(top)), -float(np.min(bottom)))

    return blocks.jackknifed(relative)
