"""Training by a growing subspace, for kernels known by their products."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.linalg import (
    Draws,
    Logits,
    OperatorGram,
    PerDraw,
    Preconditioner,
    SurrogatePreconditioner,
    inner,
    largest,
)
from ntkbayes.linalg import factor_dtype as as_dtype
from ntkbayes.training.accuracy import TOLERANCE, error_bounds, is_accurate, spread_of
from ntkbayes.training.line_search import Slopes, line_search
from ntkbayes.training.objective import (
    Objective,
    Optimum,
    Solver,
    TrainedPredictor,
    TrainedPredictors,
    not_converged,
    silent,
)

Directions = Float[Array, "directions n classes"]

BLOCK = 16  # draws that share a subspace
_STALE = 5  # steps that a preconditioner serves
_PATIENCE = 25  # steps within which the worst error must halve
_DEPENDENT = 1e-8  # squared length of a combination of new directions that adds none, relatively
_CLOSE = 0.1  # a step of Newton's method in the subspace after which its error is small enough
_NEWTON_STEPS = 5


class Subspace(eqx.Module):
    """Directions z_k in a and their images P z_k, with z_jᵀ P z_k = δ_jk; zeros where there is none yet.

    Within it f0 + P a = f0 + Σ c_k P z_k costs no product with P, and aᵀ P a is ‖c‖².
    """

    directions: Directions
    images: Directions

    @classmethod
    def empty(cls, capacity: int, like: Logits) -> "Subspace":
        nothing = jnp.zeros((capacity, *like.shape), like.dtype)
        return cls(nothing, nothing)

    def enlarged(self) -> "Subspace":
        """The same with room for twice as many directions."""
        return jax.tree.map(lambda v: jnp.concatenate([v, jnp.zeros_like(v)]), self)


class SubspaceNewton(Solver):
    """Minimise the loss exactly within a growing subspace, for a ridge > 0.

    Each step adds one direction per draw, its residual preconditioned with the kernel's surrogate, at
    the cost of one product with P. All draws use all directions: in the subspace the minimisation takes
    matrices of its dimension only (sequential subspace optimisation, Narkiss & Zibulevsky 2005). For a
    quadratic loss that is the method of conjugate gradients; the non-linearity costs no products, and
    the preconditioner need be neither symmetric nor constant.

    Products of directions may be in float32: what the tolerance is tested on is computed in float64.

    Args:
        tolerance: for the error of every draw's logits, relative to their spread.
        max_iterations: steps before giving up.
        factor_dtype: of the preconditioner, and at most that of the directions' products.
        centre: a trained predictor to start from.
        progress: called with the number of draws after each block of them.
        watch: called after each step with the largest error of the draws' logits, about.
    """

    tolerance: float = TOLERANCE
    max_iterations: int = 500
    factor_dtype: DTypeLike = eqx.field(default=np.float64, static=True, converter=as_dtype)
    centre: TrainedPredictor | None = None
    progress: Callable[[int], object] = eqx.field(default=silent, static=True)
    watch: Callable[[float], object] = eqx.field(default=silent, static=True)

    def solve(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        optima = []
        for begin in range(0, len(initial), BLOCK):
            part = initial[begin : begin + BLOCK]
            optima.append(self._optimum(objective, part))
            self.progress(len(part))
        optimum = jax.tree.map(lambda *parts: jnp.concatenate(parts), *optima)
        return TrainedPredictors.of(objective, optimum)

    def _optimum(self, objective: Objective, initial: Draws) -> Optimum:
        """The optima of some initial functions.

        Raises:
            ConvergenceError: the logits of one of them miss the tolerance.
        """
        gram = objective.gram
        assert isinstance(gram, OperatorGram)
        fast, unit = gram.fast(self.factor_dtype), objective.likelihood.unit
        a = jnp.zeros_like(initial)
        if self.centre is not None:
            a = jnp.broadcast_to(objective.ridge * self.centre.alpha, initial.shape)
        f = _logits(objective, initial, a)
        subspace, used = Subspace.empty(2 * max(64, len(initial)), initial[0]), 0
        slack, best, since = 1.0, np.inf, 0
        steps = None
        for count in range(1, self.max_iterations + 1):
            if steps is None or count % _STALE == 0:
                steps = _preconditioner(objective, gram, f, self.factor_dtype)
            if used + len(initial) > len(subspace.directions):
                subspace = subspace.enlarged()
            given = (objective, fast, steps, subspace, jnp.asarray(used), a, f)
            subspace, estimate = _grown(*given)
            used += len(initial)
            a, f = _minimised(objective, subspace, a, f)
            worst = float(largest(estimate))
            self.watch(worst)
            best, since = (worst, 0) if worst <= best / 2 else (best, since + 1)
            allowed = self.tolerance * np.maximum(np.asarray(_spread(f, initial)), unit) / slack
            is_last = since > _PATIENCE or count == self.max_iterations
            if bool((np.asarray(estimate) <= allowed).all()) or is_last:
                f = _logits(objective, initial, a)
                optimum = _measured(objective, initial, gram, steps, a, f, jnp.asarray(count))
                error, spread = optimum.logit_error, optimum.spread
                if is_accurate(objective.likelihood, error, spread, self.tolerance).all():
                    return optimum
                if is_last:
                    break
                slack *= 10.0
        over = np.asarray(optimum.logit_error) / np.maximum(np.asarray(optimum.spread), unit)
        failed = jax.tree.map(lambda values: values[int(np.argmax(over))], optimum)
        raise not_converged("training", failed, self.tolerance, self.max_iterations)


@eqx.filter_jit
def _logits(objective: Objective, initial: Draws, a: Draws) -> Draws:
    return objective.logits(initial, a)


@jax.jit
def _spread(f: Draws, initial: Draws) -> PerDraw:
    return jax.vmap(spread_of)(f, initial)


def _preconditioner(
    objective: Objective, gram: OperatorGram, f: Draws, dtype: DTypeLike
) -> Preconditioner:
    """That of the surrogate, at the mean of the draws' logits."""
    curvature = objective.curvature(jnp.mean(f, axis=0))
    is_flat = objective.likelihood.is_flat
    return gram.surrogate_preconditioner(objective.ridge, curvature, is_flat=is_flat, dtype=dtype)


