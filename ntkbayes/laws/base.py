"""What a law and a method are.

Every law of this library is one formula. A draw is the logit function

    f(x) = mean(x) + g(x) + Θ(x, X) α                                                    (pathwise)

with g a path of a centred Gaussian process and α weights on the n training points X, both random and
possibly dependent. What tells the laws apart is the process of g and how α answers to it:

    prior         g ~ GP(0, Θ/ridge)         α = 0
    MAP           no g                       α of the shifted network
    random init   g ~ GP(0, K)               α solves training from f0 = mean + g
    first order   g ~ GP(0, K)               α answers to first order in g
    perturbed init g ~ GP(0, Θ/ridge)        α solves training from f0 = mean + g, with gradient noise
    Laplace       g ~ GP(0, Θ/ridge)         α answers to first order in g, with likelihood noise;
                                             so in every Gaussian posterior (see `posterior`)
    NUTS          g ~ GP(0, Θ/ridge) given the data, by Markov chains      α = 0

So functions are drawn jointly at any inputs, new ones included, by exact conditioning of g on its
values at X (see `paths`): nothing is interpolated and no covariance over all logits is formed. With
the kernel of a finite network, g is a real network at initialisation, or J ε in its tangent space.
"""

import abc
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.datasets import Columns, Dataset, read_inputs
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import KernelPair
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.linalg import (
    Block,
    Draws,
    Gram,
    Logits,
    Portable,
    largest,
    num_shares,
    require_shares,
    symmetric_roots,
)
from ntkbayes.memory import NUMBER, Memory
from ntkbayes.priors import paths
from ntkbayes.priors.paths import Path, Process
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import whole
from ntkbayes.training.linearised import TrainedPredictors
from ntkbayes.training.matrices import training_matrices

Inputs = Any
"""Inputs to predict at: a `Dataset`, a data frame with the training data's columns, or an array (m, d)
on the scale of the training features."""


@dataclass(frozen=True)
class Info:
    """Diagnostics of a fit, kept apart from the law it found."""


@dataclass(frozen=True)
class TrainingInfo(Info):
    """worst_residual: the largest max |ridge α − r(f*)| of all draws, in units of probability (at a
    finite training time: the largest |dα/dt|, which need not be small). worst_logit_error: of any
    draw's logits at the training points, at most; NaN at a finite training time. mean_iterations and
    max_iterations: steps of conjugate gradients (or of the ODE) per draw."""

    worst_residual: float
    worst_logit_error: float
    mean_iterations: float
    max_iterations: int

    @classmethod
    def of(cls, trained: TrainedPredictors) -> "TrainingInfo":
        """Of many draws."""
        counts = trained.num_iterations
        worst, error = float(largest(trained.residual)), float(np.max(trained.logit_error))
        return cls(worst, error, float(jnp.mean(counts)), int(jnp.max(counts)))


class Paths(NamedTuple):
    """Draws of (g, α); g is None for a law without it."""

    g: Path | None
    alpha: Draws


class Problem(Portable, eqx.Module):
    """What a method is given: prior, training data, likelihood and the Grams they share."""

    prior: NTKPrior
    likelihood: Likelihood
    features: Float[Array, "n ..."]
    targets: Logits
    mean: Logits
    gram: KernelPair
    class_names: tuple[Hashable, ...] | None = eqx.field(static=True)
    columns: Columns = eqx.field(static=True)

    @classmethod
    def build(cls, prior: NTKPrior, data: Dataset, likelihood: Likelihood | None) -> "Problem":
        if likelihood is None:
            likelihood = default_likelihood(data)
        targets = likelihood.encode(data)
        features = jnp.asarray(data.check_features(data))
        size = targets.shape[1]
        known = prior.kernel.num_outputs(features)
        if known not in (None, size):
            raise ConfigurationError(
                f"the network has {known} outputs, but {type(likelihood).__name__} takes {size} of "
                f"these data; make the network with {size}, or choose another likelihood"
            )
        require_shares(len(features))
        mean = prior.mean_logits(features, size)
        if not bool(jnp.isfinite(mean).all()):
            raise ConfigurationError("the prior's mean is not finite at some training points")
        prior.require_covariance(features)
        gram = prior.gram(features)
        return cls(prior, likelihood, features, targets, mean, gram, data.class_names, data.columns)

    @property
    def ridge(self) -> float:
        return float(self.prior.ridge)

    @property
    def num_outputs(self) -> int:
        """C."""
        return self.targets.shape[1]

    def read(self, inputs: Inputs) -> Float[Array, "m ..."]:
        """New inputs in the order and on the scale of the training features; see `read_inputs`."""
        return jnp.asarray(read_inputs(self.columns, inputs))

    @property
    def prior_gram(self) -> Gram:
        """P = Θ(X, X) / ridge."""
        return self.gram.ntk / self.ridge

    @property
    def initial_process(self) -> Process:
        """The law of the initial function less its mean."""
        return paths.initial_process(self.prior, self.features, self.gram, self.num_outputs)

    @property
    def tangent_process(self) -> Process:
        """The prior of Bayes less its mean, GP(0, Θ/ridge)."""
        return paths.tangent_process(self.prior, self.features, self.gram, self.num_outputs)


