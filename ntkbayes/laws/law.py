"""What a law is.

Every law of this library but one is one formula. A draw is the logit function

    f(x) = mean(x) + g(x) + Θ(x, X) α                                                    (pathwise)

with g a path of a centred Gaussian process and α weights on the n training points X, both random and
possibly dependent. What tells the laws apart is the process of g and how α responds to it:

    prior         g ~ GP(0, Θ/ridge)         α = 0
    MAP           no g                       α of the shifted network
    random init   g ~ GP(0, K)               α solves training from f0 = mean + g
    first order   g ~ GP(0, K)               α responds to first order in g
    perturbed init g ~ GP(0, Θ/ridge)        α solves training from f0 = mean + g, with gradient noise
    Laplace       g ~ GP(0, Θ/ridge)         α responds to first order in g, with likelihood noise;
                                             so does every Gaussian posterior (see `gaussian.posterior`)
    NUTS          g ~ GP(0, Θ/ridge) given the data, by Markov chains      α = 0

So functions are drawn jointly at any inputs, new ones included, by exact conditioning of g on its
values at X (see `priors.paths`): nothing is interpolated, and no covariance over all logits is formed.
With the kernel of a finite network, g is a real network at initialisation, or J ε in its tangent space.
The exception is `FullBayes`, each of whose draws has a kernel of its own.

Laws are pytrees: `jax.jit` takes them as arguments, `jax.vmap` maps over laws of equal shapes, and
pickle keeps them in float64.
"""

import abc
import math
from typing import Any, ClassVar, Generic, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.arguments import random_key, require
from ntkbayes.display import Sheet, Summarised, count
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.info import InfoT
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.problem import Inputs, Problem
from ntkbayes.laws.trace import Trace
from ntkbayes.likelihood import ClassLikelihood
from ntkbayes.linalg import Block, Draws, Logits, Portable, split_key, symmetric_roots, white_noise
from ntkbayes.priors.paths import Path
from ntkbayes.ranges import whole


class Moments(NamedTuple):
    """Of the logits of each input."""

    mean: Float[Array, "m classes"]
    covariance: Float[Array, "m classes classes"]


class Law(Summarised, Portable, eqx.Module, Generic[InfoT]):  # noqa: UP046 (covariant)
    """A distribution over logit functions, obtained by a method from a prior and data.

    Attributes:
        problem: prior, likelihood and training data.
        kind: what the law is, as its method declares.
        info: diagnostics of the fit.
        num_chains: Markov chains among the draws, in order; 1 for independent draws.
    """

    default_draws: ClassVar[int] = 1000

    problem: Problem
    kind: Kind = eqx.field(static=True)
    info: InfoT
    num_chains: int = eqx.field(static=True, default=1, kw_only=True)

    @property
    def _sheet(self) -> Sheet:
        facts = {**self.problem.facts, "draws": self._draws_in_words, **self.info.facts}
        return Sheet(f"law: {self.kind.name}", facts)

    @property
    def _draws_in_words(self) -> str:
        return f"any number, {self.kind.sampling}"

    @abc.abstractmethod
    def mean(self, features: Inputs) -> Float[Array, "m classes"]:
        """Mean logits."""

    @abc.abstractmethod
    def covariance(self, features: Inputs) -> Float[Array, "m classes classes"]:
        """Covariance of the logits of each input."""

    def moments(self, features: Inputs) -> Moments:
        """Mean and covariance of the logits of each input, by one evaluation where they share it."""
        return Moments(self.mean(features), self.covariance(features))

    @abc.abstractmethod
    def joint_covariance(self, features: Inputs) -> Float[Array, "rows rows"]:
        """Covariance of all logits at all inputs, (m C, m C): rows run through points, then outputs.

        Of a law known by its draws it is the scatter of their means given what is drawn, plus the mean
        of the conditional covariance; it is as accurate as the draws are many.
        """

    @abc.abstractmethod
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

    @abc.abstractmethod
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

    @property
    def trace(self) -> Trace:
        """What is known of each stored draw besides its function: nothing, unless chains drew it."""
        return Trace()

    def predict_proba(
        self, features: Inputs, *, key: PRNGKeyArray | None = None, num_draws: int | None = None
    ) -> Float[Array, "m classes"]:
        """Predictive class probabilities at inputs without targets: the mean over draws of
        `sample_marginals`, so that an input's probabilities depend on no other input.

        Args:
            features: as for `sample`.
            key: same key, same probabilities. A law that is a point needs none.
            num_draws: as for `sample`.

        Raises:
            ConfigurationError: the likelihood has no classes, there is no key, or more draws are asked
                for than the law holds.
            DataError: as `sample` does.
        """
        likelihood, inputs = self.problem.class_likelihood, self.problem.read(features)
        if key is None and self.kind.sampling is not Sampling.POINT:
            raise ConfigurationError(
                f"the probabilities of {self.kind.name} are a mean over draws: give "
                "key=jax.random.key(0)"
            )
        key = jax.random.key(0) if key is None else random_key(key)
        parts = []
        for start in range(0, max(1, len(inputs)), _INPUTS_AT_ONCE):
            part = inputs[start : start + _INPUTS_AT_ONCE]
            # The same key for each part: the same functions, as if all were one.
            draws = self.sample_marginals(jax.random.clone(key), part, num_draws)
            parts.append(mean_probabilities(likelihood, draws))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    def variance(self, features: Inputs) -> Float[Array, "m classes"]:
        """Marginal variance of each logit."""
        return jnp.diagonal(self.covariance(features), axis1=1, axis2=2)


