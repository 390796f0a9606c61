"""How long a fit takes, predicted before it starts: its operations, by this machine's speed."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Work:
    """The work of a method.

    Counted in operations of a large matrix product: what runs slower than those counts for more. The
    prediction is meant for choosing what to run: where it is above a minute it is right within a factor
    of three, on a machine with nothing else to do.

    Attributes:
        who: method, points and outputs, in words.
        parts: operations by purpose; none where they are not known, as for the training of networks.
    """

    who: str
    parts: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """How long all of it takes here, and to compile it."""
        return COMPILATION + sum(self.parts.values()) / speed() if self.parts else 0.0

    def __str__(self) -> str:
        return f"{self.who}: {in_words(self.seconds)}"


COMPILATION = 10.0  # seconds that a law's programs take, about

_SIZE = 1000  # rows of the product that is timed


@functools.cache
def speed() -> float:
    """Operations per second of a product of two float64 matrices here, measured once."""
    with jax.enable_x64(True):
        a = jnp.ones((_SIZE, _SIZE))
        product = jax.jit(jnp.matmul).lower(a, a).compile()
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            jax.block_until_ready(product(a, a))
            times.append(time.perf_counter() - begin)
    return 2 * _SIZE**3 / min(times)


def in_words(seconds: float) -> str:
    """A time in a readable unit, to the precision of a prediction."""
    if seconds < 90:
        return f"about {float(f'{seconds:.1g}'):g} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"about {float(f'{minutes:.2g}'):g} min"
    return f"about {float(f'{minutes / 60:.2g}'):g} h"
