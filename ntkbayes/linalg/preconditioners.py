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
from ntkbayes.linalg.curved import CoupledInverse
from ntkbayes.linalg.sharded import Triangle, triangle

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
        return 0.0 if self.factor.dtype == self.weights.dtype else 1e-4

    def apply_rows(self, gradients: RowStack) -> tuple[RowStack, RowStack]:
        """v = (g − z) / w, and z = √w (I + √w P_s √w)⁻¹ g / √w."""
        weights = self.weights[None, None, :]
        scaled = (gradients / jnp.sqrt(weights)).reshape(-1, weights.size)
        z = jnp.sqrt(weights) * self.factor.solve_gram_rows(scaled).reshape(gradients.shape)
        return (gradients - z) / weights, z


@eqx.filter_jit
def _factor(
    ntk: Square, ridge: Float[Array, ""], weights: Float[Array, " n"], dtype: DTypeLike
) -> Triangle:
    """Of I + √w P_s √w."""
    return triangle(ntk, scale=jnp.sqrt(weights / ridge), shift=1.0, dtype=dtype)


class CoupledPreconditioner(Preconditioner):
    """Σ itself, for coupled outputs."""

    covariance: CoupledBlock
    curvature: Curvature

    @classmethod
    def build(cls, gram: CoupledBlock, curvature: Curvature) -> "CoupledPreconditioner":
        half = CoupledInverse.build(gram.matrix, curvature).root @ gram.matrix
        return cls(gram.like(gram.matrix - half.T @ half), curvature)

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        moved = self.covariance @ gradients
        return moved, gradients - jax.vmap(self.curvature.matvec)(moved)


class SurrogatePreconditioner(Preconditioner):
    """z from an operator's surrogate, v by a product with the operator."""

    gram: Block
    surrogate: Preconditioner

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        _, z = self.surrogate.apply(gradients, project)
        return self.gram @ z, z
