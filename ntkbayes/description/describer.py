"""Descriptions of values, code and objects, by type."""

import dataclasses
import enum
import functools
import hashlib
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import jax
import numpy as np

from ntkbayes.description.code import global_names, imported_names
from ntkbayes.description.installed import (
    installed_name,
    is_installed,
    is_installed_class,
    is_installed_module,
    is_of_a_package,
    type_name,
)
from ntkbayes.description.objects import BOOKKEEPING, numpyro_fields, pickled_state
from ntkbayes.errors import ConfigurationError

UNIDENTIFIED = "unidentified"
# Wrappers of functions that are not written in Python.
_COMPILED = (type(jax.jit(abs)), type(functools.cache(abs)))

_SHOWN = 32  # numbers of an array; larger arrays become a digest


def describe(thing: object) -> Any:
    """A configuration as plain data that JSON can hold.

    Raises:
        ConfigurationError: it is nested too deep.
    """
    try:
        return Describer().describe(thing)
    except RecursionError as error:
        raise ConfigurationError(
            f"a setting of type {type(thing).__name__} is nested too deep to be recorded"
        ) from error


def unidentified(described: object) -> list[str]:
    """The types of which `describe` could not distinguish objects."""
    types: set[str] = set()
    if isinstance(described, Mapping):
        marked = described.get(UNIDENTIFIED, ())
        types.update(marked if isinstance(marked, list | tuple) else ())
        described = list(described.values())
    for part in described if isinstance(described, list | tuple) else ():
        types.update(unidentified(part))
    return sorted(types)


