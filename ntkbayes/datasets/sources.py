"""Where data sets come from: scikit-learn's, and tables on disk."""

import difflib
from os import PathLike
from pathlib import Path
from typing import Any

from ntkbayes.datasets.dataset import Dataset
from ntkbayes.datasets.validation import is_missing
from ntkbayes.errors import (
    DataError,
    StorageError,
    UnknownNameError,
)

NAMES = ("breast_cancer", "wine", "iris", "digits", "moons")
"""The data sets `load` knows."""


def load(name: str) -> Dataset:
    """A data set known by its name, one of `NAMES`, not standardised.

    breast_cancer, wine, iris and digits come with scikit-learn, with its names and order of
    classes. moons are two interleaved half circles: 200 points with noise 0.2, always the same.
    Raises UnknownNameError for any other name.
    """
    if name not in NAMES:
        raise UnknownNameError("data set", name, NAMES)
    from sklearn import datasets

    if name == "moons":
        points, labels = datasets.make_moons(n_samples=200, noise=0.2, random_state=0)
        return Dataset(points, labels, name=name)
    bunch = getattr(datasets, f"load_{name}")()
    return Dataset(
        bunch.data,
        bunch.target_names[bunch.target],
        class_names=bunch.target_names,
        feature_names=bunch.feature_names,
        name=name,
    )


def read_table(path: str | PathLike[str], *, target: str) -> Dataset:
    """Class data from a file: labels in the column `target`, features in all other columns.

    The suffix says how to read it: .csv (commas), .tsv (tabs), .parquet or .pq. In text files only
    an empty field is a missing value. Labels keep their type; booleans among the features become
    0 and 1. The data set is called after the file.

    Raises StorageError for a file that is missing, unreadable or of an unknown suffix, and
    DataError for a table that is empty or has missing values, text among the features, no column
    `target`, or a target that looks like that of a regression.
    """
    path = Path(path)
    frame = _read_frame(path)
    columns = list(frame.columns)
    if target not in columns:
        close = difflib.get_close_matches(str(target), [str(c) for c in columns], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{path} has no column {target!r}; its columns are {columns}{hint}")
    if len(columns) == 1:
        raise DataError(f"{path} has no features: its only column is the target {target!r}")
    return Dataset(frame.drop(columns=target), frame[target], name=path.stem)


def _read_frame(path: Path) -> Any:
    """The pandas data frame in a file, with nothing guessed beyond the types of whole columns."""
    import pandas as pd
    import pyarrow as pa

    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet", ".pq"):
        raise StorageError(f"cannot read {path}: known suffixes are .csv, .tsv, .parquet and .pq")
    if not path.is_file():
        raise StorageError(f"there is no file {path}; check the path")
    try:
        if suffix in (".parquet", ".pq"):
            return pd.read_parquet(path, engine="pyarrow")
        separator = "," if suffix == ".csv" else "\t"
        first = pd.read_csv(path, sep=separator, header=None, nrows=2, dtype=str)
        frame = pd.read_csv(
            path, sep=separator, keep_default_na=False, na_values=[""], low_memory=False
        )
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path} is empty; it needs a header and rows") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {path} as {suffix}: {error}") from error
    header = first.iloc[0].tolist()
    if any(map(is_missing, header)):
        raise DataError(
            f"{path} has a column without a name, perhaps row numbers; name or remove it"
        )
    repeated = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if repeated:
        raise DataError(f"{path} has more than one column called {repeated[0]!r}; rename them")
    return frame
