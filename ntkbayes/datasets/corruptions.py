"""Corruptions of the digits images at five severities: shifts away from the training distribution.

Hendrycks & Dietterich (2019) for images of 8 × 8 pixels with values from 0, the background, to 16.
The severities are our own: at 1 a digit is easy to read, at 5 barely legible.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.datasets.dataset import Dataset
from ntkbayes.display import in_words
from ntkbayes.errors import ArgumentError, ConfigurationError, DataError, UnknownNameError

SIDE = 8
BRIGHTEST = 16.0
NUM_SEVERITIES = 5
ROUND_OFF = 1e-9
"""How far standardising and undoing it may take a pixel out of its range."""

Images = Float[np.ndarray, "n 8 8"]


def corrupt(data: Dataset, name: str, severity: int, key: PRNGKeyArray) -> Dataset:
    """The digits with corrupted images; targets and classes are unchanged.

    Args:
        data: points with 64 features, pixels from 0 to 16 once `data.scaling` is undone. The
            result is on the same scale, and its pixels lie in the same range.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5. The same key makes the same choices at every severity.
        key: of noise, directions and places, independent across points.

    Raises:
        UnknownNameError: the corruption is unknown.
        ConfigurationError: the severity is not 1 to 5.
        DataError: not 64 features, or pixels outside [0, 16].
    """
    if not isinstance(data, Dataset):
        raise ArgumentError(
            f"in corrupt(data, name, severity, key), data must be a Dataset; got {in_words(data)}"
        )
    if name not in _CORRUPTIONS:
        raise UnknownNameError("corruption", name, CORRUPTIONS)
    if not isinstance(severity, int | np.integer) or severity not in range(1, NUM_SEVERITIES + 1):
        raise ConfigurationError(f"severity must be 1 to {NUM_SEVERITIES}, got {severity!r}")
    if data.num_features != SIDE**2:
        raise DataError(
            f"corruptions take images of {SIDE} × {SIDE} pixels, got {data.num_features} features"
        )
    raw = data.rescaled(None)
    low, high = raw.features.min(), raw.features.max()
    if low < -ROUND_OFF or high > BRIGHTEST + ROUND_OFF:
        raise DataError(
            f"pixels run from {low:.3g} to {high:.3g}, but must lie between 0 and {BRIGHTEST:g}; "
            "standardise by Dataset.split, which remembers the scaling"
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(random_key(key))).ravel().tolist())
    images = _saturated(raw.features.reshape(-1, SIDE, SIDE))
    corrupted = _saturated(_CORRUPTIONS[name](images, severity - 1, rng))
    return raw._with(
        features=corrupted.reshape(-1, SIDE**2),
        name=f"{data.name} ({name} {severity})",
        rows=None,
    ).rescaled(data.scaling)


def _saturated(images: Images) -> Images:
    return np.clip(images, 0, BRIGHTEST)


def _gaussian_noise(images: Images, severity: int, rng: np.random.Generator) -> Images:
    return images + (1.0, 2.0, 3.0, 4.0, 6.0)[severity] * rng.normal(size=images.shape)


def _salt_and_pepper(images: Images, severity: int, rng: np.random.Generator) -> Images:
    share = (0.03, 0.06, 0.12, 0.2, 0.3)[severity]
    is_hit = rng.random(images.shape) < share
    extremes = np.where(rng.random(images.shape) < 0.5, 0.0, BRIGHTEST)
    return np.where(is_hit, extremes, images)


def _blur(images: Images, severity: int, rng: np.random.Generator) -> Images:
    from scipy import ndimage

    width = (0.4, 0.6, 0.8, 1.0, 1.4)[severity]  # standard deviation in pixels
    return ndimage.gaussian_filter(images, (0, width, width), mode="constant")


def _rotation(images: Images, severity: int, rng: np.random.Generator) -> Images:
    """To either side, about the centre."""
    from scipy import ndimage

    angle = (10, 20, 30, 45, 60)[severity]
    left, right = (
        ndimage.rotate(images, turn, axes=(2, 1), reshape=False, order=1, mode="constant")
        for turn in (angle, -angle)
    )
    return np.where(rng.random((len(images), 1, 1)) < 0.5, left, right)


def _translation(images: Images, severity: int, rng: np.random.Generator) -> Images:
    """Up, down, left or right, by fractions of pixels."""
    from scipy import ndimage

    length = (0.5, 1.0, 1.5, 2.0, 3.0)[severity]
    moved = np.stack(
        [
            ndimage.shift(images, (0, down * length, right * length), order=1, mode="constant")
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))
        ]
    )
    return moved[rng.integers(4, size=len(images)), np.arange(len(images))]


def _contrast(images: Images, severity: int, rng: np.random.Generator) -> Images:
    factor = (0.75, 0.5, 0.35, 0.2, 0.1)[severity]
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (images - mean)


def _occlusion(images: Images, severity: int, rng: np.random.Generator) -> Images:
    """A square of background somewhere inside the image."""
    side = (2, 3, 4, 5, 6)[severity]
    corner = np.floor(rng.random((2, len(images), 1)) * (SIDE - side + 1))
    row, column = np.arange(SIDE) - corner
    is_row, is_column = ((place >= 0) & (place < side) for place in (row, column))
    return np.where(is_row[:, :, None] & is_column[:, None, :], 0.0, images)


_CORRUPTIONS: dict[str, Callable[[Images, int, np.random.Generator], Images]] = {
    "gaussian_noise": _gaussian_noise,
    "salt_and_pepper": _salt_and_pepper,
    "blur": _blur,
    "rotation": _rotation,
    "translation": _translation,
    "contrast": _contrast,
    "occlusion": _occlusion,
}

CORRUPTIONS = tuple(_CORRUPTIONS)
"""The corruptions that `corrupt` knows."""
