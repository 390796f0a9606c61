"""Non-linear conjugate gradients for trained predictors that share one kernel."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int, Shaped

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
    silent,
)

# Energies in nats per point where the preconditioner of one initial function is built anew: classes are
# no longer all alike, and W is nearly that of the end. Either saves tens of steps.
_STAGES = (0.3, 1e-3)
_SLACK = 1.5  # of bounds above estimates: costs half a step, where a restart costs two


class ConjugateGradients(Solver):
    """Preconditioned non-linear conjugate gradients, for a ridge > 0.

    After one factorisation, a step of all draws costs one or two products with Θ. Newton's method
    finishes draws that round-off keeps from the tolerance, where the kernel is ill-conditioned (a tiny
    ridge, duplicated points).

    Args:
        tolerance: for the error of every draw's logits, relative to their spread.
        max_iterations: steps before giving up.
        factor_dtype: of the preconditioner. float32 halves its time and memory; the residual is in
            float64, and reaches the same tolerance.
        centre: the trained predictor from the mean of the initial functions. The preconditioner is built
            there, and draws start from it, to first order. Without a centre each initial function is
            trained alone, with preconditioners in float32 at its start and on the way, and a last one.
        progress: called with the number of draws after each block of them.
        watch: called with the error of the logits, about, whenever a preconditioner has served.
        block_numbers, block_columns: numbers in a block of draws, about, and columns, at least.
    """

    tolerance: float = TOLERANCE
    max_iterations: int = 500
    factor_dtype: DTypeLike = eqx.field(default=np.float64, static=True, converter=as_dtype)
    centre: TrainedPredictor | None = None
    progress: Callable[[int], object] = eqx.field(default=silent, static=True)
    watch: Callable[[float], object] = eqx.field(default=silent, static=True)
    block_numbers: int = 2**16  # 512 KiB per array, to stay in cache
    block_columns: int = 256  # for fast products

    def solve(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        if self.centre is None:
            parts = [self._alone(objective, one[None]) for one in initial]
        else:
            parts = list(self._from_centre(objective, initial, self.centre))
        return jax.tree.map(lambda *values: jnp.concatenate(values), *parts)

    def _alone(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        """One initial function, with a new preconditioner at each of some stages."""
        a, logits, stages = jnp.zeros_like(initial), initial, []
        for energy in _STAGES:
            given = objective, initial, a, logits[0], energy
            stage = self._stage(*given, jnp.float32)
            if not np.isfinite(stage.estimate[0]):  # ill-conditioned: no factor in float32
                stage = self._stage(*given, self.factor_dtype)
            stages.append(stage)
            a, logits = stage.optimum.a, stage.optimum.logits
            self.watch(float(stage.estimate[0]))
        steps = objective.preconditioner(logits[0], num_draws=1, dtype=self.factor_dtype)
        descent = self.restarted(objective, initial, a, steps)
        self.watch(float(descent.estimate[0]))
        for stage in stages:
            descent = descent.after(stage)
        return self._finished(objective, initial, descent.optimum)

    def _stage(
        self,
        objective: Objective,
        initial: Draws,
        a: Draws,
        f: Logits,
        energy: float,
        dtype: DTypeLike,
    ) -> "Descent":
        """Down to an energy in nats per point, with a preconditioner at f."""
        steps = objective.preconditioner(f, num_draws=1, dtype=dtype)
        goal = Goal(jnp.zeros(1), jnp.asarray(np.full(1, energy * len(f))))
        return conjugate_gradients(objective, initial, a, steps, goal, self.max_iterations)

    def _from_centre(
        self, objective: Objective, initial: Draws, centre: TrainedPredictor
    ) -> Iterator[TrainedPredictors]:
        size = len(initial)
        steps = objective.preconditioner(centre.logits, num_draws=size, dtype=self.factor_dtype)
        curvature, given = objective.curvature(centre.logits), (centre.initial, centre.alpha)
        wide = max(self.block_numbers // initial[0].size, self.block_columns // initial.shape[2])
        block = max(1, min(size, wide))
        for begin in range(0, size, block):
            part, start = _started(
                objective, steps, curvature, given, initial, jnp.asarray(begin), block
            )
            optimum = self.restarted(objective, part, start, steps).optimum
            new = min(block, size - begin)
            if new < block:
                part = part[block - new :]
                optimum = Optimum(*(values[block - new :] for values in optimum))
            yield self._finished(objective, part, optimum)
            self.progress(new)

    def restarted(
        self, objective: Objective, initial: Draws, start: Draws, preconditioner: Preconditioner
    ) -> "Descent":
        """Conjugate gradients, restarted while that lowers the worst error.

        Each restart recomputes f, which round-off drives away from a. With float32 factors a run ends
        once gradients have fallen as far as those can take them (iterative refinement).
        """

        def run(start: Draws, slack: Float[np.ndarray, " draws"]) -> Descent:
            goal = Goal.of(self.tolerance, slack)
            return conjugate_gradients(
                objective, initial, start, preconditioner, goal, self.max_iterations
            )

        slack = np.ones(len(initial))
        descent = run(start, slack)
        while not (shortfall := descent.shortfall(self.tolerance)) <= 1:
            # Where the estimate met its goal but the bound did not, lower the goal by their ratio,
            # unless the estimate is blind to the error.
            error, estimate = np.asarray(descent.optimum.logit_error), np.asarray(descent.estimate)
            seen = estimate > np.finfo(error.dtype).eps * error
            slack = np.divide(error, estimate, out=slack, where=seen)
            again = run(descent.optimum.a, slack)
            if not again.shortfall(self.tolerance) < 0.9 * shortfall:
                break
            descent = again.after(descent)
        return descent

    def _finished(
        self, objective: Objective, initial: Draws, optimum: Optimum
    ) -> TrainedPredictors:
        """The trained predictors, with inaccurate draws finished by Newton's method."""
        newton = Newton(self.tolerance, self.max_iterations)
        error, spread = optimum.logit_error, optimum.spread
        done = is_accurate(objective.likelihood, error, spread, self.tolerance)
        who = "Newton's method" if self.centre is None else "training many draws"
        for draw in np.flatnonzero(~done):
            start = optimum.a[draw] if np.isfinite(optimum.residual[draw]) else None
            one = newton.accepted(objective, initial[draw], start, who=who)
            one = one._replace(num_iterations=optimum.num_iterations[draw] + one.num_iterations)
            optimum = jax.tree.map(lambda v, new, k=draw: v.at[k].set(new), optimum, one)
        return TrainedPredictors.of(objective, optimum)


