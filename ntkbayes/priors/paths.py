"""Random paths g of a law's centred process, known at the training inputs and drawn at any others.

A process is known either by its covariance, K or Θ/ridge, and its paths by their values at the
training inputs X and exact conditioning elsewhere; or by functions that can be evaluated anywhere: a
finite network at random parameters, or its linearisation.

Shapes: n training points, m inputs, C logits, S draws.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import Functions, KernelPair
from ntkbayes.linalg import (
    CholeskyFactor,
    Conditional,
    Operator,
    apply,
    cholesky,
    dense,
    output_blocks,
)
from ntkbayes.priors.prior import NTKPrior

Draws = Float[Array, "draws n classes"]
Inputs = Float[Array, "m ..."]


class Path(eqx.Module):
    """Draws of g."""

    values: eqx.AbstractVar[Draws]

    @abc.abstractmethod
    def at(self, key: PRNGKeyArray, features: Inputs) -> Draws:
        """Each draw at the inputs, jointly."""

    @abc.abstractmethod
    def given(self, features: Inputs) -> tuple[Draws, Float[Array, "m classes classes"]]:
        """Each draw's mean at the inputs given its values at X, and the covariance left."""

    @abc.abstractmethod
    def chosen(self, draws: Int[Array, " chosen"]) -> "Path":
        """Some of the draws."""


class Process(eqx.Module):
    """The law of g."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray, num_draws: int) -> Path:
        """Independent paths."""


# --- known by their covariance ---------------------------------------------------------------------


class GaussianProcess(Process):
    """GP(0, covariance), with the Cholesky factor of its Gram matrix at X."""

    prior: NTKPrior
    features: Inputs
    factor: CholeskyFactor
    num_outputs: int = eqx.field(static=True)

    @abc.abstractmethod
    def covariance(self, pair: KernelPair) -> Any:
        """The covariance of g out of K and Θ, be they blocks or diagonals."""

    def draw(self, key: PRNGKeyArray, num_draws: int) -> "ConditionedPath":
        shape = (num_draws, self.features.shape[0], self.num_outputs)
        return self.path(jax.random.normal(key, shape))

    def path(self, whitened: Draws) -> "ConditionedPath":
        """The path with values L · whitened at X."""
        return ConditionedPath(self.factor.colour(whitened), self, whitened)


class InitialProcess(GaussianProcess):
    """GP(0, K): the function at initialisation."""

    def covariance(self, pair: KernelPair) -> Any:
        return pair.nngp


class TangentProcess(GaussianProcess):
    """GP(0, Θ/ridge): the prior of Bayes."""

    def covariance(self, pair: KernelPair) -> Any:
        return pair.ntk / self.prior.ridge


class ConditionedPath(Path):
    """Paths given by whitened values at X."""

    values: Draws
    process: GaussianProcess
    whitened: Draws

    def at(self, key: PRNGKeyArray, features: Inputs) -> Draws:
        process = self.process
        cross = process.prior.cross(process.features, features)
        gram = process.prior.gram(features)
        conditional = Conditional.build(
            process.factor, dense(process.covariance(cross)), dense(process.covariance(gram))
        )
        shape = (len(self.whitened), features.shape[0], process.num_outputs)
        return conditional.draw(self.whitened, jax.random.normal(key, shape))

    def given(self, features: Inputs) -> tuple[Draws, Float[Array, "m classes classes"]]:
        process, size = self.process, self.process.num_outputs
        cross = dense(process.covariance(process.prior.cross(process.features, features)))
        variance = process.covariance(process.prior.diagonal(features))
        prior = output_blocks(variance, size)
        return _given(process.factor.whiten(cross), prior, self.whitened)

    def chosen(self, draws: Int[Array, " chosen"]) -> "ConditionedPath":
        values, whitened = (jnp.take(v, draws, axis=0) for v in (self.values, self.whitened))
        return ConditionedPath(values, self.process, whitened)


@jax.jit
def _given(
    projection: Float[Array, "old new"], prior: Float[Array, "m classes classes"], whitened: Draws
) -> tuple[Float[Array, "draws m classes"], Float[Array, "m classes classes"]]:
    """Means at new inputs, and the covariance at each that is left of the prior's."""
    num_points, size = whitened.shape[1], prior.shape[1]
    if projection.shape[0] == num_points:
        explained = output_blocks(jnp.sum(projection**2, axis=0), size)
    else:
        columns = projection.reshape(projection.shape[0], -1, size)
        explained = jnp.einsum("nmc,nmd->mcd", columns, columns)
    left = prior - explained
    negative = jnp.minimum(jnp.diagonal(left, axis1=1, axis2=2), 0.0)  # round-off
    return apply(projection.T, whitened), left - jax.vmap(jnp.diag)(negative)


