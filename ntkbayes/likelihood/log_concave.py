"""User-defined likelihoods, given only their log density."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.likelihood.base import (
    ClassLikelihood,
    ClassProbabilities,
    Likelihood,
    PerPoint,
    Stack,
)
from ntkbayes.linalg import (
    BlockCurvature,
    Curvature,
    Logits,
    StructuredCurvature,
    categorical,
    largest,
    nan_is_an_answer,
    require_float64,
    white_noise,
)
from ntkbayes.ranges import Range

Row = Float[Array, " classes"]
Targets = Float[np.ndarray, "n classes"]

_SCALES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_LOGITS_PER_SCALE = 32
_BLOCK = 16  # targets probed at once, one shape for all data
_TOLERANCE = 1e-8
_UNNORMALISED = 1e-6  # how far from 1 the probabilities of all classes may sum


class LogConcave(Likelihood):
    """p(y | f) given its log density, which must be concave in the logits; JAX differentiates it.

    Concavity is checked on construction at the example targets, and again at the targets of all data,
    at 192 logits of scales from 0.1 to 30: values and gradients must be finite, the Hessian have no
    eigenvalue above 1e-8 of its size (at least 1), and midpoints of distant pairs lie no lower than
    their chord. The check can refute concavity, not prove it.

    With several logits W is stored as dense blocks: it costs O((nC)³), and `FirstOrder` refuses it.
    With one logit the cost is that of `Bernoulli`. Targets have one column per logit: real targets
    (n, C), class probabilities (n, C), or, with one logit, the probability of the second of two classes.
    Of classes the density must be normalised: that of each class is its probability.
    Objects that hold the same `log_density` function share compilations: define it once.

    Args:
        log_density: (target (C,), logits (C,)) → log p(y | f) of one point, a JAX scalar. Write it so
            that it stays finite in the tails (`jax.nn.log_sigmoid`, not log of sigmoid).
        num_logits: C.
        examples: targets to check at, (e, C); include the extremes that data may hold.
        curvature_bound: upper bound on the eigenvalues of −∂² log p / ∂f² at any targets and logits,
            for the step size of real networks. Infinite (unknown) by default: the check yields only a
            lower bound.
        draw: (key, logits (C,)) → a target (C,) drawn from p(y | f); only `sample` needs it.

    Raises:
        ConfigurationError: the log density is not a scalar, not finite or not concave (the message says
            where); the curvature bound is below an observed curvature; the examples have a wrong shape.
        PrecisionError: JAX is not in float64.
    """

    density: Callable[[Row, Row], Float[Array, ""]] = eqx.field(static=True)
    num_logits: int = eqx.field(static=True)
    bound: float = eqx.field(static=True)
    draw: Callable[[PRNGKeyArray, Row], Row] | None = eqx.field(static=True)

    def __init__(
        self,
        log_density: Callable[[Row, Row], Float[Array, ""]],
        *,
        num_logits: int,
        examples: object,
        curvature_bound: float = float("inf"),
        draw: Callable[[PRNGKeyArray, Row], Row] | None = None,
    ):
        require_float64()
        num_logits = ranges.whole("num_logits", num_logits)
        self.density = log_density
        self.num_logits = num_logits
        self.bound = float(ranges.real("curvature_bound", curvature_bound, Range.POSITIVE))
        self.draw = draw
        rows = np.asarray(examples, dtype=float)
        if rows.ndim != 2 or rows.shape[1] != num_logits or not len(rows):
            raise ConfigurationError(
                f"examples must be targets (e, {num_logits}), one column per logit; got shape "
                f"{rows.shape}"
            )
        row = jax.ShapeDtypeStruct((num_logits,), jnp.float64)
        value = jax.eval_shape(log_density, row, row)
        if getattr(value, "shape", None) != () or value.dtype != jnp.float64:
            raise ConfigurationError(
                f"log_density must return one float64 number for one point, got {value}; sum over logits"
            )
        self._require_log_concave(rows)

    def encode(self, data: Dataset) -> Logits:
        targets = data.targets
        if data.class_names is not None and data.num_classes == 2 and self.num_logits == 1:
            targets = targets[:, 1:]
        if targets.shape[1] != self.num_logits:
            raise DataError(
                f"this likelihood has {self.num_logits} logits, but the data have {targets.shape[1]} "
                "columns of targets; give one column per logit (or two classes for one logit)"
            )
        self._require_log_concave(targets)
        return jax.device_put(targets)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return jax.vmap(self.density)(targets, logits)

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        return jax.vmap(jax.grad(self.density, argnums=1))(targets, logits)

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        blocks = -jax.vmap(jax.hessian(self.density, argnums=1))(targets, logits)
        if self.num_logits > 1:
            return BlockCurvature(blocks)
        # Round-off can leave tiny negative values, which have no root.
        return StructuredCurvature(jnp.maximum(blocks[:, :, 0], 0.0), coupled=False)

    @property
    def curvature_bound(self) -> float:
        return self.bound

    def interpolant(self, targets: Logits) -> Logits:
        raise ConfigurationError(
            "training without ridge ends at the logits with zero residual, which a LogConcave "
            "likelihood does not know: use a ridge > 0"
        )

    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        if self.draw is None:
            raise ConfigurationError(
                "this LogConcave likelihood cannot draw targets: pass draw=, a function of a key and "
                "one point's logits"
            )
        rows = logits.reshape(-1, self.num_logits)
        drawn = jax.vmap(self.draw)(jax.random.split(key, len(rows)), rows)
        return drawn.reshape(logits.shape).astype(logits.dtype)

    def of_classes(self) -> "OwnClasses":
        """P(c | f) = exp log_density(y_c, f), with y_c the target of class c. Raises ConfigurationError
        unless these sum to 1 at the logits of the check."""
        classes = OwnClasses(self)
        logits, _ = _probe_logits(self.num_logits)
        total = np.asarray(jnp.sum(classes.probabilities(logits), axis=1))
        wrong = np.flatnonzero(~(np.abs(total - 1) <= _UNNORMALISED))
        if wrong.size:
            raise ConfigurationError(
                f"at the logits {logits[wrong[0]].tolist()} the densities of the {classes.num_classes} "
                f"classes sum to {total[wrong[0]]:.6g}, so that they are no probabilities; subtract the "
                "logarithm of that sum in log_density, or give the targets as numbers, by Dataset.real"
            )
        return classes

    def _require_log_concave(self, targets: Targets) -> None:
        logits, partners = _probe_logits(self.num_logits)
        distinct = np.unique(targets, axis=0)
        for begin in range(0, len(distinct), _BLOCK):
            rows = distinct[begin : begin + _BLOCK]
            rows = rows[np.arange(_BLOCK) % len(rows)]  # padded to one shape
            with nan_is_an_answer():
                seen = _probe(self.density, jnp.asarray(rows), logits, partners)
            self._judge(rows, np.asarray(logits), np.asarray(partners), seen)

    def _judge(
        self,
        targets: Float[np.ndarray, "targets classes"],
        logits: Float[np.ndarray, "probes classes"],
        partners: Float[np.ndarray, "probes classes"],
        seen: "_Seen",
    ) -> None:
        """Raises ConfigurationError unless the log density is sound wherever it was probed."""
        value, slope, size, top, bottom, sag, chord = (np.asarray(part) for part in seen)

        def where(wrong: np.ndarray) -> tuple[tuple[int, int], str]:
            i, j = (int(k) for k in np.argwhere(wrong)[0])
            return (i, j), f"at the target {targets[i].tolist()} and logits {logits[j].tolist()}"

        wrong = ~(np.isfinite(value) & np.isfinite(slope) & np.isfinite(size))
        if wrong.any():
            at, place = where(wrong)
            raise ConfigurationError(
                f"{place} the log density is {value[at]}, its largest slope {slope[at]} and "
                f"its largest curvature {size[at]}: they must be finite. Write it so that it stays "
                "finite in the tails (jax.nn.log_sigmoid, not the logarithm of sigmoid)"
            )
        wrong = ~(top <= _TOLERANCE * np.maximum(size, 1))
        if wrong.any():
            at, place = where(wrong)
            raise ConfigurationError(
                f"the log density is not concave in the logits: {place} its Hessian has the eigenvalue "
                f"{top[at]:.3g} > 0; every law here needs a log-concave likelihood"
            )
        wrong = ~(sag <= _TOLERANCE * np.maximum(chord, 1))
        if wrong.any():
            at, place = where(wrong)
            raise ConfigurationError(
                f"the log density is not concave in the logits: {place}, halfway to "
                f"{partners[at[1]].tolist()}, it lies {sag[at]:.3g} below the mean of the two ends"
            )
        steepest = float(np.max(-bottom))
        if steepest > self.bound * (1 + _TOLERANCE):
            raise ConfigurationError(
                f"curvature_bound is {self.bound:g}, but a curvature of {steepest:.4g} was observed; "
                "give a larger bound, or leave it out"
            )


class OwnClasses(ClassLikelihood):
    """A `LogConcave` likelihood whose targets are classes; `LogConcave.of_classes` makes it.

    Args:
        own: with one logit for two classes, or one per class.
    """

    own: LogConcave

    @property
    def num_classes(self) -> int:
        """K."""
        return 2 if self.own.num_logits == 1 else self.own.num_logits

    def encode_classes(self, targets: ClassProbabilities) -> Logits:
        if targets.shape[1] != self.num_classes:
            raise DataError(
                f"this likelihood has {self.num_classes} classes, but the data have {targets.shape[1]}"
            )
        return targets[:, 1:] if self.own.num_logits == 1 else targets

    def decode(self, targets: Logits) -> ClassProbabilities:
        is_whole = self.own.num_logits > 1
        return targets if is_whole else jnp.concatenate([1 - targets, targets], axis=1)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return self.own.log_density(targets, logits)

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        return self.own.residual(targets, logits)

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        return self.own.curvature(targets, logits)

    @property
    def curvature_bound(self) -> float:
        return self.own.curvature_bound

    def interpolant(self, targets: Logits) -> Logits:
        return self.own.interpolant(targets)

    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        """Labels from the class probabilities: `draw` is not needed."""
        labels = categorical(key, self.log_probabilities(logits))
        encoded = self.encode_classes(jnp.eye(self.num_classes, dtype=logits.dtype))
        return encoded[labels]

    def probabilities(self, logits: Stack) -> ClassProbabilities:
        return jnp.exp(self.log_probabilities(logits))

    def log_probabilities(self, logits: Stack) -> ClassProbabilities:
        rows = logits.reshape(-1, self.own.num_logits)
        encoded = self.encode_classes(jnp.eye(self.num_classes, dtype=logits.dtype))
        at_rows = jax.vmap(self.own.density, in_axes=(None, 0))
        columns = jax.vmap(at_rows, in_axes=(0, None), out_axes=1)(encoded, rows)
        return columns.reshape(*logits.shape[:-1], self.num_classes)


Probes = Float[Array, "..."]


class _Seen(NamedTuple):
    """At each target and logits: the log density, its largest slope, the largest entry and extreme
    eigenvalues of its Hessian, how far the midpoint of a pair lies below its chord (sag), and the size
    of the chord's values."""

    value: Probes
    slope: Probes
    size: Probes
    top: Probes
    bottom: Probes
    sag: Probes
    chord: Probes


