"""The public names of `ntkbayes`, imported on first use."""

from ntkbayes import datasets, kernels, likelihood, networks
from ntkbayes.app.splits import KFold, Splits, SplitStudy
from ntkbayes.app.study import Study
from ntkbayes.bridges.arviz import from_datatree, law_to_datatree, to_datatree
from ntkbayes.comparison import Comparison, compare
from ntkbayes.datasets import Dataset
from ntkbayes.laws import (
    MAP,
    NUTS,
    DeepEnsemble,
    DirichletGP,
    ExpectationPropagation,
    FiniteEnsemble,
    FirstOrder,
    FullBayes,
    GaussianLaw,
    ImportanceCorrected,
    Info,
    Kind,
    Laplace,
    Law,
    MeanField,
    Method,
    PerturbedEnsemble,
    PerturbedInit,
    PointLaw,
    PriorPredictive,
    Problem,
    PrunedLaplace,
    RandomInit,
    SampledLaw,
    Sampling,
    SplitHMC,
    TemperatureScaled,
    Variational,
    before_data,
    numpyro_model,
    numpyro_prior,
)
from ntkbayes.linalg import over_devices
from ntkbayes.matching import match
from ntkbayes.networks import activations
from ntkbayes.predictions import ClassPredictions, NumberPredictions, Predictions, predict
from ntkbayes.priors.prior import NTKPrior, linearise
from ntkbayes.repeated import (
    DataSetComparison,
    SplitComparison,
    compare_over_data_sets,
)
from ntkbayes.scores import calibration, conformal, detection, distances, numbers, selective
from ntkbayes.selection import (
    GivenRidge,
    NormalByEvidence,
    OrdinalAtFrequencies,
    PoissonAtMean,
    RidgeByCrossValidation,
    RidgeByEvidence,
    bridge_evidence,
    cross_validated_nll,
    full_bayes_evidence,
    lanczos_evidence,
    lanczos_evidence_slope,
    leave_one_out,
    log_evidence,
    maximise_evidence,
    scan,
    smc_evidence,
)
from ntkbayes.sensitivity import ScoreSensitivity, score_sensitivity
from ntkbayes.spectra import anatomy
from ntkbayes.storage import load, load_law, save, save_law
