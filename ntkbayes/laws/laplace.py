"""The Laplace approximation of GP classification with prior GP(mean, Θ/ridge)."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ntkbayes.kernels import KernelPair
from ntkbayes.laws.base import Draws, Info, Inputs, Method, Problem
from ntkbayes.laws.gaussian import GaussianLaw
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import CurvedInverse, Gram, Logits, cholesky
from ntkbayes.training import linearised


@dataclass(frozen=True)
class LaplaceInfo(Info):
    """log_evidence: log q(y | X), in nats (R&W 3.44). residual: of the mode, max |ridge α − r(f)|, in
    units of probability. num_iterations: Newton steps."""

    log_evidence: float
    residual: float
    num_iterations: int


class LaplaceLaw(GaussianLaw):
    """N(f̄, (P⁻¹ + W)⁻¹) with f̄ the mode and W the likelihood's curvature there (R&W 3.4, 3.5).

    Drawn pathwise, as samples of the Gaussian model that it is: g from the prior, noise ε ~ N(0, W),
    δa = ε − B (g + P ε). That is the perturbed-init law to first order (THEORY 6).
    """

    inverse: CurvedInverse

    def path_kernel(self, pair: KernelPair) -> Array:
        return pair.ntk / self.problem.ridge

    def response(self, key: PRNGKeyArray, g: Draws) -> Draws:
        noise = jax.random.normal(key, g.shape)
        problem = self.problem
        given = (problem.likelihood, self.inverse, problem.prior_gram, self.logits)
        return _laplace_response(*given, noise, g) / problem.ridge

    def covariance(self, features: Inputs) -> Array:
        features = self._inputs(features)
        prior, ridge = self.problem.prior, self.problem.ridge
        cross = prior.cross(self.problem.features, features).ntk / ridge
        variance = prior.diagonal(features).ntk / ridge
        identity = jnp.eye(self.alpha.shape[1])
        return variance[:, None, None] * identity[None] - _quadratic(self.inverse, cross)


_quadratic = eqx.filter_jit(lambda inverse, k: inverse.quadratic(k))


@eqx.filter_jit
def _laplace_response(
    likelihood: Likelihood,
    inverse: CurvedInverse,
    gram: Gram,
    logits: Logits,
    noise: Draws,
    g: Draws,
) -> Draws:
    """ridge δα = ε − B (g + P ε) with ε ~ N(0, W)."""
    curvature = likelihood.curvature(logits)

    def one(noise: Logits, g: Logits) -> Logits:
        epsilon = curvature.root_matvec(noise)
        return epsilon - inverse.matvec(g + gram @ epsilon)

    return jax.vmap(one)(noise, g)


class Laplace(Method[LaplaceLaw]):
    """Laplace approximation of the posterior, multi-class (R&W algorithms 3.3 and 3.4).

    Args:
        tolerance: on the residual of the mode, in units of probability.
    """

    name: ClassVar[str] = "Laplace"
    tolerance: float = 1e-10

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> LaplaceLaw:
        problem.prior.require_ridge("the Laplace posterior")
        likelihood, targets, gram = problem.likelihood, problem.targets, problem.prior_gram
        mode = linearised.train(
            likelihood,
            problem.gram.ntk,
            targets,
            problem.mean,
            ridge=problem.ridge,
            tolerance=self.tolerance,
        )
        inverse = eqx.filter_jit(CurvedInverse.build)(gram, likelihood.curvature(mode.logits))
        quadratic = problem.ridge * jnp.sum(mode.alpha * (mode.logits - problem.mean))
        log_evidence = (
            jnp.sum(likelihood.log_density(targets, mode.logits))
            - quadratic / 2
            - inverse.log_determinant / 2
        )
        factor = cholesky(gram, what="the NTK Gram matrix")
        info = LaplaceInfo(float(log_evidence), mode.residual, mode.num_iterations)
        return LaplaceLaw(problem, mode.alpha, mode.logits, inverse, factor, info)
