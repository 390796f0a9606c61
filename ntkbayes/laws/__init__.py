"""Laws: distributions over logit functions, and the methods that obtain them."""

from ntkbayes.laws.chains.full_bayes import FullBayes
from ntkbayes.laws.chains.numpyro_model import numpyro_model, numpyro_prior
from ntkbayes.laws.chains.nuts import NUTS
from ntkbayes.laws.chains.split_hmc import SplitHMC
from ntkbayes.laws.gaussian.dirichlet import DirichletGP
from ntkbayes.laws.gaussian.expectation_propagation import ExpectationPropagation
from ntkbayes.laws.gaussian.first_order import FirstOrder
from ntkbayes.laws.gaussian.gaussian_law import GaussianLaw
from ntkbayes.laws.gaussian.laplace import Laplace
from ntkbayes.laws.gaussian.prior_predictive import PriorPredictive
from ntkbayes.laws.gaussian.pruned_laplace import PrunedLaplace
from ntkbayes.laws.gaussian.variational import MeanField, Variational
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import Law, PointLaw, SampledLaw
from ntkbayes.laws.method import Method
from ntkbayes.laws.point import MAP
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.sampled.deep_ensemble import DeepEnsemble
from ntkbayes.laws.sampled.finite_ensemble import FiniteEnsemble
from ntkbayes.laws.sampled.perturbed_ensemble import PerturbedEnsemble
from ntkbayes.laws.sampled.perturbed_init import PerturbedInit
from ntkbayes.laws.sampled.random_init import RandomInit
from ntkbayes.laws.wrappers.before_data import before_data
from ntkbayes.laws.wrappers.importance import ImportanceCorrected
from ntkbayes.laws.wrappers.temperature import TemperatureScaled

__all__ = [
    "MAP",
    "NUTS",
    "DeepEnsemble",
    "DirichletGP",
    "ExpectationPropagation",
    "FiniteEnsemble",
    "FirstOrder",
    "FullBayes",
    "GaussianLaw",
    "ImportanceCorrected",
    "Info",
    "Kind",
    "Laplace",
    "Law",
    "MeanField",
    "Method",
    "PerturbedEnsemble",
    "PerturbedInit",
    "PointLaw",
    "PriorPredictive",
    "Problem",
    "PrunedLaplace",
    "RandomInit",
    "SampledLaw",
    "Sampling",
    "SplitHMC",
    "TemperatureScaled",
    "Variational",
    "before_data",
    "numpyro_model",
    "numpyro_prior",
]
