"""An evidence by Monte Carlo, with its error."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ntkbayes.display import Configured
from ntkbayes.errors import ConvergenceError
from ntkbayes.laws.gaussian.posterior import SitePosterior

LARGEST_ERROR = 0.3
"""Of the log evidence, in nats: beyond it the estimate of the error fails as well."""


@dataclass(frozen=True, repr=False)
class EvidenceEstimate(Configured):
    """An evidence and how well it is known.

    Attributes:
        log_evidence: log p(y | X), in nats.
        error: its standard error.
        approximate: what a Gaussian approximation of the posterior gives, for comparison; NaN where it
            gives none.
    """

    log_evidence: float
    error: float
    approximate: float

    def log_bayes_factor(self, other: "EvidenceEstimate") -> tuple[float, float]:
        """log p(y | this prior) − log p(y | the other), in nats, and its standard error."""
        difference = self.log_evidence - other.log_evidence
        return difference, math.hypot(self.error, other.error)


def known(estimate: EvidenceEstimate, why_not: str) -> EvidenceEstimate:
    """The estimate, if its error is small enough to be one.

    Args:
        why_not: what a large error comes from, and what to do about it, for the message.

    Raises:
        ConvergenceError: the error is above 0.3 nats.
    """
    if not estimate.error <= LARGEST_ERROR:
        raise ConvergenceError(
            f"the evidence is not known: about {estimate.log_evidence:.2f} nats with an error of "
            f"{estimate.error:.2g}, above {LARGEST_ERROR}, since {why_not}"
        )
    return estimate


def approximate_evidence(law: SitePosterior) -> float:
    """That of a Gaussian posterior's own method; NaN of those that have none."""
    return float(getattr(law.info, "log_evidence", math.nan))


def log_mean(logs: Float[np.ndarray, "..."], axis: int | None = None) -> Float[np.ndarray, "..."]:
    """The log of the mean of what these are the logs of."""
    count = logs.size if axis is None else logs.shape[axis]
    return np.asarray(np.logaddexp.reduce(logs, axis=axis) - np.log(count))


def log_of_mean(logs: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    """The log of the mean of independent positive numbers, given by their logs, and its standard
    error to first order."""
    value = float(log_mean(logs))
    relative = np.exp(logs - value)
    return value, float(np.std(relative, ddof=1) / np.sqrt(len(logs)))
