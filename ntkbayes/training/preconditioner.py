"""Preconditioners for training with a kernel that many initial functions share.

At some logits, mostly the centre of the law, with P = Θ/ridge and W the likelihood's curvature there.
Shapes: n points, C logits, S draws.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from ntkbayes.linalg import (
    Block,
    BlockedTriangle,
    CoupledInverse,
    Curvature,
    Gram,
    Half,
    Operator,
    Triangle,
    apply,
    matrix,
    num_shares,
    tabulated,
    triangle,
)

Draws = Float[Array, "draws n classes"]
Rows = Float[Array, "draws classes n"]


class Preconditioner(eqx.Module):
    """Σ = (P⁻¹ + W)⁻¹, the posterior covariance at the centre of the law, or an approximation."""

    @property
    def reach(self) -> float:
        """The factor by which residuals fall before z ≠ P⁻¹ v, by round-off, has to be made good."""
        return 0.0

    @abc.abstractmethod
    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v ≈ Σ g and z = P⁻¹ v: a step in f, and the one in a that causes it."""


class RowPreconditioner(Preconditioner):
    """One made of triangles, whose right-hand sides are rows, between projections."""

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        v, z = self.apply_rows(project(gradients).transpose(0, 2, 1))
        return project(v.transpose(0, 2, 1)), project(z.transpose(0, 2, 1))

    @abc.abstractmethod
    def apply_rows(self, gradients: Rows) -> tuple[Rows, Rows]:
        """v and z, of gradients that are projected."""


class SharedPreconditioner(RowPreconditioner):
    """(P_s⁻¹ + diag w)⁻¹ ⊗ I_C where the outputs share P_s, by the factor of I + √w P_s √w: applied at
    the cost of one product."""

    weights: Float[Array, " n"]
    factor: Triangle

    @classmethod
    def build(
        cls,
        ntk: Gram,
        ridge: Float[Array, ""],
        weights: Float[Array, " n"],
        *,
        dtype: DTypeLike,
    ) -> "SharedPreconditioner":
        scale = jnp.sqrt(weights / ridge)
        return cls(weights, _triangle(ntk, scale=scale, shift=1.0, dtype=dtype))

    @property
    def reach(self) -> float:
        return 0.0 if self.factor.dtype == self.weights.dtype else 1e-4

    def apply_rows(self, gradients: Rows) -> tuple[Rows, Rows]:
        """v = (g − z) / w, and z = √w (I + √w P_s √w)⁻¹ g / √w."""
        weights = self.weights[None, None, :]
        scaled = (gradients / jnp.sqrt(weights)).reshape(-1, weights.size)
        z = jnp.sqrt(weights) * self.factor.solve_gram_rows(scaled).reshape(gradients.shape)
        return (gradients - z) / weights, z


_triangle = eqx.filter_jit(triangle)


PAIRS = 0.75  # a point: as quick as one, in less memory


class CurvedPairs(eqx.Module):
    """R with W ≈ diag(w) ⊗ I + R Rᵀ: of all pairs of a point and an eigenvector of its block of W, those
    that are curved the most.

    Attributes:
        points: of each pair.
        directions: its column of R, √(eigenvalue − w) times the eigenvector.
    """

    points: Int[Array, " pairs"]
    directions: Float[Array, "pairs classes"]

    @classmethod
    def split(
        cls, curvature: Curvature, *, is_flat: bool
    ) -> tuple[Float[Array, " n"], "CurvedPairs"]:
        """w and R: w is the geometric mean of what eigenvalues a point has left."""
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
        excess = jnp.maximum(values[points, which] - weights[points], 0.0)  # up to round-off
        return weights, cls(points, jnp.sqrt(excess)[:, None] * vectors[points, :, which])

    def gather(self, v: Rows) -> Float[Array, "draws pairs"]:
        """Rᵀ v."""
        return jnp.einsum("scm,mc->sm", v[:, :, self.points], self.directions)

    def subtract(self, v: Rows, y: Float[Array, "draws pairs"]) -> Rows:
        """v − R y."""
        along = jnp.einsum("sm,mc->scm", y, self.directions)
        return v.at[:, :, self.points].add(-along)


_split = eqx.filter_jit(CurvedPairs.split)


class PairedPreconditioner(RowPreconditioner):
    """G − G R (I + Rᵀ G R)⁻¹ Rᵀ G with G that of `SharedPreconditioner` (Woodbury): it saves some
    five steps of six, and costs twice the products.

    The correction is in float32, which z = P⁻¹ v does not feel: any y gives it, with v = G (g − R y).
    """

    shared: SharedPreconditioner
    pairs: CurvedPairs
    capacitance: BlockedTriangle

    @classmethod
    def build(
        cls,
        ntk: Gram,
        ridge: Float[Array, ""],
        curvature: Curvature,
        *,
        is_flat: bool,
        dtype: DTypeLike,
    ) -> "PairedPreconditioner":
        weights, pairs = _split(curvature, is_flat=is_flat)
        shared = SharedPreconditioner.build(ntk, ridge, weights, dtype=dtype)
        return cls(shared, pairs, _capacitance(shared, pairs))

    @property
    def reach(self) -> float:
        return self.shared.reach

    def apply_rows(self, gradients: Rows) -> tuple[Rows, Rows]:
        moved, _ = self.shared.apply_rows(gradients)
        y = self.capacitance.solve_gram_rows(self.pairs.gather(moved))
        return self.shared.apply_rows(self.pairs.subtract(gradients, y))