class Law(Portable, abc.ABC):
    """A distribution over logit functions, obtained by a method from a prior and data.

    Attributes:
        is_posterior: whether its draws are the posterior's, but for Monte Carlo error: a point can then
            be left out by weighing them.
        problem: prior, likelihood and training data.
        sampling: how draws come about: "point", "independent initialisations", "independent
            perturbed initialisations", "independent draws of a Gaussian", "importance resampling" or
            "Markov chains".
        num_chains: Markov chains among the draws, in order; 1 for independent draws.
        info: diagnostics of the fit, each field explained where its class is defined.
    """

    sampling: ClassVar[str]
    is_posterior: ClassVar[bool] = False
    default_draws: ClassVar[int] = 1000

    problem: Problem
    info: Info
    num_chains: int = 1

    @abc.abstractmethod
    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        """Draws of (g, α); all that are stored, or `default_draws`, if num_draws is None."""

    @abc.abstractmethod
    def mean(self, features: Inputs) -> Float[Array, "m classes"]:
        """Mean logits."""

    @abc.abstractmethod
    def covariance(self, features: Inputs) -> Float[Array, "m classes classes"]:
        """Covariance of the logits of each input."""

    def joint_covariance(self, features: Inputs) -> Float[Array, "rows rows"]:
        """Covariance of all logits at all inputs, (m C, m C): rows run through points, then outputs.

        Raises:
            ConfigurationError: the law is known by its draws, not by a formula.
        """
        raise ConfigurationError(
            f"a law of {self.sampling} is known by its draws, and its joint covariance by no formula: "
            "estimate it from sample(), or fit a Gaussian law, such as Laplace"
        )

    def variance(self, features: Inputs) -> Float[Array, "m classes"]:
        """Marginal variance of each logit."""
        return jnp.diagonal(self.covariance(features), axis1=1, axis2=2)

    def sample(
        self,
        key: PRNGKeyArray,
        features: Inputs,
        num_draws: int | None = None,
    ) -> Float[Array, "draws m classes"]:
        """Logit functions drawn from the law, jointly at all inputs.

        Args:
            key: same key, same draws.
            features: inputs, (m, d): a data set, a data frame with the columns of the training data in
                any order, or an array on the scale of the training features.
            num_draws: how many; all stored draws if None (1000 for a law with a formula).

        Raises:
            ConfigurationError: more draws are asked for than the law holds, or none.
            DataError: the features have other columns or another scale than those trained on, or
                are not finite.
        """
        _require_draws(num_draws)
        path_key, new_key = jax.random.split(key)
        g, alpha = self.paths(path_key, num_draws)
        features = self._inputs(features)
        logits = self._trained(features, alpha)
        return logits if g is None else logits + g.at(new_key, features)

    def sample_marginals(
        self,
        key: PRNGKeyArray,
        features: Inputs,
        num_draws: int | None = None,
    ) -> Float[Array, "draws m classes"]:
        """Logits drawn at each input by itself, where they are distributed as those of `sample`.

        An input's draws depend on no other input, up to round-off, and m inputs cost O(m n²), where
        joint ones cost O(m³). Arguments and errors are those of `sample`.
        """
        _require_draws(num_draws)
        path_key, new_key = jax.random.split(key)
        g, alpha = self.paths(path_key, num_draws)
        features = self._inputs(features)
        logits = self._trained(features, alpha)
        if g is None:
            return logits
        means, left = g.given(features)
        noise = jax.random.normal(new_key, (alpha.shape[0], alpha.shape[2]))
        return logits + means + jnp.einsum("mcd,sd->smc", symmetric_roots(left), noise)

    def _trained(
        self, features: Inputs, alpha: Float[Array, "*draws n classes"]
    ) -> Float[Array, "*draws m classes"]:
        """mean(x) + Θ(x, X) α: all of a draw but g."""
        prior = self.problem.prior
        cross = prior.cross(features, self.problem.features)
        mean = prior.mean_logits(features, self.problem.num_outputs)
        return _shifted(mean, cross.ntk, alpha)

    def _inputs(self, features: Inputs) -> Float[Array, "m ..."]:
        return self.problem.read(features)


