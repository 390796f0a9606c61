"""Laplace with less of the curvature, at a part of its cost, and by how much that is wrong.

Trained networks are sure of most of their training points, where nearly all of W = diag(π) − π πᵀ is in
a few classes. `PrunedLaplace` keeps of each class the share of the points that give it the largest
probability, which leaves W̃ and small matrices to factor. As W − W̃ is positive semi-definite, its
variances are no less than Laplace's:

    S̃ − S = S̃ T (I + T S̃ T)⁻¹ T S̃,   T T = W − W̃,   S̃ = (P⁻¹ + W̃)⁻¹,

which conjugate gradients solve for any logit in a few products. With λ the largest eigenvalue of T S̃ T,
S̃ ≼ (1 + λ) S, as S⁻¹ = S̃⁻¹ + T T: no variance exceeds Laplace's by more than λ of it, neither that of
a logit at any input nor that of any sum of logits; and that of one such sum does by exactly λ.
"""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.laws.gaussian.posterior import (
    PosteriorMethod,
    SitePosterior,
    mode_and_curvature,
    site_covariance,
)
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import Inputs
from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import (
    CurvedInverse,
    Draws,
    Gram,
    StructuredCurvature,
    factor_dtype,
    num_shares,
    symmetric_roots,
    white_noise,
)
from ntkbayes.ranges import Range, real_field
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.matrices import inverse_matrices
from ntkbayes.training.operations import Size, gaussian_predictions, inverse

Roots = Float[Array, "n classes classes"]

_NUM_MEASURED = 8  # logits, one of each of so many training points
_NUM_VECTORS = 8  # in a block of the Krylov space
_MAX_BLOCKS = 30


class PrunedLaplaceInfo(Info):
    """Of the mode, and of what pruning costs.

    Attributes:
        excess_bound: by what part of itself Laplace's variance can be exceeded, at most, of any logit at
            any input and of any sum of logits; a single logit's excess is often several times less.
        sampled_excess: the largest of eight logits, each at a training point, spread evenly over them;
            others may be many times that.
        residual, logit_error, num_iterations: of the mode, as in `LaplaceInfo`.
    """

    excess_bound: float
    sampled_excess: float
    residual: float
    logit_error: float
    num_iterations: int


class LostCurvature(eqx.Module):
    """What pruning leaves out, W − W̃ = T T, and what it does to variances.

    Attributes:
        roots: T, point by point.
    """

    roots: Roots

    def excess(
        self,
        gram: Gram,
        inverse: CurvedInverse,
        cross: Float[Array, "n j"],
        units: Float[Array, "j classes"],
    ) -> Float[Array, " j"]:
        """eᵀ (S̃ − S) e of the logits e whose prior covariances with those at X are cross ⊗ units.

        Raises:
            ConvergenceError: conjugate gradients did not converge.
        """
        excess, residual = _quadratic_excess(gram, inverse, self.roots, cross, units)
        if not float(residual) <= 1e-4:
            raise ConvergenceError(
                f"by how much variances are too large was not found (residual {float(residual):.1e}): "
                "use factors in float64, keep more points, or use Laplace"
            )
        return excess

    def bound(self, gram: Gram, inverse: CurvedInverse) -> float:
        """The largest eigenvalue λ of T S̃ T, from above, by block Lanczos with full
        orthogonalisation: an eigenvalue lies within the residual of the largest Ritz value.

        Raises:
            ConvergenceError: the residual stays above a hundredth of it.
        """
        shape = self.roots.shape[:2]
        size = math.prod(shape)
        width = min(_NUM_VECTORS, size)
        start = white_noise(jax.random.key(0), (size, width))
        basis, images = np.zeros((size, 0)), np.zeros((size, 0))
        block = np.linalg.qr(np.asarray(start))[0]
        for _ in range(_MAX_BLOCKS):
            stack = jnp.asarray(block.T.reshape(-1, *shape))
            image = (
                np.asarray(_lost_spread(gram, inverse, self.roots, stack)).reshape(width, size).T
            )
            basis, images = np.hstack([basis, block]), np.hstack([images, image])
            values, vectors = np.linalg.eigh(basis.T @ images)
            value, vector = values[-1], vectors[:, -1]
            residual = np.linalg.norm(images @ vector - value * (basis @ vector))
            if residual <= 0.01 * value or basis.shape[1] >= size or not value > 0:
                return float(value + residual)
            width = min(width, size - basis.shape[1])
            # Orthogonal to the basis by Householder's reflections, also where images add nothing to it.
            block = np.linalg.qr(np.hstack([basis, image[:, :width]]))[0][:, basis.shape[1] :]
        raise ConvergenceError(
            f"by how much variances can be too large was not found (residual {residual:.1e} of "
            f"{value:.1e}): use factors in float64, keep more points, or use Laplace"
        )


