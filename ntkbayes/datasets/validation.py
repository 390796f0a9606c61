"""Validation of arrays, names and values. Rows and columns in messages count from 0."""

import math
import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ntkbayes.errors import (
    DataError,
)

WORDS_FOR_MISSING = ("na", "n/a", "<na>", "nan", "nat", "null", "none", "missing", "?", "-", ".")
_MAX_LENGTH = 60  # characters of a value in a message


def features(
    features: Any, feature_names: Iterable[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """Features as a new finite matrix, its column names, and whether the user gave them."""
    if isinstance(features, str | Path):
        raise DataError(
            f"features must be numbers, got {str(features)!r}; read a file by "
            "nb.datasets.read_table(path, target=...)"
        )
    if hasattr(features, "targets") and hasattr(features, "feature_names"):
        raise DataError(
            "features must be numbers, got a Dataset: it is data already, use it as it is"
        )
    array = plain_array("features", features)
    if array.ndim != 2:
        raise DataError(
            f"features must be a matrix (n, d), got shape {array.shape}; use reshape(-1, 1) "
            "for a single feature, reshape(n, -1) for images"
        )
    made_up = tuple(f"x{j}" for j in range(array.shape[1]))
    if feature_names is None:
        given, are_given = names_of(features)
        names = made_up if given is None else tuple(str(name) for name in given)
    else:
        names = tuple(str(name) for name in in_order("feature_names", feature_names))
        are_given = names != made_up  # a caller may pass on those of another data set
    if len(names) != array.shape[1]:
        raise DataError(f"{len(names)} feature names for {array.shape[1]} features; give one each")
    for name in names:
        require_text("feature name", name)
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise DataError(f"more than one feature is called {repeated[0]!r}; rename them")
    values = number_matrix("features", array, names)
    require_finite("features", values, names)
    return values, names, are_given


def plain_array(what: str, values: Any) -> np.ndarray:
    """Values as an array; masked entries become missing values.

    Raises DataError for values that form no plain array; see `require_plain`.
    """
    require_plain(what, values)
    if isinstance(values, np.ma.MaskedArray):
        if values.dtype.kind in "mM":
            missing: Any = np.array("NaT", values.dtype)[()]
            return values.filled(missing)
        is_number = values.dtype.kind in "biuf"
        cells = np.ma.array(values, dtype=float if is_number else object)
        return cells.filled(math.nan if is_number else None)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} must form a matrix or a vector: {error}") from error
    # NumPy turns a list that holds one text into texts.
    if array.dtype.kind in "US" and not hasattr(values, "dtype"):
        return np.asarray(values, dtype=object)
    if array.dtype.names is not None:
        raise DataError(
            f"{what} are records with the fields {list(array.dtype.names)}; give a data frame, "
            "pandas.DataFrame(array), or a matrix of numbers"
        )
    if array.dtype.kind != "f" and jnp.issubdtype(array.dtype, jnp.floating):  # bfloat16, float8
        return array.astype(np.float64)
    return array


def labels(targets: Any) -> Any:
    """Labels, whose `tolist` gives values that `plain` takes.

    Raises DataError for values that form no plain array; see `require_plain`.
    """
    require_plain("targets", targets)
    is_time = getattr(getattr(targets, "dtype", None), "kind", None) in ("m", "M")
    if is_time and not _is_pandas(targets):
        times = plain_array("targets", targets)  # NumPy's own list would hold integers
        return np.array([*times.ravel(), None], dtype=object)[:-1].reshape(times.shape)
    if hasattr(targets, "tolist"):
        return targets
    try:
        return np.asarray(targets, dtype=object)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"targets must form a vector or a matrix: {error}") from error


def _is_pandas(values: Any) -> bool:
    return type(values).__module__.partition(".")[0] == "pandas"


def in_order(what: str, names: Iterable[Hashable]) -> tuple[Hashable, ...]:
    """Names in their given order. Raises DataError for a set or mapping."""
    if isinstance(names, set | frozenset | Mapping):
        raise DataError(
            f"{what} must be a list, in the order of the columns, got {shortened(names)}"
        )
    return tuple(plain(name) for name in names)


