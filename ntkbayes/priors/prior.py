"""The prior over logit functions that a network and a ridge define."""

import hashlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ntkbayes import ranges
from ntkbayes.arguments import random_key, require
from ntkbayes.attached import Attached
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, RidgeError
from ntkbayes.kernels import (
    EmpiricalKernel,
    Kernel,
    KernelPair,
    analytic_kernel,
    in_blocks,
    validity,
)
from ntkbayes.linalg import (
    CholeskyFactor,
    Portable,
    block_of,
    gram_of,
    num_shares,
    require_float64,
    require_float64_values,
    require_precision,
    row_by_row,
    white_noise,
)
from ntkbayes.networks import Network, Params, part, require_same_shapes
from ntkbayes.ranges import Number, Range

Features = Shaped[Array | np.ndarray, "n ..."]
MeanFunction = Callable[[Features], Float[Array, "n classes"]]


class NTKPrior(Configured, Portable, eqx.Module):
    """Two Gaussian processes over the C logits (THEORY 6).

    * GP(mean, Θ/ridge), the Bayesian prior: its MAP is the trained shifted network;
    * GP(mean, K), the law of the network's function at initialisation.

    Args:
        network: a `Network` whose analytic kernels are known, or a `Kernel`, such as the
            `EmpiricalKernel` of a finite network.
        ridge: weight of ½‖θ − θ0‖² against the loss summed over points, ≥ 0. With ridge = 0 the
            Bayesian prior does not exist, and training ends only if every class has positive
            probability in every target.
        mean: the mean logits: a number, one number per logit, or a function of the features with
            values (n, C).

    Raises:
        ConfigurationError: the ridge is negative or not finite, or the mean no finite numbers.
        PrecisionError: JAX is not in float64; or, when they are evaluated, the kernel or the mean
            computes in less.
    """

    kernel: Kernel
    ridge: Float[Array, ""] | float
    mean: Float[Array, " classes"] | float | MeanFunction

    def __init__(
        self,
        network: Network | Kernel,
        *,
        ridge: Number,
        mean: object = 0.0,
    ):
        require_float64()
        self.kernel = network if isinstance(network, Kernel) else analytic_kernel(network)
        self.ridge = ranges.real("the ridge", ridge, Range.NOT_NEGATIVE_FINITE)
        self.mean = mean if callable(mean) else _mean(mean)

    def traced(self) -> "NTKPrior":
        """The same with arrays for its numbers: what is compiled for it serves others too."""
        numbers = (self.kernel.traced(), jnp.asarray(self.ridge))
        return eqx.tree_at(lambda prior: (prior.kernel, prior.ridge), self, numbers)

    def with_ridge(self, ridge: Number) -> "NTKPrior":
        """The same with another ridge. Raises ConfigurationError if that is negative or not finite."""
        return NTKPrior(self.kernel, ridge=ridge, mean=self.mean)

    def gram(self, x: Features) -> KernelPair:
        """K and Θ between all inputs, each a `Gram`; K is None if it is not known.

        Of a kernel that is not compiled, as that of a real network, they are evaluated once for all
        laws of it at the same inputs, while one of those laws exists.
        """
        require_float64()
        x, kernel = _as_float64(x), self.kernel.traced()

        def evaluate() -> KernelPair:
            pair = _cross(kernel, x, x) if kernel.compiled else kernel.gram(x)
            return _exact(pair).map(lambda values: gram_of(values, len(x)))

        return evaluate() if kernel.compiled else _shared(self.kernel, (x,), evaluate)

    def cross(
        self, x1: Shaped[Array | np.ndarray, "n1 ..."], x2: Shaped[Array | np.ndarray, "n2 ..."]
    ) -> KernelPair:
        """K and Θ between two sets of inputs, each a `Block`; K is None if it is not known.

        Shared as the Gram is; the last ones are kept for the next law, as long as they are small.
        """
        require_float64()
        x1, x2, kernel = _as_float64(x1), _as_float64(x2), self.kernel.traced()

        def evaluate() -> KernelPair:
            pair = _cross(kernel, x1, x2) if kernel.compiled else kernel.cross(x1, x2)
            return _exact(pair).map(lambda values: block_of(values, len(x1), len(x2)))

        return evaluate() if kernel.compiled else _shared(self.kernel, (x1, x2), evaluate)

    def diagonal(self, x: Features) -> KernelPair:
        """K and Θ between each input and itself, (n,) or (n, C, C)."""
        require_float64()
        x, kernel = _as_float64(x), self.kernel.traced()
        return _exact(_diagonal(kernel, x) if kernel.compiled else kernel.diagonal(x))

    def require_covariance(self, x: Features) -> None:
        """Look at the kernel's values at some of the inputs, unless it is a covariance by construction.

        Raises:
            ConfigurationError: they are not finite, not symmetric, or depend on other inputs.
            NotPositiveDefiniteError: they have a negative variance.
        """
        if self.kernel.is_covariance:
            return
        x = validity.sample(_as_float64(x))
        validity.require_covariance(self.gram(x), self.diagonal(x))

    def mean_logits(self, x: Features, num_outputs: int) -> Float[Array, "n classes"]:
        """The mean function at the inputs."""
        shape = (x.shape[0], num_outputs)
        value = self.mean(x) if callable(self.mean) else self.mean
        require_float64_values("the prior's mean", value)
        is_known = not callable(self.mean) and not isinstance(value, jax.core.Tracer)
        try:
            if is_known:  # in NumPy, which compiles nothing for these shapes
                return jax.device_put(np.broadcast_to(np.asarray(value, dtype=float), shape))
            return jnp.broadcast_to(jnp.asarray(value, dtype=float), shape)
        except ValueError:
            raise ConfigurationError(
                f"the prior's mean has shape {jnp.shape(value)}, which does not fit {shape[0]} "
                f"points with {num_outputs} logits"
            ) from None

    def sample_initial(
        self, key: PRNGKeyArray, x: Features, *, num_draws: int, num_outputs: int
    ) -> Float[Array, "draws n classes"]:
        """Functions at initialisation jointly at all the inputs: draws of GP(mean, K), or the mean
        plus real networks at random parameters if the kernel is that of a finite network.

        Args:
            key: of the draws.
            x: inputs, (n, d).
            num_draws: how many functions.
            num_outputs: C.
        """
        require_float64()
        key, x = random_key(key), _as_float64(x)
        mean = self.mean_logits(x, num_outputs)[None]
        draw = self.kernel.initial_functions
        if draw is not None:
            return mean + draw(key, num_draws)(x)
        factor = self.initial_factor(self.gram(x))
        return mean + factor.colour(white_noise(key, (num_draws, *mean.shape[1:])))

    def initial_factor(self, gram: KernelPair) -> CholeskyFactor:
        """The factor of K, at the inputs of a Gram.

        Raises:
            ConfigurationError: K is not known.
        """
        if gram.nngp is None:
            raise ConfigurationError(
                f"{type(self.kernel).__name__} knows neither the covariance K of initial functions nor "
                "how to draw them: use a Bayesian law, or a kernel that defines initial_functions"
            )
        return gram.nngp.factor("the NNGP Gram matrix")

    def require_ridge(self, who: str) -> None:
        """Raises RidgeError if ridge = 0."""
        if float(self.ridge) == 0:
            raise RidgeError(
                f"{who} needs a ridge > 0: with ridge = 0 the prior GP(mean, Θ/ridge) is infinitely "
                "wide. Use NTKPrior(network, ridge=0.1), say"
            )


