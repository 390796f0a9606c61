"""The exact posterior of GP classification, by Hamiltonian Monte Carlo whose Gaussian part is exact.

With the Laplace posterior N(f̂, S) as reference and δ = f(X) − f̂, the posterior density is

    exp(−½ δᵀ S⁻¹ δ − Φ(δ)),     Φ(δ) = −log p(y | f̂ + δ) + aᵀ δ − ½ δᵀ Λ δ,     S = (P⁻¹ + Λ)⁻¹

with a = P⁻¹ (f̂ − mean) the score at the mode, so that Φ and its slope vanish there up to a constant.
Velocities are drawn from N(0, S). Under the reference alone (δ, v) turns in a circle of period 2π; Φ
only kicks the velocity, by −h S ∇Φ. Splitting the motion so (Shahbaba, Lan, Johnson & Neal 2014, Split
HMC) needs no S⁻¹, and is well defined for functions (Beskos, Pinski, Sanz-Serna & Stuart 2011, Hybrid
Monte Carlo on Hilbert spaces): a kick adds −h ∇Φᵀ (v + v')/2 to the reference's energy ½ vᵀ S⁻¹ v.
"""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

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
from ntkbayes.linalg import Curvature, FormedBlock, Logits, StructuredCurvature
from ntkbayes.training.operations import Size

Roots = Float[Array, "classes n n"] | Float[Array, "rows rows"]
PerChain = Float[Array, " chains"]

_SHORTEST, _LONGEST = math.pi / 3, math.pi  # of a trajectory; π would lead back to −δ
_MAX_STEPS = 1024
_MAX_ENERGY_ERROR = 1000.0  # NumPyro's measure of a divergence


class SplitHMC(ChainMethod):
    """Hamiltonian Monte Carlo on the logits at X, exact for the Laplace posterior (split HMC).

    A trajectory turns about the mode by an angle drawn from [π/3, π], in steps as large as the
    departure of the posterior from the reference allows. A step costs one product with S, class by
    class, against two of NUTS, and there is no tree: all chains take the same number of steps, and none
    waits for another. They share the step size, which adapts to the mean acceptance of all.
    Trajectories stop at 1024 steps.

    Another fit with the same shapes and num_chains does not compile again.

    Args:
        num_samples: draws kept per chain.
        num_warmup: draws per chain discarded while the step size adapts.
        num_chains: chains, run side by side.
        target_accept: acceptance probability that the step size aims at.
        progress: show a progress bar, over warm-up and samples.
    """

    name: ClassVar[str] = "split HMC"

    def matrices(self, rows: int, num_outputs: int) -> dict[str, float]:
        return {"factor and P": 2.0, "roots": 3.0 * num_outputs, "workspace": 3.0}

    def steps(self, size: Size) -> tuple[float, float]:
        return 15.0, 1.0

    def sampler(self, problem: Problem, lower: FormedBlock, mode: Mode) -> "SplitHMCSampler":
        reference = _reference(problem.likelihood, problem.targets, lower, mode)
        warmup = jnp.asarray(self.num_warmup)
        return SplitHMCSampler(reference, jnp.asarray(self.target_accept), warmup)


