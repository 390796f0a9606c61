"""Square matrices stored as their lower half: recursive factors, solves and inverses.

A matrix is [top ·; below bottom], recursively down to blocks on the diagonal. In this form nearly all of
a factorisation is large matrix products, much faster than LAPACK's factorisation, or its solves with few
right-hand sides. Diagonal blocks of a factor L are stored inverted, or as `Corner`s where they are too
ill-conditioned for that.

On CPUs the products A B and A Bᵀ are twice as fast as Aᵀ B in the memory layout here. So right-hand
sides of L are columns, and those of Lᵀ rows.
"""

from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import dynamic_slice_in_dim
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, DTypeLike, Float, Int

Tile = Float[Array, "*stack _ _"]
Columns = Float[Array, "n columns"]
Rows = Float[Array, "rows n"]

_BLOCK = 512  # rows of a block on the diagonal, at most


class Corner(eqx.Module):
    """A diagonal block of a factor, not inverted."""

    lower: Tile


class Halves[Kept: (Tile, Corner)](eqx.Module):
    """The lower half of a matrix larger than one block; `Kept` is the type of its diagonal blocks."""

    top: "Halves[Kept] | Kept"
    below: Tile
    bottom: "Halves[Kept] | Kept"


Half = Halves[Tile] | Tile
Corners = Halves[Corner] | Corner
Lower = Half | Corners


def lower_half(
    gram: Half,
    *,
    scale: Float[Array, " n"] | None = None,
    shift: Float[Array, "*n"] | float = 0.0,
    dtype: DTypeLike | None = None,
) -> Half:
    """The lower half of diag(scale) gram diag(scale) + diag(shift), in the given precision.

    Args:
        gram: symmetric; its upper half is not read.
    """
    half = _divided(gram)
    half = half if scale is None else scaled(half, scale)
    half = half if dtype is None else jax.tree.map(lambda block: block.astype(dtype), half)
    return _shifted(half, jnp.broadcast_to(shift, (num_rows(half),)))


def _divided(gram: Half) -> Half:
    if isinstance(gram, Halves):
        return gram
    return tabulated(len(gram), lambda rows, columns: gram[rows, columns])


