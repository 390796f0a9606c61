"""Folders of images: one sub-folder for each class."""

import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from ntkbayes.datasets.dataset import Dataset
from ntkbayes.display import few
from ntkbayes.errors import DataError, StorageError

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY, _COLOURS = ("pixel",), ("red", "green", "blue")


class Size(NamedTuple):
    """Of images. Their features are called after it: pixel 0,0, or red 0,0, green 0,0 and so on, by row
    and column.

    Attributes:
        height, width: in pixels.
        is_coloured: rather than grey.
    """

    height: int
    width: int
    is_coloured: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, (height × width × colours,)."""
        channels = _COLOURS if self.is_coloured else _GREY
        return tuple(
            f"{channel} {row},{column}"
            for row in range(self.height)
            for column in range(self.width)
            for channel in channels
        )

    @classmethod
    def of(cls, names: Sequence[str]) -> "Size | None":
        """The size of images whose features are called so; None if they are no images."""
        last = re.fullmatch(r"(pixel|blue) (\d+),(\d+)", names[-1])
        if last is None:
            return None
        size = cls(int(last[2]) + 1, int(last[3]) + 1, last[1] == "blue")
        return size if size.names == tuple(names) else None

    def __str__(self) -> str:
        return f"{self.width} × {self.height} pixels in {'colours' if self.is_coloured else 'grey'}"


class Images(NamedTuple):
    """Images of a folder.

    Attributes:
        pixels: of each, row by row, from 0 for black to 1, (n, height × width × colours).
        size: of all.
        names: paths of the files within the folder, (n,).
    """

    pixels: Float[np.ndarray, "n d"]
    size: Size
    names: tuple[str, ...]


def read_images(folder: str | PathLike[str], *, like: Dataset | None = None) -> Dataset:
    """Class data from a folder with one sub-folder of images for each class, called as the class is.

    Images have one size; they are grey if all are, and else in colours. Pixels run from 0 to 1 and share
    a scale: nothing that standardises features changes them. Files are read by Pillow, upright where a
    camera says so; hidden ones are passed over.

    Args:
        folder: of the sub-folders.
        like: the training data, if these are test points; its classes and size are taken.

    Raises:
        StorageError: there is no such folder, or a file in it is no image.
        DataError: there are no sub-folders, or no images in one; sizes differ, also from those of
            `like`; or a class is unknown to `like`.
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
    images = _read(folder, files, None if like is None else Size.of(like.feature_names))
    data = Dataset(
        images.pixels,
        [path.parent.name for path in files],
        class_names=None if like is None else like.class_names,
        feature_names=images.size.names,
        name=folder.resolve().name,
    )
    return data._with(row_names=np.array(images.names), share_scale=True)


def read_unlabelled_images(folder: str | PathLike[str], size: Size | None = None) -> Images:
    """Images of a folder, and of its sub-folders, whose names say nothing.

    Args:
        folder: of the images.
        size: that they must have; grey ones are taken for coloured ones.

    Raises as `read_images` does.
    """
    folder = Path(folder)
    files = [path for each in (folder, *_subfolders(folder)) for path in _files(each)]
    if not files:
        raise DataError(f"{folder} has no images")
    return _read(folder, files, size)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}; check the path")
    return sorted(each for each in folder.iterdir() if each.is_dir() and not _is_hidden(each))


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_file() and not _is_hidden(each))


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _read(folder: Path, files: Iterable[Path], wanted: Size | None) -> Images:
    from PIL import Image, UnidentifiedImageError

    images, names = [], []
    for path in files:
        names.append(str(path.relative_to(folder)))
        try:
            with Image.open(path) as image:
                images.append(_pixels(image))
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
    found = Size(common[0], common[1], any(image.ndim == 3 for image in images))
    size = found if wanted is None else wanted
    if found not in (size, size._replace(is_coloured=False)):
        raise DataError(
            f"images in {folder} have {found}, and those trained on {size}; make them like these"
        )
    if size.is_coloured:
        images = [
            image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images
        ]
    return Images(np.stack(images).reshape(len(images), -1), size, tuple(names))


def _pixels(image: "Image") -> Float[np.ndarray, "height width ..."]:
    """From 0 to 1, upright; with a third axis for red, green and blue if the image is not grey.

    Raises:
        ValueError: its pixels have no largest value.
    """
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image) / (2**16 - 1)
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have no largest value; save them with 8 or 16 bits")
    is_grey = image.mode in ("1", "L", "LA")
    return np.asarray(image.convert("L" if is_grey else "RGB")) / (2**8 - 1)
