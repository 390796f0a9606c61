"""Cholesky factors on one device, and their solves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.errors import ConfigurationError
from ntkbayes.linalg import halves
from ntkbayes.linalg.halves import Columns, Half, Rows


def factor_dtype(dtype: DTypeLike) -> np.dtype:
    """Validate a method's `factor_dtype`: float32 or float64.

    Raises:
        ConfigurationError: it is neither.
    """
    try:
        precision = np.dtype(dtype)
    except TypeError:
        precision = None
    if precision not in (np.float32, np.float64):
        raise ConfigurationError(
            f"factor_dtype must be float32 or float64, the precision of factors; got {dtype!r}"
        )
    return precision


class BlockedTriangle(eqx.Module):
    """A lower triangular matrix L, n × n, by halves.

    Attributes:
        lower: L, with its diagonal blocks inverted.
    """

    lower: Half

    @classmethod
    def factor(
        cls,
        gram: Half,
        *,
        scale: Float[Array, " n"] | None = None,
        shift: Float[Array, "*n"] | float = 0.0,
        dtype: DTypeLike | None = None,
    ) -> "BlockedTriangle":
        """L with L Lᵀ = diag(scale) gram diag(scale) + diag(shift): n³/3 operations.

        Args:
            gram: positive definite; a matrix, whose upper half is not read, or its lower half.
            dtype: of L, and of products with it; by default that of gram.
        """
        half = halves.lower_half(gram, scale=scale, shift=shift, dtype=dtype)
        return cls(halves.factor(half, halves.inverted))

    @property
    def dtype(self) -> np.dtype:
        return jax.tree.leaves(self.lower)[0].dtype

    @property
    def log_determinant(self) -> Float[Array, ""]:
        """log det L; of a stack of triangles, the sum."""
        inverses = jnp.concatenate(halves.diagonals(self.lower), axis=-1)
        return -jnp.sum(jnp.log(inverses), dtype=float)

    def solve(self, v: Columns) -> Columns:
        """L⁻¹ v, computed in the precision of L, returned in that of v."""
        return halves.solve(self.lower, v.astype(self.dtype)).astype(v.dtype)

    def solve_transposed(self, v: Columns) -> Columns:
        """L⁻ᵀ v, likewise."""
        return halves.solve_transposed(self.lower, v.astype(self.dtype)).astype(v.dtype)

    def solve_gram_rows(self, v: Rows) -> Rows:
        """v (L Lᵀ)⁻¹, likewise."""
        return halves.solve_gram_rows(self.lower, v.astype(self.dtype)).astype(v.dtype)

    def scaled_inverse(self, scale: Float[Array, " n"]) -> Half:
        """The lower half of diag(scale) (L Lᵀ)⁻¹ diag(scale): 2n³/3 operations."""
        return halves.scaled(self.gram_inverse(), scale.astype(self.dtype))

    def gram_inverse(self) -> Half:
        """The lower half of (L Lᵀ)⁻¹: 2n³/3 operations."""
        return halves.inverse_gram(self.lower)
