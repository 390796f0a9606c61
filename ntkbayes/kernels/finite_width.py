"""The kernel of a finite network, frozen at given parameters."""

import math
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ntkbayes import memory
from ntkbayes.attached import Attached
from ntkbayes.kernels.base import DrawFunctions, Functions, Kernel, KernelPair
from ntkbayes.kernels.empirical.ntk import EmpiricalNTK
from ntkbayes.kernels.empirical.plan import Plan, operations
from ntkbayes.kernels.jacobian import JacobianBlock, cast, outputs_of
from ntkbayes.linalg import Logits, require_float64, white_noise
from ntkbayes.memory import NUMBER
from ntkbayes.networks import Network, Params
from ntkbayes.networks.programs import channels_last
from ntkbayes.ranges import Number, whole

_PLANS = Attached[Plan]()  # of a kernel, by the shape of its inputs


class EmpiricalKernel(Kernel):
    """Θ(x, x') = J(x; θ) J(x'; θ)ᵀ, the kernel of the network linearised at θ. It couples the outputs,
    unless θ is the readout alone: then Θ = ⟨a(x), a(x')⟩ I, with the readout's inputs a, is one number
    per pair of inputs. Computed in float64, even for parameters in lower precision.

    Initial functions are those of the network itself, at random initialisations. Their covariance K is
    unknown, so methods that need it (`FirstOrder`) refuse.

    Args:
        network: any network.
        params: θ, where it is linearised.
        max_rows: Gram matrices of up to this many rows, n · C, are formed; larger ones are known only by
            their products J Jᵀ. By default as many as half of the machine's memory allows. Products take
            less memory, and for MAP and a few draws of a large network less time; a Laplace posterior's
            variances take far longer with them. The n rows of a readout are formed unless it is below C.

    Raises:
        PrecisionError: JAX is not in float64, or, on evaluation, the network computes in less.
    """

    network: Network
    params: Params
    max_rows: int | None = eqx.field(static=True)
    own_dtype: np.dtype = eqx.field(static=True)
    is_covariance: ClassVar[bool] = True
    compiled: ClassVar[bool] = False  # the empirical NTK compiles its own blocks

    def __init__(self, network: Network, params: Params, *, max_rows: Number | None = None):
        require_float64()
        self.network = network
        self.params = cast(params, jnp.float64)
        self.own_dtype = _narrowest(params)
        self.max_rows = None if max_rows is None else whole("max_rows", max_rows, at_least=0)

    @property
    def tangent(self) -> EmpiricalNTK:
        """Θ in all its forms."""
        return EmpiricalNTK(self.network, self.params)

    def num_outputs(self, x: Float[Array, "n ..."]) -> int:
        return outputs_of(self.network, self.params, x)

    def is_formed(self, num_rows: int) -> bool:
        return num_rows <= (_fitting_rows() if self.max_rows is None else self.max_rows)

    def couples(self, x: Float[Array, "n ..."]) -> bool:
        # A readout is one weight, perhaps with a bias: others need not be traced.
        few = len(jax.tree.leaves(self.params)) <= 2 and self.is_formed(self.num_outputs(x))
        return not (few and self.tangent.is_readout(x))

    def entry_operations(self, x: Float[Array, "n ..."]) -> float:
        rows = len(x) * (self.num_outputs(x) if self.couples(x) else 1)
        return _SLOWER * sum(step.operations for step in self._plan(x).steps) / rows**2

    def scratch(self, x: Float[Array, "n ..."]) -> float:
        """Of Θ, or of the surrogate where it is known by products."""
        return float(self._plan(x).num_bytes)

    def _plan(self, x: Float[Array, "n ..."]) -> Plan:
        """How Θ is evaluated, or the surrogate."""
        plans, at = _PLANS.of(self), (x.shape, x.dtype)
        if at not in plans:
            tangent, form = self.tangent, "traced"
            if self.couples(x):
                if self.is_formed(len(x) * self.num_outputs(x)):
                    form = "full"
                else:
                    params, x = cast((self.params, x), self.own_dtype)
                    tangent = EmpiricalNTK(self.network, params)
            plans[at] = tangent.plan(x, form=form)
        return plans[at]

    def product_operations(self, x: Float[Array, "n ..."]) -> float:
        if not self.couples(x) or self.is_formed(len(x) * self.num_outputs(x)):
            return 0.0
        point = self._by_products(x[:1], x[:1])
        v = jax.ShapeDtypeStruct((1, 1, point.num_outputs), x.dtype)
        return _SLOWER * len(x) * operations(jax.make_jaxpr(point.products)(v))

    def cross(self, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
        if not self.couples(x1):
            return KernelPair(None, self.tangent.traced(x1, x2))
        may_form = self.is_formed(math.isqrt(len(x1) * len(x2)) * self.num_outputs(x1))
        return KernelPair(None, self._by_products(x1, x2, may_form=may_form))

    def gram(self, x: Float[Array, "n ..."]) -> KernelPair:
        if not self.couples(x):
            return KernelPair(None, self.tangent.traced(x))
        if self.is_formed(len(x) * self.num_outputs(x)):
            return KernelPair(None, self.tangent.matrix(x))
        return KernelPair(None, self._by_products(x, x))

    def _by_products(self, x1: Array, x2: Array, *, may_form: bool = False) -> JacobianBlock:
        given = (self.network, self.params, x1, x2, jnp.ones(()))
        return JacobianBlock(*given, self.own_dtype, np.dtype(np.float64), may_form)

    def diagonal(self, x: Float[Array, "n ..."]) -> KernelPair:
        own = self.tangent.diagonal(x)
        return KernelPair(None, own if self.couples(x) else own[:, 0, 0])

    @property
    def initial_functions(self) -> DrawFunctions:
        return self._initial

    @property
    def tangent_functions(self) -> DrawFunctions:
        return self._tangent

    def _initial(self, key: PRNGKeyArray, num_draws: int) -> "InitialFunctions":
        return InitialFunctions(self.network, jax.random.split(key, num_draws))

    def _tangent(self, key: PRNGKeyArray, num_draws: int) -> "TangentFunctions":
        return TangentFunctions(self.network, self.params, jax.random.split(key, num_draws))


_SLOWER = 2.0  # than a large product: convolutions, and contractions of layers


def _fitting_rows() -> int:
    """Rows of a Gram such that its laws take half of the memory."""
    return math.isqrt(memory.total() // (2 * NUMBER * _MATRICES))


_MATRICES = 4  # of the Gram's size, that the evidence's gradient takes, the most of all


def _narrowest(params: Params) -> np.dtype:
    """The narrowest precision among the parameters, float32 at least."""
    floats = [leaf.dtype for leaf in jax.tree.leaves(params) if eqx.is_inexact_array(leaf)]
    return np.dtype(np.float32 if any(d != np.float64 for d in floats) else np.float64)


class InitialFunctions(Functions):
    """x ↦ f(x; θ0), with one random initialisation θ0 per key."""

    network: Network
    keys: Shaped[Array, "draws ..."]

    @eqx.filter_jit
    def __call__(self, features: Float[Array, "n ..."]) -> Float[Array, "draws n classes"]:
        def at(key: PRNGKeyArray) -> Logits:
            params = cast(self.network.init(key, features), jnp.float64)
            return self.network.apply(params, features)

        return _map_keys(at, self.keys)


class TangentFunctions(Functions):
    """x ↦ J(x; θ) ε, with one ε ~ N(0, I) per key: draws from GP(0, Θ), jointly at any inputs."""

    network: Network
    params: Params
    keys: Shaped[Array, "draws ..."]

    @eqx.filter_jit
    def __call__(self, features: Float[Array, "n ..."]) -> Float[Array, "draws n classes"]:
        def apply(params: Params) -> Logits:
            return self.network.apply(params, features)

        leaves, structure = jax.tree.flatten(self.params)
        _, pushforward = jax.linearize(apply, self.params)

        def at(key: PRNGKeyArray) -> Logits:
            keys = jax.random.split(key, len(leaves))
            noise = [
                white_noise(key, leaf.shape, leaf.dtype)
                for key, leaf in zip(keys, leaves, strict=True)
            ]
            return pushforward(jax.tree.unflatten(structure, noise))

        return _map_keys(at, self.keys)


def _map_keys(
    function: Callable[[PRNGKeyArray], Logits], keys: Shaped[Array, "draws ..."]
) -> Float[Array, "draws n classes"]:
    """function(key), one key at a time. Keys are reused on purpose, so that a function is the same
    wherever it is evaluated, and passed as numbers, since `jax_debug_key_reuse` would object."""
    kind = jax.random.key_impl(keys)

    @channels_last
    def at(numbers: Shaped[Array, "..."]) -> Logits:
        return function(jax.random.wrap_key_data(numbers, impl=kind))

    return jax.lax.map(at, jax.random.key_data(keys))
