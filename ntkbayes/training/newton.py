"""Newton's method for one trained predictor (R&W algorithm 3.3), exact to round-off."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.linalg import (
    Curvature,
    CurvedInverse,
    Draws,
    Logits,
    frugal_jit,
    inner,
    largest,
    nan_is_an_answer,
)
from ntkbayes.training.accuracy import TOLERANCE, is_accurate, round_off, spread_of
from ntkbayes.training.line_search import Slopes, line_search
from ntkbayes.training.objective import (
    Objective,
    Optimum,
    Solver,
    TrainedPredictors,
    not_converged,
)

_MARGIN = 1e-4
_PATIENCE = 3  # factors in a row that do not halve the error
_MAX_DECADES = 20  # of the ridge


class Newton(Solver):
    """Newton's method on the strictly convex loss, for a ridge > 0, one initial function at a time.

    The line search makes it converge globally; undamped it does not. A factor costs O(C n³) if the
    outputs share Θ, O((nC)³) if they are coupled, and a dozen or so products for an operator.

    Args:
        tolerance: for the error of the logits, relative to their spread. Iteration goes on to round-off.
        max_iterations: factors before giving up.
    """

    tolerance: float = TOLERANCE
    max_iterations: int = 100

    def solve(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        optima = [self.accepted(objective, jax.device_put(one)) for one in np.asarray(initial)]
        stacked = jax.tree.map(lambda *values: jax.device_put(np.stack(values)), *optima)
        return TrainedPredictors.of(objective, stacked)

    def accepted(
        self,
        objective: Objective,
        initial: Logits,
        start: Logits | None = None,
        *,
        who: str = "Newton's method",
    ) -> Optimum:
        """The optimum for one initial function.

        Args:
            start: the first a, by default 0.
            who: the subject of the error message.

        Raises:
            ConvergenceError: its logits miss the tolerance.
        """
        optimum = self.optimum(objective, initial, start)
        error, spread = optimum.logit_error, optimum.spread
        if not bool(is_accurate(objective.likelihood, error, spread, self.tolerance)):
            raise not_converged(who, optimum, self.tolerance, self.max_iterations)
        return optimum

    def optimum(
        self, objective: Objective, initial: Logits, start: Logits | None = None
    ) -> Optimum:
        """The same, without the check that its logits meet the tolerance."""
        solver = jax.tree.map(np.asarray, self)  # Python's numbers would be constants of a program
        if start is None:
            start = jax.device_put(np.zeros_like(initial))
        return _optimum(solver, objective, initial, start)


class _Point(NamedTuple):
    """Weights, logits and gradient, and the size in logits of Newton's step from there."""

    a: Logits
    f: Logits
    gradient: Logits
    size: Float[Array, ""]


@nan_is_an_answer()
@frugal_jit
def _optimum(solver: Newton, objective: Objective, initial: Logits, start: Logits) -> Optimum:
    """Newton's method, continued from larger ridges where round-off would swamp its first steps.

    A step loses ε |e| in the weights, with e = a − r(f), and so ε ‖P‖ |e| in the logits: more than the
    likelihood's unit if Θ/ridge exceeds 1/ε and e is of order 1. So it starts at a ridge where less is
    lost, and lowers it by decades. α changes little from one to the next, so e is small once P is large.
    """
    f = objective.logits(initial, start)
    e = start - objective.residual(f)
    lost = largest(round_off(objective.prior_variances, initial, e, f)) / objective.likelihood.unit
    decades = jnp.where(lost > 1, jnp.minimum(jnp.ceil(jnp.log10(lost)), _MAX_DECADES), 0)

    def unfinished(state: tuple) -> Array:
        decade, _ = state
        return decade >= 0

    def update(state: tuple) -> tuple:
        decade, optimum = state
        times = 10.0**decade
        nearby = dataclasses.replace(objective, ridge=times * objective.ridge)
        optimum = _from_nearby(solver, nearby, initial, optimum._replace(a=times * optimum.a))
        return decade - 1, optimum._replace(a=optimum.a / times)

    endless = jnp.full((), jnp.inf, dtype=start.dtype)
    none = Optimum(start, f, endless, endless, jnp.zeros_like(endless), jnp.asarray(0))
    _, optimum = jax.lax.while_loop(unfinished, update, (decades, none))
    return optimum


def _from_nearby(solver: Newton, objective: Objective, initial: Logits, start: Optimum) -> Optimum:
    """Newton's method with a line search, reusing each factor while steps halve.

    A step with an old factor costs only products. Once steps no longer halve, they are at round-off or
    the curvature has changed, so the last two steps measure the error. Ends when that is within the
    tolerance times the logits' spread, with a margin that costs at most one more factor, or when new
    factors do not halve the error either.
    """
    prior = objective.prior_product

    def descend(inverse: CurvedInverse, curvature: Curvature, a: Logits) -> tuple:
        """The last point, the sizes of the first step and of the last but one, and the next a."""

        def unfinished(state: tuple) -> Array:
            here, _, before, _, count = state
            return (count < 2) | ((here.size <= before / 2) & (count < 12))

        def advance(state: tuple) -> tuple:
            last, first, _, a, count = state
            f = objective.logits(initial, a)
            residual = objective.residual(f)
            gradient = a - residual
            da = -(gradient - inverse.matvec(prior(gradient)))
            df = prior(da)
            # a and f − f0 = P a move together, so the slope of ½ aᵀ(f − f0) is aᵀ df.
            slopes = Slopes(inner(gradient, df), inner(a, df), inner(da, df))
            t, _, _ = line_search(objective, f, residual, curvature, df, slopes)
            here = _Point(a, f, gradient, largest(df))
            first = jnp.where(count == 0, here.size, first)
            return here, first, last.size, a + t * da, count + 1

        endless = jnp.full((), jnp.inf, dtype=a.dtype)
        nowhere = _Point(a, a, a, endless)
        state = (nowhere, endless, endless, a, jnp.asarray(0))
        here, first, before, a, _ = jax.lax.while_loop(unfinished, advance, state)
        return here, first, before, a

    def unfinished(state: tuple) -> Array:
        best, _, num_stale, count = state
        is_close = best.logit_error <= _MARGIN * solver.tolerance * best.spread
        return ~is_close & (num_stale < _PATIENCE) & (count < solver.max_iterations)

    def update(state: tuple) -> tuple:
        best, a, num_stale, count = state
        curvature = objective.curvature(objective.logits(initial, a))
        inverse = objective.gram.curved(curvature, ridge=objective.ridge)
        here, first, before, a = descend(inverse, curvature, a)
        lost = round_off(objective.prior_variances, initial, here.a, here.f)
        error = 2 * (before + here.size) + largest(lost)
        size = largest(here.gradient)
        new = Optimum(here.a, here.f, size, error, spread_of(here.f, initial), count + 1)
        # Where W hardly changes along the step, a new factor squares the error, down to round-off.
        is_stale = (first <= 0.1) & ~(error <= best.logit_error / 2)
        num_stale = jnp.where(is_stale, num_stale + 1, 0)
        is_better = error < best.logit_error
        best = jax.tree.map(lambda old, new: jnp.where(is_better, new, old), best, new)
        return best, a, jnp.where(jnp.isnan(error), _PATIENCE, num_stale), count + 1

    endless = jnp.full((), jnp.inf, dtype=start.a.dtype)
    none = start._replace(residual=endless, logit_error=endless, spread=jnp.zeros_like(endless))
    state = (none, start.a, jnp.asarray(0), start.num_iterations)
    best, _, _, count = jax.lax.while_loop(unfinished, update, state)
    return best._replace(num_iterations=count)
