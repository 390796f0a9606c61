"""The entropy of a prediction, in parts: aleatoric and epistemic."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ntkbayes.display import Configured
from ntkbayes.scores.simplex import check_simplex, quiet_log


@dataclass(frozen=True, repr=False)
class Uncertainty(Configured):
    """Entropies in nats, one per point, with total = aleatoric + epistemic (Depeweg et al. 2018)."""

    total: Float[np.ndarray, "n"]
    """Entropy of the mean prediction, in [0, log classes]."""
    aleatoric: Float[np.ndarray, "n"]
    """Mean entropy of the draws, in [0, total]."""
    epistemic: Float[np.ndarray, "n"]
    """Mutual information of label and draw, in [0, total]; zero iff all draws agree."""


def uncertainty(probability_draws: ArrayLike) -> Uncertainty:
    """Decompose the entropy of class probabilities drawn from a law, (draws, n, classes).

    The mutual information (Houlsby et al. 2011) is the mean divergence KL(p_s ‖ p̄) of the draws
    from their mean, a sum of terms ≥ 0, not a small difference of two entropies: its relative
    error is round-off over the relative spread of the draws, not over the square of it, and it
    is exactly zero when all draws agree.
    """
    p = check_simplex("probability_draws", probability_draws, ("draw", "row", "class"))
    mean = p[0] + (p - p[0]).mean(axis=0)  # exact when all draws are equal
    aleatoric = (
        -np.multiply(p, quiet_log(p), where=p > 0, out=np.zeros_like(p)).sum(axis=2).mean(axis=0)
    )
    # With d = p / p̄ − 1, whose mean over draws is zero, KL is the mean of
    # p̄ ((1 + d) log(1 + d) − d), and every such term is ≥ 0. Where p = 0, 0 log 0 = 0.
    ratio = np.divide(p, mean, where=mean > 0, out=np.ones_like(p))
    d = np.divide(p - mean, mean, where=mean > 0, out=np.zeros_like(p))
    log = np.log(ratio, where=ratio > 0, out=np.zeros_like(p))
    log = np.log1p(d, where=np.abs(d) < 0.5, out=log)
    divergence = np.maximum(d * log + (log - d), 0)
    epistemic = (mean * divergence).sum(axis=2).mean(axis=0)
    aleatoric = aleatoric + 0.0  # -0.0 to 0.0
    return Uncertainty(total=aleatoric + epistemic, aleatoric=aleatoric, epistemic=epistemic)
