"""Small convolutional networks in the NTK parameterisation."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.linalg import white_noise
from ntkbayes.networks import activations
from ntkbayes.networks.activations import Activation
from ntkbayes.networks.base import Network, Params, require_stds
from ntkbayes.ranges import Number


def global_average(images: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """The mean of each channel over positions."""
    return images.mean(axis=(1, 2))


def flatten(images: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
    """All positions and channels in one row."""
    return images.reshape(len(images), -1)


class CNN(Network):
    """Convolutions (stride 1, SAME padding), each followed by φ; then `gather`, and a Dense readout.

    Each layer is x ↦ weight_std · W x / √fan_in + bias_std · b with W, b ~ N(0, 1) entrywise (the
    NTK parameterisation); fan_in is kernel_size² · channels for a convolution W.

    Attributes:
        activation: φ, applied to each entry.
        weight_std, bias_std: scales of all layers.
        gather: images (n, height, width, channels) → (n, features), before the readout.
        channels: of each convolution.
        kernel_size: height and width of the patches.
        num_outputs: C.

    Raises:
        DataError: features that are not images (n, height, width, channels).
    """

    activation: Activation
    weight_std: Float[Array, ""] | float
    bias_std: Float[Array, ""] | float
    gather: Callable = eqx.field(static=True)
    channels: tuple[int, ...] = eqx.field(static=True)
    kernel_size: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        _require_images(features)
        size, fan_in = self.kernel_size, features.shape[3]
        shapes: list[tuple[int, ...]] = []
        for fan_out in self.channels:
            shapes.append((size, size, fan_in, fan_out))
            fan_in = fan_out
        image = jax.ShapeDtypeStruct((1, *features.shape[1:3], fan_in), features.dtype)
        shapes.append((jax.eval_shape(self.gather, image).shape[1], self.num_outputs))
        params = []
        for shape in shapes:
            key, weight_key, bias_key = jax.random.split(key, 3)
            weight = white_noise(weight_key, shape, features.dtype)
            params.append((weight, white_noise(bias_key, shape[-1:], features.dtype)))
        return params

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        _require_images(features)
        *convolutions, (weight, bias) = params
        x = features
        for kernel, shift in convolutions:
            moved = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            scale = self.weight_std / math.sqrt(math.prod(kernel.shape[:3]))
            x = self.activation(scale * moved + self.bias_std * shift[None, None, None, :])
        x = self.gather(x)
        scale = self.weight_std / math.sqrt(x.shape[1])
        return scale * jnp.matmul(x, weight) + self.bias_std * bias[None, :]


def _require_images(features: Array) -> None:
    if features.ndim != 4:
        raise DataError(f"images must be (n, height, width, channels); got {features.shape}")


def cnn(
    *,
    channels: tuple[Number, ...] = (16, 16),
    kernel_size: Number = 3,
    activation: str | Activation | Callable = "relu",
    weight_std: Number = 1.5,
    bias_std: Number = 0.1,
    gather: Callable | Any = global_average,
    num_outputs: Number = 1,
) -> CNN:
    """A small convolutional network on images (n, height, width, channels).

    Args:
        channels: channels of each convolution, each ≥ 1.
        kernel_size: height and width, in pixels, of the convolutions' windows.
        activation: one of `activations.NAMES`, an `Activation`, or any elementwise JAX function.
        weight_std: standard deviation of the weights before division by √fan_in, > 0.
        bias_std: standard deviation of the biases, ≥ 0.
        gather: maps images (n, h, w, c) to rows (n, d) before the readout; `global_average`, `flatten`
            or any JAX function.
        num_outputs: number of logits.

    Raises:
        ConfigurationError: a number is outside its range, or `gather` is not a function.
        UnknownNameError: the activation is unknown.
    """
    if len(channels) < 1:
        raise ConfigurationError("channels must list at least one convolution; got none")
    if not callable(gather):
        raise ConfigurationError(f"gather must be a function of images; got {gather!r}")
    weight_std, bias_std = require_stds(weight_std, bias_std)
    return CNN(
        activation=activations.get(activation),
        weight_std=weight_std,
        bias_std=bias_std,
        gather=gather,
        channels=tuple(ranges.whole("channels", count) for count in channels),
        kernel_size=ranges.whole("kernel_size", kernel_size),
        num_outputs=ranges.whole("num_outputs", num_outputs),
    )
