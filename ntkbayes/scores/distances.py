"""How far apart two laws are, from draws, each distance with its Monte Carlo error.

Arrays of draws have shape (S, ...). Errors are standard errors, by the jackknife over blocks of each
law's draws. A point law's draws are all alike and add no error.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ntkbayes.scores.jackknife import Blocks, Jackknifed, Sample, means, ranges, variances


@dataclass(frozen=True)
class Distance:
    """A distance and the standard error that comes from finitely many draws."""

    value: float
    error: float


def total_variation(probabilities_a: Sample, probabilities_b: Sample) -> Distance:
    """Mean over points of ½ Σ_c |p_a − p_b| between predictive probabilities, in [0, 1].

    Probability draws (S, n, C). Finitely many draws make equal laws look a little apart: by about
    the error.
    """

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean(np.sum(np.abs(a - b), axis=-1)) / 2)

    return _distance(means(probabilities_a), means(probabilities_b), between)


def variance_ratio(logits_a: Sample, logits_b: Sample) -> Distance:
    """Geometric mean over points and logits of Var_a / Var_b.

    Below 1, law a is the more confident one; 0 if a logit of it does not vary, infinite if one of law b
    does not, NaN if both have such. The error takes three draws of each, and is NaN with fewer. Logit
    draws (S, n, C).
    """

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(np.mean(a - b)))

    # Of logits that do not vary, or by one draw, logarithms are infinite.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = _distance(_log_variances(logits_a), _log_variances(logits_b), between)
    if found.value == 0:
        return Distance(0.0, 0.0)
    if not np.isfinite(found.value) or min(len(logits_a), len(logits_b)) < 3:
        return Distance(found.value, np.nan)
    return found


def _log_variances(logits: Sample) -> Jackknifed:
    """log Var of each logit, −∞ where it varies by round-off."""

    def log(variance: np.ndarray, extent: np.ndarray) -> np.ndarray:
        return np.log(np.where(extent <= 1e-9, 0.0, variance))

    return variances(logits).to(log, ranges(logits))


def log_variance(logits: Sample) -> Distance:
    """Mean over points and logits of log Var, without the bias −1/(S − 1) of S independent draws."""
    found = variances(logits, ddof=1).to(lambda variance: np.mean(np.log(variance)))
    return Distance(float(found.whole) + 1 / (len(logits) - 1), float(found.variance) ** 0.5)


def energy_coefficient(logits_a: Sample, logits_b: Sample, *, max_draws: int = 1000) -> Distance:
    """H = (2 E‖A − B‖ − E‖A − A'‖ − E‖B − B'‖) / (2 E‖A − B‖) over joint draws (Rizzo & Székely 2016).

    In [0, 1], and 0 only for equal laws. A draw is the vector of the logits at *all* points, so
    dependence between points counts. The estimate is unbiased in numerator, so it can be slightly
    negative for equal laws. Uses at most `max_draws` draws of each law.
    """
    a, b = (_flat(_thin(x, max_draws)) for x in (logits_a, logits_b))
    blocks_a, blocks_b = Blocks.of(len(a)), Blocks.of(len(b))
    across = _summed(_pairwise(a, b), blocks_a, blocks_b)
    within_a, within_b = _summed_within(a, blocks_a), _summed_within(b, blocks_b)

    def between(kept_a: np.ndarray, kept_b: np.ndarray) -> float:
        size_a, size_b = blocks_a.sizes[kept_a].sum(), blocks_b.sizes[kept_b].sum()
        mean_across = across[np.ix_(kept_a, kept_b)].sum() / (size_a * size_b)
        mean_a = within_a[np.ix_(kept_a, kept_a)].sum() / max(1, size_a * (size_a - 1))
        mean_b = within_b[np.ix_(kept_b, kept_b)].sum() / max(1, size_b * (size_b - 1))
        return float(1 - (mean_a + mean_b) / (2 * mean_across)) if mean_across > 0 else 0.0

    kept_a, kept_b = (blocks.jackknifed(lambda kept: kept) for blocks in (blocks_a, blocks_b))
    return _distance(kept_a, kept_b, between)


def permuted_coefficients(
    logits_a: Sample, logits_b: Sample, rng: np.random.Generator, num_permutations: int
) -> tuple[float, Float[np.ndarray, " permutations"]]:
    """The energy coefficient of two laws by all their draws, and those of random divisions of the draws
    into as many of either kind: where the laws are equal, and all draws independent, its rank among
    them is uniform.

    Args:
        logits_a: joint draws of one law, (S, n, C).
        logits_b: of the other, at the same inputs.
        rng: of the divisions.
        num_permutations: how many.
    """
    a, b = _flat(logits_a), _flat(logits_b)
    pooled = np.concatenate([a, b])
    distances = _pairwise(pooled, pooled)
    np.fill_diagonal(distances, 0.0)
    size, other = len(a), len(b)
    chosen = np.zeros((num_permutations + 1, size + other))
    chosen[0, :size] = 1.0
    for row in chosen[1:]:
        row[rng.choice(size + other, size, replace=False)] = 1.0
    to_all, to_chosen = distances.sum(axis=0), chosen @ distances
    within = np.sum(to_chosen * chosen, axis=1)
    across = chosen @ to_all - within
    others = to_all.sum() - within - 2 * across
    means = within / (size * (size - 1)) + others / (other * (other - 1))
    coefficients = 1 - means * size * other / (2 * across)
    return float(coefficients[0]), coefficients[1:]


def _distance(
    a: Jackknifed, b: Jackknifed, between: Callable[[np.ndarray, np.ndarray], float]
) -> Distance:
    """The distance between what is known of two laws."""
    from_a, from_b = (
        a.to(lambda part: between(part, b.whole)),
        b.to(lambda part: between(a.whole, part)),
    )
    return Distance(float(from_a.whole), float(from_a.variance + from_b.variance) ** 0.5)


def _thin(draws: Sample, most: int) -> Sample:
    if len(draws) <= most:
        return draws
    return draws[np.arange(most) * len(draws) // most]


def _flat(draws: Sample) -> Float[np.ndarray, "draws numbers"]:
    return draws.reshape(len(draws), -1)


def _pairwise(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, "a b"]:
    """Euclidean distances between rows."""
    centre = b.mean(axis=0)  # near the origin the squares below lose fewest digits
    a, b = a - centre, b - centre
    squares = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None, :] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))


def _summed(
    matrix: Float[np.ndarray, "a b"], rows: Blocks, columns: Blocks
) -> Float[np.ndarray, "rows columns"]:
    """Sums of a matrix over pairs of blocks."""
    return columns.reduced(np.add, rows.reduced(np.add, matrix), axis=1)


def _summed_within(
    draws: Float[np.ndarray, "draws numbers"], blocks: Blocks
) -> Float[np.ndarray, "blocks blocks"]:
    """The same of the distances between a law's own draws; none of a draw to itself."""
    distances = _pairwise(draws, draws)
    np.fill_diagonal(distances, 0.0)
    return _summed(distances, blocks, blocks)
