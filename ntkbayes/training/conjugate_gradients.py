"""Non-linear conjugate gradients for trained predictors that share one kernel."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Shaped

from ntkbayes.linalg import (
    Curvature,
    Draws,
    Logits,
    PerDraw,
    Preconditioner,
    everywhere,
    largest,
    nan_is_an_answer,
)
from ntkbayes.linalg import factor_dtype as as_dtype
from ntkbayes.training.accuracy import TOLERANCE, error_bounds, is_accurate, round_off, spread_of
from ntkbayes.training.line_search import Slopes, line_search
from ntkbayes.training.newton import Newton
from ntkbayes.training.objective import (
    Objective,
    Optimum,
    Solver,
    TrainedPredictor,
    TrainedPredictors,
)

_COARSE = 0.3  # nats a point, at which classes are no longer all alike
_SLACK = 1.5  # of bounds above estimates: half a step, where beginning again takes two


def _silent(num_draws: int) -> None:
    """No progress is shown."""


class ConjugateGradients(Solver):
    """Preconditioned non-linear conjugate gradients, for a ridge > 0.

    After a factorisation, a step of all draws costs one product with Θ or two. Where round-off keeps a
    draw from the tolerance, as the kernel is ill-conditioned (a tiny ridge, duplicated points), Newton's
    method finishes it.

    Args:
        tolerance: on the error of every draw's logits, relative to their spread.
        max_iterations: steps before giving up.
        factor_dtype: of the preconditioner. float32 halves its time and memory; the residual is in
            float64, and reaches the same tolerance.
        centre: the trained predictor from the mean of the initial functions, at which the preconditioner
            is made and from which draws start, to first order. Without one, each initial function is
            trained alone: by a preconditioner at its start, and another where that has led.
        progress: called after each block of draws with their number.
        block_numbers, block_columns: draws are solved in blocks of so many numbers, but of no fewer
            columns.
    """

    tolerance: float = TOLERANCE
    max_iterations: int = 500
    factor_dtype: DTypeLike = eqx.field(default=np.float64, static=True, converter=as_dtype)
    centre: TrainedPredictor | None = None
    progress: Callable[[int], object] = eqx.field(default=_silent, static=True)
    block_numbers: int = 2**16  # 512 KiB, so that the like of one array stay in cache
    block_columns: int = 256  # for the sake of the products

    def solve(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        if self.centre is None:
            parts = [self._alone(objective, one[None]) for one in initial]
        else:
            parts = list(self._from_centre(objective, initial, self.centre))
        return jax.tree.map(lambda *values: jnp.concatenate(values), *parts)

    def _alone(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        """One initial function: to where classes are no longer all alike, mostly a step from the start,
        and on from there."""
        goal = Goal(jnp.zeros(1), jnp.asarray(np.full(1, _COARSE * initial[0].shape[0])))
        dtype = self.factor_dtype
        steps = objective.preconditioner(initial[0], num_draws=1, dtype=dtype)
        near = conjugate_gradients(
            objective, initial, jnp.zeros_like(initial), steps, goal, self.max_iterations
        )
        steps = objective.preconditioner(near.optimum.logits[0], num_draws=1, dtype=dtype)
        found = self.restarted(objective, initial, near.optimum.a, steps).after(near)
        return self._finished(objective, initial, found.optimum)

    def _from_centre(
        self, objective: Objective, initial: Draws, centre: TrainedPredictor
    ) -> Iterator[TrainedPredictors]:
        size = len(initial)
        steps = objective.preconditioner(centre.logits, num_draws=size, dtype=self.factor_dtype)
        curvature, mean = objective.curvature(centre.logits), objective.ridge * centre.alpha
        wide = max(self.block_numbers // initial[0].size, self.block_columns // initial.shape[2])
        block = max(1, min(size, wide))
        for begin in range(0, size, block):
            part = initial[begin : begin + block]
            missing = block - len(part)  # the last block is filled up: one compilation for all
            filled = jnp.concatenate([part, jnp.broadcast_to(part[:1], (missing, *part.shape[1:]))])
            offsets = filled - centre.initial[None]
            start = _first_order(objective, steps, curvature, mean, offsets)
            found = self.restarted(objective, filled, start, steps).optimum
            yield self._finished(objective, part, Optimum(*(v[: len(part)] for v in found)))
            self.progress(len(part))

    def restarted(
        self, objective: Objective, initial: Draws, start: Draws, preconditioner: Preconditioner
    ) -> "Descent":
        """Conjugate gradients, begun again where they ended as long as that lowers the worst error.

        Each beginning computes f afresh, as f and a move apart by round-off. With float32 factors each
        run ends as soon as gradients have fallen by what those can reach (iterative refinement).
        """

        def run(start: Draws, slack: Float[np.ndarray, " draws"]) -> Descent:
            goal = Goal.of(self.tolerance, slack)
            return conjugate_gradients(
                objective, initial, start, preconditioner, goal, self.max_iterations
            )

        slack = np.ones(len(initial))
        found = run(start, slack)
        while not (shortfall := found.shortfall(self.tolerance)) <= 1:
            # A draw that ended by its estimate, and not by the bound, gets a goal as much lower, unless
            # its estimate sees nothing of the error.
            error, estimate = np.asarray(found.optimum.logit_error), np.asarray(found.estimate)
            seen = estimate > np.finfo(error.dtype).eps * error
            slack = np.divide(error, estimate, out=slack, where=seen)
            again = run(found.optimum.a, slack)
            if not again.shortfall(self.tolerance) < 0.9 * shortfall:
                break
            found = again.after(found)
        return found

    def _finished(self, objective: Objective, initial: Draws, found: Optimum) -> TrainedPredictors:
        """With the draws that are not accurate finished by Newton's method."""
        newton = Newton(self.tolerance, self.max_iterations)
        error, spread = found.logit_error, found.spread
        done = is_accurate(objective.likelihood, error, spread, self.tolerance)
        who = "Newton's method" if self.centre is None else "training many draws"
        for draw in np.flatnonzero(~done):
            start = found.a[draw] if np.isfinite(found.residual[draw]) else None
            one = newton.accepted(objective, initial[draw], start, who=who)
            one = one._replace(num_iterations=found.num_iterations[draw] + one.num_iterations)
            found = jax.tree.map(lambda v, new, k=draw: v.at[k].set(new), found, one)
        return TrainedPredictors.of(objective, found)


