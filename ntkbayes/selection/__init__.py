"""Choosing hyper-parameters: the evidence, cross-validation and leave-one-out."""

from ntkbayes.selection.bridge import bridge_evidence
from ntkbayes.selection.cross_validation import cross_validated_nll
from ntkbayes.selection.estimate import EvidenceEstimate
from ntkbayes.selection.evidence import evidence_gradient, log_evidence
from ntkbayes.selection.full_bayes import full_bayes_evidence
from ntkbayes.selection.lanczos import lanczos_evidence, lanczos_evidence_slope
from ntkbayes.selection.leave_one_out import leave_one_out
from ntkbayes.selection.likelihood_rules import (
    LikelihoodChoice,
    LikelihoodRule,
    NormalByEvidence,
    OrdinalAtFrequencies,
    PoissonAtMean,
)
from ntkbayes.selection.ridge import (
    GivenRidge,
    RidgeByCrossValidation,
    RidgeByEvidence,
    RidgeChoice,
    RidgeRule,
)
from ntkbayes.selection.scan import Scan, scan
from ntkbayes.selection.search import EvidenceMaximum, maximise_evidence
from ntkbayes.selection.smc import smc_evidence

__all__ = [
    "EvidenceEstimate",
    "EvidenceMaximum",
    "GivenRidge",
    "LikelihoodChoice",
    "LikelihoodRule",
    "NormalByEvidence",
    "OrdinalAtFrequencies",
    "PoissonAtMean",
    "RidgeByCrossValidation",
    "RidgeByEvidence",
    "RidgeChoice",
    "RidgeRule",
    "Scan",
    "bridge_evidence",
    "cross_validated_nll",
    "evidence_gradient",
    "full_bayes_evidence",
    "lanczos_evidence",
    "lanczos_evidence_slope",
    "leave_one_out",
    "log_evidence",
    "maximise_evidence",
    "scan",
    "smc_evidence",
]
