"""Compiled programs that hold large matrices."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax


def frugal_jit[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """`eqx.filter_jit`, with operations in the order that needs least memory.

    By default XLA on CPUs begins early whatever does not wait for the rest: of a factor by halves, the
    copies of all blocks. Either order takes the same time. Under a JAX trace, where the outer program
    has the order, the function itself.
    """
    compiled: Any = eqx.filter_jit(function, compiler_options=_LEAST_MEMORY)  # type: ignore[call-overload]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        leaves = jax.tree.leaves((args, kwargs))
        is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        return (function if is_traced else compiled)(*args, **kwargs)

    return call


_LEAST_MEMORY = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
