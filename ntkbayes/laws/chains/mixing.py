"""How well Markov chains mix: rank-normalised split R-hat, bulk and tail effective sample size, all
ArviZ's (Vehtari et al. 2021), of the worst of many quantities.

Where they do not exist they are NaN, and the warning says why.
"""

import math
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Int
from joblib import cpu_count
from numpy.typing import ArrayLike

from ntkbayes.errors import ConvergenceWarning
from ntkbayes.laws.info import Info

GOOD_RHAT, WORST_RHAT = 1.01, 1.05
ESS_PER_CHAIN = 100
"""Thresholds of Vehtari et al. (2021); beyond `WORST_RHAT` the sampler warns."""

FEWEST_DRAWS = 10
"""Per chain. Half-chains of fewer than 5 draws leave no autocorrelation to estimate."""

_TAIL = (0.05, 0.95)
_NUM_ASSESSED = 16
_BLOCK = 2**19  # numbers that a thread screens at once: 4 MiB

Sequences = Float[np.ndarray, "chains samples quantities"]


class MixingInfo(Info):
    """Of Markov chains: how well they have mixed, over all that is diagnosed.

    NaN where not known: of one chain, of chains of fewer than 10 draws, and of chains that never move.

    Attributes:
        max_rhat: the largest rank-normalised split R-hat.
        min_bulk_ess: the smallest effective sample size in the bulk.
        min_tail_ess: the smallest effective sample size in the tails.
    """

    max_rhat: float
    min_bulk_ess: float
    min_tail_ess: float

    @property
    def min_ess(self) -> float:
        """The smaller one, to be compared with 100 per chain."""
        return min(self.min_bulk_ess, self.min_tail_ess)


def why_unknown(num_chains: int, num_samples: int) -> str:
    """Why so many chains of so many draws have no R-hat; empty if they have."""
    if num_chains < 2:
        return "there is one chain, and R-hat compares chains: use num_chains ≥ 2"
    if num_samples < FEWEST_DRAWS:
        return f"a chain has {num_samples} draws: use num_samples ≥ {FEWEST_DRAWS}"
    return ""


def judged(
    quantities: Iterable[ArrayLike], *, num_divergences: int, remedy: str, stacklevel: int
) -> dict[str, float]:
    """The fields of `MixingInfo`, with a warning where they are bad, or not known.

    Args:
        quantities: draws (chains, samples, ...) of all that is to be diagnosed.
        num_divergences: of the chains.
        remedy: what to do, for the warning.
        stacklevel: of the warning, from the caller.

    Warns:
        ConvergenceWarning: transitions diverged, an R-hat is above `WORST_RHAT`, or none is known.
    """
    parts = [np.asarray(part, dtype=float) for part in quantities]
    draws = np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)
    # What the prior determines is the same in every draw, and has nothing to explore.
    draws = draws[:, :, np.ptp(draws, axis=(0, 1)) != 0]
    unknown = why_unknown(*draws.shape[:2]) or _why_still(draws)
    diagnostics = (math.nan, math.nan, math.nan) if unknown else _worst(draws)
    begin, trouble = "the chains have not converged: ", []
    if num_divergences:
        trouble.append(f"{num_divergences} transitions diverged")
    if unknown:
        begin = begin if num_divergences else "whether the chains have converged is not known: "
        trouble.append(f"R-hat is not known, since {unknown}")
    elif diagnostics[0] > WORST_RHAT:
        trouble.append(f"R-hat is up to {diagnostics[0]:.3f}")
    if trouble:
        message = f"{begin}{', and '.join(trouble)}. {remedy}"
        warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel + 1)
    return dict(zip(("max_rhat", "min_bulk_ess", "min_tail_ess"), diagnostics, strict=True))


def _why_still(draws: Sequences) -> str:
    if not np.isfinite(draws).all():
        return "some draws are not finite"
    if not np.ptp(draws, axis=1).any(axis=0).all() or not draws.size:
        return "there is a quantity that no chain has moved"
    return ""


def _worst(draws: Sequences) -> tuple[float, float, float]:
    """The largest R-hat and the smallest effective sample sizes of all quantities.

    ArviZ takes milliseconds for each, a long time for thousands of logits: all are screened at once, and
    those at the bottom are ArviZ's to assess.
    """
    from arviz_stats.base import array_stats

    step = max(1, _BLOCK // (draws.shape[0] * draws.shape[1]))
    blocks = [draws[:, :, i : i + step] for i in range(0, draws.shape[2], step)]
    with ThreadPoolExecutor(cpu_count()) as threads:
        screened = list(threads.map(_screened, blocks))
    rhat, bulk, tail = (
        draws[:, :, _largest(np.concatenate(s))] for s in zip(*screened, strict=True)
    )
    axes = {"chain_axis": 0, "draw_axis": 1}
    return (
        float(np.max(array_stats.rhat(rhat, **axes))),
        float(np.min(array_stats.ess(bulk, method="bulk", **axes))),
        float(np.min(array_stats.ess(tail, method="tail", prob=_TAIL, **axes))),
    )


def _largest(scores: Float[np.ndarray, " quantities"]) -> Int[np.ndarray, " chosen"]:
    return np.argsort(scores)[-_NUM_ASSESSED:]


def _screened(
    draws: Sequences,
) -> tuple[Float[np.ndarray, " quantities"], ...]:
    """R-hat of each quantity, and autocorrelation times of bulk and tails."""
    halves = _halves(draws)
    bulk = _normal_scores(halves)
    folded = _normal_scores(np.abs(halves - np.median(halves, axis=(0, 1))))
    tails = [_halves((draws <= q).astype(float)) for q in np.quantile(draws, _TAIL, axis=(0, 1))]
    return (
        np.maximum(_variance_ratio(bulk), _variance_ratio(folded)),
        _autocorrelation_time(bulk),
        np.maximum(*(_autocorrelation_time(tail) for tail in tails)),
    )


def _halves(draws: Sequences) -> Float[np.ndarray, "halves half quantities"]:
    """Each chain as two."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: Sequences) -> Sequences:
    """Φ⁻¹ of the ranks among all draws of a quantity."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    flat = draws.reshape(-1, draws.shape[2])
    return ndtri((rankdata(flat, axis=0) - 0.375) / (len(flat) + 0.25)).reshape(draws.shape)


def _variance_ratio(draws: Sequences) -> Float[np.ndarray, " quantities"]:
    """Variance between chains over that within: what R-hat rises with."""
    within = draws.var(axis=1, ddof=1).mean(axis=0)
    between = draws.mean(axis=1).var(axis=0, ddof=1)
    return np.divide(between, within, where=within > 0, out=np.full_like(within, np.inf))


def _autocorrelation_time(draws: Sequences) -> Float[np.ndarray, " quantities"]:
    """1 + 2 Σ_t ρ_t, by Geyer's initial monotone sequence."""
    from scipy import fft

    count = draws.shape[1]
    size = fft.next_fast_len(2 * count, real=True)
    spectrum = fft.rfft(draws - draws.mean(axis=1, keepdims=True), size, axis=1)
    covariance = fft.irfft(np.abs(spectrum) ** 2, size, axis=1)[:, :count].mean(axis=0) / count
    within = covariance[0] * count / (count - 1)
    total = covariance[0] + draws.mean(axis=1).var(axis=0, ddof=1)
    lost = np.divide(within - covariance, total, where=total > 0, out=np.zeros_like(covariance))
    pairs = (1 - lost)[: count // 2 * 2].reshape(count // 2, 2, -1).sum(axis=1)
    return 2 * np.minimum.accumulate(np.maximum(pairs, 0), axis=0).sum(axis=0) - 1
