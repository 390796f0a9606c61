"""The Neural Tangent Kernel as a Bayesian object: laws of trained classifiers, next to Bayes.

    network → kernel → prior → method.fit(prior, data, key=key) → law → predictions → comparison

All solves are in float64: call `jax.config.update("jax_enable_x64", True)` first.
"""

from importlib import import_module
from typing import Any

from ntkbayes import (
    activations,
    calibration,
    conformal,
    datasets,
    detection,
    distances,
    kernels,
    likelihood,
    networks,
    selective,
)
from ntkbayes.bridges.arviz import from_datatree, to_datatree
from ntkbayes.comparison import Comparison, compare
from ntkbayes.datasets import Dataset
from ntkbayes.evidence import log_evidence, maximise_evidence
from ntkbayes.laws import (
    MAP,
    NUTS,
    DirichletGP,
    ExpectationPropagation,
    FiniteEnsemble,
    FirstOrder,
    FullBayes,
    ImportanceCorrected,
    Laplace,
    MeanField,
    PerturbedInit,
    Prior,
    PrunedLaplace,
    RandomInit,
    SplitHMC,
    TemperatureScaled,
    Variational,
    numpyro_model,
)
from ntkbayes.linalg import over_devices
from ntkbayes.model_selection import cross_validated_nll, leave_one_out, scan
from ntkbayes.predictive import Predictions, predict
from ntkbayes.prior import NTKPrior, linearise
from ntkbayes.storage import load, save

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("checks", "lazy"):  # what not every user needs is imported when asked for
        return import_module(f"ntkbayes.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
