"""Ctrl-C: from the first moment, and whatever runs, one line and exit code 130."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STOPPED = "stopped; the same command resumes from what is already finished"
CODE = 130
_GRACE = 3.0  # seconds


def end_at_once() -> None:
    """From now on Ctrl-C ends the process without ado: imports, which it may meet, hold nothing that
    needs care, and would turn a KeyboardInterrupt into errors of their own. A signal that is ignored,
    as that of a background job, stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(_number: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    with suppress(OSError):  # nobody may listen
        os.write(2, f"{STOPPED}\n".encode())
    os._exit(CODE)


@contextmanager
def interruptible() -> Iterator[None]:
    """While work is done that leaves files, locks and processes in order when it is stopped."""
    ends_at_once = signal.getsignal(signal.SIGINT) is _end
    if ends_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    report = sys.unraisablehook

    def raised_again(unraisable: Any) -> None:
        """Ctrl-C within a callback of the garbage collector, as JAX has one, would be reported there
        and lost: it is raised again once that is over."""
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            report(unraisable)

    sys.unraisablehook = raised_again
    try:
        yield
    except KeyboardInterrupt:
        from ntkbayes.app.cli.terminal import say

        say(STOPPED)
        raise SystemExit(CODE) from None
    finally:
        sys.unraisablehook = report
        if ends_at_once:
            signal.signal(signal.SIGINT, _end)


@contextmanager
def also_in_compiled_code() -> Iterator[None]:
    """Let Ctrl-C end the process even while compiled code runs, which Python does not interrupt:
    a thread sees the signal at once, and waits for Python's own way of stopping no longer than
    `_GRACE`. Files are moved to their places when whole, so none is left broken."""
    seen, signalled = os.pipe()
    os.set_blocking(signalled, False)
    before = signal.set_wakeup_fd(signalled)

    def watch() -> None:
        while number := os.read(seen, 1):
            if number[0] == signal.SIGINT:
                time.sleep(_GRACE)
                from ntkbayes.app.cli.terminal import console

                console.show_cursor(True)
                _end()
        os.close(seen)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(signalled)
