"""Non-linear conjugate gradients for trained predictors that share one kernel."""

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Shaped

from ntkbayes.linalg import (
    Curvature,
    Draws,
    Logits,
    PerDraw,
    Preconditioner,
    everywhere,
    inner,
    largest,
    nan_is_an_answer,
)
from ntkbayes.linalg import factor_dtype as as_dtype
from ntkbayes.training.accuracy import (
    TOLERANCE,
    energy_bounds,
    error_bounds,
    is_accurate,
    round_off,
    spread_of,
)
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

IsActive = Bool[Array, " draws"]
Part = Float[Array, "block n classes"]

# Energies in nats per point where the preconditioner of one initial function is built anew: classes are
# no longer all alike, and W is nearly that of the end. Either saves tens of steps.
_STAGES = (0.3, 1e-3)
_COUPLED_STAGES = (1e-3,)  # a factor takes longer than the steps that another stage would save
_NARROW_ROWS = 1500  # of Θ: below, to compile for float32 too takes longer than its factors save
_SLACK = 1.1  # of bounds with f anew above those before: costs less than a step, a restart three


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
            trained alone, with preconditioners at its start and on the way (in float32 for many points),
            and a last one (in float32 for a large coupled Θ, if that reaches the tolerance).
        progress: called with the number of draws after each block of them.
        watch: called with the error of the logits, about, whenever a preconditioner has served.
        block_numbers: about as many numbers as a block of draws has.
        block_columns: at least as many columns.
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
        if self.centre is not None:
            return self._from_centre(objective, initial, self.centre)
        optima = [self._alone(objective, initial[i : i + 1]) for i in range(len(initial))]
        joined = jax.tree.map(lambda *values: jax.device_put(np.concatenate(values)), *optima)
        return TrainedPredictors.of(objective, joined)

    def _alone(self, objective: Objective, initial: Draws) -> Optimum:
        """One initial function, with a new preconditioner at each of some stages."""
        a, f, descents = jnp.zeros_like(initial), initial, []
        couples = objective.gram.couples
        num_rows = initial.size if couples else initial.shape[1]
        narrow = jnp.float32 if num_rows >= _NARROW_ROWS else self.factor_dtype

        def exact(dtype: DTypeLike) -> Preconditioner:
            return objective.preconditioner(f[0], num_draws=1, dtype=dtype)

        def towards(energy: float, steps: Preconditioner) -> Descent:
            """Down to an energy in nats per point."""
            goal = Goal(jnp.zeros(1), jnp.asarray(np.full(1, energy * f.shape[1])))
            given = objective, initial, a, f, steps, goal
            return conjugate_gradients(*given, self.max_iterations)

        for energy in _COUPLED_STAGES if couples else _STAGES:
            descent = towards(energy, exact(narrow))
            if not np.isfinite(descent.optimum.logit_error[0]):  # no float32 factor
                descent = towards(energy, exact(self.factor_dtype))
            descents.append(descent)
            a, f = descent.optimum.a, descent.optimum.logits
            self.watch(float(descent.optimum.logit_error[0]))
        # A coupled factor also takes longer than the steps that float32 costs.
        for dtype in dict.fromkeys([narrow if couples else self.factor_dtype, self.factor_dtype]):
            descent = self.restarted(objective, initial, a, f, exact(dtype))
            self.watch(float(descent.optimum.logit_error[0]))
            if np.isfinite(descent.optimum.logit_error[0]):
                descents.append(descent)
                a, f = descent.optimum.a, descent.optimum.logits
            if descent.shortfall(self.tolerance) <= 1:
                break
        descent = functools.reduce(lambda earlier, later: later.after(earlier), descents)
        return self._finished(objective, initial, descent.optimum)

    def _from_centre(
        self, objective: Objective, initial: Draws, centre: TrainedPredictor
    ) -> TrainedPredictors:
        size = len(initial)
        steps = objective.preconditioner(centre.logits, num_draws=size, dtype=self.factor_dtype)
        curvature = objective.curvature(centre.logits)
        given = centre.initial, centre.alpha, centre.logits
        # Of a coupled Θ a draw is one column; with so many rows, a quarter as many are as quick.
        columns = 4 if objective.gram.couples else initial.shape[2]
        numbers = math.prod(initial.shape[1:])
        wide = max(1, self.block_numbers // numbers, self.block_columns // columns)
        block = -(-size // -(-size // wide))
        zeros = np.zeros(initial.shape), np.zeros(size), np.zeros(size), np.zeros(size, int)
        trained = TrainedPredictors(*jax.device_put(zeros))
        for begin in range(0, size, block):
            new = min(block, size - begin)
            known = block - new  # the last block begins earlier, so that all have one size
            first = jax.device_put(np.asarray(begin - known))
            part, a, f = _started(objective, steps, curvature, given, initial, first, block)
            optimum = self.restarted(objective, part, a, f, steps).optimum
            optimum = self._finished(objective, part, optimum, known)
            trained = _with_block(trained, objective.ridge, optimum, first, np.asarray(known))
            self.progress(new)
        return trained

    def restarted(
        self,
        objective: Objective,
        initial: Draws,
        a: Draws,
        f: Draws,
        preconditioner: Preconditioner,
    ) -> "Descent":
        """Conjugate gradients, restarted while that lowers the worst error.

        A run ends with f anew from a, since round-off drives them apart. With float32 factors it ends
        once gradients have fallen as far as those can take them (iterative refinement).
        """

        def run(a: Draws, f: Draws, slack: Float[np.ndarray, " draws"]) -> Descent:
            goal = Goal.of(self.tolerance, slack)
            return conjugate_gradients(
                objective, initial, a, f, preconditioner, goal, self.max_iterations
            )

        slack = np.ones(len(initial))
        descent = run(a, f, slack)
        while not (shortfall := descent.shortfall(self.tolerance)) <= 1:
            # Where the bound met its goal, but does not with f anew, lower the goal by their ratio,
            # unless the bound is blind to the error.
            error, bound = np.asarray(descent.optimum.logit_error), np.asarray(descent.bound)
            seen = np.isfinite(bound) & (bound > np.finfo(error.dtype).eps * error)
            slack = np.divide(error, bound, out=slack, where=seen)
            again = run(descent.optimum.a, descent.optimum.logits, slack)
            if not again.shortfall(self.tolerance) < 0.9 * shortfall:
                break
            descent = again.after(descent)
        return descent

    def _finished(
        self, objective: Objective, initial: Draws, optimum: Optimum, num_known: int = 0
    ) -> Optimum:
        """The optima, with inaccurate draws after the first `num_known` finished by Newton's method."""
        newton = Newton(self.tolerance, self.max_iterations)
        error, spread = optimum.logit_error, optimum.spread
        done = is_accurate(objective.likelihood, error, spread, self.tolerance)
        who = "Newton's method" if self.centre is None else "training many draws"
        for draw in num_known + np.flatnonzero(~np.asarray(done)[num_known:]):
            start = optimum.a[draw] if np.isfinite(optimum.residual[draw]) else None
            one = newton.accepted(objective, initial[draw], start, who=who)
            one = one._replace(num_iterations=optimum.num_iterations[draw] + one.num_iterations)
            optimum = jax.tree.map(lambda v, new, k=draw: v.at[k].set(new), optimum, one)
        return optimum


@partial(jax.jit, donate_argnums=0)
def _with_block(
    trained: TrainedPredictors,
    ridge: Float[Array, ""],
    optimum: Optimum,
    begin: Int[Array, ""],
    num_known: Int[Array | np.ndarray, ""],
) -> TrainedPredictors:
    """The predictors with those of a block in their places, but for its first, which are known."""
    a, _, residual, error, _, counts = optimum
    is_new = jnp.arange(len(a)) >= num_known

    def placed(whole: Array, part: Array) -> Array:
        known = jax.lax.dynamic_slice_in_dim(whole, begin, len(part))
        mask = is_new.reshape(-1, *[1] * (part.ndim - 1))
        both = jnp.where(mask, part, known)
        return jax.lax.dynamic_update_slice_in_dim(whole, both, begin, axis=0)

    return jax.tree.map(placed, trained, TrainedPredictors(a / ridge, residual, error, counts))


@eqx.filter_jit
def _started(
    objective: Objective,
    preconditioner: Preconditioner,
    curvature: Curvature,
    centre: tuple[Logits, Logits, Logits],
    initial: Draws,
    begin: Int[Array, ""],
    size: int,
) -> tuple[Part, Part, Part]:
    """A block of initial functions, and a and f of each to first order in f0 − mean (THEORY 4), with the
    preconditioner in place of Σ: a ≈ ā − (P + W⁻¹)⁻¹ (f0 − mean), and (P + W⁻¹)⁻¹ = P⁻¹ Σ W.

    Args:
        centre: f0, α and f.
        begin: index of the block's first.
    """
    part = jax.lax.dynamic_slice_in_dim(initial, begin, size)
    middle, alpha, logits = centre
    moved = part - middle[None]
    curved = jax.vmap(curvature.matvec)(moved)
    v, response = preconditioner.apply(curved, objective.likelihood.project)
    return part, objective.ridge * alpha[None] - response, logits[None] + moved - v


# --- one run -------------------------------------------------------------------------------------


class Goal(NamedTuple):
    """When a draw is done: once the bound on its logits' error (`energy_bounds`) is within `relative`
    times their spread or within round-off, and e within `relative` times a (P may be blind to e); or
    once eᵀ Σ e, with the preconditioner as Σ, is within `energy`, in nats."""

    relative: PerDraw
    energy: PerDraw

    @classmethod
    def of(cls, tolerance: float, slack: Float[np.ndarray, " draws"]) -> "Goal":
        """The tolerance, with room for bounds that grow by a little more than `slack`."""
        relative = tolerance / (_SLACK * np.maximum(slack, 1.0))
        return cls(*jax.device_put((relative, np.zeros_like(relative))))


class Descent(NamedTuple):
    """Where conjugate gradients ended: the optimum of each draw, and the bound on its logits' error that
    made it end (infinite for one that did not), with f as updated from step to step."""

    optimum: Optimum
    bound: PerDraw

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
        return Descent(optimum, self.bound)


@nan_is_an_answer()
@eqx.filter_jit
def conjugate_gradients(
    objective: Objective,
    initial: Draws,
    a: Draws,
    f: Draws,
    preconditioner: Preconditioner,
    goal: Goal,
    max_iterations: int,
) -> Descent:
    """Preconditioned Polak–Ribière⁺ with a strong-Wolfe line search: globally convergent on the
    strictly convex loss (Gilbert & Nocedal 1992). A step applies the preconditioner to all draws, at the
    cost of one or two products with Θ."""
    likelihood, prior = objective.likelihood, objective.prior_variances
    largest_prior = jnp.max(prior)

    def spread(scalars: Shaped[Array, " draws"]) -> Shaped[Array, "draws 1 1"]:
        return scalars[:, None, None]

    search = jax.vmap(lambda f, *given: line_search(objective, f, *given))

    def waiting(
        a: Draws,
        f: Draws,
        curvature: Curvature,
        e: Draws,
        v: Draws,
        z: Draws,
        energy: PerDraw,
        active: IsActive,
    ) -> tuple[IsActive, PerDraw]:
        """Those of the active draws that are not done, and the bound on each one's error; infinite where
        zᵀ P z, which it is at least, is too much."""
        size = largest(a, axis=(1, 2)) + 1 / likelihood.unit
        close = active & (largest(e, axis=(1, 2)) <= goal.relative * size)

        def accurate() -> tuple[IsActive, PerDraw]:
            lost = jax.vmap(lambda *given: largest(round_off(prior, *given)))(initial, a, f)
            wanted = jnp.maximum(goal.relative * jax.vmap(spread_of)(f, initial), lost)
            near = close & (largest_prior * inner(z, v) <= wanted**2)
            most = jax.lax.cond(
                jnp.any(near),
                lambda: energy_bounds(objective, curvature, e, z),
                lambda: jnp.full(len(e), jnp.inf),
            )
            bound = jnp.where(near, jnp.sqrt(largest_prior * jnp.abs(most)), jnp.inf)
            return bound <= wanted, bound

        # Most steps are far from the end, and looking closer would cost a third of one.
        unknown = jnp.zeros_like(active), jnp.full(len(e), jnp.inf)
        done, bound = jax.lax.cond(jnp.any(close), accurate, lambda: unknown)
        is_lost = jnp.isnan(energy)  # a factor that does not exist: no step helps
        return active & ~done & ~(jnp.abs(energy) < enough) & ~is_lost, bound

    def unfinished(state: tuple) -> Array:
        *_, active, count = state
        return jnp.any(active) & (count < max_iterations)

    def update(state: tuple) -> tuple:
        a, f, curvature, e, z, df, da, energy, bound, counts, active, count = state
        slopes = Slopes(inner(e, df), inner(a, df), inner(da, df))
        t, residual, curvature = search(f, a - e, curvature, df, slopes)
        t = spread(jnp.where(active, t, 0.0))
        a, f = a + t * da, f + t * df
        new = jnp.where(spread(active), a - residual, e)
        v, z = preconditioner.apply(new, likelihood.project)
        beta = jnp.maximum(inner(new - e, v), 0) / jnp.where(energy > 0, energy, 1.0)
        df, da = spread(beta) * df - v, spread(beta) * da - z
        uphill = spread(inner(new, df) >= 0)
        df, da = jnp.where(uphill, -v, df), jnp.where(uphill, -z, da)
        counts = counts + active.astype(int)
        energy = inner(new, v)
        still, reached = waiting(a, f, curvature, new, v, z, energy, active)
        bound = jnp.where(active, reached, bound)
        return a, f, curvature, new, z, df, da, energy, bound, counts, still, count + 1

    e = a - jax.vmap(objective.residual)(f)
    v, z = preconditioner.apply(e, likelihood.project)
    energy = inner(e, v)
    enough = jnp.maximum(goal.energy, preconditioner.reach**2 * energy)
    counts = jnp.zeros(len(initial), dtype=int)
    curvature = jax.vmap(objective.curvature)(f)
    active, bound = waiting(a, f, curvature, e, v, z, energy, jnp.ones(len(initial), dtype=bool))
    state = (a, f, curvature, e, z, -v, -z, energy, bound, counts, active, 0)
    end = jax.lax.while_loop(unfinished, update, state)
    a, _, _, _, z, _, _, _, bound, counts, *_ = end
    f = objective.logits(initial, a)  # recomputed, without the round-off of many updates
    residual, error, size = error_bounds(objective, initial, z, a, f)
    optimum = Optimum(a, f, residual, error, size, counts)
    return jax.tree.map(everywhere, Descent(optimum, bound))
