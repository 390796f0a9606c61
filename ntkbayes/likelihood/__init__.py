"""Likelihoods: how logits give rise to targets. Training minimises −Σ log p, the cross-entropy.

All are log-concave in the logits f. Nothing is clipped. Shapes: targets and logits (n, C).

    Categorical     classes, one logit each (softmax)
    Bernoulli       two classes, one logit
    Ordinal         ordered classes, one logit (cumulative logit)
    Normal          real targets, squared loss
    Poisson         counts, one logit (log link)
    LogConcave      your own, given its log density

`likelihood.tempered(T)` is any of them to the power 1/T.
"""

from ntkbayes.datasets import Dataset
from ntkbayes.likelihood.base import (
    ClassLikelihood,
    Likelihood,
    PerPoint,
    Stack,
    Tempered,
)
from ntkbayes.likelihood.classes import Bernoulli, Categorical, Ordinal
from ntkbayes.likelihood.log_concave import LogConcave
from ntkbayes.likelihood.real import Normal, Poisson


def default_likelihood(data: Dataset) -> Likelihood:
    """One logit for two classes, softmax for more, Normal for real targets."""
    if data.class_names is None:
        return Normal()
    return Bernoulli() if data.num_classes == 2 else Categorical()


__all__ = [
    "Bernoulli",
    "Categorical",
    "ClassLikelihood",
    "Likelihood",
    "LogConcave",
    "Normal",
    "Ordinal",
    "PerPoint",
    "Poisson",
    "Stack",
    "Tempered",
    "default_likelihood",
]
