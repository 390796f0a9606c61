"""Flax: NNX and Linen modules become `Network`s, in evaluation mode.

Everything but parameters, such as batch statistics, is held fixed. For a *trained* module:

    network = from_nnx(make).holding(trained)
    logits = network.apply(network.params_of(trained), features)

    network = from_linen(module, features, state={"batch_stats": trained["batch_stats"]}, call=call)
    logits = network.apply(trained["params"], features)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError, MissingDependencyError
from ntkbayes.networks import Network, Params, require_same_shapes

try:
    import flax.errors
    from flax import linen, nnx
except ImportError as error:
    raise MissingDependencyError(
        "Flax is not installed: `pip install 'flax>=0.12,<0.13'`"
    ) from error

_NNX_REMEDY = (
    "module.eval() was called, so its __call__ must not override it: do not pass deterministic=False "
    "or use_running_average=False to its layers"
)
_LINEN_REMEDY = (
    "give call=lambda module, x: module(x, train=False), with its own name of the switch; a layer "
    "without one takes deterministic=True or use_running_average=True"
)


class NNXNetwork(Network):
    """The `nnx.Param`s of a module are its parameters; its other state is held fixed."""

    make: Callable = eqx.field(static=True)
    graphdef: Any = eqx.field(static=True)
    state: Any

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.params_of(self.make(nnx.Rngs(key)))

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        # Copied: layers that count their calls must not write into the state held here.
        module = nnx.merge(self.graphdef, params, self.state, copy=True)
        before = _written_by_training(module)
        with _evaluation_mode(_NNX_REMEDY):
            logits = module(features)
        # NNX layers may train silently. The identity of the arrays shows it, even under `jax.jit`.
        if any(a is not b for a, b in zip(before, _written_by_training(module), strict=True)):
            raise ConfigurationError(
                "the NNX module is in training mode: it draws random numbers or updates batch "
                f"statistics. {_NNX_REMEDY}"
            )
        return logits

    def params_of(self, module: Any) -> Params:
        """The parameters of a (trained) module built as `make` builds them."""
        return nnx.state(module, nnx.Param)

    def holding(self, module: Any) -> "NNXNetwork":
        """This network with the batch statistics and other state of a (trained) module.

        Raises:
            ConfigurationError: its parameters differ in structure from those of what `make` builds.
        """
        # A copy: the user's module stays in its own mode.
        held = _held_by(self.make, nnx.clone(_require_nnx("holding takes", module)))
        fresh = jax.eval_shape(
            lambda key: self.params_of(self.make(nnx.Rngs(key))), jax.random.key(0)
        )
        require_same_shapes("params", self.params_of(module), fresh)
        return held


def from_nnx(make: Callable | Any) -> NNXNetwork:
    """The network of `make(rngs: nnx.Rngs) -> nnx.Module`, after `module.eval()`.

    Batch statistics and other state are those of `make(nnx.Rngs(0))`; see `NNXNetwork.holding`.

    Raises:
        ConfigurationError: `make` is not a function, or returns something else. `apply` refuses a
            module that trains in spite of `eval()`.
    """
    if not callable(make):
        raise ConfigurationError(f"from_nnx takes a function make(rngs); got {make!r}")
    return _held_by(make, _require_nnx("make(rngs) must return", make(nnx.Rngs(0))))


def _require_nnx(wanted: str, module: Any) -> nnx.Module:
    if not isinstance(module, nnx.Module):
        raise ConfigurationError(f"{wanted} an nnx.Module; got {module!r}")
    return module


def _held_by(make: Callable, module: Any) -> NNXNetwork:
    module.eval()
    graphdef, _, state = nnx.split(module, nnx.Param, ...)
    return NNXNetwork(make=make, graphdef=graphdef, state=state)


def _written_by_training(module: Any) -> list[Any]:
    return jax.tree.leaves(nnx.state(module, nnx.Any(nnx.RngCount, nnx.BatchStat)))


class LinenNetwork(Network):
    """The collection "params" holds the parameters; the others, `state`, are held fixed."""

    module: Any = eqx.field(static=True)
    call: Callable = eqx.field(static=True)
    state: Any

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.module.init(key, features, method=self.call)["params"]

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        variables = {"params": params, **self.state}
        with _evaluation_mode(_LINEN_REMEDY):
            return self.module.apply(variables, features, method=self.call)


def _call(module: Any, x: Array) -> Array:
    return module(x)


def from_linen(
    module: Any, features: Array, *, state: Any = None, call: Callable | Any = _call
) -> LinenNetwork:
    """The network of a Linen module.

    Args:
        module: the module.
        features: a few inputs (n, ...), as for Flax's own `init`.
        state: collections other than "params" (batch_stats, …); by default those of a fresh `init`.
        call: `(module, x) -> logits` in evaluation mode, e.g. `module(x, train=False)`.

    Raises:
        ConfigurationError: not a Linen module, one in training mode, or a state whose collections
            are not those of the module.
    """
    if not isinstance(module, linen.Module):
        raise ConfigurationError(f"from_linen takes a flax.linen.Module; got {module!r}")
    if not callable(call):
        raise ConfigurationError(f"call must be a function (module, x) -> logits; got {call!r}")
    with _evaluation_mode(_LINEN_REMEDY):
        variables = dict(module.init(jax.random.key(0), features, method=call))
    params = variables.pop("params", {})
    if state is not None:
        require_same_shapes("state", dict(state), variables)
    network = LinenNetwork(
        module=module, call=call, state=dict(variables if state is None else state)
    )
    network.apply(params, features)
    return network


@contextmanager
def _evaluation_mode(remedy: str) -> Iterator[None]:
    """Turn Flax's errors about layers in training mode, or of unknown mode, into advice."""
    try:
        yield
    except (
        flax.errors.ModifyScopeVariableError,
        flax.errors.InvalidRngError,
        ValueError,
    ) as error:
        # Flax has no error class of its own for a switch that is not set.
        switches = ("deterministic", "use_running_average")
        if isinstance(error, ValueError) and not any(name in str(error) for name in switches):
            raise
        raise ConfigurationError(
            f"the module is in training mode ({type(error).__name__}: {error}). Remedy: {remedy}"
        ) from error
