"""One study over several splits of its data: each a study in a folder of its own, and one report.

folder/
  splits.json         what the splits share: whose folder this is
  run.json            the splits that the last run was to have, and its settings
  splits.csv          SplitComparison.table
  report.html         see app.report.over_splits
  splits/NAME/        the folder of the study on that split
"""

import abc
import gc
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np

from ntkbayes import ranges
from ntkbayes.app import report
from ntkbayes.app.study import Study
from ntkbayes.arguments import require
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, StorageError
from ntkbayes.files import slug
from ntkbayes.linalg import require_float64
from ntkbayes.ranges import Number
from ntkbayes.repeated import SplitComparison
from ntkbayes.scores.intervals import with_column
from ntkbayes.storage import (
    Announce,
    ComparisonRecord,
    RunFolder,
    has_ended,
    read_record,
    versions,
)


class Splitting(abc.ABC):
    """How data are split several times into training and test points."""

    @property
    @abc.abstractmethod
    def shared(self) -> dict[str, object]:
        """What the splits have in common, as plain data; folders of others are refused."""

    @abc.abstractmethod
    def studies(self, study: Study) -> dict[str, Study]:
        """The study on every split, by the name of the split.

        Raises:
            ConfigurationError: the data cannot be split so.
        """


@dataclass(frozen=True, repr=False)
class Splits(Configured, Splitting):
    """Random splits, stratified by class: those of the seeds s, s + 1, … for a study of seed s. Each is
    what the study alone has at that seed, `data.split(jax.random.key(seed))`.

    Attributes:
        number: of splits, at least 2. A folder takes further ones.

    Raises:
        ConfigurationError: the number is not an integer, or below 2.
    """

    number: Number

    def __post_init__(self) -> None:
        number = ranges.whole("the number of splits", self.number, at_least=2)
        object.__setattr__(self, "number", number)

    @property
    def shared(self) -> dict[str, object]:
        return {"splits": "random"}

    def studies(self, study: Study) -> dict[str, Study]:
        seeds = range(study.seed, study.seed + self.number)
        return {f"seed {seed}": replace(study, seed=seed) for seed in seeds}


@dataclass(frozen=True, repr=False)
class KFold(Configured, Splitting):
    """K-fold cross-validation, stratified by class: each of `data.folds(jax.random.key(seed), number)`
    holds the test points once.

    Attributes:
        number: of folds, at least 2.

    Raises:
        ConfigurationError: the number is not an integer, or below 2.
    """

    number: Number

    def __post_init__(self) -> None:
        number = ranges.whole("the number of folds", self.number, at_least=2)
        object.__setattr__(self, "number", number)

    @property
    def shared(self) -> dict[str, object]:
        return {"splits": f"{self.number} folds"}

    def studies(self, study: Study) -> dict[str, Study]:
        folds = study.points.folds(jax.random.key(study.seed), self.number, standardise=False)
        return {
            f"fold {k}": replace(study, data=train, test=test, seed=study.seed + k - 1)
            for k, (train, test) in enumerate(folds, start=1)
        }


@dataclass(frozen=True, repr=False)
class SplitStudy(Configured):
    """A study over several splits of its data.

        nb.SplitStudy(study, nb.Splits(5)).run("runs/iris-splits").table()

    Attributes:
        study: everything but the splits. Split number k has the study's seed + k, also for its fits and
            draws; its max_seconds are for all splits together.
        splitting: `Splits(K)`, random splits of the study's test share, or `KFold(K)`.

    Raises:
        ConfigurationError: the study has test points of its own.
        ArgumentError: one of them is something else.
    """

    study: Study
    splitting: Splitting

    def __post_init__(self) -> None:
        require(_CALL, "study", self.study, Study, lambda given: "")
        how = "give nb.Splits(5) or nb.KFold(5)"
        require(_CALL, "splitting", self.splitting, Splitting, lambda given: how)
        if self.study.test is not None:
            raise ConfigurationError(
                "the study has test points of its own, so that its data are not split; leave out test="
            )

    def run(
        self,
        folder: str | Path,
        *,
        command: str = "",
        files: Mapping[str, str] = MappingProxyType({}),
        announce: Announce = lambda what: nullcontext(),
        progress: bool = False,
    ) -> SplitComparison:
        """Run the study on every split, each by `Study.run` in a folder of its own, and write table and
        report. What the folder has finished is not done again. The arguments are those of `Study.run`.

        Raises:
            FolderInUseError: another run has the folder.
            StorageError: the folder cannot be written to, or holds other splits or another study.
            ConfigurationError: a class has fewer points than there are folds.
            NTKBayesError: the data or a law is at fault, see `Method.fit`.
        """
        require_float64()
        report.require_drawing()
        studies = self.splitting.studies(self.study)
        share = self.study.max_seconds / len(studies)
        studies = {name: replace(each, max_seconds=share) for name, each in studies.items()}
        with _folder(folder) as into:
            into.claim({**self.splitting.shared, **self.study.identity()})
            into.finish(files)
            settings = {
                **self.splitting.shared,
                **self.study.identity(),
                "laws": self.study.laws(),
                "command": command,
                "versions": versions(),
            }
            into.record(_RUN, {"names": [*studies], "settings": settings})
            for name, study in studies.items():
                place = split_folder(into.path, name)
                if not study.is_finished(place):
                    study.run(
                        place,
                        command=command,
                        announce=_of_split(name, announce),
                        progress=progress,
                    )
                    # Exceptions inside matplotlib's parser, each in a cycle with the frames below it,
                    # keep the study's draws alive, and the command seldom collects.
                    gc.collect()
            with announce("report over splits"):
                return _write(into)


