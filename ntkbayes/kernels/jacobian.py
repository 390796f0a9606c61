"""Blocks of an empirical NTK known by their products J Jᵀ v."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.attached import Attached
from ntkbayes.kernels.base import in_blocks
from ntkbayes.kernels.empirical.ntk import EmpiricalNTK
from ntkbayes.kernels.empirical.plan import peak_bytes
from ntkbayes.linalg import (
    Block,
    CoupledBlock,
    CoupledGram,
    Covariances,
    Draws,
    Gram,
    Matrix,
    OperatorBlock,
    OperatorGram,
    Square,
    everywhere,
    row_by_row,
    summed_over_rows,
)
from ntkbayes.linalg.blocks import Number
from ntkbayes.networks import Network, Params
from ntkbayes.networks.programs import channels_last

_FORMED = Attached[CoupledBlock]()  # of a block, which several laws share
PASS_BYTES = 2**28  # of a pass through the network, and of the parameters' steps: each at most


class JacobianBlock(OperatorBlock):
    """scale · J(x1) J(x2)ᵀ, with one VJP and one JVP per product.

    Many functions share the passes through the network. Points go through it in blocks, and functions
    in groups, so that temporaries stay within half a GiB, or what a single point and function need.
    Within `over_devices`, each device takes its share of the points.

    Attributes:
        own_dtype: of the network as its user made it.
        dtype: of the passes through it.
        may_form: whether to form the matrix for products with more than C functions: it takes C passes
            backwards itself.
    """

    network: Network
    params: Params
    x1: Float[Array, "n1 ..."]
    x2: Float[Array, "n2 ..."]
    scale: Float[Array, ""]
    own_dtype: np.dtype = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)
    may_form: bool = eqx.field(static=True)

    @property
    def num_outputs(self) -> int:
        return outputs_of(self.network, self.params, self.x2)

    def for_functions(self, count: int) -> Block:
        return self.formed() if self.may_form and count > self.num_outputs else self

    def formed(self) -> CoupledBlock:
        kept = _FORMED.of(self)
        if "whole" in kept:
            return kept["whole"]
        whole = super().formed()
        if not isinstance(whole.matrix, jax.core.Tracer):
            kept["whole"] = whole
        return whole

    def products(self, v: Draws) -> Float[Array, "draws m classes"]:
        block = self.for_functions(len(v))
        if block is not self:
            return block @ v
        point_bytes = _point_bytes(self.network, self.params, self.x2)
        params, scale = cast(self.params, self.dtype), self.scale
        x1, x2 = (cast(x, self.dtype) for x in (self.x1, self.x2))
        step_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        group = max(1, min(len(v), PASS_BYTES // step_bytes))
        rows = max(1, PASS_BYTES // (group * point_bytes))

        def pulled(x2: Array, v: Draws) -> Params:
            return _pulled(self.network, params, x2, v, rows)

        def pushed(x1: Array, steps: Params) -> Float[Array, "m draws classes"]:
            return _pushed(self.network, params, x1, steps, rows)

        def moved(v: Draws) -> Float[Array, "draws m classes"]:
            steps = summed_over_rows(pulled)(x2, v.astype(self.dtype))
            return everywhere(jnp.moveaxis(row_by_row(pushed)(x1, steps), 1, 0))

        return scale * in_blocks(moved, v, group).astype(v.dtype)

    def dense(self) -> Matrix:
        return self.scale * EmpiricalNTK(self.network, self.params).matrix(self.x1, self.x2)

    def gram(self) -> Gram:
        """The Gram of x1, formed if it may be. Else with a surrogate, which only guides iterations: the
        network's own precision will do for it."""
        if self.may_form:
            matrix = EmpiricalNTK(self.network, self.params).matrix(self.x1)
            return CoupledGram(self.scale * matrix, self.num_outputs)
        coarse, x = cast((self.params, self.x1), self.own_dtype)
        shared = EmpiricalNTK(self.network, coarse).traced(x).astype(self.x1.dtype)
        own = EmpiricalNTK(self.network, self.params).diagonal(self.x1)
        given = (self.network, self.params, self.x1, self.x1, self.scale)
        return JacobianGram(*given, self.own_dtype, self.dtype, False, shared, own)

    def __mul__[B](self: B, number: Number) -> B:
        return eqx.tree_at(lambda block: block.scale, self, replace_fn=lambda v: v * number)

    def __truediv__[B](self: B, number: Number) -> B:
        return eqx.tree_at(lambda block: block.scale, self, replace_fn=lambda v: v / number)


