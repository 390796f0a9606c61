"""Cholesky factors and triangular solves that cost what products cost.

LAPACK's factorisation, and its solves with few right-hand sides, run at a small part of the speed of a
product. By blocks of rows, with the blocks on the diagonal inverted, nearly all of it is products, and
half of a factor is never stored.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.errors import ConfigurationError
from ntkbayes.linalg.blocks import Gram

Columns = Float[Array, "n columns"]


def factor_dtype(dtype: DTypeLike) -> np.dtype:
    """float32 or float64, as a setting of methods.

    Raises:
        ConfigurationError: it is neither.
    """
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise ConfigurationError(
            f"factor_dtype must be float32 or float64, the precision of factors; got {dtype!r}"
        )
    return found


_ROWS = 512


class BlockedTriangle(eqx.Module):
    """A lower triangular matrix L, n × n, by rows of blocks.

    Attributes:
        rows: what is left of the diagonal block, for every row of blocks.
        inverses: of the diagonal blocks.
    """

    rows: tuple[Float[Array, "_ _"], ...]
    inverses: tuple[Float[Array, "_ _"], ...]

    @classmethod
    def factor(
        cls,
        gram: Gram,
        *,
        scale: Float[Array, " n"] | None = None,
        shift: float = 0.0,
        dtype: DTypeLike | None = None,
    ) -> "BlockedTriangle":
        """L with L Lᵀ = diag(scale) gram diag(scale) + shift · I: n³/3 operations.

        Of the positive definite matrix only the lower half is read, block by block.

        Args:
            dtype: of L, and of the products with it; by default that of gram.
        """
        size, dtype = gram.shape[0], gram.dtype if dtype is None else dtype
        triangle = cls((), ())
        for begin in range(0, size, _ROWS):
            end = min(begin + _ROWS, size)
            block = gram[begin:end, :end]
            if scale is not None:
                block = scale[begin:end, None] * block * scale[None, :end]
            block = block.astype(dtype)
            row = triangle.solve(block[:, :begin].T).T
            unit = jnp.eye(end - begin, dtype=dtype)
            corner = block[:, begin:] + jnp.asarray(shift, dtype) * unit - row @ row.T
            lower = jax.lax.linalg.cholesky(corner, symmetrize_input=False)
            inverse = solve_triangular(lower, unit, lower=True)
            triangle = cls((*triangle.rows, row), (*triangle.inverses, inverse))
        return triangle

    @property
    def dtype(self) -> np.dtype:
        return self.inverses[0].dtype if self.inverses else np.dtype(float)

    @property
    def log_determinant(self) -> Float[Array, ""]:
        """log det L; of a stack of triangles, the sum."""
        diagonals = [jnp.diagonal(inverse, axis1=-2, axis2=-1) for inverse in self.inverses]
        return -jnp.sum(jnp.log(jnp.concatenate(diagonals, axis=-1)), dtype=float)

    def solve(self, v: Columns) -> Columns:
        """L⁻¹ v, in the precision of L, as v is."""
        left = v.astype(self.dtype)
        found = left[:0]
        for row, inverse in zip(self.rows, self.inverses, strict=True):
            begin = len(found)
            part = left[begin : begin + len(inverse)] - row @ found
            found = jnp.concatenate([found, inverse @ part])
        return found.astype(v.dtype)

    def solve_transposed(self, v: Columns) -> Columns:
        """L⁻ᵀ v, as (vᵀ L⁻¹)ᵀ: products of matrices as they lie in memory are the quicker ones."""
        left = v.T.astype(self.dtype)
        found = left[:, :0]
        for row, inverse in zip(reversed(self.rows), reversed(self.inverses), strict=True):
            begin = row.shape[1]
            solved = left[:, begin:] @ inverse
            left = left[:, :begin] - solved @ row
            found = jnp.concatenate([solved, found], axis=1)
        return found.T.astype(v.dtype)

    def inverse_gram(self) -> Gram:
        """(L Lᵀ)⁻¹, its lower half of blocks alone, with zeros above: 2n³/3 operations."""
        columns = []
        for first, inverse in enumerate(self.inverses):
            begin = self.rows[first].shape[1]
            below = BlockedTriangle(
                tuple(row[:, begin:] for row in self.rows[first:]), self.inverses[first:]
            )
            size = sum(map(len, below.inverses))
            unit = jnp.eye(size, len(inverse), dtype=inverse.dtype)
            column = below.solve_transposed(below.solve(unit))
            columns.append(jnp.pad(column, ((begin, 0), (0, 0))))
        return jnp.concatenate(columns, axis=1)
