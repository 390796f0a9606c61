"""Training of real networks by gradient descent on the loss (1) of THEORY:

    L(θ) = −Σ_i [log p(y_i | f_i) + ⟨ε_i, f_i⟩] + ridge/2 ‖θ − θ0‖²,   f_i = f(x_i; θ) + offset_i

summed over the data; by default without offset and gradient noise ε. With the anchor at zero the ridge
is weight decay, ridge/2 ‖θ‖². K networks, one per initialisation, train in parallel, with parameters
stacked along a leading axis. The precision is that of parameters and features. Step sizes are in the
units of gradient flow dθ/dt = −∇L: k steps of size η are a training time of η k.

Shapes: K networks, n points, C logits.
"""

import json
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm.auto import tqdm

from ntkbayes.arguments import random_key
from ntkbayes.description import describe
from ntkbayes.errors import ConfigurationError, DivergenceError, StorageError
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import nan_is_an_answer
from ntkbayes.networks import Network, Params, require_sound
from ntkbayes.networks.programs import channels_last
from ntkbayes.training.networks.checkpoints import (
    digest_of_arrays,
    digest_of_program,
    load_checkpoint,
    save_checkpoint,
)
from ntkbayes.training.networks.state import (
    Anchor,
    Features,
    Offset,
    Optimizer,
    Targets,
    TrainingState,
)
from ntkbayes.training.networks.step_size import largest_eigenvalue


def _number(value: float | Array | None) -> Array | None:
    return None if value is None else jnp.asarray(value, dtype=float)


