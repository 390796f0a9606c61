"""NaN as an answer: propagated by norms, and let through by JAX's debug mode."""

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
    """max |values|, or NaN if there is one.

    XLA's reductions on the CPU skip NaN (openxla/xla issue 21461); the maximum of NaNs alone is −∞,
    below every tolerance. So every convergence test uses this function.
    """
    is_nan = jnp.any(jnp.isnan(values), axis=axis)
    return jnp.where(is_nan, jnp.nan, jnp.max(jnp.abs(values), axis=axis))


@contextmanager
def nan_is_an_answer() -> Iterator[None]:
    """For code that signals failure, or an unknown number, by NaN or infinity to a caller that handles
    it. `jax_debug_nans` would raise there."""
    with jax.debug_nans(False), jax.debug_infs(False):
        yield
