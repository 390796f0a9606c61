"""Step sizes for which gradient descent is stable."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ntkbayes.errors import ConfigurationError
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import gram_of, largest, white_noise
from ntkbayes.networks import Network, Params
from ntkbayes.networks.programs import channels_last
from ntkbayes.training.linearised import train
from ntkbayes.training.networks.state import Features, Offset, Targets, logits_of
from ntkbayes.training.objective import Objective


def largest_eigenvalue(
    network: Network, params: Params, features: Features, *, num_products: int = 40
) -> float:
    """λ_max of the NTK at the points, maximised over networks, by power iteration with J Jᵀ.

    A lower bound, mostly accurate to a few parts in a thousand.

    Args:
        network: the network.
        params: of K networks, stacked.
        features: of the points, (n, d).
        num_products: with J Jᵀ, per network.
    """
    return float(largest(_power_iteration(network, params, features, num_products)))


@eqx.filter_jit
def _power_iteration(
    network: Network, params: Params, features: Features, num_products: int
) -> Float[Array, " networks"]:
    def member(params: Params) -> Float[Array, ""]:
        logits, push = jax.linearize(lambda p: network.apply(p, features), params)
        pull = jax.linear_transpose(push, params)
        start = white_noise(jax.random.key(0), logits.shape, logits.dtype)

        @channels_last
        def moved_by(v: Float[Array, "n classes"]) -> Float[Array, "n classes"]:
            return push(pull(v)[0])

        def product(_: Int[Array, ""], carry: tuple) -> tuple:
            v, _ = carry
            moved = moved_by(v / jnp.linalg.norm(v))
            return moved, jnp.linalg.norm(moved)

        zero = jnp.zeros((), logits.dtype)
        return jax.lax.fori_loop(0, num_products, product, (start, zero))[1]

    return jax.lax.map(member, params)


def stable_step_size(
    network: Network,
    params: Params,
    features: Features,
    likelihood: Likelihood,
    ridge: float,
    *,
    targets: Targets | None = None,
    offset: Offset | float = 0.0,
) -> float:
    """η = 1 / (κ λ_max + ridge), half the largest stable step of gradient descent.

    κ bounds the likelihood's curvature, and λ_max is the largest eigenvalue of the NTK at the points
    over all networks. In the lazy regime the Hessian of the loss is at most κ λ_max + ridge, and
    gradient descent is stable for steps below 2 / (κ λ_max + ridge). Half of that lets the NTK grow.

    Args:
        network: the network.
        params: of K networks, stacked.
        features: of the training points, (n, d).
        likelihood: p(y | f).
        ridge: of the loss.
        targets: as the likelihood encodes them; needed only where its curvature has no bound (Poisson,
            some of `LogConcave`). Then κ is that along training, see `curvature_met`.
        offset: added to the logits.

    Raises:
        ConfigurationError: the curvature has no bound, and there are no targets.
    """
    return 1 / fastest_rate(
        network, params, features, likelihood, ridge, targets=targets, offset=offset
    )


def fastest_rate(
    network: Network,
    params: Params,
    features: Features,
    likelihood: Likelihood,
    ridge: float,
    *,
    targets: Targets | None = None,
    offset: Offset | float = 0.0,
) -> float:
    """κ λ_max + ridge, a bound on the Hessian of the loss in the lazy regime; see `stable_step_size`."""
    bound = float(likelihood.curvature_bound)
    if math.isinf(bound):
        if targets is None:
            raise ConfigurationError(
                f"the curvature of {type(likelihood).__name__} has no bound, so a stable step size "
                "depends on the targets: give targets=, or choose a step, Trainer(..., step_size=1e-3)"
            )
        bound = curvature_met(likelihood, targets, logits_of(network, params, features) + offset)
    return bound * largest_eigenvalue(network, params, features) + ridge


def curvature_met(
    likelihood: Likelihood, targets: Targets, initial: Float[Array, "networks n classes"]
) -> float:
    """Twice the largest curvature at the two ends of training, for a likelihood without a bound.

    The ends are the initial logits, and those to which each point by itself would be trained with a
    weak ridge: near the logits of zero residual where these are finite.
    """
    initial, targets = initial.astype(jnp.float64), targets.astype(jnp.float64)
    alone = gram_of(_ALONE * jnp.eye(len(targets)), len(targets))
    trained = train(Objective(likelihood, alone, targets, 1.0), jnp.mean(initial, axis=0))
    ends = jnp.concatenate([initial, trained.logits[None]])
    curvatures = jax.vmap(lambda f: likelihood.curvature(targets, f).matrix_diagonal)(ends)
    return 2 * float(jnp.max(jnp.sum(curvatures, axis=-1)))  # a trace bounds its eigenvalues


_ALONE = 100.0  # Θ/ridge of a point by itself
