"""The Neural Tangent Kernel as a Bayesian object: laws of trained classifiers compared with Bayes.

    network → kernel → prior → method.fit(prior, data, key=key) → law → predictions → comparison

All solves are in float64: call `jax.config.update("jax_enable_x64", True)` first.
"""

import ast
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntkbayes._public import *

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazily: `import ntkbayes` is quick, the command line starts, and can be stopped, before JAX, and a
    # name imports what it needs and no more.
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in (homes := _homes()):
        home = import_module(homes[name])
        return (
            getattr(home, name) if hasattr(home, name) else import_module(f"{homes[name]}.{name}")
        )
    public = import_module(f"{__name__}._public")
    if name == "__all__":
        public_names = {each for each in vars(public) if not each.startswith("_")}
        return sorted({*public_names, "checks", "lazy"})
    if not hasattr(public, name):
        from ntkbayes.errors import did_you_mean

        hint = did_you_mean(name, vars(public))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    return getattr(public, name)


@cache
def _homes() -> dict[str, str]:
    """The module of each public name, as the imports of `_public` say, without running them."""
    source = Path(__file__).with_name("_public.py").read_text(encoding="utf-8")
    imports = (node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom))
    return {each.name: node.module for node in imports if node.module for each in node.names}


def __dir__() -> list[str]:
    return sorted({*__getattr__("__all__"), "__version__"})
