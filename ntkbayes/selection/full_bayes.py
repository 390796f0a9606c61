"""The evidence where hyper-parameters θ have priors of their own, p(y) = ∫ p(y | θ) p(θ) dθ.

It is a weighted mean over draws of θ of their own evidences, each by sequential Monte Carlo. Those may
be inexact, since they are unbiased (importance sampling squared: Tran, Scharth, Pitt & Kohn 2013). θ is
drawn from a Student distribution near its posterior, in coordinates without bounds. That is found by
rounds of importance sampling with the evidence of a Gaussian approximation, from the hyper-prior on,
each as far towards the posterior as leaves a share of its draws effective.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError, ConvergenceError, NotPositiveDefiniteError
from ntkbayes.laws import Laplace, Problem
from ntkbayes.laws.chains.numpyro_model import require_support
from ntkbayes.laws.gaussian.posterior import PosteriorMethod, SitePosterior
from ntkbayes.likelihood import Likelihood
from ntkbayes.likelihood.base import require_untempered
from ntkbayes.priors.hyperparameters import with_values
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import whole
from ntkbayes.selection.estimate import (
    EvidenceEstimate,
    approximate_evidence,
    known,
    log_mean,
    log_of_mean,
)
from ntkbayes.selection.smc import evidences, next_power

_KEPT = 0.5  # of a round's draws are effective
_MOST_ROUNDS = 10
_DEGREES = 5.0  # of freedom of the Student distribution

Values = dict[str, Array]
Positions = Float[np.ndarray, "draws dimensions"]
PerDraw = Float[np.ndarray, " draws"]


def full_bayes_evidence(
    prior: NTKPrior,
    data: Dataset,
    hyperpriors: Mapping[str, Any],
    *,
    key: PRNGKeyArray,
    likelihood: Likelihood | None = None,
    method: PosteriorMethod | None = None,
    num_values: int = 100,
    num_particles: int = 200,
) -> EvidenceEstimate:
    """The log evidence of the model of `FullBayes`, hyper-parameters integrated out, with its standard
    error.

    Args:
        prior, data: as for `Method.fit`.
        hyperpriors: as for `FullBayes`.
        key: same key, same evidence.
        likelihood: as for `Method.fit`.
        method: of the Gaussian posterior at which particles begin, and whose evidence is the
            approximate one; by default Laplace.
        num_values: draws of the hyper-parameters, and of each round before them.
        num_particles: for the evidence at each of them.

    Raises:
        ConvergenceError: the error would be above 0.3 nats, or a fit failed.
        ConfigurationError: there is no hyper-prior, one allows values that its hyper-parameter cannot
            have, the likelihood is tempered, or the method has no evidence.
        UnknownNameError: there is no such hyper-parameter.
    """
    num_values = whole("num_values", num_values, at_least=20)
    num_particles = whole("num_particles", num_particles, at_least=10)
    method = method or Laplace()
    problem = method.problem(prior, data, likelihood)
    require_untempered("the evidence", problem.likelihood)
    if not hyperpriors:
        raise ConfigurationError("there are no hyper-priors to integrate over: use smc_evidence")
    require_support(prior, hyperpriors)
    space = _Space(problem, method, hyperpriors)
    search_key, draw_key, key = jax.random.split(random_key(key), 3)
    nearby = _near_posterior(space, num_values, search_key)
    positions, log_density = _drawn(nearby, num_values, draw_key)
    log_ratios = space.log_prior(positions) - log_density
    approximate, exact = [], []
    for position, one_key in zip(positions, jax.random.split(key, num_values), strict=True):
        law = space.law(position)
        approximate.append(approximate_evidence(law))
        exact.append(float(log_mean(evidences(law, one_key, 1, num_particles))))
    return known(
        EvidenceEstimate(
            *log_of_mean(log_ratios + np.array(exact)),
            float(log_mean(log_ratios + np.array(approximate))),
        ),
        f"{num_values} values of the hyper-parameters, or {num_particles} particles, are too few: use "
        "more num_values or num_particles",
    )


@dataclass(frozen=True, eq=False)
class _Space:
    """Hyper-parameters in coordinates without bounds, and what follows from them."""

    problem: Problem
    method: PosteriorMethod
    hyperpriors: Mapping[str, Any]

    @cached_property
    def maps(self) -> dict[str, Any]:
        """From coordinates to hyper-parameters, by name."""
        from numpyro.distributions import biject_to

        return {name: biject_to(law.support) for name, law in self.hyperpriors.items()}

    @cached_property
    def unravel(self) -> Callable[[Array], Values]:
        """Coordinates by name, from all of them in a row."""
        return ravel_pytree(self._drawn(jax.random.key(0)))[1]

    def _drawn(self, key: PRNGKeyArray) -> Values:
        """Coordinates of a draw of the hyper-priors, by name."""
        keys = jax.random.split(key, len(self.hyperpriors))
        return {
            name: self.maps[name].inv(law.sample(one))
            for one, (name, law) in zip(keys, self.hyperpriors.items(), strict=True)
        }

    def drawn(self, key: PRNGKeyArray, num_draws: int) -> Positions:
        """Draws of the hyper-priors."""
        draws = [ravel_pytree(self._drawn(one))[0] for one in jax.random.split(key, num_draws)]
        return np.stack([np.asarray(draw) for draw in draws])

    def log_prior(self, positions: Positions) -> PerDraw:
        """The hyper-priors' log density in these coordinates."""

        def one(position: Float[Array, " dimensions"]) -> Float[Array, ""]:
            total = jnp.zeros(())
            for name, at in self.unravel(position).items():
                value = self.maps[name](at)
                stretched = self.maps[name].log_abs_det_jacobian(at, value)
                density = self.hyperpriors[name].log_prob(value)
                total += jnp.sum(density) + jnp.sum(stretched)
            return total

        return np.asarray(jax.vmap(one)(jnp.asarray(positions)))

    def law(self, position: Float[np.ndarray, " dimensions"]) -> SitePosterior:
        """The Gaussian posterior at these hyper-parameters."""
        problem = self.problem
        at = self.unravel(jnp.asarray(position))
        values = {name: self.maps[name](value) for name, value in at.items()}
        prior = with_values(problem.prior, values)
        mean = prior.mean_logits(problem.features, problem.num_outputs)
        gram = prior.gram(problem.features)
        return self.method.solve(dataclasses.replace(problem, prior=prior, mean=mean, gram=gram))

    def log_evidence(self, position: Float[np.ndarray, " dimensions"]) -> float:
        """Of the Gaussian approximation; −∞ where it is not found."""
        try:
            law = self.law(position)
        except (ConvergenceError, NotPositiveDefiniteError):
            return -np.inf
        if np.isnan(found := approximate_evidence(law)):
            raise ConfigurationError(
                f"{type(self.method).__name__} has no evidence to find the hyper-parameters by: use "
                "method=nb.Laplace() or nb.Variational()"
            )
        return found


