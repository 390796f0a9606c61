"""Class data from tables, on disk or as data frames: read exactly, or refused with all reasons."""

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ntkbayes import table_files
from ntkbayes.datasets import array_files, class_targets, validation
from ntkbayes.datasets.cells import TRUTH, Cells, cells_of, levels_of
from ntkbayes.datasets.columns import Columns
from ntkbayes.datasets.dataset import Dataset
from ntkbayes.datasets.images import read_unlabelled_images
from ntkbayes.datasets.preparation import IMPUTATIONS, TRAINED, Preparation, Rows
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
        StorageError: the file is missing, unreadable, of an unknown suffix, or not such text.
        DataError: the table is empty, has unnamed or repeated columns, missing values that nothing
            stands for, numbers and words in one column, words that look like identifiers or dates,
            labels that look alike, no column of a name that was given, a target that looks like
            regression, or a label, column or category that `like` does not know. All are told at once.
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

        def labels_of_array() -> Any:
            if asked.targets == NUMBERS:
                return _target_numbers(column)
            return _labels_of_array(column.values, like)

        return _made(str(path), found, labels_of_array, asked, like, _shown(path.stem))
    if table_files.is_parquet(path):
        names, hidden, frame = table_files.parquet(path)
        asked = asked.resolved(str(path), names, hidden)
        return _from_frame(frame, asked, like, str(path), _shown(path.stem), hidden)
    names, rows = table_files.text(path)
    asked = asked.resolved(str(path), names)
    found = _cells_of_text(names, rows, asked.missing)
    column = found.pop(target)
    texts = column.values.tolist()
    _refuse_data_as_names(str(path), names, names.index(target), texts)

    def labels() -> Any:
        if asked.targets == NUMBERS:
            return _target_numbers(column)
        read = _labels(texts) if like is None else _known(like, texts)
        _refuse_lookalikes(read)
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


class NewRows(NamedTuple):
    """Rows of a file, to be predicted.

    Attributes:
        features: in the order and on the scale of the training features, (m, d).
        names: of the rows: their numbers from 0, or the files of images.
        ignored: columns of the file that were passed over.
    """

    features: Float[np.ndarray, "m d"]
    names: tuple[int | str, ...]
    ignored: tuple[str, ...]


def read_rows(path: str | PathLike[str], columns: Columns, *, drop: Iterable[str] = ()) -> NewRows:
    """Rows without labels from a file, through what was done to the training data's columns.

    Columns go by name, in any order. The column of the labels, and those that were dropped in training,
    are passed over.

    Args:
        path: of the file, of a kind that `read_table` reads, or of a folder of images.
        columns: of the training data, `law.problem.columns`.
        drop: further columns to pass over, each a name, or several between commas.

    Raises:
        StorageError: the file is missing or unreadable.
        DataError: columns are missing, unknown or repeated, values are missing that nothing stands for,
            or are no numbers, or a category is unknown. All are told at once.
    """
    path, words = Path(path), (drop,) if isinstance(drop, str) else tuple(drop)
    known = columns.preparation or Preparation(_raw_names(columns))
    if path.is_dir():
        return _new_images(path, columns)
    problems = Problems(str(path))
    hidden: set[str] = set()
    is_text = not array_files.is_array_file(path) and not table_files.is_parquet(path)
    if array_files.is_array_file(path):
        found = array_files.columns(path, known.target)
        names = list(found)
    elif is_text:
        names, rows = table_files.text(path)
        found = {} if len({*names}) < len(names) else _cells_of_text(names, rows, known.missing)
    else:
        names, hidden, frame = table_files.parquet(path)
        found = cells_of(frame, known.missing)
    given = table_files.named(names, words, problems)
    if needed := [name for name in given if name in known.names]:
        problems.add(f"the column {needed[0]!r} was trained on, and cannot be left out")
    labels = () if known.target is None else (known.target,)
    ignored = {*given, *hidden, *known.dropped, *labels} - {*known.names}
    table_files.require_names(str(path), names, ignored)
    found = {name: cells for name, cells in found.items() if name not in ignored}
    known.note_unknown(found, problems, remedy="; leave columns out by --drop")
    made = known.rows(found, problems)
    problems.refuse()
    assert made is not None
    if not len(made.numbers):
        raise DataError(f"{path} has no rows; give at least one")
    features = known(made)
    features = features[:, columns.order_of(Columns(known.feature_names, True), TRAINED)]
    features = features if columns.scaling is None else columns.scaling(features)
    passed_over = tuple(name for name in names if name in ignored - hidden)
    return NewRows(features, tuple(range(len(features))), passed_over)


