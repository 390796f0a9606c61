"""The trained predictor of a linearised network (THEORY 2 and 3), the one home of that algebra.

Training f_lin(x; θ) = f0(x) + J(x)(θ − θ0) on the summed loss −Σ log p(y|f) + ridge/2 ‖θ − θ0‖²
moves the function only through weights α, one vector of C numbers a training point:

    f*(x) = f0(x) + Θ(x, X) α.

Inside this module P = Θ/ridge and a = ridge · α. Stationarity reads a = r(f), with r the residual of
the likelihood (for cross-entropy Y − σ(f)), so the *residual* reported, max |a − r(f)|, is in units
of probability and comparable between problems.

Shapes: n points, C logits, S initial functions. Θ(X, X) is any block of `linalg.blocks`: (n, n) where
the outputs share it, as at infinite width; (nC, nC) or an operator where a finite network couples them.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int, Shaped

from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    Block,
    Curvature,
    Interpolation,
    Logits,
    Operator,
    apply,
    curved_inverse,
    everywhere,
    interpolation,
    largest,
    nan_is_an_answer,
)
from ntkbayes.training.preconditioner import Preconditioner, preconditioner_of

Draws = Float[Array, "draws n classes"]


class TrainedPredictor(eqx.Module):
    """f*(x) = f0(x) + Θ(x, X) α for one initial function.

    Attributes:
        alpha: α, (n, C).
        logits: f* at the training points, (n, C).
        residual: max |ridge α − r(f*)|, in units of probability.
        num_iterations: steps of Newton's method, or of conjugate gradients where there are many points
            (0 for a closed form).
    """

    alpha: Logits
    logits: Logits
    residual: float
    num_iterations: int


class TrainedPredictors(eqx.Module):
    """The same for S initial functions.

    Attributes:
        alpha: α of each, (S, n, C).
        residual: of each, (S,).
        num_iterations: steps of conjugate gradients spent on each, (S,).
    """

    alpha: Draws
    residual: Float[Array, " draws"]
    num_iterations: Int[Array, " draws"]


# --- line search ---------------------------------------------------------------------------------


def _line_search(
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


# --- ridge > 0, one initial function: exact Newton -----------------------------------------------


@nan_is_an_answer()
@eqx.filter_jit
def newton(
    likelihood: Likelihood,
    gram: Block,
    targets: Logits,
    initial: Logits,
    tolerance: float,
    max_iterations: int,
    start: Logits,
) -> tuple[Logits, Logits, Array, Array]:
    def unfinished(state: tuple) -> Array:
        _, _, residual, count = state
        return (residual > tolerance) & (count < max_iterations)

    def update(state: tuple) -> tuple:
        a, f, _, count = state
        gradient = a - likelihood.residual(targets, f)
        curvature = likelihood.curvature(targets, f)
        inverse = curved_inverse(gram, curvature)
        da = -(gradient - inverse.matvec(apply(gram, gradient)))
        df = apply(gram, da)
        # a and f − f0 = P a move together, so the slope of ½ aᵀ(f − f0) is aᵀ df.
        slopes = (jnp.sum(gradient * df), jnp.sum(a * df), jnp.sum(da * df))
        t, _, _ = _line_search(likelihood, targets, f, curvature, df, *slopes)
        return assess(a + t * da, count + 1)

    def assess(a: Logits, count: Int[Array, ""] | int) -> tuple:
        f = initial + apply(gram, a)
        return a, f, largest(a - likelihood.residual(targets, f)), jnp.asarray(count)

    return jax.lax.while_loop(unfinished, update, assess(start, 0))


def train(
    likelihood: Likelihood,
    ntk: Block,
    targets: Logits,
    initial: Logits,
    *,
    ridge: float,
    tolerance: float = 1e-10,
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
        tolerance: on the residual, in units of probability.
        max_iterations: Newton steps before giving up.
        factor_dtype: of the two factors of conjugate gradients. In float32 they take half of the time
            and memory; the residual is in float64, and reaches the same tolerance.

    Raises:
        ConvergenceError: the residual stayed above the tolerance.
        RidgeError: ridge = 0 and degenerate targets.
        ConfigurationError: ridge = 0 and Θ is an operator.
        NotPositiveDefiniteError: Θ is not positive definite.
    """
    if ridge == 0:
        alpha, f, residual = _interpolate(likelihood, ntk, targets, initial[None])
        return TrainedPredictor(alpha[0], f[0], float(residual[0]), 0)
    start, done = jnp.zeros_like(initial), 0
    if initial.shape[0] > EXACT_POINTS and _is_shared(ntk, initial):
        given = (likelihood, ntk, targets, initial)
        found = _train_iteratively(*given, ridge=ridge, tolerance=tolerance, dtype=factor_dtype)
        if found.residual <= tolerance:
            return found
        start, done = (
            jnp.where(found.residual < 1, ridge * found.alpha, start),
            found.num_iterations,
        )
    a, f, residual, count = newton(
        likelihood, ntk / ridge, targets, initial, tolerance, max_iterations, start
    )
    _require_convergence(float(residual), tolerance, int(count), "Newton's method")
    return TrainedPredictor(a / ridge, f, float(residual), done + int(count))


