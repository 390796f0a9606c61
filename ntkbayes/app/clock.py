"""How long something takes, and how much of that JAX spends compiling."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Clock:
    """Times of a context, in seconds; see `clock`.

    Attributes:
        begin: when it began.
        spans: when JAX traced, lowered or compiled, without those within another.
    """

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.spans: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.begin

    @property
    def compile_seconds(self) -> float:
        """Of those, the ones that JAX spent tracing, lowering and compiling."""
        return sum((end - begin for begin, end in self.spans), 0.0)

    def note(self, event: str, duration_secs: float, **_about: Any) -> None:
        """JAX reports an event when it ends, and so before those that it is part of."""
        if not event.startswith("/jax/core/compile/"):
            return
        end = time.perf_counter()
        while self.spans and self.spans[-1][0] >= end - duration_secs:
            self.spans.pop()
        self.spans.append((end - duration_secs, end))


@contextmanager
def clock() -> Iterator[Clock]:
    """A clock that runs, and sees what JAX compiles while the context lasts."""
    from jax import monitoring  # which takes long: the command line has it only when it needs it

    running = Clock()
    monitoring.register_event_duration_secs_listener(running.note)
    try:
        yield running
    finally:
        monitoring.unregister_event_duration_listener(running.note)
