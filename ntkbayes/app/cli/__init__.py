"""The command line: `ntkbayes compare`, `predict`, `sweep`, `report`, `lazy`; or `python -m ntkbayes`.

What the commands need takes seconds to import, and is imported when Ctrl-C is already looked after.
"""

import atexit
import errno
import gc
import os
import sys

from ntkbayes.app.cli import interruption

IGNORED = ("JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE", "JAX_RANDOM_SEED_OFFSET")
"""Variables that would give the same command other random numbers."""
_NOT_OURS = (
    "MPLBACKEND",  # a notebook's, which other processes may not have; figures are only written
    "JAX_TRANSFER_GUARD",
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE",
    "JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE",
    "JAX_TRANSFER_GUARD_DEVICE_TO_HOST",
)


def main() -> None:
    """Run the command of `sys.argv`: errors are messages, not tracebacks."""
    from ntkbayes.app.cli import application, commands, lazy, new_rows, terminal  # noqa: F401
    from ntkbayes.errors import NTKBayesError

    terminal.prepare()
    try:
        with interruption.also_in_compiled_code():
            application.app()
    except NTKBayesError as error:
        terminal.say(f"error: {error}", style="red")
        raise SystemExit(1) from None


def run() -> None:
    """`main` as a process of its own, whose environment is made fit for it."""
    code = 1  # of an error that is not ours

    def leave() -> None:
        """End at once: to take the interpreter down, object by object, would take another second."""
        if sys.stderr is not None:
            sys.stderr.flush()
        os._exit(code or _flushed())

    atexit.register(leave)  # before all others, and so it runs after them
    interruption.end_at_once()
    gc.set_threshold(1_000_000)  # imports and tracing make many objects and little garbage
    ignored = [name for name in IGNORED if os.environ.pop(name, None)]
    for name in _NOT_OURS:
        os.environ.pop(name, None)
    if ignored:
        print(f"{', '.join(ignored)} ignored: same command, same numbers", file=sys.stderr)
    try:
        main()
        code = 0
    except SystemExit as end:
        if isinstance(end.code, int | None):
            code = end.code or 0
        else:  # words, for which the code is 1
            print(end.code, file=sys.stderr)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise  # else it was what is printed that found no space
    unwritten = _flushed()
    code = code or unwritten
    if code == interruption.CODE:
        # A process that was stopped during a compilation ends without even what JAX has registered
        # for the exit, at which its threads may crash.
        os._exit(interruption.CODE)
    raise SystemExit(code)


def _flushed() -> int:
    """Exit code of writing out what was printed; 1 if nobody reads it, or the disk is full."""
    if sys.stdout is None:  # closed by whoever started us
        return 0
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"error: cannot write the output: {error.strerror}", file=sys.stderr)
        return 1
    return 0
