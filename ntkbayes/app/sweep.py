"""Sweeps: many studies, such as data sets × ridges × seeds, on the processes of a Dask cluster.

    folder/
      sweep.json          what each study is: whose folder this is
      sweep.csv           one row a study and law
      studies/NAME/       the folder of a `Study`
        attempts.log      a line each time a worker began it: when, host and process

Dask is the engine: it hands studies to workers, and hands those of a worker that died to another.
Without a client of yours it runs a process a core on this machine.
"""

import csv
import functools
import os
import signal
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import cloudpickle
import jax
from joblib import cpu_count
from tqdm import tqdm

from ntkbayes import datasets
from ntkbayes.app.baselines import BASELINES
from ntkbayes.app.study import Study, generator
from ntkbayes.datasets import Dataset
from ntkbayes.description import unidentified
from ntkbayes.errors import (
    ConfigurationError,
    MissingDependencyError,
    NTKBayesError,
    StorageError,
)
from ntkbayes.files import append_line, held, plain, read_json, slug, to_json, write_text
from ntkbayes.linalg import require_float64
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.storage import comparisons as storage

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

ATTEMPTS = 3
"""How often, at least, a study is begun before an error that is not ours, or the death of its workers,
is taken for its own fault."""


def grid(
    study: Study,
    *,
    data: Iterable[Dataset | str] = (),
    ridges: Iterable[float] = (),
    seeds: Iterable[int] = (),
) -> dict[str, Study]:
    """The product of data sets × ridges × seeds, by names such as "wine, ridge 0.1, seed 0".

    Args:
        study: everything else; and also the data, the ridge or the seed if none are given.
        data: data sets, or names of some in `datasets.NAMES`.
        ridges: of the prior.
        seeds: of the studies.

    Raises:
        ConfigurationError: a ridge or a seed is outside its range, or a value is given twice.
    """
    data, ridges, seeds = tuple(data), tuple(map(float, ridges)), tuple(seeds)
    names = tuple(each if isinstance(each, str) else each.name for each in data)
    for what, values in (("data set", names), ("ridge", ridges), ("seed", seeds)):
        for value, count in Counter[object](values).items():
            if count > 1:
                raise ConfigurationError(
                    f"the {what} {value!r} is given {count} times; give each once, by its own name"
                )
    kernel, mean = study.prior.kernel, study.prior.mean
    studies = [
        replace(study, data=each, prior=prior, seed=seed)
        for each in data or (study.data,)
        for prior in [NTKPrior(kernel, ridge=r, mean=mean) for r in ridges] or (study.prior,)
        for seed in seeds or (study.seed,)
    ]
    return {f"{_data_name(s)}, ridge {float(s.prior.ridge)!r}, seed {s.seed}": s for s in studies}


