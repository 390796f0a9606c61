"""The peak memory of a fit, predicted before it starts.

Predictions count the draws and the n × n arrays that coexist at the peak, and on CPUs compiled programs;
arrays that grow only with n · C are left out. They hold for float64 kernels and one process.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax

from ntkbayes.errors import InsufficientMemoryError

NUMBER = 8  # bytes of a float64
PROGRAMS = 200 * 2**20  # bytes that compiling takes and keeps, as measured (docs/performance.md)


@dataclass(frozen=True)
class Memory:
    """The peak memory of a method.

    Attributes:
        who: method, points and outputs, in words.
        num_points: n.
        parts: bytes of arrays by purpose.
    """

    who: str
    num_points: int
    parts: Mapping[str, float]

    @property
    def arrays(self) -> float:
        """Bytes of arrays."""
        return sum(self.parts.values())

    @property
    def programs(self) -> float:
        """Bytes of compiled programs: none where arrays have a memory of their own."""
        return PROGRAMS if jax.default_backend() == "cpu" else 0

    @property
    def total(self) -> float:
        """Bytes."""
        return self.arrays + self.programs

    def __str__(self) -> str:
        known = {**self.parts, "compiled programs": self.programs}
        parts = ", ".join(f"{what} {in_words(size)}" for what, size in known.items() if size)
        return f"{self.who}: {in_words(self.total)} ({parts})"

    def require(self) -> None:
        """Raises InsufficientMemoryError if less is free."""
        free = available()
        if self.total > free:
            share = max(0.0, free - self.programs) / self.arrays
            fit = math.floor(self.num_points * math.sqrt(share))
            fewer = (
                f"Use about {fit} points (data.subset(key, {fit})), a method that needs less (MAP needs "
                "the least), factor_dtype=float32 where a method has it, or more devices (over_devices)"
            )
            raise InsufficientMemoryError(
                f"not enough memory: {self} needed, {in_words(free)} free. "
                + (fewer if fit else "Free some of it: even compiled programs do not fit")
            )


def total() -> int:
    """All bytes of the first device. For the CPU, those of the machine, within the limit of the
    process's control group."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    import psutil

    return int(min(psutil.virtual_memory().total, _limit()))


def available() -> float:
    """Free bytes of the first device. For the CPU, those of the machine, within the limit of the
    process's control group."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    import psutil

    return min(psutil.virtual_memory().available, _control_group())


def _limit() -> float:
    """Of the process's control group."""
    return _first_number("memory.max", "memory/memory.limit_in_bytes")


def _control_group() -> float:
    """What is left of it."""
    return _limit() - _first_number("memory.current", "memory/memory.usage_in_bytes", otherwise=0.0)


def _first_number(*files: str, otherwise: float = math.inf) -> float:
    """Of the files of either version of control groups."""
    for file in files:
        try:
            return int((Path("/sys/fs/cgroup") / file).read_text())
        except (OSError, ValueError):  # the other version, or no limit ("max")
            continue
    return otherwise


def in_words(size: float) -> str:
    """Bytes in a readable unit."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
