"""Training of real networks by gradient descent."""

from ntkbayes.training.networks.descent import Descended, Descent
from ntkbayes.training.networks.state import Anchor, TrainingState, logits_of, shift
from ntkbayes.training.networks.step_size import fastest_rate, largest_eigenvalue, stable_step_size
from ntkbayes.training.networks.trainer import Trainer, require_pull

__all__ = [
    "Anchor",
    "Descended",
    "Descent",
    "Trainer",
    "TrainingState",
    "fastest_rate",
    "largest_eigenvalue",
    "logits_of",
    "require_pull",
    "shift",
    "stable_step_size",
]
