"""Likelihoods of real targets and of counts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaincc, gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.errors import DataError, RidgeError
from ntkbayes.likelihood.base import Likelihood, PerPoint, Stack
from ntkbayes.linalg import Curvature, Logits, StructuredCurvature, white_noise
from ntkbayes.ranges import Range, real_field


class Normal(Likelihood):
    """Real targets with Gaussian noise of standard deviation `noise_std`: squared loss.

    Every law is then a Gaussian process in closed form, which makes it an oracle for the methods.
    """

    noise_std: Float[Array, ""] | float = real_field("noise_std", 1.0, Range.POSITIVE_FINITE)

    def encode(self, data: Dataset) -> Logits:
        if data.class_names is not None:
            raise DataError("a Normal likelihood takes real targets; make them with Dataset.real")
        return jax.device_put(data.targets)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return jnp.sum(jax.scipy.stats.norm.logpdf(targets, logits, self.noise_std), axis=1)

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        return (targets - logits) / self.noise_std**2

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        return StructuredCurvature(jnp.full_like(logits, 1 / self.noise_std**2), coupled=False)

    @property
    def curvature_bound(self) -> Any:  # a JAX scalar if noise_std is one
        return 1 / self.noise_std**2

    @property
    def unit(self) -> Float[Array, ""] | float:
        return self.noise_std

    @property
    def scale(self) -> Float[Array, ""] | float:
        return self.noise_std

    def total_variation(self, a: Stack, b: Stack) -> Float[Array, "*draws n"]:
        """erf(|a − b| / (√8 noise_std)), exactly."""
        apart = jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1))
        return jax.scipy.special.erf(apart / (math.sqrt(8) * self.noise_std)).astype(apart.dtype)

    def interpolant(self, targets: Logits) -> Logits:
        return targets

    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        return logits + self.noise_std * white_noise(key, logits.shape, logits.dtype)


class Poisson(Likelihood):
    """Counts with rate exp(f), one logit.

    log p = y f − exp(f) − log y!, so r = y − exp(f) and W = exp(f). W is unbounded: on a real network no
    step size of gradient descent is stable at all logits.
    """

    def encode(self, data: Dataset) -> Logits:
        if data.class_names is not None:
            raise DataError("a Poisson likelihood takes counts; make them with Dataset.real")
        counts = data.targets
        if counts.shape[1] != 1:
            raise DataError(
                f"a Poisson likelihood takes one count per point, but the data have {counts.shape[1]} "
                "columns"
            )
        wrong = np.flatnonzero((counts < 0) | (counts != np.round(counts)))
        if wrong.size:
            raise DataError(
                f"counts must be non-negative integers; point {wrong[0]} has {counts[wrong[0], 0]}"
                " (without ridge, repeated points count as one with the mean of their targets)"
            )
        return jax.device_put(counts)

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return (targets * logits - jnp.exp(logits) - gammaln(targets + 1))[:, 0]

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        """y − exp(f)."""
        return targets - jnp.exp(logits)

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        return StructuredCurvature(jnp.exp(logits), coupled=False)

    @property
    def curvature_bound(self) -> float:
        return float("inf")

    def total_variation(self, a: Stack, b: Stack) -> Float[Array, "*draws n"]:
        """The difference of the distribution functions where the probabilities cross, at the count
        (λ₂ − λ₁) / (log λ₂ − log λ₁)."""
        low, high = jnp.minimum(a, b)[..., 0], jnp.maximum(a, b)[..., 0]
        apart = high > low
        crossing = jnp.where(apart, jnp.exp(high) - jnp.exp(low), 0.0)
        crossing = jnp.floor(crossing / jnp.where(apart, high - low, 1.0))
        below, above = (gammaincc(crossing + 1, jnp.exp(f)) for f in (low, high))
        return jnp.where(apart, below - above, 0.0)

    def interpolant(self, targets: Logits) -> Logits:
        empty = jnp.flatnonzero(targets[:, 0] <= 0)
        if empty.size:
            raise RidgeError(
                f"with ridge = 0 the logit of point {int(empty[0])}, whose count is 0, falls without "
                "bound as −log t: use a ridge > 0, or stop at a finite training_time"
            )
        return jnp.log(targets)

    def sample(self, key: PRNGKeyArray, logits: Stack) -> Stack:
        # JAX samples in float32, too coarse for large rates. There the Cornish–Fisher expansion of
        # the quantile, with a lattice correction, is within 2e-6 of the law.
        small_key, large_key = jax.random.split(key)
        rate = jnp.exp(logits)
        small = jax.random.poisson(_threefry(small_key), jnp.minimum(rate, _LARGE_RATE))
        z, std = white_noise(large_key, logits.shape, logits.dtype), jnp.sqrt(rate)
        std = jnp.maximum(std, 1.0)  # no division by 0 where `small` is used
        large = jnp.round(rate + std * z + (z**2 - 1) / 6 - (2 * z + z**3) / (72 * std))
        return jnp.where(rate <= _LARGE_RATE, small.astype(logits.dtype), large)


def _threefry(key: PRNGKeyArray) -> PRNGKeyArray:
    """A threefry key, which JAX's Poisson sampler requires, from a key of any kind."""
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")


_LARGE_RATE = 300.0