def outputs_of(network: Network, params: Params, x: Float[Array, "n ..."]) -> int:
    """C."""

    def apply(params: Params, x: Array) -> Array:  # JAX compares bound methods by their arrays
        return network.apply(params, x)

    return jax.eval_shape(apply, params, x).shape[-1]


class JacobianGram(JacobianBlock, OperatorGram):
    """scale · J(x) J(x)ᵀ.

    Attributes:
        shared: the mean of J(x) J(x)ᵀ over outputs, (n, n).
        own: J(x) J(x)ᵀ of each point, (n, C, C).
    """

    shared: Square
    own: Covariances

    @property
    def surrogate(self) -> Square:
        return self.scale * self.shared

    @property
    def variances(self) -> Float[Array, "n classes"]:
        return self.scale * jnp.diagonal(self.own, axis1=1, axis2=2)

    def diagonal_blocks(self, num_outputs: int) -> Covariances:
        return self.scale * self.own

    def fast(self, dtype: DTypeLike) -> "JacobianGram":
        narrow = min(np.dtype(dtype), self.own_dtype, key=lambda dtype: dtype.itemsize)
        return self if narrow == self.dtype else dataclasses.replace(self, dtype=narrow)


# --- passes through the network ------------------------------------------------------------------


def _pulled(network: Network, params: Params, x: Array, v: Draws, rows: int) -> Params:
    """J(x)ᵀ v of each function: a step in the parameters, stacked."""

    @channels_last
    def at(x: Array, v: Draws) -> Params:
        _, pull = jax.vjp(lambda params: network.apply(params, x), params)
        return jax.vmap(lambda one: pull(one)[0])(v)

    size = len(x)
    if size <= rows:
        return at(x, v)
    count = -(-size // rows)
    rows = -(-size // count)
    left = count * rows - size  # the last block is filled with points that no function weighs
    x = jnp.pad(x, ((0, left), *[(0, 0)] * (x.ndim - 1)), mode="edge")
    v = jnp.pad(v, ((0, 0), (0, left), (0, 0)))
    blocks = (
        x.reshape(count, rows, *x.shape[1:]),
        jnp.moveaxis(v.reshape(len(v), count, rows, -1), 1, 0),
    )

    def add(total: Params, block: tuple[Array, Draws]) -> tuple[Params, None]:
        return jax.tree.map(jnp.add, total, at(*block)), None

    none = jax.tree.map(lambda leaf: jnp.zeros((len(v), *leaf.shape), leaf.dtype), params)
    return jax.lax.scan(add, none, blocks)[0]


def _pushed(
    network: Network, params: Params, x: Array, steps: Params, rows: int
) -> Float[Array, "m draws classes"]:
    """J(x) times each of the steps."""

    @channels_last
    def at(x: Array) -> Float[Array, "m draws classes"]:
        _, push = jax.linearize(lambda params: network.apply(params, x), params)
        return jnp.moveaxis(jax.vmap(push)(steps), 0, 1)

    return in_blocks(at, x, rows)


def _point_bytes(network: Network, params: Params, x: Array) -> int:
    """Temporaries of a backward pass of one function in float64, per point: the difference of passes of
    two points and of one."""

    def backward(x: Array) -> Params:
        logits, pull = jax.vjp(lambda params: network.apply(params, x), params)
        return pull(jnp.ones_like(logits))

    points = (jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for size in (1, 2))
    one, two = (peak_bytes(jax.make_jaxpr(backward)(point)) for point in points)
    return max(1, two - one)


def cast(tree: Any, dtype: DTypeLike) -> Any:
    """Its arrays of floats in another precision."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree
    )
