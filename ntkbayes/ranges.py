"""Validation of numeric settings: their type and range."""

import enum
import math
import numbers
from decimal import Decimal
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes.display import in_words
from ntkbayes.errors import ConfigurationError

Number = Any
"""A Python, NumPy, pandas or JAX number, before validation."""


class Range(enum.Enum):
    """An allowed range of real numbers, as worded in messages."""

    FINITE = "be finite"
    POSITIVE = "be positive"
    POSITIVE_FINITE = "be positive and finite"
    NOT_NEGATIVE = "be at least 0"
    NOT_NEGATIVE_FINITE = "be at least 0 and finite"
    OPEN_UNIT = "lie in (0, 1)"
    CLOSED_UNIT = "lie in [0, 1]"
    UNIT_WITHOUT_0 = "lie in (0, 1]"

    def __contains__(self, value: float) -> bool:
        return _CONTAINS[self](value)


_CONTAINS = {
    Range.FINITE: math.isfinite,
    Range.POSITIVE: lambda v: v > 0,
    Range.POSITIVE_FINITE: lambda v: 0 < v < math.inf,
    Range.NOT_NEGATIVE: lambda v: v >= 0,
    Range.NOT_NEGATIVE_FINITE: lambda v: 0 <= v < math.inf,
    Range.OPEN_UNIT: lambda v: 0 < v < 1,
    Range.CLOSED_UNIT: lambda v: 0 <= v <= 1,
    Range.UNIT_WITHOUT_0: lambda v: 0 < v <= 1,
}


def real(name: str, value: Number, within: Range) -> Any:
    """A real number of any type as a float. JAX float scalars stay arrays, for differentiation.

    Raises:
        ConfigurationError: the value is not a real number (booleans are not), is NaN, or is outside
            the range. Traced JAX scalars have no value to check.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    number = _number(name, value)
    if math.isnan(number) or number not in within:
        raise ConfigurationError(f"{name} must {within.value}; got {_shown(value)}")
    is_array = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)
    return value if is_array else number


def whole(name: str, value: Number, *, at_least: int = 1) -> int:
    """A whole number of any type as an int.

    Raises:
        ConfigurationError: the value is not a whole number, or too small.
    """
    number = _number(name, value)
    if not number.is_integer():  # nor are NaN and infinity
        raise ConfigurationError(
            f"{name} must be a whole number of at least {at_least}; got {_shown(value)}"
        )
    exact = _exact(value, number)
    if exact < at_least:
        raise ConfigurationError(f"{name} must be at least {at_least}; got {_shown(value)}")
    return exact


def real_field(name: str, default: float, within: Range) -> Any:
    """A field of an Equinox module, validated by `real`."""
    return eqx.field(default=default, converter=lambda value: real(name, value, within))


def whole_field(name: str, default: int, *, at_least: int = 1) -> Any:
    """A field of an Equinox module, validated by `whole`."""
    return eqx.field(default=default, converter=lambda value: whole(name, value, at_least=at_least))


def seed(value: Number) -> int:
    """The seed of a JAX key: a whole number in [0, 2^63).

    Raises:
        ConfigurationError: the value is not one.
    """
    number = _number("the seed", value)
    if not (number.is_integer() and 0 <= (exact := _exact(value, number)) < 2**63):
        raise ConfigurationError(f"the seed must be at least 0 and below 2^63; got {_shown(value)}")
    return exact


def _number(name: str, value: Any) -> float:
    scalar = value.item() if _is_scalar_array(value) else value
    if (
        np.ma.is_masked(value)
        or isinstance(scalar, bool)
        or not isinstance(scalar, numbers.Real | Decimal)
    ):
        raise ConfigurationError(f"{name} must be a number; got {_shown(value)}")
    try:
        return float(scalar)
    except OverflowError:
        return math.inf if scalar > 0 else -math.inf  # type: ignore[operator]


def _exact(value: Number, rounded: float) -> int:
    """A whole number, even one that float64 would round."""
    return int(value) if isinstance(value, numbers.Integral) else int(rounded)


def _is_scalar_array(value: Any) -> bool:
    return isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0


def _shown(value: Any) -> str:
    if np.ma.is_masked(value):
        return "a masked value"
    return in_words(value.item() if _is_scalar_array(value) else value)
