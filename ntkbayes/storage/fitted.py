"""A fitted law on disk: one zip file of arrays and a description of the objects that hold them.

Nothing is pickled: a file can make objects of this library, and run no code of its own.
"""

import dataclasses
import enum
import importlib
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes.errors import ConfigurationError, NewerFormatError, StorageError
from ntkbayes.files import load_arrays, require_file, save_arrays
from ntkbayes.laws import Law
from ntkbayes.linalg import require_float64

_FORMAT, _VERSION = "fitted law of ntkbayes", 1
_DESCRIPTION = "description"
_PACKAGE = "ntkbayes"


def save_law(law: Law, path: str | os.PathLike) -> None:
    """Write a fitted law to a file, by convention with the suffix .law, which `load_law` reads anywhere.

    The file holds all that the law knows: training data, Grams, factors and draws. Arrays keep their
    precision.

    Raises:
        ConfigurationError: the law holds a function or an object of your own, such as a network's
            forward pass: there is no way to write code down. Save the parameters, and fit again.
        StorageError: the file cannot be written; what was there is unchanged.
    """
    if not isinstance(law, Law):
        raise ConfigurationError(
            f"save_law takes a fitted law; got {type(law).__name__}. Comparisons have nb.save"
        )
    arrays: dict[str, np.ndarray] = {}
    described = {"format": _FORMAT, "version": _VERSION, "law": _Writer(arrays).described(law)}
    text = json.dumps(described, allow_nan=False).encode()
    save_arrays(Path(path), {_DESCRIPTION: np.frombuffer(text, dtype=np.uint8), **arrays})