def require_plain(what: str, values: Any) -> None:
    """Raises DataError for sparse matrices, and for quantities, whose unit would be lost."""
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise DataError(
            f"{what} are a sparse matrix, but kernels take dense points; give {what}.toarray()"
        )
    for unit, number in (("units", "magnitude"), ("unit", "value")):
        if hasattr(values, unit) and hasattr(values, number):
            raise DataError(
                f"{what} are in units of {getattr(values, unit)}, which would be lost; give plain "
                f"numbers, {what}.{number}, in the same unit wherever the law is used"
            )


def names_of(features: Any) -> tuple[Iterable[Hashable] | None, bool]:
    """The column names of an object, if any, and whether the user gave them."""
    if hasattr(features, "column_names"):  # pyarrow
        return features.column_names, True
    columns = getattr(features, "columns", None)
    if columns is None and getattr(features, "ndim", 0) == 2 and hasattr(features, "coords"):
        columns = features.indexes.get(features.dims[1])  # xarray
        return columns, columns is not None
    if columns is None:
        return None, False
    return columns, not _is_count(columns)


def require_same_rows(features: Any, targets: Any) -> None:
    """Raises DataError if the indices of features and targets, of pandas or xarray, disagree.

    A default index 0, 1, … agrees with any, unless the two hold the same labels in another order.
    """
    along, others = (getattr(v, "dims", None) or (None,) for v in (features, targets))
    if others[0] in along[1:] and along[0] not in others:
        raise DataError(
            f"the targets vary along {others[0]!r}, which is the dimension of the features' columns; "
            f"give features.transpose({others[0]!r}, ...)"
        )
    first, second = (_row_index(v) for v in (features, targets))
    if not all(hasattr(index, "equals") for index in (first, second)):
        return
    if first is None or second is None or len(first) != len(second) or first.equals(second):
        return
    if not (_is_count(first) or _is_count(second)) or set(first) == set(second):
        row = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
        raise DataError(
            f"row {row} of the features is {plain(first[row])!r}, that of the targets "
            f"{plain(second[row])!r}: "
            "their indices differ. Give targets.loc[features.index], or targets.to_numpy() to match "
            "rows by position"
        )


def _row_index(values: Any) -> Any:
    """The index of the rows of a pandas or xarray object, if any."""
    if hasattr(values, "indexes") and getattr(values, "dims", None):  # xarray
        return values.indexes.get(values.dims[0])
    return getattr(values, "index", None)


def row_names(features: Any, targets: Any) -> np.ndarray:
    """Names of the rows, (n,): the index of the features or else of the targets, where one of them has
    more than a default one, as int64 if it holds whole numbers, else as text; otherwise positions."""
    for index in map(_row_index, (features, targets)):
        if hasattr(index, "equals") and not _is_count(index):
            names = index.tolist()
            whole = all(type(name) is int and abs(name) < 2**63 for name in names)
            return np.asarray(names if whole else [str(name) for name in names])
    return np.arange(len(features))


def _is_count(index: Any) -> bool:
    """Whether an index is pandas' default, 0, 1, …"""
    return type(index).__name__ == "RangeIndex" and index.equals(type(index)(len(index)))


def ordered_categories(targets: Any) -> tuple[Hashable, ...] | None:
    """The categories of an ordered pandas Categorical, or Series of one; None for other targets."""
    dtype = getattr(targets, "dtype", None)
    if not getattr(dtype, "ordered", False):
        return None
    return tuple(plain(name) for name in dtype.categories)  # type: ignore[union-attr]


def number_matrix(what: str, array: np.ndarray, names: Sequence[Hashable]) -> np.ndarray:
    """A new float64 matrix, not empty; missing values become NaN, text is an error."""
    if 0 in array.shape:
        raise DataError(f"{what} are empty (shape {array.shape}); give at least one point")
    if array.dtype.kind in "biuf":
        return np.array(array, dtype=np.float64, order="C")
    # As objects, some NumPy times would become integers.
    cells = array.astype(str if array.dtype.kind in "mM" else object).astype(object)
    wrong = ~np.frompyfunc(is_number_or_missing, 1, 1)(cells).astype(bool)
    if wrong.any():
        column = int(np.flatnonzero(wrong.any(axis=0))[0])
        rows = np.flatnonzero(wrong[:, column])
        row = next((i for i in rows if not reads_as_number(cells[i, column])), rows[0])
        raise DataError(
            f"{what} must be numbers, but column {names[column]!r} holds "
            f"{shortened(cells[row, column])} in row {row}; {remedy(cells[row, column])}"
        )
    return np.frompyfunc(to_float, 1, 1)(cells).astype(np.float64)


