"""Files: a comparison on disk, one netCDF DataTree a law.

    folder/
      comparison.json     settings, order of the laws and a digest of each, reference
      laws/NAME.nc        DataTree: predictions of the test points; below /training of the training
                          points; below /surface over the plane. NAME is `files.slug` of the law's
      comparison.csv      the table
      report.html         see `report`

Every file is written beside its place and moved there once it is whole: an interrupted run or a full
disk leaves the old file, or none. Every law holds a digest of its contents, and which study it is of.
What is read may be anything: it is whole and what it should be, or refused.
"""

import dataclasses
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ntkbayes import netcdf
from ntkbayes.bridges.arviz import (
    ATTRIBUTES,
    LAYOUT,
    from_datatree,
    likelihood_text,
    to_datatree,
    written_by_later,
)
from ntkbayes.comparison import Comparison
from ntkbayes.errors import NewerFormatError, StorageError
from ntkbayes.files import held, read_json, replace_all, slug, to_json, write_atomically
from ntkbayes.likelihood import ClassLikelihood
from ntkbayes.linalg import require_float64
from ntkbayes.predictions import Predictions, Surface

if TYPE_CHECKING:
    import xarray as xr

Part = tuple[Predictions, Predictions | None, Surface | None]
"""Of one law: predictions, predictions of the training points, and surface."""

SCHEMA = 2
"""Of comparison.json. The first had no digests, and other file names; it is still read."""

_SURFACE = {
    "x": ("column",),
    "y": ("row",),
    "probabilities": ("row", "column", "class"),
    "epistemic": ("row", "column"),
    "features": ("point", "feature"),
    "labels": ("point",),
}
_LAYOUT: netcdf.Layout = {
    **LAYOUT,
    "training": {},
    **{f"training/{group}": variables for group, variables in LAYOUT.items()},
    "surface": _SURFACE,
}
_MARKS = ("digest", "study")


def prepare_folder(folder: Path, inside: str = "laws") -> None:
    """Make a folder with another inside, and make sure that it can be written to.

    Raises:
        StorageError: it cannot.
    """
    try:
        (folder / inside).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / inside):
            pass
    except OSError as error:
        raise StorageError(
            f"cannot write to the output folder {folder}: {error.strerror or error}; "
            "choose another with --out"
        ) from error


def law_path(folder: Path, name: str) -> Path:
    """Where a law's DataTree is kept: another file for every other name."""
    return folder / "laws" / f"{slug(name)}.nc"


# --- one law --------------------------------------------------------------------------------------


def save_law(folder: Path, name: str, part: Part, *, study: str = "") -> None:
    """Write one law's DataTree.

    Args:
        folder: of the comparison.
        name: of the law.
        part: what is known of it.
        study: a mark of the study that it is a result of, if it is.

    Raises:
        StorageError: the disk is full, the folder cannot be written to, or netCDF cannot hold it.
    """
    write_atomically(law_path(folder, name), _to_bytes(name, part, study))


def _to_bytes(name: str, part: Part, study: str = "") -> bytes:
    import xarray as xr

    test, training, surface = part
    try:
        tree = to_datatree(test)
        if training is not None:
            tree["training"] = to_datatree(training)
        if surface is not None:
            parts = {k: (dims, getattr(surface, k)) for k, dims in _SURFACE.items()}
            tree["surface"] = xr.DataTree(xr.Dataset(parts))
        tree.attrs |= {"law": name, "study": study, "digest": _digest(part)}
        return netcdf.to_bytes(tree)
    except StorageError as error:
        raise StorageError(f"the law {name!r} cannot be kept: {error}") from error


def load_law(folder: Path, name: str, *, study: str = "") -> Part:
    """What `save_law` wrote.

    Args:
        folder: of the comparison.
        name: of the law.
        study: that it must be a result of, if it must.

    Raises:
        StorageError: the file is missing, broken, not one of ours, of another law or another study.
    """
    path = law_path(folder, name)
    part, marks = _read(path, name)
    if study and marks["study"] != study:
        raise StorageError(
            f"{path} was not written by this study; choose another output folder, or delete that file"
        )
    return part


