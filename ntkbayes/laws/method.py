"""What a method is: how a law is obtained from a prior and data."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.kind import Kind
from ntkbayes.laws.law import Law
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.linalg import num_shares
from ntkbayes.memory import NUMBER, Memory
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.training.matrices import training_matrices


class Method[LawT: Law](eqx.Module):
    """How to obtain a law.

    Attributes:
        name: what tables call its laws by default.
        kind: what its laws are.
    """

    name: ClassVar[str]
    kind: eqx.AbstractClassVar[Kind]

    def fit(
        self,
        prior: NTKPrior,
        data: Dataset,
        *,
        key: PRNGKeyArray | None = None,
        likelihood: Likelihood | None = None,
    ) -> LawT:
        """The law, for a prior and training data.

        Args:
            prior: what the network is before training.
            data: training data.
            key: randomness, for the methods that draw (the others ignore it).
            likelihood: how logits give rise to targets. By default one logit for two classes,
                softmax for more, Normal for real targets.

        Raises:
            PrecisionError: JAX is not in float64.
            RidgeError: the ridge is 0 where the law does not exist.
            ConvergenceError: a solve did not reach its tolerance.
            NotPositiveDefiniteError: the kernel is not positive definite.
            ConfigurationError: a method that draws was given no key.
        """
        return self.solve(self.problem(prior, data, likelihood), key)

    def problem(self, prior: NTKPrior, data: Dataset, likelihood: Likelihood | None) -> Problem:
        """What `solve` is given, if there is memory for it. Arguments and errors are those of `fit`."""
        if self.interpolates(prior):
            data = data.merged()
        self.memory(prior, data, likelihood=likelihood).require()
        return Problem.build(prior, data, likelihood)

    def memory(
        self, prior: NTKPrior, data: Dataset, *, likelihood: Likelihood | None = None
    ) -> Memory:
        """Peak memory of `fit` per device; `fit` refuses if there is less.

        Operators, and what real networks need to train, are not counted.
        """
        likelihood = default_likelihood(data) if likelihood is None else likelihood
        num_points, num_outputs = likelihood.encode(data).shape
        who = f"{self.name}, {num_points} points, {num_outputs} outputs"
        rows, outputs = num_points, num_outputs
        if prior.kernel.num_outputs(jnp.asarray(data.features)) is not None:  # it couples them
            rows, outputs = num_points * num_outputs, 1
            if not prior.kernel.is_formed(rows):
                return Memory(who, num_points, {})
        matrices = {"K and Θ": 2.0, **self.matrices(rows, outputs)}
        share = NUMBER * rows**2 / num_shares()
        if jax.default_backend() == "cpu":
            share *= jax.local_device_count() if num_shares() > 1 else 1
        parts = {what: count * share for what, count in matrices.items()}
        parts["draws"] = NUMBER * self.num_kept * num_points * num_outputs
        return Memory(who, num_points, parts)

    def matrices(self, rows: int, num_outputs: int) -> dict[str, float]:
        """How many float64 matrices of the size of Θ(X, X) there are at the peak besides K and Θ, by
        purpose. By default those of training one predictor.

        Args:
            rows: of Θ(X, X).
            num_outputs: C, or 1 where Θ couples the outputs.
        """
        return training_matrices(rows, num_outputs)

    @property
    def num_kept(self) -> int:
        """How many arrays of (n, C) numbers the draws take."""
        return 0

    def interpolates(self, prior: NTKPrior) -> bool:
        """Whether training reproduces the targets. Then duplicated points act as one point with
        the mean of their targets, and have to be one, for Θ to be invertible."""
        return float(prior.ridge) == 0

    @abc.abstractmethod
    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> LawT:
        """`fit` with the data encoded and the Grams evaluated."""

    def require_key(self, key: PRNGKeyArray | None) -> PRNGKeyArray:
        """Raises ConfigurationError if there is none."""
        if key is None:
            raise ConfigurationError(
                f"{type(self).__name__} draws at random: give key=jax.random.key(0)"
            )
        return key
