"""Flax: NNX and Linen modules become `Network`s, in evaluation mode."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError, MissingDependencyError
from ntkbayes.networks import Network, Params

try:
    import flax.errors
    from flax import linen, nnx
except ImportError as error:
    raise MissingDependencyError(
        "Flax is not installed: `pip install 'flax>=0.12,<0.12.9'`"
    ) from error


class NNXNetwork(Network):
    """The `nnx.Param`s of a module are its parameters; its other state is held fixed."""

    make: Callable = eqx.field(static=True)
    graphdef: Any = eqx.field(static=True)
    state: Any

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.params_of(self.make(nnx.Rngs(key)))

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        # copied: a layer that counts its calls must not write into the state held here
        return nnx.merge(self.graphdef, params, self.state, copy=True)(features)

    def params_of(self, module: Any) -> Params:
        """The parameters of a (trained) module built as `make` builds them."""
        return nnx.state(module, nnx.Param)


def from_nnx(make: Callable) -> NNXNetwork:
    """The network of `make(rngs: nnx.Rngs) -> nnx.Module`, after `module.eval()`.

    Batch statistics and other state are those of `make(nnx.Rngs(0))`.

    Raises:
        ConfigurationError: `make` returns something else.
    """
    module = make(nnx.Rngs(0))
    if not isinstance(module, nnx.Module):
        raise ConfigurationError(f"make(rngs) must return an nnx.Module; got {module!r}")
    module.eval()
    graphdef, _, state = nnx.split(module, nnx.Param, ...)
    return NNXNetwork(make=make, graphdef=graphdef, state=state)


class LinenNetwork(Network):
    """The collection "params" holds the parameters; the others, `state`, are held fixed."""

    module: Any = eqx.field(static=True)
    call: Callable = eqx.field(static=True)
    state: Any

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.module.init(key, features, method=self.call)["params"]

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        variables = {"params": params, **self.state}
        try:
            return self.module.apply(variables, features, method=self.call)
        except (flax.errors.ModifyScopeVariableError, flax.errors.InvalidRngError) as error:
            raise ConfigurationError(
                f"the Linen module is in training mode ({type(error).__name__}); give "
                "call=lambda module, x: module(x, train=False), or whatever its switch is named"
            ) from error


def _call(module: Any, x: Array) -> Array:
    return module(x)


def from_linen(
    module: Any, features: Array, *, state: Any = None, call: Callable = _call
) -> LinenNetwork:
    """The network of a Linen module.

    Args:
        module: the module.
        features: a few inputs (n, ...), as for Flax's own `init`.
        state: collections besides "params" (batch_stats, …); those of a fresh `init` if not given.
        call: `(module, x) -> logits`, which says how to evaluate: `module(x, train=False)`.

    Raises:
        ConfigurationError: not a Linen module, or one in training mode.
    """
    if not isinstance(module, linen.Module):
        raise ConfigurationError(f"from_linen takes a flax.linen.Module; got {module!r}")
    variables = dict(module.init(jax.random.key(0), features, method=call))
    params = variables.pop("params", {})
    network = LinenNetwork(module=module, call=call, state=variables if state is None else state)
    network.apply(params, features)
    return network