def require_finite(what: str, values: np.ndarray, names: Sequence[Hashable]) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"{what} hold {len(wrong)} value(s) that are missing or not finite, the first "
            f"{values[row, column]} in row {row}, column {names[column]!r}; "
            "drop such rows or fill the values in"
        )


def require_squares(what: str, values: np.ndarray, names: Sequence[Hashable] | None = None) -> None:
    """Raises DataError if squared norms, which kernels need, overflow."""
    with np.errstate(over="ignore"):
        squares = np.square(values).sum(axis=1)
    if not np.isfinite(squares).all():
        row, column = divmod(int(np.abs(values).argmax()), values.shape[1])
        name = column if names is None else names[column]
        raise DataError(
            f"{what} are as large as {values[row, column]:.3g} (row {row}, column {name!r}), and their "
            "squares overflow float64; change their unit, or standardise them"
        )


def require_same_length(features: np.ndarray, targets: np.ndarray) -> None:
    if len(features) != len(targets):
        raise DataError(f"{len(features)} rows of features but {len(targets)} targets; match them")


def as_read(text: str) -> str:
    """The text as a reader sees it: in one Unicode form, without invisible characters, with single
    spaces between its words and none around them."""
    visible = (c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) != "Cf")
    return " ".join("".join(visible).split())


def require_text(what: str, text: str) -> None:
    """Raises DataError for text that files cannot hold."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(
            f"the {what} {text!a} holds NUL or a lone surrogate, which files cannot store; rename it"
        )


def read_only(array: np.ndarray) -> np.ndarray:
    array = np.array(array)
    array.setflags(write=False)
    return array


def plain(value: Any) -> Any:
    """A numpy scalar as the Python object it stands for, or as pandas' for times in nanoseconds."""
    if not isinstance(value, np.generic):
        return value
    item = value.item()
    if isinstance(value, np.datetime64 | np.timedelta64) and isinstance(item, int):
        import pandas as pd

        return (pd.Timestamp if isinstance(value, np.datetime64) else pd.Timedelta)(value)
    return item


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN or a missing value of pandas, without importing pandas."""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def is_number_or_missing(value: Any) -> bool:
    return isinstance(value, numbers.Real | np.bool_ | Decimal) or is_missing(value)


def to_float(value: Any) -> float:
    try:
        return math.nan if is_missing(value) else float(value)
    except OverflowError:
        return math.inf


def reads_as_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


_TIME = re.compile(r"\d{4}-\d{2}-\d{2}|-?\d+ (day|(nano|micro|milli)?second)s?")
_DRESSED = re.compile(r"[\s$€£¥%'’_]|(?<=\d)[.,](?=\d{3}\b)|,")


def is_time(text: str) -> bool:
    """Whether text begins with a date, or is a span of time as pandas writes it."""
    return _TIME.match(text) is not None


def is_dressed_number(text: str) -> bool:
    """Whether text is a number once units, spaces, commas and the like are taken away."""
    return reads_as_number(_DRESSED.sub("", text))


def remedy(value: Any) -> str:
    """What to do with a value that is not a number."""
    if isinstance(value, date | timedelta):
        value = str(value)
    if isinstance(value, str):
        if value.strip().casefold() in WORDS_FOR_MISSING:
            return "if it stands for a missing value, drop such rows or fill them in"
        if is_time(value):
            return "count time in a unit: (column - column.min()) / pandas.Timedelta('1 day')"
        if is_dressed_number(value):
            return "write plain numbers with a decimal point, such as 1234.5"
    return "encode it as numbers or drop it"


def shortened(value: Any) -> str:
    text = repr(plain(value))
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}…"
