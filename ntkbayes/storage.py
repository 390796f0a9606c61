"""Files: a comparison on disk, one netCDF DataTree a law.

    folder/
      comparison.json     settings, order of the laws, reference
      laws/NAME.nc        DataTree: predictions of the test points; below /training of the training
                          points; below /surface over the plane
      comparison.csv      the table
      report.html         see `report`

Every file is written beside its place and moved there once it is whole: an interrupted run or a full
disk leaves the old file, or none.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ntkbayes.bridges.arviz import from_datatree, to_datatree
from ntkbayes.comparison import Comparison
from ntkbayes.errors import StorageError
from ntkbayes.files import write_atomically
from ntkbayes.linalg import require_float64
from ntkbayes.predictive import Predictions, Surface

if TYPE_CHECKING:
    import xarray as xr

_SURFACE_DIMENSIONS = {
    "x": ("column",),
    "y": ("row",),
    "probabilities": ("row", "column", "class"),
    "epistemic": ("row", "column"),
    "features": ("point", "feature"),
    "labels": ("point",),
}


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


def write_text(path: Path, text: str) -> None:
    """A text file, atomically."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def law_path(folder: Path, name: str) -> Path:
    """Where a law's DataTree is kept."""
    return folder / "laws" / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}.nc"


def save_law(
    folder: Path,
    predictions: Predictions,
    training: Predictions | None = None,
    surface: Surface | None = None,
) -> None:
    """Write one law's DataTree."""
    import xarray as xr

    tree = to_datatree(predictions)
    if training is not None:
        tree["training"] = to_datatree(training)
    if surface is not None:
        parts = {k: (dims, getattr(surface, k)) for k, dims in _SURFACE_DIMENSIONS.items()}
        tree["surface"] = xr.DataTree(xr.Dataset(parts))
    path = law_path(folder, predictions.name)
    write_atomically(path, lambda part: tree.to_netcdf(part, engine="h5netcdf"))


def load_law(path: Path) -> tuple[Predictions, Predictions | None, Surface | None]:
    """Predictions, predictions of the training points and surface of one law.

    Raises:
        StorageError: the file is missing, broken, or not one of ours.
    """
    tree = _open(path)
    try:
        children = tree.children
        training = from_datatree(children["training"]) if "training" in children else None
        surface = None
        if "surface" in children:
            group = children["surface"].dataset
            surface = Surface(**{k: np.array(group[k].values) for k in _SURFACE_DIMENSIONS})
        return from_datatree(tree), training, surface
    except (KeyError, ValueError, StorageError) as error:
        raise StorageError(
            f"{path} is not a whole law of this version of ntkbayes ({error}); delete it and run again"
        ) from error


def _open(path: Path) -> "xr.DataTree":
    import xarray as xr

    if not path.is_file():
        raise StorageError(f"there is no file {path}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            return tree.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise StorageError(
            f"{path} is not a readable netCDF DataTree ({error}); delete it and run again"
        ) from error


def save(comparison: Comparison, folder: str | os.PathLike) -> Path:
    """Write a comparison: every law, the table and the settings. Returns the folder.

    Raises:
        StorageError: the folder cannot be written to.
    """
    folder = Path(folder)
    prepare_folder(folder)
    for name, predictions in comparison.predictions.items():
        save_law(folder, predictions, comparison.training.get(name), comparison.surfaces.get(name))
    save_summary(comparison, folder)
    return folder


def save_summary(comparison: Comparison, folder: Path) -> None:
    """Write what is common to all laws: settings and table."""
    summary = {
        "laws": list(comparison.predictions),
        "reference": comparison.reference,
        "seed": comparison.seed,
        "settings": dict(comparison.settings),
    }
    write_text(folder / "comparison.json", json.dumps(summary, indent=2, default=str) + "\n")
    write_text(folder / "comparison.csv", comparison.table().to_csv())


def load(folder: str | os.PathLike) -> Comparison:
    """A comparison that `save`, or the command line, wrote.

    Raises:
        StorageError: a file is missing or broken.
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
        summary = json.loads(path.read_text(encoding="utf-8"))
        laws, reference = summary["laws"], summary["reference"]
        if not isinstance(laws, list) or reference not in laws:
            raise ValueError(f"the reference {reference!r} is none of the laws {laws!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} is not the summary of a comparison ({error}); delete it and run again"
        ) from error
    loaded = {name: load_law(law_path(folder, name)) for name in laws}
    return Comparison(
        predictions={name: test for name, (test, _, _) in loaded.items()},
        reference=reference,
        seed=summary.get("seed", 0),
        settings=summary.get("settings", {}),
        training={name: train for name, (_, train, _) in loaded.items() if train is not None},
        surfaces={name: plane for name, (_, _, plane) in loaded.items() if plane is not None},
    )
