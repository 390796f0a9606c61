"""Stratified sampling."""

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ntkbayes.arguments import random_key


def apportion(quotas: np.ndarray, total: int) -> np.ndarray:
    """Integers that sum to `total`, each within one of its quota (largest-remainder method)."""
    sizes = np.floor(quotas).astype(int)
    by_remainder = np.argsort(sizes - quotas, kind="stable")
    sizes[by_remainder[: total - sizes.sum()]] += 1
    return sizes


def draw(key: PRNGKeyArray, strata: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A mask of `sizes[s]` random points from each stratum `s`."""
    order = _shuffled(key, len(strata))
    mask = np.zeros(len(strata), dtype=bool)
    for stratum, size in enumerate(sizes):
        mask[order[strata[order] == stratum][:size]] = True
    return mask


def deal(key: PRNGKeyArray, strata: np.ndarray, num_folds: int) -> np.ndarray:
    """A fold for each point, at random: all folds, and each stratum over them, even to within one."""
    order = _shuffled(key, len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    fold = np.empty(len(strata), dtype=int)
    fold[order] = np.arange(len(strata)) % num_folds
    return fold


def _shuffled(key: PRNGKeyArray, size: int) -> np.ndarray:
    return np.asarray(jax.random.permutation(random_key(key), np.arange(size)))
