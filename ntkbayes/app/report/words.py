"""Numbers and names as they read in a sentence."""

from collections.abc import Mapping, Sequence

import numpy as np

from ntkbayes.scores.intervals import Interval


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
    """As in "0.177 (0.120 to 0.240)", after a sentence that says what the interval is over."""
    return f"{number(interval.value, 3)} ({_ends(interval)})"


def with_meaning(interval: Interval) -> str:
    """As in "0.177 (90% over test points: 0.120 to 0.240)"."""
    return f"{number(interval.value, 3)} ({interval.meaning}: {_ends(interval)})"


def _ends(interval: Interval) -> str:
    return f"{number(interval.lower, 3)} to {number(interval.upper, 3)}"


def setting_in_words(value: object) -> str:
    """A setting that `description.describe` recorded, as an expression, such as
    MLP(LeakyReLU(slope=0), depth=2)."""
    if isinstance(value, Mapping):
        own = dict(value)
        kind = own.pop("type", "")
        parts = [
            setting_in_words(part)
            if isinstance(part, Mapping) and "type" in part
            else f"{name}={setting_in_words(part)}"
            for name, part in own.items()
        ]
        return f"{kind}({', '.join(parts)})"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def prior_in_words(settings: Mapping[str, object]) -> str:
    """The network of a comparison's settings; "" if they do not tell."""
    prior = settings.get("prior")
    kernel = prior.get("kernel") if isinstance(prior, Mapping) else None
    if not isinstance(kernel, Mapping):
        return ""
    network = kernel.get("network")
    if kernel.get("type") != "MLPKernel" or not isinstance(network, Mapping):
        return f"Kernel: {setting_in_words(kernel)}."
    # Of no effect on the kernel of infinite width.
    own = {name: part for name, part in network.items() if name not in ("width", "num_outputs")}
    return f"Network: {setting_in_words(own)}, of infinite width."


def split_in_words(settings: Mapping[str, object]) -> str:
    """Where the held-out points of a comparison's settings come from; "" if they do not tell."""
    if settings.get("test data digest") is not None:
        return "The held-out points were given."
    share, seed = settings.get("test share"), settings.get("seed")
    if not isinstance(share, float) or seed is None:
        return ""
    return f"Held out: {100 * share:.3g} % of the points, chosen by seed {seed}."


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