class PrunedPosterior(SitePosterior[PrunedLaplaceInfo]):
    """N(f̂, (P⁻¹ + W̃)⁻¹), wider than Laplace's posterior.

    Attributes:
        curvature: W̃.
        lost: W − W̃.
    """

    lost: LostCurvature

    def variance_excess(self, features: Inputs) -> Float[Array, "m classes"]:
        """By how much the variance of each logit exceeds Laplace's, in its own units, to the tolerance
        of conjugate gradients.

        For a few inputs, since each takes several times O(C² n²) operations.

        Raises:
            ConvergenceError: conjugate gradients did not converge.
        """
        problem, features = self.problem, self.problem.read(features)
        size, gram = problem.num_outputs, problem.prior_gram

        def one(x: Float[Array, "..."]) -> Float[Array, " classes"]:
            cross = problem.prior.cross(problem.features, x[None]).ntk.dense() / problem.prior.ridge
            return self.lost.excess(
                gram, self.inverse, jnp.repeat(cross, size, axis=1), jnp.eye(size)
            )

        # One input at a time, since each has a row of (n, C) numbers for every logit.
        rows = [one(x) for x in features]
        return jnp.stack(rows) if rows else jnp.zeros((0, size))


def _sampled_excess(
    problem: Problem, gram: Gram, inverse: CurvedInverse, lost: LostCurvature
) -> float:
    """Of the logits that are measured, the largest excess as a part of Laplace's variance.

    Raises:
        ConvergenceError: conjugate gradients did not converge, or that variance is lost in round-off.
    """
    size = len(problem.features)
    points = np.linspace(0, size - 1, min(size, _NUM_MEASURED)).round().astype(int)
    logits = jnp.arange(len(points)) % problem.num_outputs
    features = problem.features[points]
    covariance = site_covariance(problem, inverse, features)
    variance = covariance[jnp.arange(len(points)), logits, logits]
    cross = problem.prior.cross(problem.features, features).ntk.dense() / problem.ridge
    excess = lost.excess(gram, inverse, cross, jax.nn.one_hot(logits, problem.num_outputs))
    if not bool(jnp.all((variance > excess) | (excess == 0))):
        raise ConvergenceError(
            "by how much variances are too large is lost in round-off: use factors in float64, or a "
            "larger ridge"
        )
    return float(jnp.max(jnp.where(excess == 0, 0.0, excess / (variance - excess))))


