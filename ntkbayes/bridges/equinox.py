"""Equinox: a module of one point becomes a `Network`, in inference mode."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.networks import Network, Params


class EquinoxNetwork(Network):
    """The inexact arrays of a module are its parameters; all else, `state` too, is held fixed."""

    make: Callable = eqx.field(static=True)
    fixed: Any
    state: Any

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.params_of(_module_and_state(self.make(key))[0])

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        module = eqx.combine(params, self.fixed)
        if self.state is None:
            return jax.vmap(module)(features)
        return jax.vmap(lambda x: module(x, self.state)[0])(features)

    def params_of(self, module: Any) -> Params:
        """The parameters of a (trained) module built as `make` builds them."""
        return eqx.filter(module, eqx.is_inexact_array)


def from_equinox(make: Callable) -> EquinoxNetwork:
    """The network of `make(key) -> module`, or `make(key) -> (module, state)` for stateful ones.

    The module takes one point, and its state second if it has one. The state, with batch
    statistics, is that of `make(jax.random.key(0))`.

    Raises:
        ConfigurationError: `make` returns something else.
    """
    module, state = _module_and_state(make(jax.random.key(0)))
    fixed = eqx.filter(eqx.nn.inference_mode(module), eqx.is_inexact_array, inverse=True)
    return EquinoxNetwork(make=make, fixed=fixed, state=state)


def _module_and_state(made: Any) -> tuple[Any, Any]:
    module, state = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, eqx.Module) or not (state is None or isinstance(state, eqx.nn.State)):
        raise ConfigurationError(
            "make(key) must return an Equinox module, or (module, state) as eqx.nn.make_with_state "
            f"does; got {type(made).__name__}"
        )
    return module, state
