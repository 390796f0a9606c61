"""The inputs of a linear layer as G × T × K, and its outputs as G × T × O.

In this arrangement a layer is G matrix products y_gt = a_gt W_g, with G groups, T positions that share
a weight, K inputs and O outputs.
"""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn
from jaxtyping import Array, Float

from ntkbayes.networks.programs import aval


def arrange_inputs(equation: JaxprEqn, a: Array, side: int) -> Float[Array, "groups t inputs"]:
    """The operand multiplied by the weight, as G × T × K."""
    if equation.primitive.name == "conv_general_dilated":
        return _patches(equation, a)
    contract, batch = (axes[1 - side] for axes in equation.params["dimension_numbers"])
    free = [axis for axis in range(a.ndim) if axis not in (*contract, *batch)]
    sizes = [math.prod(a.shape[axis] for axis in axes) for axes in (batch, free, contract)]
    return a.transpose(*batch, *free, *contract).reshape(sizes)


def arrange_signals(equation: JaxprEqn, side: int) -> Callable[[Array], Array]:
    """A function that brings results of the equation into the form G × T × O."""
    if equation.primitive.name == "conv_general_dilated":
        batch, channel, *space = equation.params["dimension_numbers"].out_spec
        groups = equation.params["feature_group_count"]

        def arrange(y: Array) -> Array:
            last = y.transpose(batch, *space, channel)
            return last.reshape(-1, groups, y.shape[channel] // groups).transpose(1, 0, 2)

        return arrange

    contract, batch = equation.params["dimension_numbers"]
    left = aval(equation.invars[0]).shape
    groups = math.prod(left[axis] for axis in batch[0])
    first = math.prod(left) // groups // math.prod(left[axis] for axis in contract[0])

    def split(y: Array) -> Array:
        matrix = y.reshape(groups, first, y.size // (groups * first))
        return matrix if side == 1 else matrix.transpose(0, 2, 1)

    return split


def _patches(equation: JaxprEqn, a: Array) -> Float[Array, "groups positions inputs"]:
    """The patch of the input that each position of a convolution sees.

    Made by slicing, one slice per entry of the window: mere copies, where
    `jax.lax.conv_general_dilated_patches` would convolve with an identity.
    """
    options = equation.params
    numbers = options["dimension_numbers"]
    a = a.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    inner = [dilation - 1 for dilation in options["lhs_dilation"]]
    edges = [(*edge, gap) for edge, gap in zip(options["padding"], inner, strict=True)]
    a = jax.lax.pad(a, jnp.zeros((), a.dtype), [(0, 0, 0), *edges, (0, 0, 0)])

    window = [aval(equation.invars[1]).shape[axis] for axis in numbers.rhs_spec[2:]]
    sizes = [aval(equation.outvars[0]).shape[axis] for axis in numbers.out_spec[2:]]
    strides = options["window_strides"]
    seen = []
    for offset in itertools.product(*map(range, window)):
        starts = [i * step for i, step in zip(offset, options["rhs_dilation"], strict=True)]
        ends = [i + (n - 1) * step + 1 for i, n, step in zip(starts, sizes, strides, strict=True)]
        whole = a.shape[0], a.shape[-1]
        seen.append(
            jax.lax.slice(a, (0, *starts, 0), (whole[0], *ends, whole[1]), (1, *strides, 1))
        )
    groups = options["feature_group_count"]
    shape = (-1, len(seen), groups, a.shape[-1] // groups)
    patches = jnp.stack(seen, axis=-2).reshape(shape).transpose(2, 0, 1, 3)
    return patches.reshape(groups, patches.shape[1], -1)
