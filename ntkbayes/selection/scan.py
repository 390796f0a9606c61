"""A score over several priors."""

import math
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from ntkbayes.arguments import require
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import Configured
from ntkbayes.errors import (
    ConfigurationError,
    ConvergenceError,
    FailedTrialWarning,
    GridEdgeWarning,
    NTKBayesError,
)
from ntkbayes.priors.prior import NTKPrior, require_prior
from ntkbayes.selection.evidence import log_evidence


@dataclass(frozen=True, repr=False)
class Scan(Configured):
    """A score over several priors.

    Attributes:
        scores: by label, higher is better; −inf where scoring failed.
        best: the label with the highest score.
        prior: the prior with the highest score.
        failures: by label, why scoring failed.
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
    """Score every prior, and warn if the best lies at the edge of a numeric grid.

    A prior that cannot be scored, e.g. because its mode is not found, is passed over with a warning.

    Args:
        priors: by label: a number such as a depth or a ridge, a word, or a tuple of these.
        data: training data.
        score: of a prior given data, higher is better; by default the log evidence. Another is minus a
            cross-validated NLL: `lambda prior, data: -cross_validated_nll(...)`.
        progress: called with each label and its score.

    Raises:
        ConfigurationError: there are no priors.
        NTKBayesError: no prior can be scored; the error of the first.
    """
    call = "scan({label: prior}, data)"
    require(
        call, "priors", priors, Mapping, lambda given: "give each prior a label, such as its ridge"
    )
    for label, prior in priors.items():
        require_prior(call, f"priors[{label!r}]", prior)
    require_dataset(call, "data", data)
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
