"""A comparison on disk, one netCDF DataTree a law.

    folder/
      comparison.json     settings, order of the laws, digests of each and of its settings, reference
      laws/NAME.nc        see `storage.laws`
      comparison.csv      the table
      report.html         see `app.report`

Every file is written under a temporary name and moved into place once whole: an interrupted run or a
full disk leaves the old file, or none. What is read is whole and what was written, or refused.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ntkbayes.arguments import require
from ntkbayes.bridges.arviz.schema import written_by_later
from ntkbayes.comparison import Comparison, default_reference
from ntkbayes.errors import NewerFormatError, StorageError
from ntkbayes.files import encoded, read_json, replace_all, to_json
from ntkbayes.laws import Law
from ntkbayes.linalg import require_float64
from ntkbayes.scores.intervals import with_column
from ntkbayes.storage.laws import (
    SUMMARY,
    UNFINISHED,
    LawFolder,
    LawRecord,
    checked_configurations,
    law_path,
    read_law,
    to_bytes,
)

SCHEMA = 3
"""Of comparison.json. The first had no digests, and other file names; the second no digests of the laws'
settings. Both are still read."""


def save(comparison: Comparison, folder: str | os.PathLike) -> Path:
    """Write a comparison: every law, the table and the settings. Returns the folder.

    Files are moved to their places once all are written: what the folder had stays until then.

    Raises:
        FolderInUseError: another run has the folder.
        StorageError: the folder cannot be written to, or netCDF cannot hold a law.
    """
    require(
        "save(comparison, folder)",
        "comparison",
        comparison,
        Comparison,
        lambda given: "give nb.save_law(law, path)" if isinstance(given, Law) else "",
    )
    with LawFolder(folder) as into:
        laws = (
            (law_path(into.path, record.name), to_bytes(record)) for record in _records(comparison)
        )
        texts = summary_files(comparison).items()
        summary = ((into.path / name, encoded(text)) for name, text in texts)
        replace_all(chain(laws, summary))
        into.end()
    return into.path


def summary_files(
    comparison: Comparison, configurations: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """What is common to all laws, settings and table: texts by the names of their files.

    Args:
        configurations: of the laws, see `LawFolder`.
    """
    summary = {
        "schema": SCHEMA,
        "version": version("ntkbayes"),
        "laws": list(comparison.predictions),
        "digests": {record.name: record.digest for record in _records(comparison)},
        "configurations": dict(configurations),
        "reference": comparison.reference,
        "seed": comparison.seed,
        "settings": dict(comparison.settings),
    }
    return {SUMMARY: to_json(summary), "comparison.csv": with_column(comparison.table()).to_csv()}


def _records(comparison: Comparison) -> list[LawRecord]:
    """One per law, by the name that the comparison has for it."""
    return [
        LawRecord(
            dataclasses.replace(predictions, name=name),
            comparison.training.get(name),
            comparison.surfaces.get(name),
        )
        for name, predictions in comparison.predictions.items()
    ]


def load(folder: str | os.PathLike) -> Comparison:
    """A comparison that `save`, or the command line, wrote.

    Raises:
        NewerFormatError: a later version of ntkbayes wrote it.
        StorageError: a file is missing or broken, or not the one that was written with the others.
        PrecisionError: JAX is not in float64, so that scores would differ from those written.
    """
    require_float64()
    folder = Path(folder)
    path = folder / SUMMARY
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
        configurations = checked_configurations(summary.get("configurations", {}))
    except NewerFormatError:
        raise
    except StorageError as error:
        raise StorageError(
            f"{path} is not the summary of a comparison ({error}); delete it and run again"
        ) from error
    records = {}
    for name in laws:
        file = law_path(folder, name, configurations.get(name, ""))
        file = _first_law_path(folder, name) if schema == 1 else file
        records[name], marks = read_law(file, name)
        if schema != 1 and marks["digest"] != digests[name]:
            raise StorageError(
                f"{file} is of another comparison than {path}: they were not written together; run "
                "again"
            )
    return _comparison(records, folder, str(summary["reference"]), seed, settings)


def load_so_far(folder: str | os.PathLike) -> Comparison:
    """The comparison in a folder, or, if a run was interrupted there, that of the laws it had finished.

    Returns:
        A comparison whose settings name, as "unfinished", the laws that are missing; there is no such
        setting if none is.

    Raises:
        StorageError: no law is finished; or see `load`.
    """
    require_float64()
    folder = Path(folder)
    if not (folder / UNFINISHED).is_file():
        return load(folder)
    into = LawFolder(folder)
    begun = into.recorded(UNFINISHED) or {}
    try:
        configurations = checked_configurations(begun.get("laws"))
        names = [*configurations]
        checked = _checked({**begun, "laws": names, "reference": names[0] if names else None})
        _, _, seed, settings = checked
    except StorageError as error:
        raise StorageError(
            f"{folder / UNFINISHED} does not say what the comparison is to be ({error}); delete it and "
            "run again"
        ) from error
    into.mark = str(begun.get("study"))
    records = {name: into.load(name) for name in configurations if into.has(name)}
    if not records:
        raise StorageError(
            f"{folder} holds no finished law yet; `ntkbayes compare` with --out {folder} goes on"
        )
    if missing := [name for name in configurations if name not in records]:
        settings = {**settings, "unfinished": missing}
    predictions = {name: record.predictions for name, record in records.items()}
    return _comparison(records, folder, default_reference(predictions), seed, settings)


def _comparison(
    records: Mapping[str, LawRecord],
    folder: Path,
    reference: str,
    seed: int,
    settings: Mapping[str, object],
) -> Comparison:
    """Raises StorageError where the laws are not of the same points."""
    _require_same_points(records, folder)
    return Comparison(
        predictions={name: record.predictions for name, record in records.items()},
        reference=reference,
        seed=seed,
        settings=settings,
        training={n: r.training for n, r in records.items() if r.training is not None},
        surfaces={n: r.surface for n, r in records.items() if r.surface is not None},
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


def _require_same_points(records: Mapping[str, LawRecord], folder: Path) -> None:
    """Raises StorageError where the laws are not of the same test or training points."""
    test = [record.predictions for record in records.values()]
    training = [record.training for record in records.values() if record.training is not None]
    for what, known in (("test", test), ("training", training)):
        for predictions in known:
            first = known[0]
            if predictions.class_names != first.class_names or not np.array_equal(
                predictions.targets, first.targets
            ):
                raise StorageError(
                    f"the laws {first.name!r} and {predictions.name!r} in {folder} are of different "
                    f"{what} points: they were not written together; run again"
                )


def _first_law_path(folder: Path, name: str) -> Path:
    """`law_path` of the first schema, in which several names could share a file."""
    return folder / "laws" / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}.nc"