class Reference(eqx.Module):
    """The Laplace posterior, class by class, and what the posterior is beyond it.

    Attributes:
        likelihood, targets: of the data.
        lower: L with L Lᵀ = P.
        mode: ẑ, f̂, and a.
        curvature: Λ.
        roots: R with R Rᵀ = S.
        covariance: S.
    """

    likelihood: Likelihood
    targets: Logits
    lower: FormedBlock
    mode: Mode
    curvature: Curvature
    roots: Roots
    covariance: Roots

    def potential(self, position: Logits) -> Float[Array, ""]:
        """−log posterior density at f̂ + δ, up to a constant: with z = ẑ + L⁻¹ δ, ½ zᵀ z − log p."""
        white = self.mode.whitened + self.whiten(position)
        density = self.likelihood.log_density(self.targets, self.mode.logits + position)
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

    def remainder(self, position: Logits) -> Float[Array, ""]:
        """Φ(δ)."""
        density = self.likelihood.log_density(self.targets, self.mode.logits + position)
        bent = self.mode.score - self.curvature.matvec(position) / 2
        return jnp.sum(bent * position) - jnp.sum(density)

    def force(self, position: Logits) -> Logits:
        """−∇Φ(δ)."""
        residual = self.likelihood.residual(self.targets, self.mode.logits + position)
        return residual - self.mode.score + self.curvature.matvec(position)


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
    return Reference(likelihood, targets, lower, mode, curvature, roots, covariance)


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
    reference: Reference
    target_accept: Float[Array, ""]
    num_warmup: Int[Array, ""]

    def start(self, noise: Draws, key: PRNGKeyArray) -> ChainState:
        begin, _ = _dual_averaging()
        # What leapfrog would bear for a standard normal of this dimension: where adaptation begins.
        size = jnp.full((), noise[0].size ** -0.25, dtype=noise.dtype)
        position = product(self.reference.roots, noise)
        remainder = jax.vmap(self.reference.remainder)(position)
        potential = jax.vmap(self.reference.potential)(position)
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
        key, angle_key, velocity_key, accept_key = jax.random.split(state.key, 4)
        angle = jax.random.uniform(angle_key, minval=_SHORTEST, maxval=_LONGEST)
        steps = jnp.clip(jnp.ceil(angle / state.step_size), 1, _MAX_STEPS)
        step, count = jnp.minimum(angle / steps, state.step_size), steps.astype(int)
        noise = jax.random.normal(velocity_key, state.position.shape)

        def end(position: Logits, velocity: Logits) -> tuple[Logits, Float[Array, ""]]:
            position, _, gained = _trajectory(self.reference, position, velocity, step, count)
            return position, gained

        proposal, gained = jax.vmap(end)(state.position, product(self.reference.roots, noise))
        remainder = jax.vmap(self.reference.remainder)(proposal)
        error = remainder - state.remainder + gained
        error = jnp.where(jnp.isnan(error), jnp.inf, error)
        accept = jnp.exp(jnp.minimum(0.0, -error))
        moved = jax.random.uniform(accept_key, accept.shape) < accept
        position = jnp.where(moved[:, None, None], proposal, state.position)
        kinetic = jnp.sum(noise**2, axis=(1, 2)) / 2

        _, update = _dual_averaging()
        with jax.numpy_dtype_promotion("standard"):  # NumPyro's
            adapted = update(self.target_accept - jnp.mean(accept), state.averaging)
        adapting = state.warmup_left > 0
        # The last warm-up draw leaves the average of the log steps, the others the latest.
        log_step = jnp.where(state.warmup_left > 1, adapted[0], adapted[1])
        step_size = jnp.where(adapting, jnp.minimum(jnp.exp(log_step), _LONGEST), state.step_size)
        return ChainState(
            position,
            jnp.where(moved, remainder, state.remainder),
            adapted,
            jnp.maximum(state.warmup_left - 1, 0),
            key,
            error > _MAX_ENERGY_ERROR,
            accept,
            count,
            step_size,
            jax.vmap(self.reference.potential)(position),
            state.potential + kinetic + jnp.where(moved, error, 0.0),
        )

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
        return self.reference.mode.whitened[None, None] + self.reference.whiten(positions)


def product(roots: Roots, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws n classes"]:
    """Each class by its own matrix, or all by one that couples them."""
    if roots.ndim == 2:
        return (v.reshape(*v.shape[:-2], -1) @ roots.T).reshape(v.shape)
    return jnp.einsum("cij,...jc->...ic", roots, v)


def _dual_averaging() -> Any:
    """NumPyro's, moving half as far a draw: fixed trajectories tell less than trees about acceptance."""
    from numpyro.infer.hmc_util import dual_averaging

    return dual_averaging(gamma=0.1)


def _trajectory(
    reference: Reference,
    position: Logits,
    velocity: Logits,
    step: Float[Array, ""],
    count: Int[Array, ""],
) -> tuple[Logits, Logits, Float[Array, ""]]:
    """(δ, v) after `count` steps, each half a turn by `step`, a kick and the other half; and what the
    kicks added to the reference's energy, which turning conserves."""
    cos, sin = jnp.cos(step / 2), jnp.sin(step / 2)

    def turned(position: Logits, velocity: Logits) -> tuple[Logits, Logits]:
        return cos * position + sin * velocity, cos * velocity - sin * position

    def advance(_: Array, carry: tuple) -> tuple:
        position, velocity, gained = carry
        position, velocity = turned(position, velocity)
        force = reference.force(position)
        kicked = velocity + step * product(reference.covariance, force)
        gained += step * jnp.sum(force * (velocity + kicked)) / 2
        return *turned(position, kicked), gained

    return jax.lax.fori_loop(0, count, advance, (position, velocity, jnp.zeros(())))
