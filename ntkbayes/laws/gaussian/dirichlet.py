"""Dirichlet-based GP classification (Milios et al. 2018): one heteroskedastic regression per class."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.gaussian.posterior import GaussianPosterior, PosteriorMethod
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Bernoulli, Categorical
from ntkbayes.linalg import (
    CurvedInverse,
    Gram,
    Logits,
    StructuredCurvature,
)
from ntkbayes.ranges import Range, real_field
from ntkbayes.training.matrices import inverse_matrices
from ntkbayes.training.operations import Size, gaussian_predictions, inverse, kernels


class DirichletInfo(Info):
    """Of the regression on transformed targets.

    Attributes:
        log_density: of the transformed targets, in nats. For choosing hyper-parameters; it is no
            evidence of the classes. NaN at a temperature other than 1.
    """

    log_density: float


class DirichletGP(PosteriorMethod[GaussianPosterior[DirichletInfo]]):
    """Targets become Gaussian observations of logits; the posterior is then exact, in closed form.

    With α = target + concentration, Gamma(α, 1) is matched by a log-normal of variance
    s² = log(1 + 1/α) and log-mean log α − s²/2. One logit stands for the difference of two such.
    What softmax cannot see is removed first: the mean of all observations, and at each point the mean
    over classes of the prior's mean.

    Args:
        concentration: prior counts of each class, α_ε of Milios et al. 2018.
    """

    name: ClassVar[str] = "Dirichlet GP"
    kind: ClassVar[Kind] = Kind(
        "Dirichlet GP",
        Sampling.GAUSSIAN,
        "Gaussian process regression on transformed labels, one per class: a posterior in closed form, "
        "of another likelihood.",
    )
    concentration: float = real_field("concentration", 0.01, Range.POSITIVE)

    def matrices(self, size: Size) -> dict[str, float]:
        return inverse_matrices(size._replace(couples=False))  # P is formed

    def operations(self, size: Size) -> dict[str, float]:
        first = {"kernels": kernels(size), "factors": inverse(size)}
        return {**first, **gaussian_predictions(size, 2.0)}

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None = None
    ) -> GaussianPosterior[DirichletInfo]:
        problem.prior.require_ridge("the Dirichlet classifier")
        observed, variance = self._observations(problem)
        curvature = StructuredCurvature(1 / variance, coupled=False)
        wrong = observed - problem.likelihood.project(problem.mean)
        weights, logits, inverse = _regress(problem.prior_gram, problem.mean, curvature, wrong)
        log_determinant = inverse.log_determinant + jnp.sum(jnp.log(2 * jnp.pi * variance))
        log_density = -(jnp.sum(weights * wrong) + log_determinant) / 2
        return GaussianPosterior(
            problem,
            self.kind,
            DirichletInfo(problem.evidence(log_density)),
            weights / problem.ridge,
            logits,
            inverse,
            curvature,
        )

    def _observations(self, problem: Problem) -> tuple[Logits, Logits]:
        """Gaussian targets (n, C) and their variances, T times as large at temperature T."""
        likelihood, temperature = problem.likelihood.untempered, problem.temperature
        if not isinstance(likelihood, Bernoulli | Categorical):
            raise ConfigurationError(
                "the Dirichlet classifier takes a Categorical or Bernoulli likelihood, got "
                f"{type(likelihood).__name__}"
            )
        one_logit = isinstance(likelihood, Bernoulli)
        p = problem.targets
        counts = (jnp.concatenate([1 - p, p], axis=1) if one_logit else p) + self.concentration
        variance = jnp.log1p(1 / counts)
        mean = jnp.log(counts) - variance / 2
        if one_logit:
            variance = jnp.sum(variance, axis=1, keepdims=True)
            return mean[:, 1:] - mean[:, :1], temperature * variance
        return mean - jnp.mean(mean), temperature * variance


@eqx.filter_jit
def _regress(
    gram: Gram, mean: Logits, curvature: StructuredCurvature, wrong: Logits
) -> tuple[Array, Array, CurvedInverse]:
    """a = (P + Λ⁻¹)⁻¹ (observed − mean) and m = mean + P a (R&W 2.25)."""
    inverse = gram.curved(curvature)
    weights = inverse.matvec(wrong)
    return weights, mean + gram @ weights, inverse