@eqx.filter_jit
def _shifted(
    mean: Float[Array, "m classes"], block: Block, alpha: Float[Array, "*draws n classes"]
) -> Float[Array, "*draws m classes"]:
    trained = block @ alpha
    return jnp.broadcast_to(mean, trained.shape) + trained


class Method[LawT: Law](eqx.Module):
    """Configuration of how to obtain a law."""

    name: ClassVar[str]

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
        if self.interpolates(prior):
            data = data.merged()
        self.memory(prior, data, likelihood=likelihood).require()
        return self.solve(Problem.build(prior, data, likelihood), key)

    def memory(
        self, prior: NTKPrior, data: Dataset, *, likelihood: Likelihood | None = None
    ) -> Memory:
        """What `fit` will need at its peak, a device; `fit` refuses if it is not there.

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
        """How many float64 matrices of the size of Θ(X, X) there are at the peak, beside K and Θ, by
        what they are for. By default those of training one predictor.

        Args:
            rows: of Θ(X, X).
            num_outputs: C, or 1 where Θ couples the outputs.
        """
        return training_matrices(rows, num_outputs)

    @property
    def num_kept(self) -> int:
        """Arrays of (n, C) numbers that the draws take."""
        return 0

    def interpolates(self, prior: NTKPrior) -> bool:
        """Whether training reproduces the targets. Then duplicated points act as one point with
        the mean of their targets, and have to be one, for Θ to be invertible."""
        return float(prior.ridge) == 0

    @abc.abstractmethod
    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> LawT:
        """`fit` with the data encoded and the Grams evaluated."""

    def _require_key(self, key: PRNGKeyArray | None) -> PRNGKeyArray:
        if key is None:
            raise ConfigurationError(
                f"{type(self).__name__} draws at random: give key=jax.random.key(0)"
            )
        return key


class SampledLaw(Law):
    """A law known by draws of (g, α): g is given at X, and exactly Gaussian away from it."""

    def __init__(self, problem: Problem, g: Path, alpha: Draws, info: Info, num_chains: int = 1):
        self.problem = problem
        self.g = g
        self.alpha = alpha
        self.info = info
        self.num_chains = num_chains

    @property
    def num_draws(self) -> int:
        return self.alpha.shape[0]

    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        if num_draws is None or num_draws == self.num_draws:
            return Paths(self.g, self.alpha)
        if not 0 < num_draws < self.num_draws:
            raise ConfigurationError(
                f"the law holds {self.num_draws} draws, {num_draws} were asked for; fit it with more"
            )
        # Evenly spaced, so that every chain is represented alike.
        chosen = jnp.asarray(np.arange(num_draws) * self.num_draws // num_draws)
        return Paths(self.g.chosen(chosen), jnp.take(self.alpha, chosen, axis=0))

    def _given_draws(
        self, features: Float[Array, "m ..."]
    ) -> tuple[Draws, Float[Array, "m classes classes"]]:
        """Mean of f at the inputs given each draw, and the covariance left to g."""
        means, left = self.g.given(features)
        return self._trained(features, self.alpha) + means, left

    def mean(self, features: Inputs) -> Array:
        return jnp.mean(self._given_draws(self._inputs(features))[0], axis=0)

    def covariance(self, features: Inputs) -> Array:
        means, left = self._given_draws(self._inputs(features))
        return _scatter(means) + left


@jax.jit
def _scatter(draws: Draws) -> Float[Array, "m classes classes"]:
    """Their covariance at each input."""
    centred = draws - jnp.mean(draws, axis=0)[None]
    return jnp.einsum("smc,smd->mcd", centred, centred) / (draws.shape[0] - 1)


def _require_draws(num_draws: int | None) -> None:
    if num_draws is not None:
        whole("the number of draws", num_draws)
