"""Posteriors of the latent function and its hyperparameters together, by their draws."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from ntkbayes.arguments import random_key
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.chains.mixing import judged
from ntkbayes.laws.chains.sampler import standard_log_density
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import (
    Inputs,
    Law,
    Moments,
    drawn_in_words,
    evenly_spaced,
    joint_scatter,
    total_moments,
)
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.trace import Trace
from ntkbayes.linalg import Draws, Logits, output_blocks, white_noise
from ntkbayes.priors.hyperparameters import with_values
from ntkbayes.priors.prior import NTKPrior

_JITTER = 1e-9  # of the mean prior variance: a sampler cannot try one after another
_FEW = 4  # numbers: derivatives forwards cost as much as a value each, backwards as some six in all


HIERARCHICAL_POSTERIOR = Kind(
    "hierarchical posterior",
    Sampling.CHAINS,
    "the exact posterior in which hyperparameters have priors, so that each draw "
    "has its own kernel, by Markov chains: exact up to Monte Carlo error.",
    is_posterior=True,
)


LATENT_FUNCTION = Kind(
    "latent function of a larger model",
    Sampling.CHAINS,
    "the GP with prior GP(m, Θ/ridge) within a larger probabilistic model, given all that was observed "
    "there, by Markov chains: exact up to Monte Carlo error. What else that model adds to the logits is "
    "not part of it.",
)


HIERARCHICAL_PRIOR = Kind(
    "hierarchical prior",
    Sampling.GAUSSIAN,
    "the prior GP(m, Θ/ridge) whose hyperparameters are drawn from their own priors, before any target "
    "is seen.",
)


class FullBayesLaw[InfoT: Info](Law[InfoT]):
    """Draws of (hyperparameters, latent function): each is a Gaussian process of its own kernel, and is
    conditioned at new inputs on its own values at X.

    Attributes:
        values: draws of each hyperparameter, (S, ...).
        whitened: z of each draw, (S, n, C).
        log_prior: of those hyperparameters that have a hyper-prior, its log density at each draw.
        prior_values: as many draws of each hyper-prior.
        sample_stats: per draw, see `Trace`.
    """

    values: dict[str, Array]
    whitened: Draws
    log_prior: dict[str, Shaped[Array, " draws"]]
    prior_values: dict[str, Array]
    sample_stats: dict[str, Shaped[Array, " draws"]]

    @property
    def trace(self) -> Trace:
        stats, values, log_prior = (
            {name: np.asarray(value) for name, value in known.items()}
            for known in (self.sample_stats, self.values, self.log_prior)
        )
        return Trace(stats, {**log_prior, "logits": standard_log_density(self.whitened)}, values)

    def before_data(self, key: PRNGKeyArray, num_draws: int | None = None) -> "FullBayesLaw":
        """The prior: hyperparameters from their hyper-priors, and whitened logits from N(0, I).

        Raises:
            ConfigurationError: some hyperparameters were drawn by a model around this one, so that
                their prior is not known; or more draws are asked for than the law holds.
        """
        if others := sorted(self.values.keys() - self.prior_values.keys()):
            raise ConfigurationError(
                f"the prior of {others[0]} belongs to the model around this one; draw it there, by "
                "numpyro.infer.Predictive"
            )
        chosen = self._chosen(num_draws)
        values = {name: draws[chosen] for name, draws in self.prior_values.items()}
        whitened = white_noise(key, self.whitened[chosen].shape)
        return FullBayesLaw(
            self.problem, HIERARCHICAL_PRIOR, Info(), values, whitened, {}, values, {}
        )

    @property
    def _draws_in_words(self) -> str:
        return drawn_in_words(self.kind, np.shape(self.whitened)[0], self.num_chains)

    def sample(
        self, key: PRNGKeyArray, features: Inputs, num_draws: int | None = None
    ) -> Float[Array, "draws m classes"]:
        key, chosen = random_key(key), self._chosen(num_draws)
        inputs = self.problem.read(features)
        values = {name: draws[chosen] for name, draws in self.values.items()}
        noise = white_noise(key, (len(chosen), len(inputs), self.problem.num_outputs))
        return _joint(self.problem, values, self.whitened[chosen], inputs, noise)

    def sample_marginals(
        self, key: PRNGKeyArray, features: Inputs, num_draws: int | None = None
    ) -> Float[Array, "draws m classes"]:
        key, chosen = random_key(key), self._chosen(num_draws)
        means, left = (part[chosen] for part in self._given(features))
        noise = white_noise(key, (len(chosen), 1, self.problem.num_outputs))
        return means + jnp.sqrt(left)[:, :, None] * noise

    def mean(self, features: Inputs) -> Float[Array, "m classes"]:
        return self.moments(features).mean

    def covariance(self, features: Inputs) -> Float[Array, "m classes classes"]:
        return self.moments(features).covariance

    def moments(self, features: Inputs) -> Moments:
        means, left = self._given(features)
        blocks = output_blocks(jnp.mean(left, axis=0), self.problem.num_outputs)
        return total_moments(means, blocks)

    def joint_covariance(self, features: Inputs) -> Float[Array, "rows rows"]:
        inputs = self.problem.read(features)
        means, left = _jointly_given(self.problem, self.values, self.whitened, inputs)
        return joint_scatter(means) + jnp.kron(left, jnp.eye(self.problem.num_outputs))

    def _chosen(self, num_draws: int | None) -> Int[Array, " chosen"]:
        held = len(self.whitened)
        return evenly_spaced(held if num_draws is None else num_draws, held)

    def _given(
        self, features: Inputs
    ) -> tuple[Float[Array, "draws m classes"], Float[Array, "draws m"]]:
        inputs = self.problem.read(features)
        return _marginals(self.problem, self.values, self.whitened, inputs)


@eqx.filter_jit
def _marginals(
    problem: Problem, values: dict[str, Array], whitened: Draws, inputs: Array
) -> tuple[Float[Array, "draws m classes"], Float[Array, "draws m"]]:
    """Mean of each draw at the inputs, and the variance left to it."""

    def one(draw: tuple) -> tuple[Logits, Float[Array, " m"]]:
        prior, projection = _projected(problem, draw[0], inputs)
        mean = prior.mean_logits(inputs, whitened.shape[2]) + projection.T @ draw[1]
        variance = prior.diagonal(inputs).ntk / prior.ridge
        return mean, jnp.maximum(variance - jnp.sum(projection**2, axis=0), 0.0)  # round-off

    return jax.lax.map(one, (values, whitened))


@eqx.filter_jit
def _jointly_given(
    problem: Problem, values: dict[str, Array], whitened: Draws, inputs: Array
) -> tuple[Float[Array, "draws m classes"], Float[Array, "m m"]]:
    """Mean of each draw at the inputs, and the mean over draws of the covariance left to them."""

    def add(total: Array, draw: tuple) -> tuple[Array, Logits]:
        mean, left, _ = _conditioned(problem, draw, inputs)
        return total + left / len(whitened), mean

    zero = jnp.zeros((len(inputs), len(inputs)))
    left, means = jax.lax.scan(add, zero, (values, whitened))
    return means, left


@eqx.filter_jit
def _joint(
    problem: Problem,
    values: dict[str, Array],
    whitened: Draws,
    inputs: Array,
    noise: Float[Array, "draws m classes"],
) -> Float[Array, "draws m classes"]:
    """Each draw jointly at the inputs, for white noise there."""

    def one(draw: tuple) -> Logits:
        values, whitened, noise = draw
        mean, left, variance = _conditioned(problem, (values, whitened), inputs)
        jitter = 2 * _JITTER * variance
        root = jnp.linalg.cholesky(left + jitter * jnp.eye(len(left)))
        return mean + root @ noise

    return jax.lax.map(one, (values, whitened, noise))


def _conditioned(
    problem: Problem, draw: tuple, inputs: Array
) -> tuple[Logits, Float[Array, "m m"], Float[Array, ""]]:
    """Mean and covariance of one draw at the inputs, given its values at X (R&W 2.19), and its mean
    prior variance there."""
    values, whitened = draw
    prior, projection = _projected(problem, values, inputs)
    mean = prior.mean_logits(inputs, whitened.shape[1]) + projection.T @ whitened
    gram = prior.gram(inputs).ntk.dense() / prior.ridge
    left = gram - projection.T @ projection
    return mean, (left + left.T) / 2, jnp.mean(jnp.diagonal(gram))


def _projected(
    problem: Problem, values: dict[str, Array], inputs: Array
) -> tuple[NTKPrior, Float[Array, "n m"]]:
    """A draw's prior, and L⁻¹ P(X, x)."""
    prior = with_values(problem.prior, values)
    lower = factor(prior, problem.features)
    cross = prior.cross(problem.features, inputs).ntk.dense() / prior.ridge
    return prior, jax.scipy.linalg.solve_triangular(lower, cross, lower=True)


