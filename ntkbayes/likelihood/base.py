"""The interface of likelihoods."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.arguments import require
from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.linalg import Curvature, Logits, Portable, require_float64
from ntkbayes.ranges import Number, Range

PerPoint = Float[Array, " n"]
Stack = Float[Array, "*draws n classes"]
ClassProbabilities = Float[Array, "*draws n labels"]


class Likelihood(Configured, Portable, eqx.Module):
    """log p(y | f), its derivatives in f, and its flat directions.

    `is_flat`: p(y | f) is invariant to adding a constant to all logits of a point. `temperature`: of a
    likelihood made by `tempered`; 1 for all others. `is_log_concave`: there are laws only for those that
    are.
    """

    is_flat: ClassVar[bool] = False
    is_log_concave: ClassVar[bool] = True
    temperature: ClassVar[float] = 1.0

    @abc.abstractmethod
    def encode(self, data: Dataset) -> Logits:
        """The data's targets, encoded as (n, C). Raises DataError for targets of the wrong kind."""

    @abc.abstractmethod
    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        """log p(y_i | f_i); for soft targets, minus the cross-entropy."""

    @abc.abstractmethod
    def residual(self, targets: Logits, logits: Logits) -> Logits:
        """∂ log p(y | f) / ∂f; for cross-entropy, targets minus probabilities."""

    @abc.abstractmethod
    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        """W = −∂² log p / ∂f²."""

    @property
    @abc.abstractmethod
    def curvature_bound(self) -> float:
        """An upper bound on the eigenvalues of W at any logits; infinite if there is none."""

    @property
    def unit(self) -> Float[Array, ""] | float:
        """The smallest change of a logit that matters to the likelihood: 1/√curvature_bound, or 1
        without a bound."""
        return self.curvature_bound**-0.5 if self.curvature_bound < float("inf") else 1.0

    @property
    def scale(self) -> Float[Array, ""] | float:
        """The natural scale of a logit: 1 for log odds and log rates, the noise of real targets."""
        return 1.0

    @abc.abstractmethod
    def interpolant(self, targets: Logits) -> Logits:
        """The logits with zero residual, where training without ridge ends. Raises RidgeError if they
        are infinite."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        """Draws from p(y | f) at the logits, (..., n, C), in the encoding of `encode`."""

    def total_variation(self, a: Stack, b: Stack) -> Float[Array, "*draws n"]:
        """Between p(y | a) and p(y | b) at each point, in [0, 1].

        By default an upper bound: half of √curvature_bound times the distance of the logits. (The
        Kullback–Leibler divergence is at most curvature_bound/2 times its square, and Pinsker's
        inequality does the rest.)

        Raises:
            ConfigurationError: there is no curvature bound.
        """
        bound = self.curvature_bound
        if bound == float("inf"):
            raise ConfigurationError(
                f"the distance between the predictions of a {type(self).__name__} likelihood is known "
                "only by a bound on its curvature: give it a curvature_bound"
            )
        apart = jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1))
        return jnp.minimum(jnp.sqrt(bound).astype(apart.dtype) * apart / 2, 1.0)

    def project(self, v: Stack) -> Stack:
        """v without its component along the flat directions."""
        return v

    def of_classes(self) -> "ClassLikelihood":
        """This likelihood as one of class labels. Raises ConfigurationError if it is not."""
        raise ConfigurationError(
            f"class probabilities need a likelihood of classes, not {type(self).__name__}; predict, "
            "log_predictive_density and replicates take any"
        )

    @property
    def untempered(self) -> "Likelihood":
        """The likelihood of new targets: this one, or that which was tempered."""
        return self

    def tempered(self, temperature: Number) -> "Likelihood":
        """p(y | f)^(1/T): fitted with it, every law is that of the loss divided by T, and every law of
        Bayes a tempered posterior, cold for T < 1 (THEORY 9). At T = 1 the likelihood itself.

        Raises:
            ConfigurationError: T is not a positive, finite number, or JAX is tracing it.
        """
        return self if _temperature(temperature) == 1 else Tempered(self, temperature)


class Tempered(Likelihood):
    """p(y | f)^(1/T), made by `Likelihood.tempered`: of a tempered posterior (THEORY 9).

    Fits see log density, residual and curvature divided by T. Targets and predictions are those of the
    likelihood itself, `untempered`: p^(1/T) is no density of the targets, so it predicts nothing and
    has no evidence.

    Attributes:
        likelihood: p.
        temperature: T, an array, so that another temperature does not recompile.
    """

    likelihood: Likelihood
    temperature: Float[Array, ""]  # type: ignore[assignment, misc]

    def __init__(self, likelihood: Likelihood, temperature: Number):
        require_float64()
        self.likelihood = likelihood
        self.temperature = jnp.asarray(_temperature(temperature))

    @property
    def is_flat(self) -> bool:  # type: ignore[override]
        """That of the likelihood itself."""
        return self.likelihood.is_flat

    @property
    def is_log_concave(self) -> bool:  # type: ignore[override]
        """That of the likelihood itself."""
        return self.likelihood.is_log_concave

    @property
    def untempered(self) -> Likelihood:
        return self.likelihood

    def tempered(self, temperature: Number) -> Likelihood:
        """At T times this temperature."""
        whole = _temperature(temperature) * float(self.temperature)
        return self.likelihood.tempered(whole)

    def encode(self, data: Dataset) -> Logits:
        return self.likelihood.encode(data)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return self._cooled(self.likelihood.log_density(targets, logits))

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        return self._cooled(self.likelihood.residual(targets, logits))

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        temperature = self.temperature.astype(logits.dtype)
        return self.likelihood.curvature(targets, logits) / temperature

    @property
    def curvature_bound(self) -> Any:
        return self.likelihood.curvature_bound / self.temperature

    @property
    def unit(self) -> Any:
        return jnp.sqrt(self.temperature) * self.likelihood.unit

    @property
    def scale(self) -> Any:
        return self.likelihood.scale

    def interpolant(self, targets: Logits) -> Logits:
        return self.likelihood.interpolant(targets)

    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        """Draws from p(y | f) itself."""
        return self.likelihood.sample(key, logits)

    def total_variation(self, a: Stack, b: Stack) -> Float[Array, "*draws n"]:
        """Between predictions, which are those of the likelihood itself."""
        return self.likelihood.total_variation(a, b)

    def project(self, v: Stack) -> Stack:
        return self.likelihood.project(v)

    def of_classes(self) -> "ClassLikelihood":
        """The likelihood itself, of predictions."""
        return self.likelihood.of_classes()

    def _cooled(self, values: Float[Array, "..."]) -> Float[Array, "..."]:
        """Divided by T, in the values' own precision."""
        return values / self.temperature.astype(values.dtype)


