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
from ntkbayes.linalg import Portable

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


class Kernel(Portable, eqx.Module):
    """NNGP and NTK as functions of two sets of inputs.

    `compiled` says whether `NTKPrior` evaluates them under `jax.jit`; `is_covariance` whether they are
    covariances by construction, so that none of their values have to be looked at.
    """

    compiled: ClassVar[bool] = True
    is_covariance: ClassVar[bool] = False

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

    For comparing with Gaussian processes that have no network behind them, e.g. an RBF kernel. It must
    be written in JAX, be symmetric and positive semi-definite; `NTKPrior` looks at its values where it
    meets data.

    Raises:
        ConfigurationError: it is no function that JAX can trace; its values are not (n1, n2) real
            numbers.
    """

    function: Callable[[Float[Array, "n1 d"], Float[Array, "n2 d"]], Block]

    def __check_init__(self) -> None:
        if not callable(self.function):
            raise ConfigurationError(f"a kernel must be a function; got {self.function!r}")
        for part in jax.tree.leaves(self.function):
            if not eqx.is_array(part):
                _require_hash(self.function, part)

    def cross(self, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
        try:
            block = self.function(x1, x2)
        except (jax.errors.JAXTypeError, jax.errors.UnexpectedTracerError) as error:
            raise ConfigurationError(
                f"the kernel {_name(self.function)} does not compute in JAX: {_IN_JAX}"
            ) from error
        shape, dtype = jnp.shape(block), jnp.result_type(block)
        is_real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
        if shape != (len(x1), len(x2)) or not is_real:
            raise ConfigurationError(
                f"the kernel {_name(self.function)} gives {dtype} of shape {shape} between "
                f"{len(x1)} and {len(x2)} points; it must give real numbers, one a pair"
            )
        block = jnp.asarray(block, dtype=None if jnp.issubdtype(dtype, jnp.floating) else float)
        return KernelPair(block, block)

    def diagonal(self, x: Float[Array, "n ..."]) -> KernelPair:
        def at(point: Float[Array, "..."]) -> Float[Array, ""]:
            return self.cross(point[None], point[None]).ntk[0, 0]

        values = jax.vmap(at)(x)
        return KernelPair(values, values)


_IN_JAX = (
    "NumPy, SciPy and scikit-learn cannot be compiled or differentiated. Write it with jax.numpy, "
    "lambda x1, x2: jnp.exp(-jnp.sum((x1[:, None] - x2[None]) ** 2, axis=2)), say"
)


def _require_hash(function: Callable, part: object) -> None:
    """Raises ConfigurationError unless JAX can tell the function from others."""
    try:
        hash(part)
    except TypeError as error:
        raise ConfigurationError(
            f"the kernel {_name(function)} has no hash, by which JAX tells functions apart, as "
            f"scikit-learn's have none: {_IN_JAX}"
        ) from error


def _name(function: Callable) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


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
