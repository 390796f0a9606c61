"""Folders of images: one sub-folder for each class."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ntkbayes.datasets.dataset import Dataset
from ntkbayes.display import few
from ntkbayes.errors import DataError, StorageError

_BRIGHTEST = 255


class Images(NamedTuple):
    """Images of a folder.

    Attributes:
        pixels: of each, row by row, from 0 for black to 1, (n, height × width × colours).
        names: paths of the files within the folder, (n,).
    """

    pixels: Float[np.ndarray, "n d"]
    names: tuple[str, ...]


def read_images(folder: str | PathLike[str], *, like: Dataset | None = None) -> Dataset:
    """Class data from a folder with one sub-folder of images for each class, called as the class is.

    Images have one size; they are grey if all are, and else in colours. Pixels run from 0 to 1 and share
    a scale, so they are best left unstandardised. Files are read by Pillow; hidden ones are passed over.

    Args:
        folder: of the sub-folders.
        like: the training data, if these are test points; its classes are taken.

    Raises:
        StorageError: there is no such folder, or a file in it is no image.
        DataError: there are no sub-folders, or no images in one; sizes differ; or a class is unknown to
            `like`.
    """
    folder = Path(folder)
    classes = _subfolders(folder)
    if len(classes) < 2:
        raise DataError(
            f"{folder} has {len(classes)} sub-folder(s); images are in one for each class, two at "
            f"least: {folder}/cat/1.png, {folder}/dog/1.png"
        )
    files = [path for each in classes for path in _files(each)]
    if empty := [each.name for each in classes if not _files(each)]:
        raise DataError(
            f"{folder} has no images in {few(map(repr, empty))}; add some, or remove it"
        )
    images = _read(folder, files)
    labels = [path.parent.name for path in files]
    names = None if like is None else like.class_names
    return Dataset(images.pixels, labels, class_names=names, name=folder.resolve().name)


def read_unlabelled_images(folder: str | PathLike[str]) -> Images:
    """Images of a folder, and of its sub-folders, whose names say nothing.

    Raises as `read_images` does.
    """
    folder = Path(folder)
    files = [path for each in (folder, *_subfolders(folder)) for path in _files(each)]
    if not files:
        raise DataError(f"{folder} has no images")
    return _read(folder, files)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}; check the path")
    return sorted(each for each in folder.iterdir() if each.is_dir() and not _is_hidden(each))


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_file() and not _is_hidden(each))


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _read(folder: Path, files: Iterable[Path]) -> Images:
    from PIL import Image, UnidentifiedImageError

    images, names = [], []
    for path in files:
        names.append(str(path.relative_to(folder)))
        try:
            with Image.open(path) as image:
                is_grey = image.mode in ("1", "L", "LA")
                images.append(np.asarray(image.convert("L" if is_grey else "RGB")))
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise StorageError(f"cannot read {path} as an image: {error}; remove it") from error
    sizes = [image.shape[:2] for image in images]
    common = max(dict.fromkeys(sizes), key=sizes.count)
    if others := [j for j, size in enumerate(sizes) if size != common]:
        height, width = sizes[others[0]]
        raise DataError(
            f"images in {folder} must have one size; most have {common[1]} × {common[0]} pixels, but "
            f"{names[others[0]]} has {width} × {height}, as {len(others) - 1} more have others; crop or "
            "resize them"
        )
    if any(image.ndim == 3 for image in images):
        images = [
            image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images
        ]
    pixels = np.stack(images).reshape(len(images), -1) / _BRIGHTEST
    return Images(pixels, tuple(names))