@eqx.filter_jit
def _first_order(
    objective: Objective,
    preconditioner: Preconditioner,
    curvature: Curvature,
    centre: Logits,
    offsets: Draws,
) -> Draws:
    """a to first order in f0 − mean (THEORY 4), as far as the preconditioner knows:
    a ≈ ā − (P + W⁻¹)⁻¹ (f0 − mean), and (P + W⁻¹)⁻¹ = P⁻¹ Σ W.

    Args:
        centre: ā.
        offsets: f0 − mean.
    """
    curved = jax.vmap(curvature.matvec)(offsets)
    _, response = preconditioner.apply(curved, objective.likelihood.project)
    return centre[None] - response


# --- one run -------------------------------------------------------------------------------------


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


class Descent(NamedTuple):
    """Where conjugate gradients ended: the optimum of each draw, and the bound on its logits' error as
    far as the preconditioner knows Σ, as goals are."""

    optimum: Optimum
    estimate: PerDraw

    def shortfall(self, tolerance: float) -> float:
        """The largest error over what the tolerance allows: infinite if nothing is, NaN if one is."""
        error, allowed = (
            np.asarray(self.optimum.logit_error),
            tolerance * np.asarray(self.optimum.spread),
        )
        with np.errstate(over="ignore"):
            return float(np.max(error / np.maximum(allowed, np.finfo(allowed.dtype).tiny)))

    def after(self, earlier: "Descent") -> "Descent":
        """This, with the iterations of an earlier run that it went on from."""
        counts = [np.asarray(run.optimum.num_iterations) for run in (earlier, self)]
        optimum = self.optimum._replace(num_iterations=jax.device_put(sum(counts)))
        return Descent(optimum, self.estimate)


@nan_is_an_answer()
@eqx.filter_jit
def conjugate_gradients(
    objective: Objective,
    initial: Draws,
    start: Draws,
    preconditioner: Preconditioner,
    goal: Goal,
    max_iterations: int,
) -> Descent:
    """Preconditioned Polak–Ribière⁺ with a strong-Wolfe line search: globally convergent on the
    strictly convex loss (Gilbert & Nocedal 1992). A step applies the preconditioner to all draws, at the
    cost of one product with Θ or two."""
    likelihood, prior = objective.likelihood, objective.prior_variances
    largest_prior = jnp.max(prior)

    def inner(u: Draws, v: Draws) -> PerDraw:
        return jnp.sum(u * v, axis=(1, 2))

    def spread(scalars: Shaped[Array, " draws"]) -> Shaped[Array, "draws 1 1"]:
        return scalars[:, None, None]

    search = jax.vmap(lambda f, *given: line_search(objective, f, *given))

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
        slopes = Slopes(inner(gradient, df), inner(a, df), inner(da, df))
        t, residual, curvature = search(f, a - gradient, curvature, df, slopes)
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

    f = objective.logits(initial, start)
    gradient = start - jax.vmap(objective.residual)(f)
    v, z = preconditioner.apply(gradient, likelihood.project)
    energy = inner(gradient, v)
    enough = jnp.maximum(goal.energy, preconditioner.reach**2 * energy)
    counts = jnp.zeros(initial.shape[0], dtype=int)
    active = is_active(start, f, gradient, energy)
    curvature = jax.vmap(objective.curvature)(f)
    state = (start, f, curvature, gradient, energy, -v, -z, counts, active, 0)
    a, *_, energy, _, _, counts, _, _ = jax.lax.while_loop(unfinished, update, state)
    f = objective.logits(initial, a)  # afresh: no round-off of many updates
    residual, error, size = error_bounds(objective, initial, preconditioner, a, f)
    estimate = jnp.sqrt(largest_prior * jnp.abs(energy))
    optimum = Optimum(a, f, residual, error, size, counts)
    return jax.tree.map(everywhere, Descent(optimum, estimate))
