"""What belongs to an installed package, so that the package's version identifies it."""

import functools
import site
import sys
import sysconfig
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np


def type_name(thing: type) -> str:
    """The name of a type, with its module if that belongs to another package."""
    top = thing.__module__.partition(".")[0]
    has_module = is_installed_class(thing) and top not in ("builtins", "ntkbayes")
    return f"{thing.__module__}.{thing.__qualname__}" if has_module else thing.__qualname__


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages(), str(Path(__file__).parents[1])]
    return tuple(Path(path).resolve() for path in folders)


@functools.cache
def is_installed(path: str) -> bool:
    """Whether a file belongs to Python or an installed package, ours included."""
    if path.startswith("<frozen "):
        return True
    if path.startswith("<"):
        return False
    return any(Path(path).resolve().is_relative_to(folder) for folder in _installed_folders())


def is_installed_class(thing: type) -> bool:
    module = sys.modules.get(thing.__module__)
    if module is None or _attribute(module, thing.__qualname__) is not thing:
        return thing.__module__ == "builtins"
    return is_installed_module(thing.__module__)


def is_of_a_package(thing: FunctionType) -> bool:
    """Whether a function belongs to Python or an installed package, ours included. One pickled by value
    has no file, only a module."""
    path = thing.__code__.co_filename
    return is_installed_module(thing.__module__) if path == "<dynamic-code>" else is_installed(path)


def is_installed_module(name: str | None) -> bool:
    module = sys.modules.get(str(name))
    if module is None or name == "__main__":
        return False
    path = getattr(module, "__file__", None)
    return path is None or is_installed(path)


def installed_name(thing: Any) -> str | None:
    """The name of an object in an installed package; None if it has none."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if isinstance(thing, np.ufunc):
        return f"numpy.{name}" if getattr(np, str(name), None) is thing else None
    module = getattr(thing, "__module__", None)
    if name is None or not is_installed_module(module):
        return None
    original = _attribute(sys.modules[str(module)], name)
    return f"{module}.{name}" if original is thing or _is_copy(thing, original) else None


def _is_copy(thing: Any, original: Any) -> bool:
    """Whether a function, perhaps with a custom derivative rule, was pickled by value from `original`.
    A wrapper, though it has the name of what it wraps, was not."""
    if isinstance(thing, FunctionType):
        if thing.__closure__ is not None:
            return False
        while original is not None:
            if getattr(original, "__code__", None) == thing.__code__:
                return True
            original = getattr(original, "__wrapped__", None)
        return False
    codes = [
        getattr(getattr(each, "__wrapped__", None), "__code__", None) for each in (thing, original)
    ]
    return type(thing) is type(original) and codes[0] is not None and codes[0] == codes[1]


def _attribute(module: ModuleType, qualname: str) -> Any:
    value: Any = module
    for name in qualname.split("."):
        value = getattr(value, name, None)
    return value
