"""Expectations over one point's Gaussian logits N(m, S): by quadrature for one logit, by a fixed
low-discrepancy sequence for several."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.likelihood import ClassLikelihood, Likelihood, Normal
from ntkbayes.linalg import Logits, symmetric_roots

Covariances = Float[Array, "n classes classes"]
Nodes = Float[Array, "nodes classes"]
PerPoint = Float[Array, "n 1"]


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

    points, weights = nodes(mean.shape[1])
    return jnp.asarray(
        jax.scipy.special.logsumexp(jax.lax.map(at, points), axis=0, b=weights[:, None])
    )


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

    def add(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
        point, weight = node
        logits = mean + jnp.einsum("icd,d->ic", root, point)
        return jnp.logaddexp(total, jnp.log(weight) + likelihood.log_probabilities(logits)), None

    start = jnp.full_like(likelihood.log_probabilities(mean), -jnp.inf)
    return jax.lax.scan(add, start, nodes(mean.shape[1]))[0]


def nodes(num_outputs: int) -> tuple[Nodes, Float[Array, " nodes"]]:
    """Points and weights for expectations over N(0, I).

    One output: the trapezoidal rule over ±9, which beats Gauss' for the logistic function (see
    `predictive.quadrature`). Several: 512 points of a scrambled Sobol sequence and their mirror
    images, always the same, scaled to unit covariance.
    """
    if num_outputs == 1:
        points = np.linspace(-9.0, 9.0, 200)
        weights = np.exp(-(points**2) / 2)
        return jnp.asarray(points[:, None]), jnp.asarray(weights / weights.sum())
    from scipy.stats import norm, qmc

    half = norm.ppf(qmc.Sobol(num_outputs, rng=0).random(512))
    points = np.concatenate([half, -half])
    points = points @ np.linalg.inv(np.linalg.cholesky(points.T @ points / len(points))).T
    return jnp.asarray(points), jnp.full(len(points), 1 / len(points))


def tilted(
    likelihood: Likelihood, targets: Logits, centre: PerPoint, spread: PerPoint
) -> tuple[PerPoint, PerPoint, PerPoint]:
    """log mass, mean and variance of N(f; centre, spread) p(y | f), point by point.

    By the trapezoidal rule over 14 of the standard deviations that the curvature at the maximum tells.
    """

    # The slope falls from r(centre) at the centre, so the maximum lies within spread · r of it.
    reach = centre + spread * likelihood.residual(targets, centre)

    def halve(bracket: tuple[PerPoint, PerPoint], _: None) -> tuple[tuple, None]:
        low, high = bracket
        middle = (low + high) / 2
        rises = likelihood.residual(targets, middle) > (middle - centre) / spread
        return (jnp.where(rises, middle, low), jnp.where(rises, high, middle)), None

    bracket = jnp.minimum(centre, reach), jnp.maximum(centre, reach)
    (mode, _), _ = jax.lax.scan(halve, bracket, length=60)
    width = 1 / jnp.sqrt(likelihood.curvature(targets, mode).matrix_diagonal + 1 / spread)
    nodes = jnp.asarray(np.linspace(-14.0, 14.0, 400))
    points = mode[None] + nodes[:, None, None] * width[None]
    density = jax.vmap(lambda f: likelihood.log_density(targets, f))(points)[:, :, None]
    log_terms = density - (points - centre[None]) ** 2 / (2 * spread)[None]
    log_mass = jax.scipy.special.logsumexp(log_terms, axis=0)
    terms = jnp.exp(log_terms - log_mass[None])
    mean = jnp.sum(terms * points, axis=0)
    variance = jnp.sum(terms * (points - mean[None]) ** 2, axis=0)
    unit = jnp.log(width * (nodes[1] - nodes[0])) - jnp.log(2 * jnp.pi * spread) / 2
    return log_mass + unit, mean, variance
