"""The step of a convex loss along a direction, as Newton's method and conjugate gradients take it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Curvature, Logits


def line_search(
    likelihood: Likelihood,
    targets: Logits,
    logits: Logits,
    curvature: Curvature,
    step: Logits,
    start_slope: Float[Array, ""],
    prior_slope: Float[Array, ""],
    prior_curvature: Float[Array, ""],
) -> tuple[Float[Array, ""], Logits, Curvature]:
    """The t > 0 that (nearly) minimises the loss along logits + t · step, and the residual and W there.

    The loss is convex in t, so its slope grows from a negative value; Newton's iteration on the
    slope, kept inside a bracket by bisection, stops once |slope(t)| ≤ |slope(0)| / 10. Newton's moves
    have to halve, or else one bisects: where the loss grows exponentially (counts), they would all be
    alike and tiny. Costs no matrix product, and near the solution one evaluation of the likelihood:
    the first t is Newton's, by the curvature at the logits. The slopes are of the whole loss at 0, and
    of its prior part at 0.
    """

    def steepness(curvature: Curvature) -> Array:
        return jnp.sum(step * curvature.matvec(step)) + prior_curvature

    def at(t: Float[Array, ""]) -> tuple[Array, Logits, Curvature]:
        f = logits + t * step
        residual = likelihood.residual(targets, f)
        slope = prior_slope + t * prior_curvature - jnp.sum(residual * step)
        return slope, residual, likelihood.curvature(targets, f)

    def unfinished(state: tuple) -> Array:
        *_, (slope, _, _), count = state
        return ~(jnp.abs(slope) <= 0.1 * jnp.abs(start_slope)) & (count < 50)

    def refine(state: tuple) -> tuple:
        low, high, t, last, (slope, _, curvature), count = state
        low, high = jnp.where(slope < 0, t, low), jnp.where(slope < 0, high, t)
        newton = t - slope / steepness(curvature)
        middle = jnp.where(jnp.isinf(high), 2 * t, (low + high) / 2)
        inside = (newton > low) & (newton < high) & (newton < 10 * t)
        new = jnp.where(inside & (jnp.abs(newton - t) <= last / 2), newton, middle)
        return low, high, new, jnp.abs(new - t), at(new), count + 1

    first = jnp.minimum(-start_slope / steepness(curvature), 10.0)
    endless = jnp.full_like(first, jnp.inf)
    state = (jnp.zeros_like(first), endless, first, endless, at(first), 0)
    _, _, t, _, (_, residual, curvature), _ = jax.lax.while_loop(unfinished, refine, state)
    return t, residual, curvature
