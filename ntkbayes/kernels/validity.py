"""Is a function of two inputs a covariance? Checked on a sample of the data when a prior meets them."""

import numpy as np
from jaxtyping import Array, Float

from ntkbayes.errors import ConfigurationError, NotPositiveDefiniteError
from ntkbayes.kernels.base import KernelPair

SAMPLE = 64  # points; all pairs among them are checked
_TOLERANCE = 1e-6  # relative to the size of an entry


def sample(features: Float[Array, "n ..."]) -> Float[Array, "k ..."]:
    """The points to check: all, or a fixed random sample."""
    size = len(features)
    if size <= SAMPLE:
        return features
    return features[np.sort(np.random.default_rng(0).choice(size, SAMPLE, replace=False))]


def require_covariance(block: KernelPair, diagonal: KernelPair) -> None:
    """Refuse the Gram matrices of a kernel that is not a covariance.

    Args:
        block: the Grams of some points.
        diagonal: the kernels' diagonals at the same points, evaluated separately.

    Raises:
        ConfigurationError: an entry is not finite, the block is not symmetric, or k(x, x) depends on
            the other points.
        NotPositiveDefiniteError: a variance, or an eigenvalue, is negative.
    """
    for name, values, alone in zip(("NNGP", "NTK"), block, diagonal, strict=True):
        if values is not None:
            _require(f"the {name} kernel", np.asarray(values), np.asarray(alone))


def _require(who: str, block: Float[np.ndarray, "rows rows"], alone: np.ndarray) -> None:
    wrong = np.argwhere(~np.isfinite(block))
    if len(wrong):
        i, j = wrong[0]
        raise ConfigurationError(
            f"{who} is {block[i, j]} between the points {i} and {j} of those checked; kernels must be "
            "finite. Standardise the features, and look for a division by zero or a root of 0"
        )
    own = np.diagonal(block)
    if own.min() < -_TOLERANCE * np.abs(block).max():
        i = int(own.argmin())
        raise NotPositiveDefiniteError(
            f"{who} is not a covariance: k(x, x) = {own[i]:.4g} at a point, but variances are not "
            "negative; give a kernel with k(x, x) ≥ 0"
        )
    size = np.maximum(np.abs(block), np.abs(block.T))
    apart = np.abs(block - block.T)
    if (apart > _TOLERANCE * size).any() and apart.max() > _TOLERANCE * size.max():
        i, j = np.unravel_index(apart.argmax(), apart.shape)
        raise ConfigurationError(
            f"{who} is not symmetric: k(x, x') = {block[i, j]:.6g}, but k(x', x) = {block[j, i]:.6g}; a "
            "covariance is. If you mean their average, return (k(x, x') + k(x', x)) / 2"
        )
    if alone.shape == own.shape:
        away = np.abs(alone - own)
        if not (away <= 1e-3 * np.abs(own).max()).all():  # NaN is not
            i = int(np.where(np.isnan(away), np.inf, away).argmax())
            raise ConfigurationError(
                f"{who} depends on what else is evaluated: k(x, x) = {own[i]:.6g} among {len(own)} "
                f"points, {alone[i]:.6g} by itself. A length scale computed from the inputs, or batch "
                "norm, does that: fix it beforehand"
            )
    lowest = float(np.linalg.eigvalsh((block + block.T) / 2)[0])
    if lowest < -_TOLERANCE * len(block) * own.max():
        raise NotPositiveDefiniteError(
            f"{who} is not a covariance: its Gram matrix of {len(block)} points has the eigenvalue "
            f"{lowest:.4g} < 0, where the largest k(x, x) is {own.max():.4g}. Not every similarity is a "
            "covariance (sigmoids and distances are not); give a positive semi-definite kernel"
        )
