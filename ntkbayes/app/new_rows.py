"""What a law of a run folder says of rows without labels."""

import csv
import io
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from ntkbayes import datasets
from ntkbayes.comparison import key_of
from ntkbayes.display import Configured
from ntkbayes.laws import Law
from ntkbayes.predictions import marginal_probabilities
from ntkbayes.scores import calibration
from ntkbayes.storage import load_fit

_INPUTS_AT_ONCE = 500


@dataclass(frozen=True, repr=False)
class RowPredictions(Configured):
    """Predictions of a law, one per row of a file.

    Attributes:
        law: its name.
        class_names: of the columns of the probabilities.
        names: of the rows, their numbers from 0 or the files of images.
        probabilities: mean class probabilities, (m, C).
        uncertainty: entropy of each prediction, in nats, and its parts.
        ignored: columns of the file that were passed over.
    """

    law: str
    class_names: tuple[Hashable, ...]
    names: tuple[int | str, ...]
    probabilities: Float[np.ndarray, "m classes"]
    uncertainty: calibration.Uncertainty
    ignored: tuple[str, ...] = ()

    def records(self) -> list[dict[str, object]]:
        """One per row: its name, the most probable class, the probability of each class, the
        entropy and the part of it that is epistemic, in nats."""
        return [
            {
                "row": self.names[row],
                "predicted": self.class_names[int(np.argmax(chances))],
                **{f"P({c})": float(p) for c, p in zip(self.class_names, chances, strict=True)},
                "entropy": float(self.uncertainty.total[row]),
                "epistemic": float(self.uncertainty.epistemic[row]),
            }
            for row, chances in enumerate(self.probabilities)
        ]

    def to_csv(self) -> str:
        """The records as CSV, with all digits."""
        records, text = self.records(), io.StringIO()
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()


def predict_rows(
    folder: str | Path, data: str | Path, *, law: str | None = None, drop: Iterable[str] = ()
) -> RowPredictions:
    """Predictions of a fitted law of a run folder at the rows of a file.

    A row's predictions depend on no other row, and repeat.

    Args:
        folder: that `Study.run` or `ntkbayes compare` wrote.
        data: file of rows, with the columns of the training data in any order; see
            `datasets.read_rows`.
        law: its name; that of the comparison's reference if None.
        drop: further columns of the file to pass over.

    Raises:
        StorageError: the folder is none of a comparison, or has no fit of that law; or the file cannot
            be read.
        UnknownNameError: the comparison has no such law.
        DataError: the rows do not match the training data; see `datasets.read_rows`.
        ConfigurationError: the law is not one of classes.
    """
    name, fitted = load_fit(folder, law)
    _ = fitted.problem.class_likelihood
    rows = datasets.read_rows(data, fitted.problem.columns, drop=drop)
    probabilities, parts = _predicted(fitted, name, rows.features)
    classes = fitted.problem.class_names or tuple(range(probabilities.shape[1]))
    return RowPredictions(name, classes, rows.names, probabilities, parts, rows.ignored)


def _predicted(
    law: Law, name: str, features: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "m classes"], calibration.Uncertainty]:
    key = key_of(jax.random.key(0), name)
    means, parts = [], []
    for start in range(0, len(features), _INPUTS_AT_ONCE):
        some = features[start : start + _INPUTS_AT_ONCE]
        # The same key for each part: the same functions, as if all were one.
        draws = marginal_probabilities(law, some, key=jax.random.clone(key))
        mean = draws.mean(axis=0)
        means.append(mean / mean.sum(axis=1, keepdims=True))
        parts.append(calibration.uncertainty(draws))
    names = ("total", "aleatoric", "epistemic")
    whole = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    return np.concatenate(means), calibration.Uncertainty(*whole)
