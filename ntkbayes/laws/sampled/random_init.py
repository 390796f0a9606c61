"""The law of the trained predictor over random initialisations (THEORY 5)."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from tqdm.auto import tqdm

from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import KernelPair
from ntkbayes.laws.base import (
    Draws,
    Info,
    Inputs,
    Method,
    Problem,
    SampledLaw,
    TrainingInfo,
)
from ntkbayes.laws.gaussian.base import GaussianLaw, solve_columns
from ntkbayes.linalg import (
    CurvedInverse,
    Interpolator,
    Logits,
    SharedBlock,
    SharedInterpolator,
    SharedInverse,
    StructuredCurvature,
    factor_dtype,
)
from ntkbayes.priors.paths import InitialProcess
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training import flow, linearised
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.matrices import inverse_matrices, many_draws_matrices


class RandomInitLaw(SampledLaw):
    """Trained predictors of independent initial functions g ~ GP(0, K)."""

    sampling = "independent initialisations"


class RandomInit(Method[RandomInitLaw]):
    """Draw initial functions, train each: the sampled random-init law.

    Args:
        num_inits: how many.
        training_time: duration of the gradient flow; infinite by default.
        tolerance: on the error of each draw's logits at the training points, relative to their spread
            (root mean square of how far training moves them).
        factor_dtype: float32 halves time and memory of factors where there are many points; the
            residual is float64's, and meets the same tolerance.
        progress: show a progress bar.
    """

    name: ClassVar[str] = "random init"
    num_inits: int = whole_field("num_inits", 1000, at_least=2)
    training_time: float = real_field("training_time", float("inf"), Range.NOT_NEGATIVE)
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)
    factor_dtype: np.dtype = eqx.field(default=np.float64, static=True, converter=factor_dtype)
    progress: bool = False

    def interpolates(self, prior: NTKPrior) -> bool:
        return super().interpolates(prior) and self.training_time == float("inf")

    def matrices(self, rows: int, num_outputs: int) -> dict[str, float]:
        return many_draws_matrices(rows, num_outputs, self.num_inits, self.factor_dtype)

    @property
    def num_kept(self) -> int:
        return 5 * self.num_inits  # white noise, paths, initial functions, α twice

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> RandomInitLaw:
        key = self._require_key(key)
        given = (problem.likelihood, problem.gram.ntk, problem.targets)
        if self.training_time < float("inf"):
            g = problem.initial_process.draw(key, self.num_inits)
            initials = problem.mean[None] + g.values
            trained = flow.flow(*given, initials, ridge=problem.ridge, time=self.training_time)
            return RandomInitLaw(problem, g, trained.alpha, TrainingInfo.of(trained))
        centre = linearised.train(  # before there is a factor of K, for the sake of the peak
            *given,
            problem.mean,
            ridge=problem.ridge,
            tolerance=max(_CENTRE, self.tolerance),
            factor_dtype=self.factor_dtype,
        )
        g = problem.initial_process.draw(key, self.num_inits)
        with tqdm(total=self.num_inits, desc=self.name, disable=not self.progress) as bar:
            trained = linearised.train_many(
                *given,
                problem.mean[None] + g.values,
                centre,
                problem.mean,
                ridge=problem.ridge,
                tolerance=self.tolerance,
                factor_dtype=self.factor_dtype,
                progress=bar.update,
            )
        return RandomInitLaw(problem, g, trained.alpha, TrainingInfo.of(trained))


_CENTRE = 0.1  # tolerance of the centre, from which draws only start


@dataclass(frozen=True)
class FirstOrderInfo(Info):
    """residual: of the trained predictor at the centre, in units of probability. logit_error: of its
    logits at the training points, at most. num_iterations: its Newton steps. exact: whether the law is
    exactly Gaussian (ridge = 0)."""

    residual: float
    logit_error: float
    num_iterations: int
    exact: bool


class FirstOrderLaw(GaussianLaw):
    """δf*(x) = g(x) − P(x, X) B g(X): (4) of THEORY 5; for ridge = 0 with B/ridge → Θ⁻¹ ⊗ Π."""

    inverse: SharedInverse | SharedInterpolator

    def __init__(
        self,
        problem: Problem,
        alpha: Logits,
        logits: Logits,
        inverse: SharedInverse | SharedInterpolator,
        process: InitialProcess,
        info: FirstOrderInfo,
    ):
        super().__init__(problem, alpha, logits, inverse, info)
        self._process = process

    @property
    def process(self) -> InitialProcess:
        """GP(0, K), of which variances need the factor, too."""
        return self._process

    @property
    def _scale(self) -> float:
        return 1.0 if isinstance(self.inverse, Interpolator) else 1 / self.problem.ridge

    def response(self, key: PRNGKeyArray, g: Draws) -> Draws:
        return -self._scale * _matvecs(self.inverse, g)

    def covariance(self, features: Inputs) -> Array:
        features = self._inputs(features)
        pair = self.problem.prior.cross(self.problem.features, features)
        variance = self.problem.prior.diagonal(features).nngp
        arguments = (self.inverse, jnp.asarray(self._scale), self.process.factor.lower)
        return _first_order_covariance(*arguments, pair, variance)

    def joint_covariance(self, features: Inputs) -> Array:
        """K(x, x') − T K(X, x') − K(x, X) Tᵀ + T K(X, X) Tᵀ with T = P(x, X) B."""
        problem, features = self.problem, self._inputs(features)
        size = problem.num_outputs
        cross = problem.prior.cross(problem.features, features)
        gram = problem.prior.gram(features).nngp.every_output(size)
        ntk, nngp = (block.every_output(size) for block in (cross.ntk, cross.nngp))
        lower = SharedBlock(self.process.factor.lower).every_output(size)
        weights = self._scale * solve_columns(self.inverse, ntk, size).T
        both, moved = weights @ nngp, weights @ lower
        return gram - both - both.T + moved @ moved.T


@eqx.filter_jit
def _matvecs(inverse: SharedInverse | SharedInterpolator, g: Draws) -> Draws:
    return jax.vmap(inverse.matvec)(g)


@eqx.filter_jit
def _first_order_covariance(
    inverse: SharedInverse | SharedInterpolator,
    scale: Array,
    lower: Array,
    pair: KernelPair,
    variance: Array,
) -> Array:
    """Cov[g(x) − T g(X)] with T = Θ(x, X) B / ridge, input by input: never more than (C, n, C)."""

    def at(inputs: tuple[Array, Array, Array]) -> Array:
        nngp, ntk, own = inputs
        weights = scale * inverse.columns(ntk[:, None])[0]
        both = jnp.einsum("cid,i->cd", weights, nngp)
        moved = jnp.einsum("cid,ij->cjd", weights, lower)
        spread = jnp.einsum("cjd,ejd->ce", moved, moved)
        return own * jnp.eye(both.shape[0]) - both - both.T + spread

    return jax.lax.map(at, (pair.nngp.dense().T, pair.ntk.dense().T, variance))


class FirstOrder(Method[FirstOrderLaw]):
    """The random-init law with training linearised in the initial function: Gaussian.

    An approximation for ridge > 0, and exact for ridge = 0, where the trained predictor *is* linear
    in its initial function (THEORY 3).

    Args:
        tolerance: on the error of the logits at the centre, relative to their spread.
    """

    name: ClassVar[str] = "first order"
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)

    def matrices(self, rows: int, num_outputs: int) -> dict[str, float]:
        return {"factor of K": 1.0, **inverse_matrices(num_outputs)}

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> FirstOrderLaw:
        likelihood, ridge = problem.likelihood, problem.ridge
        process = problem.initial_process
        if not isinstance(process, InitialProcess):
            raise ConfigurationError(
                "the first-order law needs the covariance of the initial functions, which is not known "
                f"for {type(problem.prior.kernel).__name__}; use RandomInit, which draws them"
            )
        centre = linearised.train(
            likelihood,
            problem.gram.ntk,
            problem.targets,
            problem.mean,
            ridge=ridge,
            tolerance=self.tolerance,
        )
        if problem.gram.ntk.couples:
            raise ConfigurationError(
                "the first-order law takes a kernel that the outputs share; use RandomInit"
            )
        inverse: CurvedInverse | Interpolator
        if ridge > 0:
            curvature = likelihood.curvature(problem.targets, centre.logits)
            if not isinstance(curvature, StructuredCurvature):
                raise ConfigurationError(
                    f"the first-order law does not take {type(likelihood).__name__}, which couples its "
                    "logits in a way of its own; use RandomInit"
                )
            inverse = problem.prior_gram.curved(curvature)
        else:
            inverse = linearised.interpolator(likelihood, problem.gram.ntk, problem.targets)
        assert isinstance(inverse, SharedInverse | SharedInterpolator)
        info = FirstOrderInfo(
            centre.residual, centre.logit_error, centre.num_iterations, ridge == 0
        )
        return FirstOrderLaw(problem, centre.alpha, centre.logits, inverse, process, info)