def _temperature(value: Number) -> float:
    """The validated temperature.

    Raises:
        ConfigurationError: it is not a positive, finite number, or JAX is tracing it.
    """
    if isinstance(value, jax.core.Tracer):
        raise ConfigurationError(
            "the temperature must be a number, but JAX is tracing it: temper the likelihood outside of "
            "what is compiled or differentiated"
        )
    return float(ranges.real("the temperature", value, Range.POSITIVE_FINITE))


def require_likelihood(call: str, name: str, value: Any) -> None:
    """Raises ArgumentError unless the value is a `Likelihood`; see `arguments.require`."""
    require(
        call, name, value, Likelihood, lambda given: "give one, such as nb.likelihood.Categorical()"
    )


def require_untempered(what: str, likelihood: Likelihood | None) -> None:
    """Raises ConfigurationError if the likelihood is tempered, for what needs densities of targets."""
    if isinstance(likelihood, Tempered):
        raise ConfigurationError(
            f"{what} needs p(y | f), but the likelihood is at temperature "
            f"{float(likelihood.temperature):g}, and p^(1/T) is no density of the targets: use "
            "likelihood.untempered, or compare temperatures by nb.cross_validated_nll"
        )


class ClassLikelihood(Likelihood):
    """A likelihood of class labels."""

    def encode(self, data: Dataset) -> Logits:
        if data.class_names is None:
            raise DataError("the data have real targets, not classes; use a Normal likelihood")
        return self.encode_classes(jax.device_put(data.targets))

    def of_classes(self) -> "ClassLikelihood":
        return self

    @abc.abstractmethod
    def encode_classes(self, targets: ClassProbabilities) -> Logits:
        """Encode targets on the simplex, (n, K), as (n, C). Raises DataError as `encode` does."""

    @abc.abstractmethod
    def decode(self, targets: Logits) -> ClassProbabilities:
        """Undo `encode_classes`: targets on the simplex, (n, K)."""

    @abc.abstractmethod
    def probabilities(self, logits: Stack) -> ClassProbabilities:
        """Class probabilities (..., n, K)."""

    def log_probabilities(self, logits: Stack) -> ClassProbabilities:
        """Log class probabilities (..., n, K), in nats."""
        return jnp.log(self.probabilities(logits))

    def total_variation(self, a: Stack, b: Stack) -> Float[Array, "*draws n"]:
        """Half the sum of the differences between class probabilities."""
        return jnp.sum(jnp.abs(self.probabilities(a) - self.probabilities(b)), axis=-1) / 2