class Trainer(eqx.Module):
    """How networks are trained: by gradient descent on

        L(θ) = −Σ_i [log p(y_i | f_i) + ⟨ε_i, f_i⟩] + ridge/2 ‖θ − θ0‖²,   f_i = f(x_i; θ) + offset_i,

    without offset and gradient noise ε unless they are given.

    Args:
        network: any network.
        likelihood: p(y | f).
        ridge: weight of ½‖θ − θ0‖², ≥ 0.
        anchor: where the ridge pulls: "init", to θ0, or "zero", which is weight decay, ½‖θ‖².
        step_size: η of plain gradient descent, see `stable_step_size`.
        optimizer: an optax optimiser instead, with its own step size.
        batch_size: points per step; None for all. The gradient of a batch, scaled by n / batch_size, is
            an unbiased estimate of the full gradient.

    Raises:
        ConfigurationError: a setting is outside its range, or neither or both of step_size and
            optimizer are given; an anchor at zero without a ridge.
        UnknownNameError: there is no such anchor.
    """

    # Numbers are arrays, so that new values do not recompile.
    network: Network
    likelihood: Likelihood
    ridge: Float[Array, ""] | float = eqx.field(converter=_number)
    step_size: Float[Array, ""] | float | None = eqx.field(converter=_number, default=None)
    optimizer: Optimizer | None = eqx.field(static=True, default=None)
    batch_size: int | None = eqx.field(static=True, default=None)
    anchor: Anchor | str = eqx.field(static=True, default=Anchor.INIT, converter=Anchor.named)

    def __check_init__(self) -> None:
        if not 0 <= float(self.ridge) < float("inf"):
            raise ConfigurationError(
                f"the ridge must be at least 0 and finite; got {float(self.ridge)}"
            )
        require_pull(float(self.ridge), self.anchor)
        if (self.step_size is None) == (self.optimizer is None):
            raise ConfigurationError("give either a step_size or an optimizer")
        if self.step_size is not None and not 0 < float(self.step_size) < float("inf"):
            raise ConfigurationError(
                f"the step size must be positive and finite; got {float(self.step_size)}"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1; got {self.batch_size!r}")

    def start(
        self,
        params: Params,
        targets: Targets,
        *,
        offset: Offset | None = None,
        noise: Offset | None = None,
        key: PRNGKeyArray | None = None,
    ) -> TrainingState:
        """The state before the first step.

        Args:
            params: θ0 of each network, stacked.
            targets: as the likelihood encodes them.
            offset: added to the logits at the training points, e.g. from `shift`.
            noise: ε, of gradient noise.
            key: for the mini-batches.

        Raises:
            ConfigurationError: mini-batches without a key, or larger than the data.
        """
        count = jax.tree.leaves(params)[0].shape[0]
        if self.batch_size is not None and key is None:
            raise ConfigurationError("mini-batches are random: give key=jax.random.key(0)")
        if self.batch_size is not None and self.batch_size > len(targets):
            raise ConfigurationError(
                f"batch_size is {self.batch_size}, but there are {len(targets)} points"
            )
        params = jax.tree.map(jnp.asarray, params)
        zeros = jnp.zeros((count, *targets.shape), targets.dtype)
        offset, noise = (zeros if given is None else given for given in (offset, noise))
        own = None if self.optimizer is None else jax.vmap(self.optimizer.init)(params)
        key = jax.random.key(0) if key is None else random_key(key)
        return TrainingState(params, params, offset, noise, own, key, jnp.zeros((), int))

    def advance(
        self, state: TrainingState, features: Features, targets: Targets, num_steps: int
    ) -> TrainingState:
        """The state after `num_steps` more steps; a new number does not recompile.

        Features and targets are cast to the precision of the parameters.

        Raises:
            DivergenceError: the loss became NaN or infinite; the error has the step, and the state
                passed in.
        """
        with nan_is_an_answer():
            end, failed = _advance(self, jnp.asarray(num_steps), state, features, targets)
        step = int(failed)
        if step >= 0:
            size = "" if self.step_size is None else f" than {float(self.step_size):g}"
            raise DivergenceError(
                f"the loss is no longer finite at step {step}: use a smaller step size{size} "
                "(see `stable_step_size`), or float64 parameters",
                step=step,
                state=state,
            )
        return end

    def run(
        self,
        state: TrainingState,
        features: Features,
        targets: Targets,
        *,
        num_steps: int,
        checkpoint: str | Path | None = None,
        every: int = 1000,
        progress: bool = False,
    ) -> TrainingState:
        """The state after `num_steps` steps in total, resumed from a checkpoint if there is one.

        Args:
            state: from `start`.
            checkpoint: file for the state. An interrupted run, called again with the same arguments,
                ends with the same parameters.
            every: steps between checkpoints, and between updates of the progress bar.
            progress: show a progress bar.

        Raises:
            ConfigurationError: the network, parameters and features do not fit together, or
                the step size makes gradient descent diverge.
            DivergenceError: the loss became NaN or infinite.
            StorageError: the checkpoint is broken, or of another network, other data or settings.
        """
        one = jax.tree.map(lambda leaf: leaf[0], state.params)
        require_sound(self.network, one, features)
        path = None if checkpoint is None else Path(checkpoint)
        mark = "" if path is None else self.fingerprint(state, features, targets)
        if path is not None and path.exists():
            state = load_checkpoint(path, state, mark)
        elif path is not None:
            save_checkpoint(path, state, mark)  # fails now if the folder cannot be written to
        if int(state.step) > num_steps:
            raise StorageError(
                f"{path} has taken {int(state.step)} steps already, more than num_steps = {num_steps}; "
                "choose another file"
            )
        if self.step_size is not None and int(state.step) == 0:
            self._require_stable(float(self.step_size), state, features)
        with tqdm(
            total=num_steps, initial=int(state.step), desc="training", disable=not progress
        ) as bar:
            while int(state.step) < num_steps:
                count = min(every, num_steps - int(state.step))
                state = self.advance(state, features, targets, count)
                if path is not None:
                    save_checkpoint(path, state, mark)
                bar.update(count)
        return state

    def loss(
        self,
        params: Params,
        initial: Params,
        offset: Float[Array, "n classes"],
        features: Features,
        targets: Targets,
        noise: Float[Array, "n classes"] | float = 0.0,
    ) -> Float[Array, ""]:
        """The loss L of one network, in nats.

        Args:
            params: θ.
            initial: θ0.
            offset: added to the logits, (n, C).
            features: of the training points, (n, d).
            targets: as the likelihood encodes them, (n, C).
            noise: ε, (n, C).
        """
        return _loss(self, 1.0, params, initial, offset, noise, features, targets)

    def _require_stable(self, step_size: float, state: TrainingState, features: Features) -> None:
        bound = self.likelihood.curvature_bound
        if math.isinf(bound):
            return  # stability depends on the logits; divergence raises an error
        ridge = float(self.ridge)
        largest = largest_eigenvalue(self.network, state.params, features)
        limit = 2 / (bound * largest + ridge)
        if step_size > limit:
            raise ConfigurationError(
                f"a step size of {step_size:g} may make gradient descent diverge: with the NTK's "
                f"largest eigenvalue {largest:.4g} and ridge {ridge:g} the limit is {limit:.3g}. Use "
                "`stable_step_size`, or a smaller ridge"
            )

    def fingerprint(self, state: TrainingState, features: Features, targets: Targets) -> str:
        """What a checkpoint must match, as JSON."""
        named = jax.tree_util.tree_flatten_with_path(state.initial)[0]
        one = jax.tree.map(lambda leaf: leaf[0], state.initial)
        update = None
        if self.optimizer is not None:
            update = digest_of_program(self.optimizer.update, one, self.optimizer.init(one), one)
        return json.dumps(
            {
                "network": digest_of_program(self.network.apply, one, features[:1]),
                "parameters": [
                    f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}"
                    for path, leaf in named
                ],
                "initialisation": digest_of_arrays(*(leaf for _, leaf in named)),
                "data": digest_of_arrays(features, targets, state.offset, state.noise),
                "likelihood": describe(self.likelihood),
                "ridge": float(self.ridge),
                "anchor": str(self.anchor),
                "step size": None if self.step_size is None else float(self.step_size),
                "optimiser": update,
                "batch size": self.batch_size,
                "key": f"{jax.random.key_impl(state.key)} {jax.random.key_data(state.key).tolist()}",
            },
            indent=2,
        )


