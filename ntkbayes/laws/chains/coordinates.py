"""Coordinates in which latent function and hyper-parameters are sampled together.

Whitened logits z, f(X) = mean + L z, are independent of the hyper-parameters θ before the data. After
them they are not: where the likelihood knows f, z has to follow L(θ), and a sampler pays with steps as
short as the narrowest logit and trajectories as long as the widest. So the likelihood is replaced, for
the coordinates alone, by one Gaussian site per point, found at one θ (Murray & Adams 2010). With the
sites' weights w and pulls ν, and A = I + Lᵀ diag(w) L = R Rᵀ,

    z = R⁻ᵀ (R⁻¹ Lᵀ (ν − w mean) + ξ)

has, for every θ, the sites' posterior if ξ is white, at the cost of one more Cholesky factor. The target
stays exact: the density of z is divided out of the model's.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.infer.reparam import Reparam

from ntkbayes.errors import ConvergenceError, NotPositiveDefiniteError
from ntkbayes.laws.chains.hierarchical import factor
from ntkbayes.laws.chains.sampler import seen_directions, shared_weights
from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import Gram, Logits, Square, white_noise
from ntkbayes.priors.hyperparameters import with_values
from ntkbayes.training.linearised import train
from ntkbayes.training.objective import Objective

Values = dict[str, Array]


class WhiteNoise(dist.Distribution):
    """N(0, I) over whitened logits z, (n, C), which knows the logits mean + L z that they stand for."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    pytree_data_fields = ("lower", "mean_logits")

    def __init__(self, lower: Square, mean_logits: Logits, *, validate_args: bool | None = None):
        self.lower, self.mean_logits = lower, mean_logits
        super().__init__(event_shape=mean_logits.shape, validate_args=validate_args)

    def sample(self, key: PRNGKeyArray | None, sample_shape: tuple[int, ...] = ()) -> Array:
        assert key is not None
        return white_noise(key, (*sample_shape, *self.event_shape))

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        return _white(self.event_shape).log_prob(value)


def _white(shape: tuple[int, ...]) -> dist.Distribution:
    return dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape))


@dataclass(frozen=True, eq=False)
class SiteCoordinates(Reparam):
    """z by ξ, for a site with the distribution `WhiteNoise`: the site becomes deterministic, and its
    posterior is nearly standard normal in a site `<name>_position` of the same shape.

    To be given to `numpyro.handlers.reparam`.

    Attributes:
        weights: w, one for all logits of a point, (n,).
        pulls: ν, (n, C).
        basis: of the logits of a point, orthonormal rows: those that the likelihood sees, then the
            others, which keep their prior.
        num_seen: how many it sees.
    """

    weights: Float[Array, " n"]
    pulls: Logits
    basis: Float[Array, "classes classes"]
    num_seen: int

    def __call__(self, name: str, fn: WhiteNoise, obs: Array | None) -> tuple[None, Array]:
        assert obs is None, f"{name} is latent"
        white = _white(fn.event_shape)
        position = numpyro.sample(f"{name}_position", white)
        whitened, log_determinant = self.whitened(position, fn.lower, fn.mean_logits)
        moved = fn.log_prob(whitened) + log_determinant - white.log_prob(position)
        numpyro.factor(f"{name}_density", moved)
        return None, whitened

    def whitened(
        self, position: Logits, lower: Square, mean: Logits
    ) -> tuple[Logits, Float[Array, ""]]:
        """z, and log |∂z/∂ξ|."""
        seen, unseen = self.basis[: self.num_seen], position[:, self.num_seen :]
        pull = (self.pulls - self.weights[:, None] * mean) @ seen.T
        precision = jnp.eye(len(lower)) + lower.T @ (self.weights[:, None] * lower)
        root = jnp.linalg.cholesky(precision)
        centre = solve_triangular(root, lower.T @ pull, lower=True)
        moved = solve_triangular(root, centre + position[:, : self.num_seen], lower=True, trans=1)
        log_determinant = -self.num_seen * jnp.sum(jnp.log(jnp.diagonal(root)))
        return jnp.concatenate([moved, unseen], axis=1) @ self.basis, log_determinant


@dataclass(frozen=True, eq=False)
class Start:
    """Hyper-parameters, the coordinates with the sites found there, and the log density of both at
    ξ = 0, up to a constant: hyper-prior times Laplace's evidence.

    Attributes:
        positions: the hyper-parameters without their constraints, as samplers move them.
    """

    values: Values
    positions: Values
    coordinates: SiteCoordinates
    log_density: float


_NUM_CANDIDATES = 16
_STEP = 0.01  # of finite differences; unconstrained positions of positive numbers are logarithms


def starts(problem: Problem, hyperpriors: Mapping[str, Any]) -> list[Start]:
    """Some draws of the hyper-priors as places to start, the best first; without hyper-priors the
    problem's own values.

    Raises:
        ConvergenceError: the posterior density is finite at none of them.
    """
    found: list[Start] = []
    failures: list[Exception] = []
    for values, positions, log_prior in _candidates(hyperpriors):
        try:
            found.append(_start(problem, values, positions, log_prior))
        except (ConvergenceError, NotPositiveDefiniteError) as error:
            failures.append(error)
    if not found:
        raise ConvergenceError(
            "no draw of the hyper-priors has a finite posterior density, from which chains could "
            f"start ({failures[0]}); use hyper-priors that are narrower, or centred on other values"
        ) from failures[0]
    return sorted(found, key=lambda start: -start.log_density)


