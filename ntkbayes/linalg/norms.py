"""NaN as an answer: seen in the size of an array, and let through by JAX."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@partial(jax.jit, static_argnames="axis")
def largest(
    values: Float[Array, "..."], axis: int | tuple[int, ...] | None = None
) -> Float[Array, "..."]:
    """max |values|, NaN where there is one.

    XLA's reductions on the CPU pass over NaN (openxla/xla issue 21461), the maximum of nothing but
    NaN being −∞: below every tolerance. So whatever decides on convergence comes from here.
    """
    is_nan = jnp.any(jnp.isnan(values), axis=axis)
    return jnp.where(is_nan, jnp.nan, jnp.max(jnp.abs(values), axis=axis))


@contextmanager
def nan_is_an_answer() -> Iterator[None]:
    """Around what says by NaN or infinity that it failed, or that a number is not known, to a caller
    that looks for it and has another way or an error of its own. `jax_debug_nans` would raise there."""
    with jax.debug_nans(False), jax.debug_infs(False):
        yield
