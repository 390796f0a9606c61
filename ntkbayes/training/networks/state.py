"""The state of training: where it starts, and where it is."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from ntkbayes.errors import UnknownNameError
from ntkbayes.networks import Network, Params

Offset = Float[Array, "networks n classes"]
Features = Float[Array, "n ..."]
Targets = Float[Array, "n classes"]


class Anchor(StrEnum):
    """Where the ridge pulls.

    Attributes:
        INIT: "init", to θ0: ½‖θ − θ0‖².
        ZERO: "zero": ½‖θ‖², which is weight decay.
    """

    INIT = "init"
    ZERO = "zero"

    @classmethod
    def named(cls, name: str) -> "Anchor":
        """Raises UnknownNameError if there is none of that name."""
        if name not in list(cls):
            raise UnknownNameError("anchor", name, list(cls))
        return cls(name)

    def pull(self, params: Params, initial: Params) -> Params:
        """θ less the anchor."""
        return params if self is Anchor.ZERO else jax.tree.map(jnp.subtract, params, initial)


@runtime_checkable
class Optimizer(Protocol):
    """An optax `GradientTransformation`."""

    init: Callable
    update: Callable


class TrainingState(eqx.Module):
    """The training state of K networks.

    Attributes:
        params: θ of each, stacked.
        initial: θ0 of each.
        offset: added to the logits at the training points.
        noise: ε of each; the loss is less ⟨ε, f⟩ over the training points.
        optimizer: the optimiser's state, None for plain gradient descent.
        key: for the mini-batches.
        step: steps taken.
    """

    params: Params
    initial: Params
    offset: Offset
    noise: Offset
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
    """m − f(x; θ0) of each network: the offset of the shifted network f − f0 + m, at any inputs.

    Args:
        network: the network.
        params: θ0 of K networks, stacked.
        features: of the inputs, (n, d).
        mean: m, (n, C), or one number.
    """
    initial = logits_of(network, params, features)
    return jnp.broadcast_to(jnp.asarray(mean, initial.dtype), initial.shape) - initial
