"""Training many real networks side by side, to rest or for a training time."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from tqdm.auto import tqdm

from ntkbayes.errors import ConvergenceError
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import largest
from ntkbayes.networks import Network, Params
from ntkbayes.training.networks.state import (
    Anchor,
    Features,
    Offset,
    Targets,
    TrainingState,
    logits_of,
)
from ntkbayes.training.networks.step_size import fastest_rate
from ntkbayes.training.networks.trainer import Trainer


class Descended(NamedTuple):
    """Where training ended.

    Attributes:
        state: of the networks.
        step_size: η.
        last_move: of the logits at the training points in the second half of the steps, root mean
            square over networks, points and logits; NaN after a training time.
        worst_move: the same of the network that moved most.
    """

    state: TrainingState
    step_size: float
    last_move: float
    worst_move: float


class Descent(eqx.Module):
    """How networks are trained on all points at once.

    Args:
        network, likelihood, ridge, anchor: of the loss; see `Trainer`.
        training_time: in units of gradient flow, by plain gradient descent. Infinite: to rest, by
            Nesterov's accelerated descent.
        tolerance: of being at rest: the logits at the training points move less while the number of
            steps doubles, root mean square over networks, in units of the likelihood's scale.
        max_steps: before giving up on rest.
        progress: the title of a progress bar; None for no bar.
    """

    network: Network
    likelihood: Likelihood
    ridge: float
    anchor: Anchor
    training_time: float
    tolerance: float
    max_steps: int
    progress: str | None

    def run(
        self,
        params: Params,
        features: Features,
        targets: Targets,
        *,
        offset: Offset,
        noise: Offset | None = None,
    ) -> Descended:
        """Train from θ0.

        Args:
            params: θ0 of each network, stacked.
            features: of the training points, (n, d).
            targets: as the likelihood encodes them, (n, C).
            offset: added to the logits of each network, (K, n, C).
            noise: ε of each network, (K, n, C).

        Raises:
            ConvergenceError: the networks are not at rest.
            DivergenceError: the loss became NaN or infinite.
            ConfigurationError, RidgeError: without a ridge, training never ends.
        """
        at_rest = self.training_time == float("inf")
        if at_rest and self.ridge == 0:
            self.likelihood.interpolant(targets.astype(jnp.float64))  # an error if it is infinite
        rate = fastest_rate(
            self.network,
            params,
            features,
            self.likelihood,
            self.ridge,
            targets=targets,
            offset=offset,
        )
        if not at_rest:
            num_steps = max(200, math.ceil(5 * self.training_time * rate))  # close to gradient flow
            step_size = max(self.training_time, 1e-30) / num_steps
            trainer = Trainer(
                self.network, self.likelihood, self.ridge, step_size, anchor=self.anchor
            )
            state = trainer.start(params, targets, offset=offset, noise=noise)
            state = trainer.run(
                state, features, targets, num_steps=num_steps, progress=self.progress is not None
            )
            return Descended(state, step_size, math.nan, math.nan)
        trainer = self._accelerated(_MARGIN * rate, features.dtype)
        state = trainer.start(params, targets, offset=offset, noise=noise)
        state, *moves = self._to_rest(trainer, state, features, targets)
        return Descended(state, 1 / (_MARGIN * rate), *moves)

    def _accelerated(self, rate: float, dtype: jnp.dtype) -> Trainer:
        """Nesterov's momentum grows as that of convex problems, up to that of strongly convex ones."""
        import optax  # takes a tenth of JAX's time to import

        root = math.sqrt(self.ridge / rate)
        limit = (1 - root) / (1 + root)
        accelerated = optax.inject_hyperparams(
            optax.sgd, static_args=("nesterov",), hyperparam_dtype=dtype
        )(
            learning_rate=1 / rate,
            momentum=lambda count: jnp.minimum(count / (count + 3), limit),
            nesterov=True,
        )
        return Trainer(
            self.network, self.likelihood, self.ridge, optimizer=accelerated, anchor=self.anchor
        )

    def _to_rest(
        self, trainer: Trainer, state: TrainingState, features: Features, targets: Targets
    ) -> tuple[TrainingState, float, float]:
        """Steps until the networks are at rest, looked at whenever their number has doubled."""
        logits, chunk, move = logits_of(self.network, state.params, features), 100, math.nan
        tolerance = self.tolerance * float(self.likelihood.scale)
        hidden = self.progress is None
        with tqdm(total=self.max_steps, desc=self.progress, disable=hidden) as bar:
            while int(state.step) + chunk <= self.max_steps:
                state = trainer.advance(state, features, targets, chunk)
                before, logits = logits, logits_of(self.network, state.params, features)
                squares = jnp.mean((logits - before) ** 2, axis=(1, 2))
                move = float(jnp.sqrt(jnp.mean(squares)))
                bar.update(chunk)
                if move <= tolerance:
                    return state, move, float(jnp.sqrt(largest(squares)))
                chunk = int(state.step)
        raise ConvergenceError(
            f"the networks are not at rest after {int(state.step)} steps: logits moved by {move:.2g} in "
            f"the second half of them, above the tolerance {tolerance:g}; use more max_steps, a larger "
            "ridge or tolerance, or a training_time"
        )


_MARGIN = 2.0  # momentum is stable while the NTK grows by less than about that
