"""Blocks of an empirical NTK too large to be formed, known by their products J Jᵀ v."""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ntkbayes.kernels.empirical.ntk import EmpiricalNTK
from ntkbayes.linalg import Logits, Matrix, OperatorBlock, OperatorGram, Square
from ntkbayes.linalg.blocks import Number
from ntkbayes.networks import Network, Params


class JacobianBlock(OperatorBlock):
    """scale · J(x1) J(x2)ᵀ, with one VJP and one JVP per product."""

    network: Network
    params: Params
    x1: Float[Array, "n1 ..."]
    x2: Float[Array, "n2 ..."]
    scale: Float[Array, ""]

    @property
    def num_outputs(self) -> int:
        return jax.eval_shape(self.network.apply, self.params, self.x2).shape[-1]

    def matvec(self, v: Logits) -> Float[Array, "m classes"]:
        _, pull = jax.vjp(lambda params: self.network.apply(params, self.x2), self.params)
        _, moved = jax.jvp(
            lambda params: self.network.apply(params, self.x1), (self.params,), pull(v)
        )
        return self.scale * moved

    def dense(self) -> Matrix:
        full = EmpiricalNTK(self.network, self.params).full(self.x1, self.x2)
        return self.scale * flattened(full)

    def gram(self) -> "JacobianGram":
        shared = EmpiricalNTK(self.network, self.params).traced(self.x1)
        return JacobianGram(self.network, self.params, self.x1, self.x1, self.scale, shared)

    def __mul__[B](self: B, number: Number) -> B:
        return eqx.tree_at(lambda block: block.scale, self, replace_fn=lambda v: v * number)

    def __truediv__[B](self: B, number: Number) -> B:
        return eqx.tree_at(lambda block: block.scale, self, replace_fn=lambda v: v / number)


class JacobianGram(JacobianBlock, OperatorGram):
    """scale · J(x) J(x)ᵀ.

    Attributes:
        shared: the mean of J(x) J(x)ᵀ over outputs, (n, n).
    """

    shared: Square

    @property
    def surrogate(self) -> Square:
        return self.scale * self.shared


def flattened(full: Float[Array, "n1 n2 classes classes"]) -> Float[Array, "rows columns"]:
    """Θ as a matrix, with rows and columns ordered by point, then output."""
    n1, n2, size, _ = full.shape
    return full.transpose(0, 2, 1, 3).reshape(n1 * size, n2 * size)