def load_law(path: str | os.PathLike) -> Law:
    """The law that `save_law` wrote: the same numbers, and the same draws from the same key.

    Raises:
        StorageError: there is no such file, it is broken, or it holds no law.
        NewerFormatError: a later version of ntkbayes wrote it.
        PrecisionError: JAX is not in float64.
    """
    require_float64()
    path = Path(path)
    require_file(path)
    arrays = load_arrays(path)
    try:
        described = json.loads(arrays.pop(_DESCRIPTION).tobytes())
        if described["format"] != _FORMAT:
            raise ValueError("another format")
        version = int(described["version"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} holds no fitted law; save_law writes them") from error
    if version > _VERSION:
        raise NewerFormatError(
            f"{path} was written by a later version of ntkbayes (format {version}, this one reads up to "
            f"{_VERSION}); upgrade ntkbayes"
        )
    try:
        law = _Reader(arrays).made(described["law"])
    except StorageError:
        raise
    except Exception as error:  # a broken file breaks constructors of all kinds
        raise StorageError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(law, Law):
        raise StorageError(f"{path} holds a {type(law).__name__}, no law; save_law writes them")
    return law


# --- writing --------------------------------------------------------------------------------------


class _Writer:
    """Objects as plain data; their arrays are put aside, each once."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self._written: dict[int, tuple[object, str]] = {}

    def described(self, thing: Any) -> Any:
        if thing is None or type(thing) in (bool, int, str):
            return thing
        if type(thing) is float:
            return thing if math.isfinite(thing) else {"float": str(thing)}
        for kind, is_of_kind, parts in _KINDS:
            if is_of_kind(thing):
                return {kind: parts(self, thing)}
        raise ConfigurationError(
            f"the law holds {_name(thing)}, which is not part of ntkbayes and cannot be written to a "
            "file; save the parameters of your network, and fit the law again where it is needed"
        )

    def array(self, values: Any) -> dict[str, Any]:
        if id(values) not in self._written:
            name = str(len(self.arrays))
            array = np.asarray(values)
            if array.dtype.hasobject:
                raise ConfigurationError(
                    "the law holds an array of Python objects; make it numbers"
                )
            if (
                not array.dtype.isbuiltin
            ):  # bfloat16 and the like, which NumPy's format does not know
                array = array.view(f"u{array.dtype.itemsize}")
            self.arrays[name] = array
            self._written[id(values)] = (
                values,
                name,
            )  # with the object: its id is its own till then
        return {"name": self._written[id(values)][1], "dtype": str(values.dtype)}

    def fields(self, thing: Any) -> dict[str, Any]:
        names = (field.name for field in dataclasses.fields(thing))
        return {
            "class": _name(type(thing)),
            "fields": {name: self.described(getattr(thing, name)) for name in names},
        }

    def items(self, things: Any) -> list[Any]:
        return [self.described(thing) for thing in things]

    def pairs(self, mapping: dict) -> list[list[Any]]:
        return [[self.described(key), self.described(value)] for key, value in mapping.items()]


def _is_ours(thing: Any) -> bool:
    """Whether a class or function can be found again under its name in this library."""
    module, name = str(getattr(thing, "__module__", "")), getattr(thing, "__qualname__", "")
    if module.partition(".")[0] != _PACKAGE or "<" in name:
        return False
    return _found(f"{module}:{name}") is thing


def _name(thing: Any) -> str:
    if not isinstance(thing, type | FunctionType):
        thing = type(thing)
    return f"{thing.__module__}:{thing.__qualname__}"


def _is_key(thing: Any) -> bool:
    return isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key)


_Parts = Callable[[_Writer, Any], Any]
_KINDS: list[tuple[str, Callable[[Any], bool], _Parts]] = [
    (
        "enum",
        lambda v: isinstance(v, enum.Enum) and _is_ours(type(v)),
        lambda w, v: [_name(v), v.name],
    ),
    ("str", lambda v: isinstance(v, str), lambda w, v: str(v)),
    ("key", _is_key, lambda w, v: [str(jax.random.key_impl(v)), w.array(jax.random.key_data(v))]),
    ("jax", lambda v: isinstance(v, jax.Array), lambda w, v: w.array(v)),
    ("numpy", lambda v: isinstance(v, np.ndarray), lambda w, v: w.array(v)),
    ("scalar", lambda v: isinstance(v, np.generic), lambda w, v: w.array(v)),
    ("dtype", lambda v: isinstance(v, np.dtype), lambda w, v: v.name),
    ("list", lambda v: type(v) is list, lambda w, v: w.items(v)),
    ("tuple", lambda v: type(v) is tuple, lambda w, v: w.items(v)),
    ("dict", lambda v: type(v) is dict, lambda w, v: w.pairs(v)),
    (
        "named tuple",
        lambda v: isinstance(v, tuple) and hasattr(v, "_fields") and _is_ours(type(v)),
        lambda w, v: [_name(v), w.items(v)],
    ),
    (
        "object",
        lambda v: dataclasses.is_dataclass(v) and not isinstance(v, type) and _is_ours(type(v)),
        lambda w, v: w.fields(v),
    ),
    ("ours", lambda v: isinstance(v, type | FunctionType) and _is_ours(v), lambda w, v: _name(v)),
]


# --- reading --------------------------------------------------------------------------------------


class _Reader:
    """The inverse of `_Writer`, kind by kind."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self._on_device: dict[str, jax.Array] = {}

    def made(self, described: Any) -> Any:
        if not isinstance(described, dict):
            return described
        ((kind, parts),) = described.items()
        match kind:
            case "float":
                return float(parts)
            case "str":
                return str(parts)
            case "enum":
                return _found(parts[0], enum.Enum)[parts[1]]
            case "key":
                return jax.random.wrap_key_data(jax.device_put(self.array(parts[1])), impl=parts[0])
            case "jax":
                if parts["name"] not in self._on_device:
                    self._on_device[parts["name"]] = jax.device_put(self.array(parts))
                return self._on_device[parts["name"]]
            case "numpy":
                return self.array(parts)
            case "scalar":
                return self.array(parts)[()]
            case "dtype":
                return jnp.dtype(parts)
            case "list":
                return [self.made(part) for part in parts]
            case "tuple":
                return tuple(self.made(part) for part in parts)
            case "dict":
                return {self.made(key): self.made(value) for key, value in parts}
            case "named tuple":
                return _found(parts[0], tuple)(*(self.made(part) for part in parts[1]))
            case "object":
                return self.object(parts)
            case "ours":
                return _found(parts)
        raise StorageError(f"it holds a {kind!r}, which this version of ntkbayes does not know")

    def array(self, described: dict[str, Any]) -> np.ndarray:
        return self.arrays[described["name"]].view(jnp.dtype(described["dtype"]))

    def object(self, described: dict[str, Any]) -> Any:
        """A dataclass of ours. Modules are put together as Equinox does it, without their constructors,
        which would compute anew."""
        kind = _found(described["class"])
        fields = {name: self.made(value) for name, value in described["fields"].items()}
        expected = {field.name for field in dataclasses.fields(kind)}
        if set(fields) != expected:
            raise StorageError(
                f"its {kind.__name__} has the fields {sorted(fields)}, this version of ntkbayes expects "
                f"{sorted(expected)}; load it with the version that wrote it"
            )
        if not issubclass(kind, eqx.Module):
            return kind(**fields)
        made = object.__new__(kind)
        for name, value in fields.items():
            object.__setattr__(made, name, value)
        return made


def _found(name: str, kind: type = object) -> Any:
    """A class or function of this library by its name.

    Raises:
        StorageError: there is none.
    """
    module, _, path = name.partition(":")
    if not re.fullmatch(rf"{_PACKAGE}(\.\w+)*", module) or not re.fullmatch(r"\w+(\.\w+)*", path):
        raise StorageError(f"it names {name!r}, which is no part of ntkbayes")
    try:
        thing: Any = importlib.import_module(module)
        for part in path.split("."):
            thing = getattr(thing, part)
    except (ImportError, AttributeError) as error:
        raise StorageError(f"it names {name!r}, which this version of ntkbayes has not") from error
    of_ours = getattr(thing, "__module__", None) == module
    if not of_ours or (
        kind is not object and not (isinstance(thing, type) and issubclass(thing, kind))
    ):
        raise StorageError(f"it names {name!r}, which is not what belongs there")
    return thing