def require_prior(call: str, name: str, value: Any) -> None:
    """Raises ArgumentError unless the value is an `NTKPrior`; see `arguments.require`."""

    def remedy(given: Any) -> str:
        if isinstance(given, Network | Kernel):
            return "give nb.NTKPrior(network, ridge=...)"
        is_table = not isinstance(given, type) and hasattr(given, "__array__")
        return "the prior comes first, then nb.Dataset(X, y)" if is_table else ""

    require(call, name, value, NTKPrior, remedy)


def linearise(
    network: Network,
    params: Params,
    *,
    ridge: Number,
    anchor: Params | None = None,
    over: str | Sequence[str] | None = None,
    max_rows: Number | None = None,
) -> NTKPrior:
    """The prior of a finite network linearised at θ: f(x; θ) + J(x; θ)(θ' − θ), θ' ~ N(θ0, I/ridge).

    With the θ that training towards θ0 ended in, Laplace is the linearised, generalised Gauss–Newton
    Laplace posterior of the network (Khan et al. 2019; Immer et al. 2021). With θ = θ0, MAP is the
    trained linearised network itself, from its own initial function. The mean of this prior is that
    function, to which `RandomInit` would add another one: for laws over initialisations take
    `NTKPrior(EmpiricalKernel(network, params), ridge=...)`, whose mean is 0.

    Args:
        network: any network.
        params: θ, where it is linearised.
        ridge: weight of ½‖θ' − θ0‖².
        anchor: θ0, by default θ.
        over: which parameters θ' has, by path, as for `networks.part`; the others stay as they are. With
            those of the last layer, Laplace is the last-layer Laplace of the network. By default all.
        max_rows: see `EmpiricalKernel`.

    Raises:
        ConfigurationError: the anchor has another structure or other shapes than θ.
        UnknownNameError: a path in `over` matches no parameter.
    """
    if anchor is not None:
        require_same_shapes("anchor", anchor, params)
    if over is not None:
        network = part(network, params, over)
        params, anchor = network.of(params), None if anchor is None else network.of(anchor)
    kernel = EmpiricalKernel(network, params, max_rows=max_rows)
    moved = None
    if anchor is not None:
        moved = jax.tree.map(lambda end, start: jnp.asarray(start) - end, kernel.params, anchor)
    return NTKPrior(kernel, ridge=ridge, mean=LinearisedMean(network, kernel.params, moved))


