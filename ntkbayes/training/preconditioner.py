"""Preconditioners for training with a kernel that many initial functions share.

At some logits, mostly the centre of the law, with P = Θ/ridge and W the likelihood's curvature there.
Shapes: n points, C logits, S draws.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.linalg import (
    Block,
    CoupledInverse,
    Curvature,
    Gram,
    Logits,
    Operator,
    Triangle,
    apply,
    num_shares,
    triangle,
)

Draws = Float[Array, "draws n classes"]


class Preconditioner(eqx.Module):
    """Σ = (P⁻¹ + W)⁻¹, the posterior covariance at the centre of the law, or an approximation."""

    @abc.abstractmethod
    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v ≈ Σ g and z = P⁻¹ v: a step in f, and the one in a that causes it."""

    @property
    def is_consistent(self) -> bool:
        """Whether v = P z to the round-off of float64."""
        return True


class SharedPreconditioner(Preconditioner):
    """(P_s⁻¹ + diag d)⁻¹ for all logits alike, where the outputs share P_s: one factor.

    d is the mean eigenvalue of each point's block of W where the likelihood is not flat. Applied by the
    factor of I + √d P_s √d, which costs what one product does.
    """

    factor: Triangle
    weights: Float[Array, " n"]

    @classmethod
    def build(
        cls,
        ntk: Gram,
        ridge: Float[Array, ""],
        curvature: Curvature,
        *,
        is_flat: bool,
        dtype: DTypeLike,
    ) -> "SharedPreconditioner":
        weights = jnp.sum(curvature.matrix_diagonal, axis=1) / max(1, curvature.shape[1] - is_flat)
        weights = jnp.maximum(weights, _FLOOR * jnp.max(weights))
        scale = jnp.sqrt(weights)
        factor = triangle(ntk, scale=scale / jnp.sqrt(ridge), shift=1.0, dtype=dtype)
        return cls(factor, weights)

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v = (g − z) / d and z = √d (I + √d P √d)⁻¹ g / √d, of the projected g."""
        gradients = project(gradients)
        z = self.weight_step(gradients)
        return (gradients - z) / self.weights[None, :, None], z

    def weight_step(self, gradients: Draws) -> Draws:
        """z, of a g that is projected."""
        draws, size, num_outputs = gradients.shape
        columns = gradients.transpose(1, 0, 2).reshape(size, -1)
        scale = jnp.sqrt(self.weights)[:, None]
        solved = scale * self.factor.solve_transposed(self.factor.solve(columns / scale))
        return solved.reshape(size, draws, num_outputs).transpose(1, 0, 2)


class NarrowPreconditioner(SharedPreconditioner):
    """The same by a factor in float32, with v = P z by a product of its own: (g − z) / d would lose the
    few digits that there are."""

    ntk: Gram
    ridge: Float[Array, ""]

    @classmethod
    def build(
        cls,
        ntk: Gram,
        ridge: Float[Array, ""],
        curvature: Curvature,
        *,
        is_flat: bool,
        dtype: DTypeLike,
    ) -> "NarrowPreconditioner":
        shared = SharedPreconditioner.build(ntk, ridge, curvature, is_flat=is_flat, dtype=dtype)
        return cls(shared.factor, shared.weights, ntk, ridge)

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        z = project(self.weight_step(project(gradients)))
        return apply(self.ntk, z / self.ridge), z


_FLOOR = 1e-3  # of the largest weight: as certain as the most certain points are taken to be


class ClasswisePreconditioner(Preconditioner):
    """Σ_c = (P_s⁻¹ + diag w_c)⁻¹ for each logit apart, where the outputs share P_s: C matrices, closer
    to Σ, and an iteration is one product.

    w is the diagonal of the likelihood's curvature.
    """

    covariances: Float[Array, "classes n n"]
    weights: Logits

    @classmethod
    def build(cls, gram: Gram, weights: Logits, dtype: DTypeLike) -> "ClasswisePreconditioner":
        gram = gram.astype(dtype)

        def covariance(weight: Float[Array, " n"]) -> Gram:
            scale = jnp.sqrt(weight)
            inner = scale[:, None] * gram * scale[None, :]
            lower = jnp.linalg.cholesky(inner + jnp.eye(len(scale), dtype=gram.dtype))
            half = jax.scipy.linalg.solve_triangular(lower, scale[:, None] * gram, lower=True)
            return gram - half.T @ half

        return cls(jax.lax.map(covariance, weights.T.astype(dtype)), weights)

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v = Π Σ Π g and z = Π (Π g − w Σ Π g), for one product."""
        gradients = project(gradients)
        narrow = gradients.astype(self.covariances.dtype)
        moved = jnp.einsum("cij,sjc->sic", self.covariances, narrow).astype(gradients.dtype)
        return project(moved), project(gradients - self.weights[None] * moved)

    @property
    def is_consistent(self) -> bool:
        return self.covariances.dtype == jnp.float64


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
    surrogate: ClasswisePreconditioner

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        _, z = self.surrogate.apply(gradients, project)
        return apply(self.gram, z), z


def is_classwise(num_points: int, num_draws: int) -> bool:
    """Whether so many draws are worth a matrix a class: 10 C factors' worth of operations more, and
    about 30 products fewer. Never where matrices are spread over devices."""
    return num_shares() == 1 and num_draws > num_points / 18


@eqx.filter_jit
def preconditioner_of(
    ntk: Block,
    ridge: Float[Array, ""],
    curvature: Curvature,
    *,
    is_flat: bool,
    num_draws: int,
    dtype: DTypeLike,
) -> Preconditioner:
    """The preconditioner that suits the kind of Θ, and the number of draws that share it.

    Args:
        dtype: of its matrices; float64 where the outputs are coupled.
    """
    if isinstance(ntk, Operator):
        surrogate = ntk.surrogate / ridge
        classwise = ClasswisePreconditioner.build(surrogate, curvature.matrix_diagonal, dtype)
        return SurrogatePreconditioner(ntk / ridge, classwise)
    size = curvature.shape[0]
    if ntk.shape[0] != size:
        return CoupledPreconditioner.build(ntk / ridge, curvature)
    if is_classwise(size, num_draws):
        return ClasswisePreconditioner.build(ntk / ridge, curvature.matrix_diagonal, dtype)
    shared = SharedPreconditioner if dtype == ntk.dtype else NarrowPreconditioner
    return shared.build(ntk, ridge, curvature, is_flat=is_flat, dtype=dtype)
