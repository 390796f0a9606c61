"""All input validation of data. Rows and columns in messages count from 0."""

import math
import numbers
import re
from collections.abc import Hashable, Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from ntkbayes.errors import (
    DataError,
)

_SIMPLEX_TOLERANCE = 1e-6
_MOST_FRACTIONAL_LABELS = 20
WORDS_FOR_MISSING = ("na", "n/a", "<na>", "nan", "nat", "null", "none", "missing", "?", "-", ".")
_LONGEST = 60  # characters of a value in a message


def features(
    features: Any, feature_names: Iterable[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Features as a new finite matrix, and the names of its columns."""
    try:
        array = np.asarray(features)
    except ValueError as error:
        raise DataError(f"features must form a matrix (n, d): {error}") from error
    if array.ndim != 2:
        raise DataError(
            f"features must be a matrix (n, d), got shape {array.shape}; use reshape(-1, 1) "
            "for a single feature, reshape(n, -1) for images"
        )
    given = getattr(features, "columns", None) if feature_names is None else feature_names
    names = tuple(f"x{j}" for j in range(array.shape[1])) if given is None else tuple(given)
    names = tuple(str(name) for name in names)
    if len(names) != array.shape[1]:
        raise DataError(f"{len(names)} feature names for {array.shape[1]} features; give one each")
    for name in names:
        require_text("feature name", name)
    values = number_matrix("features", array, names)
    require_finite("features", values, names)
    return values, names


def number_matrix(what: str, array: np.ndarray, names: Sequence[Hashable]) -> np.ndarray:
    """A new float64 matrix, not empty; missing values become NaN, text is an error."""
    if 0 in array.shape:
        raise DataError(f"{what} are empty (shape {array.shape}); give at least one point")
    if array.dtype.kind in "biuf":
        return np.array(array, dtype=np.float64, order="C")
    # Some times would become counts of numpy's own unit as objects.
    cells = array.astype(str if array.dtype.kind in "mM" else object).astype(object)
    wrong = ~np.frompyfunc(_is_number_or_missing, 1, 1)(cells).astype(bool)
    if wrong.any():
        column = int(np.flatnonzero(wrong.any(axis=0))[0])
        rows = np.flatnonzero(wrong[:, column])
        row = next((i for i in rows if not _reads_as_number(cells[i, column])), rows[0])
        raise DataError(
            f"{what} must be numbers, but column {names[column]!r} holds "
            f"{_shortened(cells[row, column])} in row {row}; {_remedy(cells[row, column])}"
        )
    return np.frompyfunc(_to_float, 1, 1)(cells).astype(np.float64)


def require_finite(what: str, values: np.ndarray, names: Sequence[Hashable]) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"{what} hold {len(wrong)} value(s) that are missing or not finite, the first "
            f"{values[row, column]} in row {row}, column {names[column]!r}; "
            "drop such rows or fill the values in"
        )


def require_same_length(features: np.ndarray, targets: np.ndarray) -> None:
    if len(features) != len(targets):
        raise DataError(f"{len(features)} rows of features but {len(targets)} targets; match them")


def one_hot(
    labels: list[Any], classes: tuple[Hashable, ...] | None
) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Labels as one-hot rows, and the names of the classes."""
    labels = [plain(label) for label in labels]
    if not labels:
        raise DataError("targets are empty; give at least one label")
    missing = [row for row, label in enumerate(labels) if is_missing(label)]
    if missing:
        rows = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise DataError(f"{len(missing)} target(s) are missing, in rows {rows}; drop these rows")
    try:
        distinct = list(dict.fromkeys(labels))
    except TypeError as error:
        raise DataError(f"labels must be hashable: {error}; use strings or integers") from error
    if classes is None:
        require_few_fractions(distinct)
        if len(distinct) == 1:
            raise DataError(
                f"all labels are {distinct[0]!r}, but classification takes two classes; "
                "add points of another class or give class_names"
            )
        try:
            classes = tuple(sorted(distinct))
        except TypeError:
            classes = tuple(distinct)
    require_classes(classes)
    index = {c: j for j, c in enumerate(classes)}
    for row, label in enumerate(labels):
        if label not in index:
            raise DataError(
                f"unseen label {label!r} in row {row}: class_names are {list(classes)}; "
                "add it there or drop the row"
            )
    return np.eye(len(classes))[[index[label] for label in labels]], classes


def require_few_fractions(labels: Iterable[Any]) -> None:
    """Raises DataError for distinct labels of which too many are fractions to be classes."""
    fractions = [v for v in labels if isinstance(v, float) and not v.is_integer()]
    if len(fractions) > _MOST_FRACTIONAL_LABELS:
        raise DataError(
            f"targets such as {fractions[0]!r} with {len(fractions)} distinct fractional values"
            " look like those of a regression; use Dataset.real, or give class_names"
        )


def probabilities(
    targets: Any, classes: tuple[Hashable, ...] | None
) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Probabilities with rows that sum to 1, and the names of the classes."""
    array = np.asarray(targets)
    if array.ndim != 2 or array.shape[1] == 1:
        raise DataError(
            f"targets must be n labels or probabilities (n, C), got shape {array.shape}; "
            "use Dataset.real for real values and a numpy object array for tuples"
        )
    values = number_matrix("targets", array, range(array.shape[1]))
    if classes is None:
        classes = tuple(range(values.shape[1]))
    require_classes(classes)
    if len(classes) != values.shape[1]:
        raise DataError(f"{len(classes)} class names for {values.shape[1]} columns of targets")
    sums = values.sum(axis=1, keepdims=True)
    on_simplex = (values >= 0).all(axis=1) & (np.abs(sums[:, 0] - 1) <= _SIMPLEX_TOLERANCE)
    if not on_simplex.all():
        row = int(np.argmin(on_simplex))
        raise DataError(
            f"targets in row {row} are no probabilities: {values[row].tolist()}; "
            "each row must be non-negative and sum to 1. Use Dataset.real for real values"
        )
    return values / sums, classes


def shares(counts: Any) -> np.ndarray:
    """Counts of votes (n, C) as shares of each row's total."""
    array = counts if isinstance(counts, np.ndarray) else np.asarray(counts, dtype=object)
    if array.ndim != 2 or array.shape[1] < 2:
        raise DataError(f"counts must be (n, C) with two classes at least, got shape {array.shape}")
    values = number_matrix("counts", array, range(array.shape[1]))
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)).all(axis=1))
    if len(wrong):
        raise DataError(
            f"counts in row {wrong[0]} are {values[wrong[0]].tolist()}; "
            "numbers of votes must be finite and not negative"
        )
    empty = np.flatnonzero(values.sum(axis=1) == 0)
    if len(empty):
        raise DataError(f"row {empty[0]} of counts has no votes; drop points nobody annotated")
    return values / values.sum(axis=1, keepdims=True)


