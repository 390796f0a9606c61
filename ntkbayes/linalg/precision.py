"""float64: required of JAX and of what users pass, and preserved by pickle."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params

from ntkbayes.errors import PrecisionError


def require_float64() -> None:
    """Raises PrecisionError unless JAX is in float64."""
    if not jax.config.read("jax_enable_x64"):
        raise PrecisionError(
            "ntkbayes solves in float64, which JAX turns off by default; call "
            'jax.config.update("jax_enable_x64", True) before anything else uses JAX'
        )


def require_float64_values(what: str, values: Any) -> None:
    """Raises PrecisionError if one of the values is narrower than float64.

    They are arrays, numbers, or a tree of these; a block with a dtype computes in that, whatever it
    holds: the running statistics within a network may be float32.
    """
    for value in jax.tree.leaves(values, is_leaf=lambda value: hasattr(value, "dtype")):
        if 0 < _bits(value) < 64:
            raise PrecisionError(_too_narrow(what, value.dtype, 64))


def require_precision(what: str, function: Callable[..., Any], *arguments: Any) -> None:
    """Trace function(*arguments), arrays or their shapes, and refuse any step that drops digits.

    The required precision is that of the narrowest argument: parameters may be float32.

    Raises:
        PrecisionError: a step, or the whole function, returns floats narrower than that.
    """
    bits = min(filter(None, map(_bits, jax.tree.leaves(arguments))))
    program = jax.make_jaxpr(lambda *given: function(*given))(
        *arguments
    )  # a method may hold tracers
    results = _narrower(program.jaxpr.outvars, bits)
    for dtype in (*_narrowed(program.jaxpr, bits), *results):
        raise PrecisionError(_too_narrow(what, dtype, bits))


def _narrowed(jaxpr: Jaxpr, bits: int) -> Iterator[np.dtype]:
    """The narrower types that floats of `bits` are rounded to, step by step."""
    for equation in jaxpr.eqns:
        bodies = list(jaxprs_in_params(equation.params))
        for body in bodies:
            yield from _narrowed(body, bits)
        if not bodies and any(_bits(atom.aval) >= bits for atom in equation.invars):
            yield from _narrower(equation.outvars, bits)


def _narrower(atoms: Sequence[Any], bits: int) -> Iterator[np.dtype]:
    return (atom.aval.dtype for atom in atoms if 0 < _bits(atom.aval) < bits)


def _bits(value: Any) -> int:
    """Bits of a float; 0 for other values."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return 0
    return jnp.finfo(dtype).bits


def _too_narrow(what: str, dtype: np.dtype, bits: int) -> str:
    return (
        f"{what} computes in {dtype} on float{bits} inputs, and the dropped digits cannot be recovered. "
        f"Remove the dtype or cast to {dtype}, or make it float{bits}"
    )


class Portable:
    """Pickled and copied with its arrays unchanged, for any setting of JAX on either side. JAX by itself
    turns float64 arrays into float32 if they are unpickled before float64 is switched on."""

    def __getstate__(self) -> dict[str, Any]:
        shared: dict[int, _Held] = {}  # an array held twice is pickled once
        return jax.tree.map(lambda leaf: _held(leaf, shared), vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        with jax.enable_x64(True):
            vars(self).update(jax.tree.map(_released, state))


class _Held:
    """A JAX array as a NumPy array."""

    def __init__(self, array: jax.Array):
        self.array = np.asarray(array)


def _held(leaf: Any, shared: dict[int, _Held]) -> Any:
    if not isinstance(leaf, jax.Array) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    if id(leaf) not in shared:
        shared[id(leaf)] = _Held(leaf)
    return shared[id(leaf)]


def _released(leaf: Any) -> Any:
    return jnp.asarray(leaf.array) if isinstance(leaf, _Held) else leaf
