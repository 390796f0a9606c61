"""Files that are whole or not there."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ntkbayes.errors import StorageError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to. `path` is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        os.replace(part, path)
    except OSError as error:
        raise StorageError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def require_file(path: Path) -> None:
    """Raises StorageError unless there is a file, saying what is there instead."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StorageError(f"there is no file {path}; check the path") from error
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise StorageError(
            f"cannot read {path}: {told}; check the path, and who may read it"
        ) from error
    if stat.S_ISDIR(mode):
        raise StorageError(f"{path} is a folder; give a file")
