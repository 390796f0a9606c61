"""Training of real networks by gradient descent on the loss (1) of THEORY:

    L(θ) = −Σ_i log p(y_i | f(x_i; θ) + offset_i) + ridge/2 ‖θ − θ0‖²

summed over the data. K networks, one an initialisation, train side by side; their parameters are
stacked along a leading axis. The precision is that of the parameters and features, and step
sizes are in units in which gradient flow is dθ/dt = −∇L: k steps of size η are a training time η k.

Shapes: K networks, n points, C logits.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped
from tqdm.auto import tqdm

from ntkbayes.description import describe
from ntkbayes.errors import ConfigurationError, DivergenceError, StorageError
from ntkbayes.files import load_arrays, save_arrays
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import largest, nan_is_an_answer
from ntkbayes.networks import Network, Params, require_sound

Offset = Float[Array, "networks n classes"]
Features = Float[Array, "n ..."]
Targets = Float[Array, "n classes"]


@runtime_checkable
class Optimizer(Protocol):
    """An optax `GradientTransformation`."""

    init: Callable
    update: Callable


class State(eqx.Module):
    """Where the training of K networks stands.

    Attributes:
        params: θ of each, stacked.
        anchors: θ0 of each, which the ridge pulls towards.
        offset: what is added to the logits at the training points.
        optimizer: the optimiser's own state, None for plain gradient descent.
        key: of the mini-batches.
        step: steps taken.
    """

    params: Params
    anchors: Params
    offset: Offset
    optimizer: Any
    key: Shaped[Array, "..."]
    step: Int[Array, ""]


def _number(value: float | Array | None) -> Array | None:
    return None if value is None else jnp.asarray(value, dtype=float)


class Trainer(eqx.Module):
    """How networks are trained.

    Args:
        network: any network.
        likelihood: how logits give rise to targets.
        ridge: weight of ½‖θ − θ0‖², ≥ 0.
        step_size: η of plain gradient descent, see `stable_step_size`.
        optimizer: an optax optimiser instead, which has its own step size.
        batch_size: points a step; None for all. The gradient of a batch, scaled by n / batch_size,
            is an unbiased estimate of the whole.

    Raises:
        ConfigurationError: a setting is outside its range, or neither or both of step_size and
            optimizer are given.
    """

    # Numbers are arrays, so that one compilation serves all their values.
    network: Network
    likelihood: Likelihood
    ridge: Float[Array, ""] | float = eqx.field(converter=_number)
    step_size: Float[Array, ""] | float | None = eqx.field(converter=_number, default=None)
    optimizer: Optimizer | None = eqx.field(static=True, default=None)
    batch_size: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if not 0 <= float(self.ridge) < float("inf"):
            raise ConfigurationError(
                f"the ridge must be at least 0 and finite; got {float(self.ridge)}"
            )
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
        key: PRNGKeyArray | None = None,
    ) -> State:
        """The state before the first step.

        Args:
            params: θ0 of each network, stacked.
            targets: as the likelihood encodes them.
            offset: added to the logits at the training points, such as that of `shift`.
            key: of the mini-batches.

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
        if offset is None:
            offset = jnp.zeros((count, *targets.shape), targets.dtype)
        own = None if self.optimizer is None else jax.vmap(self.optimizer.init)(params)
        key = jax.random.key(0) if key is None else key
        return State(params, params, offset, own, key, jnp.zeros((), int))

    def advance(self, state: State, features: Features, targets: Targets, num_steps: int) -> State:
        """The state after more steps, compiled once for all numbers of them.

        Features and targets are taken in the precision of the parameters.

        Raises:
            DivergenceError: the loss became NaN or infinite; says at which step, and carries the
                state given.
        """
        with nan_is_an_answer():
            end, failed = _advance(self, jnp.asarray(num_steps), state, features, targets)
        step = int(failed)
        if step >= 0:
            size = "" if self.step_size is None else f" than {float(self.step_size):g}"
            raise DivergenceError(
                f"the loss is not finite any more at step {step}: use a smaller step size{size} "
                "(see `stable_step_size`), or float64 parameters",
                step=step,
                state=state,
            )
        return end

    def run(
        self,
        state: State,
        features: Features,
        targets: Targets,
        *,
        num_steps: int,
        checkpoint: str | Path | None = None,
        every: int = 1000,
        progress: bool = False,
    ) -> State:
        """The state after `num_steps` steps in all, going on from a checkpoint if there is one.

        Args:
            state: from `start`.
            checkpoint: file that holds the state, written every so many steps. A run that was
                interrupted, called again with the same arguments, ends with the same parameters.
            every: steps between checkpoints, and between updates of the progress bar.
            progress: show a progress bar.

        Raises:
            ConfigurationError: the network, parameters and features do not fit together, or
                the step size makes gradient descent diverge.
            DivergenceError: the loss became NaN or infinite.
            StorageError: the checkpoint is of another network, of other data or settings, or broken.
        """
        one = jax.tree.map(lambda leaf: leaf[0], state.params)
        require_sound(self.network, one, features)
        path = None if checkpoint is None else Path(checkpoint)
        mark = "" if path is None else self._fingerprint(state, features, targets)
        if path is not None and path.exists():
            state = _load(path, state, mark)
        elif path is not None:
            _save(path, state, mark)  # so that a folder that cannot be written to is found at once
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
                    _save(path, state, mark)
                bar.update(count)
        return state

    def loss(
        self,
        params: Params,
        anchor: Params,
        offset: Float[Array, "n classes"],
        features: Features,
        targets: Targets,
    ) -> Float[Array, ""]:
        """(1) for one network, in nats."""
        return _loss(self, 1.0, params, anchor, offset, features, targets)

    def _require_stable(self, step_size: float, state: State, features: Features) -> None:
        largest = largest_eigenvalue(self.network, state.anchors, features)
        ridge = float(self.ridge)
        if math.isinf(self.likelihood.curvature_bound):
            return  # what is stable depends on the logits; if it diverges, that is said
        limit = 2 / fastest_rate(self.likelihood, largest, ridge)
        if step_size > limit:
            raise ConfigurationError(
                f"a step size of {step_size:g} may make gradient descent diverge: with the NTK's "
                f"largest eigenvalue {largest:.4g} and ridge {ridge:g} the limit is {limit:.3g}. Use "
                "`stable_step_size`, or a smaller ridge"
            )

    def _fingerprint(self, state: State, features: Features, targets: Targets) -> str:
        """What a checkpoint must agree with, as JSON."""
        named = jax.tree_util.tree_flatten_with_path(state.anchors)[0]
        one = jax.tree.map(lambda leaf: leaf[0], state.anchors)
        update = None
        if self.optimizer is not None:
            update = _program(self.optimizer.update, one, self.optimizer.init(one), one)
        return json.dumps(
            {
                "network": _program(self.network.apply, one, features[:1]),
                "parameters": [
                    f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}"
                    for path, leaf in named
                ],
                "initialisation": _digest(*(leaf for _, leaf in named)),
                "data": _digest(features, targets, state.offset),
                "likelihood": describe(self.likelihood),
                "ridge": float(self.ridge),
                "step size": None if self.step_size is None else float(self.step_size),
                "optimiser": update,
                "batch size": self.batch_size,
                "key": f"{jax.random.key_impl(state.key)} {jax.random.key_data(state.key).tolist()}",
            },
            indent=2,
        )


