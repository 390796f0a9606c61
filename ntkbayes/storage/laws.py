"""What is kept of one law: a netCDF DataTree.

    laws/NAME.nc        predictions of the test points; below /training of the training points; below
                        /surface over the plane. NAME is `files.slug` of the law's name and settings
    unfinished.json     while laws are missing: those that the study is to have; see `LawFolder.expect`

Each file holds a digest of its contents, and a mark of the study that it belongs to. Whatever is read is
either whole and what was written, or refused.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ntkbayes import netcdf
from ntkbayes.bridges.arviz import from_datatree, to_datatree
from ntkbayes.bridges.arviz.reading import schema_of
from ntkbayes.bridges.arviz.schema import ATTRIBUTES, LAYOUT, TEXTS, likelihood_text
from ntkbayes.description import digest
from ntkbayes.errors import NewerFormatError, StorageError
from ntkbayes.files import read_json, slug, to_json, write_atomically
from ntkbayes.laws.trace import Trace
from ntkbayes.likelihood import Likelihood
from ntkbayes.predictions import Predictions, Surface
from ntkbayes.scores.distributions import Distributions
from ntkbayes.storage.run_folder import RunFolder, Settings

if TYPE_CHECKING:
    import xarray as xr


UNFINISHED, SUMMARY = "unfinished.json", "comparison.json"

_MOST_FEATURES = 2**17
"""Numbers, 1 MiB. Features are the data's; every law of a folder has the same, and more are not kept."""

_SINCE_SCHEMA_3 = ("trace", "features", "feature_names", "row_names")
_ABSENT_FROM_SCHEMA_3: tuple[Callable[[str, object], bool], ...] = (
    lambda name, _: name in _SINCE_SCHEMA_3,
    lambda name, _: name in (*_SINCE_SCHEMA_3, "compile_seconds"),  # earlier still
)


@dataclass(frozen=True, eq=False)
class LawRecord:
    """What a folder keeps of a law, or of a baseline: features only if they take up to 1 MiB.

    Attributes:
        predictions: at the test points.
        training: at the training points; None for a baseline.
        surface: over the plane, if the data have two features.
    """

    predictions: Predictions
    training: Predictions | None = None
    surface: Surface | None = None

    @property
    def name(self) -> str:
        """Of the law."""
        return self.predictions.name

    def __post_init__(self) -> None:
        for part in ("predictions", "training"):
            predictions = getattr(self, part)
            if predictions is not None and np.size(predictions.features) > _MOST_FEATURES:
                slim = dataclasses.replace(predictions, features=None, feature_names=())
                object.__setattr__(self, part, slim)

    @cached_property
    def digest(self) -> str:
        """Of everything but the name. What is empty does not count, so that a field that is new to the
        format leaves the digests of files without it as they are."""
        return self._digest(lambda _, value: _is_empty(value))

    def has_digest(self, digest: object, schema: int) -> bool:
        """Whether a digest that a file of that schema holds is that of these contents."""
        if schema < 3:  # none, or one that counted a field which is no more
            return True
        if schema > 3:
            return digest == self.digest
        return any(digest == self._digest(passes_over) for passes_over in _ABSENT_FROM_SCHEMA_3)

    def _digest(self, passes_over: Callable[[str, object], bool]) -> str:
        """Of all fields but those that are passed over, by name or value."""
        whole = hashlib.sha256()

        def add(value: object) -> None:
            if isinstance(value, np.ndarray):
                add([value.dtype.str, *value.shape])
                whole.update(np.ascontiguousarray(value).data)
            elif isinstance(value, Likelihood):
                add(likelihood_text(value))
            elif isinstance(value, Distributions):
                for name in ("mean", "spread", "noise"):
                    add(np.asarray(getattr(value, name)))
            elif isinstance(value, Trace):
                for field in dataclasses.fields(value):
                    for name, numbers in sorted(getattr(value, field.name).items()):
                        add([field.name, name])
                        add(np.asarray(numbers))
            else:
                whole.update(to_json(value).encode())

        for part in (self.predictions, self.training, self.surface):
            names = [field.name for field in dataclasses.fields(part)] if part is not None else []
            for name in names if part is self.surface else sorted(names, key=_place):
                value = getattr(part, name)
                if name != "name" and not passes_over(name, value):
                    add(name)
                    add(value)
            add("end")
        return whole.hexdigest()


_IN_ORDER = (
    *("name", "targets", "class_names", "logits", "mean", "variance", "point_probabilities"),
    *("label_draws", "kind", "num_chains", "held_out", "is_posterior", "leave_one_out", "seconds"),
    *("compile_seconds", "info", "likelihood", "points", "trace", "features", "feature_names"),
    "row_names",
)


def _place(name: str) -> tuple[int, str]:
    """Where a field of predictions stands in the digest: what is new stands last."""
    return (_IN_ORDER.index(name) if name in _IN_ORDER else len(_IN_ORDER), name)


def _is_empty(value: object) -> bool:
    is_sized = isinstance(value, Sized) and not isinstance(value, np.ndarray)
    return value is None or (is_sized and not len(value))  # type: ignore[arg-type]


