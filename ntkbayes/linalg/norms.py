"""The size of an array that may hold NaN."""

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
