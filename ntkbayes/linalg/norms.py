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
    below every tolerance. So every convergence test uses this function. Floats of one sign are ordered
    as their bits, with NaN above infinity.
    """
    size = jnp.abs(values)
    bits = jax.lax.bitcast_convert_type(size, f"int{8 * size.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(jnp.max(bits, axis=axis), size.dtype)


def inner(u: Float[Array, "*draws n classes"], v: Float[Array, "*draws n classes"]) -> Array:
    """Σ u v of each draw.

    As a product with ones: XLA's sums over many rows of few numbers take three times as long on a CPU.
    """
    terms = u * v
    flat = terms.reshape(*terms.shape[:-2], -1)
    return flat @ jnp.ones(flat.shape[-1], flat.dtype)


@contextmanager
def nan_is_an_answer() -> Iterator[None]:
    """For code that signals failure, or an unknown number, by NaN or infinity to a caller that handles
    it. `jax_debug_nans` would raise there."""
    with jax.debug_nans(False), jax.debug_infs(False):
        yield
