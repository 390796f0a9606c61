"""Training for some epochs, or until the loss on validation points has stopped falling."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.likelihood import Likelihood
from ntkbayes.networks import Network, Params
from ntkbayes.training.networks.checkpoints import load_checkpoint, save_checkpoint
from ntkbayes.training.networks.state import Features, Offset, Targets, TrainingState, logits_of
from ntkbayes.training.networks.trainer import Trainer


class Points(NamedTuple):
    """Points of training or validation: features, encoded targets, and what is added to the logits."""

    features: Features
    targets: Targets
    offset: Offset


class Stopped(NamedTuple):
    """A trained network, at its best epoch.

    Attributes:
        state: with its parameters, stacked along an axis of length one.
        epoch: the best one; the last without validation.
        training_loss, validation_loss: mean negative log density there, in nats per point; the latter
            NaN without validation.
    """

    state: TrainingState
    epoch: int
    training_loss: float
    validation_loss: float


class EarlyStopping(eqx.Module):
    """Train one network, and keep it as it was after its best epoch.

    Args:
        trainer: with mini-batches.
        num_epochs: at most; an epoch passes over all training points, less an incomplete batch.
        patience: epochs in a row without a lower validation loss after which training ends.
    """

    trainer: Trainer
    num_epochs: int = eqx.field(static=True)
    patience: int = eqx.field(static=True)

    def run(
        self,
        state: TrainingState,
        train: Points,
        validation: Points | None,
        *,
        checkpoint: Path | None = None,
        tell: Callable[[int, float], object] = lambda epoch, loss: None,
    ) -> Stopped:
        """Train from the start of `Trainer.start`.

        Args:
            validation: None to take the last epoch.
            checkpoint: a file for the trained network; one that is there already is not trained again.
            tell: called after each epoch with its number, and the loss that it is judged by.

        Raises:
            DivergenceError: the loss became NaN or infinite.
            StorageError: the file is broken, or of another network, other data or settings.
        """
        mark = self._mark(state, train, validation)
        if checkpoint is not None and checkpoint.exists():
            best = load_checkpoint(checkpoint, state, mark)
        else:
            best = self._best(state, train, validation, tell)
            if checkpoint is not None:
                save_checkpoint(checkpoint, best, mark)
        epoch = int(best.step) // self._steps(train)
        held_out = float("nan") if validation is None else self._loss(best, validation)
        return Stopped(best, epoch, self._loss(best, train), held_out)

    def _best(
        self,
        state: TrainingState,
        train: Points,
        validation: Points | None,
        tell: Callable[[int, float], object],
    ) -> TrainingState:
        judged_by = train if validation is None else validation
        best, lowest, since = state, float("inf"), 0
        for epoch in range(1, self.num_epochs + 1):
            state = self.trainer.advance(state, train.features, train.targets, self._steps(train))
            loss = self._loss(state, judged_by)
            tell(epoch, loss)
            if validation is None or loss < lowest:
                best, lowest, since = state, loss, 0
            else:
                since += 1
            if since >= self.patience:
                break
        return best

    def _steps(self, train: Points) -> int:
        """Per epoch."""
        batch = self.trainer.batch_size
        return 1 if batch is None else len(train.targets) // batch

    def _loss(self, state: TrainingState, points: Points) -> float:
        trainer = self.trainer
        return float(_mean_loss(trainer.network, trainer.likelihood, state.params, points))

    def _mark(self, state: TrainingState, train: Points, validation: Points | None) -> str:
        settings = json.loads(self.trainer.fingerprint(state, train.features, train.targets))
        settings |= {"epochs": self.num_epochs}
        if validation is not None:
            settings |= {"patience": self.patience, "validation points": len(validation.targets)}
        return json.dumps(settings, indent=2)


@eqx.filter_jit
def _mean_loss(
    network: Network, likelihood: Likelihood, params: Params, points: Points
) -> Float[Array, ""]:
    dtype = jax.tree.leaves(params)[0].dtype
    logits = logits_of(network, params, points.features.astype(dtype))[0]
    density = likelihood.untempered.log_density(points.targets, logits + points.offset[0])
    return -jnp.mean(density)
