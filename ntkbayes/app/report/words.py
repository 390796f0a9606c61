"""Numbers and names as they read in a sentence."""

from collections.abc import Sequence

import numpy as np

from ntkbayes.scores.calibration import Interval


def number(value: float, digits: int, *, signed: bool = False) -> str:
    if np.isnan(value):
        return "undefined"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def significant(values: Sequence[float]) -> int:
    """Digits after the point by which the largest of some values has four in all."""
    sizes = [abs(value) for value in values if np.isfinite(value) and value != 0]
    return int(np.clip(3 - np.floor(np.log10(max(sizes))), 0, 15)) if sizes else 3


def with_interval(interval: Interval) -> str:
    value, lower, upper = (number(v, 3) for v in (interval.value, interval.lower, interval.upper))
    return f"{value} ({lower} to {upper})"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
