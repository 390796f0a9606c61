"""Training of real networks by gradient descent."""

from ntkbayes.training.networks.state import TrainingState, logits_of, shift
from ntkbayes.training.networks.step_size import fastest_rate, largest_eigenvalue, stable_step_size
from ntkbayes.training.networks.trainer import Trainer

__all__ = [
    "Trainer",
    "TrainingState",
    "fastest_rate",
    "largest_eigenvalue",
    "logits_of",
    "shift",
    "stable_step_size",
]
