"""What a network is, to the rest of the library."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

Params = Any


class Network(eqx.Module):
    """A family of functions with a random initialisation."""

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        """Random parameters θ0 for inputs shaped as `features`."""

    @abc.abstractmethod
    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        """The logits f(features; params)."""
