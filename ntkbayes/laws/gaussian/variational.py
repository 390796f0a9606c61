"""Variational Gaussian posteriors: the Gaussian nearest to the posterior in KL(q ‖ posterior).

At the optimum (Opper & Archambeau 2009) the covariance is (P⁻¹ + Λ)⁻¹ and the mean is mean + P a with

    a = E_q[r(f)],   Λᵢ = E_q[W(fᵢ)],

which is Laplace with residual and curvature averaged over the posterior instead of taken at its mode.
The fixed point is reached by natural-gradient steps (Khan & Lin 2017), each on the marginals alone.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.gaussian.marginals import expectations, nodes
from ntkbayes.laws.gaussian.posterior import GaussianPosterior, SiteInfo
from ntkbayes.laws.gaussian.sites import Estimate, Posterior, SiteMethod, Sites, diagonal_blocks
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Logits, symmetric_roots
from ntkbayes.ranges import Range, real_field, whole_field

_NUM_SEQUENCES = 16


class _Variational(SiteMethod):
    """What the two families share: expectations over marginals, and the bound."""

    def rule(self, likelihood: Likelihood, targets: Logits, posterior: Posterior) -> Sites:
        expected = expectations(likelihood, targets, posterior.logits, posterior.covariances)
        blocks = expected.curvature
        if not self.couples(blocks.shape[1]):
            blocks = diagonal_blocks(blocks)
        return Sites(expected.residual, blocks)

    def log_evidence(
        self, likelihood: Likelihood, targets: Logits, mean: Logits, posterior: Posterior
    ) -> Estimate:
        """The evidence lower bound, E_q[log p(y | f)] − KL(q ‖ prior). Over several logits the
        expectation is the mean of 16 randomised sequences that had no part in the fit, so that it
        is unbiased and the sequences tell its standard error."""
        if mean.shape[1] == 1:
            return Estimate(_bound(likelihood, targets, mean, posterior), jnp.zeros(()))
        return _sampled_bound(likelihood, targets, mean, posterior, _fresh_nodes(mean.shape[1]))


class Variational(_Variational):
    """The Gaussian closest to the posterior in KL(q‖p), with full covariance over points and outputs.

    Several outputs are coupled by a factor of nC × nC numbers per iteration; `MeanField` does without.

    Args:
        tolerance: on how far the marginals still move, as `SiteInfo.site_move`.
        max_iterations: natural-gradient steps before giving up.
        max_rows: the largest n · C allowed, for several outputs.
    """

    name: ClassVar[str] = "variational"
    kind: ClassVar[Kind] = Kind(
        "variational",
        Sampling.GAUSSIAN,
        "the Gaussian nearest to the posterior, in KL(q ‖ posterior).",
    )
    tolerance: float = real_field("tolerance", 1e-8, Range.POSITIVE_FINITE)
    max_iterations: int = whole_field("max_iterations", 400)
    max_rows: int = whole_field("max_rows", 4000)

    def couples(self, num_outputs: int) -> bool:
        return num_outputs > 1

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None = None
    ) -> GaussianPosterior[SiteInfo]:
        size = problem.targets.size
        if self.couples(problem.num_outputs) and size > self.max_rows:
            raise ConfigurationError(
                f"the full variational posterior factors matrices of n · C = {size} rows, more than "
                f"max_rows = {self.max_rows}; use MeanField(), fewer points, or a larger max_rows"
            )
        return super().solve(problem, key)


class MeanField(_Variational):
    """The best Gaussian whose outputs are independent, with full covariance over points.

    The same as `Variational` for one output; O(C n³) operations per iteration for several. Where the
    kernel itself couples the outputs, as a finite network's does, so does the posterior: it is then
    the sites alone that are independent, and `log_evidence` is still a lower bound.

    Args:
        tolerance: on how far the marginals still move, as `SiteInfo.site_move`.
        max_iterations: natural-gradient steps before giving up.
    """

    name: ClassVar[str] = "mean field"
    kind: ClassVar[Kind] = Kind(
        "mean field",
        Sampling.GAUSSIAN,
        "the nearest, in KL(q ‖ posterior), of the Gaussians whose logits are independent of each other "
        "given the kernel.",
    )
    tolerance: float = real_field("tolerance", 1e-8, Range.POSITIVE_FINITE)
    max_iterations: int = whole_field("max_iterations", 400)


def _fresh_nodes(num_outputs: int) -> Float[Array, "sequences nodes classes"]:
    return jnp.stack([nodes(num_outputs, seed) for seed in range(1, _NUM_SEQUENCES + 1)])


@eqx.filter_jit
def _bound(
    likelihood: Likelihood, targets: Logits, mean: Logits, posterior: Posterior
) -> Float[Array, ""]:
    given = posterior.logits, posterior.covariances
    trace = jnp.sum(posterior.curvature.blocks * posterior.covariances)
    density = jnp.sum(expectations(likelihood, targets, *given).log_density)
    return density + trace / 2 - _rest(mean, posterior)


@eqx.filter_jit
def _sampled_bound(
    likelihood: Likelihood,
    targets: Logits,
    mean: Logits,
    posterior: Posterior,
    sequences: Float[Array, "sequences nodes classes"],
) -> Estimate:
    """½ δᵀΛδ, whose expectation is ½ tr(ΛS), is averaged with log p, as it takes from it most of its
    variance, and all of it if the likelihood is Normal."""
    root = symmetric_roots(posterior.covariances)

    def at(node: Float[Array, " classes"]) -> Float[Array, ""]:
        away = jnp.einsum("icd,d->ic", root, node)
        density = jnp.sum(likelihood.log_density(targets, posterior.logits + away))
        return density + jnp.sum(away * posterior.curvature.matvec(away)) / 2

    means = jnp.mean(jax.lax.map(lambda points: jax.lax.map(at, points), sequences), axis=1)
    error = jnp.std(means, ddof=1) / len(means) ** 0.5
    return Estimate(jnp.mean(means) - _rest(mean, posterior), error)


def _rest(mean: Logits, posterior: Posterior) -> Float[Array, ""]:
    """KL(q ‖ prior) + ½ tr(ΛS) = ½ log det(I + Λ P) + ½ aᵀ (m − mean), as P⁻¹ = S⁻¹ − Λ."""
    moved = jnp.sum(posterior.sites.weights * (posterior.logits - mean))
    return (posterior.inverse.log_determinant + moved) / 2