EXACT_POINTS = 256  # up to which Newton's factors cost less than their compilation


def _is_shared(ntk: Block, logits: Logits) -> bool:
    return not isinstance(ntk, Operator) and ntk.shape[0] == logits.shape[0]


# --- ridge > 0, many initial functions: one preconditioner, matrix products -----------------------


@nan_is_an_answer()
@eqx.filter_jit
def _conjugate_gradients(
    likelihood: Likelihood,
    ntk: Block,
    ridge: Float[Array, ""],
    targets: Logits,
    initial: Draws,
    start: Draws,
    preconditioner: Preconditioner,
    goals: Float[Array, " draws"],
    max_iterations: int,
) -> tuple[Draws, Draws, Array, Array]:
    """Preconditioned Polak–Ribière⁺ with a strong-Wolfe line search: globally convergent on the
    strictly convex loss (Gilbert & Nocedal 1992). A step applies the preconditioner to all draws, at the
    cost of one product with Θ or two."""

    def inner(u: Draws, v: Draws) -> Float[Array, " draws"]:
        return jnp.sum(u * v, axis=(1, 2))

    def spread(scalars: Shaped[Array, " draws"]) -> Shaped[Array, "draws 1 1"]:
        return scalars[:, None, None]

    residual_of = jax.vmap(lambda f: likelihood.residual(targets, f))
    curvature_of = jax.vmap(lambda f: likelihood.curvature(targets, f))
    search = jax.vmap(lambda f, *given: _line_search(likelihood, targets, f, *given))

    def unfinished(state: tuple) -> Array:
        _, _, _, gradient, *_, count = state
        return jnp.any(largest(gradient, axis=(1, 2)) > goals) & (count < max_iterations)

    def update(state: tuple) -> tuple:
        a, f, curvature, gradient, v, df, da, counts, count = state
        active = largest(gradient, axis=(1, 2)) > goals
        slopes = (inner(gradient, df), inner(a, df), inner(da, df))
        t, residual, curvature = search(f, curvature, df, *slopes)
        t = spread(jnp.where(active, t, 0.0))
        a, f = a + t * da, f + t * df
        new = jnp.where(spread(active), a - residual, gradient)
        new_v, new_z = preconditioner.apply(new, likelihood.project)
        before = inner(gradient, v)
        beta = jnp.maximum(inner(new - gradient, new_v), 0) / jnp.where(before > 0, before, 1.0)
        df, da = spread(beta) * df - new_v, spread(beta) * da - new_z
        uphill = spread(inner(new, df) >= 0)
        df, da = jnp.where(uphill, -new_v, df), jnp.where(uphill, -new_z, da)
        return a, f, curvature, new, new_v, df, da, counts + active.astype(int), count + 1

    f = initial + apply(ntk, start / ridge)
    gradient = start - residual_of(f)
    v, z = preconditioner.apply(gradient, likelihood.project)
    counts = jnp.zeros(initial.shape[0], dtype=int)
    state = (start, f, curvature_of(f), gradient, v, -v, -z, counts, 0)
    a, *_, counts, _ = jax.lax.while_loop(unfinished, update, state)
    f = initial + apply(ntk, a / ridge)  # afresh: no round-off of many updates
    residual = largest(a - residual_of(f), axis=(1, 2))
    return everywhere(a), everywhere(f), everywhere(residual), everywhere(counts)