@eqx.filter_jit
def _started(
    objective: Objective,
    preconditioner: Preconditioner,
    curvature: Curvature,
    centre: tuple[Logits, Logits],
    initial: Draws,
    begin: Int[Array, ""],
    size: int,
) -> tuple[Float[Array, "block n classes"], Float[Array, "block n classes"]]:
    """A block of initial functions, and a of each to first order in f0 − mean (THEORY 4), with the
    preconditioner in place of Σ: a ≈ ā − (P + W⁻¹)⁻¹ (f0 − mean), and (P + W⁻¹)⁻¹ = P⁻¹ Σ W.

    Args:
        centre: f0 and α.
        begin: index of the block's first; the last block begins earlier, so that all have one size.
    """
    part = jax.lax.dynamic_slice_in_dim(initial, begin, size)
    middle, alpha = centre
    curved = jax.vmap(curvature.matvec)(part - middle[None])
    _, response = preconditioner.apply(curved, objective.likelihood.project)
    return part, objective.ridge * alpha[None] - response


# --- one run -------------------------------------------------------------------------------------


class Goal(NamedTuple):
    """When a draw is done: once the estimate √(max P_ii eᵀ Σ e) of its logits' error, with the
    preconditioner as Σ, is within `relative` times their spread or within round-off, and e within
    `relative` times a (P may be blind to e); or once eᵀ Σ e is within `energy`, in nats."""

    relative: PerDraw
    energy: PerDraw

    @classmethod
    def of(cls, tolerance: float, slack: Float[np.ndarray, " draws"]) -> "Goal":
        """The tolerance, with room for bounds that exceed estimates by a little more than `slack`."""
        relative = tolerance / (_SLACK * np.maximum(slack, 1.0))
        return cls(*jax.device_put((relative, np.zeros_like(relative))))


class Descent(NamedTuple):
    """Where conjugate gradients ended: the optimum of each draw, and the estimate of its logits' error
    (see `Goal`)."""

    optimum: Optimum
    estimate: PerDraw

    def shortfall(self, tolerance: float) -> float:
        """The largest ratio of error to what the tolerance allows; infinite if that is 0, NaN if an
        error is."""
        error, allowed = (
            np.asarray(self.optimum.logit_error),
            tolerance * np.asarray(self.optimum.spread),
        )
        with np.errstate(over="ignore"):
            return float(np.max(error / np.maximum(allowed, np.finfo(allowed.dtype).tiny)))

    def after(self, earlier: "Descent") -> "Descent":
        """This descent, with the iterations of the earlier run that it continues added."""
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
    cost of one or two products with Θ."""
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
        is_lost = jnp.isnan(energy)  # a factor that does not exist: no step helps
        return ~(are_logits_close & are_weights_close) & ~(jnp.abs(energy) < enough) & ~is_lost

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
    f = objective.logits(initial, a)  # recomputed, without the round-off of many updates
    residual, error, size = error_bounds(objective, initial, preconditioner, a, f)
    estimate = jnp.sqrt(largest_prior * jnp.abs(energy))
    optimum = Optimum(a, f, residual, error, size, counts)
    return jax.tree.map(everywhere, Descent(optimum, estimate))
