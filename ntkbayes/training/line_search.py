"""The line search of every solver of the linearised network's loss."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.linalg import Curvature, Logits, inner
from ntkbayes.training.objective import Objective


class Slopes(NamedTuple):
    """At the start of a step, along it: the loss's slope, and slope and curvature of its prior term."""

    loss: Float[Array, ""]
    prior: Float[Array, ""]
    prior_curvature: Float[Array, ""]


def line_search(
    objective: Objective,
    logits: Logits,
    residual: Logits,
    curvature: Curvature,
    step: Logits,
    slopes: Slopes,
) -> tuple[Float[Array, ""], Logits, Curvature]:
    """The t > 0 that (nearly) minimises the loss along logits + t · step, and the residual and W there.

    The loss is convex in t, so its slope increases from a negative value. Newton's iteration on the
    slope, bracketed by bisection, stops once |slope(t)| ≤ |slope(0)| / 10, or within the slope's
    round-off. A Newton move longer than half of the last gives way to bisection: where the loss grows
    exponentially (counts), moves would all be equal and tiny. Costs no matrix product, and near the
    solution one evaluation of the likelihood: the first t is Newton's, from the curvature at the logits.

    If the slope is round-off, t = 1: a step that moves no logit (balanced labels at coinciding points)
    still moves the weights, and is taken in full.

    Args:
        residual, curvature: at the logits.
    """
    eps = jnp.finfo(step.dtype).eps

    def steepness(curvature: Curvature) -> Array:
        return inner(step, curvature.matvec(step)) + slopes.prior_curvature

    def round_off(prior: Array, residual: Logits) -> Array:
        terms = jnp.abs(prior) + inner(jnp.abs(residual), jnp.abs(step))
        return jnp.where(jnp.isfinite(terms), 8 * eps * terms, 0.0)

    def at(t: Float[Array, ""]) -> tuple[Array, Array, Logits, Curvature]:
        f = logits + t * step
        residual = objective.residual(f)
        prior = slopes.prior + t * slopes.prior_curvature
        slope = prior - inner(residual, step)
        return slope, round_off(prior, residual), residual, objective.curvature(f)

    def unfinished(state: tuple) -> Array:
        *_, (slope, noise, _, _), count = state
        return ~(jnp.abs(slope) <= 0.1 * jnp.abs(slopes.loss) + noise) & (count < 50)

    def refine(state: tuple) -> tuple:
        low, high, t, last, (slope, *_, curvature), count = state
        low, high = jnp.where(slope < 0, t, low), jnp.where(slope < 0, high, t)
        newton = t - slope / steepness(curvature)
        middle = jnp.where(jnp.isinf(high), 2 * t, (low + high) / 2)
        inside = (newton > low) & (newton < high) & (newton < 10 * t)
        new = jnp.where(inside & (jnp.abs(newton - t) <= last / 2), newton, middle)
        return low, high, new, jnp.abs(new - t), at(new), count + 1

    steep = steepness(curvature)
    descends = (slopes.loss < -round_off(slopes.prior, residual)) & (steep > 0)
    newton = -slopes.loss / jnp.where(descends, steep, 1.0)
    first = jnp.where(descends, jnp.minimum(newton, 10.0), 1.0)
    endless = jnp.full_like(first, jnp.inf)
    state = (jnp.zeros_like(first), endless, first, endless, at(first), 0)
    _, _, t, _, (*_, residual, curvature), _ = jax.lax.while_loop(unfinished, refine, state)
    return t, residual, curvature
