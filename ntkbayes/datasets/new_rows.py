"""Rows without labels from files, through what was done to the training data's columns."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ntkbayes import table_files
from ntkbayes.datasets import array_files
from ntkbayes.datasets.cells import cells_of, cells_of_text
from ntkbayes.datasets.columns import Columns
from ntkbayes.datasets.images import Size, read_unlabelled_images
from ntkbayes.datasets.preparation import TRAINED, Preparation
from ntkbayes.display import few
from ntkbayes.errors import DataError, Problems


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
            or are no numbers, or a category is unknown. All are reported at once.
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
        found = {} if len({*names}) < len(names) else cells_of_text(names, rows, known.missing)
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
    size = Size.of(columns.names)
    if size is None and columns.are_named:
        raise DataError(
            f"{folder} holds images, and the model was trained on the columns "
            f"{few(map(repr, columns.names))}; give a file with these"
        )
    images = read_unlabelled_images(folder, size)
    if images.pixels.shape[1] != len(columns.names):  # laws of before knew no size
        raise DataError(
            f"images in {folder} have {images.pixels.shape[1]} numbers each, for rows, columns and "
            f"colours, and the model was trained on {len(columns.names)}; give images of that size"
        )
    features = images.pixels if columns.scaling is None else columns.scaling(images.pixels)
    return NewRows(features, images.names, ())


def _raw_names(columns: Columns) -> tuple[str, ...]:
    scaling = columns.scaling
    return columns.names if scaling is None else scaling.names_of(columns)[0]
