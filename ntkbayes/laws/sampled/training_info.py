"""Diagnostics of many trained predictors."""

import numpy as np

from ntkbayes.laws.info import Info
from ntkbayes.training.objective import TrainedPredictors


class TrainingInfo(Info):
    """Of many trained predictors.

    Attributes:
        worst_residual: the largest max |ridge α − r(f*)| of all draws, in units of probability (at a
            finite training time: the largest |dα/dt|, which need not be small).
        worst_logit_error: bound on the error of any draw's logits at the training points; NaN at a
            finite training time.
        mean_iterations: steps of conjugate gradients (or of the ODE) per draw.
        max_iterations: the most of any draw.
    """

    worst_residual: float
    worst_logit_error: float
    mean_iterations: float
    max_iterations: int

    @classmethod
    def of(cls, trained: TrainedPredictors) -> "TrainingInfo":
        """Of many draws."""
        counts = np.asarray(trained.num_iterations)
        worst, error = (np.asarray(v).max().item() for v in (trained.residual, trained.logit_error))
        return cls(worst, error, float(counts.mean()), int(counts.max()))
