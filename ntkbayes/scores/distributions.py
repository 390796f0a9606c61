"""Predictive distributions of numbers: one for each point and output, as plain numpy arrays.

    Normals          exactly Gaussian: a Gaussian law, or a point, with a Normal likelihood; baselines
    NormalMixture    over the draws of a law, with a Normal likelihood
    PoissonMixture   over the draws of a law, with a Poisson likelihood; baselines of counts
    Samples          known by draws of the targets alone, for a likelihood of one's own

Values and all that is computed have shape (n, m) for n points with m outputs. The continuous ranked
probability score is ∫ (F(x) − 1{x ≥ y})² dx = E|Y − y| − ½ E|Y − Y'|, in the unit of the target, and for
counts the ranked probability score Σ_k (F(k) − 1{k ≥ y})² (Gneiting & Raftery 2007). Its second part is
∫ F (1 − F) dx.
"""

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ntkbayes.display import Configured
from ntkbayes.scores.simplex import check_level

Numbers = Float[np.ndarray, "n outputs"]
DrawnNumbers = Float[np.ndarray, "draws n outputs"]

_CHUNK = 2**21
"""Numbers in one temporary array."""


class Distributions(Configured, abc.ABC):
    """A distribution for each point and output.

    Attributes:
        mean: E Y, (n, m).
        noise: E Var(Y | f), the part of the variance that knowing the function would leave, (n, m); NaN
            if it is not known.
        spread: Var E(Y | f), the part that comes from not knowing the function, (n, m); NaN if it is not
            known.
    """

    if TYPE_CHECKING:  # at run time they would be the defaults of fields

        @property
        def mean(self) -> Numbers: ...

        @property
        def noise(self) -> Numbers: ...

        @property
        def spread(self) -> Numbers: ...

    @property
    def variance(self) -> Numbers:
        """Var Y."""
        return self.noise + self.spread

    @abc.abstractmethod
    def cdf(self, values: Numbers) -> Numbers:
        """P(Y ≤ value)."""

    @abc.abstractmethod
    def below(self, values: Numbers) -> Numbers:
        """P(Y < value), which is `cdf` where no value has a probability of its own."""

    @abc.abstractmethod
    def quantile(self, level: float) -> Numbers:
        """The smallest value with P(Y ≤ value) ≥ level, for a level in (0, 1)."""

    @abc.abstractmethod
    def mean_distance(self, values: Numbers) -> Numbers:
        """E|Y − value|."""

    @property
    @abc.abstractmethod
    def half_mean_difference(self) -> Numbers:
        """½ E|Y − Y'| for independent Y and Y'."""

    def crps(self, values: Numbers) -> Numbers:
        """The continuous ranked probability score of what happened, lower is better."""
        return np.maximum(self.mean_distance(values) - self.half_mean_difference, 0.0)


@dataclass(frozen=True, repr=False)
class Normals(Distributions):
    """N(mean, spread + noise), in closed form.

    Attributes:
        mean: (n, m).
        spread, noise: the parts of the variance, (n, m); see `Distributions`.
    """

    mean: Numbers
    spread: Numbers
    noise: Numbers

    @property
    def std(self) -> Numbers:
        """Standard deviation of Y."""
        return np.sqrt(self.variance)

    def cdf(self, values: Numbers) -> Numbers:
        from scipy.special import ndtr

        return ndtr((values - self.mean) / self.std)

    below = cdf

    def quantile(self, level: float) -> Numbers:
        from scipy.special import ndtri

        check_level(level)
        return self.mean + self.std * ndtri(level)

    def mean_distance(self, values: Numbers) -> Numbers:
        return _folded_mean(values - self.mean, self.std)

    @property
    def half_mean_difference(self) -> Numbers:
        return self.std / math.sqrt(math.pi)