def factor(prior: NTKPrior, features: Array) -> Float[Array, "n n"]:
    """L with L Lᵀ = Θ/ridge + jitter."""
    gram = prior.gram(features).ntk.dense() / prior.ridge
    jitter = _JITTER * jnp.mean(jnp.diagonal(gram))
    return jnp.linalg.cholesky(gram + jitter * jnp.eye(len(gram)))


def factor_at(problem: Problem, values: Mapping[str, Any]) -> Float[Array, "n n"]:
    """`factor` at values of the hyper-parameters, to be differentiated in them: forwards where numbers
    are few, which for some dozens of points takes a third of the time of going back through the kernel's
    recursion and the factorisation."""
    numbers = {name: jnp.asarray(value) for name, value in values.items() if name != "mean"}
    position, unravel = ravel_pytree(numbers)

    def at(position: Float[Array, " numbers"]) -> Float[Array, "n n"]:
        return factor(with_values(problem.prior, unravel(position)), problem.features)

    return (_forwards(at) if 0 < position.size <= _FEW else at)(position)


def _forwards(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The same function of a vector, with the Jacobian found forwards, whichever way is asked for."""
    same = jax.custom_jvp(function)

    @same.defjvp
    def slopes(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (position,), (tangent,) = primals, tangents

        def along(direction: Array) -> tuple[Array, Array]:
            return jax.jvp(function, (position,), (direction,))

        value, jacobian = jax.vmap(along, out_axes=(None, 0))(jnp.eye(position.size))
        return value, jnp.tensordot(tangent, jacobian, axes=1)

    return same


def hyperprior_of(
    hyperpriors: Mapping[str, Any], values: Mapping[str, Array], key: PRNGKeyArray
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Log densities of hyper-priors at draws of hyperparameters, and as many draws of their own."""
    log_prior, drawn = {}, {}
    for i, (name, law) in enumerate(hyperpriors.items()):
        keys = jax.random.split(jax.random.fold_in(key, i), len(values[name]))
        log_prior[name] = jax.vmap(lambda v, law=law: jnp.sum(law.log_prob(v)))(values[name])
        drawn[name] = jax.vmap(law.sample)(keys)
    return log_prior, drawn


def judged_draws(seen: Mapping[str, Array], *, num_divergences: int) -> dict[str, float]:
    """The fields of `MixingInfo`, for draws (chains, samples, ...)."""
    return judged(
        seen.values(),
        num_divergences=num_divergences,
        remedy="Use more num_warmup and num_samples, a higher target_accept, or narrower hyper-priors",
        stacklevel=4,
    )
