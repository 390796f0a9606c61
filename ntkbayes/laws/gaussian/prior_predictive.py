"""The law before any data: the Bayesian prior itself."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import Inputs, Paths, PathwiseLaw
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import output_blocks
from ntkbayes.priors.paths import Process
from ntkbayes.training.operations import Size, gaussian_predictions, kernels


class PriorInfo(Info):
    """Of the prior at the training inputs.

    Attributes:
        logit_std: standard deviation of the logits, root mean square. Where it is well above 3, the
            prior holds nearly every label for certain.
    """

    logit_std: float


class PriorLaw(PathwiseLaw[PriorInfo]):
    """GP(mean, Θ/ridge): g is a path of it, and α = 0."""

    process: Process

    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        g = self.process.draw(key, num_draws or self.default_draws)
        return Paths(g, jnp.zeros_like(g.values))

    def mean(self, features: Inputs) -> Array:
        features = self.problem.read(features)
        return self.problem.prior.mean_logits(features, self.problem.num_outputs)

    def covariance(self, features: Inputs) -> Array:
        return _prior_covariance(self.problem, self.problem.read(features))

    def joint_covariance(self, features: Inputs) -> Array:
        problem, features = self.problem, self.problem.read(features)
        gram = problem.prior.gram(features).ntk.every_output(problem.num_outputs)
        return gram / problem.prior.ridge


class PriorPredictive(Method[PriorLaw]):
    """No fit at all: the prior GP(mean, Θ/ridge) as a law, for prior predictive checks (Gabry et al.
    2019). Of the data it takes the features, the number of logits and the class names, not the targets.
    """

    name: ClassVar[str] = "prior"
    kind: ClassVar[Kind] = Kind(
        "prior",
        Sampling.GAUSSIAN,
        "the Bayesian prior GP(m, Θ/ridge), before any target is seen.",
    )

    def operations(self, size: Size) -> dict[str, float]:
        return {"kernels": kernels(size), **gaussian_predictions(size, 0.0)}

    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> PriorLaw:
        problem.prior.require_ridge("the Bayesian prior")
        variances = jnp.diagonal(_prior_covariance(problem, problem.features), axis1=1, axis2=2)
        info = PriorInfo(float(jnp.sqrt(jnp.mean(variances))))
        return PriorLaw(problem, self.kind, info, problem.tangent_process)


def _prior_covariance(
    problem: Problem, features: Float[Array, "m ..."]
) -> Float[Array, "m classes classes"]:
    variance = problem.prior.diagonal(features).ntk / problem.prior.ridge
    return output_blocks(variance, problem.num_outputs)
