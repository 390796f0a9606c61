"""Class data from tables, on disk or as data frames: read exactly, or refused with all reasons."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ntkbayes import table_files
from ntkbayes.datasets import array_files, class_targets, validation
from ntkbayes.datasets.cells import Cells, cells_of, cells_of_text, levels_of
from ntkbayes.datasets.dataset import Dataset
from ntkbayes.datasets.label_words import (
    integer,
    labels_among,
    labels_of_array,
    labels_of_texts,
    refuse_lookalikes,
)
from ntkbayes.datasets.preparation import IMPUTATIONS, Preparation, Rows
from ntkbayes.errors import ConfigurationError, DataError, DataWarning, Problems, UnknownNameError
from ntkbayes.table_files import number


def read_table(
    path: str | PathLike[str],
    *,
    target: str,
    like: Dataset | None = None,
    drop: Iterable[str] = (),
    categorical: Iterable[str] = (),
    impute: str | None = None,
    missing: Iterable[str] = (),
    targets: str = "classes",
) -> Dataset:
    """Data from a file: labels or numbers in the column `target`, features in all other columns.

    The suffix sets the format: .csv (commas), .tsv (tabs), .parquet or .pq. Text is UTF-8, with column
    names in its first line and decimal points. Labels become numbers or booleans if all of them are
    written as Python writes them; otherwise they are the text in the file: 1.10 and 1.1 are two classes.
    Boolean features become 0 and 1. Index columns that pandas stores in a Parquet file are not features,
    but may be the target. The data set is named after the file.

    Arrays are read, too: from .npy, a matrix with the columns x0, x1, … or records; from .npz, features
    called X, or the only array besides that of the labels, whose name is the target.

    Columns of words, and those that a data frame declares categorical, become one feature of 0 and 1 for
    each category. Such features are not rescaled, so that a column of categories weighs in a kernel as
    much as a standardised number. What stands for missing values is learnt from the training points of
    each split anew (see `Dataset.split`), and goes with the laws that are fitted to them.

    Args:
        path: of the file.
        target: column of the labels.
        like: the training data, if this is a table of test points: classes, columns, categories and
            what stands for missing values are those of that data set; labels and dropped columns are
            found by name. The arguments below are then its own.
        drop: columns to leave out, such as identifiers; each a name, or several between commas.
        categorical: columns whose values are categories, though they are numbers or are not told
            apart by themselves; in the same way.
        impute: what stands for missing numbers: median, mean or most-frequent; for missing categories
            the most frequent. By default missing values are refused.
        missing: words that stand for missing values, besides the empty one and NaN.
        targets: classes, or numbers for real targets and counts; those of `like` if that is given.

    Raises:
        StorageError: the file is missing, unreadable, of an unknown suffix, or not text in UTF-8.
        DataError: the table is empty, has unnamed or repeated columns, missing values that nothing
            stands for, numbers and words in one column, words that look like identifiers or dates,
            labels that look alike, no column of a name that was given, a target that looks like
            regression, or a label, column or category that `like` does not know. All are reported at
            once.
        UnknownNameError: there is no such way to impute, or no such kind of targets.
        ConfigurationError: a preparation is asked for along with `like`, which has its own.

    Warns:
        DataWarning: a column counts the rows, or holds another whole number in each: an identifier, it
            seems; or is the same everywhere; or has a category such as "?" that may stand for nothing.
    """
    path = Path(path)
    asked = _Asked.of(target, drop, categorical, impute, missing, like, targets)
    if array_files.is_array_file(path):
        found = array_files.columns(path, target)
        asked = asked.resolved(str(path), list(found))
        column = found.pop(target)
        found = {name: replace(cells, missing=asked.missing) for name, cells in found.items()}

        def read_targets() -> Any:
            if asked.targets == NUMBERS:
                return _target_numbers(column)
            return labels_of_array(column.values, None if like is None else like.class_names)

        return _made(str(path), found, read_targets, asked, like, _shown(path.stem))
    if table_files.is_parquet(path):
        names, hidden, frame = table_files.parquet(path)
        asked = asked.resolved(str(path), names, hidden)
        return _from_frame(frame, asked, like, str(path), _shown(path.stem), hidden)
    names, rows = table_files.text(path)
    asked = asked.resolved(str(path), names)
    found = cells_of_text(names, rows, asked.missing)
    column = found.pop(target)
    texts = column.values.tolist()
    _refuse_data_as_names(str(path), names, names.index(target), texts)

    def labels() -> Any:
        if asked.targets == NUMBERS:
            return _target_numbers(column)
        known = None if like is None else like.class_names or ()
        read = labels_of_texts(texts) if known is None else labels_among(known, texts)
        refuse_lookalikes(read)
        return read

    return _made(str(path), found, labels, asked, like, _shown(path.stem))


def from_frame(
    frame: Any,
    *,
    target: str,
    like: Dataset | None = None,
    drop: Iterable[str] = (),
    categorical: Iterable[str] = (),
    impute: str | None = None,
    missing: Iterable[str] = (),
    targets: str = "classes",
    name: str = "data",
) -> Dataset:
    """Data from a data frame of pandas, polars or Arrow, prepared as `read_table` does it.

    Args:
        frame: labels or numbers in the column `target`, features in all others.
        name: of the data set.
        target, like, drop, categorical, impute, missing, targets: as for `read_table`.

    Raises and warns as `read_table` does.
    """
    where = "the data frame"
    asked = _Asked.of(target, drop, categorical, impute, missing, like, targets)
    names = validation.names_of(frame)[0]
    if names is None:
        raise DataError(f"a table has named columns; got {type(frame).__name__}")
    asked = asked.resolved(where, list(map(str, names)))
    return _from_frame(frame, asked, like, where, name)


NUMBERS = "numbers"
TARGETS = ("classes", NUMBERS)
"""What a column of targets may hold."""


class _Asked(NamedTuple):
    """What is to be done to a table."""

    target: str
    drop: tuple[str, ...]
    categorical: tuple[str, ...]
    impute: str | None
    missing: tuple[str, ...]
    targets: str

    @classmethod
    def of(
        cls,
        target: str,
        drop: Iterable[str],
        categorical: Iterable[str],
        impute: str | None,
        missing: Iterable[str],
        like: Dataset | None,
        targets: str = "classes",
    ) -> "_Asked":
        if targets not in TARGETS:
            raise UnknownNameError("kind of targets", targets, TARGETS)
        if like is not None:
            targets = "classes" if like.class_names is not None else NUMBERS
        lists = tuple(tuple([v] if isinstance(v, str) else v) for v in (drop, categorical, missing))
        if impute not in (None, *IMPUTATIONS):
            raise UnknownNameError("imputation", impute, IMPUTATIONS)
        known = None if like is None else like.columns.preparation
        if known is None:
            return cls(target, lists[0], lists[1], impute, lists[2], targets)
        if any(lists) or impute is not None:
            raise ConfigurationError(
                "a table like the training data is prepared as those were; leave out drop, categorical, "
                "impute and missing"
            )
        return cls(target, known.dropped, (), known.impute, known.missing, targets)

    def resolved(self, where: str, names: Sequence[str], hidden: Iterable[str] = ()) -> "_Asked":
        """With the names of columns that the table has.

        Raises:
            DataError: it has no such columns, or unnamed or repeated ones.
        """
        problems = Problems(where)
        with problems.noted():
            table_files.find(names, self.target)
        drop, categorical = (
            table_files.named(names, words, problems) for words in (self.drop, self.categorical)
        )
        if self.target in drop + categorical:
            problems.add(
                f"the column {self.target!r} holds the labels, and cannot be a feature too"
            )
        if both := {*drop} & {*categorical}:
            problems.add(f"the column {min(both)!r} is dropped, and declared categorical as well")
        problems.refuse()
        apart = {*drop, *hidden}
        table_files.require_names(where, names, apart)
        if not {*names} - {*apart, self.target}:
            others = f", but for {', '.join(map(repr, drop))}" if drop else ""
            raise DataError(
                f"{where} has no features: its only column is the target {self.target!r}{others}"
            )
        return self._replace(drop=drop, categorical=categorical)


def _from_frame(
    frame: Any,
    asked: _Asked,
    like: Dataset | None,
    where: str,
    name: str,
    hidden: Iterable[str] = (),
) -> Dataset:
    found = cells_of(frame, asked.missing, but_for={*asked.drop, *hidden} - {asked.target})
    target = found.pop(asked.target)

    def labels() -> Any:
        if asked.targets == NUMBERS:
            return _target_numbers(target)
        read = target.source
        if like is not None:
            known = {str(each): each for each in like.class_names or ()}
            read = np.array(
                [*(known.get(str(v), v) for v in target.values.tolist()), None], object
            )[:-1]
        refuse_lookalikes(read)
        return read

    return _made(where, found, labels, asked, like, name)


def _made(
    where: str,
    found: dict[str, Cells],
    labels: Callable[[], Any],
    asked: _Asked,
    like: Dataset | None,
    name: str,
) -> Dataset:
    """The data set of a table with these columns; dropped ones may be among them."""
    found = {column: cells for column, cells in found.items() if column not in asked.drop}
    problems = Problems(where)
    if not len(next(iter(found.values())).values):
        raise DataError(f"{where} has no rows: features are empty; give at least one point")
    classes = None if like is None else like.class_names
    known = None if like is None else like.columns.preparation
    targets: Any = None
    with problems.noted():
        targets = labels()
        if asked.targets != NUMBERS:
            if classes is None:
                classes = validation.ordered_categories(targets)
            class_targets.one_hot(validation.labels(targets).tolist(), classes)
    if known is None:
        preparation, rows = _learnt(found, asked, problems)
    else:
        known.note_unknown(found, problems)
        preparation, rows = known, known.rows(found, problems)
    suspicions = _suspicions(found, preparation) if known is None else []
    problems.refuse(besides=suspicions)
    assert rows is not None
    if known is None:
        preparation = preparation.fitted(rows)
    for each in suspicions:
        text = f"{where}: {each}"
        warnings.warn(text, DataWarning, skip_file_prefixes=(str(Path(__file__).parent),))
    features, names = preparation(rows), preparation.feature_names
    if asked.targets == NUMBERS:
        data = Dataset.real(features, targets, feature_names=names, name=name)
    else:
        data = Dataset(features, targets, class_names=classes, feature_names=names, name=name)
    columns = replace(data.columns, preparation=preparation)
    return data._with(columns=columns, rows=None if preparation.is_plain else rows)


def _target_numbers(column: Cells) -> np.ndarray:
    """A column of targets as numbers. Raises DataError, naming the row, unless all are finite."""
    wrong = np.flatnonzero(column.strange | ~np.isfinite(column.numbers))
    if len(wrong):
        row = int(wrong[0])
        value = column.values.tolist()[row]
        is_word = bool(column.strange[row])
        remedy = (
            "if these are classes, leave out --likelihood, or take ordinal for ordered ones"
            if is_word
            else "drop such rows"
        )
        shown = validation.shortened(value) if is_word else f"{column.numbers[row]}"
        raise DataError(
            f"the targets {column.name!r} must be finite numbers, but row {row} holds {shown}; {remedy}"
        )
    return column.numbers


def _learnt(
    found: Mapping[str, Cells], asked: _Asked, problems: Problems
) -> tuple[Preparation, Rows | None]:
    """How the columns of a table are prepared, but for what stands for missing values, and its rows.
    What is wrong with them is noted."""
    numbers, categories = [], {}
    for name, cells in found.items():
        with problems.noted():
            if cells.is_empty:
                raise DataError(f"column {name!r} has no values; drop it (--drop {name})")
            if name in asked.categorical or cells.look_like_categories():
                categories[name] = cells.categories or levels_of(cells.words)
            else:
                numbers.append(name)
    preparation = Preparation(
        tuple(numbers),
        tuple(categories),
        tuple(categories.values()),
        impute=asked.impute,
        target=asked.target,
        dropped=asked.drop,
        missing=asked.missing,
    )
    return preparation, preparation.rows(found, problems)


# --- what no table should have --------------------------------------------------------------------


def _refuse_data_as_names(
    where: str, names: Sequence[str], place: int, labels: Sequence[str]
) -> None:
    """Refuse a first line that looks like data: numbers, and one of the labels."""
    others = [name for j, name in enumerate(names) if j != place]
    counted = [integer(name) for name in names]
    is_count = counted in (list(range(len(names))), list(range(1, len(names) + 1)))
    if not is_count and all(number(n) is not None for n in others) and names[place] in labels:
        raise DataError(
            f"the first line of {where} looks like data, {', '.join(names[:4])}, …, but is read as "
            "column names; put a line of names above it"
        )


def _suspicions(found: Mapping[str, Cells], preparation: Preparation) -> list[str]:
    """What is used, but is probably not meant."""
    told = []
    for name in preparation.numbers:
        if why := found[name].suspicion:
            told.append(
                f"the column {name!r} {why}, but is used as a feature; remove it if it only names "
                f"the rows (--drop {name})"
            )
    for name in preparation.categories:
        words = found[name].words
        present = levels_of(words)
        if len(present) == 1 and len(words) > 1:
            told.append(
                f"the column {name!r} is {present[0]!r} wherever it is known, and carries no "
                f"information; drop it (--drop {name})"
            )
        for word in (w for w in present if w.casefold() in validation.WORDS_FOR_MISSING):
            told.append(
                f"the column {name!r} has the category {word!r}, in {(words == word).sum()} rows; if it "
                f"stands for missing values, say so (--missing {word})"
            )
    return told


def _shown(name: str) -> str:
    """A file name as text, even if it is not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