def _restarted(
    likelihood: Likelihood,
    ntk: Block,
    ridge: Float[Array, ""],
    targets: Logits,
    initial: Draws,
    start: Draws,
    preconditioner: Preconditioner,
    tolerance: float,
    max_iterations: int,
) -> tuple[Draws, Draws, Array, Array]:
    """Conjugate gradients, begun again where they ended as long as that halves the worst residual: f and
    a move apart by round-off, and each beginning computes f afresh. With factors in float32 each ends as
    soon as residuals have fallen by what those can reach (iterative refinement)."""
    given = (likelihood, ntk, ridge, targets, initial)
    # With a dtype: weak here and strong below, the iteration would compile twice.
    goals = jnp.full(len(initial), max(tolerance, preconditioner.reach), dtype=initial.dtype)
    a, f, residual, counts = _conjugate_gradients(
        *given, start, preconditioner, goals, max_iterations
    )
    while not float(largest(residual)) <= tolerance:
        goals = jnp.maximum(tolerance, preconditioner.reach * residual)
        again = _conjugate_gradients(*given, a, preconditioner, goals, max_iterations)
        if not float(largest(again[2])) < float(largest(residual)) / 2:
            break
        a, f, residual, counts = (*again[:3], counts + again[3])
    return a, f, residual, counts


def _train_iteratively(
    likelihood: Likelihood,
    ntk: Block,
    targets: Logits,
    initial: Logits,
    *,
    ridge: float,
    tolerance: float,
    dtype: DTypeLike,
) -> TrainedPredictor:
    """Conjugate gradients alone: two factors of n × n, one with the curvature at the start and one
    with that where the first has led, and dozens of products. The residual may miss the tolerance."""
    weight, count = jnp.asarray(ridge), 0
    a, f = jnp.zeros_like(initial)[None], initial[None]
    for goal in (max(_COARSE, tolerance), tolerance):
        curvature = likelihood.curvature(targets, f[0])
        preconditioner = preconditioner_of(
            ntk, weight, curvature, is_flat=likelihood.is_flat, num_draws=1, dtype=dtype
        )
        given = (likelihood, ntk, weight, targets, initial[None], a, preconditioner)
        a, f, residual, counts = _restarted(*given, goal, _MAX_PRODUCTS)
        count += int(counts[0])
    return TrainedPredictor(a[0] / ridge, f[0], float(residual[0]), count)


_COARSE = 0.3  # in units of probability: mostly one step from the start, all classes alike
_MAX_PRODUCTS = 500


