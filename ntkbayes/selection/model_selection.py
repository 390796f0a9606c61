"""Choosing between priors: the whole curve of a score, cross-validation and leave-one-out."""

import math
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.errors import (
    ConfigurationError,
    ConvergenceError,
    FailedTrialWarning,
    GridEdgeWarning,
    NTKBayesError,
)
from ntkbayes.laws.base import Law, Method
from ntkbayes.laws.gaussian.posterior import GaussianPosterior
from ntkbayes.laws.wrappers.held_out import held_out_logits, left_out_score, log_score
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.selection.evidence import log_evidence


@dataclass(frozen=True)
class Scan:
    """A score over several priors.

    Attributes:
        scores: by label, higher is better; −inf where there is none.
        best: the label of the highest.
        prior: that of the best.
        failures: by label, why a prior has no score.
    """

    scores: Mapping[Hashable, float]
    best: Hashable
    prior: NTKPrior
    failures: Mapping[Hashable, str]


def scan(
    priors: Mapping[Hashable, NTKPrior],
    data: Dataset,
    *,
    score: Callable[[NTKPrior, Dataset], float] = log_evidence,
    progress: Callable[[Hashable, float], object] = lambda label, value: None,
) -> Scan:
    """Score every prior, and warn if the best lies at the edge of a grid of numbers.

    A prior that cannot be scored, say since its mode is not found, does not lose the others: there is a
    warning, and it is never the best.

    Args:
        priors: by label: a number such as a depth or a ridge, a word, or a tuple of them.
        data: training data.
        score: of a prior given data, higher is better; by default the log evidence. Less a
            cross-validated NLL is another: `lambda prior, data: -cross_validated_nll(...)`.
        progress: called with each label and its score.

    Raises:
        ConfigurationError: there are no priors.
        NTKBayesError: none of them can be scored; that of the first.
    """
    if not priors:
        raise ConfigurationError("scan() needs at least one prior")
    scores: dict[Hashable, float] = {}
    errors: dict[Hashable, NTKBayesError] = {}
    for label, prior in priors.items():
        try:
            scores[label] = float(score(prior, data))
            if math.isnan(scores[label]):
                raise ConvergenceError("its score is nan")
        except NTKBayesError as error:
            scores[label], errors[label] = -math.inf, error
        progress(label, scores[label])
    if len(errors) == len(priors):
        raise next(iter(errors.values()))
    failures = {label: f"{type(error).__name__}: {error}" for label, error in errors.items()}
    for label, why in failures.items():
        warnings.warn(f"{label!r} has no score ({why})", FailedTrialWarning, stacklevel=2)
    best = max(scores, key=lambda label: scores[label])
    _warn_at_edge(best, list(scores))
    return Scan(scores, best, priors[best], failures)


def _warn_at_edge(best: Hashable, labels: list[Hashable]) -> None:
    rows = [label if isinstance(label, tuple) else (label,) for label in labels]
    chosen = best if isinstance(best, tuple) else (best,)
    for place, value in enumerate(chosen):
        column = {row[place] for row in rows if len(row) > place}
        if not all(isinstance(entry, int | float) for entry in column) or len(column) < 2:
            continue
        if value in (min(column), max(column)):
            warnings.warn(
                f"the best score is at {value!r}, at the edge of {sorted(column)}: a better one may lie "
                "beyond. Widen the grid",
                GridEdgeWarning,
                stacklevel=3,
            )


def cross_validated_nll(
    method: Method,
    prior: NTKPrior,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    num_folds: int = 5,
    likelihood: Likelihood | None = None,
) -> float:
    """Mean of −log p(yᵢ | data of the other folds), in nats per point. Lower is better.

    The NLL of `Comparison.table`: for soft targets the cross-entropy of the mean prediction.

    Args:
        method: fitted to all folds but one, num_folds times.
        prior, data, likelihood: as for `Method.fit`.
        key: of the folds, the fits and the draws.
        num_folds: parts, each with its share of every class.

    Raises:
        ConfigurationError: there are fewer than 2 folds, or more than points.
    """
    likelihood = default_likelihood(data) if likelihood is None else likelihood
    held_out = held_out_logits(
        method, prior, data, key=key, num_folds=num_folds, likelihood=likelihood
    )
    terms = [log_score(likelihood, y, draws) for y, draws in held_out]
    return -float(jnp.mean(jnp.concatenate(terms)))


def leave_one_out(law: Law) -> Float[np.ndarray, " n"]:
    """log p(yᵢ | all other points) of each training point, in nats, from one fit. Its sum is the
    leave-one-out ELPD; for soft targets it is Σ_c y_c log p̄_c, minus the cross-entropy.

    Exact for a Normal likelihood. Otherwise approximate, as the sites of the other points stay what
    they are (see `GaussianPosterior.leave_one_out`). To the exact value EP is closest, then Variational,
    then Laplace. To the law's own refits Laplace is closest; MeanField with several logits is too low
    by some hundredths of a nat a point (.03 on 40 points), as its sites are stiffer than the points
    are: use Variational, or cross_validated_nll.

    Raises:
        ConfigurationError: the law is no Gaussian posterior.
    """
    if not isinstance(law, GaussianPosterior):
        raise ConfigurationError(
            f"leave-one-out from one fit needs a Gaussian posterior, not {type(law).__name__}; use "
            "cross_validated_nll with as many folds as points"
        )
    return np.asarray(left_out_score(law))
