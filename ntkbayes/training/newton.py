"""Newton's method for one trained predictor (R&W algorithm 3.3), exact to round-off.

P = Θ/ridge and a = ridge · α, as in `linearised`. Shapes: n points, C logits.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    Curvature,
    CurvedInverse,
    Gram,
    Logits,
    largest,
    nan_is_an_answer,
)
from ntkbayes.training.accuracy import round_off, spread_of
from ntkbayes.training.line_search import line_search


class Mode(NamedTuple):
    """Where Newton's method ended.

    Attributes:
        a: ridge · α, (n, C).
        logits: f = f0 + P a, (n, C).
        residual: max |a − r(f)|, in units of probability.
        logit_error: of the logits, at most, round-off included.
        spread: root mean square of f − f0.
        num_iterations: factorisations.
    """

    a: Logits
    logits: Logits
    residual: Float[Array, ""]
    logit_error: Float[Array, ""]
    spread: Float[Array, ""]
    num_iterations: Int[Array, ""]


_MARGIN = 1e-4
_PATIENCE = 3  # factors that do not halve the error


class _Point(NamedTuple):
    """Weights, logits and gradient, and the size of Newton's step from there, in logits."""

    a: Logits
    f: Logits
    gradient: Logits
    size: Float[Array, ""]


@nan_is_an_answer()
@eqx.filter_jit
def newton(
    likelihood: Likelihood,
    gram: Gram,
    targets: Logits,
    initial: Logits,
    tolerance: float | Float[Array, ""],
    max_iterations: int,
    start: Logits,
) -> Mode:
    """Newton's method with a line search, whose factors serve as long as steps halve.

    Steps cost a product each beside their factor. Where they halve no longer they are as small as
    round-off, or the curvature has changed; so the last two measure the error. Ends once that is within
    the tolerance of the logits' spread, with a margin that takes at most one more factor, or where new
    factors do not halve the error either.
    """

    prior = gram.variances

    def descend(inverse: CurvedInverse, curvature: Curvature, a: Logits) -> tuple:
        """The last point looked at, the size of the first step and of the last but one, and where to go
        on."""

        def unfinished(state: tuple) -> Array:
            here, _, before, _, count = state
            return (count < 2) | ((here.size <= before / 2) & (count < 12))

        def advance(state: tuple) -> tuple:
            last, first, _, a, count = state
            f = initial + gram @ a
            gradient = a - likelihood.residual(targets, f)
            da = -(gradient - inverse.matvec(gram @ gradient))
            df = gram @ da
            # a and f − f0 = P a move together, so the slope of ½ aᵀ(f − f0) is aᵀ df.
            slopes = (jnp.sum(gradient * df), jnp.sum(a * df), jnp.sum(da * df))
            t, _, _ = line_search(likelihood, targets, f, curvature, df, *slopes)
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
        is_close = best.logit_error <= _MARGIN * tolerance * best.spread
        return ~is_close & (num_stale < _PATIENCE) & (count < max_iterations)

    def update(state: tuple) -> tuple:
        best, a, num_stale, count = state
        curvature = likelihood.curvature(targets, initial + gram @ a)
        inverse = gram.curved(curvature)
        here, first, before, a = descend(inverse, curvature, a)
        error = 2 * (before + here.size) + largest(round_off(prior, initial, here.a, here.f))
        new = Mode(
            here.a, here.f, largest(here.gradient), error, spread_of(here.f, initial), count + 1
        )
        # Where W hardly changes along the step, a new factor squares the error, until it is round-off.
        is_stale = (first <= 0.1) & ~(error <= best.logit_error / 2)
        num_stale = jnp.where(is_stale, num_stale + 1, 0)
        is_better = error < best.logit_error
        best = jax.tree.map(lambda old, new: jnp.where(is_better, new, old), best, new)
        return best, a, jnp.where(jnp.isnan(error), _PATIENCE, num_stale), count + 1

    endless = jnp.full((), jnp.inf, dtype=start.dtype)
    none = Mode(start, initial, endless, endless, jnp.zeros_like(endless), jnp.asarray(0))
    state = (none, start, jnp.asarray(0), jnp.asarray(0))
    best, _, _, count = jax.lax.while_loop(unfinished, update, state)
    return best._replace(num_iterations=count)