class LawFolder(RunFolder):
    """A run folder whose results are laws: they share the settings that claim the folder, and each has
    settings of its own. A law of the same name with others is kept beside it.

        with LawFolder("runs/iris") as folder:
            folder.claim(settings)
            folder.expect({"Laplace": describe(method)})
            if not folder.has("Laplace"):
                folder.save(LawRecord(predictions))

    Args:
        path: of the folder, made if need be.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__(path, results="laws/*.nc")
        self._expected: dict[str, str] | None = None

    @property
    def configurations(self) -> Mapping[str, str]:
        """A digest of each law's own settings, by name: of the laws expected, or, before `expect`, of
        those that the last run was to have."""
        return configurations_in(self.path) if self._expected is None else self._expected

    def expect(self, laws: Mapping[str, object]) -> None:
        """Tell the laws that the study is to have.

        Args:
            laws: the settings that are a law's own, plain data, by its name.

        Raises:
            StorageError: the folder holds one of them, but its settings hide their contents.

        Warns:
            StorageWarning: settings hide their contents, so that the law cannot be reused.
        """
        self._expected = {name: digest(own) for name, own in laws.items()}
        for name, own in laws.items():
            self.require_identified(own, has_results=self.has(name))

    def begin(self, settings: Settings, seed: int) -> None:
        """Record, until `end`, what the comparison of the laws expected will be: with it, and the laws
        that are finished, a run that was interrupted can be reported."""
        self.record(UNFINISHED, {"laws": self.configurations, "settings": settings, "seed": seed})

    def end(self) -> None:
        """The comparison is written."""
        (self.path / UNFINISHED).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether the folder holds the law of that name, with the settings expected."""
        return self.path_of(name).exists()

    def path_of(self, name: str) -> Path:
        """Of the file of a law."""
        return law_path(self.path, name, self.configurations.get(name, ""))

    def load(self, name: str) -> LawRecord:
        """The law of that name, a result of the study that claimed the folder.

        Raises:
            StorageError: the file is missing, broken, not one of ours, of another law or another study.
        """
        path = self.path_of(name)
        record, marks = read_law(path, name)
        if self.mark and marks["study"] != self._mark_of(name):
            raise StorageError(
                f"{path} was not written by this study; choose another output folder, or delete that "
                "file"
            )
        return record

    def save(self, record: LawRecord) -> None:
        """Write a law, marked as a result of the study that claimed the folder.

        Raises:
            StorageError: the disk is full, the folder cannot be written to, or netCDF cannot hold it.
        """
        write_atomically(self.path_of(record.name), to_bytes(record, self._mark_of(record.name)))

    def _mark_of(self, name: str) -> str:
        own = self.configurations.get(name, "")
        return digest([self.mark, own]) if self.mark and own else self.mark


_SURFACE = {
    "x": ("column",),
    "y": ("row",),
    "probabilities": ("row", "column", "class_"),
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


def law_path(folder: Path, name: str, configuration: str = "") -> Path:
    """Where a law's DataTree is kept: another file for every other name, and digest of its settings."""
    return folder / "laws" / f"{slug(name, configuration)}.nc"


def has_ended(folder: Path) -> bool:
    """Whether a folder has the comparison and the report of its last run."""
    written = all((folder / name).is_file() for name in (SUMMARY, "comparison.csv", "report.html"))
    return written and not (folder / UNFINISHED).exists()


def configurations_in(folder: Path) -> dict[str, str]:
    """Digests of the settings of the laws in a folder, by name, as its last run left them; none of laws
    that no study wrote.

    Raises:
        StorageError: a file is broken.
    """
    for path, key in ((folder / UNFINISHED, "laws"), (folder / SUMMARY, "configurations")):
        if path.is_file():
            try:
                return checked_configurations(read_json(path).get(key, {}))
            except StorageError as error:
                raise StorageError(
                    f"{path} is broken ({error}); delete it and run again"
                ) from error
    return {}


def checked_configurations(found: object) -> dict[str, str]:
    """Raises StorageError unless these are digests by name."""
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise StorageError(f"the digests of the settings of its laws are {found!r:.100}")
    return found


def to_bytes(record: LawRecord, study: str = "") -> memoryview:
    """A law as a netCDF file.

    Raises:
        StorageError: netCDF cannot hold it.
    """
    import xarray as xr

    try:
        tree = to_datatree(record.predictions)
        if record.training is not None:
            tree["training"] = to_datatree(record.training)
        if record.surface is not None:
            arrays = {k: (dims, getattr(record.surface, k)) for k, dims in _SURFACE.items()}
            tree["surface"] = xr.DataTree(xr.Dataset(arrays))
        tree.attrs |= {"study": study, "digest": record.digest}
        return netcdf.to_bytes(tree)
    except StorageError as error:
        raise StorageError(f"the law {record.name!r} cannot be kept: {error}") from error


def read_law(path: Path, name: str) -> tuple[LawRecord, dict[str, object]]:
    """The law of that name from a file, and its marks: digest and study.

    Raises:
        NewerFormatError: a later version of ntkbayes wrote it.
        StorageError: the file is missing, broken, not one of ours, or of another law.
    """
    if not path.is_file():
        raise StorageError(f"there is no file {path}")
    try:
        tree = netcdf.read(path, _LAYOUT, (*ATTRIBUTES, *_MARKS), TEXTS)
        groups = tree.children
        record = LawRecord(
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
    if record.name != name:
        raise StorageError(f"{path} holds the law {record.name!r}, not {name!r}; run again")
    if not record.has_digest(marks["digest"], schema_of(tree)):
        raise StorageError(f"{path} has other contents than were written; delete it and run again")
    return record, marks


def _surface(group: "xr.DataTree") -> Surface:
    """Raises StorageError if something of it is missing or does not fit."""
    arrays = {name: group.dataset.get(name) for name in _SURFACE}
    if absent := [name for name, values in arrays.items() if values is None]:
        raise StorageError(f"its surface has no {absent[0]}")
    surface = Surface(**{name: np.asarray(values) for name, values in arrays.items()})
    if any(getattr(surface, name).ndim != len(axes) for name, axes in _SURFACE.items()):
        raise StorageError("an array of its surface has too few or too many dimensions")
    if surface.features.shape[1] != 2 or surface.labels.dtype.kind not in "iu":
        raise StorageError("its surface is not over points of two features, with labels")
    return surface