def _drawn(law: Any, num_draws: int, key: PRNGKeyArray) -> tuple[Positions, PerDraw]:
    """Draws of a distribution of SciPy's, and its log density there."""
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    positions = law.rvs(num_draws, random_state=generator).reshape(num_draws, -1)
    return positions, law.logpdf(positions)


def _near_posterior(space: _Space, num_draws: int, key: PRNGKeyArray) -> Any:
    """A Student distribution near the posterior of the hyper-parameters.

    Raises:
        ConvergenceError: it is not found.
    """
    from scipy.stats import multivariate_t  # which takes long to import

    first_key, *keys = jax.random.split(key, _MOST_ROUNDS)
    positions = space.drawn(first_key, num_draws)
    log_ratios = np.zeros(num_draws)
    for round_key in keys:
        log_weights = log_ratios + [space.log_evidence(position) for position in positions]
        found = np.isfinite(log_weights)
        if np.sum(found) < num_draws / 4:
            raise ConvergenceError(
                f"the evidence is found at {np.sum(found)} of {num_draws} draws of the "
                "hyper-parameters: use hyper-priors that are narrower, or centred on other values"
            )
        positions, log_weights = positions[found], log_weights[found]
        power = next_power(log_weights, 0.0, _KEPT)
        shares = np.exp(power * log_weights - np.logaddexp.reduce(power * log_weights))
        centre = shares @ positions
        apart = np.sqrt(shares)[:, None] * (positions - centre)
        nearby = multivariate_t(centre, apart.T @ apart, df=_DEGREES)
        if power == 1.0:
            return nearby
        positions, log_density = _drawn(nearby, num_draws, round_key)
        log_ratios = space.log_prior(positions) - log_density
    raise ConvergenceError(
        f"the posterior of the hyper-parameters was not found in {_MOST_ROUNDS} rounds: use more "
        "num_values, or hyper-priors that are narrower"
    )
