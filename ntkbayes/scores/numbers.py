"""Scores and calibration of predictive distributions of numbers: real targets and counts.

A distribution is calibrated if its probability integral transform, the PIT F(y), is uniform (Dawid
1984). That of a count is spread evenly over the interval from P(Y < y) to P(Y ≤ y): by chance
(randomised), or as a whole, which needs no chance and has the same mean (Czado, Gneiting & Held 2009).
The latter is what is scored here.

>>> import numpy as np
>>> y = np.array([[0.3], [-1.2]])
>>> standard = Normals(np.zeros((2, 1)), np.zeros((2, 1)), np.ones((2, 1)))
>>> print(standard.crps(y).round(3).ravel(), Pit.of(standard, y).covered(0.9).ravel())
[0.269 0.748] [1. 1.]
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ntkbayes.display import Configured
from ntkbayes.scores.calibration.per_point import Statistic, Value, WeightedMean
from ntkbayes.scores.distributions import Distributions, Normals, Numbers
from ntkbayes.scores.simplex import check_level, validated_weights

__all__ = ["Normals", "Pit", "PitError", "RootOfMean", "interval", "standard_scores"]

_LEVELS = np.arange(1, 100) / 100


@dataclass(frozen=True, repr=False)
class Pit(Configured):
    """Probability integral transforms of what happened, each an interval.

    Attributes:
        lower: P(Y < y), (n, m).
        upper: P(Y ≤ y), (n, m): equal to it for a continuous distribution.
    """

    lower: Numbers
    upper: Numbers

    @classmethod
    def of(cls, distributions: Distributions, targets: Numbers) -> "Pit":
        """Those of these targets, (n, m)."""
        lower, upper = distributions.below(targets), distributions.cdf(targets)
        return cls(np.clip(lower, 0, 1), np.clip(np.maximum(lower, upper), 0, 1))

    def randomised(self, seed: int) -> Numbers:
        """One number in each interval, at random: uniform over [0, 1] if the law is calibrated."""
        share = np.random.default_rng(seed).random(self.lower.shape)
        return self.lower + share * (self.upper - self.lower)

    def share_below(self, level: ArrayLike) -> np.ndarray:
        """The part of each interval below one or more levels in [0, 1], (n, m, *levels)."""
        level = np.asarray(level, dtype=float)
        lower, upper = (
            np.expand_dims(end, tuple(range(2, 2 + level.ndim))) for end in (self.lower, self.upper)
        )
        length = upper - lower
        inside = np.divide(
            level - lower, length, where=length > 0, out=np.where(upper <= level, 1.0, 0.0)
        )
        return np.clip(inside, 0.0, 1.0)

    def covered(self, level: float) -> Numbers:
        """The part of each interval inside the central interval of that level, from (1 − level)/2 to
        (1 + level)/2: for a continuous distribution 1 or 0. Its mean is the coverage."""
        check_level(level)
        return self.share_below((1 + level) / 2) - self.share_below((1 - level) / 2)


def interval(distributions: Distributions, level: float) -> tuple[Numbers, Numbers]:
    """The ends of the central predictive interval of that level, (n, m) each. Of counts it covers at
    least that much."""
    check_level(level)
    return distributions.quantile((1 - level) / 2), distributions.quantile((1 + level) / 2)


@dataclass(frozen=True)
class RootOfMean:
    """The root of the (weighted) mean of squares, (n,): a `Statistic`."""

    squares: Float[np.ndarray, " n"]

    def __call__(self, weights: ArrayLike | None = None) -> Value:
        return np.sqrt(WeightedMean(self.squares)(weights))


@dataclass(frozen=True)
class PitError:
    """How far the PITs are from uniform: the mean over levels u from 0.01 to 0.99 of |share of the PITs
    below u − u|, in [0, ½]: a `Statistic`. Biased upwards on few points."""

    pit: Pit

    def __call__(self, weights: ArrayLike | None = None) -> Value:
        below = self.pit.share_below(_LEVELS).mean(axis=1)
        w = validated_weights(weights, len(below))
        frequencies = w @ below / w.sum(axis=-1, keepdims=True)
        return np.abs(frequencies - _LEVELS).mean(axis=-1)


def standard_scores(
    distributions: Distributions, targets: Numbers, log_densities: Float[np.ndarray, " n"]
) -> dict[str, Statistic]:
    """The scores of a table by name, each a mean over points, and over outputs if there are several.

    | score | what it is |
    | --- | --- |
    | nll | minus the log predictive density, nats per point |
    | crps | continuous ranked probability score, in the unit of the target |
    | rmse | of the predictive mean |
    | mae | of the predictive median |
    | coverage_50, coverage_90 | of the central intervals, see `Pit.covered` |
    | width_90 | of the central interval, in the unit of the target |
    | pit_error | see `PitError` |
    """
    pit = Pit.of(distributions, targets)
    low, high = interval(distributions, 0.9)
    per_point = {
        "crps": distributions.crps(targets),
        "mae": np.abs(targets - distributions.quantile(0.5)),
        "coverage_50": pit.covered(0.5),
        "coverage_90": pit.covered(0.9),
        "width_90": high - low,
    }
    means = {name: WeightedMean(terms.mean(axis=1)) for name, terms in per_point.items()}
    squares = ((targets - distributions.mean) ** 2).mean(axis=1)
    return {
        "nll": WeightedMean(-log_densities + 0.0),
        "crps": means.pop("crps"),
        "rmse": RootOfMean(squares),
        **means,
        "pit_error": PitError(pit),
    }
