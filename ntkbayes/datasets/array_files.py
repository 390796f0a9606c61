"""Arrays on disk, .npy and .npz, as columns of a table and labels."""

import zipfile
from pathlib import Path

import numpy as np

from ntkbayes.datasets.cells import Cells
from ntkbayes.display import few
from ntkbayes.errors import DataError, StorageError
from ntkbayes.files import require_file

SUFFIXES = (".npy", ".npz")
_FEATURES = ("X", "x", "features", "data")


def is_array_file(path: Path) -> bool:
    """Whether the suffix is one of NumPy's."""
    return path.suffix.lower() in SUFFIXES


def columns(path: Path, target: str | None) -> dict[str, Cells]:
    """Columns of features, x0, x1, …, from a file of arrays; with labels, if they are there, in the
    column `target`.

    A .npy file holds a matrix, whose columns are x0, x1, …, or records, whose fields are columns. A .npz
    file holds a matrix of features, called X or the only one besides, and labels, called as `target`
    says. Points of more than one axis, such as images, are flattened.

    Args:
        path: of the file.
        target: of the labels; None if there need be none.

    Raises:
        StorageError: the file is missing, broken, or holds Python objects.
        DataError: its arrays have other shapes than these.
    """
    require_file(path)
    arrays = _loaded(path)
    if path.suffix.lower() == ".npy":
        (array,) = arrays.values()
        if array.dtype.names is not None:
            return {
                name: Cells(name, _one_axis(path, name, array[name])) for name in array.dtype.names
            }
        return _of_matrix(path, "its array", array)
    labels = arrays.pop(target) if target in arrays else None
    named = [name for name in _FEATURES if name in arrays]
    if not named and len(arrays) != 1:
        shapes = few(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(
            f"{path} has the arrays {shapes} besides labels; call that of the features X, and that "
            "of the labels y, or name it by --target (target='y' in Python); test points go into a file "
            "of their own"
        )
    name = named[0] if named else next(iter(arrays))
    found = _of_matrix(path, name, arrays[name])
    if labels is not None and target is not None:
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        labels = _one_axis(path, target, labels)
        if len(labels) != len(arrays[name]):
            raise DataError(
                f"{path} has {len(labels)} labels in {target!r}, but {len(arrays[name])} points in "
                f"{name!r}"
            )
        found = {target: Cells(target, labels), **found}
    return found


def _loaded(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:  # NumPy leaves a broken file open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        told = (
            "it holds Python objects; save numbers, or text by array.astype(str)"
            if "pickle" in str(error) and "Object arrays" in str(error)
            else error
        )
        raise StorageError(f"cannot read {path} as {path.suffix}: {told}") from error


def _of_matrix(path: Path, name: str, array: np.ndarray) -> dict[str, Cells]:
    if array.ndim < 2:
        raise DataError(
            f"{path}: {name} has the shape {array.shape}, but features are a matrix, one row per point; "
            "save array.reshape(-1, 1) for a single feature"
        )
    matrix = array.reshape(len(array), -1)
    if matrix.dtype.kind not in "biuf":
        matrix = matrix.astype(object)
    return {f"x{j}": Cells(f"x{j}", column) for j, column in enumerate(matrix.T)}


def _one_axis(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1:
        raise DataError(
            f"{path}: {name} has the shape {array.shape}, but is to hold one value per point; save one "
            "label each, such as array.argmax(axis=1) of one-hot rows"
        )
    return array if array.dtype.kind in "biuf" else array.astype(object)
