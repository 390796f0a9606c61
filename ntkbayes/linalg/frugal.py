"""Compiled programs that hold large matrices."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp


def frugal_jit[**P, R](
    function: Callable[P, R], *, donate: Literal["none", "all"] = "none"
) -> Callable[P, R]:
    """`eqx.filter_jit`, on CPUs with operations in the order that needs least memory.

    By default XLA begins early there whatever does not wait for the rest: of a factor by halves, the
    copies of all blocks. Either order takes the same time. Within another program the order is that
    program's.

    Args:
        donate: whether results may take the memory of the arguments, which are lost then.
    """
    plain = eqx.filter_jit(function, donate=donate)
    frugal: Any = eqx.filter_jit(function, donate=donate, compiler_options=_LEAST_MEMORY)  # type: ignore[call-overload]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # Where JAX traces a program, also what depends on no argument is traced.
        seen = (jnp.zeros(()), *jax.tree.leaves((args, kwargs)))
        is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in seen)
        is_plain = is_traced or jax.default_backend() != "cpu"
        return (plain if is_plain else frugal)(*args, **kwargs)

    return call


_LEAST_MEMORY = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