class Mixture(Distributions):
    """An equal mixture over draws of the parameter of each point, (S, n, m)."""

    @property
    @abc.abstractmethod
    def parameters(self) -> DrawnNumbers:
        """What `component_…` takes: one parameter per draw."""

    @abc.abstractmethod
    def component_cdf(self, values: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """P(Y ≤ value) given the parameter."""

    def cdf(self, values: Numbers) -> Numbers:
        return self.component_cdf(values[None], self.parameters).mean(axis=0)

    def _cdf_at(self, nodes: Float[np.ndarray, "nodes rows"], rows: slice) -> np.ndarray:
        """The distribution function of some (point, output) pairs at several nodes each."""
        drawn = self.parameters.reshape(len(self.parameters), -1)[:, rows]
        total = np.zeros_like(nodes)
        for parameters in drawn:
            total += self.component_cdf(nodes, parameters[None])
        return total / len(drawn)

    def _integrals(self, low: Numbers, high: Numbers, num_nodes: int) -> Numbers:
        """∫ F (1 − F) dx by the trapezoidal rule, whose error is exponentially small in the number of
        nodes per width of a component for what is smooth and ends at 0."""
        low, high = low.ravel(), high.ravel()
        steps = (high - low) / (num_nodes - 1)
        at = np.arange(num_nodes)[:, None]
        found = np.empty(low.shape)
        size = max(1, _CHUNK // num_nodes)
        for start in range(0, len(low), size):
            rows = slice(start, start + size)
            cdf = self._cdf_at(low[rows] + at * steps[rows], rows)
            found[rows] = (cdf * (1 - cdf)).sum(axis=0) * steps[rows]
        return found.reshape(self.parameters.shape[1:])


_REACH = (
    9.0  # standard deviations, beyond which a normal distribution function is 0 or 1 to round-off
)
_MAX_NODES = 1025


@dataclass(frozen=True, repr=False)
class NormalMixture(Mixture):
    """The mean over draws of N(draw, noise_std²).

    Attributes:
        draws: of the function, (S, n, m).
        noise_std: standard deviation of a target given the function.
    """

    draws: DrawnNumbers
    noise_std: float

    @property
    def parameters(self) -> DrawnNumbers:
        return self.draws

    @property
    def mean(self) -> Numbers:
        return self.draws.mean(axis=0)

    @property
    def noise(self) -> Numbers:
        return np.full(self.draws.shape[1:], self.noise_std**2)

    @property
    def spread(self) -> Numbers:
        return self.draws.var(axis=0)

    def component_cdf(self, values: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        return ndtr((values - parameters) / self.noise_std)

    def below(self, values: Numbers) -> Numbers:
        return self.cdf(values)

    def quantile(self, level: float) -> Numbers:
        from scipy.optimize import elementwise
        from scipy.special import ndtri

        check_level(level)
        flat = self.draws.reshape(len(self.draws), -1)
        shift = self.noise_std * ndtri(level)
        ends = flat.min(axis=0) + shift, flat.max(axis=0) + shift
        pad = 1e-9 * (self.noise_std + np.abs(ends).max(axis=0))

        def missing(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return self.component_cdf(values[None], flat[:, columns]).mean(axis=0) - level

        root = elementwise.find_root(
            missing,
            (ends[0] - pad, ends[1] + pad),
            args=(np.arange(flat.shape[1]),),
            tolerances={"xatol": 1e-9 * self.noise_std, "xrtol": 0},
        )
        return np.asarray(root.x).reshape(self.draws.shape[1:])

    def mean_distance(self, values: Numbers) -> Numbers:
        return _folded_mean(values[None] - self.draws, self.noise_std).mean(axis=0)

    @property
    def half_mean_difference(self) -> Numbers:
        low, high = self.draws.min(axis=0), self.draws.max(axis=0)
        reach = _REACH * self.noise_std
        # Two nodes per standard deviation of a component: an error of e^{−2π²·4} of the whole.
        needed = 2 * (float(np.max(high - low)) + 2 * reach) / self.noise_std
        nodes = int(min(_MAX_NODES, math.ceil(needed) + 1))
        return self._integrals(low - reach, high + reach, nodes)


@dataclass(frozen=True, repr=False)
class PoissonMixture(Mixture):
    """The mean over draws of Poisson distributions.

    Attributes:
        rates: their means, (S, n, m).
    """

    rates: DrawnNumbers

    @property
    def parameters(self) -> DrawnNumbers:
        return self.rates

    @property
    def mean(self) -> Numbers:
        return self.parameters.mean(axis=0)

    @property
    def noise(self) -> Numbers:
        return self.mean

    @property
    def spread(self) -> Numbers:
        return self.parameters.var(axis=0)

    def component_cdf(self, values: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        return _poisson_cdf(values, parameters)

    def below(self, values: Numbers) -> Numbers:
        return self.cdf(values - 1)

    def quantile(self, level: float) -> Numbers:
        check_level(level)
        flat = self.parameters.reshape(len(self.rates), -1)
        low, high = self._smallest.ravel(), self._largest.ravel()

        def reaches(counts: np.ndarray) -> np.ndarray:
            return _poisson_cdf(counts[None], flat).mean(axis=0) >= level

        while (high - low > 1).any():
            middle = np.floor((low + high) / 2)
            holds = reaches(middle)
            low, high = np.where(holds, low, middle), np.where(holds, middle, high)
        return high.reshape(self.rates.shape[1:])

    def mean_distance(self, values: Numbers) -> Numbers:
        rates, y = self.parameters, values[None]
        # E(y − Y)⁺ = y F(y) − λ F(y − 1).
        short = y * _poisson_cdf(y, rates) - rates * _poisson_cdf(y - 1, rates)
        return (2 * short + rates - y).mean(axis=0)

    @property
    def half_mean_difference(self) -> Numbers:
        low, high = self._smallest, self._largest
        # A sum over counts is this rule with steps of 1. Where there are more counts than nodes, steps
        # are longer, and still short next to the distribution, whose width is √λ at least.
        nodes = int(min(_MAX_NODES, float(np.max(high - low)) + 1))
        return self._integrals(low, np.maximum(high, low + nodes - 1), nodes)

    @property
    def _smallest(self) -> Numbers:
        """Counts below which no component has any probability, but for round-off; at least −1."""
        rates = self.parameters.min(axis=0)
        return np.maximum(np.floor(rates - _REACH * np.sqrt(rates)) - 1, -1.0)

    @property
    def _largest(self) -> Numbers:
        """The same above."""
        rates = self.parameters.max(axis=0)
        return np.ceil(rates + _REACH * np.sqrt(rates) + 30)


@dataclass(frozen=True, repr=False)
class Samples(Distributions):
    """Known by draws of the targets alone, so that all that is computed has their Monte Carlo error.

    Attributes:
        draws: (S, n, m).
    """

    draws: DrawnNumbers

    @property
    def mean(self) -> Numbers:
        return self.draws.mean(axis=0)

    @property
    def noise(self) -> Numbers:
        return np.full(self.draws.shape[1:], np.nan)

    spread = noise

    @property
    def variance(self) -> Numbers:
        return self.draws.var(axis=0)

    def cdf(self, values: Numbers) -> Numbers:
        return (self.draws <= values[None]).mean(axis=0)

    def below(self, values: Numbers) -> Numbers:
        return (self.draws < values[None]).mean(axis=0)

    def quantile(self, level: float) -> Numbers:
        check_level(level)
        return np.quantile(self.draws, level, axis=0, method="inverted_cdf")

    def mean_distance(self, values: Numbers) -> Numbers:
        return np.abs(self.draws - values[None]).mean(axis=0)

    @property
    def half_mean_difference(self) -> Numbers:
        """Over pairs of different draws, which makes the score unbiased (Ferro 2014)."""
        count = len(self.draws)
        ranks = (2 * np.arange(1, count + 1) - count - 1)[:, None, None]
        return (ranks * np.sort(self.draws, axis=0)).sum(axis=0) / (count * max(1, count - 1))

    def crps(self, values: Numbers) -> Numbers:
        """Without bias, and so below 0 for some points where draws are few."""
        return self.mean_distance(values) - self.half_mean_difference


def _folded_mean(shift: np.ndarray, std: np.ndarray | float) -> np.ndarray:
    """E|Z − shift| for Z ~ N(0, std²)."""
    from scipy.special import erf

    z = shift / std
    density = np.exp(-(z**2) / 2) * math.sqrt(2 / math.pi)
    return std * (z * erf(z / math.sqrt(2)) + density)


def _poisson_cdf(counts: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """P(Y ≤ count), 0 for negative counts."""
    from scipy.special import pdtr

    return np.where(counts < 0, 0.0, pdtr(np.maximum(np.floor(counts), 0.0), rates))
