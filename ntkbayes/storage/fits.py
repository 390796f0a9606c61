"""Fitted laws beside their predictions, so that a folder can be asked about new points.

laws/NAME.law       see `storage.fitted`
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ntkbayes.errors import ConfigurationError, StorageError, UnknownNameError
from ntkbayes.files import read_json
from ntkbayes.laws import Law
from ntkbayes.storage.fitted import load_law, save_law
from ntkbayes.storage.laws import SUMMARY, configurations_in, law_path

LARGEST = 2**28
"""Bytes of a fit that is kept. It grows with the square of the training points, and with the draws
times the training points: at 450 points and 1000 draws, 3 MiB for MAP, 15 for random initialisations."""


def keep_fit(law: Law, path: Path) -> str:
    """Write a fitted law. Returns why it is not kept, as a clause; "" if it is.

    Args:
        path: of the law's predictions; the fit gets the same name, but for its suffix.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """
    size = sum({id(each): each.nbytes for each in _arrays(law)}.values())
    if size > LARGEST:
        return f"it takes {size / 2**20:.0f} MiB, more than {LARGEST / 2**20:.0f}"
    try:
        save_law(law, _beside(path))
    except ConfigurationError as error:  # code of the user's own cannot be written down
        return str(error)
    return ""


def fits_in(folder: str | os.PathLike) -> dict[str, Path]:
    """The files of the fitted laws in a folder, by the names of the laws, in their order.

    Raises:
        StorageError: there is no such folder, no study wrote it, or a file in it is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}; give one that `ntkbayes compare` wrote")
    if (folder / "splits").is_dir():
        parts = sorted(str(each) for each in (folder / "splits").iterdir() if each.is_dir())
        raise StorageError(
            f"{folder} holds splits, each with laws of its own; give the folder of one: "
            f"{', '.join(parts[:5])}"
        )
    known = configurations_in(folder)
    if not known:
        raise StorageError(
            f"{folder} is no folder of a comparison that `ntkbayes compare` wrote, or began, there"
        )
    paths = {name: _beside(law_path(folder, name, own)) for name, own in known.items()}
    return {name: path for name, path in paths.items() if path.is_file()}


def load_fit(folder: str | os.PathLike, name: str | None = None) -> tuple[str, Law]:
    """A fitted law of a folder, and its name.

    Args:
        folder: of a comparison that a study wrote.
        name: of the law; its capitals, hyphens and spaces do not count. By default that of the
            reference of the comparison, or else of the last law.

    Raises:
        UnknownNameError: the comparison has no such law.
        StorageError: it has, but no fit of it; or the folder is none of a comparison; see also
            `load_law`.
    """
    folder = Path(folder)
    fits, known = fits_in(folder), [*configurations_in(folder)]
    if name is None:
        chosen = _reference(folder) or next(reversed(fits), known[0])
    else:
        same = [each for each in known if _letters(each) == _letters(name)]
        if not same:
            raise UnknownNameError(f"law in {folder}", name, known)
        chosen = same[0]
    if chosen not in fits:
        kept = f"fits are there of: {', '.join(fits)}" if fits else "there is no fit of any law"
        raise StorageError(
            f"{folder} holds no fit of {chosen!r}: it is a baseline, is not finished, is too large, has "
            f"code of your own, or an earlier version of ntkbayes wrote it; {kept}"
        )
    return chosen, load_law(fits[chosen])


def _reference(folder: Path) -> str | None:
    path = folder / SUMMARY
    summary: Mapping[str, object] = read_json(path) if path.is_file() else {}
    reference = summary.get("reference")
    return reference if isinstance(reference, str) else None


def _beside(path: Path) -> Path:
    return path.with_suffix(".law")


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _arrays(law: Law) -> list[Any]:
    """Of numbers, and of keys, which are no numbers to NumPy."""
    return [each for each in jax.tree.leaves(law) if hasattr(each, "nbytes")]