def _read(path: Path, name: str) -> tuple[Part, dict[str, object]]:
    """What a file holds of the law of that name, and its marks."""
    if not path.is_file():
        raise StorageError(f"there is no file {path}")
    try:
        tree = netcdf.read(path, _LAYOUT, (*ATTRIBUTES, *_MARKS))
        groups = tree.children
        part = (
            from_datatree(tree),
            from_datatree(groups["training"]) if "training" in groups else None,
            _surface(groups["surface"]) if "surface" in groups else None,
        )
    except NewerFormatError as error:
        raise NewerFormatError(f"{path} was {error}") from error
    except StorageError as error:
        raise StorageError(
            f"{path} is not a whole law: {error}; delete it and run again"
        ) from error
    marks = {mark: tree.attrs.get(mark) for mark in _MARKS}
    if part[0].name != name:
        raise StorageError(f"{path} holds the law {part[0].name!r}, not {name!r}; run again")
    if tree.attrs["schema"] != "ntkbayes 1" and marks["digest"] != _digest(part):
        raise StorageError(f"{path} has other contents than were written; delete it and run again")
    return part, marks


def _surface(group: "xr.DataTree") -> Surface:
    """Raises StorageError if something of it is missing or does not fit."""
    arrays = {name: group.dataset.get(name) for name in _SURFACE}
    if absent := [name for name, values in arrays.items() if values is None]:
        raise StorageError(f"its surface has no {absent[0]}")
    found = Surface(**{name: np.asarray(values) for name, values in arrays.items()})
    if any(getattr(found, name).ndim != len(axes) for name, axes in _SURFACE.items()):
        raise StorageError("an array of its surface has too few or too many dimensions")
    if found.features.shape[1] != 2 or found.labels.dtype.kind not in "iu":
        raise StorageError("its surface is not over points of two features, with labels")
    return found


def _digest(part: Part) -> str:
    """Of all that is kept of a law, but its name."""
    whole = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, np.ndarray):
            add([value.dtype.str, *value.shape])
            whole.update(np.ascontiguousarray(value).data)
        elif isinstance(value, ClassLikelihood):
            add(likelihood_text(value))
        else:
            whole.update(to_json(value).encode())

    for thing in part:
        for field in dataclasses.fields(thing) if thing is not None else ():
            if field.name != "name":
                add(field.name)
                add(getattr(thing, field.name))
        add("end")
    return whole.hexdigest()


# --- comparisons ----------------------------------------------------------------------------------


def save(comparison: Comparison, folder: str | os.PathLike) -> Path:
    """Write a comparison: every law, the table and the settings. Returns the folder.

    Files are moved to their places once all are written: what the folder had stays until then.

    Raises:
        FolderInUseError: another run has the folder.
        StorageError: the folder cannot be written to, or netCDF cannot hold a law.
    """
    folder = Path(folder)
    prepare_folder(folder)
    with held(folder):
        laws = (
            (law_path(folder, name), _to_bytes(name, part))
            for name, part in _parts(comparison).items()
        )
        replace_all(chain(laws, _summary(comparison, folder).items()))
    return folder


def save_summary(comparison: Comparison, folder: Path) -> None:
    """Write what is common to all laws: settings and table."""
    replace_all(_summary(comparison, folder).items())


def _summary(comparison: Comparison, folder: Path) -> dict[Path, bytes]:
    summary = {
        "schema": SCHEMA,
        "version": version("ntkbayes"),
        "laws": list(comparison.predictions),
        "digests": {name: _digest(part) for name, part in _parts(comparison).items()},
        "reference": comparison.reference,
        "seed": comparison.seed,
        "settings": dict(comparison.settings),
    }
    table = comparison.table().to_csv().encode("utf-8", "backslashreplace")
    return {
        folder / "comparison.json": to_json(summary).encode(),
        folder / "comparison.csv": table,
    }


