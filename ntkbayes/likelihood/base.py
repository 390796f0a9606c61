"""What a likelihood is."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.errors import DataError
from ntkbayes.linalg import Curvature, Logits, Portable

PerPoint = Float[Array, " n"]
Stack = Float[Array, "*draws n classes"]
ClassProbabilities = Float[Array, "*draws n labels"]


class Likelihood(Portable, eqx.Module):
    """log p(y | f), its derivatives in f, and what is special about its flat directions.

    `is_flat` says whether a constant added to all logits of a point changes nothing.
    """

    is_flat: ClassVar[bool] = False

    @abc.abstractmethod
    def encode(self, data: Dataset) -> Logits:
        """The data's targets as this likelihood takes them, (n, C). Raises DataError if it cannot."""

    @abc.abstractmethod
    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        """log p(y_i | f_i); for soft targets minus the cross-entropy."""

    @abc.abstractmethod
    def residual(self, targets: Logits, logits: Logits) -> Logits:
        """∂ log p(y | f) / ∂f: for cross-entropy the targets less the probabilities."""

    @abc.abstractmethod
    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        """W = −∂² log p / ∂f²."""

    @property
    @abc.abstractmethod
    def curvature_bound(self) -> float:
        """No less than any eigenvalue of W at any logits; infinite if there is no bound."""

    @property
    def unit(self) -> Float[Array, ""] | float:
        """The change of a logit that matters to the likelihood, at the least: 1/√curvature_bound, or 1
        where there is no bound."""
        return self.curvature_bound**-0.5 if self.curvature_bound < float("inf") else 1.0

    @abc.abstractmethod
    def interpolant(self, targets: Logits) -> Logits:
        """The logits of zero residual, for training without ridge. Raises RidgeError if infinite."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        """Targets drawn from p(y | f) at each of the logits, (..., n, C), as `encode` gives them."""

    def project(self, v: Stack) -> Stack:
        """v without its part along directions in which the likelihood is flat."""
        return v


class ClassLikelihood(Likelihood):
    """A likelihood of class labels."""

    def encode(self, data: Dataset) -> Logits:
        if data.class_names is None:
            raise DataError("the data have real targets, not classes; use a Normal likelihood")
        return self.encode_classes(jnp.asarray(data.targets))

    @abc.abstractmethod
    def encode_classes(self, targets: ClassProbabilities) -> Logits:
        """Targets on the simplex, (n, K), as this likelihood takes them, (n, C). Raises DataError."""

    @abc.abstractmethod
    def decode(self, targets: Logits) -> ClassProbabilities:
        """Targets on the simplex, (n, K), of those that `encode_classes` gave."""

    @abc.abstractmethod
    def probabilities(self, logits: Stack) -> ClassProbabilities:
        """Class probabilities (..., n, K)."""

    def log_probabilities(self, logits: Stack) -> ClassProbabilities:
        """Their logarithms, in nats."""
        return jnp.log(self.probabilities(logits))
