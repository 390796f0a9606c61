"""The interface of networks, and checks that a network keeps to it."""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.linalg import Portable, require_precision
from ntkbayes.ranges import Number, Range

Params = Any


class Network(Configured, Portable, eqx.Module):
    """A family of functions with a random initialisation.

    `init` and `apply` work under `jax.jit`, `jax.vmap` over stacked parameters, and `jax.grad`.
    """

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        """Random parameters θ0 for inputs shaped like `features`."""

    @abc.abstractmethod
    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        """The logits f(features; params)."""

    def __hash__(self) -> int:
        # Equinox hashes the leaves too, and arrays have no hash: `jax.jit(network.apply)` needs one.
        return hash(jax.tree.structure(self))


class FunctionNetwork(Network):
    """A network given by two functions.

    Attributes:
        initialise: (key, features) → params.
        function: (params, features) → logits (n, C).
    """

    initialise: Callable = eqx.field(static=True)
    function: Callable = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.initialise(key, features)

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        return self.function(params, features)


def from_functions(init: Callable | Any, apply: Callable | Any) -> FunctionNetwork:
    """The network of a plain pair `init(key, features) -> params`, `apply(params, features)`.

    Raises:
        ConfigurationError: one of the two is not a function.
    """
    for name, function in (("init", init), ("apply", apply)):
        if not callable(function):
            raise ConfigurationError(f"{name} must be a function; got {function!r}")
    return FunctionNetwork(initialise=init, function=apply)


class Reshaped(Network):
    """A network on rows of a table, each reshaped to `shape` first."""

    network: Network
    shape: tuple[int, ...] = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, features: Float[Array, "n d"]) -> Params:
        return self.network.init(key, self.reshape(features))

    def apply(self, params: Params, features: Float[Array, "n d"]) -> Float[Array, "n outputs"]:
        return self.network.apply(params, self.reshape(features))

    def reshape(self, features: Float[Array, "n d"]) -> Float[Array, "n ..."]:
        """The rows as inputs of the network. Raises DataError for a wrong number of columns."""
        if features.shape[1] != math.prod(self.shape):
            raise DataError(
                f"rows of {features.shape[1]} features cannot be reshaped to {self.shape}, which "
                f"takes {math.prod(self.shape)}"
            )
        return features.reshape(-1, *self.shape)


def reshaped(network: Network, shape: tuple[int, ...]) -> Reshaped:
    """The network on flat rows: `reshaped(cnn(...), (8, 8, 1))` for digits."""
    return Reshaped(network, tuple(ranges.whole("a side of the shape", side) for side in shape))


def require_sound(network: Network, params: Params, features: Array | np.ndarray) -> int:
    """Check that a network can be differentiated at `params`; return its number of outputs C.

    Runs the network eagerly, three times on at most two points: call it outside `jax.jit`.

    Raises:
        ConfigurationError: parameters that are not finite floats; outputs that are not (n, C), are
            random, or depend on the other points of the batch.
        DataError: no points, or logits that are not finite.
        PrecisionError: the network computes in less than the precision of parameters and features.
    """
    _require_float_params(params)
    x = jnp.asarray(features)
    if x.ndim < 2 or len(x) < 1:
        raise DataError(f"features must be (n, ...) with at least one point; got shape {x.shape}")
    # It takes two points to see whether the output at one depends on the other.
    pair = x[:2] if len(x) > 1 else jnp.concatenate([x, x + 1])
    logits = _logits(network, params, pair)
    require_precision("the network", network.apply, params, pair)
    if not np.isfinite(logits).all():
        raise DataError(
            "the network's logits are not finite at the first points; look for a division by zero "
            "or an overflow, and standardise the features"
        )
    # Round-off differs between batch sizes, but far less than with batch norm or dropout.
    tolerance = 10 * np.sqrt(float(jnp.finfo(logits.dtype).eps)) * np.abs(logits).max()
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


def require_same_shapes(name: str, given: Params, expected: Params) -> None:
    """Check that two trees have the same paths and leaf shapes.

    Raises:
        ConfigurationError: a leaf is missing, unknown or of the wrong shape; the message names its path.
    """
    ours, theirs = (
        {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in paths}
        for paths in map(jax.tree_util.tree_leaves_with_path, (expected, given))
    )
    for path in [*ours, *theirs]:
        if ours.get(path) != theirs.get(path):
            is_, should = (
                "absent" if shapes.get(path) is None else f"of shape {shapes[path]}"
                for shapes in (theirs, ours)
            )
            raise ConfigurationError(
                f"{name}{path} is {is_}, but should be {should}; pass one trained with the same "
                "architecture"
            )


def require_stds(
    weight_std: Number, bias_std: Number
) -> tuple[Float[Array, ""] | float, Float[Array, ""] | float]:
    """The validated standard deviations of the NTK parameterisation; see `ranges.real`.

    Raises:
        ConfigurationError: a number is outside its range.
    """
    return (
        ranges.real("weight_std", weight_std, Range.POSITIVE_FINITE),
        ranges.real("bias_std", bias_std, Range.NOT_NEGATIVE_FINITE),
    )


def _logits(network: Network, params: Params, x: Array) -> np.ndarray:
    # A type-checked `apply` would raise its own, less helpful error for a wrong shape.
    apply = network.function if isinstance(network, FunctionNetwork) else network.apply
    logits = apply(params, x)
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != len(x) or shape[1] < 1:
        got = type(logits).__name__ if shape is None else f"an array of shape {shape}"
        raise ConfigurationError(
            f"the network's output must be (n, C), logits of each of the n = {len(x)} points; got "
            f"{got}. Flatten or pool images before the readout, and keep the last axis (n, 1) of "
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
        if not np.isfinite(np.asarray(leaf)).all():
            raise ConfigurationError(
                f"{name} contains NaN or infinity; initialise again, or go back to an earlier "
                "checkpoint"
            )
