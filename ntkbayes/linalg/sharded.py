"""Cholesky factors of matrices whose rows are spread over devices.

A device holds its share of the factor, and temporarily b columns of all rows.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.sharding import PartitionSpec
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.errors import ConfigurationError
from ntkbayes.linalg.arrays import Square
from ntkbayes.linalg.devices import AXIS, by_rows, num_shares
from ntkbayes.linalg.halves import Columns, Half, Halves, Rows
from ntkbayes.linalg.triangular import BlockedTriangle

_BY_ROWS = PartitionSpec(AXIS, None)
_COLUMNS = 512  # b, at most


def require_shares(num_points: int) -> None:
    """Raises ConfigurationError unless the points divide evenly among the devices in blocks of rows."""
    shares = num_shares()
    if shares == 1:
        return
    share = num_points // shares
    if num_points % shares or _columns_at_a_time(share) < min(16, share):
        step = 16 * shares
        fits = max(step, num_points // step * step)
        raise ConfigurationError(
            f"{num_points} points cannot be divided evenly among {shares} devices in blocks of rows; "
            f"use {fits} points (data.subset(key, {fits})), or fewer devices"
        )


def _columns_at_a_time(share: int) -> int:
    """b: the largest divisor of a share up to `_COLUMNS`."""
    return next(size for size in range(min(share, _COLUMNS), 0, -1) if share % size == 0)


class ShardedTriangle(eqx.Module):
    """A lower triangular matrix L, n × n, with rows spread over devices.

    Factoring takes 2n³ operations in total, six times those on one device: every device updates all
    columns of its rows, in place. Solves cost the same as on one device.

    Attributes:
        lower: L.
        inverses: of the diagonal blocks, on every device.
    """

    lower: Square
    inverses: Float[Array, "blocks b b"]

    @classmethod
    def factor(
        cls,
        gram: Square,
        *,
        scale: Float[Array, " n"] | None = None,
        shift: Float[Array, "*n"] | float = 0.0,
        dtype: DTypeLike | None = None,
    ) -> "ShardedTriangle":
        """As `BlockedTriangle.factor`, right-looking: each step factors b columns, and subtracts their
        products from all columns that follow."""
        size = gram.shape[0]
        share = size // num_shares()
        width = _columns_at_a_time(share)
        scale = jnp.ones(size, gram.dtype) if scale is None else scale

        def local(
            block: Float[Array, "share n"], scale: Float[Array, " n"], shift: Float[Array, " n"]
        ) -> tuple[Float[Array, "share n"], Float[Array, "blocks b b"]]:
            rows = jax.lax.axis_index(AXIS) * share + jnp.arange(share)
            block = scale[rows][:, None] * block * scale[None, :]
            block = jnp.where(
                rows[:, None] == jnp.arange(size)[None, :], block + shift[None], block
            )
            block = block.astype(dtype or gram.dtype)

            def advance(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
                block, inverses = state
                begin = k * width
                column = jax.lax.dynamic_slice_in_dim(block, begin, width, axis=1)
                panel = jax.lax.all_gather(column, AXIS, tiled=True)
                corner = jax.lax.dynamic_slice_in_dim(panel, begin, width)
                lower = jax.lax.linalg.cholesky(corner, symmetrize_input=False)
                unit = jnp.eye(width, dtype=block.dtype)
                inverse = solve_triangular(lower, unit, lower=True)
                at = begin + jnp.arange(width)
                own = jnp.where(rows[:, None] >= at[None, :], column @ inverse.T, 0)
                all_ = jnp.where(jnp.arange(size)[:, None] >= at[None, :], panel @ inverse.T, 0)
                block = block - own @ all_.T
                block = jax.lax.dynamic_update_slice_in_dim(block, own, begin, axis=1)
                return block, inverses.at[k].set(inverse)

            none = jnp.zeros((size // width, width, width), block.dtype)
            return jax.lax.fori_loop(0, size // width, advance, (block, none))

        spread = jax.shard_map(
            local,
            in_specs=(_BY_ROWS, PartitionSpec(), PartitionSpec()),
            out_specs=(_BY_ROWS, PartitionSpec()),
            check_vma=False,
        )
        shifts = jnp.broadcast_to(jnp.asarray(shift, gram.dtype), (size,))
        return cls(*spread(gram, scale, shifts))

    @property
    def dtype(self) -> jnp.dtype:
        return self.lower.dtype

    @property
    def log_determinant(self) -> Float[Array, ""]:
        """log det L; of a stack of triangles, the sum."""
        diagonals = jnp.diagonal(self.inverses, axis1=-2, axis2=-1)
        return -jnp.sum(jnp.log(diagonals), dtype=float)

    def solve(self, v: Columns) -> Columns:
        """L⁻¹ v, computed in the precision of L, returned in that of v."""
        width = self.inverses.shape[-1]

        def local(lower: Array, inverses: Array, left: Array) -> Array:
            mine = _Mine(len(left), width)

            def advance(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
                left, solution = state
                solved = inverses[k] @ mine.block(left, k)
                column = jax.lax.dynamic_slice_in_dim(lower, k * width, width, axis=1)
                return left - column @ solved, mine.put(solution, solved, k)

            done = jax.lax.fori_loop(0, len(inverses), advance, (left, jnp.zeros_like(left)))
            return done[1]

        return self._spread(local, v)

    def solve_transposed(self, v: Columns) -> Columns:
        """L⁻ᵀ v."""
        width = self.inverses.shape[-1]

        def local(lower: Array, inverses: Array, right: Array) -> Array:
            mine = _Mine(len(right), width)

            def advance(i: Array, solution: Array) -> Array:
                k = len(inverses) - 1 - i
                column = jax.lax.dynamic_slice_in_dim(lower, k * width, width, axis=1)
                known = jax.lax.psum(column.T @ solution, AXIS)
                return mine.put(solution, inverses[k].T @ (mine.block(right, k) - known), k)

            return jax.lax.fori_loop(0, len(inverses), advance, jnp.zeros_like(right))

        return self._spread(local, v)

    def solve_gram_rows(self, v: Rows) -> Rows:
        """v (L Lᵀ)⁻¹."""
        return self.solve_transposed(self.solve(v.T)).T

    def scaled_inverse(self, scale: Float[Array, " n"]) -> Square:
        """diag(scale) (L Lᵀ)⁻¹ diag(scale), with rows spread as those of L."""
        scaling = by_rows(jnp.diag(scale.astype(self.dtype)))
        return scale.astype(self.dtype)[:, None] * self.solve_transposed(self.solve(scaling))

    def _spread(self, local, v: Columns) -> Columns:  # type: ignore[no-untyped-def]
        if num_shares() == 1:
            raise ConfigurationError(
                "these factors are spread over devices: use the law within over_devices() too"
            )
        specs = (_BY_ROWS, PartitionSpec(), _BY_ROWS)
        spread = jax.shard_map(local, in_specs=specs, out_specs=_BY_ROWS, check_vma=False)
        return spread(self.lower, self.inverses, v.astype(self.dtype)).astype(v.dtype)


class _Mine(eqx.Module):
    """Which blocks of rows a device holds."""

    share: int
    width: int

    def _place(self, k: Array) -> tuple[Array, Array]:
        begin = k * self.width - jax.lax.axis_index(AXIS) * self.share
        return (begin >= 0) & (begin < self.share), jnp.clip(begin, 0, self.share - self.width)

    def block(self, rows: Array, k: Array) -> Array:
        """Block k, from the device that holds it."""
        mine, begin = self._place(k)
        held = jax.lax.dynamic_slice_in_dim(rows, begin, self.width)
        return jax.lax.psum(jnp.where(mine, held, 0), AXIS)

    def put(self, rows: Array, block: Array, k: Array) -> Array:
        """The rows with block k set, if this device holds it."""
        mine, begin = self._place(k)
        return jnp.where(mine, jax.lax.dynamic_update_slice_in_dim(rows, block, begin, 0), rows)


Triangle = BlockedTriangle | ShardedTriangle


def triangle(
    gram: Square | Half,
    *,
    scale: Float[Array, " n"] | None = None,
    shift: Float[Array, "*n"] | float = 0.0,
    dtype: DTypeLike | None = None,
) -> Triangle:
    """L with L Lᵀ = diag(scale) gram diag(scale) + diag(shift), on one device or spread over several."""
    if num_shares() == 1:
        return BlockedTriangle.factor(gram, scale=scale, shift=shift, dtype=dtype)
    assert not isinstance(gram, Halves)  # a spread inverse is a matrix
    return ShardedTriangle.factor(gram, scale=scale, shift=shift, dtype=dtype)
