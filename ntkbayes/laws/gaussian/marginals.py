"""Expectations over one point's Gaussian logits N(m, S): to round-off for one logit, by
low-discrepancy sequences for several."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.laws.gaussian.quadrature import integrate
from ntkbayes.likelihood import ClassLikelihood, Likelihood, Normal, Poisson, Tempered
from ntkbayes.linalg import Covariances, Logits, symmetric_roots

Nodes = Float[Array, "nodes classes"]
PerLogit = Float[Array, "n 1"]

_NUM_HALVES = 512  # points of a sequence, of which each has a mirror image
_REACH = (1.0, 2.0, 4.0, 8.0, 16.0, 38.0)  # beyond, a standard normal density is 0 in float64
_DROP = 40.0  # nats below its maximum, where a log-concave density is left off


class Expectations(NamedTuple):
    """E log p(yᵢ | f), E r(f) and E W(f) over N(mᵢ, Sᵢ) of each point."""

    log_density: Float[Array, " n"]
    residual: Logits
    curvature: Covariances


@eqx.filter_jit
def log_marginal_density(
    likelihood: Likelihood, targets: Logits, mean: Logits, covariance: Covariances
) -> Float[Array, " n"]:
    """log ∫ p(yᵢ | f) N(f; mᵢ, Sᵢ) df of each point, in nats."""
    if isinstance(likelihood, Normal):
        total = covariance + likelihood.noise_std**2 * jnp.eye(mean.shape[1])[None]
        return jnp.asarray(
            jax.vmap(jax.scipy.stats.multivariate_normal.logpdf)(targets, mean, total)
        )
    if mean.shape[1] == 1:
        log_mass, _, _ = tilted(likelihood, targets, mean, covariance[:, :, 0])
        return log_mass[:, 0]
    root = symmetric_roots(covariance)

    def at(node: Float[Array, " classes"]) -> Float[Array, " n"]:
        return likelihood.log_density(targets, mean + jnp.einsum("icd,d->ic", root, node))

    points = nodes(mean.shape[1])
    log_values = jax.lax.map(at, points)
    return jnp.asarray(jax.scipy.special.logsumexp(log_values, axis=0) - np.log(len(points)))


def log_marginal_probabilities(
    likelihood: ClassLikelihood, mean: Logits, covariance: Covariances
) -> Float[Array, "n labels"]:
    """log ∫ p(c | f) N(f; mᵢ, Sᵢ) df of each class c at each point, in nats."""
    if mean.shape[1] > 1:
        return jnp.asarray(_averaged(likelihood, mean, covariance))
    classes = jnp.eye(likelihood.log_probabilities(mean).shape[1])
    ones = [jnp.broadcast_to(one, (len(mean), len(one))) for one in classes]
    encoded = [likelihood.encode_classes(one) for one in ones]
    columns = [log_marginal_density(likelihood, y, mean, covariance) for y in encoded]
    return jnp.stack(columns, axis=1)


@eqx.filter_jit
def _averaged(
    likelihood: ClassLikelihood, mean: Logits, covariance: Covariances
) -> Float[Array, "n labels"]:
    """The same over the nodes, which all classes share."""
    root = symmetric_roots(covariance)

    def add(total: Array, node: Float[Array, " classes"]) -> tuple[Array, None]:
        logits = mean + jnp.einsum("icd,d->ic", root, node)
        return jnp.logaddexp(total, likelihood.log_probabilities(logits)), None

    points = nodes(mean.shape[1])
    start = jnp.full_like(likelihood.log_probabilities(mean), -jnp.inf)
    return jax.lax.scan(add, start, points)[0] - np.log(len(points))


def expectations(
    likelihood: Likelihood, targets: Logits, mean: Logits, covariance: Covariances
) -> Expectations:
    """To round-off for one logit; with 1024 fixed `nodes` for several.

    Of one logit they are NaN where the likelihood grows so fast that the Gaussian's 38 standard
    deviations do not hold the integral. A Poisson likelihood's are known in closed form.
    """
    if isinstance(likelihood, Tempered):
        whole = expectations(likelihood.untempered, targets, mean, covariance)
        return jax.tree.map(lambda part: part / likelihood.temperature, whole)
    if mean.shape[1] == 1:
        if isinstance(likelihood, Poisson):
            return _of_counts(likelihood, targets, mean, covariance)
        return _of_one_logit(likelihood, targets, mean, covariance)
    root = symmetric_roots(covariance)

    def add(sums: Expectations, node: Float[Array, " classes"]) -> tuple[Expectations, None]:
        f = mean + jnp.einsum("icd,d->ic", root, node)
        terms = Expectations(
            likelihood.log_density(targets, f),
            likelihood.residual(targets, f),
            likelihood.curvature(targets, f).blocks,
        )
        return jax.tree.map(jnp.add, sums, terms), None

    zeros = Expectations(jnp.zeros(len(mean)), jnp.zeros_like(mean), jnp.zeros_like(root))
    points = nodes(mean.shape[1])
    sums, _ = jax.lax.scan(add, zeros, points)
    return jax.tree.map(lambda total: total / len(points), sums)


def nodes(num_outputs: int, seed: int = 0) -> Nodes:
    """Points whose mean stands for an expectation over N(0, I) of several logits: 512 of a scrambled
    Sobol sequence and their mirror images, the same for the same seed. Those of seed 0 are scaled to
    unit covariance; means over all others are unbiased."""
    from scipy.stats import norm, qmc  # takes longer to import than JAX

    half = norm.ppf(qmc.Sobol(num_outputs, rng=seed).random(_NUM_HALVES))
    points = np.concatenate([half, -half])
    if seed == 0:
        points = points @ np.linalg.inv(np.linalg.cholesky(points.T @ points / len(points))).T
    return jnp.asarray(points)


def tilted(
    likelihood: Likelihood, targets: Logits, centre: PerLogit, spread: PerLogit
) -> tuple[PerLogit, PerLogit, PerLogit]:
    """log mass, mean and variance of N(f; centre, spread) p(y | f), point by point, to round-off.

    By `integrate`, to both sides of the maximum, as far as the density has fallen by 40 nats.
    """

    def log_density(f: PerLogit) -> PerLogit:
        return likelihood.log_density(targets, f)[:, None] - (f - centre) ** 2 / (2 * spread)

    def rises(f: PerLogit) -> Array:
        return likelihood.residual(targets, f) > (f - centre) / spread

    # The slope falls from r(centre) at the centre, so the maximum lies within spread · r of it.
    reach = centre + jnp.clip(spread * likelihood.residual(targets, centre), -1e15, 1e15)
    mode = _bisected(rises, jnp.minimum(centre, reach), jnp.maximum(centre, reach))
    top = log_density(mode)
    far = jnp.sqrt(2 * _DROP * spread)  # where the Gaussian alone has fallen so far
    low = _bisected(lambda f: log_density(f) < top - _DROP, mode - far, mode)
    high = _bisected(lambda f: log_density(f) > top - _DROP, mode, mode + far)
    parts = np.linspace(0.0, 1.0, 5)[:, None]
    left = low[None, :, 0] * (1 - parts) + mode[None, :, 0] * parts
    right = mode[None, :, 0] * (1 - parts) + high[None, :, 0] * parts
    unit = high - low

    def moments(f: Float[Array, " n"]) -> Float[Array, "3 n"]:
        away = (f[:, None] - mode) / unit
        density = jnp.exp(log_density(f[:, None]) - top)
        return jnp.stack([density, density * away, density * away**2])[:, :, 0]

    mass, first, second = integrate(moments, jnp.concatenate([left, right[1:]]))[:, :, None]
    shift = first / mass
    log_mass = jnp.log(mass) + top - jnp.log(2 * jnp.pi * spread) / 2
    return log_mass, mode + unit * shift, unit**2 * (second / mass - shift**2)


def _bisected(is_below: Callable[[PerLogit], Array], low: PerLogit, high: PerLogit) -> PerLogit:
    """Where a condition that holds to the left of some place, and not to its right, ends."""

    def halve(bracket: tuple[PerLogit, PerLogit], _: None) -> tuple[tuple, None]:
        low, high = bracket
        middle = (low + high) / 2
        holds = is_below(middle)
        return (jnp.where(holds, middle, low), jnp.where(holds, high, middle)), None

    (low, high), _ = jax.lax.scan(halve, (low, high), length=100)
    return (low + high) / 2


def _of_one_logit(
    likelihood: Likelihood, targets: Logits, mean: Logits, covariance: Covariances
) -> Expectations:
    deviation = jnp.sqrt(covariance[:, 0, 0])

    def weighted(z: Float[Array, " n"]) -> Float[Array, "3 n"]:
        f = mean + (deviation * z)[:, None]
        values = (
            likelihood.log_density(targets, f),
            likelihood.residual(targets, f)[:, 0],
            likelihood.curvature(targets, f).matrix_diagonal[:, 0],
        )
        return jnp.stack(values) * (jnp.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))[None]

    reach = np.asarray(_REACH)
    edges = jnp.asarray(np.concatenate([-reach[::-1], [0.0], reach]))
    edges = jnp.broadcast_to(edges[:, None], (len(edges), len(mean)))
    integrals = integrate(weighted, edges)
    ends = jnp.stack([jnp.abs(weighted(edges[side])) for side in (0, -1)])
    is_held = jnp.max(ends, axis=(0, 1)) <= 1e-12 * jnp.max(jnp.abs(integrals), axis=0)
    log_density, residual, curvature = jnp.where(is_held[None], integrals, jnp.nan)
    return Expectations(log_density, residual[:, None], curvature[:, None, None])


def _of_counts(
    likelihood: Poisson, targets: Logits, mean: Logits, covariance: Covariances
) -> Expectations:
    """As E exp(f) = exp(m + S/2), which is log p's only part that is not linear."""
    half = covariance[:, 0, :] / 2
    return Expectations(
        likelihood.log_density(targets, mean + half) - (targets * half)[:, 0],
        likelihood.residual(targets, mean + half),
        likelihood.curvature(targets, mean + half).matrix_diagonal[:, :, None],
    )
