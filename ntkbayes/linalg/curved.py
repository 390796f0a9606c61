"""The inverse B = (P + W⁻¹)⁻¹ for a prior covariance P and likelihood curvature W."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, DTypeLike, Float, Int

from ntkbayes.linalg import halves
from ntkbayes.linalg.arrays import Covariances, Draws, Logits, Square
from ntkbayes.linalg.blocks import Block, CoupledBlock, Number
from ntkbayes.linalg.curvature import Curvature, Kept, StructuredCurvature
from ntkbayes.linalg.devices import by_rows, everywhere, num_shares
from ntkbayes.linalg.frugal import frugal_jit
from ntkbayes.linalg.halves import Half, lower_triangle, tabulated
from ntkbayes.linalg.sharded import Triangle, triangle
from ntkbayes.linalg.triangular import BlockedTriangle

if TYPE_CHECKING:
    from ntkbayes.linalg.grams import Gram

Stack = Float[Array, "classes n m"]
Indices = Int[Array, " kept"]


class CurvedInverse(eqx.Module):
    """B = (P + W⁻¹)⁻¹, the operator behind every formula of Laplace and the first-order law.

    Finite where W is singular: (I + W P)⁻¹ = I − B P.

    Attributes:
        log_determinant: log det(I + W P); NaN if unknown.
    """

    log_determinant: eqx.AbstractVar[Float[Array, ""]]

    @property
    def is_finite(self) -> bool:
        """Whether the factors exist: round-off can leave an I + Sᵀ P S that is not positive definite."""
        return bool(np.isfinite(self.log_determinant))

    @abc.abstractmethod
    def matvec(self, v: Logits) -> Logits:
        """B v."""

    def products(self, v: Draws) -> Draws:
        """B v of many functions."""
        return jax.vmap(self.matvec)(v)

    @abc.abstractmethod
    def quadratic(self, k: Block) -> Covariances:
        """kⱼᵀ B kⱼ for the columns kⱼ of each input j of a block (R&W algorithm 3.4)."""

    def differentiable(self, gram: "Gram", curvature: Curvature) -> Float[Array, ""]:
        """log det(I + W P) of this inverse, to be differentiated once in P and W; see `explicit`."""
        return gram.curved(curvature).log_determinant

    def explicit(self) -> "CurvedInverse":
        """The form whose determinant takes least time to differentiate. It may take over the memory of
        this one, which must not be used again."""
        return self


class SharedInverse(CurvedInverse):
    """B = E − E R (Rᵀ E R)⁻¹ Rᵀ E for P = P_s ⊗ I_C, with R = 1 ⊗ I_n and, class by class,

        E_c = √D_c A_c⁻¹ √D_c,   A_c = I + √D_c P_s √D_c = L_c L_cᵀ

    (R&W 3.46–3.48); without the second term if the classes are not coupled.

    Each A_c takes n³/3 operations, and E_c in Rᵀ E R = Σ E_c, for coupled classes, another 2n³/3.
    Stores C + 1 lower halves of n × n, with another n × n during the build. Where D_c is zero A_c is the
    identity, and is left out: with k points per class, k³ operations and k × k each.
    """

    log_determinant: Float[Array, ""]
    scales: Float[Array, "classes kept"]
    points: Kept | None
    factors: Triangle
    coupling: Triangle | None

    @classmethod
    def build(
        cls, gram: Square, curvature: StructuredCurvature, dtype: DTypeLike | None = None
    ) -> "SharedInverse":
        scales, points = jnp.sqrt(curvature.diagonal.T), curvature.points
        if points is not None:
            scales = jnp.take_along_axis(scales, points, axis=1)

        def factor(scale: Float[Array, " kept"], rows: Indices | None) -> Triangle:
            return triangle(_within(gram, rows), scale=scale, shift=1.0, dtype=dtype)

        if not curvature.coupled:
            factors = jax.lax.map(lambda part: factor(*part), (scales, points))
            return cls(2 * factors.log_determinant, scales, points, factors, None)

        def local(
            scale: Float[Array, " kept"], rows: Indices | None
        ) -> tuple[Square | Half, Triangle]:
            lower = factor(scale, rows)
            return _among(lower.scaled_inverse(scale), rows, len(gram)), lower

        def add(total: Square | Half, part: tuple) -> tuple[Square | Half, Triangle]:
            inverse, lower = local(*part)
            return jax.tree.map(jnp.add, total, inverse), lower

        like, _ = jax.eval_shape(local, *jax.tree.map(lambda part: part[0], (scales, points)))
        zero = jax.tree.map(lambda block: by_rows(jnp.zeros(block.shape, block.dtype)), like)
        total, factors = jax.lax.scan(add, zero, (scales, points))
        coupling = triangle(total, shift=curvature.is_idle.astype(gram.dtype))
        log_determinant = factors.log_determinant + coupling.log_determinant
        log_determinant = 2 * log_determinant - jnp.sum(jnp.log(curvature.mass))
        return cls(log_determinant, scales, points, factors, coupling)

    def matvec(self, v: Logits) -> Logits:
        return everywhere(self._apply(v.T[:, :, None])[:, :, 0].T)

    def quadratic(self, k: Block) -> Covariances:
        columns = k.dense()
        half = self._half(jnp.broadcast_to(columns[None], (len(self.scales), *columns.shape)))
        blocks = jax.vmap(jnp.diag)(jnp.sum(half**2, axis=1).T)
        coupling = self.coupling
        if coupling is None:
            return everywhere(blocks)
        white = jax.lax.map(coupling.solve, self._rest(half, len(columns)))
        return everywhere(blocks - jnp.einsum("cim,dim->mcd", white, white))

    def columns(self, k: Float[Array, "n m"]) -> Float[Array, "m classes n classes"]:
        """B (k_j ⊗ I) for each column: [j, c, i, d] is entry ((i, d), c)."""
        size = len(self.scales)
        unit = jnp.eye(size, dtype=k.dtype)
        products = self._apply(jnp.einsum("cd,im->dimc", unit, k).reshape(size, len(k), -1))
        return products.reshape(size, len(k), -1, size).transpose(2, 3, 1, 0)

    def _apply(self, v: Stack) -> Stack:
        """B v, for column vectors, class by class."""
        size = v.shape[1]
        local = self._rest(self._half(v), size)
        coupling = self.coupling
        if coupling is None:
            return local
        shared = coupling.solve_transposed(coupling.solve(jnp.sum(local, axis=0)))
        return local - self._rest(self._half(jnp.broadcast_to(shared[None], v.shape)), size)

    def _half(self, v: Stack) -> Float[Array, "classes kept m"]:
        """L_c⁻¹ √D_c v."""

        def one(part: tuple) -> Float[Array, "kept m"]:
            factor, scale, rows, v = part
            return factor.solve(scale[:, None] * (v if rows is None else v[rows]))

        return jax.lax.map(one, (self.factors, self.scales, self.points, v))

    def _rest(self, half: Float[Array, "classes kept m"], size: int) -> Stack:
        """E_c v = √D_c L_c⁻ᵀ half, with `half` from `_half`."""

        def one(part: tuple) -> Float[Array, "n m"]:
            factor, scale, rows, half = part
            local = scale[:, None] * factor.solve_transposed(half)
            return local if rows is None else jnp.zeros((size, local.shape[1])).at[rows].set(local)

        return jax.lax.map(one, (self.factors, self.scales, self.points, half))


def _within(gram: Square, rows: Indices | None) -> Square | Half:
    """The Gram of a subset of the points."""
    if rows is None:
        return gram
    return tabulated(len(rows), lambda i, j: gram[rows[i]][:, rows[j]])


def _among(inverse: Square | Half, rows: Indices | None, size: int) -> Square | Half:
    """A lower half on a subset of the points, embedded among all with zeros."""
    if rows is None:
        return inverse
    assert num_shares() == 1  # spread matrices are not pruned
    lower = lower_triangle(inverse)
    is_kept = jnp.zeros(size, bool).at[rows].set(True)
    place = jnp.zeros(size, int).at[rows].set(jnp.arange(len(rows)))

    def entries(i: slice, j: slice) -> Float[Array, "i j"]:
        block = lower[place[i]][:, place[j]]
        return jnp.where(is_kept[i, None] & is_kept[None, j], block, 0.0)

    return tabulated(size, entries)


class CoupledInverse(CurvedInverse):
    """B = S (L Lᵀ)⁻¹ Sᵀ for a dense P of N × N, N = nC, that couples the outputs, with S Sᵀ = W and
    L Lᵀ = I + Sᵀ P S.

    N³/3 operations, and N² per column; stores a lower half of N × N, and during the build as much again.
    """

    log_determinant: Float[Array, ""]
    curvature: Curvature
    factor: BlockedTriangle

    @classmethod
    def build(
        cls,
        gram: Square,
        curvature: Curvature,
        ridge: Number = 1.0,
        dtype: DTypeLike | None = None,
    ) -> "CoupledInverse":
        """Args:
        gram: Θ, so that P = gram/ridge needs no memory.
        """
        factor = factor_between_roots(gram, curvature, ridge=ridge, dtype=dtype)
        return cls(2 * factor.log_determinant, curvature, factor)

    def matvec(self, v: Logits) -> Logits:
        whitened = self.curvature.root_transpose_matvec(v).reshape(1, -1)
        return self.curvature.root_matvec(self.factor.solve_gram_rows(whitened).reshape(v.shape))

    def quadratic(self, k: Block) -> Covariances:
        num_outputs = self.curvature.shape[1]
        half = self.factor.solve(_roots_times(self.curvature, k.every_output(num_outputs)))
        return CoupledBlock(half, num_outputs).column_products(num_outputs)

    def differentiable(self, gram: "Gram", curvature: Curvature) -> Float[Array, ""]:
        """By A⁻¹, which is not computed where nothing is differentiated."""
        return self.explicit().differentiable(gram, curvature)

    def explicit(self) -> "ExplicitInverse":
        """2N³/3 operations, where differentiating the factor takes several times as many, and memory."""
        return ExplicitInverse(self.log_determinant, self.curvature, _inverted(self.factor))


class ExplicitInverse(CurvedInverse):
    """B = S A⁻¹ Sᵀ with A⁻¹ = (I + Sᵀ P S)⁻¹ in place of the factor of A: a lower half of N × N."""

    log_determinant: Float[Array, ""]
    curvature: Curvature
    inverse: Half

    def matvec(self, v: Logits) -> Logits:
        whitened = self.curvature.root_transpose_matvec(v).reshape(-1, 1)
        moved = halves.multiply_symmetric(self.inverse, whitened)
        return self.curvature.root_matvec(moved.reshape(v.shape))

    def quadratic(self, k: Block) -> Covariances:
        num_outputs = self.curvature.shape[1]
        white = _roots_times(self.curvature, k.every_output(num_outputs))
        moved = halves.multiply_symmetric(self.inverse, white)
        num_columns = white.shape[1] // num_outputs
        shape = (-1, num_columns, num_outputs)
        return jnp.einsum("rmc,rmd->mcd", white.reshape(shape), moved.reshape(shape))

    def differentiable(self, gram: "Gram", curvature: Curvature) -> Float[Array, ""]:
        """With A = I + Sᵀ P S = L Lᵀ,

        d log det A = tr(S A⁻¹ Sᵀ dP) + 2 tr(A⁻¹ Sᵀ P dS)
        """
        matrix = gram.every_output(self.curvature.shape[1])
        return _log_determinant(matrix, curvature.root_blocks, self)

    def of_roots(self, matrix: Square) -> Covariances:
        """The blocks of P S A⁻¹ on the diagonal, by strips of rows.

        Args:
            matrix: P.
        """
        num_points, num_outputs = self.curvature.shape
        step = -(-num_points // _STRIPS)
        parts: list[Covariances] = []
        wait = jnp.asarray(0)
        for first in range(0, num_points, step):
            rows = _outputs(slice(first, min(first + step, num_points)), num_outputs)
            size = rows.stop - rows.start
            left = jax.lax.dynamic_slice_in_dim(matrix, rows.start + wait, size)
            left = left.reshape(size, num_points, num_outputs)
            left = jax.vmap(self.curvature.root_transpose_matvec)(left)
            strip = (-1, num_outputs, len(matrix))
            right = halves.rows_of(self.inverse, rows.start, rows.stop, wait)
            part = jnp.einsum("ick,idk->icd", left.reshape(strip), right.reshape(strip))
            # So that strips are not all made first: 0, but for NaN, which the result then is.
            wait = jnp.isnan(part[0, 0, 0]).astype(int)
            parts.append(part)
        return jnp.concatenate(parts)

    def dense(self) -> Square:
        """S A⁻¹ Sᵀ."""
        whole = halves.matrix(self.inverse)
        half = _times(self.curvature.root_matvec, self.curvature.shape, whole)
        return _times(self.curvature.root_matvec, self.curvature.shape, half.T)


_STRIPS = 16


@jax.custom_jvp
def _log_determinant(
    matrix: Square, roots: Covariances, inverse: ExplicitInverse
) -> Float[Array, ""]:
    """log det A as a function of P and of the blocks of S. Its derivative takes memory of P's size only
    where P has one."""
    return inverse.log_determinant


def _slope(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    matrix, _, inverse = primals
    d_matrix, d_roots, _ = tangents
    slope = jnp.zeros_like(inverse.log_determinant)
    if not isinstance(d_roots, SymbolicZero):
        slope += 2 * jnp.sum(inverse.of_roots(matrix) * d_roots)
    if not isinstance(d_matrix, SymbolicZero):
        slope += jnp.sum(inverse.dense() * d_matrix)
    return inverse.log_determinant, slope


_log_determinant.defjvp(_slope, symbolic_zeros=True)


_inverted = frugal_jit(BlockedTriangle.gram_inverse, donate="all")


def factor_between_roots(
    gram: Square,
    curvature: Curvature,
    *,
    ridge: Number = 1.0,
    dtype: DTypeLike | None = None,
) -> BlockedTriangle:
    """L of I + Sᵀ P S, with S Sᵀ = W, for a P = gram/ridge of nC × nC."""
    num_outputs = curvature.shape[1]

    def entries(rows: slice, columns: slice) -> Float[Array, "rows columns"]:
        # Of all outputs of the points that the rows and columns are of.
        first, second = (
            slice(part.start // num_outputs, -(-part.stop // num_outputs))
            for part in (rows, columns)
        )
        between = gram[_outputs(first, num_outputs), _outputs(second, num_outputs)] / ridge
        between = _roots_times(curvature.at(first), between)
        between = _roots_times(curvature.at(second), between.T).T
        between = between if dtype is None else between.astype(dtype)
        i, j = rows.start - first.start * num_outputs, columns.start - second.start * num_outputs
        return between[i : i + rows.stop - rows.start, j : j + columns.stop - columns.start]

    return BlockedTriangle.factor(tabulated(len(gram), entries), shift=1.0, dtype=dtype)


def _outputs(points: slice, num_outputs: int) -> slice:
    return slice(points.start * num_outputs, points.stop * num_outputs)


def _roots_times(curvature: Curvature, v: Float[Array, "rows m"]) -> Float[Array, "rows m"]:
    """Sᵀ v, for columns with a row per point and output."""
    return _times(curvature.root_transpose_matvec, curvature.shape, v)


def _times(
    product: Callable[[Logits], Logits], shape: tuple[int, int], v: Float[Array, "rows m"]
) -> Float[Array, "rows m"]:
    """A product with logits, of columns with a row per point and output."""
    stack = v.reshape(*shape, v.shape[1])
    return jax.vmap(product, in_axes=2, out_axes=2)(stack).reshape(v.shape)
