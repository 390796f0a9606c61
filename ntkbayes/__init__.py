"""The Neural Tangent Kernel as a Bayesian object: laws of trained classifiers, next to Bayes.

network → kernel → prior → method.fit(prior, data, key=key) → law → predictions → comparison
"""

from ntkbayes import activations, calibration, datasets, kernels, likelihood, networks
from ntkbayes.datasets import Dataset
from ntkbayes.laws import MAP, NUTS, FirstOrder, Laplace, RandomInit
from ntkbayes.prior import NTKPrior

__version__ = "0.1.0"

__all__ = [
    "MAP",
    "NUTS",
    "Dataset",
    "FirstOrder",
    "Laplace",
    "NTKPrior",
    "RandomInit",
    "activations",
    "calibration",
    "datasets",
    "kernels",
    "likelihood",
    "networks",
]
