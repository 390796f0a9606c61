"""Preconditioners for many draws over several outputs: Woodbury in the most curved directions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from ntkbayes.linalg.arrays import Square
from ntkbayes.linalg.curvature import Curvature
from ntkbayes.linalg.devices import num_shares
from ntkbayes.linalg.frugal import frugal_jit
from ntkbayes.linalg.halves import Half, matrix, tabulated
from ntkbayes.linalg.preconditioners import (
    Preconditioner,
    RowPreconditioner,
    RowStack,
    SharedPreconditioner,
)
from ntkbayes.linalg.sharded import Triangle
from ntkbayes.linalg.triangular import BlockedTriangle

PAIRS = 0.75  # per point: as fast as 1, with less memory


class CurvedPairs(eqx.Module):
    """R with W ≈ diag(w) ⊗ I + R Rᵀ: the pairs of a point and an eigenvector of its block of W with the
    largest eigenvalues.

    Attributes:
        points: the point of each pair.
        directions: the column of R of each pair, √(eigenvalue − w) times the eigenvector.
    """

    points: Int[Array, " pairs"]
    directions: Float[Array, "pairs classes"]

    @classmethod
    def split(
        cls, curvature: Curvature, *, is_flat: bool
    ) -> tuple[Float[Array, " n"], "CurvedPairs"]:
        """w and R, with w the geometric mean of a point's remaining eigenvalues."""
        values, vectors = jnp.linalg.eigh(curvature.blocks)
        values, vectors = values[:, int(is_flat) :], vectors[:, :, int(is_flat) :]
        values = _floored(values, 3e-4)
        size, count = values.shape
        _, best = jax.lax.top_k(values.reshape(-1), round(PAIRS * size))
        points, which = best // count, best % count
        is_left = jnp.ones_like(values, dtype=bool).at[points, which].set(False)
        num_left = jnp.sum(is_left, axis=1, dtype=values.dtype)
        mean = jnp.sum(jnp.log(values), axis=1, where=is_left) / jnp.maximum(num_left, 1)
        weights = jnp.where(num_left > 0, jnp.exp(mean), values[:, 0])
        excess = jnp.maximum(values[points, which] - weights[points], 0.0)  # clips round-off
        return weights, cls(points, jnp.sqrt(excess)[:, None] * vectors[points, :, which])

    def gather(self, v: RowStack) -> Float[Array, "draws pairs"]:
        """Rᵀ v."""
        return jnp.einsum("scm,mc->sm", v[:, :, self.points], self.directions)

    def subtract(self, v: RowStack, y: Float[Array, "draws pairs"]) -> RowStack:
        """v − R y."""
        along = jnp.einsum("sm,mc->scm", y, self.directions)
        return v.at[:, :, self.points].add(-along)


_split = eqx.filter_jit(CurvedPairs.split)


class PairedPreconditioner(RowPreconditioner):
    """G − G R (I + Rᵀ G R)⁻¹ Rᵀ G with G that of `SharedPreconditioner` (Woodbury): about a sixth of the
    steps, at one and a half times the cost per step.

    The correction is in float32. z = P⁻¹ v stays exact: it holds for v = G (g − R y) with any y.
    """

    shared: SharedPreconditioner
    coarse: SharedPreconditioner  # the same in float32, for y
    pairs: CurvedPairs
    capacitance: BlockedTriangle

    @classmethod
    def build(
        cls,
        ntk: Square,
        ridge: Float[Array, ""],
        curvature: Curvature,
        *,
        is_flat: bool,
        dtype: DTypeLike,
    ) -> "PairedPreconditioner":
        weights, pairs = _split(curvature, is_flat=is_flat)
        shared = SharedPreconditioner.build(ntk, ridge, weights, dtype=dtype)
        coarse = SharedPreconditioner(weights, _in_float32(shared.factor))
        return cls(shared, coarse, pairs, _capacitance(coarse, pairs))

    @property
    def reach(self) -> float:
        return self.shared.reach

    def apply_rows(self, gradients: RowStack) -> tuple[RowStack, RowStack]:
        moved, _ = self.coarse.apply_rows(gradients)
        y = self.capacitance.solve_gram_rows(self.pairs.gather(moved))
        return self.shared.apply_rows(self.pairs.subtract(gradients, y))


def _capacitance(coarse: SharedPreconditioner, pairs: CurvedPairs) -> BlockedTriangle:
    """The factor of I + Rᵀ G R, with G = √w⁻¹ (I − (I + √w P_s √w)⁻¹) √w⁻¹. In separate programs, whose
    workspaces do not coexist."""
    assert isinstance(coarse.factor, BlockedTriangle)  # not used where matrices are spread
    half = _gram_inverse(coarse.factor)
    inverse = _matrix(half)
    del half
    correction = _correction(coarse.weights, pairs, inverse)
    del inverse
    return _blocked_triangle(correction, shift=1.0)


@eqx.filter_jit
def _in_float32(factor: Triangle) -> Triangle:
    return jax.tree.map(lambda block: block.astype(jnp.float32), factor)


_gram_inverse = frugal_jit(BlockedTriangle.gram_inverse)
_matrix = eqx.filter_jit(matrix)
_blocked_triangle = frugal_jit(BlockedTriangle.factor)


@frugal_jit
def _correction(weights: Float[Array, " n"], pairs: CurvedPairs, inverse: Square) -> Half:
    """Rᵀ G R."""
    scaled = pairs.directions / jnp.sqrt(weights[pairs.points])[:, None]
    scaled = scaled.astype(inverse.dtype)

    def entries(rows: slice, columns: slice) -> Array:
        left, right = pairs.points[rows], pairs.points[columns]
        between = inverse[left][:, right]
        same = (left[:, None] == right[None, :]).astype(between.dtype)
        return (same - between) * (scaled[rows] @ scaled[columns].T)

    return tabulated(len(pairs.points), entries)


def is_paired(num_points: int, num_draws: int, num_outputs: int) -> bool:
    """Whether this many draws pay for a capacitance matrix: for n³ operations in float32 it saves about
    50 products per draw, each of 2n² C. Not available where matrices are spread over devices."""
    return num_shares() == 1 and num_outputs > 1 and num_draws > max(1, num_points / 2000)


def shared_preconditioner(
    ntk: Square,
    ridge: Float[Array, ""],
    curvature: Curvature,
    is_flat: bool,
    has_pairs: bool,
    dtype: DTypeLike,
) -> Preconditioner:
    """The preconditioner of P_s ⊗ I_C, with P_s = ntk/ridge.

    Args:
        has_pairs: whether to correct by `CurvedPairs`.
    """
    if has_pairs and curvature.shape[1] - is_flat > 1:
        return PairedPreconditioner.build(ntk, ridge, curvature, is_flat=is_flat, dtype=dtype)
    weights = _mean_eigenvalues(curvature, is_flat)
    return SharedPreconditioner.build(ntk, ridge, weights, dtype=dtype)


@eqx.filter_jit
def _mean_eigenvalues(curvature: Curvature, is_flat: bool) -> Float[Array, " n"]:
    """The mean eigenvalue of W per point, over directions that are not flat."""
    total = jnp.sum(curvature.matrix_diagonal, axis=1)
    return _floored(total / max(1, curvature.shape[1] - is_flat), 1e-3)


def _floored(weights: Float[Array, "n *_"], share: float) -> Float[Array, "n *_"]:
    """The weights, floored at a share of the largest: smaller ones would make (g − z) / w round-off."""
    return jnp.maximum(weights, share * jnp.max(weights))
