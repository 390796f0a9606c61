"""The noise that stands for that of the data (THEORY 6)."""

import jax
from jaxtyping import PRNGKeyArray

from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import Draws, white_noise
from ntkbayes.training.objective import TrainedPredictor


def gradient_noise(
    problem: Problem,
    centre: TrainedPredictor,
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    factor: float,
) -> Draws:
    """Draws of ε ~ N(0, factor · W), with W the curvature at a trained predictor.

    Args:
        shape: of the draws, (S, n, C).
    """
    white = white_noise(key, shape)
    root = problem.objective.curvature(centre.logits).root_matvec
    return factor**0.5 * jax.vmap(root)(white)
