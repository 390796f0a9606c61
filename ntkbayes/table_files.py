"""Tables on disk: their column names and the fields below, as text.

Nothing here needs JAX, so that the command line can refuse a file before JAX is imported.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ntkbayes.errors import DataError, MissingDependencyError, Problems, StorageError, did_you_mean
from ntkbayes.files import require_file

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp")
_CALLED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PAR1": "a Parquet file: name it .parquet",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as CSV (UTF-8)",
}
_ROW_NUMBERS = re.compile(r"Unnamed: \d+|__index_level_\d+__")
_MAX_NAMES = 12


def require_columns(path: Path, target: str, others: Iterable[str] = ()) -> None:
    """Raises StorageError or DataError unless the file is a table with the column of the labels, and
    those that other words name, see `named`."""
    names = parquet(path)[0] if is_parquet(path) else text(path)[0]
    problems = Problems(str(path))
    with problems.noted():
        find(names, target)
    named(names, others, problems)
    problems.refuse()


def require_no_image(path: Path) -> None:
    """Raises StorageError for a single image by its suffix."""
    if path.suffix.lower() in _IMAGES and not path.is_dir():
        raise StorageError(
            f"{path} is a single image; give the folder of the images, which has a sub-folder for each "
            "class if they are to be trained or tested on"
        )


def is_parquet(path: Path) -> bool:
    """Whether the suffix means Parquet, rather than text.

    Raises:
        StorageError: it means neither, or there is no such file.
    """
    require_no_image(path)
    suffix = path.suffix.lower()
    if suffix not in (*_SEPARATORS, *_PARQUET):
        raise StorageError(
            f"cannot read {path}: known suffixes are .csv, .tsv, .parquet and .pq, and of arrays .npy "
            "and .npz; write the table as one of these, or give Dataset() the arrays"
        )
    require_file(path)
    return suffix in _PARQUET


def parquet(path: Path) -> tuple[list[str], set[str], Any]:
    """Column names, those that pandas wrote as its index, and a data frame."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError(
            f"cannot read {path}: Parquet needs pyarrow, which is not installed; "
            "`pip install 'ntkbayes[parquet]'` brings it, or write the table as .csv"
        ) from error

    try:
        # Arrow opens only names in UTF-8; Python opens any.
        with path.open("rb") as source, pq.ParquetFile(source) as file:
            table = file.read()
        names = [str(name) for name in table.column_names]
        kept = (table.schema.pandas_metadata or {}).get("index_columns", ())
        kept = {name for name in kept if isinstance(name, str)}  # the others describe a RangeIndex
        frame = table.to_pandas(ignore_metadata=True)
    except (OSError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {path} as {path.suffix}: {error}") from error
    return names, kept, frame


def text(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names in the first line, and the fields of all other lines, one per name."""
    separator = _SEPARATORS[path.suffix.lower()]
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    rows, ragged = [], []
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
            ragged.append((reader.line_num, len(row)))
        rows.append(row)
    if ragged:
        (line, length), *others = ragged
        more = ", ".join(str(each) for each, _ in others[:_MAX_NAMES])
        also = (
            f"; and so on in line(s) {more}{', …' * (len(others) > _MAX_NAMES)}" if others else ""
        )
        raise StorageError(
            f"cannot read {path} as {path.suffix}: line {line} has {length} fields, the first "
            f"{len(names)}{_advice(path, names, separator) or '; fix the line'}{also}"
        )
    if not names:
        raise DataError(f"{path} is empty; it needs a header and rows")
    return names, rows


def _whole(path: Path, reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise StorageError(
            f"cannot read {path} as {path.suffix}: line {reader.line_num}: {error}; fix the quotes"
        ) from error


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    for mark, what in _MARKS.items():
        if content.startswith(mark):
            is_encoding = what.startswith("UTF")
            remedy = f": save it as UTF-8, e.g. by iconv -f {what} -t UTF-8" if is_encoding else ""
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


def require_names(where: str, names: Sequence[str], dropped: Collection[str] = ()) -> None:
    """Raises DataError, with all of them, if columns that are not dropped have no name, pandas' name for
    row numbers, or the name of another."""
    problems, kept = Problems(where), [name for name in names if name not in dropped]
    for place, name in enumerate(names):
        if not name.strip() and name in kept:
            problems.add(
                f"a column without a name, number {place + 1} of {len(names)}: perhaps row numbers, or "
                "a separator at the end of every line; name it, or leave it out (--drop '')"
            )
        if _ROW_NUMBERS.fullmatch(name) and name in kept:
            problems.add(
                f"a column {name!r}, pandas' name for an unnamed column, mostly row numbers; leave it "
                f"out (--drop '{name}'), remove it (frame.to_csv(path, index=False) writes none), or "
                "rename it"
            )
    for name, times in Counter(kept).items():
        if times > 1 and name.strip():
            problems.add(f"more than one column called {name!r}; rename them")
    problems.refuse()


def find(names: Sequence[str], target: object) -> int:
    """The index of the target column. Raises DataError if there is none."""
    if str(target) in names:
        return names.index(str(target))
    hint = did_you_mean(target, names)
    if not hint and all(number(name) is not None for name in names[:-1]):
        hint = "; its first line must hold the column names"
    if len(names) == 1 and " " in names[0]:
        hint = "; write the file with commas if spaces separate its columns"
    raise DataError(_absent(names, str(target), hint))


def named(names: Sequence[str], words: Iterable[str], problems: Problems) -> tuple[str, ...]:
    """The columns that words name: each word is a column, or several between commas. Those that are not
    there are noted."""
    found: dict[str, None] = {}
    for word in map(str, words):
        for part in [word] if word in names else [each.strip() for each in word.split(",")]:
            if part not in names:
                problems.add(_absent(names, part, did_you_mean(part, names)))
            found[part] = None
    return tuple(found)


def _absent(names: Sequence[str], name: str, hint: str) -> str:
    shown = ", ".join(map(repr, names[:_MAX_NAMES]))
    shown += f", … ({len(names)} in all)" if len(names) > _MAX_NAMES else ""
    return f"no column {name!r}; its columns are [{shown}]{hint}"


def number(word: str) -> float | None:
    """The number in a field; None for any other text."""
    try:
        return None if "_" in word else float(word)  # Python reads 1_000 as a thousand
    except ValueError:
        return None