_CALL = "SplitStudy(study, splitting)"
_RUN = "run.json"


def holds_splits(folder: str | Path) -> bool:
    """Whether a folder is that of a study over splits."""
    return (Path(folder) / _RUN).is_file()


def write_report(folder: str | Path) -> SplitComparison:
    """Write table and report again; of a run that was interrupted, over the splits that are finished:
    the settings name the others, as "unfinished".

    Raises:
        StorageError: no split is finished, or a file is broken.
        FolderInUseError: another run has the folder.
    """
    with _folder(folder) as into:
        return _write(into)


def _folder(folder: str | Path) -> RunFolder:
    return RunFolder(folder, results="splits/*/laws/*.nc", settings="splits.json")


def _write(into: RunFolder) -> SplitComparison:
    """Table and report, of what the folder has. Raises as `write_report`."""
    run = into.recorded(_RUN) or {}
    names, settings = run.get("names"), run.get("settings")
    if not isinstance(names, list) or not isinstance(settings, dict):
        raise StorageError(f"{into.path / _RUN} does not name the splits; run again")
    places = {str(name): split_folder(into.path, str(name)) for name in names}
    records = {name: read_record(place) for name, place in places.items() if has_ended(place)}
    if not records:
        raise StorageError(f"{into.path} holds no finished split yet; the same command goes on")
    if missing := [name for name in places if name not in records]:
        settings = {**settings, "unfinished": missing}
    comparison = comparison_of(records, settings)
    reports = {
        name: (place / "report.html").relative_to(into.path).as_posix()
        for name, place in places.items()
    }
    page = report.over_splits.page(comparison, records, into.path, reports)
    into.finish({"splits.csv": with_column(comparison.table()).to_csv(), "report.html": page})
    return comparison


def split_folder(folder: Path, name: str) -> Path:
    """Where the study on the split of that name is kept."""
    return folder / "splits" / slug(name)


def _of_split(name: str, announce: Announce) -> Announce:
    def announce_it(what: str) -> AbstractContextManager:
        return announce(f"{name}: {what}")

    return announce_it


def comparison_of(
    records: Mapping[str, ComparisonRecord], settings: Mapping[str, object]
) -> SplitComparison:
    """Of comparisons on several splits, by split: of the laws that all of them have.

    Raises:
        StorageError: they have no law in common.
    """
    first = next(iter(records.values()))
    laws = [law for law in first.rows if all(law in each.rows for each in records.values())]
    if not laws:
        raise StorageError(f"the splits {', '.join(records)} have no law in common; run again")
    scores = [name for name in next(iter(first.rows.values())) if is_score(name, first)]
    test_per_train = np.mean([each.num_test / each.num_train for each in records.values()])
    return SplitComparison(
        scores={
            law: {s: np.array([each.rows[law][s] for each in records.values()]) for s in scores}
            for law in laws
        },
        splits=tuple(records),
        test_per_train=float(test_per_train),
        reference=first.reference if first.reference in laws else laws[0],
        settings=settings,
    )


def is_score(column: str, record: ComparisonRecord) -> bool:
    """Whether a column of the table is a score: those have intervals."""
    return f"{column}_lower" in next(iter(record.rows.values()))
