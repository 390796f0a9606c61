"""Folders of results: one run at a time, and results of one kind that share their settings.

folder/
  .ntkbayes.lock      held while a run writes here
  study.json          the settings that the results share
  laws/NAME.nc        results, each written as soon as it is known
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self

from ntkbayes.description import digest, unidentified
from ntkbayes.errors import StorageError, StorageWarning
from ntkbayes.files import encoded, held, plain, read_json, replace_all, to_json, write_text

Settings = Mapping[str, object]
"""Of a study, by name: plain data."""

RESULTS = {
    "laws/*.nc": "a comparison",
    "studies/*/laws/*.nc": "a sweep",
    "splits/*/laws/*.nc": "a comparison over splits",
    "runs/*.npz": "a study of the lazy regime",
}
"""What a folder may hold, by the pattern of the files of results; it holds one kind."""

Announce = Callable[[str], AbstractContextManager]
"""Called with what is about to happen; its context lasts as long as that."""


def differing(before: Settings, now: Settings) -> str:
    """How the settings of a study differ from those in its folder, as a clause; "" if they agree."""
    if "versions" not in before:
        return (
            "holds a study with other settings (written by an earlier version of ntkbayes, which did "
            "not record what functions do)"
        )
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return f"holds a study with other settings (differing in: {', '.join(names)})" if names else ""


_REMEDY = "choose another output folder"


class RunFolder:
    """A folder that one run has to itself, from entering the context to leaving it.

        with LawFolder("runs/iris") as folder:
            folder.claim(settings)
            if not folder.has("Laplace"):
                folder.save(LawRecord(predictions))
            record = folder.load("Laplace")
            folder.finish({"comparison.csv": table})

    How results of one kind are loaded and saved is for the class of that kind, such as `LawFolder`.

    Args:
        path: of the folder, made if need be.
        results: a pattern of the files of results, one of `RESULTS`.
        settings: name of the file of settings.

    Attributes:
        path: of the folder.
        mark: of the study that claimed the folder; "" before `claim`.

    Raises:
        StorageError: on entering, the folder cannot be written to.
        FolderInUseError: on entering, another run has the folder.
    """

    def __init__(self, path: str | os.PathLike, *, results: str, settings: str = "study.json"):
        self.path = Path(path)
        self.mark = ""
        self._results, self._settings = results, settings
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        self.prepare()
        self._lock.enter_context(held(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def prepare(self) -> None:
        """Make the folder, and the one for results in it, and check that files can be written there.

        Raises:
            StorageError: they cannot.
        """
        inside = self.path / self._kind
        try:
            inside.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=inside):
                pass
        except OSError as error:
            raise StorageError(
                f"cannot write to the output folder {self.path}: {error.strerror or error}; "
                "choose another with --out"
            ) from error

    def claim(
        self, settings: Settings, *, conflict: Callable[[Settings, Settings], str] = differing
    ) -> None:
        """Make sure that results in the folder belong to this study, and record its settings.

        A folder without results is free: a study that failed before its first result has no claim.

        Args:
            settings: all that the results depend on, plain data.
            conflict: from the settings in the folder and these, why they do not agree, as a clause
                such as "holds another study"; "" if they do.

        Raises:
            StorageError: the folder holds results of another kind, of another study, or of one that
                cannot be told from another.

        Warns:
            StorageWarning: settings hide their contents, so that the study cannot be resumed.
        """
        path, now = self.path / self._settings, plain(settings)
        for pattern, what in RESULTS.items():
            if pattern != self._results and any(self.path.glob(pattern)):
                raise StorageError(f"{self.path} holds {what}; {_REMEDY}")
        has_results = any(self.path.glob(self._results))
        self.require_identified(settings, has_results=has_results)
        if has_results:
            self._require_own(path, now, conflict)
        write_text(path, to_json(settings))
        self.mark = digest(settings)

    def require_identified(self, settings: object, *, has_results: bool) -> None:
        """Warns StorageWarning of settings that hide their contents; raises StorageError if there are
        results already that may or may not be theirs."""
        hidden = ", ".join(unidentified(settings))
        if hidden and has_results:
            raise StorageError(
                f"{self.path} holds results, and settings of type {hidden} hide their contents: whether "
                f"the results belong to this study cannot be told; {_REMEDY}"
            )
        if hidden:
            warnings.warn(
                f"settings of type {hidden} hide their contents: if the study is interrupted, it "
                "cannot be resumed. Give functions, modules or dataclasses instead",
                StorageWarning,
                stacklevel=4,
            )

    def _require_own(
        self, path: Path, now: Settings, conflict: Callable[[Settings, Settings], str]
    ) -> None:
        if not path.is_file():
            raise StorageError(f"{self.path} holds {self._kind} but no {path.name}; {_REMEDY}")
        try:
            before = read_json(path)
        except StorageError as error:
            raise StorageError(f"{self.path} holds {self._kind}, but {error}; {_REMEDY}") from error
        if why := conflict(before, now):
            raise StorageError(f"{self.path} {why}; {_REMEDY}, or delete that one")

    @property
    def _kind(self) -> str:
        """The folder of results, such as "laws"."""
        return self._results.partition("/")[0]

    def record(self, name: str, content: Settings) -> None:
        """Write plain data, marked as of the study that claimed the folder.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
        """
        write_text(self.path / name, to_json({**content, "study": self.mark}))

    def recorded(self, name: str) -> Settings | None:
        """What `record` wrote for the study that claimed the folder, or, before `claim`, for any; None
        if it wrote nothing.

        Raises:
            StorageError: the file is broken.
        """
        path = self.path / name
        if not path.is_file():
            return None
        try:
            content = read_json(path)
        except StorageError as error:
            raise StorageError(f"{error}; delete it and run again") from error
        return content if self.mark in ("", content.get("study")) else None

    def finish(self, files: Mapping[str, str]) -> None:
        """Write texts into files by name, moved to their places once all are written.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to. All files are as they
                were.
        """
        replace_all((self.path / name, encoded(text)) for name, text in files.items())
