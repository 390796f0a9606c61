"""Memory of this process, as Linux counts its pages."""

import ctypes
import gc
from pathlib import Path


def held() -> int:
    """Bytes now, once freed memory is returned, without which a peak would not show in it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _pages("VmRSS")


def peak() -> int:
    """Most bytes held since the process began, or since `forget_peak`."""
    return _pages("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _pages(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(name + ":")[1].split()[0])