_INPUTS_AT_ONCE = 500


@eqx.filter_jit
def mean_probabilities(
    likelihood: ClassLikelihood, draws: Float[Array, "draws m outputs"]
) -> Float[Array, "m classes"]:
    """The mean over draws of class probabilities."""
    mean = jnp.mean(likelihood.probabilities(draws), axis=0)
    return mean / jnp.sum(mean, axis=1, keepdims=True)


class Paths(NamedTuple):
    """Draws of (g, α); g is None for a law without it."""

    g: Path | None
    alpha: Draws


class PathwiseLaw(Law[InfoT]):
    """A law whose draws are (pathwise)."""

    @abc.abstractmethod
    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        """Draws of (g, α); all that are stored, or `default_draws`, if num_draws is None."""

    def sample(
        self, key: PRNGKeyArray, features: Inputs, num_draws: int | None = None
    ) -> Float[Array, "draws m classes"]:
        key, features = random_key(key), self.problem.read(features)
        g, alpha, new_key = self._drawn(key, num_draws)
        return self.trained(features, alpha, None if g is None else g.at(new_key, features))

    def sample_marginals(
        self, key: PRNGKeyArray, features: Inputs, num_draws: int | None = None
    ) -> Float[Array, "draws m classes"]:
        key, features = random_key(key), self.problem.read(features)
        g, alpha, new_key = self._drawn(key, num_draws)
        if g is None:
            return self.trained(features, alpha)
        means, left = g.given(features)
        noise = white_noise(new_key, (alpha.shape[0], alpha.shape[2]))
        rest = jnp.einsum("mcd,sd->smc", symmetric_roots(left), noise)
        return self.trained(features, alpha, means) + rest

    def _drawn(
        self, key: PRNGKeyArray, num_draws: int | None
    ) -> tuple[Path | None, Float[Array, "draws n classes"], PRNGKeyArray]:
        """g and α of each draw, and a key for what g leaves open."""
        if num_draws is not None:
            whole("the number of draws", num_draws)
        path_key, new_key = split_key(key)
        return *self.paths(path_key, num_draws), new_key

    def trained(
        self,
        features: Float[Array, "m ..."],
        alpha: Float[Array, "*draws n classes"],
        g: Float[Array, "*draws m classes"] | None = None,
    ) -> Float[Array, "*draws m classes"]:
        """g(x) + mean(x) + Θ(x, X) α, by default without g, at inputs that have been read."""
        prior = self.problem.prior
        cross = prior.cross(features, self.problem.features)
        mean = prior.mean_logits(features, self.problem.num_outputs)
        num_functions = math.prod(alpha.shape[:-2])
        return _shifted(mean, cross.ntk.for_functions(num_functions), alpha, g)


