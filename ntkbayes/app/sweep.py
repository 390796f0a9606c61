"""Sweeps: many studies, such as data sets × ridges × seeds, on the processes of a Dask cluster.

    folder/
      sweep.json          what each study is: whose folder this is
      sweep.csv           one row per study and law
      result.json         what the report has besides, so that it can be written again
      report.html         means over seeds, and laws over data sets
      studies/NAME/       the folder of a study
        attempts.log      a line each time a worker began it: when, host and process

Dask is the engine: it hands studies to workers, and hands those of a worker that died to another.
Without a client of yours it runs a process per core on this machine.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jax

from ntkbayes import datasets, ranges
from ntkbayes.app import report
from ntkbayes.app.ridges import recorded, with_ridge
from ntkbayes.app.study import Study
from ntkbayes.app.sweep_result import Failure, SweepResult, by_ridge, comparisons_over_seeds
from ntkbayes.app.workers import local_client, num_attempts, study_folder, work_off
from ntkbayes.comparison import key_of
from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, StorageError
from ntkbayes.files import plain
from ntkbayes.linalg import require_float64
from ntkbayes.ranges import Number, Range
from ntkbayes.repeated import ROPE, compare_over_data_sets
from ntkbayes.scores.intervals import COLUMN, Over, meaning
from ntkbayes.selection import GivenRidge, RidgeRule
from ntkbayes.storage import LawFolder, RunFolder, read_record, versions
from ntkbayes.storage.run_folder import Settings

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client


def grid(
    study: Study,
    *,
    data: Iterable[Dataset | str] = (),
    ridges: Iterable[float | RidgeRule] = (),
    seeds: Iterable[int] = (),
) -> dict[str, Study]:
    """The product of data sets × ridges × seeds, by names such as "wine, ridge 0.1, seed 0".

    Args:
        study: everything else; and also the data, the ridge or the seed if none are given.
        data: data sets, or names of some in `datasets.NAMES`.
        ridges: of the prior, or rules by which each study chooses its own.
        seeds: of the studies.

    Raises:
        ConfigurationError: a ridge or a seed is outside its range, a value is given twice, or there are
            data for a study with test points of its own.
    """
    data, seeds = tuple(data), tuple(seeds)
    if data and study.test is not None:
        raise ConfigurationError(
            "the study's test points belong to its own data, not to others: leave out data=, or test="
        )
    asked = [each if isinstance(each, RidgeRule) else float(each) for each in ridges]
    called = [each.name if isinstance(each, RidgeRule) else each for each in asked]
    names = tuple(each if isinstance(each, str) else each.name for each in data)
    for what, values in (("data set", names), ("ridge", called), ("seed", seeds)):
        for value, count in Counter[object](values).items():
            if count > 1:
                raise ConfigurationError(
                    f"the {what} {value!r} is given {count} times; give each once, by its own name"
                )
    studies = [
        replace(study, data=each, prior=prior, ridge=rule, seed=seed)
        for each in data or (study.data,)
        for prior, rule in [with_ridge(study.prior, r) for r in asked]
        or [(study.prior, study.ridge)]
        for seed in seeds or (study.seed,)
    ]
    return {f"{_data_name(s)}, ridge {_ridge_asked(s)}, seed {s.seed}": s for s in studies}


@dataclass(frozen=True, repr=False)
class Sweep(Configured):
    """Studies to run side by side.

    Attributes:
        studies: by name; see `grid` for a product.

    Raises:
        ConfigurationError: there are no studies.
    """

    studies: Mapping[str, Study]

    def __post_init__(self) -> None:
        if not self.studies:
            raise ConfigurationError(
                "a sweep needs at least one study; see ntkbayes.app.sweep.grid"
            )

    def run(
        self,
        folder: str | Path,
        *,
        client: "Client | None" = None,
        num_workers: int | None = None,
        command: str = "",
        files: Mapping[str, str] = MappingProxyType({}),
        progress: bool = False,
        rope: Number = ROPE,
    ) -> SweepResult:
        """Run every study that the folder has not finished, each by `Study.run` in a folder of its own.

        A study whose worker died is started again on another, and resumes from the laws it had
        finished. An `NTKBayesError` would come again, so it is reported, and the other studies continue;
        any other error is retried. The next run retries failed studies. Studies may be added to the
        folder of a sweep, but not removed or changed, except in their laws; see `Study.run`.

        Workers are processes of their own, in which JAX is switched to float64, and to the cache of
        compiled programs (`compilation_cache.chosen_folder`). Each runs one study at a time.

        Args:
            folder: for the files; with workers on other machines, on a file system that they share.
            client: of the cluster that does the work; by default one of processes on this
                machine, which is closed at the end. In a script it must be started below
                `if __name__ == "__main__":`, since these processes import the script.
            num_workers: processes on this machine, each with one thread; by default one per core.
            command: that reproduces the sweep, for the reports.
            files: texts for the folder besides, by name.
            progress: show a bar of finished studies.
            rope: differences in NLL up to this size count as none in the comparison over data sets, in
                nats per point.

        Raises:
            FolderInUseError: another sweep is running in the folder.
            StorageError: the folder cannot be written to, or holds another sweep.
            MissingDependencyError: Dask is not installed.
            PrecisionError: JAX is not in float64.
            ConfigurationError: num_workers is below 1, or given along with a client; no worker could be
                started; or rope is negative.
            UnknownNameError: a data set does not exist.
        """
        require_float64()
        if num_workers is not None and (num_workers < 1 or client is not None):
            raise ConfigurationError(
                f"num_workers is for a sweep without client, and at least 1; got {num_workers}"
            )
        rope = float(ranges.real("rope", rope, Range.NOT_NEGATIVE_FINITE))
        report.require_drawing()
        folder = Path(folder).absolute()
        settings = _identities(self.studies)
        with _folder(folder) as into:
            into.claim(settings, conflict=_conflict)
            into.finish(files)
            missing = [
                name
                for name, study in self.studies.items()
                if not study.is_finished(study_folder(folder, name))
            ]
            errors: dict[str, str] = {}
            if missing:
                cluster = (
                    local_client(num_workers, len(missing))
                    if client is None
                    else nullcontext(client)
                )
                with cluster as to:
                    studies = {n: self.studies[n] for n in missing}
                    errors = work_off(studies, folder, to, command=command, progress=progress)
            failures = tuple(
                Failure(name, error, num_attempts(study_folder(folder, name)))
                for name, error in errors.items()
            )
            told = {"laws": _laws(self.studies), "command": command, "versions": versions()}
            seed = min(study.seed for study in self.studies.values())
            run = {"settings": plain(told), "rope": rope, "seed": seed}
            result = _write(into, self._table(folder, errors), failures, run)
            into.record(_RUN, run)
        return result

    def _table(self, folder: Path, errors: Mapping[str, str]) -> "pd.DataFrame":
        import pandas as pd

        rows: list[dict[str, object]] = []
        for name, study in self.studies.items():
            place = study_folder(folder, name)
            about = {
                "study": name,
                "data": _data_name(study),
                "ridge": _ridge_of(study, place),
                "ridge_rule": study.ridge.name,
                "seed": study.seed,
            }
            if name in errors:
                laws = tuple(study.laws())
                scores: list[dict[str, object]] = [{"law": law} for law in laws]
            else:
                record = read_record(place)
                own = {COLUMN: meaning(Over.POINTS)}
                scores = [{"law": law, **row, **own} for law, row in record.rows.items()]
            end = {
                "training_points": math.nan if name in errors else record.num_train,
                "test_points": math.nan if name in errors else record.num_test,
                "split": "random" if study.test is None else "given",
                "attempts": num_attempts(place),
                "error": errors.get(name, ""),
            }
            rows += [{**about, **row, **end} for row in scores]
        frame = pd.DataFrame(rows)
        return frame[[c for c in frame.columns if c not in end] + [*end]]


_RUN, _TABLE = "result.json", "sweep.csv"


def holds_sweep(folder: str | Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (Path(folder) / _SETTINGS).is_file()


def write_report(folder: str | Path) -> SweepResult:
    """Write the report of a sweep again, from its table.

    Raises:
        StorageError: the sweep has not ended, or a file is broken.
        FolderInUseError: another sweep is running in the folder.
    """
    import pandas as pd

    with _folder(Path(folder).absolute()) as into:
        path, run = into.path / _TABLE, into.recorded(_RUN)
        if run is None or not path.is_file():
            raise StorageError(f"the sweep in {folder} has not ended; the same command goes on")
        try:
            words = ("study", "data", "ridge_rule", "law", "error")
            table = pd.read_csv(path, dtype=dict.fromkeys(words, "object")).fillna({"error": ""})
            failed = table[table["error"] != ""].drop_duplicates("study")
            failures = tuple(
                Failure(str(row["study"]), str(row["error"]), int(row["attempts"]))
                for _, row in failed.iterrows()
            )
            return _write(into, table, failures, run)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"{path} or {into.path / _RUN} is broken ({error}); run the sweep again"
            ) from error


_SETTINGS = "sweep.json"


def _folder(folder: Path) -> RunFolder:
    return RunFolder(folder, results="studies/*/laws/*.nc", settings=_SETTINGS)


def result_of(
    table: "pd.DataFrame", failures: tuple[Failure, ...], *, seed: int, rope: float
) -> SweepResult:
    """With every pair of laws over data sets, where there are several with several splits.

    Args:
        seed, rope: of the comparison over data sets.
    """
    key = jax.random.key(seed)
    over_data_sets = {
        ridge: compare_over_data_sets(sets, key=key_of(key, ridge), rope=rope)
        for ridge, sets in by_ridge(comparisons_over_seeds(table)).items()
        if all("nll" in each.score_names for each in sets.values())
    }
    return SweepResult(table, failures, over_data_sets)


def _write(
    into: RunFolder, table: "pd.DataFrame", failures: tuple[Failure, ...], run: Mapping[str, Any]
) -> SweepResult:
    """Table and report of what `result_of` finds."""
    result = result_of(table, failures, seed=run["seed"], rope=run["rope"])
    places = {
        str(name): (study_folder(Path(), str(name)) / "report.html").as_posix()
        for name in table["study"].unique()
    }
    page = report.sweep.page(result, places, run["settings"], str(into.path / _TABLE))
    into.finish({_TABLE: table.to_csv(index=False), "report.html": page})
    return result


def _laws(studies: Mapping[str, Study]) -> list[str]:
    """The names of all laws, each once."""
    return list(dict.fromkeys(name for study in studies.values() for name in study.laws()))


def _data_name(study: Study) -> str:
    return study.data if isinstance(study.data, str) else study.data.name


def _ridge_asked(study: Study) -> str:
    return (
        repr(float(study.prior.ridge)) if isinstance(study.ridge, GivenRidge) else study.ridge.name
    )


def _ridge_of(study: Study, place: Path) -> float:
    """The ridge that a study had, or has chosen."""
    if isinstance(study.ridge, GivenRidge):
        return float(study.prior.ridge)
    choice = recorded(LawFolder(place))
    return choice.ridge if choice else math.nan


def _identities(studies: Mapping[str, Study]) -> dict[str, object]:
    """What each study is, as plain data; every data set is loaded once."""
    load = functools.cache(datasets.load)
    return {
        name: replace(s, data=load(s.data) if isinstance(s.data, str) else s.data).identity()
        for name, s in studies.items()
    }


def _conflict(before: Settings, now: Settings) -> str:
    """How a sweep differs from that of its folder, as a clause; "" if it is the same, or larger."""
    others = [name for name, told in before.items() if now.get(name) != told]
    if not others:
        return ""
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return (
        f"holds another sweep, whose study {others[0]!r}{more} is not in this one, or has other "
        "settings here"
    )
