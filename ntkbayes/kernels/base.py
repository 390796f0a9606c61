"""What a kernel is, to the rest of the library."""

import abc
from collections.abc import Callable
from functools import singledispatch
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError

Block = Float[Array, "n1 n2"]


class KernelPair(NamedTuple):
    """NNGP K and NTK Θ evaluated at the same inputs: two blocks (see `linalg.blocks`), or two diagonals.

    At infinite width both are scalar kernels, (n1, n2) with diagonals (n,): the C logits are
    independent and alike. A finite network's NTK couples them, (n1 C, n2 C) or an operator with
    diagonal (n, C, C), and its K is not known: None.
    """

    nngp: Any
    ntk: Any


class Functions(eqx.Module):
    """Random functions that can be evaluated at any inputs."""

    @abc.abstractmethod
    def __call__(self, features: Float[Array, "n ..."]) -> Float[Array, "draws n classes"]:
        """Each function at the inputs."""


class Kernel(eqx.Module):
    """NNGP and NTK as functions of two sets of inputs.

    `compiled` says whether `NTKPrior` evaluates them under `jax.jit`.
    """

    compiled: ClassVar[bool] = True

    @abc.abstractmethod
    def cross(self, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
        """Both kernels between every input of x1 and every input of x2."""

    @abc.abstractmethod
    def diagonal(self, x: Float[Array, "n ..."]) -> KernelPair:
        """Both kernels between every input and itself."""

    def traced(self) -> "Kernel":
        """The kernel with the numbers it may be varied in as arrays: as Python's they would be constants
        of a compiled program, and other ones another program."""
        return self

    def num_outputs(self, x: Float[Array, "n ..."]) -> int | None:
        """The number of logits, if the kernel is of so many and no other."""
        return None

    def initial_functions(self, key: PRNGKeyArray, num_draws: int) -> Functions | None:
        """Random functions at initialisation, if they can be drawn without their covariance K."""
        return None

    def tangent_functions(self, key: PRNGKeyArray, num_draws: int) -> Functions | None:
        """Random functions with covariance Θ, if they can be drawn without a factor of Θ."""
        return None


class FunctionKernel(Kernel):
    """Any covariance function k(x1, x2) -> (n1, n2), used as NTK and as NNGP alike.

    For comparing with Gaussian processes that have no network behind them, e.g. an RBF kernel.
    """

    function: Callable[[Float[Array, "n1 d"], Float[Array, "n2 d"]], Block]

    def cross(self, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
        block = self.function(x1, x2)
        return KernelPair(block, block)

    def diagonal(self, x: Float[Array, "n ..."]) -> KernelPair:
        def at(point: Float[Array, "..."]) -> Float[Array, ""]:
            return self.function(point[None], point[None])[0, 0]

        values = jax.vmap(at)(x)
        return KernelPair(values, values)


@singledispatch
def analytic_kernel(network: object) -> Kernel:
    """The infinite-width kernels of a network.

    Raises:
        ConfigurationError: they are not known for this kind of network.
    """
    raise ConfigurationError(
        f"no analytic kernel is known for {type(network).__name__}; give a network made by "
        "ntkbayes.networks.mlp or ntkbayes.bridges.neural_tangents.from_stax, or a Kernel"
    )


def in_blocks(
    function: Callable[[Float[Array, "rows ..."]], Any], x: Float[Array, "n ..."], rows: int
) -> Any:
    """function(x), an array or several with the rows of x, computed a block of `rows` at a time.

    So nothing but the result has n rows. Blocks are all alike: they are made a little smaller if that
    makes them fit, or else the last one is filled up.
    """
    size = len(x)
    if size <= rows:
        return function(x)
    even = (count for count in range(-(-size // rows), 2 * size // rows + 1) if size % count == 0)
    count = next(even, -(-size // rows))
    rows = -(-size // count)
    filled = jnp.pad(x, ((0, count * rows - size), *[(0, 0)] * (x.ndim - 1)), mode="edge")
    blocks = jax.lax.map(function, filled.reshape(count, rows, *x.shape[1:]))
    return jax.tree.map(lambda v: v.reshape(count * rows, *v.shape[2:])[:size], blocks)
