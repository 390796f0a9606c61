"""The law of networks that are trained as they mostly are."""

import os
import warnings
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Int, PRNGKeyArray
from tqdm.auto import tqdm

from ntkbayes.datasets import strata
from ntkbayes.display import few
from ntkbayes.errors import ConfigurationError, DataWarning, DivergenceError
from ntkbayes.files import make_folder
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.sampled.network_ensemble import (
    TrainedFunctions,
    TrainedNetworks,
    initial_networks,
    law_of_networks,
)
from ntkbayes.networks import Network, Params
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.networks import Anchor, Trainer, require_pull
from ntkbayes.training.networks.early_stopping import EarlyStopping, Points, Stopped
from ntkbayes.training.networks.state import Optimizer
from ntkbayes.training.operations import Size


class DeepEnsembleInfo(Info):
    """Of the networks that were kept.

    Attributes:
        num_networks: how many.
        best_epoch: mean over networks of the epoch that was kept.
        training_loss: mean over networks of the negative log density at their training points, in nats
            per point.
        validation_loss: the same at their validation points; NaN without any.
    """

    num_networks: int
    best_epoch: float
    training_loss: float
    validation_loss: float


class DeepEnsemble(Method[TrainedNetworks[DeepEnsembleInfo]]):
    """Train networks by mini-batches and an optimiser, each from its own initialisation, until the loss
    on validation points has stopped falling (Lakshminarayanan et al. 2017).

    f(x) = mean(x) + network(x; θ), on the loss whose ridge is the prior's. Training stops
    before it has come to rest, as in practice, and unlike `FiniteEnsemble`. Networks are trained one
    after the other; their number changes none of them.

    Args:
        network: with as many outputs as the likelihood takes logits.
        num_networks: how many are trained.
        optimizer: any of optax, with its schedule, for the gradient of the loss per point; by default
            Adam with a learning rate of 0.003.
        batch_size: points per step; by default 32, or all of fewer.
        num_epochs: passes over the training points, at most.
        validation_share: of the training points, held out to choose the epoch; every class keeps a point
            to be trained on. 0 to train for all epochs on all points.
        patience: epochs in a row without a lower validation loss after which training ends.
        anchor: where the ridge pulls: "init", to θ0, or "zero", which is weight decay, ½‖θ‖².
        dtype: precision of the training.
        folder: for the trained networks, one file per network: an interrupted fit, run again with the
            same arguments, trains those that are missing.
        progress: show a bar with the number of networks done and the loss of the present one.
    """

    name: ClassVar[str] = "deep ensemble"
    kind: ClassVar[Kind] = Kind(
        "deep ensemble",
        Sampling.INITIALISATIONS,
        "real networks, each trained from its own initialisation by mini-batches and an optimiser, and "
        "stopped where its loss on validation points was lowest.",
    )
    network: Network
    num_networks: int = whole_field("num_networks", 8, at_least=2)
    optimizer: Optimizer | None = eqx.field(static=True, default=None)
    batch_size: int | None = eqx.field(static=True, default=None)
    num_epochs: int = whole_field("num_epochs", 200)
    validation_share: float = real_field("validation_share", 0.1, Range.CLOSED_UNIT)
    patience: int = whole_field("patience", 20)
    anchor: Anchor | str = eqx.field(static=True, default=Anchor.INIT, converter=Anchor.named)
    dtype: DTypeLike = eqx.field(static=True, default=jnp.float32)
    folder: str | os.PathLike | None = eqx.field(static=True, default=None)
    progress: bool = False

    def operations(self, size: Size) -> dict[str, float]:
        return {}  # what a network costs is its own

    def interpolates(self, prior: NTKPrior) -> bool:
        return False  # it stops before

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None
    ) -> TrainedNetworks[DeepEnsembleInfo]:
        require_pull(problem.ridge, self.anchor)
        split_key, init_key, batch_key = jax.random.split(self.require_key(key), 3)
        params = initial_networks(self.network, problem, init_key, self.num_networks, self.dtype)
        train, validation = self._split(problem, split_key)
        if self.folder is not None:
            make_folder(Path(self.folder))
        stopping = self._stopping(problem, len(train.targets))
        kept: dict[int, Stopped] = {}
        lost: list[int] = []
        with tqdm(total=self.num_networks, desc=self.name, disable=not self.progress) as bar:
            for member in range(self.num_networks):
                one = jax.tree.map(lambda leaf, i=member: leaf[i : i + 1], params)
                state = stopping.trainer.start(
                    one,
                    train.targets,
                    offset=train.offset,
                    key=jax.random.fold_in(batch_key, member),
                )
                try:
                    kept[member] = stopping.run(
                        state,
                        train,
                        validation,
                        checkpoint=self._file(member),
                        tell=lambda epoch, loss: bar.set_postfix(epoch=epoch, loss=f"{loss:.4g}"),
                    )
                except DivergenceError as error:
                    lost.append(member)
                    reason = error
                bar.update()
        if len(kept) < 2:
            raise DivergenceError(
                f"of {self.num_networks} networks {len(kept)} kept a finite loss: {reason}"
            )
        if lost:
            warnings.warn(
                f"networks {few(lost)} diverged, and are left out: {len(kept)} of {self.num_networks} "
                "are kept",
                DataWarning,
                stacklevel=3,
            )
        return self._law(problem, list(kept.values()))

    def _law(self, problem: Problem, found: list[Stopped]) -> TrainedNetworks[DeepEnsembleInfo]:
        params: Params = jax.tree.map(
            lambda *leaves: jnp.concatenate(leaves), *(one.state.params for one in found)
        )
        epochs, training, validation = (
            float(np.mean([getattr(one, name) for one in found]))
            for name in ("epoch", "training_loss", "validation_loss")
        )
        info = DeepEnsembleInfo(len(found), epochs, training, validation)
        return law_of_networks(problem, self.kind, info, TrainedFunctions(self.network, params))

    def _stopping(self, problem: Problem, num_points: int) -> EarlyStopping:
        import optax  # which takes long

        optimizer = optax.adam(3e-3) if self.optimizer is None else self.optimizer
        trainer = Trainer(
            self.network,
            problem.likelihood,
            ridge=problem.ridge,
            optimizer=optax.chain(optax.scale(1 / num_points), optimizer),
            batch_size=min(32, num_points) if self.batch_size is None else self.batch_size,
            anchor=self.anchor,
        )
        return EarlyStopping(trainer, self.num_epochs, self.patience)

    def _split(self, problem: Problem, key: PRNGKeyArray) -> tuple[Points, Points | None]:
        """Training and validation points."""
        held_out = _validation(problem, key, self.validation_share)

        def of(rows: Int[np.ndarray, " k"]) -> Points:
            x, y, mean = (v[rows] for v in (problem.features, problem.targets, problem.mean))
            return Points(x, y, mean[None])

        train = of(np.flatnonzero(~held_out))
        return train, of(np.flatnonzero(held_out)) if held_out.any() else None

    def _file(self, member: int) -> Path | None:
        if self.folder is None:
            return None
        return Path(self.folder) / f"network-{member}.npz"


def _validation(problem: Problem, key: PRNGKeyArray, share: float) -> np.ndarray:
    """A mask of points, a share of each class.

    Raises:
        ConfigurationError: a share that leaves no point for training, or none for validation.
    """
    targets = np.asarray(problem.targets)
    classes = np.zeros(len(targets), int)
    if problem.class_names is not None:
        classes = targets.argmax(1) if targets.shape[1] > 1 else np.rint(targets[:, 0]).astype(int)
    _, classes, counts = np.unique(classes, return_inverse=True, return_counts=True)
    wanted = round(share * len(targets))
    sizes = np.minimum(strata.apportion(share * counts, wanted), counts - 1)
    if share and not sizes.sum():
        raise ConfigurationError(
            f"validation_share={share:g} of {len(targets)} points holds out none, if every class is to "
            "keep one; give a larger share, or 0 to train for all epochs"
        )
    return strata.draw(key, classes, sizes)