def require_pull(ridge: float, anchor: Anchor | str) -> None:
    """Raises ConfigurationError for an anchor at zero that no ridge pulls to."""
    if ridge == 0 and anchor != Anchor.INIT:
        raise ConfigurationError(
            f"anchor={str(anchor)!r} is where the ridge pulls, and the ridge is 0: give a ridge > 0, or "
            "leave the anchor out"
        )


def _loss(
    trainer: Trainer,
    weight: float,
    params: Params,
    initial: Params,
    offset: Float[Array, "n classes"],
    noise: Float[Array, "n classes"] | float,
    features: Features,
    targets: Targets,
) -> Float[Array, ""]:
    """`weight` times the loss of the points, plus the ridge term."""
    logits = trainer.network.apply(params, features) + offset
    fit = jnp.sum(trainer.likelihood.log_density(targets, logits)) + jnp.sum(noise * logits)
    pulled = jax.tree.leaves(Anchor(trainer.anchor).pull(params, initial))
    squares = sum(jnp.sum(leaf**2) for leaf in pulled)
    return jnp.asarray(trainer.ridge, fit.dtype) / 2 * squares - weight * fit


@eqx.filter_jit
def _advance(
    trainer: Trainer,
    num_steps: Int[Array, ""],
    state: TrainingState,
    features: Features,
    targets: Targets,
) -> tuple[TrainingState, Int[Array, ""]]:
    size, batch = len(targets), trainer.batch_size
    dtype = jax.tree.leaves(state.params)[0].dtype
    features, targets = features.astype(dtype), targets.astype(dtype)
    given = (state.offset.astype(dtype), state.noise.astype(dtype))
    state = eqx.tree_at(lambda s: (s.offset, s.noise), state, given)

    def slopes(state: TrainingState) -> tuple[Float[Array, " networks"], Params]:
        x, y, weight, offset, noise = features, targets, 1.0, state.offset, state.noise
        if batch is not None:
            chosen = _batch(state.key, state.step, size, batch)
            x, y, weight = x[chosen], y[chosen], size / batch
            offset, noise = offset[:, chosen], noise[:, chosen]

        def member(p: Params, p0: Params, o: Array, e: Array) -> tuple[Array, Params]:
            return jax.value_and_grad(lambda p: _loss(trainer, weight, p, p0, o, e, x, y))(p)

        return channels_last(jax.vmap(member))(state.params, state.initial, offset, noise)

    def update(carry: tuple) -> tuple:
        state, _, done = carry
        loss, gradients = slopes(state)
        own = state.optimizer
        if trainer.optimizer is None:
            assert trainer.step_size is not None
            step_size = trainer.step_size
            params = jax.tree.map(
                lambda p, g: p - jnp.asarray(step_size, p.dtype) * g, state.params, gradients
            )
        else:
            updates, own = jax.vmap(trainer.optimizer.update)(gradients, own, state.params)
            params = jax.tree.map(jnp.add, state.params, updates)
        failed = jnp.where(jnp.all(jnp.isfinite(loss)), -1, state.step)
        given = (state.initial, state.offset, state.noise)
        moved = TrainingState(params, *given, own, state.key, state.step + 1)
        return moved, failed, done + 1

    def unfinished(carry: tuple) -> Array:
        _, failed, done = carry
        return (failed < 0) & (done < num_steps)

    start = (state, jnp.full((), -1, state.step.dtype), jnp.zeros((), num_steps.dtype))
    end, failed, _ = jax.lax.while_loop(unfinished, update, start)
    last, _ = slopes(end)
    return end, jnp.where((failed < 0) & ~jnp.all(jnp.isfinite(last)), end.step, failed)


def _batch(key: Array, step: Array, size: int, batch: int) -> Int[Array, " batch"]:
    """The points of a step: each epoch is a random order of all points, without the incomplete batch."""
    per_epoch = size // batch
    order = jax.random.permutation(jax.random.fold_in(key, step // per_epoch), size)
    return jax.lax.dynamic_slice_in_dim(order, step % per_epoch * batch, batch)
