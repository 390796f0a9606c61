"""Training a linearised network: which solver for which problem.

| ridge | training time | initial functions | solver |
| --- | --- | --- | --- |
| any | finite | any | `GradientFlow` |
| 0 | infinite | any | `Interpolation`, the closed form of THEORY 3 |
| > 0 | infinite | any, where Θ is known by products | `SubspaceNewton` |
| > 0 | infinite | many, around a centre | `ConjugateGradients` from the centre |
| > 0 | infinite | one, with many rows of Θ | `ConjugateGradients` |
| > 0 | infinite | one | `Newton` |

A solve has converged once the error of its logits, which `accuracy` derives from a − r(f), is within the
tolerance times their spread: how far training moved them, root mean square.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ntkbayes.linalg import Draws, Logits, OperatorGram
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.conjugate_gradients import ConjugateGradients
from ntkbayes.training.flow import GradientFlow
from ntkbayes.training.interpolation import Interpolation
from ntkbayes.training.newton import Newton
from ntkbayes.training.objective import Objective, Solver, TrainedPredictor, silent
from ntkbayes.training.subspace import SubspaceNewton

EXACT_ROWS = 256  # of Θ: up to here Newton's factors cost less than their compilation


def solver_for(
    objective: Objective,
    *,
    time: float = float("inf"),
    tolerance: float = TOLERANCE,
    factor_dtype: DTypeLike = jnp.float64,
    centre: TrainedPredictor | None = None,
    progress: Callable[[int], object] = silent,
    watch: Callable[[float], object] = silent,
) -> Solver:
    """The solver that suits the objective.

    Args:
        time: training time.
        tolerance: for the error of the logits, relative to their spread; used at infinite time.
        factor_dtype, centre, progress, watch: as for `ConjugateGradients` and `SubspaceNewton`.
    """
    if time < float("inf"):
        return GradientFlow(time)
    if float(objective.ridge) == 0:
        return Interpolation(tolerance)
    if isinstance(objective.gram, OperatorGram):
        return SubspaceNewton(
            tolerance, factor_dtype=factor_dtype, centre=centre, progress=progress, watch=watch
        )
    if centre is not None:
        return ConjugateGradients(
            tolerance, factor_dtype=factor_dtype, centre=centre, progress=progress
        )
    num_points, num_outputs = objective.targets.shape
    if num_points * (num_outputs if objective.gram.couples else 1) > EXACT_ROWS:
        return ConjugateGradients(tolerance, factor_dtype=factor_dtype, watch=watch)
    return Newton(tolerance)


def train(
    objective: Objective,
    initial: Logits,
    *,
    time: float = float("inf"),
    tolerance: float = TOLERANCE,
    factor_dtype: DTypeLike = jnp.float64,
    watch: Callable[[float], object] = silent,
) -> TrainedPredictor:
    """The trained predictor from one initial function, for any ridge ≥ 0 and any time.

    Args:
        initial: f0(X), (n, C).
        time, tolerance, factor_dtype, watch: as for `solver_for`.

    Raises:
        ConvergenceError: the error of the logits stayed above the tolerance.
        RidgeError: ridge = 0, infinite time, and a class with probability 0 in a target.
        ConfigurationError: the solver does not support a Gram known by products, or so long a time.
        NotPositiveDefiniteError: Θ is not positive definite.
    """
    solver = solver_for(
        objective, time=time, tolerance=tolerance, factor_dtype=factor_dtype, watch=watch
    )
    trained = solver.solve(objective, jax.device_put(np.asarray(initial)[None]))
    alpha, logits = _first(objective, initial, trained.alpha)
    return TrainedPredictor(
        initial=initial,
        alpha=alpha,
        logits=logits,
        residual=np.asarray(trained.residual).item(),
        logit_error=np.asarray(trained.logit_error).item(),
        num_iterations=np.asarray(trained.num_iterations).item(),
    )


@eqx.filter_jit
def _first(objective: Objective, initial: Logits, alpha: Draws) -> tuple[Logits, Logits]:
    """α of the first of many trained predictors, and its logits."""
    return alpha[0], initial + objective.gram @ alpha[0]
