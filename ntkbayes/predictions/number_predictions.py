"""Predictions of numbers: a distribution for each real target or count, and draws of the targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.display import few
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.kind import BASELINE_OF_NUMBERS, Kind, Sampling
from ntkbayes.likelihood import Normal, Poisson
from ntkbayes.predictions.predictions import Predictions, digest_of_points
from ntkbayes.scores import calibration, numbers
from ntkbayes.scores.calibration import Statistic
from ntkbayes.scores.distributions import (
    Distributions,
    NormalMixture,
    Normals,
    Numbers,
    PoissonMixture,
    Samples,
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NumberPredictions(Predictions):
    """What a law, or a baseline, says of real targets or counts at given inputs.

    Attributes:
        targets: what happened, (n, m) numbers.
        target_draws: a target for each draw and point, (S, n, m): the posterior predictive.
        log_densities: log predictive density of each point, in nats, (n,): by quadrature of Gaussian
            logits, and otherwise the log of the mean over draws.
        log_likelihood: of the targets under each draw, (S, n), where `is_posterior`; else None.
        likelihood: the one that the logits belong to; None for one of your own, and for a baseline.
        given: the distributions of a baseline, which has no logits.
    """

    headline: ClassVar[tuple[str, ...]] = ("nll", "crps", "rmse", "coverage_90")
    class_names: ClassVar[None] = None

    target_draws: Float[np.ndarray, "draws n m"]
    log_densities: Float[np.ndarray, " n"]
    log_likelihood: Float[np.ndarray, "draws n"] | None = None
    likelihood: Normal | Poisson | None = None
    given: Normals | PoissonMixture | None = None

    @property
    def target_facts(self) -> dict[str, str]:
        low, high = float(self.targets.min()), float(self.targets.max())
        return {"targets": f"numbers from {low:.6g} to {high:.6g}"}

    @property
    def num_target_draws(self) -> int:
        return len(self.target_draws)

    @cached_property
    def distributions(self) -> Distributions:
        """The predictive distribution of each target.

        In closed form where the logits are Gaussian and the likelihood Normal. Otherwise it is the
        mixture over draws; of a likelihood of your own, the draws of targets are all there is.
        """
        if self.given is not None:
            return self.given
        return distributions_of(
            self.likelihood, self.kind, self.logits, self.mean, self.variance, self.target_draws
        )

    @cached_property
    def pit(self) -> numbers.Pit:
        """The probability integral transforms of the targets."""
        return numbers.Pit.of(self.distributions, self.targets)

    @property
    def pointwise_elpd(self) -> Float[np.ndarray, " n"]:
        return self.log_densities

    @cached_property
    def statistics(self) -> Mapping[str, Statistic]:
        """See `numbers.standard_scores`."""
        return numbers.standard_scores(self.distributions, self.targets, self.log_densities)

    def interval(self, level: float = 0.9) -> tuple[Numbers, Numbers]:
        """The ends of the central predictive interval of that level, (n, m) each. Of counts it covers
        at least that much.

        Raises:
            ConfigurationError: the level is not in (0, 1).
        """
        return numbers.interval(self.distributions, level)

    @cached_property
    def uncertainty(self) -> calibration.Uncertainty:
        """Predictive variance of each point, in squared units of the target and summed over outputs: the
        noise (aleatoric), and the variance of the mean (epistemic). The parts are NaN under a likelihood
        of your own."""
        parts = (self.distributions.variance, self.distributions.noise, self.distributions.spread)
        return calibration.Uncertainty(*(part.sum(axis=1) for part in parts))

    def require_same_targets(self, test: Dataset) -> None:
        who = f"the predictions of {self.name!r}"
        if test.class_names is not None:
            raise ConfigurationError(
                f"{who} are of numbers, the test data have the classes {few(test.class_names)}; make "
                "test data by Dataset.real"
            )
        if not np.array_equal(self.targets, test.targets):
            raise ConfigurationError(f"{who} are not of these test points; predict at these")


def distributions_of(
    likelihood: Normal | Poisson | None,
    kind: Kind,
    logits: Float[np.ndarray, "draws n outputs"] | None,
    mean: Float[np.ndarray, "n outputs"] | None,
    variance: Float[np.ndarray, "n outputs"] | None,
    target_draws: Float[np.ndarray, "draws n m"] | None,
) -> Distributions:
    """Predictive distributions of a law of this kind, from as much as they need: moments or draws of the
    logits, or, where there is no likelihood, draws of the targets."""
    if likelihood is None:
        assert target_draws is not None
        return Samples(target_draws)
    if isinstance(likelihood, Normal):
        noise_std = float(likelihood.noise_std)
        if kind.sampling in (Sampling.POINT, Sampling.GAUSSIAN):
            assert mean is not None
            assert variance is not None
            return Normals(mean, np.maximum(variance, 0.0), np.full(mean.shape, noise_std**2))
        assert logits is not None
        return NormalMixture(logits, noise_std)
    assert logits is not None
    return PoissonMixture(np.exp(logits))


def predictions_from_distributions(
    name: str,
    distributions: Normals | PoissonMixture,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    kind: Kind = BASELINE_OF_NUMBERS,
    num_draws: int = 1000,
    seconds: float = 0.0,
) -> NumberPredictions:
    """Predictions of a model that gives distributions alone, such as a linear regression.

    Args:
        name: of the model, as shown in tables.
        distributions: N(mean, noise) or Poisson(rate) at each point; the latter as a mixture of one.
        data: the points, with real targets or counts.
        key: of the draws of targets.
        kind: what the model is.
        num_draws: of the targets, per point.
        seconds: that the fit took.
    """
    from scipy import stats

    y = data.targets
    generator = np.random.default_rng(np.asarray(jax.random.key_data(random_key(key))))
    shape = (num_draws, *y.shape)
    if isinstance(distributions, Normals):
        log_densities = stats.norm.logpdf(y, distributions.mean, distributions.std)
        drawn = generator.normal(distributions.mean, distributions.std, shape)
    else:
        log_densities = stats.poisson.logpmf(y, distributions.mean)
        drawn = generator.poisson(distributions.mean, shape).astype(float)
    return NumberPredictions(
        name=name,
        targets=y,
        logits=None,
        mean=None,
        variance=None,
        target_draws=drawn,
        log_densities=log_densities.sum(axis=1),
        given=distributions,
        kind=kind,
        seconds=seconds,
        points=digest_of_points(data),
        features=data.features,
        feature_names=data.feature_names,
        row_names=data.row_names,
    )
