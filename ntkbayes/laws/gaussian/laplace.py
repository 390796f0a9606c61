"""The Laplace approximation of GP classification with prior GP(mean, Θ/ridge)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.laws.gaussian.posterior import GaussianPosterior, PosteriorMethod, mode_and_curvature
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Logits, factor_dtype, nan_is_an_answer
from ntkbayes.ranges import Range, real_field
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.matrices import inverse_matrices
from ntkbayes.training.operations import Size, gaussian_predictions, inverse
from ntkbayes.training.progress import steps_of


class LaplaceInfo(Info):
    """Of the mode, and the evidence there.

    Attributes:
        log_evidence: log q(y | X), in nats (R&W 3.44); NaN at a temperature other than 1, and where Θ is
            known by products alone, which do not give its determinant: see `nb.lanczos_evidence`.
        residual: of the mode, max |ridge α − r(f)|, in units of probability.
        logit_error: of the mode, at most.
        num_iterations: steps of the solver.
    """

    log_evidence: float
    residual: float
    logit_error: float
    num_iterations: int


class Laplace(PosteriorMethod[GaussianPosterior[LaplaceInfo]]):
    """Laplace approximation of the posterior, multi-class (Rasmussen & Williams 2006,
    algorithms 3.3 and 3.4): its sites are
    the likelihood's second-order expansions at the mode.

    Args:
        tolerance: on the error of the mode's logits, relative to their spread.
        factor_dtype: of the factors that are kept, one per class. In float32 they take half of the time
            and memory; the mode is float64's, but evidence and variances have float32's digits.
        progress: count the steps to the mode and show their error, after two seconds.
    """

    name: ClassVar[str] = "Laplace"
    kind: ClassVar[Kind] = Kind(
        "Laplace",
        Sampling.GAUSSIAN,
        "the Gaussian approximation, at its mode, of the posterior with prior GP(m, Θ/ridge).",
    )
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)
    factor_dtype: np.dtype = eqx.field(default=np.float64, static=True, converter=factor_dtype)
    progress: bool = False

    def matrices(self, size: Size) -> dict[str, float]:
        return inverse_matrices(size, self.factor_dtype)

    def operations(self, size: Size) -> dict[str, float]:
        factors = {"factors": inverse(size)}
        return {**super().operations(size), **factors, **gaussian_predictions(size, 3.0)}

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None = None
    ) -> GaussianPosterior[LaplaceInfo]:
        likelihood, targets = problem.likelihood, problem.targets
        with steps_of(self.name, shown=self.progress) as watch:
            mode, curvature = mode_and_curvature(
                problem, self.tolerance, self.factor_dtype, watch=watch
            )
        inverse = problem.gram.ntk.curved(
            curvature, ridge=problem.objective.ridge, dtype=self.factor_dtype
        )
        weights = jax.device_put(problem.ridge * np.asarray(mode.alpha))
        given = (likelihood, targets, mode.logits, problem.mean, weights)
        with nan_is_an_answer():
            log_evidence = laplace_evidence(*given, inverse.log_determinant)
        info = LaplaceInfo(
            problem.evidence(log_evidence), mode.residual, mode.logit_error, mode.num_iterations
        )
        return GaussianPosterior(
            problem, self.kind, info, mode.alpha, mode.logits, inverse, curvature
        )


@eqx.filter_jit
def laplace_evidence(
    likelihood: Likelihood,
    targets: Logits,
    logits: Logits,
    mean: Logits,
    weights: Logits,
    log_determinant: Float[Array, ""],
) -> Float[Array, ""]:
    """log q(y | X) = log p(y | f̂) − ½ aᵀ (f̂ − mean) − ½ log det(I + W P), in nats (R&W 3.44).

    Args:
        likelihood, targets: as for training.
        logits: f̂, the mode, (n, C).
        mean: the prior's, (n, C).
        weights: a = P⁻¹ (f̂ − mean), (n, C).
        log_determinant: log det(I + W P).
    """
    density = jnp.sum(likelihood.log_density(targets, logits))
    return density - jnp.sum(weights * (logits - mean)) / 2 - log_determinant / 2
