"""The perturbed-init law: sample, then optimise (THEORY 6; Antorán et al. 2023)."""

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray
from tqdm.auto import tqdm

from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import SampledLaw
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.sampled.gradient_noise import gradient_noise
from ntkbayes.laws.sampled.training_info import TrainingInfo
from ntkbayes.linalg import factor_dtype, split_key
from ntkbayes.priors.paths import Process, tangent_process
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.accuracy import TOLERANCE
from ntkbayes.training.linearised import solver_for, train
from ntkbayes.training.matrices import many_draws_matrices
from ntkbayes.training.operations import Size, drawn_predictions, kernels, many_trainings


class PerturbedInit(Method[SampledLaw[TrainingInfo]]):
    """Draw g ~ GP(0, Θ/ridge) and ε ~ N(0, W), and train mean + g on the loss less ⟨ε, f(X)⟩.

    W is the curvature at the trained shifted network. To first order this law is Laplace's posterior,
    so it adds to the random-init law what the data leave open. Beyond, it is wider than the posterior:
    probabilities saturate where noise moves a draw far: standard deviations of 15 points, three classes,
    are 1.03 times too large at a ridge of 10, 1.2 at 1 and 1.5 at 0.1, of some logits three times.

    The solution obeys ridge α = r(f) + ε, that is, it is the trained predictor of the initial function
    shifted by Θ(·, X) ε/ridge.

    Args:
        num_inits: how many.
        spread: factor of g and ε. As it goes to 0, the covariance over spread² goes to Laplace's.
        tolerance: on the error of each draw's logits at the training points, relative to their spread.
        factor_dtype: float32 halves time and memory of factors where there are many points; the
            residual is float64's, and meets the same tolerance.
        progress: show a progress bar.
    """

    name: ClassVar[str] = "perturbed init"
    kind: ClassVar[Kind] = Kind(
        "perturbed init",
        Sampling.PERTURBED_INITIALISATIONS,
        "trained predictors of independent initialisations from GP(m, Θ/ridge), each trained on a loss "
        "to which gradient noise was added: to first order the Laplace posterior; wider than the "
        "posterior where the prior’s logits are wide.",
    )
    num_inits: int = whole_field("num_inits", 1000, at_least=2)
    spread: float = real_field("spread", 1.0, Range.POSITIVE_FINITE)
    tolerance: float = real_field("tolerance", TOLERANCE, Range.POSITIVE_FINITE)
    factor_dtype: np.dtype = eqx.field(default=np.float64, static=True, converter=factor_dtype)
    progress: bool = False

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
        return 8 * self.num_inits  # white noise, paths, gradient noise, initial functions, α

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> SampledLaw[TrainingInfo]:
        key = self.require_key(key)
        problem.prior.require_ridge("the perturbed-init law")
        path_key, noise_key = split_key(key)
        objective = problem.objective
        centre = train(objective, problem.mean, factor_dtype=self.factor_dtype)
        g = self._process(problem).draw(path_key, self.num_inits)
        noise = gradient_noise(problem, centre, noise_key, g.values.shape, self.spread**2)
        with tqdm(total=self.num_inits, desc=self.name, disable=not self.progress) as bar:
            solver = solver_for(
                objective,
                tolerance=self.tolerance,
                factor_dtype=self.factor_dtype,
                centre=centre,
                progress=bar.update,
            )
            trained = solver.solve(
                objective, problem.mean[None] + g.values + problem.prior_gram @ noise
            )
        alpha = trained.alpha + noise / problem.ridge
        return SampledLaw(problem, self.kind, TrainingInfo.of(trained), g, alpha)

    def _process(self, problem: Problem) -> Process:
        """spread · GP(0, Θ/ridge)."""
        prior = eqx.tree_at(
            lambda prior: prior.ridge, problem.prior, problem.ridge / self.spread**2
        )
        return tangent_process(prior, problem.features, problem.gram, problem.num_outputs)
