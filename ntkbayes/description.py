"""What a configuration is, as plain data: equal for equal ones, in every process, and different for
others.

Numbers, texts and containers are told as they are; large arrays by a digest; objects by their type and
fields; functions, and classes of the user's, by a digest of what they compute: code, default arguments,
closure and, outside of installed packages, the globals that they name, and so on. An object that has
none of these is told by its type alone and marked as `unidentified`.
"""

import dataclasses
import dis
import enum
import functools
import hashlib
import importlib
import json
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
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

from ntkbayes.errors import ConfigurationError

UNIDENTIFIED = "unidentified"
_COMPILED = (
    type(jax.jit(abs)),
    type(functools.cache(abs)),
)  # functions around another, not in Python
_SHOWN = 32  # numbers of an array; more are told by a digest


def describe(thing: object) -> Any:
    """A configuration as plain data, which JSON can hold.

    Raises:
        ConfigurationError: it is nested too deep.
    """
    try:
        return _Describer().tell(thing)
    except RecursionError as error:
        raise ConfigurationError(
            f"a setting of type {type(thing).__name__} is nested too deep to be recorded"
        ) from error


def unidentified(described: object) -> list[str]:
    """The types of all that `describe` could not tell from another of its type."""
    found: set[str] = set()
    if isinstance(described, Mapping):
        marked = described.get(UNIDENTIFIED, ())
        found.update(marked if isinstance(marked, list | tuple) else ())
        described = list(described.values())
    for part in described if isinstance(described, list | tuple) else ():
        found.update(unidentified(part))
    return sorted(found)


