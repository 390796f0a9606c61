"""Likelihoods of class labels: softmax, the logistic link, and its cumulative form."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.errors import ConfigurationError, DataError, RidgeError
from ntkbayes.likelihood.base import ClassLikelihood, ClassProbabilities, PerPoint, Stack
from ntkbayes.linalg import Curvature, Logits, StructuredCurvature, categorical, uniform


class Categorical(ClassLikelihood):
    """Softmax, with one logit per class."""

    is_flat: ClassVar[bool] = True

    def encode_classes(self, targets: ClassProbabilities) -> Logits:
        return targets

    def decode(self, targets: Logits) -> ClassProbabilities:
        return targets

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return jnp.sum(targets * jax.nn.log_softmax(logits, axis=1), axis=1)

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        """Y − p as Y (1 − p) − (1 − Y) p, which loses no digits where p is close to 0 or 1."""
        p = jax.nn.softmax(logits, axis=1)
        likely = p > 0.5  # where 1 - p loses digits, and one class at most
        others = jnp.where(likely, 0.0, p) @ jnp.ones(p.shape[1], p.dtype)  # XLA's sum is slower
        return targets * jnp.where(likely, others[:, None], 1 - p) - (1 - targets) * p

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        return StructuredCurvature(jax.nn.softmax(logits, axis=1), coupled=True)

    @property
    def curvature_bound(self) -> float:
        return 0.5  # diag(p) − p pᵀ at p = (½, ½, 0, …)

    def interpolant(self, targets: Logits) -> Logits:
        _refuse_divergence(bool(jnp.any(targets <= 0)))
        return self.project(jnp.log(targets))

    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        labels = categorical(key, logits)
        return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)

    def project(self, v: Stack) -> Stack:
        return v - jnp.mean(v, axis=-1, keepdims=True)

    def probabilities(self, logits: Stack) -> ClassProbabilities:
        return jax.nn.softmax(logits, axis=-1)

    def log_probabilities(self, logits: Stack) -> ClassProbabilities:
        return jax.nn.log_softmax(logits, axis=-1)


class Bernoulli(ClassLikelihood):
    """One logit for the second of two classes (logistic link, not probit)."""

    def encode_classes(self, targets: ClassProbabilities) -> Logits:
        if targets.shape[1] != 2:
            raise DataError(
                f"a Bernoulli likelihood has two classes, but the data have {targets.shape[1]}; "
                "use Categorical()"
            )
        return targets[:, 1:]

    def decode(self, targets: Logits) -> ClassProbabilities:
        return jnp.concatenate([1 - targets, targets], axis=1)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return (targets * logits - jax.nn.softplus(logits))[:, 0]

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        """y − p as y (1 − p) − (1 − y) p, which loses no digits where p is close to 0 or 1."""
        return targets * jax.nn.sigmoid(-logits) - (1 - targets) * jax.nn.sigmoid(logits)

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        return StructuredCurvature(_logistic_density(logits), coupled=False)

    @property
    def curvature_bound(self) -> float:
        return 0.25

    def interpolant(self, targets: Logits) -> Logits:
        _refuse_divergence(bool(jnp.any((targets <= 0) | (targets >= 1))))
        return jnp.log(targets) - jnp.log1p(-targets)

    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        drawn = uniform(key, logits.shape, logits.dtype) < jax.nn.sigmoid(logits)
        return drawn.astype(logits.dtype)

    def probabilities(self, logits: Stack) -> ClassProbabilities:
        return jnp.concatenate([jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits)], axis=-1)

    def log_probabilities(self, logits: Stack) -> ClassProbabilities:
        both = jnp.concatenate([-logits, logits], axis=-1)
        return jax.nn.log_sigmoid(both)


def _cutpoints(values: object) -> Float[Array, " cuts"] | tuple[float, ...]:
    """The validated cutpoints. JAX arrays stay arrays, so that they can be differentiated."""
    if isinstance(values, jax.core.Tracer):
        return values
    cuts = np.asarray(values, dtype=float)
    if cuts.ndim != 1 or not cuts.size or not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
        raise ConfigurationError(
            "cutpoints must be finite and strictly increasing, one fewer than there are classes; got "
            f"{cuts.tolist()}"
        )
    return values if isinstance(values, jax.Array) else tuple(cuts.tolist())


class Ordinal(ClassLikelihood):
    """One logit for K ordered classes: the cumulative logit, P(y ≤ k) = σ(c_k − f) (McCullagh 1980).

    With a = c_k − f and b = c_{k−1} − f the ends of class k (±∞ for the outer ones),
    p_k = σ(a) − σ(b) = σ(a) σ(−b) (1 − e^{b − a}), a product that is accurate in both tails. So
    log p_k is a constant plus two log-sigmoids: r = σ(b) − σ(−a) and W = σ'(a) + σ'(b).

    Targets are class indices, (n, 1): labels must be hard. Classes are ordered as the data's
    class_names.

    Args:
        cutpoints: c_1 < … < c_{K−1}, in units of the logit.

    Raises:
        ConfigurationError: the cutpoints are not finite and strictly increasing.
    """

    cutpoints: Float[Array, " cuts"] | tuple[float, ...] = eqx.field(converter=_cutpoints)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.cutpoints) + 1

    def encode_classes(self, targets: ClassProbabilities) -> Logits:
        if targets.shape[1] != self.num_classes:
            raise DataError(
                f"{len(self.cutpoints)} cutpoints are for {self.num_classes} classes, but the data have "
                f"{targets.shape[1]}; give one cutpoint fewer than there are classes"
            )
        labels = jnp.argmax(targets, axis=1)
        soft = jnp.flatnonzero(jnp.max(targets, axis=1) != 1)
        if soft.size:
            row = int(soft[0])
            raise DataError(
                f"an Ordinal likelihood takes labels, but the targets of point {row} are the "
                f"probabilities {np.asarray(targets[row]).tolist()}; do not smooth them"
            )
        return labels[:, None].astype(float)

    def decode(self, targets: Logits) -> ClassProbabilities:
        return jax.nn.one_hot(targets[:, 0].astype(int), self.num_classes)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        above, below, index = self._ends(targets, logits)
        inside = jax.nn.log_sigmoid(above) + jax.nn.log_sigmoid(-below)
        return inside[:, 0] + self._log_gaps[index]

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        above, below, _ = self._ends(targets, logits)
        return jax.nn.sigmoid(below) - jax.nn.sigmoid(-above)

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        above, below, _ = self._ends(targets, logits)
        diagonal = _logistic_density(above) + _logistic_density(below)
        return StructuredCurvature(diagonal, coupled=False)

    @property
    def curvature_bound(self) -> float:
        return 0.25 if self.num_classes == 2 else 0.5

    def interpolant(self, targets: Logits) -> Logits:
        index = targets[:, 0].astype(int)
        outer = jnp.flatnonzero((index == 0) | (index == self.num_classes - 1))
        if outer.size:
            raise RidgeError(
                f"with ridge = 0 the logit of point {int(outer[0])}, of the first or the last class, "
                "grows without bound as log t: use a ridge > 0, or stop at a finite training_time"
            )
        lower, upper = self._bounds
        return ((lower[index] + upper[index]) / 2)[:, None]

    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        latent = logits + jax.random.logistic(key, logits.shape, logits.dtype)
        cuts = jnp.asarray(self.cutpoints).reshape(*[1] * (logits.ndim - 1), -1)
        return jnp.sum(latent > cuts, axis=-1, keepdims=True).astype(logits.dtype)

    def probabilities(self, logits: Stack) -> ClassProbabilities:
        return jnp.exp(self.log_probabilities(logits))

    def log_probabilities(self, logits: Stack) -> ClassProbabilities:
        def along_classes(values: Float[Array, " classes"]) -> Float[Array, "..."]:
            return values.reshape(*[1] * (logits.ndim - 1), -1)

        lower, upper = (along_classes(end) for end in self._bounds)
        inside = jax.nn.log_sigmoid(upper - logits) + jax.nn.log_sigmoid(logits - lower)
        return inside + along_classes(self._log_gaps)

    @property
    def _bounds(self) -> tuple[Float[Array, " classes"], Float[Array, " classes"]]:
        """Lower and upper end of each class, in units of the logit."""
        cuts, end = jnp.asarray(self.cutpoints), jnp.full(1, jnp.inf)
        return jnp.concatenate([-end, cuts]), jnp.concatenate([cuts, end])

    @property
    def _log_gaps(self) -> Float[Array, " classes"]:
        """log(1 − e^{c_{k−1} − c_k}): 0 for the two classes at the ends."""
        inner = jnp.log(-jnp.expm1(-jnp.diff(jnp.asarray(self.cutpoints))))
        return jnp.pad(inner, 1)

    def _ends(self, targets: Logits, logits: Logits) -> tuple[Logits, Logits, Int[Array, " n"]]:
        """a and b at each point, and its class index."""
        lower, upper = self._bounds
        index = targets[:, 0].astype(int)
        return upper[index][:, None] - logits, lower[index][:, None] - logits, index


def _logistic_density(x: Logits) -> Logits:
    """σ(x) σ(−x), from exp(−|x|): σ(x) (1 − σ(x)) is 0 beyond x = 37."""
    tail = jnp.exp(-jnp.abs(x))
    return jnp.minimum(tail / (1 + tail) ** 2, 0.25)  # round-off can exceed it at tiny x


def _refuse_divergence(is_degenerate: bool) -> None:
    if is_degenerate:
        raise RidgeError(
            "with ridge = 0 and targets that give some class probability 0 (such as one-hot labels) "
            "training never ends: the logits, and with them the NTK, grow without bound as log t. "
            "Use a ridge > 0, smooth the targets (data.smooth(0.1), --smoothing 0.1), or stop at a "
            "finite training_time"
        )
