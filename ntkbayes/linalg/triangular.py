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


class BlockedTriangle(eqx.Module):
    """A lower triangular matrix L, n × n, by halves.

    Attributes:
        lower: L, with the blocks on its diagonal inverted.
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
            gram: positive definite; a matrix of which only the lower half is read, or that half.
            dtype: of L, and of the products with it; by default that of gram.
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
        """L⁻¹ v, in the precision of L, as v is."""
        return halves.solve(self.lower, v.astype(self.dtype)).astype(v.dtype)

    def solve_transposed(self, v: Columns) -> Columns:
        """L⁻ᵀ v, in the precision of L, as v is."""
        return halves.solve_transposed(self.lower, v.astype(self.dtype)).astype(v.dtype)

    def solve_gram_rows(self, v: Rows) -> Rows:
        """v (L Lᵀ)⁻¹, in the precision of L, as v is."""
        return halves.solve_gram_rows(self.lower, v.astype(self.dtype)).astype(v.dtype)

    def scaled_inverse(self, scale: Float[Array, " n"]) -> Half:
        """diag(scale) (L Lᵀ)⁻¹ diag(scale), its lower half: 2n³/3 operations."""
        return halves.scaled(self.gram_inverse(), scale.astype(self.dtype))

    def gram_inverse(self) -> Half:
        """(L Lᵀ)⁻¹, its lower half: 2n³/3 operations."""
        return halves.inverse_gram(self.lower)
