"""Gaussian laws: the weights α answer linearly to the path g."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.laws.base import Draws, Info, Inputs, Law, Paths, Problem
from ntkbayes.linalg import CholeskyFactor, CurvedInverse, Gram, Logits


class InterpolatingInverse(eqx.Module):
    """Θ⁻¹ ⊗ Π, with Π = I − flat 1 1ᵀ/C: what B / ridge becomes as the ridge goes to 0 (THEORY 3).

    `flat` is 1 for softmax, whose likelihood is flat along equal logits, and 0 otherwise.
    """

    lower: Gram
    flat: float
    num_outputs: int = eqx.field(static=True)

    def matvec(self, v: Logits) -> Logits:
        return cho_solve((self.lower, True), v @ self._projection)

    def columns(self, k: Float[Array, "n m"]) -> Float[Array, "m classes n classes"]:
        return jnp.einsum("im,cd->mcid", cho_solve((self.lower, True), k), self._projection)

    @property
    def _projection(self) -> Float[Array, "classes classes"]:
        size = self.num_outputs
        return jnp.eye(size) - self.flat / size * jnp.ones((size, size))


class GaussianLaw(Law):
    """A Gaussian law: f = (trained predictor) + g + Θ(x, X) δα with δα linear in g and in noise."""

    sampling = "independent draws of a Gaussian"

    def __init__(
        self,
        problem: Problem,
        alpha: Logits,
        logits: Logits,
        inverse: CurvedInverse | InterpolatingInverse,
        factor: CholeskyFactor,
        info: Info,
    ):
        self.problem = problem
        self.alpha = alpha
        self.logits = logits
        self.inverse = inverse
        self.info = info
        self._factor = factor

    @property
    def path_factor(self) -> CholeskyFactor:
        return self._factor

    def paths(self, key: PRNGKeyArray, num_draws: int | None) -> Paths:
        path_key, noise_key = jax.random.split(key)
        shape = (num_draws or self.default_draws, *self.alpha.shape)
        whitened = jax.random.normal(path_key, shape)
        g = jnp.einsum("ij,sjc->sic", self._factor.lower, whitened)
        return Paths(whitened, self.alpha[None] + self.response(noise_key, g))

    @abc.abstractmethod
    def response(self, key: PRNGKeyArray, g: Draws) -> Draws:
        """δα for paths g(X)."""

    def mean(self, features: Inputs) -> Array:
        features = self._inputs(features)
        cross = self.problem.prior.cross(features, self.problem.features)
        mean = self.problem.prior.mean_logits(features, self.alpha.shape[1])
        return mean + cross.ntk @ self.alpha
