"""Descriptions of values, code and objects, each by its kind."""

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
_COMPILED = (
    type(jax.jit(abs)),
    type(functools.cache(abs)),
)  # functions around another, not in Python


_SHOWN = 32  # numbers of an array; more are identified by a digest


def describe(thing: object) -> Any:
    """A configuration as plain data, which JSON can hold.

    Raises:
        ConfigurationError: it is nested too deep.
    """
    try:
        return Describer().tell(thing)
    except RecursionError as error:
        raise ConfigurationError(
            f"a setting of type {type(thing).__name__} is nested too deep to be recorded"
        ) from error


def unidentified(described: object) -> list[str]:
    """The types of all that `describe` could not tell from another of its type."""
    types: set[str] = set()
    if isinstance(described, Mapping):
        marked = described.get(UNIDENTIFIED, ())
        types.update(marked if isinstance(marked, list | tuple) else ())
        described = list(described.values())
    for part in described if isinstance(described, list | tuple) else ():
        types.update(unidentified(part))
    return sorted(types)


def digest(described: object) -> str:
    """Sixteen digits that tell plain data apart."""
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Describer:
    """One description. Objects within themselves are told by name where they are met again."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._told: dict[int, tuple[object, Any]] = {}

    def tell(self, thing: Any) -> Any:
        if thing is None or type(thing) in (bool, int, float, str):
            return thing
        if id(thing) in self._told:
            return self._told[id(thing)][1]
        if id(thing) in self._open:
            return {"within itself": getattr(thing, "__qualname__", type(thing).__qualname__)}
        self._open.add(id(thing))
        try:
            told = self._contents(thing)
        finally:
            self._open.discard(id(thing))
        self._told[id(thing)] = (
            thing,
            told,
        )  # with the object, whose id is its own while it lives
        return told

    def _contents(self, thing: Any) -> Any:
        """By kind: values, containers, code, objects."""
        if isinstance(thing, enum.Enum):
            return {
                "type": type_name(type(thing)),
                "name": thing.name,
                "value": self.tell(thing.value),
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
            return [self.tell(part) for part in thing]
        if type(thing) in (set, frozenset):
            return {"set": sorted((self.tell(part) for part in thing), key=json.dumps)}
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
            return f"{type(key).__name__} {json.dumps(self.tell(key), sort_keys=True)}"

        return {name(key): self.tell(value) for key, value in thing.items()}

    # --- code -------------------------------------------------------------------------------------

    def _function(self, thing: Any) -> Any:
        """What a callable is, if it is one made of code, or known by its name."""
        if isinstance(thing, functools.partial):
            parts = (thing.func, thing.args, thing.keywords)
            names = ("function", "arguments", "keywords")
            return dict(zip(names, map(self.tell, parts), strict=True))
        if isinstance(thing, MethodType):
            return {"method": self.tell(thing.__func__), "of": self.tell(thing.__self__)}
        if isinstance(thing, _COMPILED):  # computes what the function does
            inner = getattr(thing, "__wrapped__", None) or (pickled_state(thing) or {}).get("fun")
            return None if inner is None else self.tell(inner)
        if (name := installed_name(thing)) is not None:
            return {"function": name}
        if isinstance(thing, FunctionType):
            return self._python(thing)
        if isinstance(thing, BuiltinFunctionType):
            return {"method": thing.__name__, "of": self.tell(thing.__self__)}
        return None

    def _python(self, thing: FunctionType) -> dict[str, Any]:
        """A function by its code and by what the code reaches."""
        code = thing.__code__
        cells: tuple[CellType, ...] = thing.__closure__ or ()
        reached = {
            "code": self._code(code),
            "defaults": self.tell(thing.__defaults__),
            "keyword defaults": self.tell(thing.__kwdefaults__),
            "closure": {
                name: self._cell(cell) for name, cell in zip(code.co_freevars, cells, strict=True)
            },
        }
        name = thing.__qualname__
        if is_of_a_package(thing):
            name = f"{thing.__module__}.{name}" if is_installed_module(thing.__module__) else name
        else:
            reached["globals"] = {
                ".".join(path): told
                for path, told in sorted(self._globals(code, thing.__globals__).items())
            }
        return self._digested("function", name, reached)

    def _cell(self, cell: CellType) -> Any:
        try:
            return self.tell(cell.cell_contents)
        except ValueError:
            return "empty"

    def _code(self, code: CodeType) -> list[Any]:
        """What a code object does: all but names of files and numbers of lines."""
        return [
            code.co_code.hex(),
            code.co_exceptiontable.hex(),
            [self.tell(value) for value in code.co_consts],
            [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars],
            [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags],
        ]

    def _globals(self, code: CodeType, namespace: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
        """What code finds in the namespace, by name; of modules, what it takes of them."""
        reached: dict[tuple[str, ...], Any] = {}
        for name in imported_names(code):
            reached["import", name] = self._import(name)
        for first, *rest in global_names(code):
            if first not in namespace:
                continue  # of Python's own, or not there
            value, path = namespace[first], [first]
            for name in rest:
                if not isinstance(value, ModuleType) or not hasattr(value, name):
                    break
                value = getattr(value, name)
                path.append(name)
            reached[tuple(path)] = self.tell(value)
        return reached

    def _import(self, name: str) -> Any:
        """A module that code imports when it runs."""
        try:
            return self.tell(importlib.import_module(name))
        except Exception:  # whatever a module raises; the code itself will raise it to the user
            return {"module": name, UNIDENTIFIED: ["module"]}

    def _class(self, thing: type) -> dict[str, Any]:
        """A class by name, and one of the user's by its members as well."""
        if is_installed_class(thing):
            return {"class": type_name(thing)}
        members = {
            name: self._member(value)
            for name, value in sorted(vars(thing).items())
            if name not in BOOKKEEPING
        }
        fields = {
            field.name: [self.tell(field.default), self.tell(field.default_factory)]
            for field in vars(thing).get("__dataclass_fields__", {}).values()
        }
        bases = [self.tell(base) for base in thing.__bases__]
        reached = {"members": members, "fields": fields, "bases": bases}
        return self._digested("class", thing.__qualname__, reached)

    def _member(self, thing: Any) -> Any:
        if isinstance(thing, staticmethod | classmethod):
            return [type(thing).__name__, self.tell(thing.__func__)]
        if isinstance(thing, property):
            return ["property", *map(self.tell, (thing.fget, thing.fset, thing.fdel))]
        if isinstance(thing, functools.cached_property):
            return ["cached_property", self.tell(thing.func)]
        if type(thing).__name__ in ("member_descriptor", "getset_descriptor"):
            return type(thing).__name__
        return self.tell(thing)

    def _module(self, thing: ModuleType) -> dict[str, Any]:
        """A module by name, and one of the user's by its source and that of the user's it imports."""
        path = getattr(thing, "__file__", None)
        told = {"module": thing.__name__}
        if path is None and thing.__name__ not in sys.builtin_module_names:
            return {**told, UNIDENTIFIED: ["module"]}
        if path is None or is_installed(path):
            return told
        within = {
            name: self.tell(value)
            for name, value in sorted(vars(thing).items())
            if isinstance(value, ModuleType)
        }
        source = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return self._digested("module", thing.__name__, {"source": source, "modules": within})

    def _digested(self, kind: str, name: str, reached: Mapping[str, Any]) -> dict[str, Any]:
        told = {kind: name, "code": digest(reached)}
        return {**told, UNIDENTIFIED: lost} if (lost := unidentified(reached)) else told

    # --- objects ----------------------------------------------------------------------------------

    def _object(self, thing: Any) -> dict[str, Any]:
        """An object by its type and fields."""
        told = {"type": type_name(type(thing))}
        if not is_installed_class(type(thing)):
            described = self.tell(type(thing))
            told |= {key: described[key] for key in ("code", UNIDENTIFIED) if key in described}
        fields = self._fields(thing)
        if fields is None:
            return {**told, UNIDENTIFIED: [type_name(type(thing))]}
        return {**told, **{name: self.tell(value) for name, value in fields.items()}}

    def _fields(self, thing: Any) -> Mapping[str, Any] | None:
        """The values that make an object what it is, by name; None if they are not known."""
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
    told = {"dtype": str(values.dtype), "shape": list(values.shape)}
    if values.size <= _SHOWN and values.dtype.kind in "biuf":
        return {**told, "values": values.astype(np.float64).tolist()}
    return {**told, "digest": hashlib.sha256(values.tobytes()).hexdigest()[:16]}
