"""Means over splits into training and test points, and what differences between laws are worth.

Training sets of different splits share points, so that scores of different splits are correlated: their
spread divided by √k is too small an error. C. Nadeau and Y. Bengio, "Inference for the generalization
error", Machine Learning 52 (2003), take the correlation to be ρ = n_test / (n_train + n_test), hence the
variance of the mean of k splits

    (1/k + n_test/n_train) s²,      s² = Σ (xᵢ − x̄)² / (k − 1),

and Student's t with k − 1 degrees of freedom. R. R. Bouckaert and E. Frank (2004) found it good for
cross-validation too. With flat priors on mean and log standard deviation the same t is the posterior of
the mean (G. Corani and A. Benavoli, "A Bayesian approach for comparing cross-validated algorithms on
multiple data sets", Machine Learning 100 (2015)).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ntkbayes.scores.intervals import LEVEL, Interval, Over


@dataclass(frozen=True, repr=False)
class Estimate(Interval):
    """A mean over splits or fits, the ends of its 90% interval over them, and its standard error. Both
    are corrected for training points that splits share; nan for one split, or where a score is infinite.
    """

    error: float = field(kw_only=True)


class Chances(NamedTuple):
    """Probabilities that a difference is below the region of practical equivalence, within it, or above
    it.

    Attributes:
        below, within, above: the three probabilities, which sum to 1.
    """

    below: float
    within: float
    above: float


def mean_over_splits(scores: Float[np.ndarray, " k"], test_per_train: float) -> Estimate:
    """Mean of a score, or of paired differences, over k splits.

    Args:
        scores: one per split.
        test_per_train: n_test / n_train. 0 where every split has the same points and the spread is that
            of the fits alone.
    """
    from scipy import special  # which takes long to import

    scores = np.asarray(scores, dtype=np.float64)
    # Where all are infinite with one sign their mean is; ∞ − ∞ has none.
    value = float(np.sum(scores / len(scores))) if not _has_both(scores) else np.nan
    if len(scores) < 2 or not np.all(np.isfinite(scores)):
        return Estimate(value, np.nan, np.nan, over=over(test_per_train), error=np.nan)
    error = corrected_error(scores, test_per_train)
    reach = float(special.stdtrit(len(scores) - 1, (1 + LEVEL) / 2)) * error
    ends = value - reach, value + reach
    return Estimate(value, *ends, over=over(test_per_train), error=error)


def over(test_per_train: float) -> Over:
    """What scores vary over, by n_test / n_train; see `mean_over_splits`."""
    return Over.SPLITS if test_per_train > 0 else Over.FITS


def _has_both(scores: np.ndarray) -> bool:
    return bool(np.any(scores == np.inf) and np.any(scores == -np.inf))


def corrected_error(scores: Float[np.ndarray, " k"], test_per_train: float) -> float:
    """Standard error of the mean of k ≥ 2 splits: √(1/k + n_test/n_train) s."""
    return float(np.sqrt(1 / len(scores) + test_per_train) * np.std(scores, ddof=1))


def chances_on_these_data(
    differences: Float[np.ndarray, " k"], test_per_train: float, rope: float
) -> Chances:
    """Of the mean difference on one data set, given its values on k ≥ 2 splits of it: the correlated
    Bayesian t-test.

    Args:
        differences: of a score, one per split.
        test_per_train: n_test / n_train.
        rope: half the width of the region of practical equivalence, in units of the score.
    """
    from scipy import special  # which takes long to import

    mean, error = float(np.mean(differences)), corrected_error(differences, test_per_train)
    if error == 0:
        return Chances(float(mean < -rope), float(abs(mean) <= rope), float(mean > rope))
    freedom = len(differences) - 1
    below = float(special.stdtr(freedom, (-rope - mean) / error))
    above = float(special.stdtr(freedom, (mean - rope) / error))
    return Chances(below, 1 - below - above, above)
