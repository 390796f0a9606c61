"""The Laplace approximation of GP classification with prior GP(mean, Θ/ridge)."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ntkbayes.laws.base import Draws, Info, Inputs, Method, Problem
from ntkbayes.laws.gaussian import GaussianLaw
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    Block,
    CurvedInverse,
    Logits,
    apply,
    curved_inverse,
    dense,
    output_blocks,
)
from ntkbayes.training import linearised


@dataclass(frozen=True)
class LaplaceInfo(Info):
    """log_evidence: log q(y | X), in nats (R&W 3.44); NaN where Θ is known by products alone, which
    do not give its determinant. residual: of the mode, max |ridge α − r(f)|, in
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

    def response(self, key: PRNGKeyArray, g: Draws) -> Draws:
        noise = jax.random.normal(key, g.shape)
        problem = self.problem
        given = (problem.likelihood, self.inverse, problem.prior_gram, self.logits)
        return _laplace_response(*given, noise, g) / problem.ridge

    def covariance(self, features: Inputs) -> Array:
        problem, features = self.problem, self._inputs(features)
        # A few inputs at a time, as their columns are formed even where Θ is not.
        step = max(1, _COLUMN_NUMBERS // (problem.targets.size * problem.num_outputs))
        parts = [self._covariance(features[i : i + step]) for i in range(0, len(features), step)]
        return jnp.concatenate(parts)

    def _covariance(self, features: Inputs) -> Array:
        problem = self.problem
        cross = dense(problem.prior.cross(problem.features, features).ntk) / problem.ridge
        variance = problem.prior.diagonal(features).ntk / problem.ridge
        prior = output_blocks(variance, problem.num_outputs)
        return prior - _quadratic(self.inverse, cross)


_COLUMN_NUMBERS = 2**24
_quadratic = eqx.filter_jit(lambda inverse, k: inverse.quadratic(k))


@eqx.filter_jit
def _laplace_response(
    likelihood: Likelihood,
    inverse: CurvedInverse,
    gram: Block,
    logits: Logits,
    noise: Draws,
    g: Draws,
) -> Draws:
    """ridge δα = ε − B (g + P ε) with ε ~ N(0, W)."""
    curvature = likelihood.curvature(logits)

    def one(noise: Logits, g: Logits) -> Logits:
        epsilon = curvature.root_matvec(noise)
        return epsilon - inverse.matvec(g + apply(gram, epsilon))

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
        inverse = curved_inverse(gram, likelihood.curvature(mode.logits))
        quadratic = problem.ridge * jnp.sum(mode.alpha * (mode.logits - problem.mean))
        log_evidence = (
            jnp.sum(likelihood.log_density(targets, mode.logits))
            - quadratic / 2
            - inverse.log_determinant / 2
        )
        info = LaplaceInfo(float(log_evidence), mode.residual, mode.num_iterations)
        process = problem.tangent_process
        return LaplaceLaw(problem, mode.alpha, mode.logits, inverse, process, info)
