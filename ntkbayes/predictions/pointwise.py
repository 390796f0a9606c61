"""Functions of each point's logits by themselves, compiled once for any number of draws and points."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.likelihood import ClassLikelihood, Likelihood

_AT_ONCE = 16384  # points of one draw, or of several


def _pointwise(
    function: Callable[[Any, Array], Array],
) -> Callable[[Likelihood, Float[Array | np.ndarray, "draws n outputs"]], np.ndarray]:
    """The function of a likelihood and of the logits of each draw and point, (S, n, C)."""
    program = eqx.filter_jit(function)

    def of_all(
        likelihood: Likelihood, logits: Float[Array | np.ndarray, "draws n outputs"]
    ) -> np.ndarray:
        rows = np.asarray(logits).reshape(-1, logits.shape[2])
        values = [
            np.asarray(program(likelihood, jax.device_put(_filled(part))))[0, : len(part)]
            for part in np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))
        ]
        return np.concatenate(values).reshape(*logits.shape[:2], values[0].shape[1])

    return of_all


def _filled(rows: Float[np.ndarray, "rows outputs"]) -> Float[np.ndarray, "1 at_once outputs"]:
    """The rows, and copies of the first as far as they are fewer."""
    filled = np.zeros((1, _AT_ONCE, rows.shape[1]), rows.dtype)
    filled[0, : len(rows)] = rows
    filled[0, len(rows) :] = rows[0] if len(rows) else 0
    return filled


def _probabilities(likelihood: ClassLikelihood, logits: Array) -> Array:
    return likelihood.probabilities(logits)


def _log_probabilities(likelihood: ClassLikelihood, logits: Array) -> Array:
    return likelihood.log_probabilities(logits)


def _projected(likelihood: Likelihood, logits: Array) -> Array:
    return likelihood.project(logits)


class_probabilities = _pointwise(_probabilities)
log_probabilities = _pointwise(_log_probabilities)
projected = _pointwise(_projected)
