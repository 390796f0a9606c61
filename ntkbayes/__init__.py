"""The Neural Tangent Kernel as a Bayesian object: laws of trained classifiers, next to Bayes.

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
    # So the command line is there before JAX is, and can be stopped, and `import ntkbayes` is quick.
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    if name in __all__:
        return getattr(import_module(f"{__name__}._public"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "MAP",
    "NUTS",
    "Comparison",
    "Dataset",
    "DirichletGP",
    "ExpectationPropagation",
    "FiniteEnsemble",
    "FirstOrder",
    "FullBayes",
    "ImportanceCorrected",
    "Laplace",
    "MeanField",
    "NTKPrior",
    "PerturbedInit",
    "Predictions",
    "Prior",
    "PrunedLaplace",
    "RandomInit",
    "SplitHMC",
    "Study",
    "TemperatureScaled",
    "Variational",
    "activations",
    "calibration",
    "checks",
    "compare",
    "conformal",
    "cross_validated_nll",
    "datasets",
    "detection",
    "distances",
    "from_datatree",
    "kernels",
    "lazy",
    "leave_one_out",
    "likelihood",
    "linearise",
    "load",
    "log_evidence",
    "maximise_evidence",
    "networks",
    "numpyro_model",
    "over_devices",
    "predict",
    "save",
    "scan",
    "selective",
    "to_datatree",
]
