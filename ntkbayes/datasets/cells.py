"""The columns of a table as they are found: read as numbers, or as words that name categories."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ntkbayes.datasets import validation
from ntkbayes.errors import DataError
from ntkbayes.table_files import number

TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_WHOLE = re.compile("-?[0-9]+")
_MIN_ROWS = 10
"""Fewer say nothing of what kind of column it is."""


@dataclass(frozen=True, eq=False)
class Cells:
    """One column of a table.

    Attributes:
        name: of the column.
        values: numbers, fields of a text file, or the objects of a data frame, (n,).
        is_text: whether they are fields of a text file, in which "1" is a number.
        categories: those that a data frame declares, in their order; None if it declares none.
        missing: words that stand for missing values, besides the empty one.
        source: the column of a data frame that they come from.
    """

    name: str
    values: Shaped[np.ndarray, " n"]
    is_text: bool = False
    categories: tuple[str, ...] | None = None
    missing: Collection[str] = ()
    source: Any = None

    @cached_property
    def words(self) -> Shaped[np.ndarray, " n"]:
        """The values as names of categories, "" where they are missing. Whole numbers are written
        without a point, so that a column has the same categories wherever it was kept."""
        known: dict[Any, str] = {}
        words = []
        for value in self.values.tolist():
            try:
                if value not in known:
                    known[value] = self._word(value)
                words.append(known[value])
            except TypeError as error:
                raise DataError(
                    f"column {self.name!r} holds {validation.shortened(value)}, which is no category; "
                    "write it as text"
                ) from error
        return np.array([*words, ""], dtype=np.str_)[:-1]

    def _word(self, value: Any) -> str:
        if validation.is_missing(value):
            return ""
        if isinstance(value, float | np.floating) and value.is_integer():
            return str(int(value))
        word = validation.as_read(str(value))
        if word in self.missing or (self.is_text and _is_nan(word)):
            return ""
        whole = word.removesuffix(".0")
        return whole if self.is_text and _WHOLE.fullmatch(whole) else word

    @cached_property
    def numbers(self) -> Float[np.ndarray, " n"]:
        """The values as numbers, NaN where they are missing or are none."""
        return self._read[0]

    @cached_property
    def strange(self) -> Bool[np.ndarray, " n"]:
        """Where the values are neither numbers nor missing."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        if self.values.dtype.kind in "biuf":
            return self.values.astype(np.float64), np.zeros(len(self.values), dtype=bool)
        cells: Iterable[Any] = self.values.tolist()
        if self.is_text:
            cells = _read_text([each.strip() for each in cells], {"", *self.missing})
        numbers, strange = np.full(len(self.values), math.nan), np.zeros(len(self.values), bool)
        for row, value in enumerate(cells):
            if isinstance(value, str) and value in ("", *self.missing):
                continue
            if validation.is_number_or_missing(value):
                numbers[row] = validation.to_float(value)
            else:
                strange[row] = True
        return numbers, strange

    @property
    def is_empty(self) -> bool:
        """Whether all values are missing."""
        return not self.strange.any() and bool(np.isnan(self.numbers).all())

    def require_numbers(self) -> None:
        """Raises DataError if a value is neither a finite number nor missing."""
        if self.strange.any():
            values = self.values[self.strange].tolist()
            which = next((i for i, v in enumerate(values) if not validation.reads_as_number(v)), 0)
            row, value = np.flatnonzero(self.strange)[which], values[which]
            others = f" and {len(values) - 1} more that are no numbers" if len(values) > 1 else ""
            raise DataError(
                f"column {self.name!r} holds {validation.shortened(value)} in row {row}{others}; "
                f"{self._remedy(values, value)}"
            )
        wrong = np.flatnonzero(np.isinf(self.numbers))
        if len(wrong):
            raise DataError(
                f"column {self.name!r} holds {self.numbers[wrong[0]]} in row {wrong[0]}; numbers must "
                "be finite: correct such values, leave them empty, or drop the column (--drop "
                f"{self.name})"
            )

    def _remedy(self, values: Sequence[Any], value: Any) -> str:
        words = {each.strip() for each in values if isinstance(each, str)}
        if all(isinstance(each, str) and _is_for_missing(each) for each in values):
            named = " ".join(f"--missing {word}" for word in sorted(words))
            return (
                f"if it stands for a missing value, say so, {named} (missing={sorted(words)!r} in "
                "Python); else take the column as categories, --categorical "
                f"{self.name} (categorical={self.name!r})"
            )
        remedy = validation.remedy(value)
        if not self.is_text and all(map(validation.reads_as_number, values)):
            remedy = "these are numbers kept as text: convert them, by astype(float) or the like"
        if not isinstance(value, str):
            return f"{remedy} (--drop {self.name})"
        return (
            f"{remedy} (--drop {self.name}), or take the column as categories, --categorical "
            f"{self.name} (categorical={self.name!r} in Python)"
        )

    def look_like_categories(self) -> bool:
        """Whether the values are words, all of them, that name categories.

        Raises:
            DataError: they are neither numbers nor categories: dates, dressed numbers, another word
                in nearly every row, or some of them words and some numbers.
        """
        if self.categories is not None:
            return True
        if not self.strange.any():
            self.require_numbers()
            return False
        values = self.values[self.strange].tolist()
        is_words = all(isinstance(each, str) for each in values) and np.isnan(self.numbers).all()
        if (
            not is_words
            or all(map(validation.reads_as_number, values))
            or all(map(validation.is_time, values))
            or all(map(validation.is_dressed_number, values))
            or all(map(_is_for_missing, values))
        ):
            self.require_numbers()
        distinct = len({*self.words} - {""})
        if len(values) >= _MIN_ROWS and distinct > len(values) / 2:
            raise DataError(
                f"column {self.name!r} holds {distinct} different words in {len(values)} rows, such as "
                f"{validation.shortened(values[0])}: an identifier or free text, it seems; drop it, "
                f"--drop {self.name} (drop={self.name!r} in Python), or take the words as categories "
                f"all the same, --categorical {self.name}"
            )
        return True

    @property
    def suspicion(self) -> str:
        """Why numbers could be identifiers, as a clause; "" if they do not look so."""
        rows = len(self.numbers)
        if rows < _MIN_ROWS or not np.isfinite(self.numbers).all():
            return ""
        if any((self.numbers == np.arange(rows) + first).all() for first in (0, 1)):
            return "counts the rows"
        is_whole = (self.numbers == np.round(self.numbers)).all()
        if is_whole and len(np.unique(self.numbers)) == rows:
            return "holds another whole number in every row, as identifiers do"
        return ""


