"""Equinox: a module that takes one point becomes a `Network`, in inference mode.

Everything but parameters, such as batch statistics, is held fixed. For a *trained* module:

    network = from_equinox(make).holding(trained, trained_state)
    logits = network.apply(network.params_of(trained), features)
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.networks import Network, Params, require_same_shapes


class EquinoxNetwork(Network):
    """The inexact arrays of a module are its parameters; all else, including `state`, is held fixed."""

    make: Callable = eqx.field(static=True)
    fixed: Any
    state: Any

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.params_of(_module_and_state(self.make(key))[0])

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        module = eqx.combine(params, self.fixed)
        try:
            if self.state is None:
                return jax.vmap(module)(features)
            # A layer that writes invalidates the state it was given: copy it for each call.
            return jax.vmap(lambda x: module(x, _copy(self.state))[0])(features)
        except (RuntimeError, NameError) as error:
            # Neither Equinox (dropout without a key) nor JAX (the axis that batch norm averages
            # over) raises a class of its own.
            if "non-deterministic" not in str(error) and "unbound axis name" not in str(error):
                raise
            raise ConfigurationError(
                f"the Equinox module is in training mode ({type(error).__name__}: {error}). "
                "inference_mode was called, so its __call__ must not override it: do not pass "
                "inference=False to its layers"
            ) from error

    def params_of(self, module: Any) -> Params:
        """The parameters of a (trained) module built as `make` builds them."""
        return eqx.filter(module, eqx.is_inexact_array)

    def holding(self, module: Any, state: Any = None) -> "EquinoxNetwork":
        """This network, holding fixed what a (trained) module has besides parameters, and its state.

        Raises:
            ConfigurationError: it is not a module, with a state if `make` returns one, or its
                parameters differ in structure from those of what `make` builds.
        """
        if (state is None) != (self.state is None):
            raise ConfigurationError(
                "holding takes (module, state) if make returns both, and (module) if it returns no "
                f"state; got state={state!r}"
            )
        held = _held_by(self.make, module if state is None else (module, state))
        fresh = jax.eval_shape(
            lambda key: self.params_of(_module_and_state(self.make(key))[0]), jax.random.key(0)
        )
        require_same_shapes("params", self.params_of(module), fresh)
        return held


def from_equinox(make: Callable | Any) -> EquinoxNetwork:
    """The network of `make(key) -> module`, or `make(key) -> (module, state)` for stateful modules.

    The module takes one point, and its state second if it has one. The state, including batch
    statistics, is that of `make(jax.random.key(0))`; see `EquinoxNetwork.holding`. Functions in
    static fields must be the same object in every call of `make`: define lambdas outside of it.

    Raises:
        ConfigurationError: `make` is not a function, or returns something else. `apply` refuses a
            module that trains in spite of `inference_mode`.
    """
    if not callable(make):
        raise ConfigurationError(f"from_equinox takes a function make(key); got {make!r}")
    return _held_by(make, make(jax.random.key(0)))


def _held_by(make: Callable, made: Any) -> EquinoxNetwork:
    module, state = _module_and_state(made)
    fixed = eqx.filter(eqx.nn.inference_mode(module), eqx.is_inexact_array, inverse=True)
    # Copied: further training would invalidate the state held here.
    return EquinoxNetwork(make=make, fixed=fixed, state=_copy(state))


def _module_and_state(made: Any) -> tuple[Any, Any]:
    module, state = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, eqx.Module) or not (state is None or isinstance(state, eqx.nn.State)):
        raise ConfigurationError(
            "make(key) must return an Equinox module, or (module, state) as eqx.nn.make_with_state "
            f"does; got {type(made).__name__}"
        )
    return module, state


def _copy(state: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf, state)
