"""Fully connected networks in the NTK parameterisation."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.linalg import white_noise
from ntkbayes.networks import activations
from ntkbayes.networks.activations import Activation
from ntkbayes.networks.base import Network, Params, require_stds
from ntkbayes.ranges import Number


class MLP(Network):
    """Fully connected network: `depth` hidden layers, each Dense then φ, and a Dense readout.

    Dense is x ↦ weight_std · W x / √fan_in + bias_std · b with W, b ~ N(0, 1) entrywise (the NTK
    parameterisation). With `skip`, every hidden layer after the first is added to the one before it:
    h ↦ h + Dense(φ(h)). Only `init` uses `width` and `num_outputs`: the kernels are those of infinite
    width, shared by all outputs.

    Attributes:
        activation: φ, applied to each entry.
        weight_std, bias_std: scales of all layers.
        depth: hidden layers.
        skip: whether there are skip connections.
        width: hidden units per layer.
        num_outputs: C.
    """

    activation: Activation
    weight_std: Float[Array, ""] | float
    bias_std: Float[Array, ""] | float
    depth: int = eqx.field(static=True)
    skip: bool = eqx.field(static=True)
    width: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, features: Float[Array, "n d"]) -> Params:
        sizes = [features.shape[1], *[self.width] * self.depth, self.num_outputs]
        params = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            key, weight_key, bias_key = jax.random.split(key, 3)
            weight = white_noise(weight_key, (fan_in, fan_out), features.dtype)
            params.append((weight, white_noise(bias_key, (fan_out,), features.dtype)))
        return params

    def apply(self, params: Params, features: Float[Array, "n d"]) -> Float[Array, "n outputs"]:
        def dense(layer: tuple[Array, Array], x: Array) -> Array:
            weight, bias = layer
            scale = self.weight_std / jnp.sqrt(x.shape[1])
            return scale * (x @ weight) + self.bias_std * bias[None, :]

        first, *hidden, readout = params
        x = dense(first, features)
        for layer in hidden:
            x = dense(layer, self.activation(x)) + (x if self.skip else 0.0)
        return dense(readout, self.activation(x))


def mlp(
    *,
    depth: Number = 2,
    activation: str | Activation | Callable = "relu",
    weight_std: Number = 1.5,
    bias_std: Number = 0.1,
    skip: bool = False,
    width: Number = 512,
    num_outputs: Number = 1,
) -> MLP:
    """A fully connected network.

    Args:
        depth: number of hidden layers, ≥ 1.
        activation: one of `activations.NAMES`, an `Activation`, or any elementwise JAX function
            (its moments are then computed by quadrature).
        weight_std: standard deviation of the weights before division by √fan_in, > 0. A JAX scalar
            may be traced or differentiated.
        bias_std: standard deviation of the biases, ≥ 0.
        skip: add each hidden layer to the one before it.
        width: hidden units of a finite network (used only by `init`).
        num_outputs: logits of a finite network (used only by `init`).

    Raises:
        ConfigurationError: a number is outside its range.
        UnknownNameError: the activation is unknown.
    """
    weight_std, bias_std = require_stds(weight_std, bias_std)
    return MLP(
        activation=activations.get(activation),
        weight_std=weight_std,
        bias_std=bias_std,
        depth=ranges.whole("depth", depth),
        skip=skip,
        width=ranges.whole("width", width),
        num_outputs=ranges.whole("num_outputs", num_outputs),
    )
