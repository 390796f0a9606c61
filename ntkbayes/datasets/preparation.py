"""How the columns of a table become features: categories one-hot, missing values filled in.

The work is scikit-learn's, by its `SimpleImputer` and `OneHotEncoder`. What they learn is kept as plain
names and numbers, with the columns of the features, and so with each law that was fitted to them.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ntkbayes.datasets import validation
from ntkbayes.datasets.cells import Cells, cells_of
from ntkbayes.display import few
from ntkbayes.errors import DataError, Problems, UnknownNameError

IMPUTATIONS = ("median", "mean", "most-frequent")
"""What may stand for missing numbers; for missing categories it is always the most frequent."""

TRAINED = "the model was trained on"
_KIND = ("numbers", "categories")


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table before their preparation.

    Attributes:
        numbers: numeric columns, (n, a), NaN where missing.
        words: columns of categories, (n, b), "" where missing.
    """

    numbers: Float[np.ndarray, "n a"]
    words: Shaped[np.ndarray, "n b"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", validation.read_only(self.numbers))
        object.__setattr__(self, "words", validation.read_only(self.words))

    def take(self, chosen: Any) -> "Rows":
        """The rows at these indices."""
        return Rows(self.numbers[chosen], self.words[chosen])


@dataclass(frozen=True)
class Preparation:
    """How rows of a table become features: its numbers first, then one feature for each category, 1 in
    rows of that category and else 0.

    Attributes:
        numbers: names of the numeric columns.
        categories: names of the others.
        levels: the categories of each of them.
        impute: what stands for missing numbers, of `IMPUTATIONS`; None if missing values are refused.
        fills: what stands for them, one per column, numbers first; empty without `impute`.
        target: the column of the labels, which is no feature.
        dropped: columns that are left out wherever they occur.
        missing: words that stand for missing values, besides the empty one.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...] = ()
    levels: tuple[tuple[str, ...], ...] = ()
    impute: str | None = None
    fills: tuple[float | str, ...] = ()
    target: str | None = None
    dropped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.impute not in (None, *IMPUTATIONS):
            raise UnknownNameError("imputation", self.impute, IMPUTATIONS)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a table that it needs."""
        return self.numbers + self.categories

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """One per feature; a category is called column=category."""
        pairs = zip(self.categories, self.levels, strict=True)
        return self.numbers + tuple(f"{name}={level}" for name, levels in pairs for level in levels)

    @property
    def indicators(self) -> tuple[str, ...]:
        """Names of the features that tell a category, by 0 and 1."""
        return self.feature_names[len(self.numbers) :]

    @property
    def is_plain(self) -> bool:
        """Whether features are the numbers of the table as they are."""
        return not self.categories and self.impute is None

    def rows(self, columns: Mapping[str, Cells], problems: Problems) -> Rows | None:
        """The rows of a table with these columns, in any order; None if columns are missing. What is
        wrong with them is noted; for further columns see `note_unknown`."""
        absent = [name for name in self.names if name not in columns]
        if absent:
            problems.add(
                f"{_columns(absent)} missing; give the columns {few(map(repr, self.names))}"
            )
            return None
        for name in self.numbers:
            with problems.noted():
                columns[name].require_numbers()
        for name, levels in zip(self.categories, self.levels, strict=True):
            with problems.noted():
                _require_known(name, columns[name].words, levels)
        length = len(next(iter(columns.values())).values)
        numbers = [columns[name].numbers for name in self.numbers]
        words = [columns[name].words for name in self.categories]
        rows = Rows(_matrix(numbers, length, np.float64), _matrix(words, length, np.str_))
        with problems.noted():
            self.require_whole(rows)
        return rows

    def read(self, frame: Any) -> Float[np.ndarray, "k d"]:
        """The features of a data frame like the table, with its columns in any order. The target and
        dropped columns may be there, and are passed over.

        Raises:
            DataError: columns are missing, or are unknown; a category is unknown; values are missing,
                and are not filled in.
        """
        problems = Problems("the data frame")
        columns = cells_of(frame, self.missing)
        self.note_unknown(columns, problems)
        rows = self.rows(columns, problems)
        problems.refuse()
        assert rows is not None
        return self(rows)

    def note_unknown(self, names: Collection[str], problems: Problems, *, remedy: str = "") -> None:
        """Note columns that the table did not have."""
        known = (*self.names, self.target, *self.dropped)
        if unknown := [name for name in names if name not in known]:
            problems.add(
                f"{_columns(unknown)} unknown; the columns trained on are "
                f"{few(map(repr, self.names))}{remedy}"
            )

    def adopted(self, rows: Rows, other: "Preparation") -> Rows:
        """Rows of another table, read as `other` says, in the order of these columns.

        Raises:
            DataError: the tables differ in their columns, or a category is unknown.
        """
        if rows is None or (self.numbers, self.categories, self.levels) == (
            other.numbers,
            other.categories,
            other.levels,
        ):
            return rows
        problems = Problems(f"{TRAINED} another table")
        for name in self.names:
            if name not in other.names:
                problems.add(f"{_columns([name])} missing")
            elif (name in self.categories) != (name in other.categories):
                problems.add(
                    f"the column {name!r} is {_KIND[name in self.categories]} in one and "
                    f"{_KIND[name in other.categories]} in the other; read_table(..., like=train)"
                )
        self.note_unknown(other.names, problems)
        problems.refuse()
        words = rows.words[:, [other.categories.index(name) for name in self.categories]]
        for j, (name, levels) in enumerate(zip(self.categories, self.levels, strict=True)):
            with problems.noted():
                _require_known(name, words[:, j], levels)
        problems.refuse()
        return Rows(rows.numbers[:, [other.numbers.index(name) for name in self.numbers]], words)

    def require_whole(self, rows: Rows) -> None:
        """Raises DataError if values are missing, and are not filled in."""
        absent = np.column_stack([np.isnan(rows.numbers), rows.words == ""])
        if self.impute is not None or not absent.any():
            return
        which = few(_missing(self.names, absent), 30)
        row = int(np.flatnonzero(absent.any(axis=1))[0])
        raise DataError(
            f"{absent.sum()} value(s) are missing, in the column(s) {which}, the first in row {row}; "
            f"say what stands for them, --impute {', '.join(IMPUTATIONS[:-1])} or {IMPUTATIONS[-1]} "
            "(impute='median' in Python), or drop the columns or such rows"
        )

    def fitted(self, rows: Rows) -> "Preparation":
        """The same, with what stands for missing values learnt from these rows alone.

        Raises:
            DataError: a column has no values in these rows.
        """
        if self.impute is None:
            return self
        absent = np.column_stack([np.isnan(rows.numbers), rows.words == ""]).all(axis=0)
        if absent.any():
            names = [self.names[j] for j in np.flatnonzero(absent)]
            raise DataError(
                f"{_columns(names)} without any value in the rows to learn from, so that nothing can "
                f"stand for what is missing; drop (--drop {names[0]})"
            )
        learnt = (
            imputer.fit(part).statistics_.tolist()
            for imputer, part in zip(self._imputers, self._parts(rows), strict=True)
            if part.shape[1]
        )
        return dataclasses.replace(self, fills=tuple(itertools.chain.from_iterable(learnt)))

    def __call__(self, rows: Rows) -> Float[np.ndarray, "n d"]:
        """The features of rows with its columns, in its order.

        Raises:
            DataError: values are missing, and are not filled in.
        """
        self.require_whole(rows)
        parts = list(self._parts(rows))
        if self.impute is not None:
            # An imputer fitted to a single row learns that row.
            fills = np.array(self.fills, dtype=object)[None]
            of_each = fills[:, : len(self.numbers)], fills[:, len(self.numbers) :]
            parts = [
                imputer.fit(fill.astype(part.dtype)).transform(part) if part.shape[1] else part
                for imputer, fill, part in zip(self._imputers, of_each, parts, strict=True)
            ]
        features = [parts[0].astype(np.float64)]
        if self.categories:
            from sklearn.preprocessing import OneHotEncoder

            levels = [np.array(each, dtype=object) for each in self.levels]
            encoder = OneHotEncoder(categories=levels, sparse_output=False, dtype=np.float64)
            features.append(encoder.fit_transform(parts[1]))
        return np.hstack(features)

    @staticmethod
    def _parts(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        return np.array(rows.numbers), rows.words.astype(object)

    @property
    def _imputers(self) -> tuple[Any, Any]:
        """Of numbers and of words."""
        from sklearn.impute import SimpleImputer

        strategy = str(self.impute).replace("-", "_")
        return (
            SimpleImputer(strategy=strategy),
            SimpleImputer(strategy="most_frequent", missing_values=""),
        )

    def told(self, rows: Rows | None) -> str:
        """What was done to a table with these rows, in a sentence or more; "" if nothing was."""
        parts = []
        if self.dropped:
            parts.append(f"Left out: {few(map(repr, self.dropped))}.")
        if self.categories:
            each = (
                f"{name!r} ({few(levels, 4)})"
                for name, levels in zip(self.categories, self.levels, strict=True)
            )
            parts.append(f"Categories, one-hot: {few(each)}.")
        if self.impute is not None and rows is not None:
            by = (
                f"the {self.impute}"
                if self.impute != "most-frequent"
                else "the most frequent number"
            )
            filled = [
                f"by {how} of the training points {few(some)}"
                for how, some in (
                    (by, _missing(self.numbers, np.isnan(rows.numbers))),
                    ("the most frequent category", _missing(self.categories, rows.words == "")),
                )
                if some
            ]
            if filled:
                parts.append(f"Missing values filled in: {'; '.join(filled)}.")
        return " ".join(parts)


def _require_known(name: str, words: np.ndarray, levels: Sequence[str]) -> None:
    unknown = list(dict.fromkeys(w for w in map(str, words) if w and w not in levels))
    if unknown:
        row = int(np.flatnonzero(words == unknown[0])[0])
        raise DataError(
            f"the column {name!r} holds {few(map(repr, unknown))}, first in row {row}, which no row "
            f"of the training table has; its categories are {few(map(repr, levels))}: correct such rows "
            "or leave them out, or train on a table that has them"
        )


def _missing(names: Sequence[str], absent: np.ndarray) -> list[str]:
    """Columns in which values are missing, and how many."""
    counts = zip(names, absent.sum(axis=0).tolist(), strict=True)
    return [f"{name!r} ({times})" for name, times in counts if times]


def _matrix(columns: Sequence[np.ndarray], length: int, kind: type) -> np.ndarray:
    return np.column_stack(columns) if columns else np.empty((length, 0), dtype=kind)


def _columns(names: Sequence[str]) -> str:
    columns, are = ("columns", "are") if len(names) > 1 else ("column", "is")
    return f"the {columns} {few(map(repr, names))} {are}"
