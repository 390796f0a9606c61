"""Likelihoods: how logits give rise to targets. Training minimises −Σ log p, the cross-entropy.

All are log-concave in the logits f. Nothing is clipped. Shapes: targets and logits (n, C).
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError, DataError, RidgeError
from ntkbayes.linalg import Curvature, Logits

PerPoint = Float[Array, " n"]
Stack = Float[Array, "*draws n classes"]


class Likelihood(eqx.Module):
    """log p(y | f), its derivatives in f, and what is special about its flat directions.

    `is_flat` says whether a constant added to all logits of a point changes nothing.
    """

    is_flat: ClassVar[bool] = False

    @abc.abstractmethod
    def encode(self, data: Dataset) -> Logits:
        """The data's targets as this likelihood takes them. Raises DataError if it cannot."""

    @abc.abstractmethod
    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        """log p(y_i | f_i); for soft targets minus the cross-entropy."""

    @abc.abstractmethod
    def residual(self, targets: Logits, logits: Logits) -> Logits:
        """∂ log p(y | f) / ∂f: for cross-entropy the targets less the probabilities."""

    @abc.abstractmethod
    def curvature(self, logits: Logits) -> Curvature:
        """W = −∂² log p / ∂f²."""

    @property
    @abc.abstractmethod
    def curvature_bound(self) -> float:
        """The largest eigenvalue that W can have at any logits."""

    @abc.abstractmethod
    def interpolant(self, targets: Logits) -> Logits:
        """The logits of zero residual, for training without ridge. Raises RidgeError if infinite."""

    def project(self, v: Stack) -> Stack:
        """v without its part along directions in which the likelihood is flat."""
        return v


class ClassLikelihood(Likelihood):
    """A likelihood of class labels."""

    @abc.abstractmethod
    def probabilities(self, logits: Stack) -> Array:
        """Class probabilities (..., n, number of classes)."""


class Categorical(ClassLikelihood):
    """Softmax of one logit a class."""

    is_flat: ClassVar[bool] = True

    def encode(self, data: Dataset) -> Logits:
        _require_classes(data)
        return jnp.asarray(data.targets)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return jnp.sum(targets * jax.nn.log_softmax(logits, axis=1), axis=1)

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        return targets - jax.nn.softmax(logits, axis=1)

    def curvature(self, logits: Logits) -> Curvature:
        return Curvature(jax.nn.softmax(logits, axis=1), coupled=True)

    @property
    def curvature_bound(self) -> float:
        return 0.5  # diag(p) − p pᵀ at p = (½, ½, 0, …)

    def interpolant(self, targets: Logits) -> Logits:
        _refuse_divergence(bool(jnp.any(targets <= 0)))
        return self.project(jnp.log(targets))

    def project(self, v: Stack) -> Stack:
        return v - jnp.mean(v, axis=-1, keepdims=True)

    def probabilities(self, logits: Stack) -> Array:
        return jax.nn.softmax(logits, axis=-1)


class Bernoulli(ClassLikelihood):
    """One logit for the second of two classes (logistic link, not probit)."""

    def encode(self, data: Dataset) -> Logits:
        _require_classes(data)
        if data.num_classes != 2:
            raise DataError(
                f"a Bernoulli likelihood has two classes, the data have {data.num_classes}; "
                "use Categorical()"
            )
        return jnp.asarray(data.targets[:, 1:])

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return (targets * logits - jax.nn.softplus(logits))[:, 0]

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        return targets - jax.nn.sigmoid(logits)

    def curvature(self, logits: Logits) -> Curvature:
        # σ(f) σ(−f) by way of exp(−|f|): σ(f) (1 − σ(f)) would be 0 from f = 37 on.
        tail = jnp.exp(-jnp.abs(logits))
        return Curvature(tail / (1 + tail) ** 2, coupled=False)

    @property
    def curvature_bound(self) -> float:
        return 0.25

    def interpolant(self, targets: Logits) -> Logits:
        _refuse_divergence(bool(jnp.any((targets <= 0) | (targets >= 1))))
        return jnp.log(targets) - jnp.log1p(-targets)

    def probabilities(self, logits: Stack) -> Array:
        return jnp.concatenate([jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits)], axis=-1)


class Normal(Likelihood):
    """Real targets with Gaussian noise of standard deviation `noise_std`: squared loss.

    Every law is then a Gaussian process known in closed form, which tests the methods.
    """

    noise_std: float = eqx.field(default=1.0)

    def __check_init__(self) -> None:
        if isinstance(self.noise_std, int | float) and not self.noise_std > 0:
            raise ConfigurationError(f"noise_std must be positive; got {self.noise_std!r}")

    def encode(self, data: Dataset) -> Logits:
        if data.class_names is not None:
            raise DataError("a Normal likelihood takes real targets; make them with Dataset.real")
        return jnp.asarray(data.targets)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return jnp.sum(jax.scipy.stats.norm.logpdf(targets, logits, self.noise_std), axis=1)

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        return (targets - logits) / self.noise_std**2

    def curvature(self, logits: Logits) -> Curvature:
        return Curvature(jnp.full_like(logits, 1 / self.noise_std**2), coupled=False)

    @property
    def curvature_bound(self) -> float:
        return 1 / self.noise_std**2

    def interpolant(self, targets: Logits) -> Logits:
        return targets


def default_likelihood(data: Dataset) -> Likelihood:
    """One logit for two classes, softmax for more, Normal for real targets."""
    if data.class_names is None:
        return Normal()
    return Bernoulli() if data.num_classes == 2 else Categorical()


def _require_classes(data: Dataset) -> None:
    if data.class_names is None:
        raise DataError("the data have real targets, not classes; use a Normal likelihood")


def _refuse_divergence(is_degenerate: bool) -> None:
    if is_degenerate:
        raise RidgeError(
            "with ridge = 0 and targets that give some class probability 0 (such as one-hot labels) "
            "training never ends: the logits, and with them the NTK, grow without bound as log t. "
            "Use a ridge > 0, smooth the targets (data.smooth(0.1), --smoothing 0.1), or stop at a "
            "finite training_time"
        )