def digest(described: object) -> str:
    """Sixteen hexadecimal digits that identify plain data."""
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Describer:
    """One description. An object nested in itself is named where it recurs."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._described: dict[int, tuple[object, Any]] = {}

    def describe(self, thing: Any) -> Any:
        if thing is None or type(thing) in (bool, int, float, str):
            return thing
        if id(thing) in self._described:
            return self._described[id(thing)][1]
        if id(thing) in self._open:
            return {"within itself": getattr(thing, "__qualname__", type(thing).__qualname__)}
        self._open.add(id(thing))
        try:
            description = self._contents(thing)
        finally:
            self._open.discard(id(thing))
        # With the object: its id is unique only while it lives.
        self._described[id(thing)] = (thing, description)
        return description

    def _contents(self, thing: Any) -> Any:
        """By type: values, containers, code, objects."""
        if isinstance(thing, enum.Enum):
            return {
                "type": type_name(type(thing)),
                "name": thing.name,
                "value": self.describe(thing.value),
            }
        if isinstance(thing, np.dtype):
            return str(thing)
        if isinstance(thing, np.ndarray | np.generic | jax.Array):
            return _array(thing)
        if isinstance(thing, bytes | bytearray):
            return {"bytes": hashlib.sha256(thing).hexdigest()[:16]}
        if type(thing) in (dict, MappingProxyType):
            return self._mapping(thing)
        if type(thing) in (list, tuple):
            return [self.describe(part) for part in thing]
        if type(thing) in (set, frozenset):
            return {"set": sorted((self.describe(part) for part in thing), key=json.dumps)}
        if isinstance(thing, ModuleType):
            return self._module(thing)
        if isinstance(thing, CodeType):
            return self._code(thing)
        if isinstance(thing, type):
            return self._class(thing)
        if callable(thing) and (known := self._function(thing)) is not None:
            return known
        return self._object(thing)

    def _mapping(self, thing: Mapping) -> dict[str, Any]:
        def name(key: object) -> str:
            if isinstance(key, str):
                return key
            return f"{type(key).__name__} {json.dumps(self.describe(key), sort_keys=True)}"

        return {name(key): self.describe(value) for key, value in thing.items()}

    # --- code -------------------------------------------------------------------------------------

    def _function(self, thing: Any) -> Any:
        """A callable by its code or its name; None if it has neither."""
        if isinstance(thing, functools.partial):
            parts = (thing.func, thing.args, thing.keywords)
            names = ("function", "arguments", "keywords")
            return dict(zip(names, map(self.describe, parts), strict=True))
        if isinstance(thing, MethodType):
            return {"method": self.describe(thing.__func__), "of": self.describe(thing.__self__)}
        if isinstance(thing, _COMPILED):  # computes what the wrapped function does
            inner = getattr(thing, "__wrapped__", None) or (pickled_state(thing) or {}).get("fun")
            return None if inner is None else self.describe(inner)
        if (name := installed_name(thing)) is not None:
            return {"function": name}
        if isinstance(thing, FunctionType):
            return self._python(thing)
        if isinstance(thing, BuiltinFunctionType):
            return {"method": thing.__name__, "of": self.describe(thing.__self__)}
        return None

    def _python(self, thing: FunctionType) -> dict[str, Any]:
        """A function by its code and everything that the code reaches."""
        code = thing.__code__
        cells: tuple[CellType, ...] = thing.__closure__ or ()
        reached = {
            "code": self._code(code),
            "defaults": self.describe(thing.__defaults__),
            "keyword defaults": self.describe(thing.__kwdefaults__),
            "closure": {
                name: self._cell(cell) for name, cell in zip(code.co_freevars, cells, strict=True)
            },
        }
        name = thing.__qualname__
        if is_of_a_package(thing):
            name = f"{thing.__module__}.{name}" if is_installed_module(thing.__module__) else name
        else:
            reached["globals"] = {
                ".".join(path): description
                for path, description in sorted(self._globals(code, thing.__globals__).items())
            }
        return self._digested("function", name, reached)

    def _cell(self, cell: CellType) -> Any:
        try:
            return self.describe(cell.cell_contents)
        except ValueError:
            return "empty"

    def _code(self, code: CodeType) -> list[Any]:
        """A code object without file names and line numbers."""
        return [
            code.co_code.hex(),
            code.co_exceptiontable.hex(),
            [self.describe(value) for value in code.co_consts],
            [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars],
            [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags],
        ]

    def _globals(self, code: CodeType, namespace: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
        """What code looks up in the namespace, by name; of modules, the attributes used."""
        reached: dict[tuple[str, ...], Any] = {}
        for name in imported_names(code):
            reached["import", name] = self._import(name)
        for first, *rest in global_names(code):
            if first not in namespace:
                continue  # a builtin, or missing
            value, path = namespace[first], [first]
            for name in rest:
                if not isinstance(value, ModuleType) or not hasattr(value, name):
                    break
                value = getattr(value, name)
                path.append(name)
            reached[tuple(path)] = self.describe(value)
        return reached

    def _import(self, name: str) -> Any:
        """A module that code imports at run time."""
        try:
            return self.describe(importlib.import_module(name))
        except Exception:  # anything the import raises, as it will again when the code runs
            return {"module": name, UNIDENTIFIED: ["module"]}

    def _class(self, thing: type) -> dict[str, Any]:
        """A class by name, and a user-defined one also by its members."""
        if is_installed_class(thing):
            return {"class": type_name(thing)}
        members = {
            name: self._member(value)
            for name, value in sorted(vars(thing).items())
            if name not in BOOKKEEPING
        }
        fields = {
            field.name: [self.describe(field.default), self.describe(field.default_factory)]
            for field in vars(thing).get("__dataclass_fields__", {}).values()
        }
        bases = [self.describe(base) for base in thing.__bases__]
        reached = {"members": members, "fields": fields, "bases": bases}
        return self._digested("class", thing.__qualname__, reached)

    def _member(self, thing: Any) -> Any:
        if isinstance(thing, staticmethod | classmethod):
            return [type(thing).__name__, self.describe(thing.__func__)]
        if isinstance(thing, property):
            return ["property", *map(self.describe, (thing.fget, thing.fset, thing.fdel))]
        if isinstance(thing, functools.cached_property):
            return ["cached_property", self.describe(thing.func)]
        if type(thing).__name__ in ("member_descriptor", "getset_descriptor"):
            return type(thing).__name__
        return self.describe(thing)

    def _module(self, thing: ModuleType) -> dict[str, Any]:
        """A module by name, and a user's also by its source and that of user modules it imports."""
        path = getattr(thing, "__file__", None)
        description = {"module": thing.__name__}
        if path is None and thing.__name__ not in sys.builtin_module_names:
            return {**description, UNIDENTIFIED: ["module"]}
        if path is None or is_installed(path):
            return description
        within = {
            name: self.describe(value)
            for name, value in sorted(vars(thing).items())
            if isinstance(value, ModuleType)
        }
        source = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return self._digested("module", thing.__name__, {"source": source, "modules": within})

    def _digested(self, kind: str, name: str, reached: Mapping[str, Any]) -> dict[str, Any]:
        description = {kind: name, "code": digest(reached)}
        return (
            {**description, UNIDENTIFIED: lost} if (lost := unidentified(reached)) else description
        )

    # --- objects ----------------------------------------------------------------------------------

    def _object(self, thing: Any) -> dict[str, Any]:
        """An object by its type and fields."""
        description = {"type": type_name(type(thing))}
        if not is_installed_class(type(thing)):
            of_class = self.describe(type(thing))
            description |= {key: of_class[key] for key in ("code", UNIDENTIFIED) if key in of_class}
        fields = self._fields(thing)
        if fields is None:
            return {**description, UNIDENTIFIED: [type_name(type(thing))]}
        return {**description, **{name: self.describe(value) for name, value in fields.items()}}

    def _fields(self, thing: Any) -> Mapping[str, Any] | None:
        """The values that determine an object, by name; None if unknown."""
        if dataclasses.is_dataclass(thing):
            names = [f.name for f in dataclasses.fields(thing) if hasattr(thing, f.name)]
            return {name: getattr(thing, name) for name in names if name != "progress"}
        if any(base.__module__.startswith("numpyro.distributions") for base in type(thing).__mro__):
            return numpyro_fields(thing)
        return pickled_state(thing)


def _array(thing: Any) -> Any:
    """An array by its numbers, or by a digest of them."""
    if isinstance(thing, jax.Array) and jax.dtypes.issubdtype(thing.dtype, jax.dtypes.prng_key):
        data = _array(jax.random.key_data(thing))
        return {"key": str(jax.random.key_impl(thing)), "data": data}
    values = np.asarray(thing)
    if values.dtype.kind == "O":
        return {"array": describe(values.tolist())}
    plain = values.dtype in (np.float64, np.int64, np.bool_)
    if values.size <= _SHOWN and plain:
        return values.tolist()
    description = {"dtype": str(values.dtype), "shape": list(values.shape)}
    if values.size <= _SHOWN and values.dtype.kind in "biuf":
        return {**description, "values": values.astype(np.float64).tolist()}
    return {**description, "digest": hashlib.sha256(values.tobytes()).hexdigest()[:16]}
