"""The linearised network after a finite training time, by the gradient-flow ODE of THEORY 4.

    dα/dt = r(f0 + Θ α) − ridge α,   α = 0 at t = 0,   f_t(x) = f0(x) + Θ(x, X) α_t

with r the residual of the likelihood. The ODE is stiff: its fastest rate is λ_max(Θ)/4 or so, its
slowest the ridge. Two solvers of diffrax share the work, whichever takes fewer operations:

* explicit (Dormand–Prince 8): all draws at once, matrix products only, but the number of steps grows
  with the time times the fastest rate;
* implicit (Kvaerno 5): few steps, each with the factors of an nC × nC Jacobian, draw by draw.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Draws, Gram, Logits, largest
from ntkbayes.training.linearised import TrainedPredictor, TrainedPredictors, train

MAX_JACOBIAN = 2000  # rows of a Jacobian that the implicit solver may factor
MAX_EXPLICIT_STEPS = 100_000


def train_from(
    likelihood: Likelihood,
    ntk: Gram,
    targets: Logits,
    initial: Logits,
    *,
    ridge: float,
    time: float,
    tolerance: float,
    factor_dtype: DTypeLike = jnp.float64,
) -> TrainedPredictor:
    """The trained predictor from one initial function after any training time, infinity included.

    Arguments and errors as for `linearised.train` and `flow`.
    """
    if time == float("inf"):
        return train(
            likelihood,
            ntk,
            targets,
            initial,
            ridge=ridge,
            tolerance=tolerance,
            factor_dtype=factor_dtype,
        )
    end = flow(likelihood, ntk, targets, initial[None], ridge=ridge, time=time)
    alpha = end.alpha[0]
    residual, steps = float(end.residual[0]), int(end.num_iterations[0])
    unknown = float("nan")
    return TrainedPredictor(alpha, initial + ntk @ alpha, residual, unknown, steps)


def flow(
    likelihood: Likelihood,
    ntk: Gram,
    targets: Logits,
    initials: Draws,
    *,
    ridge: float,
    time: float,
    tolerance: float = 1e-8,
) -> TrainedPredictors:
    """Predictors after a finite training time, one for each initial function.

    Args:
        time: training time t ≥ 0, in units in which gradient flow is dθ/dt = −∇loss.
        tolerance: on the local error of α, relative to its size, and to that of the largest residual at
            the start times the time.
        likelihood, ntk, targets, initials, ridge: as for `linearised.train_many`.

    Returns:
        The predictors; `residual` is max |dα/dt| at the end, which is not small at a small time, and
        `num_iterations` counts steps.

    Raises:
        ConfigurationError: the time is too long for the explicit solver, and n · C too large for the
            Jacobians of the implicit one.
        ConvergenceError: the step size control gave up.
    """
    solver = _implicit
    if _explicit_is_cheaper(likelihood, ntk, targets, ridge, time):
        solver = _explicit
    # Arrays, as one compilation is to serve all ridges and times.
    given = (jnp.asarray(float(ridge)), jnp.asarray(float(time)))
    scale = _size_of(likelihood, targets, initials, *given)
    alpha, failed, steps = solver(likelihood, ntk, targets, initials, *given, tolerance, scale)
    if bool(jnp.any(failed)):
        raise ConvergenceError(
            f"the gradient-flow ODE was not solved up to time {time:g} for {int(jnp.sum(failed))} of "
            f"{len(failed)} initial functions; use a shorter training_time or a larger ridge"
        )
    final = initials + ntk @ alpha
    velocity = jax.vmap(lambda f: likelihood.residual(targets, f))(final) - ridge * alpha
    residual = largest(velocity, axis=(1, 2))
    return TrainedPredictors(alpha, residual, np.full(len(residual), np.nan), steps)


@eqx.filter_jit
def _size_of(
    likelihood: Likelihood,
    targets: Logits,
    initials: Draws,
    ridge: Float[Array, ""],
    time: Float[Array, ""],
) -> Float[Array, ""]:
    """The size of α, for the ODE's absolute tolerance: the largest residual at the start, times the time
    it has to act, or 1 unit of it, since residuals fall. A power of two, so that scaling is exact."""
    start = largest(jax.vmap(lambda f: likelihood.residual(targets, f))(initials))
    least = jnp.finfo(start.dtype).tiny  # of no residual at all
    size = jnp.maximum(start * jnp.minimum(time, 1.0), least)
    return 2.0 ** jnp.floor(jnp.log2(size))


def _explicit_is_cheaper(
    likelihood: Likelihood, ntk: Gram, targets: Logits, ridge: float, time: float
) -> bool:
    """Count the operations of both solvers for one draw.

    Explicit: 13 stages of 2 n² C operations (2 n² C² where outputs are coupled); a step covers about
    4 units of (time × fastest rate), and accuracy asks for some hundred steps besides. Implicit: about
    100 steps of one LU factorisation, ⅔ (nC)³, a stage.
    """
    size, num_outputs = targets.shape
    curvature = likelihood.curvature(targets, jnp.zeros_like(targets)).matrix_diagonal
    rate = 2 * float(jnp.max(curvature)) * ntk.largest_eigenvalue() + ridge
    steps = 100 + time * rate / 4
    explicit = steps * 13 * 2 * size**2 * (num_outputs**2 if ntk.couples else num_outputs)
    implicit = 100 * 5 * 2 / 3 * (size * num_outputs) ** 3
    if targets.size <= MAX_JACOBIAN and (explicit > implicit or steps > MAX_EXPLICIT_STEPS / 2):
        return False
    if steps > MAX_EXPLICIT_STEPS / 2:
        raise ConfigurationError(
            f"a training_time of {time:g} takes about {steps:.0f} explicit steps, and n · C = "
            f"{targets.size} is over the {MAX_JACOBIAN} that implicit steps can take. Use a shorter "
            "training_time, fewer points, or infinite time with a ridge > 0"
        )
    return True


@eqx.filter_jit
def _explicit(
    likelihood: Likelihood,
    ntk: Gram,
    targets: Logits,
    initials: Draws,
    ridge: Float[Array, ""],
    time: Float[Array, ""],
    tolerance: float,
    scale: Float[Array, ""],
) -> tuple[Draws, Array, Array]:
    import diffrax  # takes as long to import as half of JAX, and only a finite time needs it

    residual = jax.vmap(lambda f: likelihood.residual(targets, f))

    def velocity(t: Array, alpha: Draws, args: None) -> Draws:
        return residual(initials + ntk @ alpha) - ridge * alpha

    def worst_draw(error: Draws) -> Array:
        return jnp.sqrt(largest(jnp.mean(error**2, axis=(1, 2))))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Dopri8(),
        t0=0.0,
        t1=time,
        dt0=None,
        y0=jnp.zeros_like(initials),
        stepsize_controller=diffrax.PIDController(
            rtol=tolerance, atol=tolerance * scale, norm=worst_draw
        ),
        max_steps=MAX_EXPLICIT_STEPS,
        throw=False,
    )
    failed = jnp.broadcast_to(solution.result != diffrax.RESULTS.successful, len(initials))
    return solution.ys[-1], failed, jnp.broadcast_to(solution.stats["num_steps"], len(initials))


@eqx.filter_jit
def _implicit(
    likelihood: Likelihood,
    ntk: Gram,
    targets: Logits,
    initials: Draws,
    ridge: Float[Array, ""],
    time: Float[Array, ""],
    tolerance: float,
    scale: Float[Array, ""],
) -> tuple[Draws, Array, Array]:
    import diffrax

    def solve(initial: Logits) -> tuple[Logits, Array, Array]:
        def velocity(t: Array, alpha: Logits, args: None) -> Logits:
            return likelihood.residual(targets, initial + ntk @ alpha) - ridge * alpha

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

    return jax.lax.map(solve, initials)
