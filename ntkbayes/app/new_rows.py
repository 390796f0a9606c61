"""What a law of a run folder says of rows without labels."""

import abc
import csv
import io
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes import datasets
from ntkbayes.comparison import key_of
from ntkbayes.display import Configured
from ntkbayes.laws import Law
from ntkbayes.predictions import marginal_distributions, marginal_probabilities
from ntkbayes.scores import calibration, numbers
from ntkbayes.storage import load_fit

_INPUTS_AT_ONCE = 500
LEVEL = 0.9
"""Of the predictive intervals of numbers."""


@dataclass(frozen=True, repr=False, kw_only=True)
class RowPredictions(Configured, abc.ABC):
    """Predictions of a law, one per row of a file: `RowClasses` or `RowNumbers`.

    Attributes:
        law: its name.
        names: of the rows, their numbers from 0 or the files of images.
        ignored: columns of the file that were passed over.
    """

    law: str
    names: tuple[int | str, ...]
    ignored: tuple[str, ...] = ()

    @abc.abstractmethod
    def records(self) -> list[dict[str, object]]:
        """One per row: its name, and what is predicted of it."""

    def to_csv(self) -> str:
        """The records as CSV, with all digits."""
        records, text = self.records(), io.StringIO()
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()


@dataclass(frozen=True, repr=False, kw_only=True)
class RowClasses(RowPredictions):
    """Of classes.

    Attributes:
        class_names: of the columns of the probabilities.
        probabilities: mean class probabilities, (m, C).
        uncertainty: entropy of each prediction, in nats, and its parts.
    """

    class_names: tuple[Hashable, ...]
    probabilities: Float[np.ndarray, "m classes"]
    uncertainty: calibration.Uncertainty

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


@dataclass(frozen=True, repr=False, kw_only=True)
class RowNumbers(RowPredictions):
    """Of real targets and counts, in their unit. All arrays are (m, outputs).

    Attributes:
        mean, median: of the predictive distribution.
        lower, upper: ends of its central interval, of level 0.9.
        std: its standard deviation.
        epistemic_std: what not knowing the function adds to that: the standard deviation of the mean
            of the target given the function. NaN under a likelihood of your own.
    """

    mean: Float[np.ndarray, "m outputs"]
    median: Float[np.ndarray, "m outputs"]
    lower: Float[np.ndarray, "m outputs"]
    upper: Float[np.ndarray, "m outputs"]
    std: Float[np.ndarray, "m outputs"]
    epistemic_std: Float[np.ndarray, "m outputs"]

    def records(self) -> list[dict[str, object]]:
        """One per row: its name, mean, median, interval, standard deviation, and the epistemic part of
        that if it is known. Of several outputs, columns bear their number."""
        columns = {
            "mean": self.mean,
            "median": self.median,
            f"lower {LEVEL:.0%}": self.lower,
            f"upper {LEVEL:.0%}": self.upper,
            "std": self.std,
            "epistemic std": self.epistemic_std,
        }
        told = {name: values for name, values in columns.items() if not np.isnan(values).all()}
        outputs = range(self.mean.shape[1])
        return [
            {
                "row": name,
                **{
                    (f"{what}, output {k}" if len(outputs) > 1 else what): float(values[row, k])
                    for k in outputs
                    for what, values in told.items()
                },
            }
            for row, name in enumerate(self.names)
        ]


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

    Returns:
        `RowClasses` of classes, `RowNumbers` of real targets and counts.

    Raises:
        StorageError: the folder is none of a comparison, or has no fit of that law; or the file cannot
            be read.
        UnknownNameError: the comparison has no such law.
        DataError: the rows do not match the training data; see `datasets.read_rows`.
        ConfigurationError: the law's likelihood is one of your own that cannot draw.
    """
    name, fitted = load_fit(folder, law)
    rows = datasets.read_rows(data, fitted.problem.columns, drop=drop)
    of = _numbers if fitted.problem.class_names is None else _classes
    return of(name, rows, fitted)


def _classes(name: str, rows: datasets.NewRows, law: Law) -> RowClasses:
    means, parts = [], []
    for some, key in _parts(name, rows):
        draws = marginal_probabilities(law, some, key=key)
        mean = draws.mean(axis=0)
        means.append(mean / mean.sum(axis=1, keepdims=True))
        parts.append(calibration.uncertainty(draws))
    names = ("total", "aleatoric", "epistemic")
    whole = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    return RowClasses(
        law=name,
        names=rows.names,
        ignored=rows.ignored,
        class_names=law.problem.class_names or (),
        probabilities=np.concatenate(means),
        uncertainty=calibration.Uncertainty(*whole),
    )


def _numbers(name: str, rows: datasets.NewRows, law: Law) -> RowNumbers:
    parts: list[dict[str, np.ndarray]] = []
    for some, key in _parts(name, rows):
        told = marginal_distributions(law, some, key=key)
        lower, upper = numbers.interval(told, LEVEL)
        parts.append(
            {
                "mean": told.mean,
                "median": told.quantile(0.5),
                "lower": lower,
                "upper": upper,
                "std": np.sqrt(told.variance),
                "epistemic_std": np.sqrt(told.spread),
            }
        )
    whole = {what: np.concatenate([part[what] for part in parts]) for what in parts[0]}
    return RowNumbers(law=name, names=rows.names, ignored=rows.ignored, **whole)


def _parts(
    name: str, rows: datasets.NewRows
) -> Iterator[tuple[Float[np.ndarray, "m d"], PRNGKeyArray]]:
    """The rows part by part, each with the same key: the same functions, as if all were one."""
    key = key_of(jax.random.key(0), name)
    for start in range(0, len(rows.features), _INPUTS_AT_ONCE):
        yield rows.features[start : start + _INPUTS_AT_ONCE], jax.random.clone(key)
