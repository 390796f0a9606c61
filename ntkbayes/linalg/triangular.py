"""Cholesky factors and triangular solves that cost what products cost.

LAPACK's factorisation, and its solves with few right-hand sides, run at a small part of the speed of a
product. By blocks of rows, with the blocks on the diagonal inverted, nearly all of it is products, and
half of a factor is never stored.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ntkbayes.linalg.blocks import Gram

Columns = Float[Array, "n columns"]

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
        cls, gram: Gram, *, scale: Float[Array, " n"] | None = None, shift: float = 0.0
    ) -> "BlockedTriangle":
        """L with L Lᵀ = diag(scale) gram diag(scale) + shift · I: n³/3 operations.

        Of the positive definite matrix only the lower half is read, block by block.
        """
        size = gram.shape[0]
        triangle = cls((), ())
        for begin in range(0, size, _ROWS):
            end = min(begin + _ROWS, size)
            block = gram[begin:end, :end]
            if scale is not None:
                block = scale[begin:end, None] * block * scale[None, :end]
            row = triangle.solve(block[:, :begin].T).T
            corner = block[:, begin:] + shift * jnp.eye(end - begin, dtype=gram.dtype)
            lower = jax.lax.linalg.cholesky(corner - row @ row.T, symmetrize_input=False)
            unit = jnp.eye(end - begin, dtype=gram.dtype)
            inverse = solve_triangular(lower, unit, lower=True)
            triangle = cls((*triangle.rows, row), (*triangle.inverses, inverse))
        return triangle

    @property
    def log_determinant(self) -> Float[Array, ""]:
        """log det L; of a stack of triangles, the sum."""
        diagonals = [jnp.diagonal(inverse, axis1=-2, axis2=-1) for inverse in self.inverses]
        return -jnp.sum(jnp.log(jnp.concatenate(diagonals, axis=-1)))

    def solve(self, v: Columns) -> Columns:
        """L⁻¹ v."""
        found = v[:0]
        for row, inverse in zip(self.rows, self.inverses, strict=True):
            begin = len(found)
            left = v[begin : begin + len(inverse)] - row @ found
            found = jnp.concatenate([found, inverse @ left])
        return found

    def solve_transposed(self, v: Columns) -> Columns:
        """L⁻ᵀ v, as (vᵀ L⁻¹)ᵀ: products of matrices as they lie in memory are the quicker ones."""
        left = v.T
        found = left[:, :0]
        for row, inverse in zip(reversed(self.rows), reversed(self.inverses), strict=True):
            begin = row.shape[1]
            solved = left[:, begin:] @ inverse
            left = left[:, :begin] - solved @ row
            found = jnp.concatenate([solved, found], axis=1)
        return found.T

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