class Failure(NamedTuple):
    """A study without results: its name, the error, how often it was begun in this run and before."""

    study: str
    error: str
    attempts: int

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return f"{self.study} (begun {times}): {self.error}"


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What became of the studies.

    Attributes:
        table: tidy, one row a study and law, failed studies included: the columns study, data, ridge,
            seed, law; those of `Comparison.table`, nan where the study failed; attempts, how often a
            worker began the study; and error, empty where it finished.
        failures: studies without results.
    """

    table: "pd.DataFrame"
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Sweep:
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
        progress: bool = False,
    ) -> SweepResult:
        """Run every study that the folder has not finished, each by `Study.run` in a folder of its own.

        A study whose worker died is begun again on another, and goes on from the laws it had
        finished. An error of ours (`NTKBayesError`) would come again: it is reported, and the other
        studies go on. Any other is retried. Failed studies are tried anew by the next run. The folder
        of a sweep takes further studies, but neither fewer nor others.

        Workers are processes of their own, in which JAX is switched to float64. Each runs one study
        at a time.

        Args:
            folder: for the files; with workers on other machines, on a file system that they share.
            client: of the cluster that shall do the work; by default one of processes on this
                machine, which is closed at the end. In a script it must be started below
                `if __name__ == "__main__":`, since these processes import the script.
            num_workers: processes on this machine, each with one thread; by default one a core.
            command: that reproduces the sweep, for the reports.
            progress: show a bar of finished studies.

        Raises:
            FolderInUseError: another sweep is running in the folder.
            StorageError: the folder cannot be written to, or holds another sweep.
            MissingDependencyError: Dask is not installed.
            PrecisionError: JAX is not in float64.
            ConfigurationError: num_workers is below 1, or given along with a client; or no worker
                could be started.
            UnknownNameError: a data set does not exist.
        """
        require_float64()
        if num_workers is not None and (num_workers < 1 or client is not None):
            raise ConfigurationError(
                f"num_workers is for a sweep without client, and at least 1; got {num_workers}"
            )
        folder = Path(folder).absolute()
        settings = _identities(self.studies)
        storage.prepare_folder(folder, "studies")
        with held(folder):
            _claim(folder, settings)
            missing = [n for n in self.studies if not _is_finished(study_folder(folder, n))]
            errors: dict[str, str] = {}
            if missing:
                cluster = (
                    _local(num_workers, len(missing)) if client is None else nullcontext(client)
                )
                with cluster as to:
                    errors = self._work_off(missing, folder, to, command, progress)
            failures = tuple(
                Failure(name, error, _num_attempts(study_folder(folder, name)))
                for name, error in errors.items()
            )
            result = SweepResult(self._table(folder, errors), failures)
            write_text(folder / "sweep.csv", result.table.to_csv(index=False))
        return result

    def _work_off(
        self, missing: list[str], folder: Path, client: "Client", command: str, progress: bool
    ) -> dict[str, str]:
        """Errors of those of the missing studies that failed, by name."""
        from distributed import KilledWorker, as_completed

        before = {name: _num_attempts(study_folder(folder, name)) for name in missing}
        killed: Counter[str] = Counter()

        def submit(name: str) -> "Future":
            # Pickled here and not by Dask, whose workers would read float64 as float32: a task is
            # unpickled before it begins, and so before it can change JAX's switch.
            work = cloudpickle.dumps((self.studies[name], command, generator()))
            return client.submit(
                _attempt, work, str(study_folder(folder, name)), pure=False, retries=ATTEMPTS - 1
            )

        errors: dict[str, str] = {}
        names = {submit(name): name for name in missing}
        finished = as_completed(list(names), loop=client.loop)
        try:
            with tqdm(total=len(missing), unit="study", disable=not progress) as bar:
                for future in finished:
                    name = names.pop(future)
                    place = study_folder(folder, name)
                    try:
                        error = _error_of(name, future, place)
                    except KilledWorker:
                        # Dask blames a worker's death on all studies that waited for that worker.
                        killed[name] += 1
                        begun = _num_attempts(place) - before[name]
                        if max(begun, killed[name]) < ATTEMPTS:
                            again = submit(name)
                            names[again] = name
                            finished.add(again)
                            continue
                        error = (
                            "its workers died, again and again; if they had too little memory, let "
                            "fewer of them share a machine"
                        )
                    if error is not None:
                        errors[name] = error
                        bar.set_postfix(failed=len(errors), refresh=False)
                    bar.update()
        finally:
            client.cancel(list(names))
        return {name: errors[name] for name in missing if name in errors}

    def _table(self, folder: Path, errors: Mapping[str, str]) -> "pd.DataFrame":
        import pandas as pd

        rows: list[dict[str, object]] = []
        for name, study in self.studies.items():
            place = study_folder(folder, name)
            about = {
                "study": name,
                "data": _data_name(study),
                "ridge": float(study.prior.ridge),
                "seed": study.seed,
            }
            if name in errors:
                laws = (*study.methods, *(BASELINES if study.baselines else ()))
                scores: list[dict[str, object]] = [{"law": law} for law in laws]
            else:
                scores = _scores(place)
            end = {"attempts": _num_attempts(place), "error": errors.get(name, "")}
            rows += [{**about, **row, **end} for row in scores]
        frame = pd.DataFrame(rows)
        return frame[
            [c for c in frame.columns if c not in ("attempts", "error")] + ["attempts", "error"]
        ]


def study_folder(folder: Path, name: str) -> Path:
    """Where a sweep keeps the study of that name."""
    return folder / "studies" / slug(name)


class Outcome(NamedTuple):
    """Of an attempt: what went wrong, and what was warned of."""

    error: str | None
    warnings: tuple[tuple[type[Warning], str], ...]


def _error_of(name: str, future: "Future", place: Path) -> str | None:
    """What went wrong with a study, if anything did; its warnings, with its name, are repeated.

    Raises:
        KilledWorker: Dask gave up, because workers died.
    """
    try:
        outcome = future.result()
    except _dask().KilledWorker:
        raise
    except Exception as error:  # whatever a study may raise, after all retries
        return _told(error)
    for category, message in outcome.warnings:
        warnings.warn(f"{name}: {message}", category, stacklevel=4)
    if outcome.error is None and not _is_finished(place):
        return (
            f"its worker finished it, but its results are not in {place}; workers must share the "
            "file system of the sweep's folder"
        )
    return outcome.error


_ONE_AT_A_TIME = threading.Lock()


def _attempt(work: bytes, folder: str) -> Outcome:
    """Run a study: at a worker, whose process is ours, so that JAX's switch is too.

    Raises whatever is not an NTKBayesError.
    """
    place, error = Path(folder), None
    # A worker with several threads still takes its studies in turn: they share warnings, and cores.
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as seen:
        jax.config.update("jax_enable_x64", True)
        if _is_finished(place):  # by a worker that died before it could say so
            return Outcome(None, ())
        try:
            storage.prepare_folder(place)
            now = f"{datetime.now(UTC):%FT%TZ} {socket.gethostname()} {os.getpid()}"
            append_line(place / "attempts.log", now)
            study, command, switches = cloudpickle.loads(work)
            with _switched(switches):
                study.run(place, command=command)
        except NTKBayesError as failed:
            error = _told(failed)
    return Outcome(error, tuple((w.category, str(w.message)) for w in seen or ()))


@contextmanager
def _switched(switches: Mapping[str, object]) -> Iterator[None]:
    """JAX's switches as given, then as they were: workers draw as the sweep's own process would."""
    before = {name: getattr(jax.config, name) for name in switches}
    try:
        for name, value in switches.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def _is_finished(place: Path) -> bool:
    """Whether a folder has what `Study.run` writes last."""
    return all((place / name).is_file() for name in ("comparison.csv", "report.html"))


def _scores(place: Path) -> list[dict[str, object]]:
    """The rows of a finished comparison, with its numbers as they were written."""
    path = place / "comparison.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {"law": row.pop("law"), **{k: float(v or "nan") for k, v in row.items()}}
                for row in csv.DictReader(file, restval="missing")
            ]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise StorageError(
            f"{path} is not the table of a study ({error}); delete it and run again"
        ) from error


def _num_attempts(place: Path) -> int:
    log = place / "attempts.log"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _data_name(study: Study) -> str:
    return study.data if isinstance(study.data, str) else study.data.name


def _dask() -> ModuleType:
    """Dask's distributed, imported when it is needed."""
    try:
        import distributed
    except ImportError as error:
        raise MissingDependencyError(
            "sweeps need Dask, which is not installed; `pip install 'ntkbayes[sweep]'` brings it"
        ) from error
    return distributed


