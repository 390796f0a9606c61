"""The linearised network after a finite training time, by the gradient-flow ODE of THEORY 4.

    dα/dt = r(f0 + Θ α) − ridge α,   α = 0 at t = 0,   f_t(x) = f0(x) + Θ(x, X) α_t

with r the residual of the likelihood. The ODE is stiff: its fastest rate is about λ_max(Θ)/4, its
slowest the ridge. Of two diffrax solvers, the one with fewer operations runs:

* explicit (Dormand–Prince 8): all draws at once, matrix products only, but the number of steps grows
  as the time times the fastest rate;
* implicit (Kvaerno 5): few steps, each with the factors of an nC × nC Jacobian, draw by draw.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.linalg import Draws, Logits, largest
from ntkbayes.training.objective import Objective, Solver, TrainedPredictors


class GradientFlow(Solver):
    """Gradient flow for a finite time, for any ridge ≥ 0.

    Args:
        time: training time t ≥ 0, in units in which gradient flow is dθ/dt = −∇loss.
        tolerance: for the local error of α, relative to α, and to the largest initial residual times the
            time.
        max_jacobian: the most rows of a Jacobian that the implicit solver factors.
        max_steps: of the explicit solver.

    Raises:
        ConfigurationError: the time is too long for the explicit solver, and n · C too large for the
            Jacobians of the implicit one.
        ConvergenceError: the ODE solver ran out of steps, or failed.
    """

    time: float
    tolerance: float = 1e-8
    max_jacobian: int = 2000
    max_steps: int = 100_000

    def solve(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        run = self.explicit if self._explicit_is_cheaper(objective) else self.implicit
        alpha, failed, steps = run(objective, initial)
        if bool(jnp.any(failed)):
            raise ConvergenceError(
                f"the gradient-flow ODE was not solved up to time {self.time:g} for "
                f"{int(jnp.sum(failed))} of {len(failed)} initial functions; use a shorter "
                "training_time or a larger ridge"
            )
        final = initial + objective.gram @ alpha
        velocity = jax.vmap(objective.residual)(final) - objective.ridge * alpha
        residual = largest(velocity, axis=(1, 2))
        return TrainedPredictors(alpha, residual, np.full(len(residual), np.nan), steps)

    def explicit(self, objective: Objective, initial: Draws) -> tuple[Draws, Array, Array]:
        """α of each draw, whether it failed, and its number of steps, by the explicit solver."""
        time = self._time
        scale = _size_of(objective, initial, time)
        return _explicit(objective, initial, time, scale, self.tolerance, self.max_steps)

    def implicit(self, objective: Objective, initial: Draws) -> tuple[Draws, Array, Array]:
        """The same, by the implicit solver."""
        time = self._time
        return _implicit(
            objective, initial, time, _size_of(objective, initial, time), self.tolerance
        )

    @property
    def _time(self) -> Float[Array, ""]:
        """The time as an array, so that a new time does not recompile."""
        return jnp.asarray(float(self.time))

    def _explicit_is_cheaper(self, objective: Objective) -> bool:
        """Compare the operations of both solvers for one draw.

        Explicit: 13 stages of 2 n² C operations per step (2 n² C² for coupled outputs); a step covers
        about 4 units of time × fastest rate, and accuracy takes about 100 more steps. Implicit: about
        100 steps with one LU factorisation, ⅔ (nC)³, per stage.
        """
        gram, targets = objective.gram, objective.targets
        size, num_outputs = targets.shape
        curvature = objective.curvature(jnp.zeros_like(targets)).matrix_diagonal
        rate = 2 * float(jnp.max(curvature)) * gram.largest_eigenvalue() + float(objective.ridge)
        steps = 100 + self.time * rate / 4
        explicit = steps * 13 * 2 * size**2 * (num_outputs**2 if gram.couples else num_outputs)
        implicit = 100 * 5 * 2 / 3 * targets.size**3
        is_long = steps > self.max_steps / 2
        if targets.size <= self.max_jacobian and (explicit > implicit or is_long):
            return False
        if is_long:
            raise ConfigurationError(
                f"a training_time of {self.time:g} takes about {steps:.0f} explicit steps, and n · C = "
                f"{targets.size} exceeds the limit of implicit steps, {self.max_jacobian}. Use a "
                "shorter training_time, fewer points, or infinite time with a ridge > 0"
            )
        return True


@eqx.filter_jit
def _size_of(objective: Objective, initial: Draws, time: Float[Array, ""]) -> Float[Array, ""]:
    """The scale of α, for the ODE's absolute tolerance: the largest initial residual times the time, at
    most 1 unit of it since residuals fall. A power of two, so that scaling is exact."""
    start = largest(jax.vmap(objective.residual)(initial))
    tiny = jnp.finfo(start.dtype).tiny  # where all residuals are 0
    size = jnp.maximum(start * jnp.minimum(time, 1.0), tiny)
    return 2.0 ** jnp.floor(jnp.log2(size))


@eqx.filter_jit
def _explicit(
    objective: Objective,
    initial: Draws,
    time: Float[Array, ""],
    scale: Float[Array, ""],
    tolerance: float,
    max_steps: int,
) -> tuple[Draws, Array, Array]:
    import diffrax  # slow to import, and needed only for a finite time

    residual = jax.vmap(objective.residual)

    def velocity(t: Array, alpha: Draws, args: None) -> Draws:
        return residual(initial + objective.gram @ alpha) - objective.ridge * alpha

    def worst_draw(error: Draws) -> Array:
        return jnp.sqrt(largest(jnp.mean(error**2, axis=(1, 2))))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Dopri8(),
        t0=0.0,
        t1=time,
        dt0=None,
        y0=jnp.zeros_like(initial),
        stepsize_controller=diffrax.PIDController(
            rtol=tolerance, atol=tolerance * scale, norm=worst_draw
        ),
        max_steps=max_steps,
        throw=False,
    )
    failed = jnp.broadcast_to(solution.result != diffrax.RESULTS.successful, len(initial))
    return solution.ys[-1], failed, jnp.broadcast_to(solution.stats["num_steps"], len(initial))


@eqx.filter_jit
def _implicit(
    objective: Objective,
    initial: Draws,
    time: Float[Array, ""],
    scale: Float[Array, ""],
    tolerance: float,
) -> tuple[Draws, Array, Array]:
    import diffrax

    def solve(initial: Logits) -> tuple[Logits, Array, Array]:
        def velocity(t: Array, alpha: Logits, args: None) -> Logits:
            return objective.residual(initial + objective.gram @ alpha) - objective.ridge * alpha

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            diffrax.Kvaerno5(),
            t0=0.0,
            t1=time,
            dt0=None,
            y0=jnp.zeros_like(initial),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance * scale),
            max_steps=10_000,
            throw=False,
        )
        failed = solution.result != diffrax.RESULTS.successful
        return solution.ys[-1], failed, solution.stats["num_steps"]

    return jax.lax.map(solve, initial)