class LinearisedMean(eqx.Module):
    """x ↦ f(x; θ) + J(x; θ) δ."""

    network: Network
    params: Params
    step: Params | None

    def __call__(self, features: Features) -> Float[Array, "n classes"]:
        def apply(params: Params) -> Float[Array, "n classes"]:
            return self.network.apply(params, _as_float64(features))

        if self.step is None:
            return apply(self.params)
        value, tangent = jax.jvp(apply, (self.params,), (self.step,))
        return value + tangent


_BLOCKS = Attached[KernelPair]()  # of a kernel, by the inputs: weak references
_RECENT = Attached[KernelPair]()  # the last Gram and the last cross-covariance of a kernel
_RECENT_NUMBERS = 2**25  # in each, at most: 256 MiB


def _shared(
    kernel: Kernel, inputs: tuple[Array, ...], evaluate: Callable[[], KernelPair]
) -> KernelPair:
    """The blocks of a kernel at these inputs: those that exist already, or else evaluated."""
    if any(isinstance(x, jax.core.Tracer) for x in inputs):
        return evaluate()
    known, recent = _BLOCKS.of(kernel), _RECENT.of(kernel)
    digests = (hashlib.sha256(np.asarray(x).tobytes()).digest() for x in inputs)
    place = num_shares(), *zip((x.shape for x in inputs), digests, strict=True)
    pair = _held(known[place]) if place in known else None
    if pair is None:
        recent.pop(len(inputs), None)  # not beside the new one
        pair = evaluate()
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(pair)):
            return pair
        for gone in [other for other, held in list(known.items()) if _held(held) is None]:
            known.pop(gone, None)
        known[place] = pair.map(weakref.ref)
    outputs = pair.ntk.num_outputs if pair.ntk.couples else 1
    if len(inputs[0]) * len(inputs[-1]) * outputs**2 <= _RECENT_NUMBERS:
        recent[len(inputs)] = pair
    return pair


def _held(references: KernelPair) -> KernelPair | None:
    """What a pair of weak references refers to; None if any of it is gone."""
    pair = references.map(lambda reference: reference())
    return pair if pair.count(None) == references.count(None) else None


_BLOCK_NUMBERS = 2**19  # pairs of inputs at a time; temporaries are some dozens of these


@eqx.filter_jit
def _cross(kernel: Kernel, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
    """K and Θ, a block of rows at a time, each device its own."""

    require_precision("the kernel", kernel.cross, x1, x2)

    def evaluate(x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
        rows = max(1, _BLOCK_NUMBERS // max(1, len(x2)))
        return in_blocks(lambda part: kernel.cross(part, x2), x1, rows)

    return row_by_row(evaluate)(x1, x2)


_diagonal = eqx.filter_jit(lambda kernel, x: kernel.diagonal(x))


def _mean(value: object) -> Float[Array, "..."]:
    """One mean for all logits, or one per logit."""
    try:
        mean = jnp.asarray(value, dtype=float)
    except (TypeError, ValueError):
        mean = None
    if mean is None or np.ma.is_masked(value):
        raise ConfigurationError(
            f"the mean must be a number, one per logit, or a function of the features; got {value!r}"
        )
    if not isinstance(mean, jax.core.Tracer) and not np.isfinite(mean).all():
        raise ConfigurationError(f"the mean must be finite; got {value!r}")
    return mean


def _exact(pair: KernelPair) -> KernelPair:
    require_float64_values("the kernel", pair)
    return pair


def _as_float64(x: Features) -> Float[Array, "n ..."]:
    return jnp.asarray(x, dtype=jnp.float64)
