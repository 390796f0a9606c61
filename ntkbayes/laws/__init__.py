"""Laws: distributions over logit functions, and the methods that obtain them."""

from ntkbayes.laws.base import Law, Method
from ntkbayes.laws.dirichlet import DirichletGP
from ntkbayes.laws.expectation_propagation import ExpectationPropagation
from ntkbayes.laws.finite_ensemble import FiniteEnsemble
from ntkbayes.laws.full_bayes import FullBayes, numpyro_model
from ntkbayes.laws.importance import ImportanceCorrected
from ntkbayes.laws.laplace import Laplace
from ntkbayes.laws.nuts import NUTS
from ntkbayes.laws.perturbed_init import PerturbedInit
from ntkbayes.laws.point import MAP
from ntkbayes.laws.prior import Prior
from ntkbayes.laws.pruned_laplace import PrunedLaplace
from ntkbayes.laws.random_init import FirstOrder, RandomInit
from ntkbayes.laws.split_hmc import SplitHMC
from ntkbayes.laws.temperature import TemperatureScaled
from ntkbayes.laws.variational import MeanField, Variational

__all__ = [
    "MAP",
    "NUTS",
    "DirichletGP",
    "ExpectationPropagation",
    "FiniteEnsemble",
    "FirstOrder",
    "FullBayes",
    "ImportanceCorrected",
    "Laplace",
    "Law",
    "MeanField",
    "Method",
    "PerturbedInit",
    "Prior",
    "PrunedLaplace",
    "RandomInit",
    "SplitHMC",
    "TemperatureScaled",
    "Variational",
    "numpyro_model",
]