def levels_of(words: Iterable[str]) -> tuple[str, ...]:
    """The categories among words: numbers in their order if all are whole, else as text."""
    found = {*map(str, words)} - {""}
    if all(map(_WHOLE.fullmatch, found)):
        return tuple(sorted(found, key=lambda word: (int(word), word)))
    return tuple(sorted(found))


def cells_of(
    frame: Any, missing: Collection[str] = (), *, but_for: Collection[str] = ()
) -> dict[str, Cells]:
    """The columns of a data frame of pandas, polars or Arrow, by name.

    Raises:
        DataError: two of them have one name.
    """
    columns: dict[str, Cells] = {}
    names = validation.names_of(frame)[0]
    for j, name in enumerate(map(str, () if names is None else names)):
        if name in but_for:
            continue
        if name in columns:
            raise DataError(f"more than one column is called {name!r}; rename them")
        if hasattr(frame, "iloc"):
            column = frame.iloc[:, j]
        elif hasattr(frame, "column_names"):
            column = frame.column(j)
        else:
            column = frame[:, j]
        columns[name] = _cells(name, column, missing)
    return columns


def _cells(name: str, column: Any, missing: Collection[str]) -> Cells:
    values = np.asarray(column)
    if values.dtype.kind not in "biuf":
        values = values.astype(str if values.dtype.kind in "mM" else object).astype(object)
    dtype = getattr(column, "dtype", getattr(column, "type", None))
    if not str(dtype).lower().startswith(("category", "categorical", "enum", "dictionary")):
        return Cells(name, values, missing=missing, source=column)
    declared = getattr(dtype, "categories", None)
    known = values
    if declared is not None and hasattr(declared, "to_list"):
        known = np.fromiter(declared, dtype=object, count=len(declared))
    words = Cells(name, known, missing=missing).words
    is_ordered = getattr(dtype, "ordered", False)
    categories = tuple(map(str, words)) if is_ordered else levels_of(words)
    return Cells(name, values, False, categories, missing, column)


def _read_text(words: list[str], missing: Collection[str]) -> list[Any]:
    """Fields of text as booleans if all are, or else as numbers where they are numbers."""
    given = {*words} - {*missing}
    if given <= {*TRUTH} and given:
        return [TRUTH.get(word, word) for word in words]
    read = {word: number(word) for word in given}
    return [word if (value := read.get(word)) is None else value for word in words]


def _is_nan(word: str) -> bool:
    value = number(word)
    return value is not None and math.isnan(value)


def _is_for_missing(word: str) -> bool:
    return word.strip().casefold() in validation.WORDS_FOR_MISSING


def cells_of_text(
    names: Sequence[str], rows: Sequence[Sequence[str]], missing: Sequence[str]
) -> dict[str, Cells]:
    """Columns of the lines of a text file, by name."""
    fields = [np.array([*column, None], object)[:-1] for column in zip(*rows, strict=True)]
    empty = [np.array([], object)] * len(names)
    return {
        name: Cells(name, values, is_text=True, missing=missing)
        for name, values in zip(names, fields or empty, strict=True)
    }
