"""Out-of-distribution detection: does a law know which inputs are unlike those it was trained on?

Inside points come from the distribution trained on, outside points from another. A score, larger
where a law is less sure, should be larger outside:

>>> import numpy as np
>>> print(separation(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.8])))
Separation(auroc=0.75, fpr95=0.5)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.scores.calibration import uncertainty

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Separation:
    """How well one score tells outside points from inside points, both in [0, 1]."""

    auroc: float
    """Probability that an outside point scores above an inside point, ties counted half; ½ for
    chance, 1 is best. The area under the receiver operating characteristic, outside positive."""
    fpr95: float
    """Share of outside points accepted as inside by the strictest threshold that accepts at least
    95% of the inside points; 0 is best (Liang, Li & Srikant 2018, whose positives are the inside
    points)."""


@dataclass(frozen=True, repr=False)
class Detection(Configured):
    """What three scores of one law achieve."""

    entropy: Separation
    """By the entropy of the mean prediction: total uncertainty."""
    mutual_information: Separation
    """By the mutual information of label and draw: epistemic uncertainty (Houlsby et al. 2011)."""
    max_probability: Separation
    """By 1 − max_c of the mean prediction (Hendrycks & Gimpel 2017)."""


def separation(inside: ArrayLike, outside: ArrayLike) -> Separation:
    """How well a score, larger where outside is likelier, separates two samples (n,) and (m,).

    Raises DataError for scores that are empty, not finite or no vectors.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    inside, outside = _vector("inside", inside), _vector("outside", outside)
    scores = np.concatenate([inside, outside])
    is_outside = np.repeat([False, True], [len(inside), len(outside)])
    accepted_outside, accepted_inside, _ = roc_curve(~is_outside, -scores, drop_intermediate=False)
    return Separation(
        auroc=float(roc_auc_score(is_outside, scores)),
        fpr95=float(accepted_outside[np.argmax(accepted_inside >= 0.95)]),
    )


def detect(inside: ArrayLike, outside: ArrayLike) -> Detection:
    """The separation of a law's predictions inside and outside.

    Args:
        inside: class probabilities of each draw at the inside points, (S, n, K).
        outside: the same at the outside points, (S', m, K).

    A point law has no epistemic uncertainty: it separates nothing by mutual information.

    Raises:
        DataError: not draws of class probabilities, or of different classes.
    """
    uncertain = [uncertainty(inside), uncertainty(outside)]
    draws = [np.asarray(inside), np.asarray(outside)]
    if draws[0].shape[2] != draws[1].shape[2]:
        raise DataError(
            f"inside draws have {draws[0].shape[2]} classes, outside draws {draws[1].shape[2]}; "
            "both must be predictions of the same law"
        )
    return Detection(
        entropy=separation(*(u.total for u in uncertain)),
        mutual_information=separation(*(u.epistemic for u in uncertain)),
        max_probability=separation(*(1 - p.mean(axis=0).max(axis=1) for p in draws)),
    )


def table(laws: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> "pd.DataFrame":
    """One row per law, from its draws inside and outside (see `detect`), by the name to show.

    Columns are `entropy_auroc`, `entropy_fpr95`, and so on for the other scores of `Detection`.

    Raises:
        ConfigurationError: no laws.
        DataError: see `detect`.
    """
    import pandas as pd

    if not laws:
        raise ConfigurationError("table() needs at least one law")
    rows = {}
    for name, (inside, outside) in laws.items():
        row = {}
        for score, separation in vars(detect(inside, outside)).items():
            row[f"{score}_auroc"], row[f"{score}_fpr95"] = separation.auroc, separation.fpr95
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("law")


def _vector(name: str, values: ArrayLike) -> np.ndarray:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise DataError(f"{name} scores have shape {scores.shape}; they must be (n,), not empty")
    if bad := np.flatnonzero(~np.isfinite(scores)).tolist():
        raise DataError(f"{name} score {bad[0]} is {scores[bad[0]]}; scores must be finite")
    return scores
