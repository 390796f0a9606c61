"""Non-linear conjugate gradients for trained predictors that share one kernel.

P = Θ/ridge and a = ridge · α, as in `linearised`. Shapes: n points, C logits, S initial functions.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    Draws,
    Gram,
    PerDraw,
    Preconditioner,
    everywhere,
    largest,
    nan_is_an_answer,
)
from ntkbayes.training.accuracy import error_bounds, round_off, spread_of
from ntkbayes.training.line_search import line_search


class Solved(NamedTuple):
    """Where conjugate gradients ended.

    Attributes:
        a: ridge · α of each draw, (S, n, C).
        logits: f = f0 + P a, (S, n, C).
        residual: max |a − r(f)| of each, in units of probability.
        logit_error: an upper bound on the error of each draw's logits.
        estimate: that bound as far as the preconditioner knows Σ, as goals are.
        spread: root mean square of f − f0 of each.
        num_iterations: of each.
    """

    a: Draws
    logits: Draws
    residual: PerDraw
    logit_error: PerDraw
    estimate: PerDraw
    spread: PerDraw
    num_iterations: Int[Array, " draws"]

    def shortfall(self, tolerance: float) -> float:
        """The largest error over what the tolerance allows; NaN if one is."""
        error, allowed = np.asarray(self.logit_error), tolerance * np.asarray(self.spread)
        return float(np.max(error / np.maximum(allowed, np.finfo(allowed.dtype).tiny)))

    def after(self, earlier: "Solved") -> "Solved":
        """This, with the iterations of an earlier run that it went on from."""
        counts = np.asarray(earlier.num_iterations) + np.asarray(self.num_iterations)
        return self._replace(num_iterations=jax.device_put(counts))


class Goal(NamedTuple):
    """When a draw is done: once √(max P_ii eᵀ Σ e), which bounds the error of its logits as far as the
    preconditioner knows Σ, is within `relative` times their spread, or within round-off, and so is e
    beside a, which P may not see; or eᵀ Σ e is within `energy`, in nats."""

    relative: PerDraw
    energy: PerDraw

    @classmethod
    def of(cls, tolerance: float, slack: Float[np.ndarray, " draws"]) -> "Goal":
        """Within the tolerance, should the bound exceed the estimate by a little more than it did."""
        relative = tolerance / (_SLACK * np.maximum(slack, 1.0))
        return cls(*jax.device_put((relative, np.zeros_like(relative))))


@nan_is_an_answer()
@eqx.filter_jit
def conjugate_gradients(
    likelihood: Likelihood,
    ntk: Gram,
    ridge: Float[Array, ""],
    targets: Float[Array, "n classes"],
    initial: Draws,
    start: Draws,
    preconditioner: Preconditioner,
    goal: Goal,
    max_iterations: int,
) -> Solved:
    """Preconditioned Polak–Ribière⁺ with a strong-Wolfe line search: globally convergent on the
    strictly convex loss (Gilbert & Nocedal 1992). A step applies the preconditioner to all draws, at the
    cost of one product with Θ or two."""
    prior = ntk.variances / ridge
    largest_prior = jnp.max(prior)

    def inner(u: Draws, v: Draws) -> PerDraw:
        return jnp.sum(u * v, axis=(1, 2))

    def spread(scalars: Shaped[Array, " draws"]) -> Shaped[Array, "draws 1 1"]:
        return scalars[:, None, None]

    residual_of = jax.vmap(lambda f: likelihood.residual(targets, f))
    curvature_of = jax.vmap(lambda f: likelihood.curvature(targets, f))
    search = jax.vmap(lambda f, *given: line_search(likelihood, targets, f, *given))

    def is_active(a: Draws, f: Draws, gradient: Draws, energy: PerDraw) -> Shaped[Array, " draws"]:
        lost = jax.vmap(lambda *given: largest(round_off(prior, *given)))(initial, a, f)
        wanted = jnp.maximum(goal.relative * jax.vmap(spread_of)(f, initial), lost)
        are_logits_close = largest_prior * energy <= wanted**2
        size = largest(a, axis=(1, 2)) + 1 / likelihood.unit
        are_weights_close = largest(gradient, axis=(1, 2)) <= goal.relative * size
        return ~(are_logits_close & are_weights_close) & ~(jnp.abs(energy) < enough)

    def unfinished(state: tuple) -> Array:
        *_, active, count = state
        return jnp.any(active) & (count < max_iterations)

    def update(state: tuple) -> tuple:
        a, f, curvature, gradient, energy, df, da, counts, active, count = state
        slopes = (inner(gradient, df), inner(a, df), inner(da, df))
        t, residual, curvature = search(f, curvature, df, *slopes)
        t = spread(jnp.where(active, t, 0.0))
        a, f = a + t * da, f + t * df
        new = jnp.where(spread(active), a - residual, gradient)
        new_v, new_z = preconditioner.apply(new, likelihood.project)
        beta = jnp.maximum(inner(new - gradient, new_v), 0) / jnp.where(energy > 0, energy, 1.0)
        df, da = spread(beta) * df - new_v, spread(beta) * da - new_z
        uphill = spread(inner(new, df) >= 0)
        df, da = jnp.where(uphill, -new_v, df), jnp.where(uphill, -new_z, da)
        energy = inner(new, new_v)
        still = active & is_active(a, f, new, energy)
        return a, f, curvature, new, energy, df, da, counts + active.astype(int), still, count + 1

    f = initial + ntk @ (start / ridge)
    gradient = start - residual_of(f)
    v, z = preconditioner.apply(gradient, likelihood.project)
    energy = inner(gradient, v)
    enough = jnp.maximum(goal.energy, preconditioner.reach**2 * energy)
    counts = jnp.zeros(initial.shape[0], dtype=int)
    active = is_active(start, f, gradient, energy)
    state = (start, f, curvature_of(f), gradient, energy, -v, -z, counts, active, 0)
    a, *_, energy, _, _, counts, _, _ = jax.lax.while_loop(unfinished, update, state)
    f = initial + ntk @ (a / ridge)  # afresh: no round-off of many updates
    residual, error, size = error_bounds(
        likelihood, ntk, ridge, targets, initial, preconditioner, a, f
    )
    estimate = jnp.sqrt(largest_prior * jnp.abs(energy))
    return jax.tree.map(everywhere, Solved(a, f, residual, error, estimate, size, counts))


def restarted(
    likelihood: Likelihood,
    ntk: Gram,
    ridge: Float[Array, ""],
    targets: Float[Array, "n classes"],
    initial: Draws,
    start: Draws,
    preconditioner: Preconditioner,
    tolerance: float,
    max_iterations: int,
) -> Solved:
    """Conjugate gradients until the error of logits is at most the tolerance times their spread, begun
    again where they ended as long as that lowers the worst error.

    Each beginning computes f afresh, as f and a move apart by round-off. With float32 factors each run
    ends as soon as gradients have fallen by what those can reach (iterative refinement).
    """

    given = (likelihood, ntk, ridge, targets, initial)
    slack = np.ones(len(initial))
    solved = conjugate_gradients(
        *given, start, preconditioner, Goal.of(tolerance, slack), max_iterations
    )
    while not (shortfall := solved.shortfall(tolerance)) <= 1:
        # A draw that ended by its estimate, and not by the bound, gets a goal as much lower.
        error, estimate = np.asarray(solved.logit_error), np.asarray(solved.estimate)
        slack = np.divide(error, estimate, out=slack, where=estimate > 0)
        goal = Goal.of(tolerance, slack)
        again = conjugate_gradients(*given, solved.a, preconditioner, goal, max_iterations)
        if not again.shortfall(tolerance) < 0.9 * shortfall:
            break
        solved = again.after(solved)
    return solved


_SLACK = 1.5  # of bounds above estimates: half a step, where beginning again takes two
