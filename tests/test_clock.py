"""The clock of studies and progress lines."""

import jax
import jax.numpy as jnp

from ntkbayes.app.clock import Clock, clock

COMPILING = "/jax/core/compile/backend_compile_duration"


def test_compilation_is_timed_where_it_happens():
    function = jax.jit(lambda x: jnp.sin(x) @ x + 3.0)
    square = jnp.ones((11, 11))
    with clock() as first:
        function(square).block_until_ready()
    with clock() as second:
        function(square).block_until_ready()
    assert 0 < first.compile_seconds <= first.seconds
    assert second.compile_seconds == 0


def test_what_is_compiled_as_a_part_of_something_counts_once(monkeypatch):
    times = iter([0.0, 2.0, 3.0, 4.0, 6.0, 6.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    running = Clock()
    for duration in (1.0, 0.5, 3.5, 1.0):  # the third holds the first two
        running.note(COMPILING, duration)
    running.note("/jax/checkpoint/write_duration", 5.0)
    assert running.compile_seconds == 4.5
    assert running.seconds == 6.0