class PointLaw(PathwiseLaw[InfoT]):
    """All mass on one predictor: f(x) = mean(x) + Θ(x, X) α.

    Attributes:
        alpha: α, (n, C).
        logits: at the training points, (n, C).
    """

    alpha: Logits
    logits: Logits

    @property
    def _draws_in_words(self) -> str:
        return "none: all mass on one function"

    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        return Paths(None, jnp.broadcast_to(self.alpha[None], (num_draws or 1, *self.alpha.shape)))

    def mean(self, features: Inputs) -> Array:
        return self.trained(self.problem.read(features), self.alpha)

    def covariance(self, features: Inputs) -> Array:
        size = self.problem.num_outputs
        return jax.device_put(np.zeros((len(self.problem.read(features)), size, size)))

    def joint_covariance(self, features: Inputs) -> Array:
        rows = len(self.problem.read(features)) * self.problem.num_outputs
        return jnp.zeros((rows, rows))


class SampledLaw(PathwiseLaw[InfoT]):
    """A law known by draws of (g, α): g is given at X, and exactly Gaussian away from it.

    Attributes:
        g: the paths, S of them.
        alpha: α of each, (S, n, C).
    """

    g: Path
    alpha: Draws

    @property
    def num_draws(self) -> int:
        """S."""
        return self.alpha.shape[0]

    @property
    def _draws_in_words(self) -> str:
        return drawn_in_words(self.kind, self.num_draws, self.num_chains)

    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        if num_draws is None or num_draws == self.num_draws:
            return Paths(self.g, self.alpha)
        chosen = evenly_spaced(num_draws, self.num_draws)
        return Paths(self.g.chosen(chosen), jnp.take(self.alpha, chosen, axis=0))

    def mean(self, features: Inputs) -> Array:
        return self.moments(features).mean

    def covariance(self, features: Inputs) -> Array:
        return self.moments(features).covariance

    def moments(self, features: Inputs) -> Moments:
        features = self.problem.read(features)
        means, left = self.g.given(features)
        return total_moments(self.trained(features, self.alpha, means), left)

    def joint_covariance(self, features: Inputs) -> Array:
        features = self.problem.read(features)
        means, left = self.g.jointly_given(features)
        return joint_scatter(self.trained(features, self.alpha, means)) + left


def drawn_in_words(kind: Kind, num_draws: int, num_chains: int) -> str:
    """How many draws are stored, and how they came about."""
    if kind.sampling is Sampling.CHAINS:
        return f"{num_draws}, by {count(num_chains, 'Markov chain')}"
    return f"{num_draws}, {kind.sampling}"


def require_law(call: str, name: str, value: Any) -> None:
    """Raises ArgumentError unless the value is a `Law`; see `arguments.require`."""

    def remedy(given: Any) -> str:
        is_method = hasattr(given, "fit") and hasattr(given, "kind")
        return "fit it first: law = method.fit(prior, data)" if is_method else ""

    require(call, name, value, Law, remedy)


def evenly_spaced(num_draws: int, num_held: int) -> Int[Array, " chosen"]:
    """Some of the stored draws, so that every chain is represented alike.

    Raises:
        ConfigurationError: more are asked for than the law holds, or none.
    """
    if not 0 < num_draws <= num_held:
        raise ConfigurationError(
            f"the law holds {num_held} draws, {num_draws} were asked for; fit it with more"
        )
    return jax.device_put(np.arange(num_draws) * num_held // num_draws)


@jax.jit
def total_moments(means: Draws, left: Float[Array, "m classes classes"]) -> Moments:
    """By the laws of total expectation and covariance.

    Args:
        means: given each draw.
        left: the covariance given a draw, averaged over draws.
    """
    mean = jnp.mean(means, axis=0)
    centred = means - mean[None]
    scatter = jnp.einsum("smc,smd->mcd", centred, centred) / (means.shape[0] - 1)
    return Moments(mean, scatter + left)


@jax.jit
def joint_scatter(draws: Draws) -> Float[Array, "rows rows"]:
    """Covariance over draws of all logits at all inputs."""
    centred = (draws - jnp.mean(draws, axis=0)[None]).reshape(draws.shape[0], -1)
    return centred.T @ centred / (draws.shape[0] - 1)


@eqx.filter_jit
def _shifted(
    mean: Float[Array, "m classes"],
    block: Block,
    alpha: Float[Array, "*draws n classes"],
    g: Float[Array, "*draws m classes"] | None,
) -> Float[Array, "*draws m classes"]:
    trained = block @ alpha
    trained = jnp.broadcast_to(mean, trained.shape) + trained
    return trained if g is None else trained + g
