"""Random paths g of a law's centred process, known at the training inputs and drawn at any others.

A process is known either by its covariance, K or Θ/ridge, and its paths by their values at the
training inputs X and exact conditioning elsewhere; or by functions that can be evaluated anywhere: a
finite network at random parameters, or its linearisation.

Shapes: n training points, m inputs, C logits, S draws.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.kernels import DrawFunctions, Functions, KernelPair
from ntkbayes.linalg import (
    CholeskyFactor,
    Conditional,
    Draws,
    FormedBlock,
    frugal_jit,
    output_blocks,
    white_noise,
    whitened_cross,
)
from ntkbayes.priors.prior import NTKPrior

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
    def jointly_given(self, features: Inputs) -> tuple[Draws, Float[Array, "rows rows"]]:
        """The same, with the covariance left between all logits of all inputs, (m C, m C)."""

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

    @property
    @abc.abstractmethod
    def divisor(self) -> Float[Array, ""]:
        """By which K or Θ is divided."""

    @abc.abstractmethod
    def kernel_of(self, pair: KernelPair) -> Any:
        """K or Θ, be they blocks or diagonals."""

    def cross(self, features: Inputs) -> FormedBlock:
        """K or Θ between the inputs and X: what a law evaluates for its mean, so that one compiled
        program serves both."""
        return self.kernel_of(self.prior.cross(features, self.features)).formed()

    def draw(self, key: PRNGKeyArray, num_draws: int) -> "ConditionedPath":
        shape = (num_draws, self.features.shape[0], self.num_outputs)
        values, whitened = _drawn(self.factor, key, shape)
        return ConditionedPath(values, self, whitened)


class InitialProcess(GaussianProcess):
    """GP(0, K): the function at initialisation."""

    @property
    def divisor(self) -> Float[Array, ""]:
        return jnp.ones(())

    def kernel_of(self, pair: KernelPair) -> Any:
        return pair.nngp


class ScaledInitialProcess(InitialProcess):
    """GP(0, scale² K)."""

    scale: Float[Array, ""]

    @property
    def divisor(self) -> Float[Array, ""]:
        return self.scale**-2


class TangentProcess(GaussianProcess):
    """GP(0, Θ/ridge): the Bayesian prior."""

    @property
    def divisor(self) -> Float[Array, ""]:
        return jnp.asarray(self.prior.ridge, dtype=float)

    def kernel_of(self, pair: KernelPair) -> Any:
        return pair.ntk


class ConditionedPath(Path):
    """Paths given by whitened values at X."""

    values: Draws
    process: GaussianProcess
    whitened: Draws

    def at(self, key: PRNGKeyArray, features: Inputs) -> Draws:
        process = self.process
        if _same(features, process.features):
            return self.values
        gram = process.kernel_of(process.prior.gram(features)).formed()
        conditional = Conditional.build(
            process.factor, process.cross(features), gram, process.divisor
        )
        return conditional.draw(self.whitened, key)

    def given(self, features: Inputs) -> tuple[Draws, Float[Array, "m classes classes"]]:
        process = self.process
        variance = process.kernel_of(process.prior.diagonal(features))
        cross = process.cross(features)
        return _given(process.factor, cross, variance, process.divisor, self.whitened)

    def jointly_given(self, features: Inputs) -> tuple[Draws, Float[Array, "rows rows"]]:
        process = self.process
        gram = process.kernel_of(process.prior.gram(features)).formed()
        cross = process.cross(features)
        return _jointly_given(process.factor, cross, gram, process.divisor, self.whitened)

    def chosen(self, draws: Int[Array, " chosen"]) -> "ConditionedPath":
        values, whitened = (jnp.take(v, draws, axis=0) for v in (self.values, self.whitened))
        return ConditionedPath(values, self.process, whitened)


@eqx.filter_jit
def _drawn(
    factor: CholeskyFactor, key: PRNGKeyArray, shape: tuple[int, ...]
) -> tuple[Draws, Draws]:
    """L z and z, for white noise z."""
    whitened = white_noise(key, shape)
    return factor.colour(whitened), whitened


@frugal_jit
def _given(
    factor: CholeskyFactor,
    cross: FormedBlock,
    variance: Float[Array, " m"] | Float[Array, "m classes classes"],
    divisor: Float[Array, ""],
    whitened: Draws,
) -> tuple[Float[Array, "draws m classes"], Float[Array, "m classes classes"]]:
    """Means at new inputs, and the covariance at each that is left of the prior's.

    Args:
        cross, variance: K or Θ between the inputs and X, and at each input.
    """
    size = whitened.shape[2]
    projection = whitened_cross(factor, cross, divisor)
    left = output_blocks(variance / divisor, size) - projection.column_products(size)
    negative = jnp.minimum(jnp.diagonal(left, axis1=1, axis2=2), 0.0)  # round-off
    return projection.T @ whitened, left - jax.vmap(jnp.diag)(negative)


@frugal_jit
def _jointly_given(
    factor: CholeskyFactor,
    cross: FormedBlock,
    gram: FormedBlock,
    divisor: Float[Array, ""],
    whitened: Draws,
) -> tuple[Float[Array, "draws m classes"], Float[Array, "rows rows"]]:
    projection = whitened_cross(factor, cross, divisor)
    left = gram.matrix / divisor - projection.matrix.T @ projection.matrix
    covariance = gram.like((left + left.T) / 2).every_output(whitened.shape[2])
    return projection.T @ whitened, covariance


def _same(features: Inputs, others: Float[Array, "n ..."]) -> bool:
    """Whether they are known to be the same inputs, in the same order."""
    is_traced = any(isinstance(given, jax.core.Tracer) for given in (features, others))
    return features is others or (not is_traced and np.array_equal(features, others))


# --- known as functions ----------------------------------------------------------------------------


class FunctionProcess(Process):
    """scale · functions of a kernel that know themselves everywhere."""

    functions: DrawFunctions
    features: Inputs
    scale: Float[Array, ""]

    def draw(self, key: PRNGKeyArray, num_draws: int) -> "FunctionPath":
        functions = self.functions(key, num_draws)
        values = self.scale * functions(self.features)
        return FunctionPath(values, functions, self.scale, jnp.arange(num_draws))


class FunctionPath(Path):
    """Paths that are functions, which can be evaluated exactly anywhere."""

    values: Draws
    functions: Functions
    scale: Float[Array, ""]
    draws: Int[Array, " draws"]

    def at(self, key: PRNGKeyArray, features: Inputs) -> Draws:
        return self.scale * jnp.take(self.functions(features), self.draws, axis=0)

    def given(self, features: Inputs) -> tuple[Draws, Float[Array, "m classes classes"]]:
        size = self.values.shape[2]
        return self.at(jax.random.key(0), features), jnp.zeros((features.shape[0], size, size))

    def jointly_given(self, features: Inputs) -> tuple[Draws, Float[Array, "rows rows"]]:
        rows = len(features) * self.values.shape[2]
        return self.at(jax.random.key(0), features), jnp.zeros((rows, rows))

    def chosen(self, draws: Int[Array, " chosen"]) -> "FunctionPath":
        values, drawn = (jnp.take(v, draws, axis=0) for v in (self.values, self.draws))
        return FunctionPath(values, self.functions, self.scale, drawn)


# --- which of the two ------------------------------------------------------------------------------


def initial_process(
    prior: NTKPrior, features: Inputs, gram: KernelPair, num_outputs: int, scale: float = 1.0
) -> Process:
    """The law of the initial function less its mean, times a scale."""
    draw, factor = prior.kernel.initial_functions, jnp.asarray(scale, dtype=float)
    if draw is not None:
        return FunctionProcess(draw, features, factor)
    if scale == 1 or gram.nngp is None:
        return InitialProcess(prior, features, prior.initial_factor(gram), num_outputs)
    wide = prior.initial_factor(gram._replace(nngp=gram.nngp / factor**-2))
    return ScaledInitialProcess(prior, features, wide, num_outputs, factor)


def tangent_process(
    prior: NTKPrior, features: Inputs, gram: KernelPair, num_outputs: int
) -> Process:
    """GP(0, Θ/ridge), drawn in whichever way the kernel allows."""
    draw = prior.kernel.tangent_functions
    if draw is not None:
        return FunctionProcess(draw, features, 1 / jnp.sqrt(prior.ridge))
    return conditioned_tangent_process(prior, features, gram, num_outputs)


def conditioned_tangent_process(
    prior: NTKPrior, features: Inputs, gram: KernelPair, num_outputs: int
) -> TangentProcess:
    """GP(0, Θ/ridge) with the factor of its Gram matrix.

    Raises:
        ConfigurationError: that matrix is too large to be formed.
    """
    factor = gram.ntk.factor("the NTK Gram matrix", divisor=prior.ridge)
    return TangentProcess(prior, features, factor, num_outputs)