@eqx.filter_jit
def _measured(
    objective: Objective,
    initial: Draws,
    gram: OperatorGram,
    surrogate: Preconditioner,
    a: Draws,
    f: Draws,
    count: Array,
) -> Optimum:
    steps = SurrogatePreconditioner(gram / objective.ridge, surrogate)
    _, proposed = steps.apply(a - jax.vmap(objective.residual)(f), objective.likelihood.project)
    residual, error, spread = error_bounds(objective, initial, proposed, a, f)
    return Optimum(a, f, residual, error, spread, jnp.full(len(a), count))


@eqx.filter_jit
def _grown(
    objective: Objective,
    fast: OperatorGram,
    steps: Preconditioner,
    subspace: Subspace,
    used: Array,
    a: Draws,
    f: Draws,
) -> tuple[Subspace, PerDraw]:
    """The subspace with a direction more per draw, and an estimate of the error of each draw's logits
    before: √(max P_ii eᵀ Σ e), with Σ e as the preconditioner has it.

    Args:
        used: number of directions that there are.
    """
    e = a - jax.vmap(objective.residual)(f)
    _, z = steps.apply(e, objective.likelihood.project)
    for _ in range(2):  # once would leave round-off
        along = jnp.einsum("knc,snc->sk", subspace.images, z)
        z = z - jnp.einsum("sk,knc->snc", along, subspace.directions)
    size = jnp.sqrt(jnp.sum(z**2, axis=(1, 2), keepdims=True))
    z = z / jnp.where(size > 0, size, 1.0)
    v = fast @ (z / objective.ridge)
    energy = inner(e, v) * size[:, 0, 0]
    products = jnp.einsum("snc,tnc->st", z, v)
    values, vectors = jnp.linalg.eigh((products + products.T) / 2)
    kept = values > _DEPENDENT * jnp.max(values)
    turn = vectors * jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1.0)), 0.0)[None, :]
    z, v = (jnp.einsum("st,snc->tnc", turn, part) for part in (z, v))
    grown = [
        jax.lax.dynamic_update_slice_in_dim(old, new, used, axis=0)
        for old, new in ((subspace.directions, z), (subspace.images, v))
    ]
    estimate = jnp.sqrt(jnp.max(objective.prior_variances) * jnp.abs(energy))
    return Subspace(*grown), estimate


@eqx.filter_jit
def _minimised(objective: Objective, subspace: Subspace, a: Draws, f: Draws) -> tuple[Draws, Draws]:
    """a and f of the least loss in a + the subspace, by Newton's method: I + V W Vᵀ is the Hessian in
    its coordinates, with V the images, as rows."""
    images = subspace.images
    flat = images.reshape(len(images), -1)

    def step(state: tuple) -> tuple:
        a, f, _, count = state
        residual, curvature = objective.residual(f), objective.curvature(f)
        e = a - residual
        curved = jax.vmap(curvature.matvec)(images).reshape(flat.shape)
        hessian = jnp.eye(len(flat), dtype=flat.dtype) + curved @ flat.T
        move = -jnp.linalg.solve(hessian, flat @ e.reshape(-1))
        da = jnp.einsum("k,knc->nc", move, subspace.directions)
        df = (move @ flat).reshape(f.shape)
        slopes = Slopes(inner(e, df), inner(a, df), inner(da, df))
        t, _, _ = line_search(objective, f, residual, curvature, df, slopes)
        return a + t * da, f + t * df, largest(df), count + 1

    def unfinished(state: tuple) -> Array:
        _, _, size, count = state
        return (size > _CLOSE * objective.likelihood.unit) & (count < _NEWTON_STEPS)

    def one(given: tuple[Logits, Logits]) -> tuple[Logits, Logits]:
        a, f, _, _ = jax.lax.while_loop(unfinished, step, (*given, jnp.asarray(jnp.inf), 0))
        return a, f

    return jax.lax.map(one, (a, f))
