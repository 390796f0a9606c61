"""What is given for a data set, told to whoever gives something else."""

from pathlib import Path
from typing import Any

from ntkbayes.arguments import require
from ntkbayes.datasets.dataset import Dataset
from ntkbayes.datasets.sources import NAMES
from ntkbayes.errors import ConfigurationError


def require_dataset(call: str, name: str, value: Any, *, remedy: str = "") -> None:
    """Raises ArgumentError, with the way to make one, unless the value is a `Dataset`.

    Args:
        call: as it should be, see `arguments.require`.
        remedy: what to do instead, if features alone were given.
    """
    require(call, name, value, Dataset, lambda given: _how_to_make(given, remedy))


def require_same_classes(train: Dataset, test: Dataset) -> None:
    """Raises ConfigurationError unless test points have the classes of the training points."""
    if test.class_names != train.class_names:
        raise ConfigurationError(
            f"the test points have the classes {test.class_names}, the training points "
            f"{train.class_names}; make both with the same class_names, or read_table(…, like=train)"
        )


def _how_to_make(given: Any, remedy: str) -> str:
    if isinstance(given, str | Path):
        if given in NAMES:
            return f"give nb.datasets.load({given!r})"
        return f"give nb.datasets.read_table({str(given)!r}, target=...)"
    if isinstance(given, tuple | list) and len(given) == 2:
        return "give nb.Dataset(X, y)"
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        return remedy or "give nb.Dataset(frame.drop(columns=target), frame[target])"
    if isinstance(given, list | tuple) or hasattr(given, "__array__"):
        return remedy or "give nb.Dataset(X, y), which has features and targets"
    return ""
