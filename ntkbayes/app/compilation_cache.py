"""JAX's persistent compilation cache, for processes that are ours: of the command line, and of sweeps.

    <folder>/jaxlib-0.10.2-0b6a1c94d7/   for one jaxlib, CPU and number of threads
        jit_solve-<digest>-cache         a compiled program, as JAX wrote it

JAX reads and writes the programs. Done here is what it leaves to others: it never replaces a file that a
killed process left half written, it warns once for each program that it cannot read or write, and its
bound on the size does not survive a killed process (docs/decisions/0016-compilation-cache.md).
"""

import functools
import glob
import hashlib
import itertools
import math
import os
import platform
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ntkbayes.errors import CacheWarning, StorageError

VARIABLE = "NTKBAYES_CACHE_DIR"
LARGEST = 2**28
"""Bytes of compiled programs that are kept."""

_TROUBLE = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '(.*?)': (.*)", re.DOTALL
)
_ENTRIES = "jaxlib-*/*-cache"  # nothing else in the folder is ever removed
_REMEDY = f"set {VARIABLE} to another folder, or to off"


def chosen_folder() -> Path | None:
    """Where compiled programs are kept: NTKBAYES_CACHE_DIR, or else the user's cache folder.

    None if the variable is empty or "off". If there is no such folder, also None, and a CacheWarning.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        from platformdirs import user_cache_path

        folder = user_cache_path("ntkbayes", appauthor=False)
        if folder.is_absolute():
            return folder
        tell(f"no compilation cache: this user has no home folder; {_REMEDY}")
        return None
    if given.strip().lower() in ("", "off"):
        return None
    try:
        return Path(os.path.abspath(os.path.expanduser(given)))
    except OSError as error:  # it is relative to a folder that is gone
        tell(f"no compilation cache in {given} ({error.strerror}); {_REMEDY}")
        return None


@contextmanager
def kept(folder: Path | None) -> Iterator[None]:
    """Let JAX keep the programs that it compiles in a folder, and take them from there.

    Troubles with the cache are never errors, and at most one CacheWarning per process. A cache that JAX
    already has, as by JAX_COMPILATION_CACHE_DIR, stays as it is; so does one that is switched off. When
    the context ends, JAX goes on using the folder, so the process must be ours.

    Args:
        folder: see `chosen_folder`; None for no cache of ours.
    """
    place = None if folder is None else folder / _fitting()
    if place is not None and _is_left_to_us() and _is_usable(place):
        _switch_on(place)
    with warnings.catch_warnings():
        show = warnings.showwarning

        def mend_or_show(message: Any, *where: Any, **more: Any) -> None:
            trouble = _TROUBLE.fullmatch(str(message))
            if trouble is None:
                show(message, *where, **more)
            elif place is not None and str(place) == _used():
                _mend(place, *trouble.groups())
            else:
                tell(f"trouble with JAX's compilation cache: {message}")

        warnings.showwarning = mend_or_show
        warnings.filterwarnings("always", "Error (reading|writing) persistent", UserWarning)
        yield


def _is_left_to_us() -> bool:
    """Whether JAX has not been told where to keep programs, nor to keep none."""
    import jax

    return _used() is None and jax.config.values["jax_enable_compilation_cache"]


def _used() -> str | None:
    """The folder that JAX uses."""
    import jax

    return jax.config.values["jax_compilation_cache_dir"]


_has_told = False


def tell(trouble: str) -> None:
    """A CacheWarning, if it is the first of this process."""
    global _has_told
    if not _has_told:
        _has_told = True
        warnings.warn(trouble, CacheWarning, stacklevel=2)


@functools.cache
def _fitting() -> str:
    """Name of the folder of programs that this process can run, and would compile the same.

    Machine code is of a CPU, which others that share a home folder may not be; XLA splits loops by the
    number of threads, which JAX's keys do not tell.
    """
    threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        *(os.environ.get(name) for name in ("NPROC", "PJRT_NPROC")),
    )
    from importlib.metadata import version  # a fifth of what `ntkbayes --help` would import

    digest = hashlib.sha256(repr((_cpu(), threads)).encode()).hexdigest()[:10]
    return f"jaxlib-{version('jaxlib')}-{digest}"


def _cpu() -> str:
    """What tells CPUs apart: what Linux says of the first one; elsewhere the machine and its name."""
    telling = (
        "vendor_id",
        "cpu family",
        "model",
        "flags",
        "CPU ",
        "Features",
        "features",
        "cpu\t",
        "isa",
    )
    machine = f"{platform.machine()} {platform.processor()}"
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            first = [
                line for line in itertools.takewhile(str.strip, lines) if line.startswith(telling)
            ]
    except OSError:
        first = []
    return machine + ("".join(first) or platform.node())


def _is_usable(place: Path) -> bool:
    """Make a folder that nobody else can write to: programs are run as they are found there."""
    try:
        for folder in (place.parent, place):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
            if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
                raise StorageError("it belongs to another user, whose programs would be run")
            if os.name == "posix" and status.st_mode & 0o022:
                raise StorageError(f"others may write to it; chmod go-w {folder}")
    except OSError as error:
        told = "it is no folder" if isinstance(error, FileExistsError) else error.strerror or error
        tell(f"no compilation cache in {place.parent}: {told}; {_REMEDY}")
        return False
    return True


def _switch_on(place: Path) -> None:
    import jax

    for name, value in {
        "jax_compilation_cache_dir": str(place),
        "jax_compilation_cache_max_size": -1,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(name, value)
    # Nobody waits for it: on a network's file system it may take seconds.
    threading.Thread(target=remove_oldest, args=(place.parent,), daemon=True).start()


def remove_oldest(folder: Path, largest: int = LARGEST) -> None:
    """Remove the programs used least recently, of all versions and CPUs, until `largest` bytes remain.

    Other processes may read, write and remove programs meanwhile: what is gone is compiled again.
    """
    entries = []
    for path in folder.glob(_ENTRIES):
        with suppress(OSError):
            status = path.stat()
            entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    excess = sum(size for _, size, _ in entries) - largest
    for _, size, path in sorted(entries):
        if excess <= 0:
            break
        with suppress(OSError):
            path.unlink(missing_ok=True)
            excess -= size


def _mend(place: Path, doing: str, program: str, cause: str) -> None:
    """Remove what JAX could not read, or may have written in part, so that it is written again.

    The key is in no message of JAX's, but the program's name is: the few others of that name go as well.
    """
    if doing == "writing":
        import jax

        jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)  # writes no more
        tell(f"compiled programs cannot be kept in {place} ({cause}); {_REMEDY}")
    else:
        tell(f"some compiled programs in {place} cannot be read ({cause}); they are compiled again")
    for path in place.glob(f"{glob.escape(program)}-*-cache"):
        with suppress(OSError):  # nor can it be removed: JAX will tell of it next time
            path.unlink()