def digest(described: object) -> str:
    """Sixteen digits that tell plain data apart."""
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Describer:
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
            found = self._contents(thing)
        finally:
            self._open.discard(id(thing))
        self._told[id(thing)] = (
            thing,
            found,
        )  # with the object, whose id is its own while it lives
        return found

    def _contents(self, thing: Any) -> Any:
        """By kind: values, containers, code, objects."""
        if isinstance(thing, enum.Enum):
            return {"type": _name(type(thing)), "name": thing.name, "value": self.tell(thing.value)}
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
            inner = getattr(thing, "__wrapped__", None) or (_state(thing) or {}).get("fun")
            return None if inner is None else self.tell(inner)
        if (name := _installed_name(thing)) is not None:
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
        if _is_of_a_package(thing):
            name = f"{thing.__module__}.{name}" if _is_installed_module(thing.__module__) else name
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
        found: dict[tuple[str, ...], Any] = {}
        for name in _imports(code):
            found["import", name] = self._import(name)
        for first, *rest in _named(code):
            if first not in namespace:
                continue  # of Python's own, or not there
            value, path = namespace[first], [first]
            for name in rest:
                if not isinstance(value, ModuleType) or not hasattr(value, name):
                    break
                value = getattr(value, name)
                path.append(name)
            found[tuple(path)] = self.tell(value)
        return found

    def _import(self, name: str) -> Any:
        """A module that code imports when it runs."""
        try:
            return self.tell(importlib.import_module(name))
        except Exception:  # whatever a module raises; the code itself will raise it to the user
            return {"module": name, UNIDENTIFIED: ["module"]}

    def _class(self, thing: type) -> dict[str, Any]:
        """A class by name, and one of the user's by its members as well."""
        if _is_installed_class(thing):
            return {"class": _name(thing)}
        members = {
            name: self._member(value)
            for name, value in sorted(vars(thing).items())
            if name not in _BOOKKEEPING
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
        if path is None or _is_installed(path):
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
        told = {"type": _name(type(thing))}
        if not _is_installed_class(type(thing)):
            described = self.tell(type(thing))
            told |= {key: described[key] for key in ("code", UNIDENTIFIED) if key in described}
        fields = self._fields(thing)
        if fields is None:
            return {**told, UNIDENTIFIED: [_name(type(thing))]}
        return {**told, **{name: self.tell(value) for name, value in fields.items()}}

    def _fields(self, thing: Any) -> Mapping[str, Any] | None:
        """The values that make an object what it is, by name; None if they are not known."""
        if dataclasses.is_dataclass(thing):
            names = [f.name for f in dataclasses.fields(thing) if hasattr(thing, f.name)]
            return {name: getattr(thing, name) for name in names if name != "progress"}
        if any(base.__module__.startswith("numpyro.distributions") for base in type(thing).__mro__):
            return _numpyro_fields(thing)
        return _state(thing)


# --- what is in code ------------------------------------------------------------------------------

# Of a class, what does not say what it does.
_BOOKKEEPING = {
    "__abstractclassvars__",
    "__abstractmethods__",
    "__abstractvars__",
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__match_args__",
    "__module__",
    "__name__",
    "__orig_bases__",
    "__parameters__",
    "__qualname__",
    "__slotnames__",
    "__static_attributes__",
    "__type_params__",
    "__weakref__",
    "_abc_impl",
}


def _name(thing: type) -> str:
    """The name of a type: with its module where it is a package's."""
    top = thing.__module__.partition(".")[0]
    is_told = _is_installed_class(thing) and top not in ("builtins", "ntkbayes")
    return f"{thing.__module__}.{thing.__qualname__}" if is_told else thing.__qualname__


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _imports(code: CodeType) -> set[str]:
    """Modules that code imports when it runs."""
    instructions = (i for part in _codes(code) for i in dis.get_instructions(part))
    return {i.argval for i in instructions if i.opname == "IMPORT_NAME" and i.argval}


def _named(code: CodeType) -> Iterator[tuple[str, ...]]:
    """The global names that code uses, each with the attributes that it takes of it at once."""
    for part in _codes(code):
        path: list[str] = []
        for instruction in dis.get_instructions(part):
            if path and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                path.append(instruction.argval)
            elif instruction.opname not in ("CACHE", "PUSH_NULL", "EXTENDED_ARG"):
                if path:
                    yield tuple(path)
                is_global = instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
                path = [instruction.argval] if is_global else []


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    found = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [*site.getsitepackages(), site.getusersitepackages(), str(Path(__file__).parent)]
    return tuple(Path(path).resolve() for path in found)


@functools.cache
def _is_installed(path: str) -> bool:
    """Whether a file is Python's, a package's or ours: its version tells what is in it."""
    if path.startswith("<frozen "):
        return True
    if path.startswith("<"):
        return False
    return any(Path(path).resolve().is_relative_to(folder) for folder in _installed_folders())


def _is_installed_class(thing: type) -> bool:
    module = sys.modules.get(thing.__module__)
    if module is None or _attribute(module, thing.__qualname__) is not thing:
        return thing.__module__ == "builtins"
    return _is_installed_module(thing.__module__)


def _is_of_a_package(thing: FunctionType) -> bool:
    """Whether a function is Python's, a package's or ours. One that was pickled by value does not know
    its file, but its module."""
    path = thing.__code__.co_filename
    return (
        _is_installed_module(thing.__module__) if path == "<dynamic-code>" else _is_installed(path)
    )


def _is_installed_module(name: str | None) -> bool:
    module = sys.modules.get(str(name))
    if module is None or name == "__main__":
        return False
    path = getattr(module, "__file__", None)
    return path is None or _is_installed(path)


def _installed_name(thing: Any) -> str | None:
    """The name under which a package has an object, if it has."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if isinstance(thing, np.ufunc):
        return f"numpy.{name}" if getattr(np, str(name), None) is thing else None
    module = getattr(thing, "__module__", None)
    if name is None or not _is_installed_module(module):
        return None
    found = _attribute(sys.modules[str(module)], name)
    return f"{module}.{name}" if found is thing or _is_copy(thing, found) else None


def _is_copy(thing: Any, found: Any) -> bool:
    """Whether a function, or one with a rule for its derivative, was pickled by value from another.
    A wrapper, which has the name of what is within it, is none."""
    if isinstance(thing, FunctionType):
        if thing.__closure__ is not None:
            return False
        while found is not None:
            if getattr(found, "__code__", None) == thing.__code__:
                return True
            found = getattr(found, "__wrapped__", None)
        return False
    codes = [
        getattr(getattr(each, "__wrapped__", None), "__code__", None) for each in (thing, found)
    ]
    return type(thing) is type(found) and codes[0] is not None and codes[0] == codes[1]


def _attribute(module: ModuleType, qualname: str) -> Any:
    found: Any = module
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


# --- what is in objects ---------------------------------------------------------------------------


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


def _numpyro_fields(thing: Any) -> dict[str, Any]:
    """Parameters of a distribution, transform or constraint: not what it has computed from them."""
    if hasattr(thing, "gather_pytree_data_fields"):
        names = {*thing.gather_pytree_data_fields(), *thing.gather_pytree_aux_fields()}
        found = {name: vars(thing)[name] for name in sorted(names & vars(thing).keys())}
    else:
        values, (names, rest) = thing.tree_flatten()
        found = {**dict(zip(names, values, strict=True)), **rest}
    return {
        name: value
        for name, value in found.items()
        if not (value is None or (isinstance(value, tuple) and not value))
    }


def _state(thing: Any) -> dict[str, Any] | None:
    """What `pickle` would keep of an object; None if it keeps none."""
    try:
        reduced = thing.__reduce_ex__(4)
    except Exception:  # whatever an object raises that cannot be kept
        return None
    if isinstance(reduced, str):
        return {"name": reduced}
    make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    if getattr(make, "__name__", "") in ("__newobj__", "__newobj_ex__"):
        make, arguments = None, arguments[1:]
    told = {"made by": make, "arguments": arguments or None, "state": None}
    if isinstance(state, dict):
        told |= {str(name): v for name, v in state.items() if name not in _BOOKKEEPING}
    else:
        told["state"] = state
    told |= {"items": items and list(items), "pairs": pairs and list(pairs)}
    return {name: value for name, value in told.items() if value is not None}
