"""What `ntkbayes` offers, imported when the first of it is asked for."""

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
