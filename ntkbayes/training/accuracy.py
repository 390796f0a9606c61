"""How far the logits of a trained predictor are from the optimum of training.

With residual e = a − r(f) the logits f = f0 + P a are off by Σ e to first order, Σ = (P⁻¹ + W)⁻¹, which
is Newton's step (THEORY 8). That can be ‖P‖ times the residual, so where P = Θ/ridge is large the
residual alone certifies nothing.

Shapes: n points, C logits, S initial functions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Curvature, Draws, Logits, PerDraw, inner, largest
from ntkbayes.training.objective import Objective

TOLERANCE = 1e-6  # for the error of logits, relative to their spread


def spread_of(f: Logits, initial: Logits) -> Float[Array, ""]:
    """The scale for errors of logits: the root mean square of f − f0, how far training moved them, or of
    f if that is smaller."""
    moved, size = jnp.mean((f - initial) ** 2), jnp.mean(f**2)
    return jnp.sqrt(jnp.minimum(moved, size))


def is_accurate(
    likelihood: Likelihood,
    error: Float[Array, "*draws"],
    spread: Float[Array, "*draws"],
    tolerance: float,
) -> Bool[np.ndarray, "*draws"]:
    """Whether the error is negligible: within the tolerance times the logits' spread, or times the
    likelihood's unit if the spread is smaller."""
    allowed = tolerance * np.maximum(np.asarray(spread), likelihood.unit)
    return np.asarray(np.asarray(error) <= allowed)


def round_off(prior: Float[Array, "n outputs"], initial: Logits, a: Logits, f: Logits) -> Logits:
    """A bound on the round-off in f = f0 + P a: ε (|f0| + |f| + |P| |a|), with |P_ij| ≤ √(P_ii P_jj).

    Args:
        prior: the diagonal of P, as `Gram.variances`.
        initial, a, f: (n, C).
    """
    roots = jnp.sqrt(prior)
    terms = roots * jnp.sum(roots * jnp.abs(a))
    return jnp.finfo(f.dtype).eps * (jnp.abs(initial) + jnp.abs(f) + terms)


def error_bounds(
    objective: Objective, initials: Draws, proposed: Draws, a: Draws, f: Draws
) -> tuple[PerDraw, PerDraw, PerDraw]:
    """Residual, bound on the error of logits, and spread per draw, at the cost of one product.

    By (6) of THEORY 8: |Σ e|ᵢ ≤ √(P_ii eᵀ Σ e); see `energy_bounds`.

    Args:
        proposed: P⁻¹ Σ e as a preconditioner has it.
    """
    prior = objective.prior_variances
    e = a - jax.vmap(objective.residual)(f)
    curvature = jax.vmap(objective.curvature)(f)
    energy = energy_bounds(objective, curvature, e, proposed)

    def lost(initial: Logits, a: Logits, f: Logits, curvature: Curvature) -> tuple[Array, Array]:
        noise = round_off(prior, initial, a, f)
        # Of noise alike in all logits W makes round-off of either sign.
        return jnp.maximum(inner(noise, curvature.matvec(noise)), 0.0), largest(noise)

    moved, noise = jax.vmap(lost)(initials, a, f, curvature)
    bound = (
        jnp.sqrt(jnp.max(prior)) * (jnp.sqrt(jnp.maximum(energy, 0.0)) + jnp.sqrt(moved)) + noise
    )
    # Sums propagate NaN.
    return largest(e, axis=(1, 2)), bound, jax.vmap(spread_of)(f, initials)


def energy_bounds(objective: Objective, curvature: Curvature, e: Draws, proposed: Draws) -> PerDraw:
    """A bound on eᵀ Σ e of each draw: uᵀ P u + (e − u)ᵀ W⁻¹ (e − u), for any u, with equality at
    u = P⁻¹ Σ e; at the cost of a product.

    Args:
        curvature: W, of each draw its own.
        proposed: u, but at points where W is so small that e − u would cost more u takes all of e.
    """

    def split(curvature: Curvature, e: Logits, u: Logits) -> tuple[Logits, Float[Array, ""]]:
        rest = objective.likelihood.project(e - u)
        weighed = curvature.inverse_quadratic(rest)
        moved = ~(weighed <= jnp.sum(objective.prior_variances * rest**2, axis=1))
        rest = jnp.where(moved[:, None], 0.0, rest)
        return e - rest, jnp.sum(jnp.where(moved, 0.0, weighed))

    u, rest = jax.vmap(split)(curvature, e, proposed)
    return inner(u, objective.gram @ (u / objective.ridge)) + rest
