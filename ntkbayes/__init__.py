"""The Neural Tangent Kernel as a Bayesian object: laws of trained classifiers, next to Bayes.

    network → kernel → prior → method.fit(prior, data, key=key) → law → predictions → comparison

All solves are in float64: call `jax.config.update("jax_enable_x64", True)` first.
"""

from importlib import import_module
from typing import Any

from ntkbayes import activations, calibration, datasets, distances, kernels, likelihood, networks
from ntkbayes.bridges.arviz import from_datatree, to_datatree
from ntkbayes.comparison import Comparison, compare
from ntkbayes.datasets import Dataset
from ntkbayes.laws import MAP, NUTS, FiniteEnsemble, FirstOrder, Laplace, RandomInit
from ntkbayes.predictive import Predictions, predict
from ntkbayes.prior import NTKPrior, linearise
from ntkbayes.storage import load, save

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "lazy":  # a tenth of the import, and most users never train a network
        return import_module("ntkbayes.lazy")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MAP",
    "NUTS",
    "Comparison",
    "Dataset",
    "FiniteEnsemble",
    "FirstOrder",
    "Laplace",
    "NTKPrior",
    "Predictions",
    "RandomInit",
    "activations",
    "calibration",
    "compare",
    "datasets",
    "distances",
    "from_datatree",
    "kernels",
    "lazy",
    "likelihood",
    "linearise",
    "load",
    "networks",
    "predict",
    "save",
    "to_datatree",
]