@eqx.filter_jit
def logits_of(
    network: Network, params: Params, features: Features
) -> Float[Array, "networks n classes"]:
    """f(x; θ) of each of several networks, their parameters stacked along a leading axis."""
    return jax.vmap(lambda p: network.apply(p, features))(params)


def shift(
    network: Network,
    params: Params,
    features: Features,
    mean: Float[Array, "n classes"] | float = 0.0,
) -> Offset:
    """m − f(x; θ0) of each network: the offset of the shifted network f − f0 + m, at any inputs."""
    initial = logits_of(network, params, features)
    return jnp.broadcast_to(jnp.asarray(mean, initial.dtype), initial.shape) - initial


# --- step size -----------------------------------------------------------------------------------


def largest_eigenvalue(
    network: Network, params: Params, features: Features, *, num_products: int = 40
) -> float:
    """λ_max of the NTK at the points, the largest of all networks, by power iteration with J Jᵀ.

    A lower bound, mostly to a few parts in a thousand.
    """
    return float(largest(_power_iteration(network, params, features, num_products)))


@eqx.filter_jit
def _power_iteration(
    network: Network, params: Params, features: Features, num_products: int
) -> Float[Array, " networks"]:
    def member(params: Params) -> Float[Array, ""]:
        logits, push = jax.linearize(lambda p: network.apply(p, features), params)
        pull = jax.linear_transpose(push, params)
        start = jax.random.normal(jax.random.key(0), logits.shape, logits.dtype)

        def product(_: Int[Array, ""], carry: tuple) -> tuple:
            v, _ = carry
            moved = push(pull(v / jnp.linalg.norm(v))[0])
            return moved, jnp.linalg.norm(moved)

        zero = jnp.zeros((), logits.dtype)
        return jax.lax.fori_loop(0, num_products, product, (start, zero))[1]

    return jax.lax.map(member, params)


