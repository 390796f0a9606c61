"""neural-tangents, whose last release is older than the JAX that ntkbayes needs.

`load` imports it; `from_stax` turns its `stax` networks into `Network`s with analytic kernels.

Tested: neural-tangents 0.6.5 with jax 0.10.2, scipy 1.18 and numpy 2.5 on Python 3.12, in float64,
without TensorFlow.

Kernels are accurate to float64, with two exceptions in neural-tangents itself. ReLU and its kin have
only eight digits where two inputs coincide, as on the diagonal of a Gram: always under `jax.jit`, and
with more than a few features outside it, where `StaxKernel` corrects it. `ElementwiseNumerical` is only
as accurate, and as symmetric, as its quadrature.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from types import ModuleType
from typing import Any, ClassVar, NoReturn

import equinox as eqx
import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError, MissingDependencyError
from ntkbayes.kernels import Kernel, KernelPair, analytic_kernel
from ntkbayes.networks import Network, Params

_PACKAGE = "neural_tangents"
_TENSORFLOW_PART = "neural_tangents.experimental"
_REMEDY = (
    "install it without TensorFlow: "
    "`pip install --no-deps neural-tangents==0.6.5` and `pip install frozendict`"
)
_loading = threading.RLock()  # no thread may see what another has half imported


def load() -> ModuleType:
    """The `neural_tangents` package, imported on a JAX newer than its last release.

    A package that is already imported is returned unchanged. Otherwise the names that JAX dropped
    are restored during the import: neural-tangents binds them in its own modules, so JAX itself is
    left unchanged. `neural_tangents.experimental` is skipped, because it imports TensorFlow; with
    TensorFlow installed it can still be imported by name.

    Not supported: `NtkImplementation.STRUCTURED_DERIVATIVES`, and `AUTO`, which tries it, need
    internals that JAX has removed. They raise `ConfigurationError`.

    Raises:
        MissingDependencyError: neural-tangents is not installed, or fails on the installed JAX.
    """
    with _loading:
        loaded = sys.modules.get(_PACKAGE)
        return _import_and_mend() if loaded is None else loaded


def _import_and_mend() -> ModuleType:
    try:
        with _quiet(), _dropped_names(), _without_tensorflow_part():
            package = importlib.import_module(_PACKAGE)
        _mend_calls()
    except Exception as error:
        _forget()
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent in {_PACKAGE, "frozendict"}:
            raise MissingDependencyError(f"{absent} is not installed; {_REMEDY}") from error
        raise MissingDependencyError(_describe_versions()) from error
    return package


# --- stax networks --------------------------------------------------------------------------------


class StaxNetwork(Network):
    """A network of `neural_tangents.stax`; made by `from_stax`."""

    init_fn: Callable[..., Any] = eqx.field(static=True)
    apply_fn: Callable[..., Any] = eqx.field(static=True)
    kernel_fn: Callable[..., Any] = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.init_fn(key, features.shape)[1]

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        return self.apply_fn(params, features)


def from_stax(
    triple: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
) -> StaxNetwork:
    """The network that a stax `(init_fn, apply_fn, kernel_fn)` describes, for `NTKPrior`.

    It must end in one vector per point: images and sequences go through `stax.Flatten` or pooling.

    Raises:
        ConfigurationError: it is not a triple of functions.
        MissingDependencyError: neural-tangents is not installed, or fails on the installed JAX.
    """
    load()
    if isinstance(triple, tuple) and len(triple) == 3 and triple[2] is None:
        raise ConfigurationError(
            "this stax triple has no kernel_fn, so its analytic kernels are unknown; build it from "
            "neural_tangents.stax layers, or use ntkbayes.networks.from_functions(init_fn, apply_fn) "
            "with ntkbayes.linearise"
        )
    if not isinstance(triple, tuple) or len(triple) != 3 or not all(map(callable, triple)):
        raise ConfigurationError(
            "from_stax takes the triple of functions (init_fn, apply_fn, kernel_fn) that "
            f"neural_tangents.stax.serial returns; got {triple!r}"
        )
    return StaxNetwork(*triple)


class StaxKernel(Kernel):
    """Both kernels of a `StaxNetwork`, with the diagonal's accuracy wherever inputs coincide.

    Near 0 the angle between two Gaussians, as neural-tangents computes it, is accurate only to 1e-8. For
    a single point outside `jax.jit` it is exactly 0, so diagonals are evaluated that way. For ReLU and
    its kin an error of 1e-8 remains between inputs that nearly coincide, between equal image patches
    under pooling, and everywhere under an outer `jax.jit`.
    """

    network: StaxNetwork
    compiled: ClassVar[bool] = False

    def cross(self, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
        return self._corrected(self._evaluate(x1, x2), x1, x2)

    def gram(self, x: Float[Array, "n ..."]) -> KernelPair:
        return self._corrected(self._evaluate(x, None), x, x)

    def diagonal(self, x: Float[Array, "n ..."]) -> KernelPair:
        nngp, ntk = jax.vmap(lambda point: self._evaluate(point[None], None))(x)
        return KernelPair(nngp[:, 0, 0], ntk[:, 0, 0])

    def _corrected(self, values: tuple[Array, Array], x1: Array, x2: Array) -> KernelPair:
        """The values, with the diagonal's wherever inputs coincide."""
        same, exact = _coincide(x1, x2), self.diagonal(x1)
        return KernelPair(
            *(jnp.where(same, own[:, None], v) for own, v in zip(exact, values, strict=True))
        )

    def _evaluate(self, x1: Array, x2: Array | None) -> tuple[Array, Array]:
        try:
            nngp, ntk = self.network.kernel_fn(x1, x2, ("nngp", "ntk"))
        except (NotImplementedError, ValueError) as error:
            raise ConfigurationError(
                f"neural-tangents knows no analytic kernel of this network for features of shape "
                f"{x1.shape} ({type(error).__name__}: {error}). Use layers with closed forms "
                "(stax.Relu, not stax.Elementwise of any function), built for features of this shape"
            ) from error
        shape = (len(x1), len(x1 if x2 is None else x2))
        if nngp.shape != shape or ntk.shape != shape:
            raise ConfigurationError(
                f"the stax network's kernel has shape {nngp.shape}, not one number per pair of points; "
                "put stax.Flatten() or stax.GlobalAvgPool() before its last Dense"
            )
        return nngp, ntk