def connect(address: str, *, timeout: float = 10.0) -> "Client":
    """A client of the Dask scheduler at an address, such as tcp://10.0.0.1:8786.

    Args:
        address: that the scheduler printed when it was started.
        timeout: how long to try, in seconds.

    Raises:
        MissingDependencyError: Dask is not installed.
        ConfigurationError: no scheduler answers there.
    """
    try:
        return _dask().Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no Dask scheduler answers at {address!r} ({error}); start one by `dask scheduler`"
        ) from error


@contextmanager
def _local(num_workers: int | None, num_studies: int) -> "Iterator[Client]":
    """A cluster of processes on this machine, one thread each: they share the cores as they are."""
    dask = _dask()
    try:
        cluster = dask.LocalCluster(
            n_workers=min(num_workers or cpu_count(), num_studies),
            threads_per_worker=1,
            env={"NPROC": "1"},  # threads of the compiled programs
            # Ctrl-C reaches every process of a terminal; it is for this one to stop the others.
            preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
            dashboard_address="127.0.0.1:0",
        )
    except RuntimeError as error:
        raise ConfigurationError(
            f"no worker could be started ({error}); a script, which workers import, must run the "
            "sweep below `if __name__ == '__main__':`"
        ) from error
    with cluster, dask.Client(cluster, set_as_default=False) as client:
        try:
            yield client
        except KeyboardInterrupt:
            for nanny in cluster.workers.values():  # would wait for the studies that they run
                nanny.close_gracefully()
                if nanny.pid is not None:
                    os.kill(nanny.pid, signal.SIGTERM)
            raise


def _identities(studies: Mapping[str, Study]) -> dict[str, object]:
    """What each study is, as plain data; every data set is loaded once."""
    load = functools.cache(datasets.load)
    return {
        name: replace(s, data=load(s.data) if isinstance(s.data, str) else s.data).identity()
        for name, s in studies.items()
    }


def _claim(folder: Path, settings: Mapping[str, object]) -> None:
    """Make sure that what the folder holds belongs to this sweep, which may be larger.

    Raises:
        StorageError: the folder has results of studies that are not in this sweep as they were, or of
            which that cannot be told.
    """
    path, now = folder / "sweep.json", plain(settings)
    if any(folder.glob("studies/*/laws/*.nc")):
        try:
            found = read_json(path)
        except StorageError as error:
            raise StorageError(
                f"{folder} holds studies of which it is not known what sweep they belong to ({error}); "
                "choose another output folder"
            ) from error
        others = [name for name, told in found.items() if now.get(name) != told]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise StorageError(
                f"{folder} holds another sweep, whose study {others[0]!r}{more} is not in this one, or "
                "has other settings here; choose another output folder, or delete that one"
            )
        if lost := unidentified(now):
            raise StorageError(
                f"{folder} holds results, and it cannot be told whether they are of this sweep: "
                f"settings of type {', '.join(lost)} hide their contents; choose another output folder"
            )
    write_text(path, to_json(now))
