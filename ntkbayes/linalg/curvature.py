"""The curvature W of a likelihood: block diagonal over points."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ntkbayes.linalg.arrays import Covariances, Logits

Kept = Int[Array, "classes kept"]


class Curvature(eqx.Module):
    """W = −∂² log p / ∂f², block diagonal over the n points, each block positive semi-definite."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n, C)."""

    @abc.abstractmethod
    def matvec(self, v: Logits) -> Logits:
        """W v."""

    @abc.abstractmethod
    def root_matvec(self, v: Logits) -> Logits:
        """S v for a square root S Sᵀ = W."""

    @abc.abstractmethod
    def root_transpose_matvec(self, v: Logits) -> Logits:
        """Sᵀ v."""

    @abc.abstractmethod
    def inverse_quadratic(self, v: Logits) -> Float[Array, " n"]:
        """vᵢᵀ Wᵢ⁻¹ vᵢ at each point, for v in the range of W; infinite where W is 0 and v is not."""

    @property
    @abc.abstractmethod
    def matrix_diagonal(self) -> Logits:
        """The diagonal of W."""

    @abc.abstractmethod
    def __truediv__(self, number: Float[Array, ""]) -> "Curvature":
        """W divided by a positive number, with its structure."""

    @abc.abstractmethod
    def at(self, points: slice) -> "Curvature":
        """W of some of the points."""

    @abc.abstractmethod
    def definite(self, share: float) -> "Curvature":
        """The same with eigenvalues floored at a share of the largest, where the likelihood is not flat
        by construction, so that `root_inverse_matvec` loses no digits."""

    @abc.abstractmethod
    def root_inverse_matvec(self, v: Logits) -> Logits:
        """A u with S u = v, for v in the range of W; see `definite`."""

    @property
    def blocks(self) -> Covariances:
        """W, point by point."""
        return self._columns(self.matvec)

    @property
    def root_blocks(self) -> Covariances:
        """S, point by point."""
        return self._columns(self.root_matvec)

    def _columns(self, product: Callable[[Logits], Logits]) -> Covariances:
        units = jnp.eye(self.shape[1], dtype=self.matrix_diagonal.dtype)
        return jax.vmap(lambda e: product(jnp.broadcast_to(e[None], self.shape)), out_axes=2)(units)


class StructuredCurvature(Curvature):
    """W = diag(D), or diag(D) − D Dᵀ / Σ D at each point if coupled.

    The coupled form is softmax's, with D the class probabilities, whose sum is 1 (R&W 3.38), or those
    divided by a temperature.

    Attributes:
        points: per class, the only points at which D may be non-zero, ascending, so that lower halves
            stay lower halves; None for all.
    """

    diagonal: Logits
    coupled: bool = eqx.field(static=True)
    points: Kept | None = None

    def pruned(self, num_kept: int) -> "StructuredCurvature":
        """W with D kept only at the `num_kept` points per class where it is largest. Values below 1e-30,
        which float32 could lose, are dropped too.

        W minus the result is positive semi-definite: for softmax, a point keeps the Schur complement of
        the classes that it drops, the information on the others when the dropped logits are free.
        """
        _, points = jax.lax.top_k(self.diagonal.T, num_kept)
        points = jnp.sort(points, axis=1)
        is_kept = jax.vmap(lambda rows: jnp.zeros(len(self.diagonal), bool).at[rows].set(True))
        diagonal = jnp.where(is_kept(points).T & (self.diagonal > 1e-30), self.diagonal, 0.0)
        return StructuredCurvature(diagonal, self.coupled, points)

    @property
    def is_idle(self) -> Bool[Array, " n"]:
        """Whether D is zero at a point, which then carries no information."""
        return ~jnp.any(self.diagonal > 0, axis=1)

    @property
    def mass(self) -> Float[Array, " n"]:
        """Σ D per point, and 1 where the point is idle."""
        return jnp.where(self.is_idle, 1.0, jnp.sum(self.diagonal, axis=1))

    @property
    def shape(self) -> tuple[int, int]:
        num_points, num_outputs = self.diagonal.shape
        return num_points, num_outputs

    def matvec(self, v: Logits) -> Logits:
        product = self.diagonal * v
        if self.coupled:
            product -= self.diagonal * (
                jnp.sum(product, axis=1, keepdims=True) / self.mass[:, None]
            )
        return product

    def root_matvec(self, v: Logits) -> Logits:
        root = jnp.sqrt(self.diagonal)
        if not self.coupled:
            return root * v
        return root * v - self.diagonal * (
            jnp.sum(root * v, axis=1, keepdims=True) / self.mass[:, None]
        )

    def root_transpose_matvec(self, v: Logits) -> Logits:
        root = jnp.sqrt(self.diagonal)
        if not self.coupled:
            return root * v
        return root * (v - jnp.sum(self.diagonal * v, axis=1, keepdims=True) / self.mass[:, None])

    def inverse_quadratic(self, v: Logits) -> Float[Array, " n"]:
        """Σ v² / D. If the classes are coupled, v sums to zero over them, so W (v / D) = v holds too."""
        return jnp.sum(jnp.where(v == 0, 0.0, v**2 / self.diagonal), axis=1)

    @property
    def matrix_diagonal(self) -> Logits:
        if not self.coupled:
            return self.diagonal
        return self.diagonal * (1 - self.diagonal / self.mass[:, None])

    def __truediv__(self, number: Float[Array, ""]) -> "StructuredCurvature":
        return StructuredCurvature(self.diagonal / number, self.coupled, self.points)

    def at(self, points: slice) -> "StructuredCurvature":
        """Without `points`, which only name zeros of D."""
        return StructuredCurvature(self.diagonal[points], self.coupled)

    def definite(self, share: float) -> "StructuredCurvature":
        """The floor is one of D, since the coupled form's other eigenvalues interlace with D."""
        floor = jnp.maximum(share * jnp.max(self.diagonal), jnp.finfo(self.diagonal.dtype).tiny)
        return StructuredCurvature(jnp.maximum(self.diagonal, floor), self.coupled)

    def root_inverse_matvec(self, v: Logits) -> Logits:
        """v / √D. If the classes are coupled, v sums to zero over them, so S (v / √D) = v holds too."""
        return v / jnp.sqrt(self.diagonal)