def require_classes(classes: tuple[Hashable, ...]) -> None:
    if len(classes) < 2:
        raise DataError(f"classification takes two classes at least, got {list(classes)}")
    if len(set(classes)) < len(classes):
        raise DataError(f"class names must differ, got {list(classes)}")
    texts: dict[str, Hashable] = {}
    for name in classes:
        require_text("class name", str(name))
        other = texts.setdefault(str(name), name)
        if other is not name:
            raise DataError(
                f"the class names {other!r} and {name!r} read the same in tables and files; make them "
                "of one type, or rename one"
            )


def require_text(what: str, text: str) -> None:
    """Raises DataError for text that files cannot hold."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(
            f"the {what} {text!a} holds NUL or half a character, which files cannot keep; rename it"
        )


def read_only(array: np.ndarray) -> np.ndarray:
    array = np.array(array)
    array.setflags(write=False)
    return array


def plain(value: Any) -> Any:
    """A numpy scalar as the Python object it stands for."""
    return value.item() if isinstance(value, np.generic) else value


def is_missing(value: Any) -> bool:
    """None, NaN, and the missing values of pandas, which need not be imported for this."""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _is_number_or_missing(value: Any) -> bool:
    return isinstance(value, numbers.Real | np.bool_ | Decimal) or is_missing(value)


def _to_float(value: Any) -> float:
    try:
        return math.nan if is_missing(value) else float(value)
    except OverflowError:
        return math.inf


def _reads_as_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


_TIME = re.compile(r"\d{4}-\d{2}-\d{2}|-?\d+ (day|(nano|micro|milli)?second)s?")
_DRESSED = re.compile(r"[\s$€£¥%'’_]|(?<=\d)[.,](?=\d{3}\b)|,")


def _remedy(value: Any) -> str:
    """What to do with a value that is no number."""
    if isinstance(value, date | timedelta):
        value = str(value)
    if isinstance(value, str):
        if value.strip().casefold() in WORDS_FOR_MISSING:
            return "if it stands for a missing value, drop such rows or fill them in"
        if _TIME.match(value):
            return "count time in a unit: (column - column.min()) / pandas.Timedelta('1 day')"
        if _reads_as_number(_DRESSED.sub("", value)):
            return "write plain numbers with a decimal point, such as 1234.5"
    return "encode it as numbers or drop it"


def _shortened(value: Any) -> str:
    text = repr(plain(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
