"""Targets of classes, from labels, probabilities or votes. Rows in messages count from 0."""

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from ntkbayes.datasets import validation
from ntkbayes.errors import DataError

_SIMPLEX_TOLERANCE = 1e-6
_MAX_FRACTIONAL_LABELS = 20


def one_hot(
    labels: list[Any], classes: tuple[Hashable, ...] | None
) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Labels as one-hot rows, and the class names."""
    labels = [validation.plain(label) for label in labels]
    if not labels:
        raise DataError("targets are empty; give at least one label")
    missing = [row for row, v in enumerate(labels) if validation.is_missing(v) or _is_blank(v)]
    if missing:
        rows = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise DataError(f"{len(missing)} target(s) are missing, in rows {rows}; drop these rows")
    try:
        distinct = list(dict.fromkeys(labels))
    except TypeError as error:
        raise DataError(f"labels must be hashable: {error}; use strings or integers") from error
    if classes is None:
        require_few_fractions(distinct)
        _require_few_numbers(distinct, len(labels))
        if len(distinct) == 1:
            raise DataError(
                f"all labels are {distinct[0]!r}, but classification needs two classes; "
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


def _is_blank(label: Any) -> bool:
    return isinstance(label, str) and not validation.as_read(label)


def require_few_fractions(labels: Iterable[Any]) -> None:
    """Raises DataError if too many of the distinct labels are fractional to be classes."""
    fractions = [v for v in labels if isinstance(v, float) and not v.is_integer()]
    if len(fractions) > _MAX_FRACTIONAL_LABELS:
        raise DataError(
            f"targets such as {fractions[0]!r} with {len(fractions)} distinct fractional values"
            " look like regression; use Dataset.real (--likelihood normal), or give class_names"
        )


def _require_few_numbers(labels: list[Any], num_points: int) -> None:
    """Raises DataError for numbers of which nearly every point has another."""
    if len(labels) > max(_MAX_FRACTIONAL_LABELS, num_points / 3) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in labels
    ):
        raise DataError(
            f"{len(labels)} distinct numbers, such as {labels[0]!r}, in {num_points} points look like "
            "regression or counts; use Dataset.real (--likelihood normal or poisson), or give "
            "class_names"
        )


def probabilities(
    targets: Any, classes: tuple[Hashable, ...] | None
) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Probabilities with rows that sum to 1, and the class names."""
    array = validation.plain_array("targets", targets)
    if array.ndim != 2 or array.shape[1] == 1:
        raise DataError(
            f"targets must be n labels or probabilities (n, C), got shape {array.shape}; "
            "use Dataset.real for real values and a numpy object array for tuples"
        )
    columns, are_named = validation.names_of(targets)
    if columns is not None and are_named:
        array, classes = _in_order(
            array, tuple(validation.plain(name) for name in columns), classes
        )
    values = validation.number_matrix("targets", array, range(array.shape[1]))
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
            f"targets in row {row} are not probabilities: {values[row].tolist()}; "
            "each row must be non-negative and sum to 1. Use Dataset.real for real values"
        )
    return values / sums, classes


def _in_order(
    array: np.ndarray, columns: tuple[Hashable, ...], classes: tuple[Hashable, ...] | None
) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Targets with named columns in the order of the classes, or in their own if that is None."""
    if classes is None or columns == classes:
        return array, columns
    if len(set(columns)) < len(columns) or set(columns) != set(classes):
        raise DataError(
            f"the columns of the targets are {list(columns)}, the class_names {list(classes)}; "
            "rename the columns, or give the targets as an array, whose columns go by position"
        )
    return array[:, [columns.index(name) for name in classes]], classes


def shares(
    counts: Any, classes: tuple[Hashable, ...] | None
) -> tuple[np.ndarray, tuple[Hashable, ...] | None]:
    """Vote counts (n, C) as shares of each row's total, and the class names if known."""
    array = validation.plain_array("counts", counts)
    if array.ndim != 2 or array.shape[1] < 2:
        raise DataError(f"counts must be (n, C) with at least two classes, got shape {array.shape}")
    values = validation.number_matrix("counts", array, range(array.shape[1]))
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)).all(axis=1))
    if len(wrong):
        raise DataError(
            f"counts in row {wrong[0]} are {values[wrong[0]].tolist()}; "
            "vote counts must be finite and non-negative"
        )
    empty = np.flatnonzero(values.sum(axis=1) == 0)
    if len(empty):
        raise DataError(f"row {empty[0]} of counts has no votes; drop points nobody annotated")
    rows = values / values.sum(axis=1, keepdims=True)
    columns, are_named = validation.names_of(counts)
    if columns is None or not are_named:
        return rows, classes
    return _in_order(rows, tuple(validation.plain(name) for name in columns), classes)


def require_classes(classes: tuple[Hashable, ...]) -> None:
    if len(classes) < 2:
        raise DataError(f"classification needs at least two classes, got {list(classes)}")
    if len(set(classes)) < len(classes):
        raise DataError(f"class names must differ, got {list(classes)}")
    texts: dict[str, Hashable] = {}
    for name in classes:
        validation.require_text("class name", str(name))
        other = texts.setdefault(validation.as_read(str(name)), name)
        if other is not name:
            raise DataError(
                f"the class names {other!a} and {name!a} read the same in tables and files; use one "
                "spelling and type if they are one class, or rename one"
            )
