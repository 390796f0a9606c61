"""Square matrices of which the lower half alone is kept: factors, solves and inverses by halves.

A matrix is [top ·; below bottom], and so on down to blocks on the diagonal. In that form nearly all of
a factorisation is products of matrices as large as can be, where LAPACK's, and its solves with few
right-hand sides, run at a part of their speed. Of a factor L the blocks on the diagonal are kept
inverted.

On CPUs products A B and A Bᵀ of matrices as they lie in memory are twice as quick as Aᵀ B. So
right-hand sides of L are columns, and those of Lᵀ rows.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, DTypeLike, Float

Block = Float[Array, "*stack _ _"]
Columns = Float[Array, "n columns"]
Rows = Float[Array, "rows n"]

_BLOCK = 512  # rows of a block on the diagonal, at most


class Halves(eqx.Module):
    """The lower half of a matrix with more rows than a block has."""

    top: "Halves | Block"
    below: Block
    bottom: "Halves | Block"


Half = Halves | Block


def lower_half(
    gram: Half,
    *,
    scale: Float[Array, " n"] | None = None,
    shift: Float[Array, ""] | float = 0.0,
    dtype: DTypeLike | None = None,
) -> Half:
    """That of diag(scale) gram diag(scale) + shift · I, in the precision asked for.

    Args:
        gram: symmetric; its upper half is not read.
    """
    half = _divided(gram)
    half = half if scale is None else scaled(half, scale)
    half = half if dtype is None else jax.tree.map(lambda block: block.astype(dtype), half)
    return _shifted(half, shift)


def _divided(gram: Half) -> Half:
    if isinstance(gram, Halves) or len(gram) <= _BLOCK:
        return gram
    k = -(-len(gram) // (2 * _BLOCK)) * _BLOCK  # whole blocks
    return Halves(_divided(gram[:k, :k]), gram[k:, :k], _divided(gram[k:, k:]))


def _shifted(half: Half, shift: Float[Array, ""] | float) -> Half:
    if not isinstance(half, Halves):
        return half + jnp.asarray(shift, half.dtype) * jnp.eye(len(half), dtype=half.dtype)
    return Halves(_shifted(half.top, shift), half.below, _shifted(half.bottom, shift))


def scaled(half: Half, scale: Float[Array, " n"]) -> Half:
    """diag(scale) half diag(scale)."""
    if not isinstance(half, Halves):
        return scale[:, None] * half * scale[None, :]
    k = half.below.shape[1]
    first, second = scale[:k], scale[k:]
    below = second[:, None] * half.below * first[None, :]
    return Halves(scaled(half.top, first), below, scaled(half.bottom, second))


def full(half: Half) -> Block:
    """The symmetric matrix."""
    diagonal = jnp.concatenate(diagonals(half))
    size, dtype = len(diagonal), diagonal.dtype
    return _filled(jnp.zeros((size, size), dtype), half, 0)


def _filled(matrix: Block, half: Half, start: int) -> Block:
    if not isinstance(half, Halves):
        return matrix.at[start : start + len(half), start : start + len(half)].set(half)
    rows, columns = half.below.shape
    middle, end = start + columns, start + columns + rows
    matrix = matrix.at[middle:end, start:middle].set(half.below)
    matrix = matrix.at[start:middle, middle:end].set(half.below.T)
    return _filled(_filled(matrix, half.top, start), half.bottom, middle)


def diagonals(half: Half) -> list[Float[Array, "*stack block"]]:
    """The diagonal, block by block, of one matrix or a stack of them."""
    if not isinstance(half, Halves):
        return [jnp.diagonal(half, axis1=-2, axis2=-1)]
    return diagonals(half.top) + diagonals(half.bottom)


def factor(half: Half) -> Half:
    """L of a positive definite matrix L Lᵀ: n³/3 operations."""
    if not isinstance(half, Halves):
        lower = jax.lax.linalg.cholesky(half, symmetrize_input=False)
        return solve_triangular(lower, jnp.eye(len(half), dtype=half.dtype), lower=True)
    top = factor(half.top)
    below = _solve_rows(top, half.below)
    return Halves(top, below, factor(_plus(half.bottom, below, -1)))


def solve(lower: Half, v: Columns) -> Columns:
    """L⁻¹ v: n² operations a column."""
    if not isinstance(lower, Halves):
        return lower @ v
    k = lower.below.shape[1]
    top = solve(lower.top, v[:k])
    return jnp.concatenate([top, solve(lower.bottom, v[k:] - lower.below @ top)])


def solve_transposed(lower: Half, v: Columns) -> Columns:
    """L⁻ᵀ v: n² operations a column."""
    return _solve_rows_transposed(lower, _turned(v)).T


def inverse_gram(lower: Half) -> Half:
    """(L Lᵀ)⁻¹ = L⁻ᵀ L⁻¹, of L⁻¹ = [A⁻¹ 0; X D⁻¹] with X = −D⁻¹ B A⁻¹ for L = [A 0; B D]: 2n³/3
    operations."""
    if not isinstance(lower, Halves):
        return lower.T @ lower
    x = _turned(-solve(lower.bottom, _solve_rows_transposed(lower.top, lower.below)))
    top = _plus(inverse_gram(lower.top), x, 1)
    return Halves(top, _solve_rows_transposed(lower.bottom, x).T, inverse_gram(lower.bottom))


def solve_gram_rows(lower: Half, v: Rows) -> Rows:
    """v (L Lᵀ)⁻¹: 2n² operations a row."""
    return _solve_rows_transposed(lower, _solve_rows(lower, v))


def _solve_rows(lower: Half, v: Rows) -> Rows:
    """v L⁻ᵀ, which is (L⁻¹ vᵀ)ᵀ."""
    if not isinstance(lower, Halves):
        return v @ lower.T
    k = lower.below.shape[1]
    first = _solve_rows(lower.top, v[:, :k])
    second = _solve_rows(lower.bottom, v[:, k:] - first @ lower.below.T)
    return jnp.concatenate([first, second], axis=1)


def _solve_rows_transposed(lower: Half, v: Rows) -> Rows:
    """v L⁻¹, which is (L⁻ᵀ vᵀ)ᵀ."""
    if not isinstance(lower, Halves):
        return v @ lower
    k = lower.below.shape[1]
    second = _solve_rows_transposed(lower.bottom, v[:, k:])
    first = _solve_rows_transposed(lower.top, v[:, :k] - second @ lower.below)
    return jnp.concatenate([first, second], axis=1)


def _plus(half: Half, v: Float[Array, "n m"], sign: int) -> Half:
    """half ± v vᵀ: m n² operations."""
    if not isinstance(half, Halves):
        return half + sign * (v @ v.T)
    k = half.below.shape[1]
    first, second = v[:k], v[k:]
    below = half.below + sign * (second @ first.T)
    return Halves(_plus(half.top, first, sign), below, _plus(half.bottom, second, sign))


def _turned(v: Block) -> Block:
    """vᵀ as it then lies in memory: a mere view would make of A Bᵀ the slow Aᵀ B."""
    return jax.lax.optimization_barrier(v.T)