class BlockCurvature(Curvature):
    """W by its blocks, with S their symmetric roots. B then takes a matrix of size nC × nC."""

    full: Covariances

    @property
    def shape(self) -> tuple[int, int]:
        num_points, num_outputs, _ = self.full.shape
        return num_points, num_outputs

    def matvec(self, v: Logits) -> Logits:
        return jnp.einsum("icd,id->ic", self.full, v)

    def root_matvec(self, v: Logits) -> Logits:
        return jnp.einsum("icd,id->ic", self.root_blocks, v)

    def root_transpose_matvec(self, v: Logits) -> Logits:
        return self.root_matvec(v)

    def inverse_quadratic(self, v: Logits) -> Float[Array, " n"]:
        values, vectors = jnp.linalg.eigh(self.full)
        along = jnp.einsum("icd,ic->id", vectors, v)
        return jnp.sum(jnp.where(along == 0, 0.0, along**2 / jnp.maximum(values, 0.0)), axis=1)

    @property
    def matrix_diagonal(self) -> Logits:
        return jnp.diagonal(self.full, axis1=1, axis2=2)

    def __truediv__(self, number: Float[Array, ""]) -> "BlockCurvature":
        return BlockCurvature(self.full / number)

    def at(self, points: slice) -> "BlockCurvature":
        return BlockCurvature(self.full[points])

    def definite(self, share: float) -> "BlockCurvature":
        values, vectors = jnp.linalg.eigh(self.full)
        values = jnp.maximum(
            values, jnp.maximum(share * jnp.max(values), jnp.finfo(values.dtype).tiny)
        )
        return BlockCurvature(jnp.einsum("ick,ik,idk->icd", vectors, values, vectors))

    def root_inverse_matvec(self, v: Logits) -> Logits:
        values, vectors = jnp.linalg.eigh(self.full)
        along = jnp.einsum("icd,ic->id", vectors, v) / jnp.sqrt(values)
        return jnp.einsum("icd,id->ic", vectors, along)

    @property
    def blocks(self) -> Covariances:
        return self.full

    @property
    def root_blocks(self) -> Covariances:
        return symmetric_roots(self.full)


def symmetric_roots(
    blocks: Covariances,
) -> Covariances:
    """R = Rᵀ with R R = block, for blocks that may be singular. Smooth where eigenvalues meet, unlike
    eigenvectors."""
    values, vectors = jnp.linalg.eigh(blocks)
    roots = jnp.sqrt(jnp.maximum(values, 0.0))  # round-off can leave tiny negative eigenvalues
    return jnp.einsum("ick,ik,idk->icd", vectors, roots, vectors)
