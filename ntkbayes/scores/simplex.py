"""Arrays of class probabilities: what may be scored."""

import numpy as np
from numpy.typing import ArrayLike

from ntkbayes import ranges
from ntkbayes.errors import DataError

SIMPLEX_TOLERANCE = 1e-6
"""How far a row may sum from one; negative entries are refused whatever their size."""


def check_level(level: float) -> None:
    """Raise ConfigurationError unless 0 < level < 1."""
    ranges.real("level", level, ranges.Range.OPEN_UNIT)


def check_simplex(name: str, values: ArrayLike, axes: tuple[str, ...]) -> np.ndarray:
    """Probabilities as float64, with one axis for each name in `axes`, the last of them classes.

    Raises DataError, which calls them `name`, unless every row lies on the simplex.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(axes) or array.size == 0 or array.shape[-1] < 2:
        raise DataError(
            f"{name} have shape {array.shape}; the axes must be ({', '.join(axes)}), none empty, "
            "with at least two classes: give binary labels two columns"
        )
    if bad := np.argwhere(~(array >= 0)).tolist():  # negative or nan
        place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, bad[0], strict=True))
        raise DataError(f"{name}: {place} is {array[tuple(bad[0])]}, which is no probability")
    total = array.sum(axis=-1)
    if bad := np.argwhere(~(np.abs(total - 1) <= SIMPLEX_TOLERANCE)).tolist():
        place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, bad[0], strict=False))
        raise DataError(
            f"{name}: {place} sums to {total[tuple(bad[0])]}, not to 1 within {SIMPLEX_TOLERANCE}; "
            "normalise it (logits need a softmax first)"
        )
    return array


def validated(probabilities: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (n, classes) with rows on the simplex."""
    p = check_simplex("probabilities", probabilities, ("row", "class"))
    y = check_simplex("targets", targets, ("row", "class"))
    if p.shape != y.shape:
        raise DataError(f"probabilities have shape {p.shape}, targets {y.shape}; they must agree")
    return p, y


def validated_weights(weights: ArrayLike | None, n: int) -> np.ndarray:
    if weights is None:
        return np.ones(n)
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim not in (1, 2) or w.shape[-1] != n:
        raise DataError(f"weights have shape {w.shape}; they must be ({n},) or (resamples, {n})")
    if not (np.isfinite(w).all() and (w >= 0).all() and (w.sum(axis=-1) > 0).all()):
        raise DataError("weights must be finite and not negative, and must not all be zero")
    return w


def quiet_log(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(values)


def top_label(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence max p and its hit y[argmax p]."""
    rows, label = np.arange(len(p)), p.argmax(axis=1)
    return p[rows, label], y[rows, label]
