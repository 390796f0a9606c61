"""The state of training: where it starts, and where it is."""

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
    """The training state of K networks.

    Attributes:
        params: θ of each, stacked.
        anchors: θ0 of each, which the ridge pulls towards.
        offset: added to the logits at the training points.
        optimizer: the optimiser's state, None for plain gradient descent.
        key: for the mini-batches.
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
    """f(x; θ) of several networks, with parameters stacked along a leading axis."""
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
