"""Preconditioners for training with a kernel that many initial functions share.

At some logits, mostly the centre of the law, with P = Θ/ridge and W the likelihood's curvature there.
Shapes: n points, C logits, S draws.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.linalg import (
    Block,
    BlockedTriangle,
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

    @property
    def reach(self) -> float:
        """The factor by which residuals fall before z ≠ P⁻¹ v, by round-off, has to be made good."""
        return 0.0

    @abc.abstractmethod
    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v ≈ Σ g and z = P⁻¹ v: a step in f, and the one in a that causes it."""


class FactoredPreconditioner(Preconditioner):
    """(P_s⁻¹ + diag w)⁻¹ for each logit, where the outputs share P_s, by the factor of I + √w P_s √w:
    applied at the cost of one product.

    Attributes:
        weights: w, of each logit or of all alike.
    """

    weights: eqx.AbstractVar[Float[Array, "n _"]]

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """Of the factors."""

    @property
    def reach(self) -> float:
        return 0.0 if self.dtype == self.weights.dtype else 1e-4

    @abc.abstractmethod
    def weight_step(self, gradients: Draws) -> Draws:
        """z = √w (I + √w P_s √w)⁻¹ g / √w."""

    def apply(self, gradients: Draws, project: Callable) -> tuple[Draws, Draws]:
        """v = (g − z) / w, and z."""
        gradients = project(gradients)
        z = self.weight_step(gradients)
        return project((gradients - z) / self.weights[None]), project(z)


def _floored(weights: Float[Array, "n _"]) -> Float[Array, "n _"]:
    """The weights, none so small that (g − z) / w is lost in round-off: as certain as the most certain
    points are taken to be."""
    return jnp.maximum(weights, 1e-3 * jnp.max(weights))


class SharedPreconditioner(FactoredPreconditioner):
    """All logits alike: one factor.

    w is the mean eigenvalue of each point's block of W where the likelihood is not flat.
    """

    weights: Float[Array, "n 1"]
    factor: Triangle

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.factor.dtype)

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
        mean = jnp.sum(curvature.matrix_diagonal, axis=1) / max(1, curvature.shape[1] - is_flat)
        weights = _floored(mean[:, None])
        scale = jnp.sqrt(weights[:, 0] / ridge)
        return cls(weights, triangle(ntk, scale=scale, shift=1.0, dtype=dtype))

    def weight_step(self, gradients: Draws) -> Draws:
        draws, size, num_outputs = gradients.shape
        columns = gradients.transpose(1, 0, 2).reshape(size, -1)
        scale = jnp.sqrt(self.weights)
        solved = scale * self.factor.solve_transposed(self.factor.solve(columns / scale))
        return solved.reshape(size, draws, num_outputs).transpose(1, 0, 2)


class ClasswisePreconditioner(FactoredPreconditioner):
    """Each logit by itself: C factors, closer to Σ.

    w is the diagonal of W.
    """

    weights: Logits
    factors: BlockedTriangle

    @property
    def dtype(self) -> np.dtype:
        return self.factors.dtype

    @classmethod
    def build(
        cls, ntk: Gram, ridge: Float[Array, ""], curvature: Curvature, *, dtype: DTypeLike
    ) -> "ClasswisePreconditioner":
        weights = _floored(curvature.matrix_diagonal)
        scales = jnp.sqrt(weights.T / ridge)
        factors = jax.lax.map(
            lambda scale: BlockedTriangle.factor(ntk, scale=scale, shift=1.0, dtype=dtype), scales
        )
        return cls(weights, factors)

    def weight_step(self, gradients: Draws) -> Draws:
        scale = jnp.sqrt(self.weights)[None]
        rows = (gradients / scale).transpose(2, 0, 1)
        solved = jax.vmap(BlockedTriangle.solve_gram_rows)(self.factors, rows)
        return scale * solved.transpose(1, 2, 0)


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
    """Whether so many draws are worth a factor a class: they save some 50 products a draw, each of 2n² C
    operations, for n³/3 C. Never where matrices are spread over devices."""
    return num_shares() == 1 and num_draws > num_points / 300


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
        surrogate = ClasswisePreconditioner.build(ntk.surrogate, ridge, curvature, dtype=dtype)
        return SurrogatePreconditioner(ntk / ridge, surrogate)
    size = curvature.shape[0]
    if ntk.shape[0] != size:
        return CoupledPreconditioner.build(ntk / ridge, curvature)
    if is_classwise(size, num_draws):
        return ClasswisePreconditioner.build(ntk, ridge, curvature, dtype=dtype)
    return SharedPreconditioner.build(ntk, ridge, curvature, is_flat=is_flat, dtype=dtype)
