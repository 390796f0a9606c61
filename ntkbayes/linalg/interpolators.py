"""The linear map from initial function to weights of training without ridge (THEORY 3)."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ntkbayes.linalg.arrays import Draws, Logits, Square
from ntkbayes.linalg.cholesky import CholeskyFactor, cholesky


class Interpolator(eqx.Module):
    """Q with α = Q (interpolant − f0): the limit of B / ridge as the ridge goes to 0.

    Q = Θ⁻¹ − Θ⁻¹ F (Fᵀ Θ⁻¹ F)⁻¹ Fᵀ Θ⁻¹, with F the flat directions of the likelihood: for softmax equal
    logits, one direction per point; otherwise none.
    """

    @abc.abstractmethod
    def matvec(self, v: Logits) -> Logits:
        """Q v."""

    def products(self, v: Draws) -> Draws:
        """Q v of many functions."""
        return jax.vmap(self.matvec)(v)


class SharedInterpolator(Interpolator):
    """Q = Θ_s⁻¹ ⊗ (I − 1 1ᵀ/C) for Θ = Θ_s ⊗ I_C, without the projection if nothing is flat."""

    lower: Square
    is_flat: bool = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def matvec(self, v: Logits) -> Logits:
        return cho_solve((self.lower, True), v @ self._projection)

    def columns(self, k: Float[Array, "n m"]) -> Float[Array, "m classes n classes"]:
        """Q (k_j ⊗ I) for each column."""
        return jnp.einsum("im,cd->mcid", cho_solve((self.lower, True), k), self._projection)

    @property
    def _projection(self) -> Float[Array, "classes classes"]:
        size = self.num_outputs
        return jnp.eye(size) - self.is_flat / size * jnp.ones((size, size))


class CoupledInterpolator(Interpolator):
    """Q for a Θ of nC × nC, with the factor of Fᵀ Θ⁻¹ F if the likelihood is flat."""

    lower: Square
    flat: Float[Array, "n n"] | None

    @classmethod
    def build(
        cls, factor: CholeskyFactor, is_flat: bool, num_outputs: int
    ) -> "CoupledInterpolator":
        lower = factor.lower
        if not is_flat:
            return cls(lower, None)
        num_points = len(lower) // num_outputs
        ones = jnp.kron(jnp.eye(num_points, dtype=lower.dtype), jnp.ones((num_outputs, 1)))
        half = solve_triangular(lower, ones, lower=True)
        return cls(lower, cholesky(half.T @ half, what="the NTK of the class means").lower)

    def matvec(self, v: Logits) -> Logits:
        solved = cho_solve((self.lower, True), v.reshape(-1)).reshape(v.shape)
        if self.flat is None:
            return solved
        shift = cho_solve((self.flat, True), jnp.sum(solved, axis=1))
        spread = jnp.broadcast_to(shift[:, None], v.shape).reshape(-1)
        return solved - cho_solve((self.lower, True), spread).reshape(v.shape)
