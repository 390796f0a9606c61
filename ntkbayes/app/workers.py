"""Studies at the workers of a Dask cluster: handed out, and retried where a worker died."""

import os
import signal
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import cloudpickle
import jax
from joblib import cpu_count
from tqdm import tqdm

from ntkbayes.app import compilation_cache
from ntkbayes.app.study import Study
from ntkbayes.errors import (
    CacheWarning,
    ConfigurationError,
    MissingDependencyError,
    NTKBayesError,
)
from ntkbayes.files import append_line, slug
from ntkbayes.storage import LawFolder, random_switches

if TYPE_CHECKING:
    from distributed import Client, Future


ATTEMPTS = 3
"""How often, at least, a study is begun before an error that is not ours, or the death of its workers,
is taken for its own fault."""


def study_folder(folder: Path, name: str) -> Path:
    """Where a sweep keeps the study of that name."""
    return folder / "studies" / slug(name)


def work_off(
    studies: Mapping[str, Study], folder: Path, client: "Client", *, command: str, progress: bool
) -> dict[str, str]:
    """Run studies at the workers of a cluster, each in a folder of its own.

    Args:
        studies: by name.
        folder: of the sweep.
        client: of the cluster.
        command: that reproduces the sweep, for the reports.
        progress: show a bar of finished studies.

    Returns:
        What went wrong with those studies that failed, by name.
    """
    from distributed import KilledWorker, as_completed

    before = {name: num_attempts(study_folder(folder, name)) for name in studies}
    killed: Counter[str] = Counter()
    cache, here = compilation_cache.chosen_folder(), _this_process()

    def submit(name: str) -> "Future":
        # Pickled here and not by Dask, whose workers would read float64 as float32: a task is
        # unpickled before it begins, and so before it can change JAX's switch.
        work = cloudpickle.dumps((studies[name], command, random_switches()))
        return client.submit(
            _attempt,
            work,
            str(study_folder(folder, name)),
            cache,
            here,
            pure=False,
            retries=ATTEMPTS - 1,
        )

    errors: dict[str, str] = {}
    names = {submit(name): name for name in studies}
    finished = as_completed(list(names), loop=client.loop)
    try:
        with tqdm(total=len(studies), unit="study", disable=not progress) as bar:
            for future in finished:
                name = names.pop(future)
                place = study_folder(folder, name)
                try:
                    error = _error_of(name, future)
                    if error is None and not studies[name].is_finished(place):
                        error = (
                            f"its worker finished it, but its results are not in {place}; workers must "
                            "share the file system of the sweep's folder"
                        )
                except KilledWorker:
                    # Dask blames a worker's death on all studies that waited for that worker.
                    killed[name] += 1
                    begun = num_attempts(place) - before[name]
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
    return {name: errors[name] for name in studies if name in errors}


class Outcome(NamedTuple):
    """Of an attempt: what went wrong, and what was warned of."""

    error: str | None
    warnings: tuple[tuple[type[Warning], str], ...]


def _error_of(name: str, future: "Future") -> str | None:
    """What went wrong with a study, if anything did; its warnings, with its name, are repeated.

    Raises:
        KilledWorker: Dask gave up, because workers died.
    """
    try:
        outcome = future.result()
    except require_dask().KilledWorker:
        raise
    except Exception as error:  # whatever a study may raise, after all retries
        return _told(error)
    for category, message in outcome.warnings:
        if category is CacheWarning:
            compilation_cache.tell(message)
        else:
            warnings.warn(f"{name}: {message}", category, stacklevel=4)
    return outcome.error


_ONE_AT_A_TIME = threading.Lock()


def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _attempt(work: bytes, folder: str, cache: Path | None, sweep: str) -> Outcome:
    """Run a study: at a worker, whose process is ours, so that JAX's switches are too; but the cache's,
    which cannot be put back, stay as they are where the process is that of the sweep itself.

    Raises whatever is not an NTKBayesError.
    """
    place, error = Path(folder), None
    # A worker with several threads still takes its studies in turn: they share warnings, and cores.
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as seen:
        jax.config.update("jax_enable_x64", True)
        try:
            study, command, switches = cloudpickle.loads(work)
            if study.is_finished(place):  # by a worker that died before it could say so
                return Outcome(None, ())
            LawFolder(place).prepare()
            append_line(place / "attempts.log", f"{datetime.now(UTC):%FT%TZ} {_this_process()}")
            kept = compilation_cache.kept(None if sweep == _this_process() else cache)
            with kept, _switched(switches):
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


def num_attempts(place: Path) -> int:
    log = place / "attempts.log"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def require_dask() -> ModuleType:
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
        return require_dask().Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no Dask scheduler answers at {address!r} ({error}); start one by `dask scheduler`"
        ) from error


@contextmanager
def local_client(num_workers: int | None, num_studies: int) -> "Iterator[Client]":
    """A cluster of processes on this machine, one thread each, not pinned to cores."""
    dask = require_dask()
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
