"""What ensembles of real networks share: functions, training, and the law of the trained networks."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import Functions
from ntkbayes.laws.info import Info, InfoT
from ntkbayes.laws.kind import Kind
from ntkbayes.laws.law import SampledLaw
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.networks import Network, Params, require_sound
from ntkbayes.networks.programs import channels_last
from ntkbayes.priors.paths import FunctionPath
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.training.networks import Anchor, Descent, TrainingState, logits_of
from ntkbayes.training.operations import Size


class FiniteEnsembleInfo(Info):
    """Of gradient descent on real networks.

    Attributes:
        last_move: how far the logits at the training points moved during the second half of the steps,
            in nats, root mean square over networks, points and logits (NaN after a finite training
            time, where nothing had to come to rest).
        worst_move: the same of the network that moved most.
        num_steps: of gradient descent.
        step_size: η.
        distance: mean ‖θ − θ0‖ over networks.
    """

    last_move: float
    worst_move: float
    num_steps: int
    step_size: float
    distance: float


class TrainedFunctions(Functions):
    """x ↦ f(x; θ) of each network; less f(x; θ0) if θ0 is given; plus J(x; θ0) δ if δ is."""

    network: Network
    params: Params
    initial: Params | None = None
    direction: Params | None = None

    @eqx.filter_jit
    def __call__(self, features: Float[Array, "n ..."]) -> Float[Array, "draws n classes"]:
        x = features.astype(jax.tree.leaves(self.params)[0].dtype)

        def apply(params: Params) -> Float[Array, "n classes"]:
            return self.network.apply(params, x)

        @channels_last
        def member(given: tuple) -> Float[Array, "n classes"]:
            params, initial, direction = given
            if initial is None:
                return apply(params)
            if direction is None:
                return apply(params) - apply(initial)
            start, tangent = jax.jvp(apply, (initial,), (direction,))
            return apply(params) - start + tangent

        logits = jax.lax.map(member, (self.params, self.initial, self.direction))
        return logits.astype(jnp.float64)


class TrainedNetworks(SampledLaw[InfoT]):
    """The law of networks whose parameters are known."""

    @property
    def params(self) -> Params:
        """θ of each network, stacked."""
        assert isinstance(self.g, FunctionPath)
        functions: Any = self.g.functions
        return functions.params


def law_of_networks[I: Info](
    problem: Problem, kind: Kind, info: I, functions: Functions
) -> TrainedNetworks[I]:
    """The law of mean + given functions, with their `params`."""
    values = functions(problem.features)
    g = FunctionPath(values, functions, jnp.ones(()), jnp.arange(len(values)))
    return TrainedNetworks(problem, kind, info, g, jnp.zeros_like(values))


class NetworkEnsemble(Method[TrainedNetworks[FiniteEnsembleInfo]]):
    """Real networks of finite width, trained side by side from random initialisations."""

    network: eqx.AbstractVar[Network]
    num_networks: eqx.AbstractVar[int]
    training_time: eqx.AbstractVar[float]
    tolerance: eqx.AbstractVar[float]
    max_steps: eqx.AbstractVar[int]
    dtype: eqx.AbstractVar[DTypeLike]
    progress: eqx.AbstractVar[bool]

    def operations(self, size: Size) -> dict[str, float]:
        return {}  # what a network costs is its own, and how many steps it takes

    def interpolates(self, prior: NTKPrior) -> bool:
        return super().interpolates(prior) and self.training_time == float("inf")

    def initialise(self, problem: Problem, key: PRNGKeyArray) -> Params:
        """θ0 of each network, stacked; see `initial_networks`."""
        return initial_networks(self.network, problem, key, self.num_networks, self.dtype)

    def train(
        self,
        problem: Problem,
        start: TrainedFunctions,
        kind: Kind,
        *,
        anchor: Anchor = Anchor.INIT,
        noise: Float[Array, "networks n classes"] | None = None,
    ) -> TrainedNetworks[FiniteEnsembleInfo]:
        """The law of mean + what the initial functions become.

        Args:
            start: the functions, at θ0.
            anchor, noise: of the loss, see `Trainer`.
        """
        params = start.params
        features, targets = (v.astype(self.dtype) for v in (problem.features, problem.targets))
        own = logits_of(self.network, params, features).astype(jnp.float64)
        initial = start(features) - own
        offset = (problem.mean[None] + initial).astype(self.dtype)
        descent = Descent(
            self.network,
            problem.likelihood,
            problem.ridge,
            anchor,
            self.training_time,
            self.tolerance,
            self.max_steps,
            self.name if self.progress else None,
        )
        end = descent.run(params, features, targets, offset=offset, noise=noise)
        functions = eqx.tree_at(lambda f: f.params, start, end.state.params)
        info = FiniteEnsembleInfo(
            end.last_move,
            end.worst_move,
            int(end.state.step),
            end.step_size,
            float(jnp.mean(_distances(end.state))),
        )
        return law_of_networks(problem, kind, info, functions)


def initial_networks(
    network: Network, problem: Problem, key: PRNGKeyArray, num_networks: int, dtype: DTypeLike
) -> Params:
    """θ0 of each network, stacked.

    Raises:
        ConfigurationError: the network cannot be differentiated, or has other outputs than the
            likelihood takes.
    """
    features = problem.features.astype(dtype)
    params = jax.vmap(lambda k: network.init(k, features))(jax.random.split(key, num_networks))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    num_outputs = require_sound(network, jax.tree.map(lambda leaf: leaf[0], params), features)
    if num_outputs != problem.num_outputs:
        raise ConfigurationError(
            f"the network has {num_outputs} outputs, but "
            f"{type(problem.likelihood.untempered).__name__} takes {problem.num_outputs} of these "
            f"data; make the network with {problem.num_outputs}"
        )
    return params


@eqx.filter_jit
def _distances(state: TrainingState) -> Float[Array, " networks"]:
    """‖θ − θ0‖ of each network."""
    moves = jax.tree.leaves(jax.tree.map(jnp.subtract, state.params, state.initial))
    return jnp.sqrt(sum(jnp.sum(move**2, axis=tuple(range(1, move.ndim))) for move in moves))
