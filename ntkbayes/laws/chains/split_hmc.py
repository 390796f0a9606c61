"""The exact posterior of GP classification, by Hamiltonian Monte Carlo whose Gaussian part is exact.

The reference is the Laplace posterior, class by class; see `reference` for the motion about it.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ntkbayes.laws.chains.reference import LONGEST, Reference, product, turn
from ntkbayes.laws.chains.sampler import (
    ChainMethod,
    Chains,
    Mode,
    Positions,
    Sampler,
    Whitened,
    coupled_root,
    laplace_root,
)
from ntkbayes.laws.law import Draws
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import FormedBlock, Logits, StructuredCurvature
from ntkbayes.training.operations import Size

PerChain = Float[Array, " chains"]

_MAX_ENERGY_ERROR = 1000.0  # NumPyro's measure of a divergence


class SplitHMC(ChainMethod):
    """Hamiltonian Monte Carlo on the logits at X, exact for the Laplace posterior (split HMC).

    A trajectory turns about the mode by an angle drawn from [π/3, π], in steps as large as the
    departure of the posterior from the reference allows. A step costs one product with Laplace's
    covariance, class by class, against two of NUTS, and there is no tree: all chains take the same
    number of steps, and none waits for another. They share the step size, which adapts to the mean
    acceptance of all. Trajectories stop at 1024 steps.

    Another fit with the same shapes and num_chains does not compile again.

    Args:
        num_samples: draws kept per chain.
        num_warmup: draws per chain discarded while the step size adapts.
        num_chains: chains, run side by side.
        target_accept: acceptance probability that the step size aims at.
        progress: show a progress bar, over warm-up and samples.
    """

    name: ClassVar[str] = "split HMC"

    def matrices(self, size: Size) -> dict[str, float]:
        return {"factor and P": 2.0, "roots": 3.0 * size.num_outputs, "workspace": 3.0}

    def steps(self, size: Size) -> tuple[float, float]:
        return 15.0, 1.0

    def sampler(self, problem: Problem, lower: FormedBlock, mode: Mode) -> "SplitHMCSampler":
        reference = _reference(problem.likelihood, problem.targets, lower, mode)
        warmup, accept = jax.device_put(
            (np.asarray(self.num_warmup), np.asarray(self.target_accept))
        )
        return SplitHMCSampler(reference, lower, mode.whitened, accept, warmup)


@eqx.filter_jit
def _reference(
    likelihood: Likelihood, targets: Logits, lower: FormedBlock, mode: Mode
) -> Reference:
    curvature = mode.curvature
    matrix = lower.matrix
    if lower.couples:
        roots = matrix @ coupled_root(matrix, curvature)[0]
    else:
        curvature = StructuredCurvature(curvature.matrix_diagonal, coupled=False)
        weights = curvature.diagonal.T
        roots = matrix[None] @ jax.lax.map(lambda w: laplace_root(matrix, w)[0], weights)
    covariance = roots @ jnp.swapaxes(roots, -1, -2)
    at_mode = (mode.logits, mode.score, curvature)
    return Reference(likelihood, targets, *at_mode, roots, covariance, jnp.ones(()))


class ChainState(NamedTuple):
    """Of all chains: δ and Φ(δ), dual averaging of the log step size, what is left of warm-up, how the
    last trajectory went, −log density at δ, and the energy at the trajectory's end."""

    position: Draws
    remainder: PerChain
    averaging: Any
    warmup_left: Int[Array, ""]
    key: PRNGKeyArray
    diverging: Bool[Array, " chains"]
    accept: PerChain
    num_steps: Int[Array, ""]
    step_size: Float[Array, ""]
    potential: PerChain
    energy: PerChain


class SplitHMCSampler(Sampler):
    """Trajectories about the Laplace posterior.

    Attributes:
        lower: L with L Lᵀ = P.
        mode: ẑ.
    """

    reference: Reference
    lower: FormedBlock
    mode: Logits
    target_accept: Float[Array, ""]
    num_warmup: Int[Array, ""]

    def start(self, noise: Draws, key: PRNGKeyArray) -> ChainState:
        begin, _ = _dual_averaging()
        # What leapfrog would bear for a standard normal of this dimension: where adaptation begins.
        size = jnp.full((), noise[0].size ** -0.25, dtype=noise.dtype)
        position = product(self.reference.roots, noise)
        remainder = jax.vmap(self.reference.remainder)(position)
        potential = jax.vmap(self.potential)(position)
        none = jnp.zeros(len(noise))
        averaging = begin(jnp.log(size))
        steps = jnp.zeros((), dtype=int)
        return ChainState(
            position,
            remainder,
            averaging,
            self.num_warmup,
            key,
            none > 0,
            none,
            steps,
            size,
            potential,
            potential,
        )

    def move(self, state: ChainState) -> ChainState:
        key, turn_key = jax.random.split(state.key)
        given = (state.position, state.remainder, state.step_size, turn_key)
        turned = turn(self.reference, *given)
        _, update = _dual_averaging()
        with jax.numpy_dtype_promotion("standard"):  # NumPyro's
            adapted = update(self.target_accept - jnp.mean(turned.accept), state.averaging)
        adapting = state.warmup_left > 0
        # The last warm-up draw leaves the average of the log steps, the others the latest.
        log_step = jnp.where(state.warmup_left > 1, adapted[0], adapted[1])
        step_size = jnp.where(adapting, jnp.minimum(jnp.exp(log_step), LONGEST), state.step_size)
        return ChainState(
            turned.position,
            turned.remainder,
            adapted,
            jnp.maximum(state.warmup_left - 1, 0),
            key,
            turned.error > _MAX_ENERGY_ERROR,
            turned.accept,
            turned.num_steps,
            step_size,
            jax.vmap(self.potential)(turned.position),
            state.potential + turned.kinetic + jnp.where(turned.moved, turned.error, 0.0),
        )

    def potential(self, position: Logits) -> Float[Array, ""]:
        """−log posterior density at f̂ + δ, up to a constant: with z = ẑ + L⁻¹ δ, ½ zᵀ z − log p."""
        reference, white = self.reference, self.mode + self.whiten(position)
        density = reference.likelihood.log_density(reference.targets, reference.logits + position)
        return jnp.sum(white**2) / 2 - jnp.sum(density)

    def whiten(
        self, position: Float[Array, "*draws n classes"]
    ) -> Float[Array, "*draws n classes"]:
        """L⁻¹ δ."""
        lower = self.lower.matrix
        rows = position.reshape(*position.shape[:-2], len(lower), -1)
        rows = jnp.moveaxis(rows, -2, 0)
        solved = solve_triangular(lower, rows.reshape(len(lower), -1), lower=True)
        return jnp.moveaxis(solved.reshape(rows.shape), 0, -2).reshape(position.shape)

    def seen(self, state: ChainState) -> Chains:
        every = state.accept.shape
        steps = jnp.broadcast_to(state.num_steps, every)
        size = jnp.broadcast_to(state.step_size, every)
        return Chains(
            state.position,
            state.diverging,
            steps,
            state.accept,
            size,
            state.potential,
            state.energy,
        )

    def whitened(self, positions: Positions, key: PRNGKeyArray) -> Whitened:
        """z = ẑ + L⁻¹ δ."""
        return self.mode[None, None] + self.whiten(positions)


def _dual_averaging() -> Any:
    """NumPyro's, moving half as far a draw: fixed trajectories tell less than trees about acceptance."""
    from numpyro.infer.hmc_util import dual_averaging

    return dual_averaging(gamma=0.1)
