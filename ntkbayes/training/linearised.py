"""The trained predictor of a linearised network (THEORY 2 and 3), the one home of that algebra.

Training f_lin(x; θ) = f0(x) + J(x)(θ − θ0) on the summed loss −Σ log p(y|f) + ridge/2 ‖θ − θ0‖²
moves the function only through weights α, one vector of C numbers a training point:

    f*(x) = f0(x) + Θ(x, X) α.

Inside this module P = Θ/ridge and a = ridge · α. Stationarity reads a = r(f), with r the residual of
the likelihood (for cross-entropy Y − σ(f)). A solve has converged once the error of its logits, which
`accuracy` derives from a − r(f), is within the tolerance of their spread: how far training moved them,
root mean square.

Shapes: n points, C logits, S initial functions. Θ(X, X) is any Gram of `linalg.grams`.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int

from ntkbayes.errors import ConvergenceError
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    Curvature,
    Draws,
    Gram,
    Interpolator,
    Logits,
    PerDraw,
    Preconditioner,
    largest,
)
from ntkbayes.training.accuracy import TOLERANCE, is_accurate, round_off, spread_of
from ntkbayes.training.conjugate_gradients import Goal, Solved, conjugate_gradients, restarted
from ntkbayes.training.newton import newton

EXACT_POINTS = 256  # up to which Newton's factors cost less than their compilation


class TrainedPredictor(eqx.Module):
    """f*(x) = f0(x) + Θ(x, X) α for one initial function.

    Attributes:
        alpha: α, (n, C).
        logits: f* at the training points, (n, C).
        residual: max |ridge α − r(f*)|, in units of probability.
        logit_error: of the logits at the training points, at most, round-off included; NaN at a finite
            training time.
        num_iterations: steps of Newton's method, or of conjugate gradients where there are many points
            (0 for a closed form).
    """

    alpha: Logits
    logits: Logits
    residual: float
    logit_error: float
    num_iterations: int


class TrainedPredictors(eqx.Module):
    """The same for S initial functions.

    Attributes:
        alpha: α of each, (S, n, C).
        residual: of each, (S,).
        logit_error: of each, (S,).
        num_iterations: steps of conjugate gradients spent on each, (S,).
    """

    alpha: Draws
    residual: PerDraw
    logit_error: PerDraw | Float[np.ndarray, " draws"]
    num_iterations: Int[Array, " draws"]


# --- ridge > 0 -----------------------------------------------------------------------------------


def train(
    likelihood: Likelihood,
    ntk: Gram,
    targets: Logits,
    initial: Logits,
    *,
    ridge: float,
    tolerance: float = TOLERANCE,
    max_iterations: int = 100,
    factor_dtype: DTypeLike = jnp.float64,
) -> TrainedPredictor:
    """The trained predictor from one initial function, for any ridge ≥ 0 and infinite time.

    Ridge > 0: Newton's method on the strictly convex loss (R&W algorithm 3.3) with a line search,
    which converges from everywhere; undamped it does not. One step costs O(C n³) where the outputs
    share Θ, O((nC)³) where they do not, and some dozen products with an operator. With more than
    EXACT_POINTS points and a shared Θ: preconditioned conjugate gradients, with two factors of n × n
    in all, finished by Newton's method if round-off keeps them from the tolerance.
    Ridge = 0: the closed form of THEORY 3.

    Args:
        likelihood: how targets follow from logits.
        ntk: Θ(X, X).
        targets: as the likelihood encodes them, (n, C).
        initial: f0(X), (n, C).
        ridge: weight of ½‖θ − θ0‖².
        tolerance: on the error of the logits, relative to their spread. Newton's method goes on to
            round-off.
        max_iterations: Newton steps before giving up.
        factor_dtype: of the two factors of conjugate gradients. In float32 they take half of the time
            and memory; the residual is in float64, and reaches the same tolerance.

    Raises:
        ConvergenceError: the error of the logits stayed above the tolerance.
        RidgeError: ridge = 0 and degenerate targets.
        ConfigurationError: ridge = 0 and Θ is an operator.
        NotPositiveDefiniteError: Θ is not positive definite.
    """
    if ridge == 0:
        found = _interpolate(likelihood, ntk, targets, initial[None], tolerance)
        alpha, f, residual, logit_error = (values[0] for values in found)
        return TrainedPredictor(alpha, f, float(residual), float(logit_error), 0)
    start, done = jnp.zeros_like(initial), 0
    if initial.shape[0] > EXACT_POINTS and not ntk.couples:
        solved = _train_iteratively(
            likelihood, ntk, targets, initial, ridge=ridge, tolerance=tolerance, dtype=factor_dtype
        )
        done = int(solved.num_iterations[0])
        if bool(is_accurate(likelihood, solved.logit_error, solved.spread, tolerance)[0]):
            return TrainedPredictor(
                solved.a[0] / ridge,
                solved.logits[0],
                float(solved.residual[0]),
                float(solved.logit_error[0]),
                done,
            )
        start = solved.a[0] if np.isfinite(solved.residual[0]) else start
    mode = newton(likelihood, ntk / ridge, targets, initial, tolerance, max_iterations, start)
    error, spread, count = float(mode.logit_error), float(mode.spread), int(mode.num_iterations)
    if not bool(is_accurate(likelihood, mode.logit_error, mode.spread, tolerance)):
        raise _not_converged("Newton's method", error, spread, tolerance, count, max_iterations)
    return TrainedPredictor(mode.a / ridge, mode.logits, float(mode.residual), error, done + count)


def _not_converged(
    who: str, error: float, spread: float, tolerance: float, count: int, limit: int
) -> ConvergenceError:
    known = (
        f"{who} leaves logits off by up to {error:.2g} after {count} iterations, where their spread is "
        f"{spread:.2g} and the tolerance {tolerance:g} of it"
    )
    cause = "" if count >= limit else ": all that float64 can do, since Θ/ridge is so large"
    return ConvergenceError(
        f"{known}{cause}. Use a larger ridge, standardised features, or a larger tolerance if that is "
        "close enough"
    )


def _train_iteratively(
    likelihood: Likelihood,
    ntk: Gram,
    targets: Logits,
    initial: Logits,
    *,
    ridge: float,
    tolerance: float,
    dtype: DTypeLike,
) -> Solved:
    """Conjugate gradients alone: two factors of n × n, one with the curvature at the start and one
    with that where the first has led, and dozens of products. May miss the tolerance."""

    def preconditioner(f: Logits) -> Preconditioner:
        curvature = likelihood.curvature(targets, f)
        return ntk.preconditioner(
            weight, curvature, is_flat=likelihood.is_flat, num_draws=1, dtype=dtype
        )

    weight = jnp.asarray(ridge, initial.dtype)
    given = (likelihood, ntk, weight, targets, initial[None])
    # To where all classes are no longer alike: mostly one step from the start.
    goal = Goal(jnp.zeros(1), jnp.asarray(np.full(1, _COARSE * len(initial))))
    zeros = jnp.zeros_like(initial)[None]
    near = conjugate_gradients(*given, zeros, preconditioner(initial), goal, _MAX_PRODUCTS)
    solved = restarted(*given, near.a, preconditioner(near.logits[0]), tolerance, _MAX_PRODUCTS)
    return solved.after(near)


_COARSE = 0.3  # nats a point
_MAX_PRODUCTS = 500


def _finish(
    likelihood: Likelihood,
    ntk: Gram,
    ridge: float,
    targets: Logits,
    initial: Draws,
    solved: Solved,
    tolerance: float,
    max_iterations: int,
) -> TrainedPredictors:
    """Newton's method for the draws that conjugate gradients left, where the kernel is so
    ill-conditioned (tiny ridge, duplicated points) that round-off spoils their directions.

    Raises:
        ConvergenceError: it left one, too.
    """
    a, residual, errors = solved.a, solved.residual, solved.logit_error
    counts = solved.num_iterations
    is_done = is_accurate(likelihood, errors, solved.spread, tolerance)
    for draw in np.flatnonzero(~is_done):
        start = a[draw] if np.isfinite(residual[draw]) else jnp.zeros_like(a[draw])
        mode = newton(
            likelihood, ntk / ridge, targets, initial[draw], tolerance, max_iterations, start
        )
        counts = counts.at[draw].add(mode.num_iterations)
        if not bool(is_accurate(likelihood, mode.logit_error, mode.spread, tolerance)):
            error, spread = float(mode.logit_error), float(mode.spread)
            steps = int(mode.num_iterations)
            who = "training many draws"
            raise _not_converged(who, error, spread, tolerance, steps, max_iterations)
        a, residual = a.at[draw].set(mode.a), residual.at[draw].set(mode.residual)
        errors = errors.at[draw].set(mode.logit_error)
    return TrainedPredictors(a / ridge, residual, errors, counts)


@eqx.filter_jit
def _first_order_start(
    likelihood: Likelihood,
    preconditioner: Preconditioner,
    curvature: Curvature,
    centre: Logits,
    offsets: Draws,
) -> Draws:
    """a to first order in f0 − mean (THEORY 4), as far as the preconditioner knows:
    a ≈ ā − (P + W⁻¹)⁻¹ (f0 − mean), and (P + W⁻¹)⁻¹ = P⁻¹ Σ W."""
    _, response = preconditioner.apply(jax.vmap(curvature.matvec)(offsets), likelihood.project)
    return centre[None] - response


def train_many(
    likelihood: Likelihood,
    ntk: Gram,
    targets: Logits,
    initials: Draws,
    centre: TrainedPredictor,
    centre_initial: Logits,
    *,
    ridge: float,
    tolerance: float = TOLERANCE,
    max_iterations: int = 500,
    factor_dtype: DTypeLike = jnp.float64,
    progress: Callable[[int], object] = lambda solved: None,
) -> TrainedPredictors:
    """Trained predictors from S initial functions that share one kernel, for any ridge ≥ 0.

    Ridge > 0: preconditioned non-linear conjugate gradients from the first-order solution; after the
    factorisation at the centre of the law, a step costs what one product with Θ does, or two.
    Draws that this leaves above the tolerance are finished one by one by Newton's method.
    Draws are solved in blocks of bounded memory. Ridge = 0: the closed form of THEORY 3.

    Args:
        initials: f0(X) of each, (S, n, C).
        centre: the trained predictor from `centre_initial`, the mean of the initial functions.
        tolerance: on the error of every draw's logits, relative to their spread.
        max_iterations: steps before giving up.
        factor_dtype: of the preconditioner, see `train`.
        progress: called after each block with the number of draws in it.
        likelihood, ntk, targets, ridge: as for `train`.

    Raises:
        ConvergenceError: the error of a draw's logits stayed above the tolerance.
        RidgeError: ridge = 0 and degenerate targets.
    """
    size = initials.shape[0]
    if ridge == 0:
        alpha, _, residual, error = _interpolate(likelihood, ntk, targets, initials, tolerance)
        return TrainedPredictors(alpha, residual, error, jnp.zeros(size, dtype=int))

    weight = jnp.asarray(ridge, initials.dtype)
    curvature = likelihood.curvature(targets, centre.logits)
    preconditioner = ntk.preconditioner(
        weight, curvature, is_flat=likelihood.is_flat, num_draws=size, dtype=factor_dtype
    )
    wide = max(_BLOCK_NUMBERS // initials[0].size, _BLOCK_COLUMNS // targets.shape[1])
    block = max(1, min(size, wide))
    parts = []
    for begin in range(0, size, block):
        part = initials[begin : begin + block]
        missing = block - part.shape[0]  # the last block is filled up: one compilation for all
        filled = jnp.concatenate([part, jnp.broadcast_to(part[:1], (missing, *part.shape[1:]))])
        offsets = filled - centre_initial[None]
        start = _first_order_start(
            likelihood, preconditioner, curvature, ridge * centre.alpha, offsets
        )
        given = (likelihood, ntk, weight, targets, filled, start, preconditioner)
        solved = Solved(*(v[: len(part)] for v in restarted(*given, tolerance, max_iterations)))
        parts.append(
            _finish(likelihood, ntk, ridge, targets, part, solved, tolerance, max_iterations)
        )
        progress(len(part))
    return jax.tree.map(lambda *values: jnp.concatenate(values), *parts)


_BLOCK_NUMBERS = 2**16  # numbers in one (S, n, C) array: 512 KiB, so that its like stay in cache
_BLOCK_COLUMNS = 256  # but no fewer columns, for the sake of the products


# --- ridge = 0 -----------------------------------------------------------------------------------


@eqx.filter_jit
def _interpolate_with(
    inverse: Interpolator, likelihood: Likelihood, ntk: Gram, goal: Logits, initials: Draws
) -> tuple[Draws, Draws, PerDraw, PerDraw]:
    """α, logits, what these miss of the interpolant, and their spread. Solved twice: what the first
    solve misses, by the factor's jitter and round-off, is solved for again."""

    def missing(f: Draws) -> Draws:
        return likelihood.project(goal[None] - f)

    solve = jax.vmap(inverse.matvec)
    alpha = solve(goal[None] - initials)
    alpha = alpha + solve(missing(initials + ntk @ alpha))
    f = initials + ntk @ alpha

    prior = ntk.variances

    def lost(initial: Logits, alpha: Logits, f: Logits) -> Array:
        return largest(round_off(prior, initial, alpha, f))

    error = largest(missing(f), axis=(1, 2)) + jax.vmap(lost)(initials, alpha, f)
    return alpha, f, error, jax.vmap(spread_of)(f, initials)


