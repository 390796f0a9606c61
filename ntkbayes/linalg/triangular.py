"""Triangular solves that cost what products cost.

LAPACK's triangular solve with few right-hand sides runs at a small part of the speed of a product. By
blocks of rows, with the blocks on the diagonal inverted beforehand, nearly all of it is products, and
half of the matrix is never stored.
"""

import equinox as eqx
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
    def build(cls, lower: Gram) -> "BlockedTriangle":
        """Of a lower triangular matrix."""
        size = lower.shape[0]
        begins = range(0, size, _ROWS)
        diagonals = [lower[i : i + _ROWS, i : i + _ROWS] for i in begins]
        inverses = [
            solve_triangular(block, jnp.eye(len(block), dtype=lower.dtype), lower=True)
            for block in diagonals
        ]
        return cls(tuple(lower[i : i + _ROWS, :i] for i in begins), tuple(inverses))

    def solve(self, v: Columns) -> Columns:
        """L⁻¹ v."""
        found = v[:0]
        for row, inverse in zip(self.rows, self.inverses, strict=True):
            begin = len(found)
            left = v[begin : begin + len(inverse)] - row @ found
            found = jnp.concatenate([found, inverse @ left])
        return found

    def solve_transposed(self, v: Columns) -> Columns:
        """L⁻ᵀ v."""
        found = v[:0]
        for row, inverse in zip(reversed(self.rows), reversed(self.inverses), strict=True):
            begin = row.shape[1]
            solved = inverse.T @ v[begin:]
            v = v[:begin] - row.T @ solved
            found = jnp.concatenate([solved, found])
        return found
