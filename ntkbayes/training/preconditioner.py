"""Preconditioners for training many initial functions that share one kernel.

At the centre of the law, with P = Θ/ridge and W the likelihood's curvature there. Shapes: n points,
C logits, S draws.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.linalg import Block, CoupledInverse, Curvature, Gram, Logits, Operator, apply

Draws = Float[Array, "draws n classes"]


class Preconditioner(eqx.Module):
    """Σ = (P⁻¹ + W)⁻¹, the posterior covariance at the centre of the law, or an approximation."""

    @abc.abstractmethod
    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v ≈ Σ g and z = P⁻¹ v: a step in f, and the one in a that causes it."""


class SharedPreconditioner(Preconditioner):
    """Σ_c = (P_s⁻¹ + diag w_c)⁻¹ for each logit apart, where the outputs share P_s.

    w is the diagonal of the likelihood's curvature.
    """

    covariances: Float[Array, "classes n n"]
    weights: Logits

    @classmethod
    def build(cls, gram: Gram, weights: Logits) -> "SharedPreconditioner":
        def covariance(weight: Float[Array, " n"]) -> Gram:
            scale = jnp.sqrt(weight)
            inner = scale[:, None] * gram * scale[None, :]
            lower = jnp.linalg.cholesky(inner + jnp.eye(len(scale), dtype=gram.dtype))
            half = jax.scipy.linalg.solve_triangular(lower, scale[:, None] * gram, lower=True)
            return gram - half.T @ half

        return cls(jax.lax.map(covariance, weights.T), weights)

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v = Π Σ Π g and z = Π (Π g − w Σ Π g), for one product."""
        gradients = project(gradients)
        moved = jnp.einsum("cij,sjc->sic", self.covariances, gradients)
        return project(moved), project(gradients - self.weights[None] * moved)


class CoupledPreconditioner(Preconditioner):
    """Σ itself, where the outputs are coupled."""

    covariance: Gram
    curvature: Curvature

    @classmethod
    def build(cls, gram: Gram, curvature: Curvature) -> "CoupledPreconditioner":
        half = CoupledInverse.build(gram, curvature).root @ gram
        return cls(gram - half.T @ half, curvature)

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        moved = apply(self.covariance, gradients)
        return moved, gradients - jax.vmap(self.curvature.matvec)(moved)


class SurrogatePreconditioner(Preconditioner):
    """z by way of an operator's surrogate, v by a product with the operator."""

    gram: Operator
    surrogate: SharedPreconditioner

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        _, z = self.surrogate.apply(gradients, project)
        return apply(self.gram, z), z


@eqx.filter_jit
def preconditioner_of(gram: Block, curvature: Curvature) -> Preconditioner:
    """The preconditioner that suits the kind of P."""
    if isinstance(gram, Operator):
        shared = SharedPreconditioner.build(gram.surrogate, curvature.matrix_diagonal)
        return SurrogatePreconditioner(gram, shared)
    if gram.shape[0] == curvature.shape[0]:
        return SharedPreconditioner.build(gram, curvature.matrix_diagonal)
    return CoupledPreconditioner.build(gram, curvature)
