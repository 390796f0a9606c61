"""MAP: the point law."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ntkbayes.laws.base import (
    Info,
    Inputs,
    Law,
    Method,
    Paths,
    Problem,
)
from ntkbayes.linalg import Logits, factor_dtype
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real_field
from ntkbayes.training import flow
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.matrices import training_matrices


@dataclass(frozen=True)
class MAPInfo(Info):
    """residual: max |ridge α − r(f)|, in units of probability. logit_error: of the logits at the
    training points, at most; NaN at a finite training time. num_iterations: Newton steps."""

    residual: float
    logit_error: float
    num_iterations: int


class PointLaw(Law):
    """All mass on the trained predictor of the shifted network, whose f0 is the prior's mean."""

    sampling = "point"

    def __init__(self, problem: Problem, alpha: Logits, logits: Logits, info: MAPInfo):
        self.problem = problem
        self.alpha = alpha
        self.logits = logits
        self.info = info

    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        return Paths(None, jnp.broadcast_to(self.alpha[None], (num_draws or 1, *self.alpha.shape)))

    def mean(self, features: Inputs) -> Array:
        return self._trained(self._inputs(features), self.alpha)

    def covariance(self, features: Inputs) -> Array:
        features = self._inputs(features)
        size = self.alpha.shape[1]
        return jnp.zeros((features.shape[0], size, size))

    def joint_covariance(self, features: Inputs) -> Array:
        rows = len(self._inputs(features)) * self.alpha.shape[1]
        return jnp.zeros((rows, rows))


class MAP(Method[PointLaw]):
    """The trained predictor of the shifted network (f0 = mean), which is also the MAP of Bayes.

    Args:
        training_time: duration of the gradient flow; infinite by default.
        tolerance: on the error of the logits at the training points, relative to their spread (root mean
            square of how far training moves them).
        factor_dtype: float32 halves time and memory of factors where there are many points; the
            residual is float64's, and meets the same tolerance.
    """

    name: ClassVar[str] = "MAP"
    training_time: float = real_field("training_time", float("inf"), Range.NOT_NEGATIVE)
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)
    factor_dtype: np.dtype = eqx.field(default=np.float64, static=True, converter=factor_dtype)

    def interpolates(self, prior: NTKPrior) -> bool:
        return super().interpolates(prior) and self.training_time == float("inf")

    def matrices(self, rows: int, num_outputs: int) -> dict[str, float]:
        return training_matrices(rows, num_outputs, self.factor_dtype)

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> PointLaw:
        solution = flow.train_from(
            problem.likelihood,
            problem.gram.ntk,
            problem.targets,
            problem.mean,
            ridge=problem.ridge,
            time=self.training_time,
            tolerance=self.tolerance,
            factor_dtype=self.factor_dtype,
        )
        info = MAPInfo(solution.residual, solution.logit_error, solution.num_iterations)
        return PointLaw(problem, solution.alpha, solution.logits, info)
