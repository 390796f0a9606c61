"""Class data from tables on disk: read exactly, or refused with the reason."""

import math
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ntkbayes import table_files
from ntkbayes.datasets import class_targets, validation
from ntkbayes.datasets.dataset import Dataset
from ntkbayes.errors import DataError, DataWarning
from ntkbayes.table_files import number

_TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_MIN_ROWS = 10


def read_table(path: str | PathLike[str], *, target: str, like: Dataset | None = None) -> Dataset:
    """Class data from a file: labels in the column `target`, features in all other columns.

    The suffix sets the format: .csv (commas), .tsv (tabs), .parquet or .pq. Text is UTF-8, with column
    names in its first line and decimal points; only empty fields are missing. Labels become numbers or
    booleans if all of them are written as Python writes them; otherwise they are the text in the file:
    1.10 and 1.1 are two classes. Boolean features become 0 and 1. Index columns that pandas stores in a
    Parquet file are not features, but may be the target. The data set is named after the file.

    With `like`, such as the training data, the classes are those of that data set, in its order.

    Warns with DataWarning of a column that counts the rows. Raises StorageError for a file that is
    missing, unreadable, of an unknown suffix, or not such text; DataError for a table that is empty, has
    unnamed or repeated columns, missing values, text among the features, labels that look alike, no
    column `target`, a target that looks like regression, or a label that `like` does not know.
    """
    path = Path(path)
    if table_files.is_parquet(path):
        names, row_labels, frame = table_files.parquet(path)
        place = table_files.find(path, names, target)
        chosen = [j for j, name in enumerate(names) if j != place and name not in row_labels]
        _require_features(path, chosen, names[place])
        features, labels = frame.iloc[:, chosen], frame.iloc[:, place]
    else:
        names, rows = table_files.text(path)
        place = table_files.find(path, names, target)
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
        chosen = [j for j in range(len(names)) if j != place]
        _require_features(path, chosen, names[place])
        _refuse_data_as_names(path, names, place, columns[place])
        features = np.column_stack([_numbers(columns[j]) for j in chosen])
        labels = _labels(path, columns[place]) if like is None else _known(like, columns[place])
    _refuse_lookalikes(path, labels)
    data = Dataset(
        features,
        labels,
        class_names=None if like is None else like.class_names,
        feature_names=[names[j] for j in chosen],
        name=_shown(path.stem),
    )
    _warn_of_row_numbers(path, data)
    return data


# --- text -----------------------------------------------------------------------------------------


def _numbers(texts: list[str]) -> np.ndarray:
    """A column as float64, or as objects if some text is not a number; empty fields are missing."""
    words = [text.strip() for text in texts]
    if set(words) <= {*_TRUTH, ""} and any(words):
        return np.array([float(_TRUTH[word]) if word else math.nan for word in words])
    values = [number(word) if word else math.nan for word in words]
    if None not in values:
        return np.array(values, dtype=np.float64)
    column = np.empty(len(texts), dtype=object)
    column[:] = [
        text if value is None else value for text, value in zip(texts, values, strict=True)
    ]
    return column


def _labels(path: Path, texts: list[str]) -> list[Hashable]:
    """Labels as the values that they stand for; empty fields are missing."""
    words = [text for text in dict.fromkeys(texts) if text.strip()]
    numbers = {word: value for word in words if (value := number(word)) is not None}
    numbers = {word: value for word, value in numbers.items() if math.isfinite(value)}
    others = [word for word in words if word not in numbers]
    missing = [w for w in others if w.strip().casefold() in validation.WORDS_FOR_MISSING]
    if numbers and missing == others != []:
        raise DataError(
            f"{path} has the label {missing[0]!r} among numbers; drop such rows if it stands for a "
            "missing value, or give the class another name"
        )
    if not others:
        class_targets.require_few_fractions(list(numbers.values()))
    meaning = _meaning(words)
    return [meaning[text] if text.strip() else None for text in texts]


def _known(like: Dataset, texts: list[str]) -> list[Hashable]:
    """Labels as the classes of another data set that are written so; others as they are."""
    meaning = {str(name): name for name in like.class_names or ()}
    return [meaning.get(text, text) if text.strip() else None for text in texts]


def _meaning(words: Sequence[str]) -> Mapping[str, Hashable]:
    """The value of each label: the text itself, unless all survive conversion and back."""
    for read in (_integer, {"True": True, "False": False}.get, _integer_or_float):
        values = {word: read(word) for word in words}
        if None not in values.values() and len(set(values.values())) == len(words):
            return values
    return {word: word for word in words}


def _integer(word: str) -> int | None:
    try:
        return int(word) if str(int(word)) == word else None
    except ValueError:
        return None


def _integer_or_float(word: str) -> int | float | None:
    value = number(word)
    if value is not None and math.isfinite(value) and repr(value) == word:
        return value
    return _integer(word)


# --- what no table should have --------------------------------------------------------------------


def _require_features(path: Path, chosen: Sequence[int], target: str) -> None:
    if not chosen:
        raise DataError(f"{path} has no features: its only column is the target {target!r}")


def _refuse_data_as_names(
    path: Path, names: Sequence[str], place: int, labels: Sequence[str]
) -> None:
    """Refuse a first line that looks like data: numbers, and one of the labels."""
    others = [name for j, name in enumerate(names) if j != place]
    counted = [_integer(name) for name in names]
    is_count = counted in (list(range(len(names))), list(range(1, len(names) + 1)))
    if not is_count and all(number(n) is not None for n in others) and names[place] in labels:
        raise DataError(
            f"the first line of {path} looks like data, {', '.join(names[:4])}, …, but is read as "
            "column names; put a line of names above it"
        )


def _refuse_lookalikes(path: Path, labels: Iterable[Any]) -> None:
    """Refuse labels that read the same, or differ only in the spelling of booleans."""
    seen: dict[str, str] = {}
    for label in dict.fromkeys(each for each in labels if isinstance(each, str)):
        word = validation.as_read(label)
        other = seen.setdefault(str(_TRUTH.get(word, word)), label)
        if other != label:
            raise DataError(
                f"the labels {other!a} and {label!a} in {path} look alike; write them the same way if "
                "they are one class, or rename one"
            )


def _warn_of_row_numbers(path: Path, data: Dataset) -> None:
    if data.num_points < _MIN_ROWS:
        return
    count = np.arange(data.num_points)[:, None] + np.array([0, 1])
    for name, column in zip(data.feature_names, data.features.T, strict=True):
        if (column[:, None] == count).all(axis=0).any():
            warnings.warn(
                f"the column {name!r} of {path} counts the rows, but is used as a feature; remove it if "
                "it only numbers them",
                DataWarning,
                skip_file_prefixes=(str(Path(__file__).parent),),
            )


def _shown(name: str) -> str:
    """A file name as text, even if it is not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