def _interpolate(
    likelihood: Likelihood, ntk: Gram, targets: Logits, initials: Draws, tolerance: float
) -> tuple[Draws, Draws, PerDraw, PerDraw]:
    """α, logits, residual and error of the logits of each draw, by (3) of THEORY 3.

    Gradient flow ends at zero residual, moving only where the likelihood is not flat.
    """
    goal = likelihood.interpolant(targets)
    inverse = interpolator(likelihood, ntk, targets)
    alpha, f, error, spread = _interpolate_with(inverse, likelihood, ntk, goal, initials)
    if not bool(jnp.all(is_accurate(likelihood, error, spread, tolerance))):
        worst = jnp.argmax(error / spread)
        raise ConvergenceError(
            f"without ridge the network should reproduce its targets, but misses their logits by "
            f"{float(error[worst]):.2g}, where their spread is {float(spread[worst]):.2g}: Θ is too "
            "ill-conditioned (nearly duplicated points). Use a ridge > 0"
        )
    residual = jax.vmap(lambda f: largest(likelihood.residual(targets, f)))(f)
    return alpha, f, residual, error


def interpolator(likelihood: Likelihood, ntk: Gram, targets: Logits) -> Interpolator:
    """Q with α = Q (interpolant − f0), for training without ridge.

    Raises:
        NotPositiveDefiniteError: Θ is singular.
        ConfigurationError: Θ is an operator.
    """
    return ntk.interpolator(is_flat=likelihood.is_flat, num_outputs=targets.shape[1])
