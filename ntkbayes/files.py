"""Atomic writes, folder locks, and safe reading of arrays and JSON."""

import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import socket
import stat
import sys
import warnings
import zipfile
from collections.abc import Buffer, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ntkbayes.errors import FolderInUseError, StorageError, StorageWarning

# Never follow a link that lies where one of our files should be.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))
_PART = ".ntkbayes-{}.part"


def slug(name: str, apart: str = "") -> str:
    """A readable file name, unique to the name, and to what else tells things of that name apart.

    Lower-case ASCII letters, digits and hyphens, then a digest of both. So file names are short,
    differ on file systems that ignore case or normalise Unicode, and avoid what Windows reserves.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40]
    whole = f"{name}\0{apart}" if apart else name
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{words}-{digest}" if words else digest


# --- writing --------------------------------------------------------------------------------------


def write_atomically(path: Path, content: Buffer) -> None:
    """Write a file under a temporary name, then move it to `path`.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to. `path` is unchanged.
    """
    replace_all([(path, content)])


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text; see `encoded`."""
    write_atomically(path, encoded(text))


def encoded(text: str) -> bytes:
    """Text as UTF-8. Surrogates, from file names that are not UTF-8, are escaped."""
    return text.encode("utf-8", "backslashreplace")


def replace_all(files: Iterable[tuple[Path, Buffer]]) -> None:
    """Write several files under temporary names, and move them into place once all are written.

    Args:
        files: paths and contents; an iterator is consumed one file at a time.

    Raises:
        StorageError: the disk is full, or a folder cannot be written to. All files are unchanged.
    """
    parts: list[tuple[Path, Path]] = []
    path = Path()
    try:
        for path, content in files:
            part = path.with_name(_PART.format(secrets.token_hex(8)))
            parts.append((part, path))
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
        for part, path in parts:
            os.replace(part, path)
        for folder in {path.parent for _, path in parts}:
            _sync(folder)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        for part, _ in parts:
            with suppress(OSError):
                part.unlink()


def require_file(path: Path) -> None:
    """Raises StorageError unless `path` is a file that can be reached."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StorageError(f"there is no file {path}; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"cannot read {path}: {reason}; check the path and its permissions"
        ) from error
    if stat.S_ISDIR(mode):
        raise StorageError(f"{path} is a folder; give a file")


def make_folder(path: Path) -> None:
    """Make a folder, and those around it, unless they are there.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {path}: {error.strerror or error}") from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a log.

    Raises:
        StorageError: the log cannot be written to, or is a link.
    """
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _FLAGS
        with open(os.open(path, flags, 0o666), "ab") as file:
            file.write(line.encode("utf-8", "backslashreplace") + b"\n")
    except OSError as error:
        raise StorageError(f"could not write {path}: {error.strerror or error}") from error


def _sync(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can open folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- one run per folder ---------------------------------------------------------------------------


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder. The lock is released when the process ends, however it ends.

    Removes the partial files that a killed process left in the folder or directly below it.

    Raises:
        FolderInUseError: another run holds the lock; the message names process, host and time.
        StorageError: the folder cannot be written to.
    """
    path = folder / ".ntkbayes.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
    except OSError as error:
        raise StorageError(f"could not lock {path}: {error.strerror or error}") from error
    with open(descriptor, "r+b", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise StorageError(f"{path} is not a lock, but a link or a device; remove it")
        _lock(descriptor, folder)
        os.ftruncate(descriptor, 0)
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": f"{datetime.now(UTC):%FT%TZ}",
        }
        with suppress(OSError):  # on a full disk the lock holds, but does not name its owner
            file.write(json.dumps(owner).encode())
        try:
            for pattern in (_PART.format("*"), f"*/{_PART.format('*')}"):
                for part in folder.glob(pattern):
                    with suppress(OSError):
                        part.unlink()
            yield
        finally:
            os.ftruncate(descriptor, 0)


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def _lock(descriptor: int, folder: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 2**30, os.SEEK_SET)  # beyond the text, which stays readable
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            warnings.warn(
                f"the file system of {folder} has no locks ({error.strerror}): make sure that no "
                "other run writes there",
                StorageWarning,
                stacklevel=4,
            )
            return
        raise FolderInUseError(
            f"{folder} is in use by {_owner(descriptor)}; wait until that has finished, or choose "
            "another output folder"
        ) from error


def _owner(descriptor: int) -> str:
    """Who holds the lock, in words."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        owner = json.loads(os.read(descriptor, 1000))
        return f"process {owner['pid']:d} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # it has just started, or its disk is full
        return "another process"


# --- arrays ---------------------------------------------------------------------------------------


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as .npz, atomically, without pickle.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays that `save_arrays` wrote.

    Raises:
        StorageError: the file is broken, or of another format.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > path.stat().st_size:
            raise ValueError(f"its arrays claim {size} bytes, more than the file has")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own for a broken file
        raise StorageError(f"{path} cannot be read ({error})") from error


# --- JSON -----------------------------------------------------------------------------------------

_DEEPEST, _LARGEST = 200, 2**26


def to_json(value: object) -> str:
    """A value as strict JSON. Non-finite numbers become the strings "NaN", "Infinity" and "-Infinity",
    which `float` reads; other types become their `str`."""
    return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"


def plain(value: object) -> Any:
    """What `to_json` writes, as plain Python objects."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file.

    Raises:
        StorageError: the file holds none, is larger than 64 MiB, or is nested more than 200 deep.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise ValueError(f"it has {size} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"it holds no object, but a {type(value).__name__}")
        level: list[object] = [value]
        for _ in range(_DEEPEST):
            level = [part for value in level for part in _parts_of(value)]
        if level:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
    except RecursionError as error:
        raise StorageError(f"{path} cannot be read (it is nested too deep)") from error
    except (OSError, ValueError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be read ({error})") from error
    return value


def _parts_of(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
