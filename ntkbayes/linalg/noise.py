"""Random arrays, as `jax.random` has them, drawn in one axis.

XLA takes seconds to compile the counters of an array of three axes or more, and a twentieth of that for
as many numbers in one. The numbers are the same.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

Shape = tuple[int, ...]


@partial(jax.jit, static_argnames=("shape", "dtype"))
def white_noise(key: PRNGKeyArray, shape: Shape, dtype: DTypeLike = float) -> Array:
    """Standard normal numbers: `jax.random.normal`."""
    return _in_one_axis(jax.random.normal, key, shape, dtype)


@partial(jax.jit, static_argnames=("shape", "dtype"))
def uniform(key: PRNGKeyArray, shape: Shape, dtype: DTypeLike = float) -> Array:
    """Uniform numbers in [0, 1): `jax.random.uniform`."""
    return _in_one_axis(jax.random.uniform, key, shape, dtype)


@jax.jit
def categorical(key: PRNGKeyArray, logits: Float[Array, "*stack classes"]) -> Int[Array, "*stack"]:
    """A class of each point, by its logits: `jax.random.categorical`, along the last axis."""
    gumbel = _in_one_axis(jax.random.gumbel, key, logits.shape, logits.dtype)
    return jnp.argmax(gumbel + logits, axis=-1)


@partial(jax.jit, static_argnames="num")
def split_key(key: PRNGKeyArray, num: int = 2) -> tuple[PRNGKeyArray, ...]:
    """So many keys: those of `jax.random.split`, which takes a second program to part them."""
    return tuple(jax.random.split(key, num))


def _in_one_axis(
    draw: Callable[[PRNGKeyArray, Shape, DTypeLike], Array],
    key: PRNGKeyArray,
    shape: Shape,
    dtype: DTypeLike,
) -> Array:
    return draw(key, (math.prod(shape),), dtype).reshape(shape)
