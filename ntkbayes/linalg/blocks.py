"""Kernels between two sets of inputs, as they act on logits.

A block between m and n inputs, each with C outputs, is

* shared: one (m, n) matrix for all outputs, independent of each other: matrix ⊗ I_C;
* coupled: (mC, nC), rows and columns ordered by point, then output;
* an operator: coupled, and known only by its products (see `grams`).
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.linalg.arrays import Covariances, Matrix
from ntkbayes.linalg.devices import everywhere

Number = Float[Array, ""] | float | int


class Block(eqx.Module):
    """A kernel between two sets of inputs. NumPy reads it as the matrix that `dense` forms.

    Attributes:
        couples: whether outputs are correlated, so that rows are (point, output) pairs.
    """

    couples: eqx.AbstractClassVar[bool]
    __array_priority__: ClassVar[int] = 100  # a NumPy number times a block is a block

    @abc.abstractmethod
    def __matmul__(self, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws m classes"]:
        """block · v, for the logits of one function or many."""

    @abc.abstractmethod
    def __mul__[B](self: B, number: Number) -> B:
        """The block times a number."""

    def __rmul__(self, number: Number) -> "Block":
        return self * number

    @abc.abstractmethod
    def __truediv__[B](self: B, number: Number) -> B:
        """The block divided by a number."""

    @abc.abstractmethod
    def dense(self) -> Matrix:
        """The block as a matrix, (m, n) if it is shared, else (mC, nC)."""

    @abc.abstractmethod
    def every_output(self, num_outputs: int) -> Matrix:
        """The block as a matrix (mC, nC), even if it is shared."""

    @abc.abstractmethod
    def formed(self) -> "FormedBlock":
        """The block as a `FormedBlock`."""

    def for_functions(self, count: int) -> "Block":
        """The block in the form that takes products with so many functions soonest."""
        return self

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.dense(), dtype=dtype)


class FormedBlock(Block):
    """A block known by its matrix."""

    matrix: eqx.AbstractVar[Matrix]

    @abc.abstractmethod
    def like(self, matrix: Matrix) -> "FormedBlock":
        """Another matrix that acts on logits the same way: a factor, or an inverse."""

    @abc.abstractmethod
    def column_products(self, num_outputs: int) -> Covariances:
        """kⱼᵀ kⱼ for the columns kⱼ of each input j, (n, C, C)."""

    @property
    def T(self) -> "FormedBlock":
        """The transpose."""
        return self.like(self.matrix.T)

    def dense(self) -> Matrix:
        return self.matrix

    def formed(self) -> "FormedBlock":
        return self

    def __mul__[B](self: B, number: Number) -> B:
        return eqx.tree_at(lambda block: block.matrix, self, replace_fn=lambda v: v * number)

    def __truediv__[B](self: B, number: Number) -> B:
        return eqx.tree_at(lambda block: block.matrix, self, replace_fn=lambda v: v / number)


class SharedBlock(FormedBlock):
    """matrix ⊗ I_C: a scalar kernel, the same for every output."""

    matrix: Float[Array, "m n"]
    couples: ClassVar[bool] = False

    def __matmul__(self, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws m classes"]:
        return everywhere(jnp.einsum("mn,...nc->...mc", self.matrix, v))

    def every_output(self, num_outputs: int) -> Matrix:
        return jnp.kron(self.matrix, jnp.eye(num_outputs, dtype=self.matrix.dtype))

    def like(self, matrix: Matrix) -> "SharedBlock":
        return SharedBlock(matrix)

    def column_products(self, num_outputs: int) -> Covariances:
        return output_blocks(jnp.sum(self.matrix**2, axis=0), num_outputs)


class CoupledBlock(FormedBlock):
    """A kernel that couples the outputs, as a finite network's does."""

    matrix: Float[Array, "rows columns"]
    num_outputs: int = eqx.field(static=True)
    couples: ClassVar[bool] = True

    def __matmul__(self, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws m classes"]:
        moved = jnp.einsum("mn,...n->...m", self.matrix, v.reshape(*v.shape[:-2], -1))
        return moved.reshape(*v.shape[:-2], -1, v.shape[-1])

    def every_output(self, num_outputs: int) -> Matrix:
        return self.matrix

    def like(self, matrix: Matrix) -> "CoupledBlock":
        return CoupledBlock(matrix, self.num_outputs)

    def column_products(self, num_outputs: int) -> Covariances:
        columns = self.matrix.reshape(len(self.matrix), -1, num_outputs)
        return jnp.einsum("rnc,rnd->ncd", columns, columns)


def output_blocks(
    diagonal: Float[Array, " m"] | Float[Array, "m classes classes"], num_outputs: int
) -> Float[Array, "m classes classes"]:
    """A kernel's diagonal as one C × C block per input."""
    if diagonal.ndim == 3:
        return diagonal
    return diagonal[:, None, None] * jnp.eye(num_outputs, dtype=diagonal.dtype)[None]
