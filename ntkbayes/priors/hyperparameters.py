"""The hyper-parameters of a prior, by name: what evidence climbs and hyper-priors are put on.

They are weight_std, bias_std, ridge and mean, and of a kernel of your own each field that holds a number
or an array of them, by the field's name.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.kernels import Kernel, LastLayerKernel, MLPKernel
from ntkbayes.networks import MLP
from ntkbayes.priors.prior import NTKPrior

RANGES: dict[str, tuple[float, float]] = {
    "weight_std": (0.05, 20.0),
    "bias_std": (0.001, 20.0),
    "ridge": (1e-6, 1e3),
    "mean": (-50.0, 50.0),
}
"""Where hyper-parameters are looked for. All but the mean on a logarithmic scale."""


def _network_of(kernel: Kernel) -> MLP:
    if isinstance(kernel, LastLayerKernel):
        return _network_of(kernel.kernel)
    if isinstance(kernel, MLPKernel):
        return kernel.network
    raise ConfigurationError(
        f"{type(kernel).__name__} has no weight_std and bias_std; choose over=('ridge',)"
    )


WHERE: dict[str, Callable[[NTKPrior], Any]] = {
    "weight_std": lambda prior: _network_of(prior.kernel).weight_std,
    "bias_std": lambda prior: _network_of(prior.kernel).bias_std,
    "ridge": lambda prior: prior.ridge,
    "mean": lambda prior: prior.mean,
}
"""Where a prior keeps each hyper-parameter that is not a kernel's own."""


def value_of(prior: NTKPrior, name: str) -> Float[Array, "..."]:
    """A hyper-parameter of a prior.

    Raises:
        UnknownNameError: there is no such hyper-parameter.
        ConfigurationError: the prior does not have it.
    """
    value = _where(prior, name)(prior)
    if callable(value):
        raise ConfigurationError("the prior's mean is a function, not a number to be changed")
    return jnp.asarray(value, dtype=float)


def with_values(prior: NTKPrior, values: Mapping[str, Any]) -> NTKPrior:
    """The prior with other hyper-parameters. Raises as `value_of` does."""
    for name, value in values.items():
        value_of(prior, name)
        prior = eqx.tree_at(_where(prior, name), prior, value)
    return prior


def _where(prior: NTKPrior, name: str) -> Callable[[NTKPrior], Any]:
    own = [f.name for f in dataclasses.fields(prior.kernel) if _is_number(prior.kernel, f)]
    if name in WHERE:
        return WHERE[name]
    if name in own:
        return lambda prior: getattr(prior.kernel, name)
    raise UnknownNameError("hyper-parameter", name, (*WHERE, *own))


def _is_number(kernel: Kernel, field: dataclasses.Field) -> bool:
    value = getattr(kernel, field.name)
    is_float = isinstance(value, float) or eqx.is_inexact_array(value)
    return is_float and not field.metadata.get("static", False)
