"""The law of real networks, trained from independent random initialisations."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm.auto import tqdm

from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.kernels import Functions
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import SampledLaw
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import largest
from ntkbayes.networks import Network, Params, require_sound
from ntkbayes.priors.paths import FunctionPath
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.networks import (
    Trainer,
    TrainingState,
    fastest_rate,
    largest_eigenvalue,
    logits_of,
)
from ntkbayes.training.operations import Size


class FiniteEnsembleInfo(Info):
    """last_move: how far the logits at the training points moved during the second half of the steps,
    in nats, root mean square over networks, points and logits (NaN after a finite training time,
    where nothing had to come to rest). worst_move: the same of the network that moved most.
    num_steps: of gradient descent. step_size: η. distance: mean ‖θ − θ0‖ over networks."""

    last_move: float
    worst_move: float
    num_steps: int
    step_size: float
    distance: float


class TrainedFunctions(Functions):
    """x ↦ f(x; θ) of each trained network."""

    network: Network
    params: Params

    @eqx.filter_jit
    def __call__(self, features: Float[Array, "n ..."]) -> Float[Array, "draws n classes"]:
        x = features.astype(jax.tree.leaves(self.params)[0].dtype)
        logits = jax.lax.map(lambda p: self.network.apply(p, x), self.params)
        return logits.astype(jnp.float64)


_MARGIN = 2.0  # momentum is stable while the NTK grows by less than about that


class FiniteEnsemble(Method[SampledLaw[FiniteEnsembleInfo]]):
    """Train real networks of finite width, one from each of several initialisations.

    The prior's ridge and mean are those of the training: f(x) = mean(x) + network(x), pulled towards
    its own θ0. As the width grows the law approaches `RandomInit` with the same architecture.

    Args:
        network: with as many outputs as the likelihood takes logits.
        num_networks: how many are trained, side by side.
        training_time: duration of gradient descent, in units in which gradient flow is
            dθ/dt = −∇L. By default until the networks are at rest, by Nesterov's accelerated descent.
        tolerance: of being at rest, in nats: the logits at the training points move less while the
            number of steps doubles, root mean square over the ensemble. Of single narrow networks no
            more can be asked: they leave plateaus late, or sit on a ReLU's kink, where no gradient
            vanishes.
        max_steps: before giving up.
        dtype: precision of the training.
        progress: show a progress bar.
    """

    name: ClassVar[str] = "finite ensemble"
    kind: ClassVar[Kind] = Kind(
        "finite ensemble",
        Sampling.INITIALISATIONS,
        "real networks of finite width, each trained by gradient descent from its own initialisation: "
        "what the random-init law describes where the kernel stays constant.",
    )
    network: Network
    num_networks: int = whole_field("num_networks", 64, at_least=2)
    training_time: float = real_field("training_time", float("inf"), Range.NOT_NEGATIVE)
    tolerance: float = real_field("tolerance", 0.05, Range.POSITIVE_FINITE)
    max_steps: int = whole_field("max_steps", 20_000)
    dtype: DTypeLike = eqx.field(static=True, default=jnp.float32)
    progress: bool = False

    def operations(self, size: Size) -> dict[str, float]:
        return {}  # what a network costs is its own, and how many steps it takes

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> SampledLaw[FiniteEnsembleInfo]:
        key = self.require_key(key)
        features, targets = (v.astype(self.dtype) for v in (problem.features, problem.targets))
        params = self._initial(key, features)
        self._require_outputs(params, features, problem)
        shape = (self.num_networks, *targets.shape)
        offset = jnp.broadcast_to(problem.mean.astype(self.dtype), shape)
        largest = largest_eigenvalue(self.network, params, features)
        rate = fastest_rate(problem.likelihood, largest, problem.ridge)
        if self.training_time < float("inf"):
            num_steps = max(200, math.ceil(5 * self.training_time * rate))  # close to gradient flow
            step_size = max(self.training_time, 1e-30) / num_steps
            trainer = Trainer(self.network, problem.likelihood, problem.ridge, step_size)
            state = trainer.start(params, targets, offset=offset)
            state = trainer.run(
                state, features, targets, num_steps=num_steps, progress=self.progress
            )
            return self._law(problem, state, (math.nan, math.nan), step_size)
        problem.prior.require_ridge("a FiniteEnsemble without training_time")
        import optax  # takes a tenth of JAX's time to import

        rate *= _MARGIN
        root = math.sqrt(problem.ridge / rate)
        accelerated = optax.sgd(1 / rate, momentum=(1 - root) / (1 + root), nesterov=True)
        trainer = Trainer(self.network, problem.likelihood, problem.ridge, optimizer=accelerated)
        state = trainer.start(params, targets, offset=offset)
        state, moves = self._descend(trainer, state, features, targets)
        return self._law(problem, state, moves, 1 / rate)

    def _initial(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        keys = jax.random.split(key, self.num_networks)
        params = jax.vmap(lambda k: self.network.init(k, features))(keys)
        return jax.tree.map(lambda leaf: leaf.astype(features.dtype), params)

    def _require_outputs(
        self, params: Params, features: Float[Array, "n ..."], problem: Problem
    ) -> None:
        one = jax.tree.map(lambda leaf: leaf[0], params)
        num_outputs = require_sound(self.network, one, features)
        if num_outputs != problem.num_outputs:
            raise ConfigurationError(
                f"the network has {num_outputs} outputs, but "
                f"{type(problem.likelihood.untempered).__name__} takes {problem.num_outputs} of these "
                f"data; make the network with {problem.num_outputs}"
            )

    def _descend(
        self,
        trainer: Trainer,
        state: TrainingState,
        features: Float[Array, "n ..."],
        targets: Float[Array, "n classes"],
        first: int = 100,
    ) -> tuple[TrainingState, tuple[float, float]]:
        """Steps until the networks are at rest, looked at whenever their number has doubled."""
        logits, chunk, moves = (
            logits_of(self.network, state.params, features),
            first,
            (math.nan, math.nan),
        )
        with tqdm(total=self.max_steps, desc=self.name, disable=not self.progress) as bar:
            while int(state.step) + chunk <= self.max_steps:
                state = trainer.advance(state, features, targets, chunk)
                before, logits = logits, logits_of(self.network, state.params, features)
                squares = jnp.mean((logits - before) ** 2, axis=(1, 2))
                moves = float(jnp.sqrt(jnp.mean(squares))), float(jnp.sqrt(largest(squares)))
                bar.update(chunk)
                if moves[0] <= self.tolerance:
                    return state, moves
                chunk = int(state.step)
        raise ConvergenceError(
            f"the networks are not at rest after {int(state.step)} steps: logits moved by "
            f"{moves[0]:.2g} in the second half of them, above the tolerance {self.tolerance:g}; "
            "use more max_steps, a larger ridge or tolerance, or a training_time"
        )

    def _law(
        self, problem: Problem, state: TrainingState, moves: tuple[float, float], step_size: float
    ) -> SampledLaw[FiniteEnsembleInfo]:
        functions = TrainedFunctions(self.network, state.params)
        values = functions(problem.features)
        g = FunctionPath(values, functions, jnp.ones(()), jnp.arange(self.num_networks))
        distance = float(jnp.mean(jnp.sqrt(_squared_distance(state))))
        info = FiniteEnsembleInfo(*moves, int(state.step), step_size, distance)
        return SampledLaw(problem, self.kind, info, g, jnp.zeros_like(values))


def _squared_distance(state: TrainingState) -> Float[Array, " networks"]:
    def member(p: Params, a: Params) -> Float[Array, ""]:
        parts = jax.tree.map(lambda u, v: jnp.sum((u - v) ** 2), p, a)
        return jnp.sum(jnp.stack(jax.tree.leaves(parts)))

    return jax.vmap(member)(state.params, state.anchors)
