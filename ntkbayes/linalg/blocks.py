"""Blocks of a kernel, and how they act on logits.

A block between m and n inputs, each with C outputs, is one of

* (m, n): a scalar kernel, the same for every output and none between them: it stands for block ⊗ I_C;
* (mC, nC): a kernel that couples the outputs; rows and columns run through points, then outputs;
* an `Operator`, known by its products.

With one output the first two are the same thing.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.linalg.devices import everywhere

Gram = Float[Array, "rows rows"]
Logits = Float[Array, "n classes"]
Draws = Float[Array, "draws n classes"]


class Operator(eqx.Module):
    """A coupled block too large to be formed."""

    @abc.abstractmethod
    def matvec(self, v: Logits) -> Float[Array, "m classes"]:
        """block · v."""

    @abc.abstractmethod
    def dense(self) -> Float[Array, "rows columns"]:
        """The block as a matrix (mC, nC)."""

    @abc.abstractmethod
    def __truediv__(self, divisor: Float[Array, ""] | float) -> "Operator":
        """The block over a number."""

    @property
    @abc.abstractmethod
    def surrogate(self) -> Gram:
        """Of a Gram: the (n, n) matrix M with M ⊗ I_C nearest to it, for preconditioning."""


Block = Float[Array, "rows columns"] | Operator


def apply(block: Block, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws m classes"]:
    """block · v, for logits of one function or of many."""
    if isinstance(block, Operator):
        flat = v.reshape(-1, *v.shape[-2:])
        moved = jax.vmap(block.matvec)(flat)
        return moved.reshape(*v.shape[:-2], *moved.shape[-2:])
    if block.shape[1] == v.shape[-2]:
        return everywhere(jnp.einsum("mn,...nc->...mc", block, v))
    flat = v.reshape(*v.shape[:-2], -1)
    moved = jnp.einsum("mn,...n->...m", block, flat)
    return moved.reshape(*v.shape[:-2], -1, v.shape[-1])


def dense(block: Block) -> Float[Array, "rows columns"]:
    """The block as a matrix."""
    return block.dense() if isinstance(block, Operator) else block


def variances(block: Block, shape: tuple[int, ...]) -> Float[Array, "n outputs"]:
    """The diagonal of the Gram of n points with C outputs, shape = (n, C).

    (n, 1) where the outputs share it, else (n, C). An upper bound for an operator, of which only the
    mean over outputs is known.
    """
    num_points, num_outputs = shape
    if isinstance(block, Operator):
        return num_outputs * jnp.diagonal(block.surrogate)[:, None]
    return jnp.diagonal(block).reshape(num_points, -1)


def every_output(
    block: Block, num_points: int, num_outputs: int
) -> Float[Array, "all_rows all_columns"]:
    """The block of `num_points` inputs with a row for each point and output, even where the outputs
    share it."""
    matrix = dense(block)
    if matrix.shape[0] != num_points:
        return matrix
    return jnp.kron(matrix, jnp.eye(num_outputs, dtype=matrix.dtype))


def output_blocks(
    diagonal: Float[Array, " m"] | Float[Array, "m classes classes"], num_outputs: int
) -> Float[Array, "m classes classes"]:
    """A kernel's diagonal as one C × C block for each input."""
    if diagonal.ndim == 3:
        return diagonal
    return diagonal[:, None, None] * jnp.eye(num_outputs, dtype=diagonal.dtype)[None]