def _new_images(folder: Path, columns: Columns) -> NewRows:
    images = read_unlabelled_images(folder)
    if images.pixels.shape[1] != len(columns.names):
        raise DataError(
            f"images in {folder} have {images.pixels.shape[1]} numbers each, for rows, columns and "
            f"colours, and the model was trained on {len(columns.names)}; give images of that size"
        )
    features = images.pixels if columns.scaling is None else columns.scaling(images.pixels)
    return NewRows(features, images.names, ())


def _raw_names(columns: Columns) -> tuple[str, ...]:
    scaling = columns.scaling
    return columns.names if scaling is None else scaling.names_of(columns)[0]


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
        _refuse_lookalikes(read)
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


def _cells_of_text(
    names: Sequence[str], rows: Sequence[Sequence[str]], missing: Sequence[str]
) -> dict[str, Cells]:
    fields = [np.array([*column, None], object)[:-1] for column in zip(*rows, strict=True)]
    empty = [np.array([], object)] * len(names)
    return {
        name: Cells(name, values, is_text=True, missing=missing)
        for name, values in zip(names, fields or empty, strict=True)
    }


# --- text -----------------------------------------------------------------------------------------


def _labels(texts: list[str]) -> list[Hashable]:
    """Labels as the values that they stand for; empty fields are missing."""
    words = [text for text in dict.fromkeys(texts) if text.strip()]
    numbers = {word: value for word in words if (value := number(word)) is not None}
    numbers = {word: value for word, value in numbers.items() if math.isfinite(value)}
    others = [word for word in words if word not in numbers]
    missing = [w for w in others if w.strip().casefold() in validation.WORDS_FOR_MISSING]
    if numbers and missing == others != []:
        raise DataError(
            f"the label {missing[0]!r} is among numbers; drop such rows if it stands for a missing "
            "value, or give the class another name"
        )
    if not others:
        class_targets.require_few_fractions(list(numbers.values()))
    meaning = _meaning(words)
    return [meaning[text] if text.strip() else None for text in texts]


def _labels_of_array(values: np.ndarray, like: Dataset | None) -> Any:
    """Labels, whole numbers as such however they are kept; those of `like` by how they are written."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == values.round()).all():
        values = values.astype(np.int64)
    if like is not None:
        known = {str(each): each for each in like.class_names or ()}
        values = np.array([*(known.get(str(v), v) for v in values.tolist()), None], object)[:-1]
    _refuse_lookalikes(values.tolist())
    return values


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


def _refuse_data_as_names(
    where: str, names: Sequence[str], place: int, labels: Sequence[str]
) -> None:
    """Refuse a first line that looks like data: numbers, and one of the labels."""
    others = [name for j, name in enumerate(names) if j != place]
    counted = [_integer(name) for name in names]
    is_count = counted in (list(range(len(names))), list(range(1, len(names) + 1)))
    if not is_count and all(number(n) is not None for n in others) and names[place] in labels:
        raise DataError(
            f"the first line of {where} looks like data, {', '.join(names[:4])}, …, but is read as "
            "column names; put a line of names above it"
        )


def _refuse_lookalikes(labels: Iterable[Any]) -> None:
    """Refuse labels that read the same, or differ only in the spelling of booleans."""
    seen: dict[str, str] = {}
    for label in dict.fromkeys(each for each in labels if isinstance(each, str)):
        word = validation.as_read(label)
        other = seen.setdefault(str(TRUTH.get(word, word)), label)
        if other != label:
            raise DataError(
                f"the labels {other!a} and {label!a} look alike; write them the same way if they are "
                "one class, or rename one"
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
