"""What a network is, to the rest of the library."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError, DataError

Params = Any


class Network(eqx.Module):
    """A family of functions with a random initialisation."""

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        """Random parameters θ0 for inputs shaped as `features`."""

    @abc.abstractmethod
    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        """The logits f(features; params)."""


class FunctionNetwork(Network):
    """A network given by two functions."""

    initialise: Callable = eqx.field(static=True)
    function: Callable = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.initialise(key, features)

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        return self.function(params, features)


def from_functions(init: Callable, apply: Callable) -> FunctionNetwork:
    """The network of a plain pair `init(key, features) -> params`, `apply(params, features)`.

    Raises:
        ConfigurationError: one of the two is not a function.
    """
    for name, function in (("init", init), ("apply", apply)):
        if not callable(function):
            raise ConfigurationError(f"{name} must be a function; got {function!r}")
    return FunctionNetwork(initialise=init, function=apply)


def require_sound(network: Network, params: Params, features: Array | np.ndarray) -> int:
    """The number of outputs C of a network that may be differentiated at `params`.

    Runs the network eagerly, three times on at most two points: call it outside `jax.jit`.

    Raises:
        ConfigurationError: parameters that are not finite floats; outputs that are not (n, C), are
            random, or depend on the other points of the batch.
        DataError: no points, or logits that are not finite.
    """
    _require_float_params(params)
    x = jnp.asarray(features)
    if x.ndim < 2 or len(x) < 1:
        raise DataError(f"features must be (n, ...) with at least one point; got shape {x.shape}")
    # One point alone needs company for the question whether company matters.
    pair = x[:2] if len(x) > 1 else jnp.concatenate([x, x + 1])
    logits = _logits(network, params, pair)
    if not np.isfinite(logits).all():
        raise DataError(
            "the network's logits are not finite at the first points; look for a division by zero "
            "or an overflow, and standardise the features"
        )
    # Round-off differs between batch sizes, by far less than a batch norm or a dropout would.
    tolerance = 10 * np.sqrt(np.finfo(logits.dtype).eps) * np.abs(logits).max()
    if np.abs(_logits(network, params, pair) - logits).max() > tolerance:
        raise ConfigurationError(
            "the network's output is random: two calls differ. Switch dropout off (evaluation mode)"
        )
    if np.abs(_logits(network, params, pair[:1]) - logits[:1]).max() > tolerance:
        raise ConfigurationError(
            "the network's output at one point depends on the other points of the batch, as batch "
            "norm's does in training mode. Use evaluation mode, with stored batch statistics"
        )
    return int(logits.shape[1])


def _logits(network: Network, params: Params, x: Array) -> np.ndarray:
    # A checked `apply` would raise its own, less helpful error for a wrong shape.
    apply = network.function if isinstance(network, FunctionNetwork) else network.apply
    logits = apply(params, x)
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != len(x) or shape[1] < 1:
        found = type(logits).__name__ if shape is None else f"an array of shape {shape}"
        raise ConfigurationError(
            f"the network's output must be (n, C), logits of each of the n = {len(x)} points; got "
            f"{found}. Flatten or pool images before the readout, and keep the last axis (n, 1) of "
            "a single output"
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ConfigurationError(f"the network's logits must be floats; got {logits.dtype}")
    return np.asarray(logits)


def _require_float_params(params: Params) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ConfigurationError("the network has no parameters to train")
    for path, leaf in leaves:
        name = f"params{jax.tree_util.keystr(path)}"
        dtype = getattr(leaf, "dtype", type(leaf).__name__)
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ConfigurationError(
                f"{name} is {dtype}, not an array of floats; convert it, or hold it fixed outside "
                "the parameters"
            )
        if not bool(jnp.isfinite(leaf).all()):
            raise ConfigurationError(
                f"{name} contains NaN or infinity; initialise again, or go back to an earlier "
                "checkpoint"
            )
