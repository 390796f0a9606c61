"""Is a function of two inputs a covariance? Looked at where a prior meets the data, on some of them."""

import numpy as np
from jaxtyping import Array, Float

from ntkbayes.errors import ConfigurationError, NotPositiveDefiniteError
from ntkbayes.kernels.base import KernelPair

SAMPLE = 64  # points, of which all pairs are looked at
_TOLERANCE = 1e-6  # of the size of an entry


def sample(features: Float[Array, "n ..."]) -> Float[Array, "k ..."]:
    """The points that are looked at: all, or some drawn at random, always the same."""
    size = len(features)
    if size <= SAMPLE:
        return features
    return features[np.sort(np.random.default_rng(0).choice(size, SAMPLE, replace=False))]


def require_covariance(block: KernelPair, diagonal: KernelPair) -> None:
    """Make sure that blocks of a kernel between points and themselves may be those of a covariance.

    Args:
        block: the Grams of some points.
        diagonal: of the same points, evaluated by itself.

    Raises:
        ConfigurationError: an entry is not finite, the block is not symmetric, or a point's own entry
            depends on the other points.
        NotPositiveDefiniteError: a variance is negative, or a combination of logits has a negative one.
    """
    for name, values, alone in zip(("NNGP", "NTK"), block, diagonal, strict=True):
        if values is not None:
            _require(f"the {name} kernel", np.asarray(values), np.asarray(alone))


def _require(who: str, block: Float[np.ndarray, "rows rows"], alone: np.ndarray) -> None:
    wrong = np.argwhere(~np.isfinite(block))
    if len(wrong):
        i, j = wrong[0]
        raise ConfigurationError(
            f"{who} is {block[i, j]} between the points {i} and {j} of those looked at; kernels must be "
            "finite. Standardise the features, and look for a division by zero or a root of 0"
        )
    own = np.diagonal(block)
    if own.min() < -_TOLERANCE * np.abs(block).max():
        i = int(own.argmin())
        raise NotPositiveDefiniteError(
            f"{who} is no covariance: k(x, x) = {own[i]:.4g} at a point, and no variance is negative; "
            "give a kernel with k(x, x) ≥ 0"
        )
    size = np.maximum(np.abs(block), np.abs(block.T))
    apart = np.abs(block - block.T)
    if (apart > _TOLERANCE * size).any() and apart.max() > _TOLERANCE * size.max():
        i, j = np.unravel_index(apart.argmax(), apart.shape)
        raise ConfigurationError(
            f"{who} is not symmetric: k(x, x') = {block[i, j]:.6g}, but k(x', x) = {block[j, i]:.6g}; a "
            "covariance is. Average both, (k(x, x') + k(x', x)) / 2, if that is what is meant"
        )
    if alone.shape == own.shape:
        away = np.abs(alone - own)
        if not (away <= 1e-3 * np.abs(own).max()).all():  # NaN is not
            i = int(np.where(np.isnan(away), np.inf, away).argmax())
            raise ConfigurationError(
                f"{who} depends on what else is evaluated: k(x, x) = {own[i]:.6g} among {len(own)} "
                f"points, {alone[i]:.6g} by itself. A length scale that is taken from the inputs, or a "
                "batch norm, does that: fix it beforehand"
            )
    lowest = float(np.linalg.eigvalsh((block + block.T) / 2)[0])
    if lowest < -_TOLERANCE * len(block) * own.max():
        raise NotPositiveDefiniteError(
            f"{who} is no covariance: of {len(block)} points its Gram matrix has the eigenvalue "
            f"{lowest:.4g} < 0, where the largest k(x, x) is {own.max():.4g}. Not every similarity is a "
            "covariance (a sigmoid or a distance is none); give a positive semi-definite kernel"
        )
