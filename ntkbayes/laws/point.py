"""MAP: the trained predictor of the shifted network."""

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray

from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import PointLaw
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import factor_dtype
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real_field
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.linearised import train
from ntkbayes.training.matrices import training_matrices
from ntkbayes.training.operations import Size
from ntkbayes.training.progress import steps_of


class MAPInfo(Info):
    """Of the solution.

    Attributes:
        residual: max |ridge α − r(f)|, in units of probability.
        logit_error: of the logits at the training points, at most; NaN at a finite training time.
        num_iterations: steps of the solver.
    """

    residual: float
    logit_error: float
    num_iterations: int


class MAP(Method[PointLaw[MAPInfo]]):
    """The trained predictor of the shifted network (f0 = mean), which is also the MAP estimate.

    Args:
        training_time: duration of the gradient flow; infinite by default.
        tolerance: on the error of the logits at the training points, relative to their spread (root mean
            square of how far training moves them).
        factor_dtype: float32 halves time and memory of factors where there are many points; the
            residual is float64's, and meets the same tolerance.
        progress: count the steps and show their error, after two seconds.
    """

    name: ClassVar[str] = "MAP"
    kind: ClassVar[Kind] = Kind(
        "MAP",
        Sampling.POINT,
        "the trained shifted network: one predictor, its initial function subtracted. A point without "
        "spread, and the mode of the posterior.",
    )
    training_time: float = real_field("training_time", float("inf"), Range.NOT_NEGATIVE)
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)
    factor_dtype: np.dtype = eqx.field(default=np.float64, static=True, converter=factor_dtype)
    progress: bool = False

    def interpolates(self, prior: NTKPrior) -> bool:
        return super().interpolates(prior) and self.training_time == float("inf")

    def matrices(self, size: Size) -> dict[str, float]:
        return training_matrices(size, self.factor_dtype)

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> PointLaw[MAPInfo]:
        with steps_of(self.name, shown=self.progress) as watch:
            solution = train(
                problem.objective,
                problem.mean,
                time=self.training_time,
                tolerance=self.tolerance,
                factor_dtype=self.factor_dtype,
                watch=watch,
            )
        info = MAPInfo(solution.residual, solution.logit_error, solution.num_iterations)
        return PointLaw(problem, self.kind, info, solution.alpha, solution.logits)
