"""The interface of kernels, and kernels from plain functions."""

import abc
import dataclasses
from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.display import Configured, in_words
from ntkbayes.errors import ConfigurationError
from ntkbayes.linalg import Portable


class KernelPair(NamedTuple):
    """NNGP K and NTK Θ evaluated at the same inputs.

    From a `Kernel` each is an array or a block of `linalg`. Between inputs it is (n1, n2) for a scalar
    kernel (at infinite width the C logits are independent and identically distributed); where a finite
    network's NTK couples the logits, it is (n1 C, n2 C), or a block known by its products. Diagonals
    are (n,) or (n, C, C). K is None if unknown, as for a finite network.

    From `NTKPrior.gram` each is a `Gram`, from `NTKPrior.cross` a `Block`.

    Attributes:
        nngp: K, or None.
        ntk: Θ.
    """

    nngp: Any
    ntk: Any

    def map(self, function: Callable[[Any], Any]) -> "KernelPair":
        """The pair of function(K) and function(Θ); None stays None."""
        return KernelPair(*(None if part is None else function(part) for part in self))


class Functions(eqx.Module):
    """Random functions that can be evaluated at any inputs."""

    @abc.abstractmethod
    def __call__(self, features: Float[Array, "n ..."]) -> Float[Array, "draws n classes"]:
        """The functions at the inputs."""


DrawFunctions = Callable[[PRNGKeyArray, int], Functions]
"""(key, number of draws) → that many random functions."""


class Kernel(Configured, Portable, eqx.Module):
    """NNGP and NTK as functions of two sets of inputs.

    A kernel defines `cross` and `diagonal`. The other methods declare what else it can do, with defaults
    that suit a scalar kernel.
    """

    @abc.abstractmethod
    def cross(self, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
        """Both kernels between every input of x1 and every input of x2."""

    @abc.abstractmethod
    def diagonal(self, x: Float[Array, "n ..."]) -> KernelPair:
        """Both kernels between every input and itself."""

    def gram(self, x: Float[Array, "n ..."]) -> KernelPair:
        """Both kernels between all inputs: cross(x, x), or faster by symmetry.

        `NTKPrior` only calls it for kernels that are not `compiled`.
        """
        return self.cross(x, x)

    def traced(self) -> "Kernel":
        """The kernel with its hyper-parameters as arrays, so that new values do not recompile: Python
        numbers would be constants of the compiled program."""
        return self

    @property
    def compiled(self) -> bool:
        """Whether `NTKPrior` evaluates `cross` under `jax.jit`, by blocks of rows.

        By default yes, unless it wraps a kernel that compiles itself.
        """
        parts = (getattr(self, field.name) for field in dataclasses.fields(self))
        return all(part.compiled for part in parts if isinstance(part, Kernel))

    @property
    def is_covariance(self) -> bool:
        """Whether K and Θ are covariances by construction, which spares checking their values."""
        return False

    def is_formed(self, num_rows: int) -> bool:
        """Whether a Gram with this many rows is formed, rather than known by its products."""
        return True

    def num_outputs(self, x: Float[Array, "n ..."]) -> int | None:
        """The number of logits if the kernel fixes it, else None."""
        return None

    def couples(self, x: Float[Array, "n ..."]) -> bool:
        """Whether Θ has a block of numbers per pair of inputs, rather than one number; by default where
        the kernel fixes the number of logits."""
        return self.num_outputs(x) is not None

    def entry_operations(self, x: Float[Array, "n ..."]) -> float:
        """Operations of an entry of both kernels at x, in those of a large matrix product; by default
        those of arc cosines of two or three layers."""
        return 1000.0

    def product_operations(self, x: Float[Array, "n ..."]) -> float:
        """The same of a product of Θ(x, x) with the logits of one function; 0 where it is formed."""
        return 0.0

    def scratch(self, x: Float[Array, "n ..."]) -> float:
        """Bytes of temporary arrays while a Gram at x is evaluated, where they are more than blocks of
        its rows."""
        return 0.0

    @property
    def initial_functions(self) -> DrawFunctions | None:
        """Draws functions at initialisation without their covariance K; None if it cannot."""
        return None

    @property
    def tangent_functions(self) -> DrawFunctions | None:
        """Draws functions with covariance Θ without a factor of Θ; None if it cannot."""
        return None


class FunctionKernel(Kernel):
    """Any covariance function k(x1, x2) -> (n1, n2), used both as NTK and as NNGP.

    For comparison with Gaussian processes without a network, e.g. an RBF kernel. It must be written in
    JAX, symmetric and positive semi-definite; `NTKPrior` checks its values when it meets data.

    Raises:
        ConfigurationError: it is not a function that JAX can trace; its values are not (n1, n2) real
            numbers.
    """

    function: Callable[[Float[Array, "n1 d"], Float[Array, "n2 d"]], Float[Array, "n1 n2"]]

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
                f"{len(x1)} and {len(x2)} points; it must give real numbers, one per pair"
            )
        block = jnp.asarray(block, dtype=None if jnp.issubdtype(dtype, jnp.floating) else float)
        return KernelPair(block, block)

    def diagonal(self, x: Float[Array, "n ..."]) -> KernelPair:
        def at(point: Float[Array, "..."]) -> Float[Array, ""]:
            return self.cross(point[None], point[None]).ntk[0, 0]

        values = jax.vmap(at)(x)
        return KernelPair(values, values)


_IN_JAX = (
    "NumPy, SciPy and scikit-learn cannot be compiled or differentiated. Write it with jax.numpy, e.g. "
    "lambda x1, x2: jnp.exp(-jnp.sum((x1[:, None] - x2[None]) ** 2, axis=2))"
)


def _require_hash(function: Callable, part: object) -> None:
    """Raises ConfigurationError unless the function has a hash, by which JAX caches compilations."""
    try:
        hash(part)
    except TypeError as error:
        raise ConfigurationError(
            f"the kernel {_name(function)} has no hash, which JAX needs, perhaps because it is "
            f"scikit-learn's: {_IN_JAX}"
        ) from error


def _name(function: Callable) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


@singledispatch
def analytic_kernel(network: object) -> Kernel:
    """The infinite-width kernels of a network.

    Raises:
        ConfigurationError: they are unknown for this kind of network.
    """
    raise ConfigurationError(
        f"no analytic kernel is known for {in_words(network)}; give a network made by "
        "ntkbayes.networks.mlp or ntkbayes.bridges.neural_tangents.from_stax, or a Kernel"
    )


def in_blocks(
    function: Callable[[Float[Array, "rows ..."]], Any], x: Float[Array, "n ..."], rows: int
) -> Any:
    """function(x), one or several arrays with a row per row of x, computed in blocks of `rows`.

    So only the result has n rows. All blocks have one size: a little smaller if that divides n, else the
    last one is padded.
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