def _finish(
    likelihood: Likelihood,
    ntk: Block,
    ridge: float,
    targets: Logits,
    initial: Draws,
    solved: tuple[Draws, Array, Array],
    tolerance: float,
    max_iterations: int,
) -> tuple[Draws, Array, Array]:
    """Newton's method for the draws that conjugate gradients left, where the kernel is so
    ill-conditioned (tiny ridge, duplicated points) that round-off spoils their directions."""
    a, residual, counts = solved
    for draw in jnp.flatnonzero(~(residual <= tolerance)):
        start = jnp.where(residual[draw] < 1, a[draw], 0.0)
        found, _, error, steps = newton(
            likelihood, ntk / ridge, targets, initial[draw], tolerance, max_iterations, start
        )
        a, residual = a.at[draw].set(found), residual.at[draw].set(error)
        counts = counts.at[draw].add(steps)
    return a, residual, counts


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
    ntk: Block,
    targets: Logits,
    initials: Draws,
    centre: TrainedPredictor,
    centre_initial: Logits,
    *,
    ridge: float,
    tolerance: float = 1e-8,
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
        tolerance: on every draw's residual, in units of probability.
        max_iterations: steps before giving up.
        factor_dtype: of the preconditioner, see `train`.
        progress: called after each block with the number of draws in it.
        likelihood, ntk, targets, ridge: as for `train`.

    Raises:
        ConvergenceError: a draw's residual stayed above the tolerance.
        RidgeError: ridge = 0 and degenerate targets.
    """
    size = initials.shape[0]
    if ridge == 0:
        alpha, _, residual = _interpolate(likelihood, ntk, targets, initials)
        return TrainedPredictors(alpha, residual, jnp.zeros(size, dtype=int))

    weight = jnp.asarray(ridge)
    curvature = likelihood.curvature(targets, centre.logits)
    preconditioner = preconditioner_of(
        ntk, weight, curvature, is_flat=likelihood.is_flat, num_draws=size, dtype=factor_dtype
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
        a, _, residual, counts = (
            values[: part.shape[0]] for values in _restarted(*given, tolerance, max_iterations)
        )
        solved = _finish(
            likelihood, ntk, ridge, targets, part, (a, residual, counts), tolerance, max_iterations
        )
        parts.append(solved)
        _require_convergence(
            float(largest(solved[1])), tolerance, int(jnp.max(solved[2])), "training many draws"
        )
        progress(part.shape[0])
    a, residual, counts = (jnp.concatenate(values) for values in zip(*parts, strict=True))
    return TrainedPredictors(a / ridge, residual, counts)


_BLOCK_NUMBERS = 2**16  # numbers in one (S, n, C) array: 512 KiB, so that its like stay in cache
_BLOCK_COLUMNS = 256  # but no fewer columns, for the sake of the products


# --- ridge = 0 -----------------------------------------------------------------------------------


@eqx.filter_jit
def _interpolate_with(
    inverse: Interpolation, ntk: Block, goal: Logits, initials: Draws
) -> tuple[Draws, Draws]:
    alpha = jax.vmap(inverse.matvec)(goal[None] - initials)
    return alpha, initials + apply(ntk, alpha)


def _interpolate(
    likelihood: Likelihood, ntk: Block, targets: Logits, initials: Draws
) -> tuple[Draws, Draws, Float[Array, " draws"]]:
    """α, logits and residual of each draw, by (3) of THEORY 3.

    Gradient flow ends at zero residual, moving only where the likelihood is not flat.
    """
    goal = likelihood.interpolant(targets)
    inverse = interpolator(likelihood, ntk, targets)
    alpha, f = _interpolate_with(inverse, ntk, goal, initials)
    residual = jax.vmap(lambda f: largest(likelihood.residual(targets, f)))(f)
    worst = float(largest(residual))
    if not worst <= 1e-6:
        raise ConvergenceError(
            f"without ridge the network should reproduce its targets, but misses them by {worst:.2g}: "
            "Θ is too ill-conditioned (nearly duplicated points). Use a ridge > 0"
        )
    return alpha, f, residual


def interpolator(likelihood: Likelihood, ntk: Block, targets: Logits) -> Interpolation:
    """Q with α = Q (interpolant − f0), for training without ridge.

    Raises:
        NotPositiveDefiniteError: Θ is singular.
        ConfigurationError: Θ is an operator.
    """
    if isinstance(ntk, Operator):
        raise ConfigurationError(
            f"training without ridge factors Θ, of {targets.size} rows: use a ridge > 0, fewer points, "
            "or a kernel with a larger max_rows"
        )
    size, num_outputs = targets.shape
    return interpolation(ntk, is_flat=likelihood.is_flat, num_outputs=num_outputs, num_points=size)


def _require_convergence(residual: float, tolerance: float, count: int, who: str) -> None:
    if not residual <= tolerance:
        raise ConvergenceError(
            f"{who} left a residual of {residual:.3g} after {count} iterations, above the tolerance "
            f"{tolerance:g}; use a larger ridge, or a larger tolerance if that is close enough"
        )