@jax.jit
def _coincide(x1: Array, x2: Array) -> Array:
    """Which inputs of x1 equal which inputs of x2: (n1, n2)."""
    return jnp.all(x1[:, None] == x2[None], axis=tuple(range(2, x1.ndim + 1)))


analytic_kernel.register(StaxNetwork, StaxKernel)


# --- what the import needs -----------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings that only the authors of neural-tangents could act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        yield


@contextmanager
def _dropped_names() -> Iterator[None]:
    """Restore the names that neural-tangents imports and JAX has dropped."""
    with ExitStack() as stack:
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var"):
            _lend(stack, jax.core, name, getattr(jax.extend.core, name))
        # Only a key in a table of derivative rules, for a primitive that JAX no longer emits.
        _lend(stack, ad, "zeros_like_p", jax.extend.core.Primitive("zeros_like"))
        if importlib.util.find_spec("jax.util") is None:
            util: Any = ModuleType("jax.util")
            util.safe_map, util.safe_zip = _safe_map, _safe_zip
            stack.enter_context(_registered(util))
        yield


def _lend(stack: ExitStack, module: ModuleType, name: str, value: object) -> None:
    """Set a name that `module` lacks, until `stack` closes."""
    if not hasattr(module, name):
        setattr(module, name, value)
        stack.callback(delattr, module, name)


@contextmanager
def _without_tensorflow_part() -> Iterator[None]:
    """Let `from . import experimental` find an empty module, and leave no trace of it."""
    with _registered(ModuleType(_TENSORFLOW_PART)):
        yield
    package = sys.modules.get(_PACKAGE)
    if package is not None:
        vars(package).pop("experimental", None)


@contextmanager
def _registered(stub: ModuleType) -> Iterator[None]:
    """Keep `stub` in `sys.modules` for a while."""
    sys.modules[stub.__name__] = stub
    try:
        yield
    finally:
        del sys.modules[stub.__name__]


def _safe_map(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`jax.util.safe_map`: a list, from arguments of one length."""
    return [function(*items) for items in zip(*arguments, strict=True)]


def _safe_zip(*arguments: Any) -> list[Any]:
    """`jax.util.safe_zip`: a list, from arguments of one length."""
    return list(zip(*arguments, strict=True))


# --- what the calls need --------------------------------------------------------------------------


def _mend_calls() -> None:
    """Replace, only in neural-tangents, the helpers that fail on current JAX and SciPy."""
    empirical: Any = sys.modules[f"{_PACKAGE}._src.empirical"]
    predict: Any = sys.modules[f"{_PACKAGE}._src.predict"]
    # `jnp.size` no longer takes a ShapeDtypeStruct; NTK_VECTOR_PRODUCTS asks it to.
    empirical._std_basis = _standard_basis
    empirical._unravel_array_into_pytree = _split_like
    # SciPy dropped `eigvalsh(eigvals=)`, which only `max_learning_rate` calls, and only on a CPU;
    # elsewhere it calls JAX's own `eigvalsh`.
    predict._is_on_cpu = _never
    implementations = empirical._implementation_to_ntk_fn
    for implementation in ("AUTO", "STRUCTURED_DERIVATIVES"):
        implementations[empirical.NtkImplementation[implementation]] = _refuse


def _standard_basis(tree: Any) -> Any:
    """Every unit vector of the space of `tree`, along a new leading axis."""
    leaves = jax.tree.leaves(tree)
    identity = jnp.eye(sum(leaf.size for leaf in leaves), dtype=jnp.result_type(*leaves))
    return _split_like(tree, 1, identity)


def _split_like(tree: Any, axis: int, array: Any) -> Any:
    """Cut `array` along `axis` into the leaves of `tree`."""
    leaves, structure = jax.tree.flatten(tree)
    axis %= max(array.ndim, 1)
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    parts = jnp.split(array, list(accumulate(leaf.size for leaf in leaves[:-1])), axis)
    shaped = [
        part.reshape(before + leaf.shape + after) for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, shaped)


def _never(_: object) -> bool:
    return False


def _refuse(**_: object) -> NoReturn:
    raise ConfigurationError(
        "neural-tangents' STRUCTURED_DERIVATIVES, and AUTO which tries it, need an older JAX; "
        "use NtkImplementation.JACOBIAN_CONTRACTION or NTK_VECTOR_PRODUCTS"
    )


# --- when it fails --------------------------------------------------------------------------------


def _forget() -> None:
    """Drop what a failed import left behind, so that the next attempt starts clean."""
    for name in list(sys.modules):
        if name == _PACKAGE or name.startswith(f"{_PACKAGE}."):
            del sys.modules[name]


def _describe_versions() -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in ("neural-tangents", "jax"))
    return (
        f"neural-tangents cannot be imported with the installed versions ({versions}); "
        "neural-tangents 0.6.5 with jax 0.10.2 is known to work"
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
