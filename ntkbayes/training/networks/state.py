"""What training starts from and where it stands."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from ntkbayes.networks import Network, Params

Offset = Float[Array, "networks n classes"]
Features = Float[Array, "n ..."]
Targets = Float[Array, "n classes"]


@runtime_checkable
class Optimizer(Protocol):
    """An optax `GradientTransformation`."""

    init: Callable
    update: Callable


class TrainingState(eqx.Module):
    """Where the training of K networks stands.

    Attributes:
        params: θ of each, stacked.
        anchors: θ0 of each, which the ridge pulls towards.
        offset: what is added to the logits at the training points.
        optimizer: the optimiser's own state, None for plain gradient descent.
        key: of the mini-batches.
        step: steps taken.
    """

    params: Params
    anchors: Params
    offset: Offset
    optimizer: Any
    key: Shaped[Array, "..."]
    step: Int[Array, ""]


@eqx.filter_jit
def logits_of(
    network: Network, params: Params, features: Features
) -> Float[Array, "networks n classes"]:
    """f(x; θ) of each of several networks, their parameters stacked along a leading axis."""
    return jax.vmap(lambda p: network.apply(p, features))(params)


def shift(
    network: Network,
    params: Params,
    features: Features,
    mean: Float[Array, "n classes"] | float = 0.0,
) -> Offset:
    """m − f(x; θ0) of each network: the offset of the shifted network f − f0 + m, at any inputs."""
    initial = logits_of(network, params, features)
    return jnp.broadcast_to(jnp.asarray(mean, initial.dtype), initial.shape) - initial
