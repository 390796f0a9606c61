"""The law before any data: the prior of Bayes itself."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ntkbayes.laws.base import Info, Inputs, Law, Method, Paths, Problem
from ntkbayes.linalg import output_blocks
from ntkbayes.priors.paths import Process


@dataclass(frozen=True)
class PriorInfo(Info):
    """logit_std: standard deviation of the logits at the training inputs, root mean square. Where it is
    well above 3, the prior holds nearly every label for certain."""

    logit_std: float


class PriorLaw(Law):
    """GP(mean, Θ/ridge): g is a path of it, and α = 0."""

    sampling = "independent draws of a Gaussian"

    def __init__(self, problem: Problem, process: Process):
        self.problem = problem
        self.process = process
        variance = jnp.mean(self.variance(problem.features))
        self.info = PriorInfo(float(jnp.sqrt(variance)))

    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        g = self.process.draw(key, num_draws or self.default_draws)
        return Paths(g, jnp.zeros_like(g.values))

    def mean(self, features: Inputs) -> Array:
        features = self._inputs(features)
        return self.problem.prior.mean_logits(features, self.problem.num_outputs)

    def covariance(self, features: Inputs) -> Array:
        problem = self.problem
        variance = problem.prior.diagonal(self._inputs(features)).ntk / problem.ridge
        return output_blocks(variance, problem.num_outputs)

    def joint_covariance(self, features: Inputs) -> Array:
        problem, features = self.problem, self._inputs(features)
        return problem.prior.gram(features).ntk.every_output(problem.num_outputs) / problem.ridge


class Prior(Method[PriorLaw]):
    """No fit at all: the prior GP(mean, Θ/ridge) as a law, for prior predictive checks (Gabry et al.
    2019). Of the data it takes the features, the number of logits and the class names, not the targets.
    """

    name: ClassVar[str] = "prior"

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> PriorLaw:
        problem.prior.require_ridge("the prior of Bayes")
        return PriorLaw(problem, problem.tangent_process)