class PrunedLaplace(PosteriorMethod[PrunedPosterior]):
    """Laplace with the curvature of each class at a share of the points alone, those that give it the
    largest probability (with one logit: that are curved the most). Its mean is Laplace's, and its
    variances are no less: `law.variance_excess(x)` says by how much, and `info.excess_bound` by what
    part of Laplace's at most, at any input.

    For many points and classes: with a share s of the points kept, factors take s³ of Laplace's time and
    s² of its memory. The evidence is Laplace's alone.

    Args:
        kept: s, the share of the points that a class keeps.
        tolerance: on the error of the mode's logits, relative to their spread.
        factor_dtype: of the factors that are kept, as Laplace's.
    """

    name: ClassVar[str] = "pruned Laplace"
    kind: ClassVar[Kind] = Kind(
        "pruned Laplace",
        Sampling.GAUSSIAN,
        "the Laplace posterior with curvature left out where classes are improbable: its mean, and "
        "variances that are no less.",
    )
    kept: float = real_field("kept", 0.5, Range.UNIT_WITHOUT_0)
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)
    factor_dtype: np.dtype = eqx.field(default=np.float64, static=True, converter=factor_dtype)

    def matrices(self, size: Size) -> dict[str, float]:
        blocks = 5 * size.num_outputs**2 / size.rows  # (n, C, C) numbers, while the roots are made
        return {
            **inverse_matrices(size, self.factor_dtype, kept=self.kept),
            "blocks": blocks,
        }

    def operations(self, size: Size) -> dict[str, float]:
        share = self.kept**2
        factors = {"factors": share * inverse(size)}
        return {**super().operations(size), **factors, **gaussian_predictions(size, 3.0 * share)}

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> PrunedPosterior:
        if problem.gram.ntk.couples:
            raise ConfigurationError(
                "a kernel that couples the outputs gains nothing by pruning; use Laplace"
            )
        if num_shares() > 1:
            raise ConfigurationError("pruned matrices are not spread over devices; use Laplace")
        mode, whole = mode_and_curvature(problem, self.tolerance, self.factor_dtype)
        if not isinstance(whole, StructuredCurvature):
            raise ConfigurationError(
                f"{type(problem.likelihood.untempered).__name__} couples its logits in a way of its "
                "own, which leaves nothing to prune; use Laplace"
            )
        kept = whole.pruned(math.ceil(self.kept * len(problem.features)))
        gram = problem.prior_gram
        inverse = gram.curved(kept, dtype=self.factor_dtype)
        lost = LostCurvature(_lost_roots(whole, kept))
        info = PrunedLaplaceInfo(
            lost.bound(gram, inverse),
            _sampled_excess(problem, gram, inverse, lost),
            mode.residual,
            mode.logit_error,
            mode.num_iterations,
        )
        return PrunedPosterior(
            problem, self.kind, info, mode.alpha, mode.logits, inverse, kept, lost
        )


@eqx.filter_jit
def _lost_roots(whole: StructuredCurvature, kept: StructuredCurvature) -> Roots:
    """T, point by point."""
    return symmetric_roots(whole.blocks - kept.blocks)


@eqx.filter_jit
def _quadratic_excess(
    gram: Gram,
    inverse: CurvedInverse,
    roots: Roots,
    cross: Float[Array, "n j"],
    units: Float[Array, "j classes"],
) -> tuple[Float[Array, " j"], Float[Array, ""]]:
    """eᵀ (S̃ − S) e, and the residual of what was solved, as a part of its right-hand side."""

    def system(v: Draws) -> Draws:
        return v + _lost_spread(gram, inverse, roots, v)

    right = _turned(roots, _left(gram, inverse, jnp.einsum("nj,jc->jnc", cross, units)))
    solution, _ = jax.scipy.sparse.linalg.cg(system, right, tol=1e-6, maxiter=200)
    residual = jnp.linalg.norm(right - system(solution)) / jnp.maximum(
        jnp.linalg.norm(right), jnp.finfo(right.dtype).tiny
    )
    return jnp.einsum("jnc,jnc->j", right, solution), residual


@eqx.filter_jit
def _lost_spread(gram: Gram, inverse: CurvedInverse, roots: Roots, v: Draws) -> Draws:
    """T S̃ T v."""
    return _turned(roots, _left(gram, inverse, gram @ _turned(roots, v)))


def _left(gram: Gram, inverse: CurvedInverse, v: Draws) -> Draws:
    """(I − P B̃) v, so that S̃ = left P."""
    return jax.vmap(lambda one: one - gram @ inverse.matvec(one))(v)


def _turned(roots: Roots, v: Draws) -> Draws:
    return jnp.einsum("ncd,jnd->jnc", roots, v)
