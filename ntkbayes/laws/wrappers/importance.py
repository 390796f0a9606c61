"""Importance correction of a Gaussian posterior, with Pareto-smoothed weights (Vehtari et al. 2024)."""

import math
import warnings
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.errors import ConfigurationError, ConvergenceError, ConvergenceWarning
from ntkbayes.laws.gaussian.posterior import PosteriorMethod
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import SampledLaw
from ntkbayes.laws.method import Method, wrapped
from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import split_key
from ntkbayes.ranges import whole_field
from ntkbayes.training.operations import PREDICTED_DRAWS, Size, gaussian_predictions

_ALIKE = 1e-9  # nats, to which log weights may differ by round-off alone


class ImportanceInfo(Info):
    """Of the weights.

    Attributes:
        pareto_k: shape of the weights' tail; above 0.7 the correction fails; NaN where the weights are
            all alike, so that there is no tail, and nothing to correct.
        effective_draws: (Σ w)² / Σ w².
        log_evidence: log p(y | X), in nats, by the mean of the weights before smoothing; exact but for
            Monte Carlo error; NaN at a temperature other than 1.
    """

    pareto_k: float
    effective_draws: float
    log_evidence: float


class ImportanceCorrected(Method[SampledLaw[ImportanceInfo]]):
    """Draw from a Gaussian posterior, weight each draw by posterior / Gaussian, resample: draws of the
    posterior, up to repetitions.

    The weights are those of the joint logits at all training points, so that the correction holds for a
    few dozen of them; Pareto's k says whether it does.

    Args:
        method: whose posterior is corrected: Laplace, Variational, MeanField, ExpectationPropagation or
            DirichletGP.
        num_draws: from the Gaussian.
        num_resampled: draws that the law holds.
    """

    name: ClassVar[str] = "importance-corrected"
    kind: ClassVar[Kind] = Kind(
        "importance-corrected",
        Sampling.RESAMPLING,
        "draws of a Gaussian approximation, resampled by how probable the posterior finds them.",
    )
    method: Method = eqx.field(converter=wrapped)
    num_draws: int = whole_field("num_draws", 10_000, at_least=25)
    num_resampled: int = whole_field("num_resampled", 1000, at_least=25)

    def __check_init__(self) -> None:
        if not isinstance(self.method, PosteriorMethod):
            raise ConfigurationError(
                f"{type(self.method).__name__} has no Gaussian posterior to correct; use Laplace(), "
                "Variational(), MeanField(), ExpectationPropagation() or DirichletGP()"
            )
        if self.num_resampled > self.num_draws:
            raise ConfigurationError(
                "the importance correction needs 25 ≤ num_resampled ≤ num_draws; got "
                f"{self.num_resampled} and {self.num_draws}"
            )

    def matrices(self, size: Size) -> dict[str, float]:
        return self.method.matrices(size)

    def operations(self, size: Size) -> dict[str, float]:
        weights = gaussian_predictions(size, 0.0)["predictions"]
        drawn = weights * self.num_draws / PREDICTED_DRAWS
        return {**self.method.operations(size), "weights": drawn}

    @property
    def num_kept(self) -> int:
        return 4 * self.num_draws

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> SampledLaw[ImportanceInfo]:
        draw_key, resample_key = split_key(self.require_key(key))
        assert isinstance(self.method, PosteriorMethod)
        gaussian = self.method.solve(problem)
        g, alpha = gaussian.paths(draw_key, self.num_draws)
        assert g is not None
        logits = problem.mean[None] + g.values + problem.gram.ntk @ alpha
        log_weights = np.asarray(gaussian.log_weights(logits))
        weights, pareto_k = _smoothed(log_weights)
        info = ImportanceInfo(
            pareto_k,
            float(1 / np.sum(weights**2)),
            problem.evidence(np.logaddexp.reduce(log_weights) - np.log(len(log_weights))),
        )
        if pareto_k > 0.7:
            warnings.warn(
                f"the importance weights have Pareto k = {pareto_k:.2f}, above 0.7: "
                f"{type(self.method).__name__} is too far from the posterior to be corrected. Use NUTS, "
                "fewer points or a larger ridge",
                ConvergenceWarning,
                stacklevel=3,
            )
        chosen = _resample(resample_key, jnp.asarray(weights), self.num_resampled)
        return SampledLaw(problem, self.kind, info, g.chosen(chosen), alpha[chosen])


def _smoothed(
    log_weights: Float[np.ndarray, " draws"],
) -> tuple[Float[np.ndarray, " draws"], float]:
    """Pareto-smoothed weights that sum to 1, and the tail's shape k.

    Raises:
        ConvergenceError: no tail can be fitted to the weights.
    """
    from arviz_stats.base import array_stats

    if np.ptp(log_weights) <= _ALIKE:
        return np.full(len(log_weights), 1 / len(log_weights)), math.nan

    # It takes log likelihoods, of which importance weights for leaving out are the inverse.
    smoothed, pareto_k = array_stats.psislw(-log_weights)
    weights = np.exp(smoothed - np.max(smoothed))
    if not np.isfinite(pareto_k):
        raise ConvergenceError(
            "the tail of the importance weights has no Pareto k (log weights from "
            f"{log_weights.min():.3g} to {log_weights.max():.3g}): use NUTS, or fewer points"
        )
    return weights / weights.sum(), float(pareto_k)


def _resample(
    key: PRNGKeyArray, weights: Float[Array, " draws"], count: int
) -> Int[Array, " count"]:
    """Systematic resampling (Kitagawa 1996). A draw's repetitions follow each other, so that errors
    from blocks of draws and effective sample sizes count them as one."""
    grid = (jnp.arange(count, dtype=float) + jax.random.uniform(key)) / count
    edges = jnp.cumsum(weights)
    chosen = jnp.searchsorted(edges / edges[-1], grid)
    return jnp.minimum(chosen, len(weights) - 1)
