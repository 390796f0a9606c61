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
from ntkbayes.laws.base import Problem
from ntkbayes.laws.marginals import nodes
from ntkbayes.laws.posterior import GaussianPosterior
from ntkbayes.laws.sites import Posterior, SiteMethod, Sites, diagonal_blocks
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Logits, symmetric_roots
from ntkbayes.ranges import Range, real_field, whole_field


class _Variational(SiteMethod):
    """What the two families share: expectations over marginals, and the bound."""

    def rule(self, likelihood: Likelihood, targets: Logits, posterior: Posterior) -> Sites:
        mean, root = posterior.logits, symmetric_roots(posterior.covariances)

        def add(sums: tuple, node: tuple) -> tuple:
            point, weight = node
            f = mean + jnp.einsum("icd,d->ic", root, point)
            blocks = likelihood.curvature(targets, f).blocks
            residual = likelihood.residual(targets, f)
            return (sums[0] + weight * residual, sums[1] + weight * blocks), None

        zeros = jnp.zeros_like(mean), jnp.zeros_like(root)
        (residual, blocks), _ = jax.lax.scan(add, zeros, nodes(mean.shape[1]))
        if not self.couples(mean.shape[1]):
            blocks = diagonal_blocks(blocks)
        return Sites(residual, blocks)

    def log_evidence(
        self, likelihood: Likelihood, targets: Logits, mean: Logits, posterior: Posterior
    ) -> Float[Array, ""]:
        """The evidence lower bound, E_q[log p(y | f)] − KL(q ‖ prior)."""
        return _bound(likelihood, targets, mean, posterior)


class Variational(_Variational):
    """The best Gaussian of all: full covariance over points and outputs.

    Several outputs are coupled by a factor of nC × nC numbers an iteration; `MeanField` does without.

    Args:
        tolerance: on the change of a and Λ, in units of probability.
        max_iterations: natural-gradient steps before giving up.
        max_rows: the largest n · C allowed, for several outputs.
    """

    name: ClassVar[str] = "variational"
    tolerance: float = real_field("tolerance", 1e-8, Range.POSITIVE_FINITE)
    max_iterations: int = whole_field("max_iterations", 200)
    max_rows: int = whole_field("max_rows", 4000)

    def couples(self, num_outputs: int) -> bool:
        return num_outputs > 1

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> GaussianPosterior:
        size = problem.targets.size
        if self.couples(problem.num_outputs) and size > self.max_rows:
            raise ConfigurationError(
                f"the full variational posterior factors matrices of n · C = {size} rows, more than "
                f"max_rows = {self.max_rows}; use MeanField(), fewer points, or a larger max_rows"
            )
        return super().solve(problem, key)


class MeanField(_Variational):
    """The best Gaussian whose outputs are independent, with full covariance over points.

    The same as `Variational` for one output; O(C n³) operations an iteration for several. Where the
    kernel itself couples the outputs, as a finite network's does, so does the posterior: it is then
    the sites alone that are independent, and `log_evidence` is still a lower bound.

    Args:
        tolerance: on the change of a and Λ, in units of probability.
        max_iterations: natural-gradient steps before giving up.
    """

    name: ClassVar[str] = "mean field"
    tolerance: float = real_field("tolerance", 1e-8, Range.POSITIVE_FINITE)
    max_iterations: int = whole_field("max_iterations", 200)


@eqx.filter_jit
def _bound(
    likelihood: Likelihood, targets: Logits, mean: Logits, posterior: Posterior
) -> Float[Array, ""]:
    """2 KL = log det(I + Λ P) − tr(Λ S) + aᵀ (m − mean), as P⁻¹ = S⁻¹ − Λ."""
    root = symmetric_roots(posterior.covariances)

    def add(total: Array, node: tuple) -> tuple:
        point, weight = node
        f = posterior.logits + jnp.einsum("icd,d->ic", root, point)
        return total + weight * jnp.sum(likelihood.log_density(targets, f)), None

    density, _ = jax.lax.scan(add, jnp.zeros(()), nodes(mean.shape[1]))
    trace = jnp.sum(posterior.curvature.blocks * posterior.covariances)
    moved = jnp.sum(posterior.sites.weights * (posterior.logits - mean))
    return density - (posterior.inverse.log_determinant - trace + moved) / 2
