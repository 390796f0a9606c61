"""Step sizes for which gradient descent is stable."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ntkbayes.errors import ConfigurationError
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import largest
from ntkbayes.networks import Network, Params
from ntkbayes.training.networks.state import Features


def largest_eigenvalue(
    network: Network, params: Params, features: Features, *, num_products: int = 40
) -> float:
    """λ_max of the NTK at the points, maximised over networks, by power iteration with J Jᵀ.

    A lower bound, mostly accurate to a few parts in a thousand.
    """
    return float(largest(_power_iteration(network, params, features, num_products)))


@eqx.filter_jit
def _power_iteration(
    network: Network, params: Params, features: Features, num_products: int
) -> Float[Array, " networks"]:
    def member(params: Params) -> Float[Array, ""]:
        logits, push = jax.linearize(lambda p: network.apply(p, features), params)
        pull = jax.linear_transpose(push, params)
        start = jax.random.normal(jax.random.key(0), logits.shape, logits.dtype)

        def product(_: Int[Array, ""], carry: tuple) -> tuple:
            v, _ = carry
            moved = push(pull(v / jnp.linalg.norm(v))[0])
            return moved, jnp.linalg.norm(moved)

        zero = jnp.zeros((), logits.dtype)
        return jax.lax.fori_loop(0, num_products, product, (start, zero))[1]

    return jax.lax.map(member, params)


def stable_step_size(
    network: Network, params: Params, features: Features, likelihood: Likelihood, ridge: float
) -> float:
    """η = 1 / (κ λ_max + ridge), half the largest stable step of gradient descent.

    κ bounds the likelihood's curvature, and λ_max is the largest eigenvalue of the NTK at the points
    over all networks. In the lazy regime the Hessian of the loss is at most κ λ_max + ridge, and
    gradient descent is stable for steps below 2 / (κ λ_max + ridge). Half of that lets the NTK grow.

    Raises:
        ConfigurationError: the likelihood's curvature is unbounded (Poisson).
    """
    return 1 / fastest_rate(likelihood, largest_eigenvalue(network, params, features), ridge)


def fastest_rate(likelihood: Likelihood, largest: float, ridge: float) -> float:
    """κ λ_max + ridge, a bound on the Hessian of the loss in the lazy regime.

    Raises:
        ConfigurationError: the likelihood's curvature is unbounded (Poisson).
    """
    bound = likelihood.curvature_bound
    if math.isinf(bound):
        raise ConfigurationError(
            f"the curvature of {type(likelihood).__name__} has no bound, so no step size is stable "
            "at all logits: choose one, Trainer(..., step_size=1e-3), and a smaller one if it diverges"
        )
    return float(bound) * largest + ridge