def tabulated(size: int, entries: Callable[[slice, slice], Tile]) -> Half:
    """The lower half of the matrix given by a function of its rows and columns."""

    def between(start: int, end: int) -> Half:
        own = slice(start, end)
        if end - start <= _BLOCK:
            return entries(own, own)
        middle = start + -(-(end - start) // (2 * _BLOCK)) * _BLOCK  # whole blocks
        below = entries(slice(middle, end), slice(start, middle))
        return Halves(between(start, middle), below, between(middle, end))

    return between(0, size)


def _shifted(half: Half, shift: Float[Array, " n"]) -> Half:
    if not isinstance(half, Halves):
        return half + jnp.diag(shift).astype(half.dtype)
    k = half.below.shape[1]
    return Halves(_shifted(half.top, shift[:k]), half.below, _shifted(half.bottom, shift[k:]))


def scaled(half: Half, scale: Float[Array, " n"]) -> Half:
    """diag(scale) half diag(scale)."""
    if not isinstance(half, Halves):
        return scale[:, None] * half * scale[None, :]
    k = half.below.shape[1]
    first, second = scale[:k], scale[k:]
    below = second[:, None] * half.below * first[None, :]
    return Halves(scaled(half.top, first), below, scaled(half.bottom, second))


def matrix(half: Half) -> Tile:
    """The symmetric matrix."""
    full = lower_triangle(half)
    for rows, columns, block in _placed(half):
        if rows != columns:
            full = full.at[columns, rows].set(block.T)
    return full


def rows_of(half: Half, start: int, stop: int, wait: Int[Array, ""] | int = 0) -> Rows:
    """Some rows of the symmetric matrix.

    Args:
        wait: 0, once the rows may be copied.
    """
    if not isinstance(half, Halves):
        return dynamic_slice_in_dim(half, start + wait, stop - start)
    k, parts = half.below.shape[1], []
    if start < k:
        size = min(stop, k) - start
        below = dynamic_slice_in_dim(half.below, start + wait, size, axis=1)
        parts.append(
            jnp.concatenate([rows_of(half.top, start, start + size, wait), below.T], axis=1)
        )
    if stop > k:
        begin, end = max(start, k) - k, stop - k
        below = dynamic_slice_in_dim(half.below, begin + wait, end - begin)
        parts.append(jnp.concatenate([below, rows_of(half.bottom, begin, end, wait)], axis=1))
    return jnp.concatenate(parts)


def lower_triangle(lower: Lower) -> Tile:
    """The stored blocks as one matrix, with zeros above: L, if its diagonal blocks are `Corner`s."""
    size = num_rows(lower)
    full = jnp.zeros((size, size), jax.tree.leaves(lower)[0].dtype)
    for rows, columns, block in _placed(lower):
        full = full.at[rows, columns].set(block)
    return full


def num_rows(lower: Lower) -> int:
    *_, (rows, _, _) = _placed(lower)
    return rows.stop


def _placed(lower: Lower, start: int = 0) -> Iterator[tuple[slice, slice, Tile]]:
    """Rows and columns of each stored block, and the block."""
    if isinstance(lower, Halves):
        rows, columns = lower.below.shape
        middle = start + columns
        yield from _placed(lower.top, start)
        yield slice(middle, middle + rows), slice(start, middle), lower.below
        yield from _placed(lower.bottom, middle)
    else:
        block = lower.lower if isinstance(lower, Corner) else lower
        own = slice(start, start + len(block))
        yield own, own, block


def inverted(lower: Tile) -> Tile:
    """L⁻¹ of a block."""
    return solve_triangular(lower, jnp.eye(len(lower), dtype=lower.dtype), lower=True)


def diagonals(half: Half) -> list[Float[Array, "*stack block"]]:
    """The diagonal, block by block, of one matrix or a stack of them."""
    if not isinstance(half, Halves):
        return [jnp.diagonal(half, axis1=-2, axis2=-1)]
    return diagonals(half.top) + diagonals(half.bottom)


def factor[Kept: (Tile, Corner)](half: Half, corner: Callable[[Tile], Kept]) -> Halves[Kept] | Kept:
    """L of a positive definite matrix L Lᵀ: n³/3 operations.

    Args:
        corner: how to store the diagonal blocks, `inverted` or `Corner`.
    """
    if not isinstance(half, Halves):
        return corner(jax.lax.linalg.cholesky(half, symmetrize_input=False))
    top = factor(half.top, corner)
    below = _solve_rows(top, half.below)
    return Halves(top, below, factor(_plus(half.bottom, below, -1), corner))


def multiply(lower: Corners, v: Columns) -> Columns:
    """L v: n² operations per column."""
    if not isinstance(lower, Halves):
        return lower.lower @ v
    k = lower.below.shape[1]
    bottom = lower.below @ v[:k] + multiply(lower.bottom, v[k:])
    return jnp.concatenate([multiply(lower.top, v[:k]), bottom])


def multiply_symmetric(half: Half, v: Columns) -> Columns:
    """The symmetric matrix times v: 2n² operations per column."""
    if not isinstance(half, Halves):
        return half @ v
    k = half.below.shape[1]
    top = multiply_symmetric(half.top, v[:k]) + jnp.einsum("ij,ik->jk", half.below, v[k:])
    return jnp.concatenate([top, half.below @ v[:k] + multiply_symmetric(half.bottom, v[k:])])


def solve(lower: Lower, v: Columns) -> Columns:
    """L⁻¹ v: n² operations per column."""
    if isinstance(lower, Corner):
        return solve_triangular(lower.lower, v, lower=True)
    if not isinstance(lower, Halves):
        return lower @ v
    k = lower.below.shape[1]
    top = solve(lower.top, v[:k])
    return jnp.concatenate([top, solve(lower.bottom, v[k:] - lower.below @ top)])


def solve_transposed(lower: Half, v: Columns) -> Columns:
    """L⁻ᵀ v: n² operations per column."""
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
    """v (L Lᵀ)⁻¹: 2n² operations per row."""
    return _solve_rows_transposed(lower, _solve_rows(lower, v))


def _solve_rows(lower: Lower, v: Rows) -> Rows:
    """v L⁻ᵀ, which is (L⁻¹ vᵀ)ᵀ."""
    if isinstance(lower, Corner):
        return solve_triangular(lower.lower, v.T, lower=True).T
    if not isinstance(lower, Halves):
        return v @ lower.T
    k = lower.below.shape[1]
    first = _solve_rows(lower.top, v[:, :k])
    second = _solve_rows(lower.bottom, v[:, k:] - _across(first, lower.below))
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
        return half + sign * _across(v, v)
    k = half.below.shape[1]
    first, second = v[:k], v[k:]
    below = half.below + sign * _across(second, first)
    return Halves(_plus(half.top, first, sign), below, _plus(half.bottom, second, sign))


def _across(a: Float[Array, "n k"], b: Float[Array, "m k"]) -> Float[Array, "n m"]:
    """A Bᵀ, without a transposed copy of B, which XLA may make of `b.T`."""
    return jnp.einsum("ik,jk->ij", a, b)


def _turned(v: Tile) -> Tile:
    """vᵀ, materialised: as a view it would turn A Bᵀ into the slow Aᵀ B."""
    return jax.lax.optimization_barrier(v.T)