def stable_step_size(
    network: Network, params: Params, features: Features, likelihood: Likelihood, ridge: float
) -> float:
    """η = 1 / (κ λ_max + ridge), half the largest step at which gradient descent is stable.

    κ bounds the likelihood's curvature and λ_max is the largest eigenvalue of the NTK at the points,
    over all networks: in the lazy regime the Hessian of the loss is at most κ λ_max + ridge, and
    gradient descent is stable below 2 over that. The factor leaves room for the NTK to grow.

    Raises:
        ConfigurationError: the likelihood's curvature has no bound (Poisson).
    """
    return 1 / fastest_rate(likelihood, largest_eigenvalue(network, params, features), ridge)


def fastest_rate(likelihood: Likelihood, largest: float, ridge: float) -> float:
    """κ λ_max + ridge, which bounds the Hessian of the loss in the lazy regime.

    Raises:
        ConfigurationError: the likelihood's curvature has no bound (Poisson).
    """
    bound = likelihood.curvature_bound
    if math.isinf(bound):
        raise ConfigurationError(
            f"the curvature of {type(likelihood).__name__} has no bound, so no step size is stable "
            "at all logits: choose one yourself, Trainer(..., step_size=1e-3), smaller if it diverges"
        )
    return bound * largest + ridge


# --- steps ---------------------------------------------------------------------------------------


def _loss(
    trainer: Trainer,
    weight: float,
    params: Params,
    anchor: Params,
    offset: Float[Array, "n classes"],
    features: Features,
    targets: Targets,
) -> Float[Array, ""]:
    """`weight` times the loss of the points, and the ridge."""
    logits = trainer.network.apply(params, features) + offset
    data = -jnp.sum(trainer.likelihood.log_density(targets, logits))
    moved = jax.tree.map(lambda p, a: jnp.sum((p - a) ** 2), params, anchor)
    return weight * data + jnp.asarray(trainer.ridge, data.dtype) / 2 * sum(jax.tree.leaves(moved))