def _parts(comparison: Comparison) -> dict[str, Part]:
    training, surfaces = comparison.training, comparison.surfaces
    return {
        name: (predictions, training.get(name), surfaces.get(name))
        for name, predictions in comparison.predictions.items()
    }


def load(folder: str | os.PathLike) -> Comparison:
    """A comparison that `save`, or the command line, wrote.

    Raises:
        NewerFormatError: a later version of ntkbayes wrote it.
        StorageError: a file is missing or broken, or not the one that was written with the others.
        PrecisionError: JAX is not in float64, so that scores would differ from those written.
    """
    require_float64()
    folder = Path(folder)
    path = folder / "comparison.json"
    if not path.is_file():
        raise StorageError(
            f"{folder} holds no finished comparison: there is no {path}; `ntkbayes compare` with "
            f"--out {folder} makes or finishes one"
        )
    try:
        summary = read_json(path)
        schema = summary.get("schema", 1)
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerFormatError(f"{path} was {written_by_later(str(summary.get('version')))}")
        laws, digests, seed, settings = _checked(summary)
    except NewerFormatError:
        raise
    except StorageError as error:
        raise StorageError(
            f"{path} is not the summary of a comparison ({error}); delete it and run again"
        ) from error
    place = law_path if schema != 1 else _first_law_path
    parts = {}
    for name in laws:
        parts[name], marks = _read(place(folder, name), name)
        if schema != 1 and marks["digest"] != digests[name]:
            raise StorageError(
                f"{place(folder, name)} is of another comparison than {path}: they were not written "
                "together; run again"
            )
    _require_same_points(parts, folder)
    return Comparison(
        predictions={name: test for name, (test, _, _) in parts.items()},
        reference=str(summary["reference"]),
        seed=seed,
        settings=settings,
        training={name: train for name, (_, train, _) in parts.items() if train is not None},
        surfaces={name: plane for name, (_, _, plane) in parts.items() if plane is not None},
    )


def _checked(
    summary: Mapping[str, object],
) -> tuple[list[str], Mapping[str, object], int, Mapping[str, object]]:
    """Laws, digests, seed and settings. Raises StorageError if one of them is not what it should be."""
    laws, digests = summary.get("laws"), summary.get("digests", {})
    seed, settings = summary.get("seed", 0), summary.get("settings", {})
    if not isinstance(laws, list) or not all(isinstance(name, str) for name in laws):
        raise StorageError(f"its laws are {laws!r:.100}, no list of names")
    if not laws or len(set(laws)) < len(laws):
        raise StorageError("it names no laws, or one twice")
    if summary.get("reference") not in laws:
        raise StorageError(f"the reference {summary.get('reference')!r:.100} is none of the laws")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise StorageError(f"its seed is {seed!r:.100}")
    if not isinstance(settings, dict):
        raise StorageError(f"its settings are {settings!r:.100}")
    if not isinstance(digests, dict) or ("schema" in summary and set(digests) != set(laws)):
        raise StorageError("it does not say what the contents of its laws should be")
    return laws, digests, seed, settings


def _require_same_points(parts: Mapping[str, Part], folder: Path) -> None:
    """Raises StorageError where the laws are not of the same test or training points."""
    for which, what in ((0, "test"), (1, "training")):
        known = {name: part[which] for name, part in parts.items() if part[which] is not None}
        for name, found in known.items():
            first = next(iter(known.values()))
            assert isinstance(found, Predictions)
            assert isinstance(first, Predictions)
            if found.class_names != first.class_names or not np.array_equal(
                found.targets, first.targets
            ):
                raise StorageError(
                    f"the laws {first.name!r} and {name!r} in {folder} are of different {what} points: "
                    "they were not written together; run again"
                )


def _first_law_path(folder: Path, name: str) -> Path:
    """`law_path` of the first schema, in which several names could share a file."""
    return folder / "laws" / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}.nc"
