"""Gaussian laws: the weights α respond linearly to the path g."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import NotPositiveDefiniteError
from ntkbayes.laws.info import InfoT
from ntkbayes.laws.law import Inputs, Paths, PathwiseLaw
from ntkbayes.linalg import CurvedInverse, Draws, Interpolator, Logits, split_key
from ntkbayes.priors.paths import Process


class GaussianLaw(PathwiseLaw[InfoT]):
    """f = (trained predictor) + g + Θ(x, X) δα with δα linear in g and in noise.

    Attributes:
        alpha: α of the mean, (n, C).
        logits: the mean at the training points, (n, C).
        inverse: by which δα responds.

    Raises:
        NotPositiveDefiniteError: the factors of the inverse do not exist.
    """

    alpha: Logits
    logits: Logits
    inverse: CurvedInverse | Interpolator

    def __check_init__(self) -> None:
        inverse, problem = self.inverse, self.problem
        if isinstance(inverse, CurvedInverse) and not inverse.is_finite:
            variance = jnp.max(problem.prior.diagonal(problem.features).ntk) / problem.ridge
            raise NotPositiveDefiniteError(
                f"next to the prior's variance of a logit, up to {float(variance):.2g}, the likelihood "
                "is lost in round-off: use a larger ridge, or scale the features down"
            )

    @property
    @abc.abstractmethod
    def process(self) -> Process:
        """The law of g."""

    def process_for(self, num_draws: int) -> Process:
        """The law of g, as suits that many draws."""
        return self.process

    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        path_key, noise_key = split_key(key)
        num_draws = num_draws or self.default_draws
        g = self.process_for(num_draws).draw(path_key, num_draws)
        return Paths(g, self.alpha[None] + self.response(noise_key, g.values))

    @abc.abstractmethod
    def response(self, key: PRNGKeyArray, g: Draws) -> Draws:
        """δα for paths g(X)."""

    def mean(self, features: Inputs) -> Array:
        return self.trained(self.problem.read(features), self.alpha)


@eqx.filter_jit
def solve_columns(
    inverse: CurvedInverse | Interpolator, columns: Float[Array, "rows columns"], num_outputs: int
) -> Float[Array, "rows columns"]:
    """B or Q times each column of a block with a row for each training point and output."""
    stack = columns.T.reshape(columns.shape[1], -1, num_outputs)
    return inverse.products(stack).reshape(columns.T.shape).T
