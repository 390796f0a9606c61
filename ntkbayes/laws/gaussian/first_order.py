"""The random-init law to first order in the initial function (THEORY 5)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import KernelPair
from ntkbayes.laws.gaussian.gaussian_law import GaussianLaw, solve_columns
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import Inputs
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import (
    CurvedInverse,
    Draws,
    Interpolator,
    SharedBlock,
    SharedInterpolator,
    SharedInverse,
    StructuredCurvature,
)
from ntkbayes.priors.paths import InitialProcess
from ntkbayes.ranges import Range, real_field
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.linearised import train
from ntkbayes.training.matrices import inverse_matrices
from ntkbayes.training.operations import Size, gaussian_predictions, inverse


class FirstOrderInfo(Info):
    """Of the trained predictor at the centre.

    Attributes:
        residual: in units of probability.
        logit_error: of its logits at the training points, at most.
        num_iterations: its steps.
        exact: whether the law is exactly Gaussian (ridge = 0).
    """

    residual: float
    logit_error: float
    num_iterations: int
    exact: bool


class FirstOrderLaw(GaussianLaw[FirstOrderInfo]):
    """δf*(x) = g(x) − P(x, X) B g(X): (4) of THEORY 5; for ridge = 0 with B/ridge → Θ⁻¹ ⊗ Π."""

    inverse: SharedInverse | SharedInterpolator
    initial: InitialProcess

    @property
    def process(self) -> InitialProcess:
        """GP(0, K)."""
        return self.initial

    @property
    def _scale(self) -> float | Float[Array, ""]:
        return 1.0 if isinstance(self.inverse, Interpolator) else 1 / self.problem.prior.ridge

    def response(self, key: PRNGKeyArray, g: Draws) -> Draws:
        return _response(self.inverse, jax.device_put(self._scale), g)

    def covariance(self, features: Inputs) -> Array:
        features = self.problem.read(features)
        pair = self.problem.prior.cross(features, self.problem.features)
        variance = self.problem.prior.diagonal(features).nngp
        arguments = (self.inverse, jax.device_put(self._scale), self.process.factor.lower)
        return _first_order_covariance(*arguments, pair, variance, self.problem.num_outputs)

    def joint_covariance(self, features: Inputs) -> Array:
        """K(x, x') − T K(X, x') − K(x, X) Tᵀ + T K(X, X) Tᵀ with T = P(x, X) B."""
        problem, features = self.problem, self.problem.read(features)
        size = problem.num_outputs
        cross = problem.prior.cross(features, problem.features)
        gram = problem.prior.gram(features).nngp.every_output(size)
        ntk, nngp = (block.every_output(size).T for block in (cross.ntk, cross.nngp))
        lower = SharedBlock(self.process.factor.lower).every_output(size)
        weights = self._scale * solve_columns(self.inverse, ntk, size).T
        both, moved = weights @ nngp, weights @ lower
        return gram - both - both.T + moved @ moved.T


@eqx.filter_jit
def _response(
    inverse: SharedInverse | SharedInterpolator, scale: Float[Array, ""], g: Draws
) -> Draws:
    return -scale * inverse.products(g)


@eqx.filter_jit
def _first_order_covariance(
    inverse: SharedInverse | SharedInterpolator,
    scale: Array,
    lower: Array,
    pair: KernelPair,
    variance: Array,
    num_outputs: int,
) -> Array:
    """Cov[g(x) − T g(X)] with T = Θ(x, X) B / ridge, of blocks of inputs: one by one they would read all
    factors for each input, and all at once form (m, C, n, C) numbers."""

    def at(inputs: tuple[Array, Array, Array]) -> Array:
        nngp, ntk, own = inputs
        weights = scale * inverse.columns(ntk[:, None])[0]
        both = jnp.einsum("cid,i->cd", weights, nngp)
        moved = jnp.einsum("cid,ij->cjd", weights, lower)
        spread = jnp.einsum("cjd,ejd->ce", moved, moved)
        return own * jnp.eye(num_outputs) - both - both.T + spread

    ntk = pair.ntk.dense()
    block = max(1, _BLOCK_NUMBERS // (num_outputs**2 * ntk.shape[1]))
    return jax.lax.map(at, (pair.nngp.dense(), ntk, variance), batch_size=block)


_BLOCK_NUMBERS = 2**22  # in T of a block of inputs: 32 MiB


class FirstOrder(Method[FirstOrderLaw]):
    """The random-init law with training linearised in the initial function: Gaussian.

    An approximation for ridge > 0, and exact for ridge = 0, where the trained predictor *is* linear
    in its initial function (THEORY 3).

    Args:
        tolerance: on the error of the logits at the centre, relative to their spread.
    """

    name: ClassVar[str] = "first order"
    kind: ClassVar[Kind] = Kind(
        "first order",
        Sampling.GAUSSIAN,
        "the Gaussian approximation of the random-init law: how a trained predictor responds, to first "
        "order, to its initial function.",
    )
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)

    def matrices(self, size: Size) -> dict[str, float]:
        return {"factor of K": 1.0, **inverse_matrices(size)}

    def operations(self, size: Size) -> dict[str, float]:
        solves = 6.0 * size.num_outputs + 2
        factors = {"factors": inverse(size)}
        return {**super().operations(size), **factors, **gaussian_predictions(size, solves)}

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> FirstOrderLaw:
        likelihood, ridge = problem.likelihood, problem.ridge
        process = problem.initial_process
        if not isinstance(process, InitialProcess):
            raise ConfigurationError(
                "the first-order law needs the covariance of the initial functions, which is not known "
                f"for {type(problem.prior.kernel).__name__}; use RandomInit, which draws them"
            )
        centre = train(problem.objective, problem.mean, tolerance=self.tolerance)
        if problem.gram.ntk.couples:
            raise ConfigurationError(
                "the first-order law takes a kernel that the outputs share; use RandomInit"
            )
        inverse: CurvedInverse | Interpolator
        if ridge > 0:
            curvature = problem.objective.curvature(centre.logits)
            if not isinstance(curvature, StructuredCurvature):
                raise ConfigurationError(
                    f"the first-order law does not take {type(likelihood.untempered).__name__}, which "
                    "couples its logits in a way of its own; use RandomInit"
                )
            inverse = problem.gram.ntk.curved(curvature, ridge=ridge)
        else:
            inverse = problem.objective.interpolator()
        assert isinstance(inverse, SharedInverse | SharedInterpolator)
        info = FirstOrderInfo(
            centre.residual, centre.logit_error, centre.num_iterations, ridge == 0
        )
        return FirstOrderLaw(
            problem, self.kind, info, centre.alpha, centre.logits, inverse, process
        )
