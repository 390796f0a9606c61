"""Preconditioners for training many initial functions with one kernel.

P = Θ/ridge, and W is the likelihood's curvature at given logits, mostly the centre of the law.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.linalg.arrays import Draws, Square
from ntkbayes.linalg.blocks import Block, CoupledBlock
from ntkbayes.linalg.curvature import Curvature
from ntkbayes.linalg.curved import factor_between_roots
from ntkbayes.linalg.frugal import frugal_jit
from ntkbayes.linalg.sharded import Triangle, triangle
from ntkbayes.linalg.triangular import BlockedTriangle

RowStack = Float[Array, "draws classes n"]


class Preconditioner(eqx.Module):
    """Σ = (P⁻¹ + W)⁻¹, the posterior covariance at those logits, or an approximation."""

    @property
    def reach(self) -> float:
        """The factor by which residuals fall before round-off in z = P⁻¹ v calls for a restart."""
        return 0.0

    @abc.abstractmethod
    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v ≈ Σ g and z = P⁻¹ v: a step in f, and the step in a that causes it."""


class RowPreconditioner(Preconditioner):
    """A preconditioner from triangular factors, with rows as right-hand sides, between projections."""

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        v, z = self.apply_rows(project(gradients).transpose(0, 2, 1))
        return project(v.transpose(0, 2, 1)), project(z.transpose(0, 2, 1))

    @abc.abstractmethod
    def apply_rows(self, gradients: RowStack) -> tuple[RowStack, RowStack]:
        """v and z for projected gradients."""


class SharedPreconditioner(RowPreconditioner):
    """(P_s⁻¹ + diag w)⁻¹ ⊗ I_C for outputs that share P_s, from the factor of I + √w P_s √w: costs one
    product to apply."""

    weights: Float[Array, " n"]
    factor: Triangle

    @classmethod
    def build(
        cls,
        ntk: Square,
        ridge: Float[Array, ""],
        weights: Float[Array, " n"],
        *,
        dtype: DTypeLike,
    ) -> "SharedPreconditioner":
        return cls(weights, _factor(ntk, ridge, weights, dtype))

    @property
    def reach(self) -> float:
        return _reach(self.factor.dtype)

    def apply_rows(self, gradients: RowStack) -> tuple[RowStack, RowStack]:
        """v = (g − z) / w, and z = √w (I + √w P_s √w)⁻¹ g / √w."""
        weights = self.weights[None, None, :]
        scaled = (gradients / jnp.sqrt(weights)).reshape(-1, weights.size)
        z = jnp.sqrt(weights) * self.factor.solve_gram_rows(scaled).reshape(gradients.shape)
        return (gradients - z) / weights, z


def _reach(dtype: DTypeLike) -> float:
    return 1e-4 if dtype == jnp.float32 else 0.0


@frugal_jit
def _factor(
    ntk: Square, ridge: Float[Array, ""], weights: Float[Array, " n"], dtype: DTypeLike
) -> Triangle:
    """Of I + √w P_s √w."""
    return triangle(ntk, scale=jnp.sqrt(weights / ridge), shift=1.0, dtype=dtype)


class CoupledPreconditioner(Preconditioner):
    """Σ for a P of nC × nC, with W made definite: z = S (I + Sᵀ P S)⁻¹ S⁻¹ g, and v = P z."""

    gram: CoupledBlock
    ridge: Float[Array, ""]
    curvature: Curvature
    factor: BlockedTriangle

    @classmethod
    def build(
        cls, gram: CoupledBlock, ridge: Float[Array, ""], curvature: Curvature, *, dtype: DTypeLike
    ) -> "CoupledPreconditioner":
        """Args:
        gram: Θ, so that P = gram/ridge needs no memory.
        """
        definite = curvature.definite(_SMALLEST)
        factor = _coupled_factor(gram.matrix, ridge, definite, dtype)
        return cls(gram, ridge, definite, factor)

    @property
    def reach(self) -> float:
        return _reach(self.factor.dtype)

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        u = jax.vmap(self.curvature.root_inverse_matvec)(project(gradients))
        u = self.factor.solve_gram_rows(u.reshape(len(u), -1)).reshape(u.shape)
        z = project(jax.vmap(self.curvature.root_matvec)(u))
        return self.gram @ (z / self.ridge), z


_SMALLEST = 1e-6  # eigenvalue of W, as a share of the largest: a larger floor costs steps


@frugal_jit
def _coupled_factor(
    ntk: Square, ridge: Float[Array, ""], curvature: Curvature, dtype: DTypeLike
) -> BlockedTriangle:
    return factor_between_roots(ntk, curvature, ridge=ridge, dtype=dtype)


class SurrogatePreconditioner(Preconditioner):
    """z from an operator's surrogate, v by a product with the operator."""

    gram: Block
    surrogate: Preconditioner

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        _, z = self.surrogate.apply(gradients, project)
        return self.gram @ z, z