def _candidates(hyperpriors: Mapping[str, Any]) -> Iterator[tuple[Values, Values, float]]:
    """Draws of the hyper-priors, the same without constraints, and their log densities."""
    if not hyperpriors:
        yield {}, {}, 0.0
        return

    @jax.jit
    @jax.vmap
    def drawn(key: PRNGKeyArray) -> tuple[Values, Values, Array]:
        values = {
            name: law.sample(jax.random.fold_in(key, i))
            for i, (name, law) in enumerate(hyperpriors.items())
        }
        positions = {
            name: dist.biject_to(law.support).inv(values[name]) for name, law in hyperpriors.items()
        }
        densities = [jnp.sum(law.log_prob(values[name])) for name, law in hyperpriors.items()]
        return values, positions, sum(densities, start=jnp.zeros(()))

    found = drawn(jax.random.split(jax.random.key(0), _NUM_CANDIDATES))
    values, positions, log_priors = jax.tree.map(np.asarray, found)
    for i in range(_NUM_CANDIDATES):
        one = jax.tree.map(lambda draws, i=i: jnp.asarray(draws[i]), (values, positions))
        yield *one, log_priors[i].item()


def _start(problem: Problem, values: Values, positions: Values, log_prior: float) -> Start:
    likelihood, targets = problem.likelihood, problem.targets
    mean, ntk, ridge = _prior_at(problem, values)
    mode = train(Objective(likelihood, ntk, targets, ridge), mean)
    basis, num_seen = seen_directions(likelihood, problem.num_outputs)
    sites = (*_sites(problem, ridge, num_seen, mode.alpha, mode.logits), basis, num_seen)
    log_density = float(_density(problem, values, *sites)) + log_prior
    if not math.isfinite(log_density):
        raise ConvergenceError(f"it is {log_density:.3g} at {values}")
    return Start(values, positions, SiteCoordinates(*sites), log_density)


def spread(
    problem: Problem, hyperpriors: Mapping[str, Any], starts: list[Start]
) -> Float[np.ndarray, "numbers numbers"]:
    """The covariance, about, of the unconstrained hyper-parameters in the posterior: the inverse of the
    log density's curvature at the first of the starts, by finite differences at ξ = 0, along its axes at
    most twice as wide as the starts, which are draws of the hyper-priors."""
    best = starts[0].coordinates
    sites = (best.weights, best.pulls, best.basis, best.num_seen)
    _, unravel = ravel_pytree(tuple(starts[0].positions.values()))
    found = np.stack([ravel_pytree(tuple(start.positions.values()))[0] for start in starts])
    scale = found.std(axis=0) if len(found) > 2 else np.ones(found.shape[1])

    @jax.jit
    def constrained(position: Float[Array, " numbers"]) -> tuple[Values, Float[Array, ""]]:
        values, log_prior = {}, jnp.zeros(())
        for (name, law), free in zip(hyperpriors.items(), unravel(position), strict=True):
            to_support = dist.biject_to(law.support)
            values[name] = to_support(free)
            log_prior += jnp.sum(law.log_prob(values[name]))
            log_prior += jnp.sum(to_support.log_abs_det_jacobian(free, values[name]))
        return values, log_prior

    def log_density(moved: Float[np.ndarray, " numbers"]) -> float:
        values, log_prior = constrained(jnp.asarray(found[0] + _STEP * scale * moved))
        return float(_density(problem, values, *sites) + log_prior)

    axes = np.eye(len(scale))
    precision = np.zeros_like(axes)
    for i, j in combinations_with_replacement(range(len(axes)), 2):
        both, apart = axes[i] + axes[j], axes[i] - axes[j]
        along = log_density(both) + log_density(-both)
        across = log_density(apart) + log_density(-apart)
        precision[i, j] = precision[j, i] = (across - along) / (2 * _STEP) ** 2
    # Where the density is not finite so near, nothing is known but the hyper-priors.
    values, vectors = np.linalg.eigh(np.nan_to_num(precision, nan=0.0, posinf=0.0, neginf=0.0))
    root = scale[:, None] * vectors / np.sqrt(np.maximum(values, 0.25))
    return root @ root.T


@eqx.filter_jit
def _prior_at(problem: Problem, values: Values) -> tuple[Logits, Gram, Float[Array, ""]]:
    """Mean, Θ and ridge at values of the hyper-parameters."""
    prior = with_values(problem.prior, values)
    mean = prior.mean_logits(problem.features, problem.num_outputs)
    ntk = prior.gram(problem.features).ntk if values else problem.gram.ntk
    return mean, ntk, jnp.asarray(prior.ridge)


@eqx.filter_jit
def _sites(
    problem: Problem, ridge: Float[Array, ""], num_seen: int, alpha: Logits, logits: Logits
) -> tuple[Float[Array, " n"], Logits]:
    """Weights and pulls of the sites at a mode."""
    weights = shared_weights(problem.likelihood.curvature(problem.targets, logits), num_seen)
    return weights, ridge * alpha + weights[:, None] * logits


@eqx.filter_jit
def _density(
    problem: Problem,
    values: Values,
    weights: Float[Array, " n"],
    pulls: Logits,
    basis: Float[Array, "classes classes"],
    num_seen: int,
) -> Float[Array, ""]:
    """The log density at ξ = 0, but for the hyper-priors and a constant."""
    prior = with_values(problem.prior, values)
    mean = prior.mean_logits(problem.features, problem.num_outputs)
    lower = factor(prior, problem.features)
    coordinates = SiteCoordinates(weights, pulls, basis, num_seen)
    whitened, log_determinant = coordinates.whitened(jnp.zeros_like(mean), lower, mean)
    density = jnp.sum(problem.likelihood.log_density(problem.targets, mean + lower @ whitened))
    return density - jnp.sum(whitened**2) / 2 + log_determinant
