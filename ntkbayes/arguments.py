"""What kind of thing an argument is: a key, a data set, a law; and what to do if it is another."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ntkbayes.display import in_words, with_article
from ntkbayes.errors import ArgumentError


def random_key(key: Any) -> PRNGKeyArray:
    """One JAX key, of the typed kind: an old one, raw numbers, gives the same draws.

    Raises:
        ArgumentError: it is a seed, NumPy's generator, several keys or anything else.
    """
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        typed = key
    elif _is_raw(key):
        typed = jax.random.wrap_key_data(key)
    else:
        is_seed = isinstance(key, int | np.integer) and not isinstance(key, bool) and key >= 0
        seed = int(key) if is_seed else 0
        raise ArgumentError(
            f"key must be a JAX key; got {in_words(key)}: give key=jax.random.key({seed})"
        )
    if typed.shape != ():
        raise ArgumentError(
            f"key must be one JAX key; got an array of {typed.size}: give one of them, keys[0], or map "
            "over them"
        )
    return typed


def _is_raw(key: Any) -> bool:
    """Whether these are the numbers of a key of JAX's default kind, as `jax.random.PRNGKey` makes."""
    if not isinstance(key, jax.Array | np.ndarray) or key.dtype != np.uint32:
        return False
    return key.ndim > 0 and key.shape[-1:] == jax.random.key_data(jax.random.key(0)).shape


def require(
    call: str, name: str, value: Any, kind: type | tuple[type, ...], remedy: Callable[[Any], str]
) -> None:
    """Check what was given for an argument.

    Args:
        call: as it should be, such as `fit(prior, data)`: whoever swapped arguments sees the order.
        name: of the argument.
        kind: what it must be an instance of.
        remedy: what to do about a wrong value, if that is known; else empty.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(value, kind):
        return
    expected = kind if isinstance(kind, type) else kind[0]
    told = remedy(value)
    if isinstance(value, type) and issubclass(value, kind):
        told = f"call the class: {value.__name__}(…)"
    wanted = "dict" if expected is Mapping else expected.__name__
    raise ArgumentError(
        f"in {call}, {name} must be {with_article(wanted)}; got {in_words(value)}"
        + (f": {told}" if told else "")
    )
