"""A Gaussian near the posterior, and motion about it that is exact for the Gaussian.

With N(m, S) as reference and δ = f(X) − m, the posterior density is

    exp(−½ δᵀ S⁻¹ δ − Φ(δ)),     Φ(δ) = −log p(y | m + δ) + aᵀ δ − ½ δᵀ Λ δ,     S = (P⁻¹ + Λ)⁻¹

with a = P⁻¹ (m − mean). About the mode, as Laplace has it, Φ and its slope vanish up to a constant. With
t Φ in place of Φ it is the density at t of a path from the reference, t = 0, to the posterior, t = 1.

Velocities are drawn from N(0, S). Under the reference alone (δ, v) turns in a circle of period 2π; Φ
only kicks the velocity, by −h t S ∇Φ. Splitting the motion so (Shahbaba, Lan, Johnson & Neal 2014, Split
HMC) needs no S⁻¹, and is well defined for functions (Beskos, Pinski, Sanz-Serna & Stuart 2011, Hybrid
Monte Carlo on Hilbert spaces): a kick adds −h t ∇Φᵀ (v + v')/2 to the reference's energy ½ vᵀ S⁻¹ v.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Curvature, Draws, Logits, white_noise

Roots = Float[Array, "classes n n"] | Float[Array, "rows rows"]
PerDraw = Float[Array, " draws"]

SHORTEST, LONGEST = math.pi / 3, math.pi
"""Of a trajectory; π would lead back to −δ."""

_MAX_STEPS = 1024


class Reference(eqx.Module):
    """N(m, S), and what the posterior is beyond it.

    Attributes:
        likelihood, targets: of the data.
        logits: m.
        score: a.
        curvature: Λ.
        roots: R with R Rᵀ = S, one per class or one that couples them.
        covariance: S.
        power: t, how far from the reference to the posterior.
    """

    likelihood: Likelihood
    targets: Logits
    logits: Logits
    score: Logits
    curvature: Curvature
    roots: Roots
    covariance: Roots
    power: Float[Array, ""]

    def remainder(self, position: Logits) -> Float[Array, ""]:
        """Φ(δ)."""
        density = self.likelihood.log_density(self.targets, self.logits + position)
        bent = self.score - self.curvature.matvec(position) / 2
        return jnp.sum(bent * position) - jnp.sum(density)

    def force(self, position: Logits) -> Logits:
        """−t ∇Φ(δ)."""
        residual = self.likelihood.residual(self.targets, self.logits + position)
        return self.power * (residual - self.score + self.curvature.matvec(position))


class Turn(NamedTuple):
    """Where trajectories led.

    Attributes:
        position, remainder: δ and Φ(δ) of each draw: of the trajectory's end where that is accepted,
            else of its start.
        moved: whether it is accepted.
        accept: with which probability.
        error: by how much the energy at the trajectory's end exceeds that at its start.
        kinetic: the energy of the velocity that it started with.
        num_steps: of all trajectories.
    """

    position: Draws
    remainder: PerDraw
    moved: Bool[Array, " draws"]
    accept: PerDraw
    error: PerDraw
    kinetic: PerDraw
    num_steps: Int[Array, ""]


def turn(
    reference: Reference,
    position: Draws,
    remainder: PerDraw,
    longest_step: Float[Array, ""],
    key: PRNGKeyArray,
) -> Turn:
    """Move draws about the reference by an angle drawn from [π/3, π], the same for all, in steps no
    longer than given. It leaves the density at t invariant."""
    angle_key, velocity_key, accept_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, minval=SHORTEST, maxval=LONGEST)
    steps = jnp.clip(jnp.ceil(angle / longest_step), 1, _MAX_STEPS)
    step, count = jnp.minimum(angle / steps, longest_step), steps.astype(int)
    noise = white_noise(velocity_key, position.shape)

    def end(position: Logits, velocity: Logits) -> tuple[Logits, Float[Array, ""]]:
        position, _, gained = trajectory(reference, position, velocity, step, count)
        return position, gained

    proposal, gained = jax.vmap(end)(position, product(reference.roots, noise))
    proposed = jax.vmap(reference.remainder)(proposal)
    error = reference.power * (proposed - remainder) + gained
    error = jnp.where(jnp.isnan(error), jnp.inf, error)
    accept = jnp.exp(jnp.minimum(0.0, -error))
    moved = jax.random.uniform(accept_key, accept.shape) < accept
    return Turn(
        jnp.where(moved[:, None, None], proposal, position),
        jnp.where(moved, proposed, remainder),
        moved,
        accept,
        error,
        jnp.sum(noise**2, axis=(1, 2)) / 2,
        count,
    )


def product(roots: Roots, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws n classes"]:
    """Each class by its own matrix, or all by one that couples them."""
    return transposed_product(jnp.swapaxes(roots, -1, -2), v)


def transposed_product(
    matrices: Roots, v: Float[Array, "*draws n classes"]
) -> Float[Array, "*draws n classes"]:
    """Each class by the transpose of its own matrix, or all by that of one. A product of rows: few of
    them take XLA a third of the time of as many columns."""
    if matrices.ndim == 2:
        return (v.reshape(*v.shape[:-2], -1) @ matrices).reshape(v.shape)
    moved = jnp.einsum("c...j,cji->c...i", jnp.moveaxis(v, -1, 0), matrices)
    return jnp.moveaxis(moved, 0, -1)


def trajectory(
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
        kicked = velocity + step * transposed_product(reference.covariance, force)
        gained += step * jnp.sum(force * (velocity + kicked)) / 2
        return *turned(position, kicked), gained

    return jax.lax.fori_loop(0, count, advance, (position, velocity, jnp.zeros(())))