def _capacitance(shared: SharedPreconditioner, pairs: CurvedPairs) -> BlockedTriangle:
    """The factor of I + Rᵀ G R, with G = √w⁻¹ (I − (I + √w P_s √w)⁻¹) √w⁻¹. In steps, so that their
    workspaces are not there at once."""
    assert isinstance(shared.factor, BlockedTriangle)  # never where matrices are spread
    half = _gram_inverse(shared.factor)
    inverse = _matrix(half)
    del half
    correction = _correction(shared, pairs, inverse)
    del inverse
    return _blocked_triangle(correction, shift=1.0)


@eqx.filter_jit
def _gram_inverse(factor: BlockedTriangle) -> Half:
    coarse = jax.tree.map(lambda block: block.astype(jnp.float32), factor)
    return coarse.gram_inverse()


_matrix = eqx.filter_jit(matrix)
_blocked_triangle = eqx.filter_jit(BlockedTriangle.factor)


@eqx.filter_jit
def _correction(shared: SharedPreconditioner, pairs: CurvedPairs, inverse: Gram) -> Half:
    """Rᵀ G R."""
    scaled = pairs.directions / jnp.sqrt(shared.weights[pairs.points])[:, None]
    scaled = scaled.astype(inverse.dtype)

    def entries(rows: slice, columns: slice) -> Array:
        left, right = pairs.points[rows], pairs.points[columns]
        between = inverse[left][:, right]
        same = (left[:, None] == right[None, :]).astype(between.dtype)
        return (same - between) * (scaled[rows] @ scaled[columns].T)

    return tabulated(len(pairs.points), entries)


class CoupledPreconditioner(Preconditioner):
    """Σ itself, where the outputs are coupled."""

    covariance: Gram
    curvature: Curvature

    @classmethod
    def build(cls, gram: Gram, curvature: Curvature) -> "CoupledPreconditioner":
        half = CoupledInverse.build(gram, curvature).root @ gram
        return cls(gram - half.T @ half, curvature)

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        moved = apply(self.covariance, gradients)
        return moved, gradients - jax.vmap(self.curvature.matvec)(moved)


class SurrogatePreconditioner(Preconditioner):
    """z by way of an operator's surrogate, v by a product with the operator."""

    gram: Operator
    surrogate: Preconditioner

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        _, z = self.surrogate.apply(gradients, project)
        return apply(self.gram, z), z


def is_paired(num_points: int, num_draws: int, num_outputs: int) -> bool:
    """Whether so many draws are worth a capacitance: for n³ operations in float32 it saves some 50
    products a draw, each of 2n² C. Never where matrices are spread over devices."""
    return num_shares() == 1 and num_outputs > 1 and num_draws > max(1, num_points / 2000)


def preconditioner_of(
    ntk: Block,
    ridge: Float[Array, ""],
    curvature: Curvature,
    *,
    is_flat: bool,
    num_draws: int,
    dtype: DTypeLike,
) -> Preconditioner:
    """The preconditioner that suits the kind of Θ, and the number of draws that share it.

    Args:
        dtype: of its matrices; float64 where the outputs are coupled.
    """
    if isinstance(ntk, Operator):
        has_pairs = num_shares() == 1
        surrogate = _factored(ntk.surrogate, ridge, curvature, is_flat, has_pairs, dtype)
        return SurrogatePreconditioner(ntk / ridge, surrogate)
    size, num_outputs = curvature.shape
    if ntk.shape[0] != size:
        return _coupled(ntk / ridge, curvature)
    has_pairs = is_paired(size, num_draws, num_outputs)
    return _factored(ntk, ridge, curvature, is_flat, has_pairs, dtype)


_coupled = eqx.filter_jit(CoupledPreconditioner.build)


def _factored(
    ntk: Gram,
    ridge: Float[Array, ""],
    curvature: Curvature,
    is_flat: bool,
    has_pairs: bool,
    dtype: DTypeLike,
) -> Preconditioner:
    if has_pairs and curvature.shape[1] - is_flat > 1:
        return PairedPreconditioner.build(ntk, ridge, curvature, is_flat=is_flat, dtype=dtype)
    weights = _mean_eigenvalues(curvature, is_flat)
    return SharedPreconditioner.build(ntk, ridge, weights, dtype=dtype)


@eqx.filter_jit
def _mean_eigenvalues(curvature: Curvature, is_flat: bool) -> Float[Array, " n"]:
    """Of each point's block of W, where the likelihood is not flat."""
    total = jnp.sum(curvature.matrix_diagonal, axis=1)
    return _floored(total / max(1, curvature.shape[1] - is_flat), 1e-3)


def _floored(weights: Float[Array, "n *_"], share: float) -> Float[Array, "n *_"]:
    """The weights, none so small that (g − z) / w is lost in round-off: as certain as the most certain
    points are taken to be."""
    return jnp.maximum(weights, share * jnp.max(weights))
