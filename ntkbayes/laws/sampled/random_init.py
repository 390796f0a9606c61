"""The law of the trained predictor over random initialisations (THEORY 5)."""

from typing import ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray
from tqdm.auto import tqdm

from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import SampledLaw
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.sampled.gradient_noise import gradient_noise
from ntkbayes.laws.sampled.training_info import TrainingInfo
from ntkbayes.linalg import factor_dtype
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.linearised import solver_for, train
from ntkbayes.training.matrices import many_draws_matrices
from ntkbayes.training.operations import Size, drawn_predictions, kernels, many_trainings


class RandomInit(Method[SampledLaw[TrainingInfo]]):
    """Draw initial functions, train each: the sampled random-init law.

    Args:
        num_inits: how many.
        training_time: duration of the gradient flow; infinite by default.
        initial_scale: factor of the initial function less its mean.
        gradient_noise: c, by which each draw's loss has a linear term −⟨ε, f(X)⟩ with ε ~ N(0, c W)
            and W the curvature at the trained shifted network, as in `PerturbedInit`. With c = 1 and
            initial functions from GP(m, Θ/ridge) the law is Laplace's to first order (THEORY 6).
        tolerance: on the error of each draw's logits at the training points, relative to their spread
            (root mean square of how far training moves them).
        factor_dtype: float32 halves time and memory of factors where there are many points; the
            residual is float64's, and meets the same tolerance.
        progress: show a progress bar.

    Raises:
        ConfigurationError: there is gradient noise at a finite training time.
    """

    name: ClassVar[str] = "random init"
    kind: ClassVar[Kind] = Kind(
        "random init",
        Sampling.INITIALISATIONS,
        "trained predictors of independent initialisations: initial functions are drawn from GP(m, K), "
        "and each is trained. Its spread is all that random initialisation leaves.",
    )
    num_inits: int = whole_field("num_inits", 1000, at_least=2)
    training_time: float = real_field("training_time", float("inf"), Range.NOT_NEGATIVE)
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)
    factor_dtype: np.dtype = eqx.field(default=np.float64, static=True, converter=factor_dtype)
    progress: bool = False
    initial_scale: float = real_field("initial_scale", 1.0, Range.POSITIVE_FINITE)
    gradient_noise: float = real_field("gradient_noise", 0.0, Range.NOT_NEGATIVE_FINITE)

    def __check_init__(self) -> None:
        if self.gradient_noise > 0 and self.training_time < float("inf"):
            raise ConfigurationError(
                "gradient noise is of training to its end: leave out training_time, or gradient_noise"
            )

    def interpolates(self, prior: NTKPrior) -> bool:
        return super().interpolates(prior) and self.training_time == float("inf")

    def matrices(self, size: Size) -> dict[str, float]:
        return many_draws_matrices(size, self.num_inits, self.factor_dtype)

    def operations(self, size: Size) -> dict[str, float]:
        trained = many_trainings(size, self.num_inits)
        predictions = {"predictions": drawn_predictions(size, self.num_inits)}
        return {"kernels": kernels(size), **trained, **predictions}

    @property
    def num_trained(self) -> int:
        return self.num_inits

    @property
    def num_kept(self) -> int:
        return 5 * self.num_inits  # white noise, paths, initial functions, α twice

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> SampledLaw[TrainingInfo]:
        key = self.require_key(key)
        objective, centre = problem.objective, None
        if self.gradient_noise > 0:
            problem.prior.require_ridge("gradient noise")
        # Before g is drawn, since a factor of K would add to the peak memory.
        if self.training_time == float("inf"):
            tolerance = max(_CENTRE, self.tolerance)
            centre = train(
                objective, problem.mean, tolerance=tolerance, factor_dtype=self.factor_dtype
            )
        g = problem.initial_process_at(self.initial_scale).draw(key, self.num_inits)
        initial, noise = problem.mean[None] + g.values, None
        if self.gradient_noise > 0:
            assert centre is not None
            noise_key = jax.random.fold_in(jax.random.clone(key), 1)
            noise = gradient_noise(problem, centre, noise_key, g.values.shape, self.gradient_noise)
            initial = initial + problem.prior_gram @ noise
        hidden = centre is None or not self.progress
        with tqdm(total=self.num_inits, desc=self.name, disable=hidden) as bar:
            solver = solver_for(
                objective,
                time=self.training_time,
                tolerance=self.tolerance,
                factor_dtype=self.factor_dtype,
                centre=centre,
                progress=bar.update,
            )
            trained = solver.solve(objective, initial)
        alpha = trained.alpha if noise is None else trained.alpha + noise / problem.ridge
        kind = self.kind if noise is None else _NOISY
        return SampledLaw(problem, kind, TrainingInfo.of(trained), g, alpha)


_NOISY = Kind(
    "random init with gradient noise",
    Sampling.PERTURBED_INITIALISATIONS,
    "trained predictors of independent initialisations from GP(m, K), each trained on a loss to which "
    "gradient noise was added.",
)
_CENTRE = 0.1  # tolerance of the centre, from which draws only start