def _probe_logits(num_logits: int) -> tuple[Logits, Logits]:
    """Random logits at all scales, and a partner for each."""
    normal_key, pair_key = jax.random.split(jax.random.key(0))
    scales = jnp.repeat(jnp.asarray(_SCALES), _LOGITS_PER_SCALE)
    logits = scales[:, None] * white_noise(normal_key, (len(scales), num_logits))
    return logits, jax.random.permutation(pair_key, logits, axis=0)


@partial(jax.jit, static_argnums=0)
def _probe(
    density: Callable[[Row, Row], Float[Array, ""]],
    targets: Float[Array, "targets classes"],
    logits: Float[Array, "probes classes"],
    partners: Float[Array, "probes classes"],
) -> _Seen:
    def at(y: Row, f: Row, partner: Row) -> _Seen:
        value, gradient = jax.value_and_grad(density, argnums=1)(y, f)
        hessian = jax.hessian(density, argnums=1)(y, f)
        eigenvalues = jnp.linalg.eigvalsh(hessian)
        other = density(y, partner)
        sag = (value + other) / 2 - density(y, (f + partner) / 2)
        slope, size = largest(gradient), largest(hessian)
        chord = jnp.abs(value) + jnp.abs(other)
        return _Seen(value, slope, size, eigenvalues[-1], eigenvalues[0], sag, chord)

    every = jax.vmap(at, in_axes=(None, 0, 0))
    return jax.lax.map(lambda y: every(y, logits, partners), targets)