# --- known as functions ----------------------------------------------------------------------------


class FunctionProcess(Process):
    """scale · functions of a kernel that know themselves everywhere."""

    functions: Callable[[PRNGKeyArray, int], Functions | None]
    features: Inputs
    scale: Float[Array, ""]

    def draw(self, key: PRNGKeyArray, num_draws: int) -> "FunctionPath":
        functions = self.functions(key, num_draws)
        assert functions is not None
        values = self.scale * functions(self.features)
        return FunctionPath(values, functions, self.scale, jnp.arange(num_draws))


class FunctionPath(Path):
    """Paths that are functions: nothing of them is left to chance."""

    values: Draws
    functions: Functions
    scale: Float[Array, ""]
    draws: Int[Array, " draws"]

    def at(self, key: PRNGKeyArray, features: Inputs) -> Draws:
        return self.scale * jnp.take(self.functions(features), self.draws, axis=0)

    def given(self, features: Inputs) -> tuple[Draws, Float[Array, "m classes classes"]]:
        size = self.values.shape[2]
        return self.at(jax.random.key(0), features), jnp.zeros((features.shape[0], size, size))

    def chosen(self, draws: Int[Array, " chosen"]) -> "FunctionPath":
        values, drawn = (jnp.take(v, draws, axis=0) for v in (self.values, self.draws))
        return FunctionPath(values, self.functions, self.scale, drawn)


# --- which of the two ------------------------------------------------------------------------------


def initial_process(
    prior: NTKPrior, features: Inputs, gram: KernelPair, num_outputs: int
) -> Process:
    """The law of the initial function less its mean."""
    kernel = prior.kernel
    if kernel.initial_functions(jax.random.key(0), 1) is not None:
        return FunctionProcess(kernel.initial_functions, features, jnp.ones(()))
    factor = cholesky(gram.nngp, what="the NNGP Gram matrix")
    return InitialProcess(prior, features, factor, num_outputs)


def tangent_process(
    prior: NTKPrior, features: Inputs, gram: KernelPair, num_outputs: int
) -> Process:
    """GP(0, Θ/ridge), drawn in whichever way the kernel allows."""
    kernel = prior.kernel
    if kernel.tangent_functions(jax.random.key(0), 1) is not None:
        return FunctionProcess(kernel.tangent_functions, features, 1 / jnp.sqrt(prior.ridge))
    return conditioned_tangent_process(prior, features, gram, num_outputs)


def conditioned_tangent_process(
    prior: NTKPrior, features: Inputs, gram: KernelPair, num_outputs: int
) -> TangentProcess:
    """GP(0, Θ/ridge) with the factor of its Gram matrix.

    Raises:
        ConfigurationError: that matrix is too large to be formed.
    """
    if isinstance(gram.ntk, Operator):
        raise ConfigurationError(
            f"this law factors the NTK Gram matrix of {features.shape[0] * num_outputs} rows, more than "
            "the kernel's max_rows; use fewer points, or EmpiricalKernel(..., max_rows=...)"
        )
    factor = cholesky(gram.ntk / prior.ridge, what="the NTK Gram matrix")
    return TangentProcess(prior, features, factor, num_outputs)
