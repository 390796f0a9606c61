"""The likelihood of a study, with its parameters chosen from the training points alone.

Each rule goes by one principle: a law that has learnt nothing from the features must be the base rate.
The mean of the prior, or the cutpoints, see to that; the noise of real targets maximises the evidence.
"""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from ntkbayes.datasets import Dataset
from ntkbayes.display import few
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.likelihood import Likelihood, Normal, Ordinal, Poisson
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.selection.ridge import GivenRidge, RidgeRule


@dataclass(frozen=True)
class LikelihoodChoice:
    """A likelihood, and how it came about.

    Attributes:
        likelihood: with its parameters.
        prior: the study's, with the mean that goes with it.
        reason: how the parameters were chosen, as a sentence.
    """

    likelihood: Likelihood
    prior: NTKPrior
    reason: str


class LikelihoodRule(eqx.Module):
    """How a likelihood gets its parameters.

    A prior whose mean is 0 gets the mean that a law without features would have; any other stays.

    Attributes:
        name: what the command line calls it.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def choose(self, prior: NTKPrior, data: Dataset, *, ridge: RidgeRule) -> LikelihoodChoice:
        """The likelihood for training points.

        Args:
            prior: of the study.
            data: the training points.
            ridge: how the ridge will be chosen, given the likelihood.

        Raises:
            DataError: the likelihood does not take these targets, or they are all alike.
            ConfigurationError: the kernel is known only by its products.
        """


class NormalByEvidence(LikelihoodRule):
    """Real targets with Gaussian noise, whose standard deviation maximises the evidence.

    log p(y) of y ~ N(mean, (Θ + λ I)/ridge), with λ = ridge · noise², is known for all λ from one
    eigendecomposition of Θ. Where the ridge is given, λ is searched at it. Otherwise the best ridge for
    each λ has a closed form, n / yᵀ(Θ + λ I)⁻¹ y with y less its mean, and the noise belongs to the best
    pair. Noise and prior scale with the targets, so that their unit does not matter.
    """

    name: ClassVar[str] = "normal"

    def choose(self, prior: NTKPrior, data: Dataset, *, ridge: RidgeRule) -> LikelihoodChoice:
        targets = np.asarray(Normal().encode(data))
        _require_different(targets)
        prior = _with_mean(prior, targets.mean(axis=0))
        spectrum = _Spectrum.of(prior, data, targets)
        at = float(prior.ridge) if isinstance(ridge, GivenRidge) else None
        if at == 0:
            raise ConfigurationError(
                "with a ridge of 0 there is no evidence by which to choose the noise: give it, as in "
                "likelihood=nb.likelihood.Normal(noise_std=1.0), or a ridge above 0"
            )
        noise = float(f"{spectrum.best(at)[0]:.3g}")
        reason = f"Normal noise of standard deviation {noise:g}, which maximises the evidence"
        return LikelihoodChoice(Normal(noise), prior, f"{reason} of the training points.")

    def with_ridge(self, prior: NTKPrior, data: Dataset) -> LikelihoodChoice:
        """Noise and ridge together, without a fit of any law: the prior of the choice has the ridge.

        Raises:
            DataError, ConfigurationError: as `choose` does.
        """
        targets = np.asarray(Normal().encode(data))
        _require_different(targets)
        prior = _with_mean(prior, targets.mean(axis=0))
        noise, ridge = (float(f"{v:.3g}") for v in _Spectrum.of(prior, data, targets).best(None))
        reason = f"Normal noise of standard deviation {noise:g} and a ridge of {ridge:g}"
        reason += ", which maximise the evidence of the training points."
        return LikelihoodChoice(Normal(noise), prior.with_ridge(ridge), reason)


class PoissonAtMean(LikelihoodRule):
    """Counts, whose log rate is the log of their mean but for what the features say."""

    name: ClassVar[str] = "poisson"

    def choose(self, prior: NTKPrior, data: Dataset, *, ridge: RidgeRule) -> LikelihoodChoice:
        counts = np.asarray(Poisson().encode(data))
        _require_different(counts)
        rate = float(counts.mean())
        prior = _with_mean(prior, np.log([rate]))
        reason = f"Poisson counts, whose rate is {rate:.4g} but for what the features say."
        return LikelihoodChoice(Poisson(), prior, reason)


class OrdinalAtFrequencies(LikelihoodRule):
    """Ordered classes, with cutpoints by which a logit of 0 has the frequencies of the training points.

    Half a point is added to each class, so that an absent one has a place between the cutpoints.
    """

    name: ClassVar[str] = "ordinal"

    def choose(self, prior: NTKPrior, data: Dataset, *, ridge: RidgeRule) -> LikelihoodChoice:
        if data.class_names is None:
            raise DataError(
                "an Ordinal likelihood takes ordered classes, but the targets are numbers"
            )
        counts = data.targets.sum(axis=0) + 0.5
        below = np.cumsum(counts)[:-1] / counts.sum()
        cutpoints = tuple(float(f"{c:.4g}") for c in np.log(below) - np.log1p(-below))
        likelihood = Ordinal(cutpoints)
        likelihood.encode(data)
        reason = f"Ordered classes {few(data.class_names)}, with cutpoints at their frequencies."
        return LikelihoodChoice(likelihood, prior, reason)


class _Spectrum(eqx.Module):
    """Θ of the training points in its eigenbasis, and the targets less the mean there.

    Attributes:
        eigenvalues: of Θ, (rows,).
        energies: squared coordinates of the targets, summed over outputs that share Θ, (rows,).
        num_outputs: that share Θ.
    """

    eigenvalues: Float[np.ndarray, " rows"]
    energies: Float[np.ndarray, " rows"]
    num_outputs: int

    @classmethod
    def of(cls, prior: NTKPrior, data: Dataset, targets: Float[np.ndarray, "n m"]) -> "_Spectrum":
        features = jax.device_put(data.check_features(data))
        prior.require_covariance(features)
        ntk = prior.gram(features).ntk
        ntk.require_formed("the noise chosen by the evidence")
        matrix = np.asarray(ntk.dense())
        away = targets - np.asarray(prior.mean_logits(features, targets.shape[1]))
        columns = away if len(matrix) == len(away) else away.reshape(-1, 1)
        values, vectors = np.linalg.eigh(matrix)
        energies = ((vectors.T @ columns) ** 2).sum(axis=1)
        return cls(np.maximum(values, 0.0), energies, columns.shape[1])

    def best(self, ridge: float | None) -> tuple[float, float]:
        """The standard deviation of the noise with most evidence at a ridge, and that ridge; at the
        best one if it is None."""
        from scipy.optimize import minimize_scalar

        size = len(self.energies) * self.num_outputs
        unit = float(self.eigenvalues.mean())

        def ridge_at(damping: float) -> float:
            return size / float((self.energies / (self.eigenvalues + damping)).sum())

        def loss(log_damping: float) -> float:
            """Minus twice the log evidence, but for constants."""
            damping = math.exp(log_damping)
            shifted = self.eigenvalues + damping
            at = ridge_at(damping) if ridge is None else ridge
            fit = at * float((self.energies / shifted).sum())
            return fit - size * math.log(at) + self.num_outputs * float(np.log(shifted).sum())

        low, high = math.log(_LEAST * unit), math.log(_MOST * unit)
        if (
            ridge is not None
        ):  # where the noise alone has these parts of the variance of the targets
            variance = ridge * float(self.energies.sum()) / size
            low, high = math.log(_LEAST * variance), math.log(10 * variance)
        grid = np.linspace(low, high, 40)
        best = int(np.argmin([loss(place) for place in grid]))
        ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-3})
        damping = math.exp(found.x)
        at = ridge_at(damping) if ridge is None else ridge
        return math.sqrt(damping / at), at


_LEAST, _MOST = 1e-6, 1e3
"""Of the variance of the noise over that of the prior."""


def _require_different(targets: Float[np.ndarray, "n m"]) -> None:
    for column in targets.T:
        if (column == column[0]).all():
            raise DataError(
                f"all {len(column)} targets of the training points are {column[0]:g}: there is nothing "
                "to learn; check the column of the targets"
            )


def _with_mean(prior: NTKPrior, mean: Float[np.ndarray, " outputs"]) -> NTKPrior:
    """The prior with this mean, if its own is 0."""
    if callable(prior.mean) or np.any(np.asarray(prior.mean) != 0):
        return prior
    told = [float(f"{value:.6g}") for value in mean]
    return NTKPrior(prior.kernel, ridge=prior.ridge, mean=told[0] if len(told) == 1 else told)


RULES: dict[str, type[LikelihoodRule]] = {
    rule.name: rule for rule in (NormalByEvidence, PoissonAtMean, OrdinalAtFrequencies)
}
"""By the words of the command line."""
