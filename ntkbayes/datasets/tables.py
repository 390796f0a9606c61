"""Class data from tables on disk: read exactly, or refused with the reason."""

import csv
import difflib
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ntkbayes.datasets import validation
from ntkbayes.datasets.dataset import Dataset
from ntkbayes.errors import DataError, DataWarning, StorageError
from ntkbayes.files import require_file

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_CALLED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARKS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PAR1": "a Parquet file: name it .parquet",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as CSV (UTF-8)",
}
_TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_ROW_NUMBERS = re.compile(r"Unnamed: \d+|__index_level_\d+__")
_MAX_NAMES = 12
_MIN_ROWS = 10


def read_table(path: str | PathLike[str], *, target: str) -> Dataset:
    """Class data from a file: labels in the column `target`, features in all other columns.

    The suffix sets the format: .csv (commas), .tsv (tabs), .parquet or .pq. Text is UTF-8, with column
    names in its first line and decimal points; only empty fields are missing. Labels become numbers or
    booleans if all of them are written as Python writes them; otherwise they are the text in the file:
    1.10 and 1.1 are two classes. Boolean features become 0 and 1. Index columns that pandas stores in a
    Parquet file are not features, but may be the target. The data set is named after the file.

    Warns with DataWarning of a column that counts the rows. Raises StorageError for a file that is
    missing, unreadable, of an unknown suffix, or not such text; DataError for a table that is empty, has
    unnamed or repeated columns, missing values, text among the features, labels that look alike, no
    column `target`, or a target that looks like regression.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*_SEPARATORS, *_PARQUET):
        raise StorageError(
            f"cannot read {path}: known suffixes are .csv, .tsv, .parquet and .pq; write the table as "
            "one of these, or give Dataset() the arrays"
        )
    require_file(path)
    if suffix in _PARQUET:
        names, row_labels, frame = _parquet(path)
        place = _find(path, names, target)
        chosen = [j for j, name in enumerate(names) if j != place and name not in row_labels]
        _require_features(path, chosen, names[place])
        features, labels = frame.iloc[:, chosen], frame.iloc[:, place]
    else:
        names, rows = _text_rows(path, _SEPARATORS[suffix])
        place = _find(path, names, target)
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
        chosen = [j for j in range(len(names)) if j != place]
        _require_features(path, chosen, names[place])
        _refuse_data_as_names(path, names, place, columns[place])
        features = np.column_stack([_numbers(columns[j]) for j in chosen])
        labels = _labels(path, columns[place])
    _refuse_lookalikes(path, labels)
    data = Dataset(
        features, labels, feature_names=[names[j] for j in chosen], name=_shown(path.stem)
    )
    _warn_of_row_numbers(path, data)
    return data


# --- Parquet --------------------------------------------------------------------------------------


def _parquet(path: Path) -> tuple[list[str], set[str], Any]:
    """Column names, those that pandas wrote as its index, and a data frame."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        names = [str(name) for name in table.column_names]
        kept = (table.schema.pandas_metadata or {}).get("index_columns", ())
        kept = {name for name in kept if isinstance(name, str)}  # the others describe a RangeIndex
        _require_names(path, [name for name in names if name not in kept])
        frame = table.to_pandas(ignore_metadata=True)
    except DataError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {path} as {path.suffix}: {error}") from error
    return names, kept, frame


# --- text -----------------------------------------------------------------------------------------


