"""Training without ridge, in closed form (THEORY 3)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ntkbayes.errors import ConvergenceError
from ntkbayes.linalg import Draws, Interpolator, Logits, PerDraw, largest
from ntkbayes.training.accuracy import TOLERANCE, is_accurate, round_off, spread_of
from ntkbayes.training.objective import Objective, Solver, TrainedPredictors


class Interpolation(Solver):
    """α = Q (interpolant − f0): gradient flow without ridge ends at zero residual, and never moves along
    flat directions of the likelihood.

    Args:
        tolerance: for the error of the logits, relative to their spread.

    Raises:
        RidgeError: a class has probability 0 in a target, so there is no interpolant.
        ConfigurationError: Θ is known only by its products.
        NotPositiveDefiniteError: Θ is singular.
        ConvergenceError: Θ is too ill-conditioned for the tolerance.
    """

    tolerance: float = TOLERANCE

    def solve(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        goal = objective.likelihood.interpolant(objective.targets)
        inverse = objective.interpolator()
        alpha, residual, error, spread = _interpolated(inverse, objective, goal, initial)
        if not is_accurate(objective.likelihood, error, spread, self.tolerance).all():
            worst = jnp.argmax(error / spread)
            raise ConvergenceError(
                f"without ridge the network should interpolate its targets, but misses their logits by "
                f"{float(error[worst]):.2g}, with a spread of {float(spread[worst]):.2g}: Θ is too "
                "ill-conditioned (nearly duplicated points). Use a ridge > 0"
            )
        return TrainedPredictors(alpha, residual, error, jnp.zeros(len(initial), dtype=int))


@eqx.filter_jit
def _interpolated(
    inverse: Interpolator, objective: Objective, goal: Logits, initials: Draws
) -> tuple[Draws, PerDraw, PerDraw, PerDraw]:
    """α, residuals, distance of the logits from the interpolant, and their spread. The second solve
    refines the first, which misses by the factor's jitter and round-off."""

    def missing(f: Draws) -> Draws:
        return objective.likelihood.project(goal[None] - f)

    solve = jax.vmap(inverse.matvec)
    alpha = solve(goal[None] - initials)
    alpha = alpha + solve(missing(initials + objective.gram @ alpha))
    f = initials + objective.gram @ alpha

    prior = objective.gram.variances

    def lost(initial: Logits, alpha: Logits, f: Logits) -> Array:
        return largest(round_off(prior, initial, alpha, f))

    error = largest(missing(f), axis=(1, 2)) + jax.vmap(lost)(initials, alpha, f)
    residual = jax.vmap(lambda f: largest(objective.residual(f)))(f)
    return alpha, residual, error, jax.vmap(spread_of)(f, initials)
