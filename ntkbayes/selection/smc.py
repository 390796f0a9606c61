"""The evidence by tempered sequential Monte Carlo, with its error: where a Gaussian is far from the
posterior, it is still a place to start.

Particles are drawn from a Gaussian q and follow the path

    π_t ∝ q w^t,    w = p(y | f) p(f) / q(f),    0 ≤ t ≤ 1                           (Neal 2001)

to the posterior. From one temperature t to the next, t + h, they are weighted by w^h, resampled, and
moved by trajectories that leave π_t invariant (Del Moral, Doucet & Jasra 2006). h is as large as leaves
a share of them effective, and the variance of their weights known. The product of the mean weights is an
estimate of the evidence, at given temperatures unbiased whatever the moves. It is taken in several
populations, which have in common the temperatures and the step size alone: their scatter tells the
error.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.laws import Law
from ntkbayes.laws.chains.reference import LONGEST, Reference, Turn, product, turn
from ntkbayes.laws.gaussian.posterior import SitePosterior
from ntkbayes.laws.law import require_law
from ntkbayes.likelihood.base import require_untempered
from ntkbayes.linalg import Draws, cholesky, white_noise
from ntkbayes.memory import NUMBER, Memory
from ntkbayes.ranges import whole
from ntkbayes.selection.estimate import (
    EvidenceEstimate,
    approximate_evidence,
    known,
    log_mean,
    log_of_mean,
)

_ALIKE = 1e-9  # nats, to which log w may differ by round-off alone: q is the posterior
_KEPT = 0.8  # of the particles are effective after they are weighted
_STALE = (
    0.3  # correlation of log w, before and after the moves at a temperature, that is low enough
)
_MOST_MOVES = 50  # at a temperature
_MOST_TEMPERATURES = 500
_ACCEPTED = 0.8  # share of trajectories that the step size aims at

Populations = Float[np.ndarray, "populations particles"]


def smc_evidence(
    law: Law,
    *,
    key: PRNGKeyArray,
    num_particles: int = 100,
    num_populations: int = 16,
) -> EvidenceEstimate:
    """The log evidence of a prior, with its standard error, from a Gaussian approximation of the
    posterior: right within its error from any of them, and the more accurate the nearer it is.

    It takes a minute for some hundred logits, and factors a matrix of n · C rows.

    Args:
        law: of Laplace, Variational or another Gaussian posterior: where particles begin. MeanField's
            does not know what softmax cannot see, and takes them longer.
        key: same key, same evidence.
        num_particles: of each population.
        num_populations: whose scatter is the error.

    Raises:
        ConvergenceError: the error would be above 0.3 nats, particles hardly move, or the path takes
            too many temperatures.
        ConfigurationError: the law is not a Gaussian posterior, or one of a tempered likelihood, or
            its kernel is known by products alone.
        InsufficientMemoryError: the particles do not fit in memory.
    """
    require_law("smc_evidence(law, key=key)", "law", law)
    num_particles = whole("num_particles", num_particles, at_least=10)
    num_populations = whole("num_populations", num_populations, at_least=4)
    if not isinstance(law, SitePosterior):
        raise ConfigurationError(
            f"particles begin at a Gaussian posterior; this law is of kind {law.kind.name!r}: give "
            "nb.Laplace().fit(prior, data), or nb.Variational()'s"
        )
    log_evidences = evidences(law, random_key(key), num_populations, num_particles)
    return known(
        EvidenceEstimate(*log_of_mean(log_evidences), approximate_evidence(law)),
        f"{num_particles} particles are too few. Use more, or begin at a nearer Gaussian: "
        "nb.Variational()",
    )


def evidences(
    law: SitePosterior, key: PRNGKeyArray, num_populations: int, num_particles: int
) -> Float[np.ndarray, " populations"]:
    """The log evidence by each population. Errors are those of `smc_evidence`."""
    problem = law.problem
    require_untempered("the evidence", problem.likelihood)
    centre = float(law.log_weights(law.logits[None])[0])
    _memory(law, num_populations * num_particles).require()
    reference = _reference(law)
    start_key, key = jax.random.split(key)
    shape = (num_populations, num_particles)
    particles = _started(reference, start_key, num_populations * num_particles)
    # w relative to its value at the Gaussian's mean.
    density = jnp.sum(problem.likelihood.log_density(problem.targets, law.logits))
    log_evidence = np.full(num_populations, centre - float(density))
    spread = _largest_spread(law)
    power, log_step = 0.0, -0.25 * np.log(problem.targets.size)
    for _ in range(_MOST_TEMPERATURES):
        remainders = np.asarray(particles.remainder).reshape(shape)
        following = next_power(-remainders, power, _KEPT)
        if np.ptp(remainders) > _ALIKE:
            following = min(following, power + _longest_step(power, spread))
        log_weights = (power - following) * remainders
        log_evidence += log_mean(log_weights, axis=1)
        if following == 1.0:
            return log_evidence
        power = following
        resample_key, move_key, key = jax.random.split(key, 3)
        particles = _resampled(particles, jnp.asarray(log_weights), resample_key)
        tempered = eqx.tree_at(lambda r: r.power, reference, jnp.asarray(power))
        particles, log_step = _moved(tempered, particles, log_step, move_key)
    raise ConvergenceError(
        f"the path from {law.kind.name} to the posterior has come to temperature {power:.3g} after "
        f"{_MOST_TEMPERATURES} steps: begin at a nearer Gaussian, nb.Variational(), or use a larger "
        "ridge"
    )


def next_power(log_weights: Float[np.ndarray, "..."], power: float, kept: float) -> float:
    """The largest t ≤ 1 to which particles at t = `power`, all of one weight, can go on so that the
    share `kept` of them remains effective.

    Args:
        log_weights: log w of each.

    Raises:
        ConvergenceError: the weights are not finite.
    """
    from scipy.optimize import brentq  # which takes long to import

    if not np.isfinite(log_weights).all():
        raise ConvergenceError(
            "some particles have no finite weight: the posterior is too far from the Gaussian"
        )

    def spare(step: float) -> float:
        return effective_share(step * log_weights) - kept

    if spare(1.0 - power) >= 0:
        return 1.0
    return power + float(brentq(spare, 0.0, 1.0 - power, xtol=1e-12))


def effective_share(log_weights: Float[np.ndarray, "..."]) -> float:
    """(mean w)² / mean w²."""
    return float(np.exp(2 * log_mean(log_weights) - log_mean(2 * log_weights)))


def _largest_spread(law: SitePosterior) -> float:
    """An upper bound on the eigenvalues of P Λ: by how much the prior's variance may exceed q's."""
    weights = jnp.sum(law.curvature.matrix_diagonal, axis=1)
    return law.problem.prior_gram.largest_eigenvalue() * float(jnp.max(weights))


def _longest_step(power: float, spread: float) -> float:
    """After which weights have a finite fourth moment, and so their variance is known. Where the
    likelihood is flat, π_t has the precision P⁻¹ + (1 − t) Λ, and w^h is as large as exp(½ h δᵀ Λ δ)."""
    return (1 - power + 0.5 / spread) / 4 if spread > 0 else math.inf


class _Particles(NamedTuple):
    """δ and Φ(δ), population by population."""

    position: Draws
    remainder: Float[Array, " particles"]


def _memory(law: SitePosterior, num_particles: int) -> Memory:
    num_points, num_outputs = law.problem.targets.shape
    rows = num_points * num_outputs
    parts = {"S and its root": 4.0 * rows**2, "particles": 8.0 * num_particles * rows}
    who = f"the evidence by {num_particles} particles, {num_points} points, {num_outputs} outputs"
    return Memory(who, num_points, {what: NUMBER * count for what, count in parts.items()})


def _reference(law: SitePosterior) -> Reference:
    problem = law.problem
    covariance = law.joint_covariance(problem.features)
    root = cholesky(covariance, what="the posterior's covariance").lower
    gaussian = (law.logits, problem.ridge * law.alpha, law.curvature, root, root @ root.T)
    return Reference(problem.likelihood, problem.targets, *gaussian, jnp.zeros(()))


@eqx.filter_jit
def _started(reference: Reference, key: PRNGKeyArray, count: int) -> _Particles:
    noise = white_noise(key, (count, *reference.logits.shape))
    position = product(reference.roots, noise)
    return _Particles(position, jax.vmap(reference.remainder)(position))


@jax.jit
def _resampled(
    particles: _Particles, log_weights: Float[Array, "populations particles"], key: PRNGKeyArray
) -> _Particles:
    """Each population by itself, systematically: as often as the weights say, to less than one."""
    num_populations, size = log_weights.shape
    sums = jnp.cumsum(jax.nn.softmax(log_weights, axis=1), axis=1)
    shifts = jax.random.uniform(key, (num_populations, 1))
    places = (jnp.arange(size, dtype=sums.dtype)[None] + shifts) / size
    own = jnp.minimum(jax.vmap(jnp.searchsorted)(sums, places), size - 1)  # round-off
    first = size * jnp.arange(num_populations, dtype=own.dtype)
    chosen = (own + first[:, None]).ravel()
    return _Particles(*(part[chosen] for part in particles))


def _moved(
    reference: Reference, particles: _Particles, log_step: float, key: PRNGKeyArray
) -> tuple[_Particles, float]:
    """Moved until log w has little to do with what it was before, and the log of the step size.

    Raises:
        ConvergenceError: it still has after many moves.
    """
    before = np.asarray(particles.remainder)
    for move_key in jax.random.split(key, _MOST_MOVES):
        log_step = min(log_step, math.log(LONGEST))
        turned = _turned(reference, particles, jnp.asarray(math.exp(log_step)), move_key)
        particles = _Particles(turned.position, turned.remainder)
        log_step += float(jnp.mean(turned.accept)) - _ACCEPTED
        correlation = np.corrcoef(before, np.asarray(particles.remainder))[0, 1]
        if abs(correlation) <= _STALE:
            return particles, log_step
    raise ConvergenceError(
        f"the evidence is not known: at temperature {float(reference.power):.3g} particles hardly move, "
        f"by {float(turned.accept.mean()):.2g} of their trajectories. Begin at a nearer Gaussian, "
        "nb.Variational(), or use a larger ridge"
    )


@eqx.filter_jit
def _turned(
    reference: Reference, particles: _Particles, step: Float[Array, ""], key: PRNGKeyArray
) -> Turn:
    return turn(reference, *particles, step, key)
