"""The Neural Tangent Kernel as a Bayesian object: laws of trained classifiers compared with Bayes.

    network → kernel → prior → method.fit(prior, data, key=key) → law → predictions → comparison

All solves are in float64: call `jax.config.update("jax_enable_x64", True)` first.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntkbayes._public import *

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazily: `import ntkbayes` is quick, and the command line starts, and can be stopped, before JAX.
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = import_module(f"{__name__}._public")
    if name == "__all__":
        public_names = {each for each in vars(public) if not each.startswith("_")}
        return sorted({*public_names, "checks", "lazy"})
    if not hasattr(public, name):
        from ntkbayes.errors import did_you_mean

        hint = did_you_mean(name, vars(public))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    return getattr(public, name)


def __dir__() -> list[str]:
    return sorted({*__getattr__("__all__"), "__version__"})
