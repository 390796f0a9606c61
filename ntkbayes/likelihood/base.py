"""The interface of likelihoods."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.arguments import require
from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.linalg import Curvature, Logits, Portable

PerPoint = Float[Array, " n"]
Stack = Float[Array, "*draws n classes"]
ClassProbabilities = Float[Array, "*draws n labels"]


class Likelihood(Configured, Portable, eqx.Module):
    """log p(y | f), its derivatives in f, and its flat directions.

    `is_flat`: p(y | f) is invariant to adding a constant to all logits of a point.
    """

    is_flat: ClassVar[bool] = False

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

    def project(self, v: Stack) -> Stack:
        """v without its component along the flat directions."""
        return v

    def of_classes(self) -> "ClassLikelihood":
        """This likelihood as one of class labels. Raises ConfigurationError if it is not."""
        raise ConfigurationError(
            f"class probabilities need a likelihood of classes, not {type(self).__name__}; predict, "
            "log_predictive_density and replicates take any"
        )


def require_likelihood(call: str, name: str, value: Any) -> None:
    """Raises ArgumentError unless the value is a `Likelihood`; see `arguments.require`."""
    require(
        call, name, value, Likelihood, lambda given: "give one, such as nb.likelihood.Categorical()"
    )


class ClassLikelihood(Likelihood):
    """A likelihood of class labels."""

    def encode(self, data: Dataset) -> Logits:
        if data.class_names is None:
            raise DataError("the data have real targets, not classes; use a Normal likelihood")
        return self.encode_classes(jnp.asarray(data.targets))

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