def _text_rows(path: Path, separator: str) -> tuple[list[str], list[list[str]]]:
    """The names in the first line, and the fields of all other lines, one per name."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    rows = []
    for row in _whole(path, reader):
        if len(row) <= 1 and not "".join(row).strip():
            continue  # a blank line
        if not names:
            names = row
            if len(names) == 1 and names[0].startswith("#"):
                raise StorageError(f"{path} begins with a comment, {names[0]!r}; remove such lines")
            if len(names) == 1 and (advice := _advice(path, names, separator)):
                raise StorageError(f"{path} has a single column, {names[0]!r}{advice}")
            continue
        if len(row) != len(names):
            raise StorageError(
                f"cannot read {path} as {path.suffix}: line {reader.line_num} has {len(row)} fields, "
                f"the first {len(names)}{_advice(path, names, separator) or '; fix the line'}"
            )
        rows.append(row)
    if not names:
        raise DataError(f"{path} is empty; it needs a header and rows")
    _require_names(path, names)
    return names, rows


def _whole(path: Path, reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise StorageError(
            f"cannot read {path} as {path.suffix}: line {reader.line_num}: {error}; fix the quotes"
        ) from error


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    for mark, what in _MARKS.items():
        if content.startswith(mark):
            remedy = (
                ": save it as UTF-8, e.g. by iconv -f UTF-16 -t UTF-8" if what == "UTF-16" else ""
            )
            raise StorageError(f"cannot read {path} as {path.suffix}: it is {what}{remedy}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StorageError(
            f"cannot read {path} as {path.suffix}: line {line} is not UTF-8 (byte "
            f"0x{content[error.start]:02x}), perhaps Latin-1; save the file as UTF-8, e.g. by iconv -f "
            "LATIN1 -t UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise StorageError(
            f"cannot read {path} as {path.suffix}: line {line} holds the character NUL, as in binary "
            "files and UTF-16; save the file as UTF-8 text"
        )
    return text


def _advice(path: Path, names: Sequence[str], separator: str) -> str:
    """What to do if the first line uses another separator than the suffix implies; empty if not."""
    line = separator.join(names)
    other = next((s for s in ";\t,|" if s in line and s != separator), None)
    if other is None:
        return ""
    decimal = ", decimal=','" if other == ";" else ""
    return (
        f"; {path.suffix} is read with {_CALLED[separator]}. If this is separated by "
        f"{_CALLED[other]}, convert it: pandas.read_csv({str(path)!r}, sep={other!r}{decimal})"
        f".to_csv('new.csv', index=False){', without decimal= for decimal points' if decimal else ''}"
    )


def _numbers(texts: list[str]) -> np.ndarray:
    """A column as float64, or as objects if some text is not a number; empty fields are missing."""
    words = [text.strip() for text in texts]
    if set(words) <= {*_TRUTH, ""} and any(words):
        return np.array([float(_TRUTH[word]) if word else math.nan for word in words])
    values = [_number(word) if word else math.nan for word in words]
    if None not in values:
        return np.array(values, dtype=np.float64)
    column = np.empty(len(texts), dtype=object)
    column[:] = [
        text if value is None else value for text, value in zip(texts, values, strict=True)
    ]
    return column


def _number(word: str) -> float | None:
    try:
        return None if "_" in word else float(word)  # Python reads 1_000 as a thousand
    except ValueError:
        return None


def _labels(path: Path, texts: list[str]) -> list[Hashable]:
    """Labels as the values that they stand for; empty fields are missing."""
    words = [text for text in dict.fromkeys(texts) if text.strip()]
    numbers = {word: value for word in words if (value := _number(word)) is not None}
    numbers = {word: value for word, value in numbers.items() if math.isfinite(value)}
    others = [word for word in words if word not in numbers]
    missing = [w for w in others if w.strip().casefold() in validation.WORDS_FOR_MISSING]
    if numbers and missing == others != []:
        raise DataError(
            f"{path} has the label {missing[0]!r} among numbers; drop such rows if it stands for a "
            "missing value, or give the class another name"
        )
    if not others:
        validation.require_few_fractions(list(numbers.values()))
    meaning = _meaning(words)
    return [meaning[text] if text.strip() else None for text in texts]


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
    value = _number(word)
    if value is not None and math.isfinite(value) and repr(value) == word:
        return value
    return _integer(word)


# --- what no table should have --------------------------------------------------------------------


def _require_names(path: Path, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if not name.strip():
            raise DataError(
                f"{path} has a column without a name, number {place + 1} of {len(names)}: perhaps row "
                "numbers, or a separator at the end of every line; name or remove it"
            )
        if _ROW_NUMBERS.fullmatch(name):
            raise DataError(
                f"{path} has a column {name!r}, pandas' name for an unnamed column, mostly row numbers; "
                "remove it (frame.to_csv(path, index=False) writes none), or rename it"
            )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{path} has more than one column called {name!r}; rename them")
        seen.add(name)


def _find(path: Path, names: Sequence[str], target: object) -> int:
    """The index of the target column."""
    if str(target) in names:
        return names.index(str(target))
    close = difflib.get_close_matches(str(target), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    if not close and all(_number(name) is not None for name in names[:-1]):
        hint = "; its first line must hold the column names"
    if len(names) == 1 and " " in names[0]:
        hint = "; write the file with commas if spaces separate its columns"
    shown = ", ".join(map(repr, names[:_MAX_NAMES]))
    shown += f", … ({len(names)} in all)" if len(names) > _MAX_NAMES else ""
    raise DataError(f"{path} has no column {str(target)!r}; its columns are [{shown}]{hint}")


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
    if not is_count and all(_number(n) is not None for n in others) and names[place] in labels:
        raise DataError(
            f"the first line of {path} looks like data, {', '.join(names[:4])}, …, but is read as "
            "column names; put a line of names above it"
        )


def _refuse_lookalikes(path: Path, labels: Iterable[Any]) -> None:
    """Refuse labels that differ only in surrounding spaces, Unicode form or spelling of booleans."""
    seen: dict[str, str] = {}
    for label in dict.fromkeys(each for each in labels if isinstance(each, str)):
        word = unicodedata.normalize("NFC", label.strip())
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