@eqx.filter_jit
def _advance(
    trainer: Trainer,
    num_steps: Int[Array, ""],
    state: State,
    features: Features,
    targets: Targets,
) -> tuple[State, Int[Array, ""]]:
    size, batch = len(targets), trainer.batch_size
    dtype = jax.tree.leaves(state.params)[0].dtype
    features, targets = features.astype(dtype), targets.astype(dtype)
    state = eqx.tree_at(lambda s: s.offset, state, state.offset.astype(dtype))

    def slopes(state: State) -> tuple[Float[Array, " networks"], Params]:
        x, y, offset, weight = features, targets, state.offset, 1.0
        if batch is not None:
            chosen = _batch(state.key, state.step, size, batch)
            x, y, offset, weight = x[chosen], y[chosen], offset[:, chosen], size / batch

        def member(p: Params, a: Params, o: Array) -> tuple[Array, Params]:
            return jax.value_and_grad(lambda p: _loss(trainer, weight, p, a, o, x, y))(p)

        return jax.vmap(member)(state.params, state.anchors, offset)

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
        moved = State(params, state.anchors, state.offset, own, state.key, state.step + 1)
        return moved, failed, done + 1

    def unfinished(carry: tuple) -> Array:
        _, failed, done = carry
        return (failed < 0) & (done < num_steps)

    start = (state, jnp.full((), -1, state.step.dtype), jnp.zeros((), num_steps.dtype))
    end, failed, _ = jax.lax.while_loop(unfinished, update, start)
    last, _ = slopes(end)
    return end, jnp.where((failed < 0) & ~jnp.all(jnp.isfinite(last)), end.step, failed)


def _batch(key: Array, step: Array, size: int, batch: int) -> Int[Array, " batch"]:
    """Points of a step: every epoch goes through a random order, and leaves out what is over."""
    per_epoch = size // batch
    order = jax.random.permutation(jax.random.fold_in(key, step // per_epoch), size)
    return jax.lax.dynamic_slice_in_dim(order, step % per_epoch * batch, batch)


# --- checkpoints ---------------------------------------------------------------------------------


def _digest(*arrays: Array | np.ndarray) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:16]


def _program(function: Callable, *arguments: Any) -> str:
    """A digest of what a function computes, its constants included."""
    program = jax.make_jaxpr(function)(*arguments)
    text = re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr))
    constants = [np.asarray(value) for value in program.consts]
    return _digest(np.frombuffer(text.encode(), np.uint8), *constants)


def _numbers(state: State) -> list[Array]:
    plain = eqx.tree_at(lambda s: s.key, state, jax.random.key_data(state.key))
    return jax.tree.leaves(plain)


def _save(path: Path, state: State, mark: str) -> None:
    arrays: dict[str, Any] = {
        f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(_numbers(state))
    }

    save_arrays(path, {"mark": np.array(mark), **arrays})


def _load(path: Path, like: State, mark: str) -> State:
    try:
        arrays = load_arrays(path)
        found = json.loads(str(arrays["mark"]))
        leaves = [arrays[f"leaf{i}"] for i in range(len(arrays) - 1)]
    except (StorageError, ValueError, KeyError, RecursionError) as error:
        raise StorageError(
            f"{path} is not a readable checkpoint ({error}); delete it and run again"
        ) from error
    wanted = json.loads(mark)
    if not isinstance(found, dict):
        raise StorageError(f"{path} is not a checkpoint of ntkbayes; delete it and run again")
    if found != wanted:
        names = ", ".join(name for name in wanted if found.get(name) != wanted[name])
        raise StorageError(
            f"{path} is a checkpoint of another training (it differs in: {names}); delete it, or "
            "choose another file"
        )
    plain = eqx.tree_at(lambda s: s.key, like, jax.random.key_data(like.key))
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(plain)]
    if [leaf.shape for leaf in leaves] != shapes:
        raise StorageError(f"{path} is not a whole checkpoint; delete it and run again")
    loaded = jax.tree.unflatten(jax.tree.structure(plain), list(map(jnp.asarray, leaves)))
    key = jax.random.wrap_key_data(loaded.key, impl=jax.random.key_impl(like.key))
    return eqx.tree_at(lambda s: s.key, loaded, key)
