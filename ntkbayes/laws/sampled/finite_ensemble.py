"""The law of real networks, trained from independent random initialisations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.sampled.given_ensemble import GivenEnsemble
from ntkbayes.laws.sampled.network_ensemble import (
    FiniteEnsembleInfo,
    NetworkEnsemble,
    TrainedFunctions,
    TrainedNetworks,
)
from ntkbayes.networks import Network, Params
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.networks import Anchor, require_pull


class FiniteEnsemble(NetworkEnsemble):
    """Train real networks of finite width, one from each of several initialisations.

    The prior's ridge and mean are those of the training: f(x) = mean(x) + network(x), pulled towards
    its own θ0. As the width grows the law approaches `RandomInit` with the same architecture, with
    `shifted` the point `MAP`. With the anchor at zero, weight decay, it approaches neither: the
    network's kernel shrinks with its weights at any width.

    Args:
        network: with as many outputs as the likelihood takes logits.
        num_networks: how many are trained, side by side.
        shifted: subtract each network's initial function: mean(x) + network(x; θ) − network(x; θ0).
        anchor: where the ridge pulls: "init", to θ0, or "zero", which is weight decay, ½‖θ‖².
        training_time: duration of gradient descent, in units in which gradient flow is
            dθ/dt = −∇L. By default until the networks are at rest, by Nesterov's accelerated descent.
            Without a ridge they come to rest if finite logits fit the targets.
        tolerance: of being at rest, in units of the likelihood's scale (nats, or the noise of real
            targets): the logits at the training points move less while the number of steps doubles,
            root mean square over the ensemble. Of single narrow networks no more can be asked: they
            leave plateaus late, or sit on a ReLU's kink, where no gradient vanishes.
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
    shifted: bool = False
    anchor: Anchor | str = eqx.field(static=True, default=Anchor.INIT, converter=Anchor.named)
    training_time: float = real_field("training_time", float("inf"), Range.NOT_NEGATIVE)
    tolerance: float = real_field("tolerance", 0.05, Range.POSITIVE_FINITE)
    max_steps: int = whole_field("max_steps", 20_000)
    dtype: DTypeLike = eqx.field(static=True, default=jnp.float32)
    progress: bool = False

    @classmethod
    def of(cls, network: Network, members: Sequence[Params]) -> GivenEnsemble:
        """A method whose law is that of networks which are trained already, however that was done.

        Args:
            network: of all members, with what is no parameter, such as batch statistics: members with
                their own come by their logits, `Predictions.of`.
            members: the parameters of each.

        Raises:
            ConfigurationError: fewer than two have finite parameters (where some have not, a warning
                names them, and they are left out), or their shapes differ.
        """
        return GivenEnsemble.of(network, members)

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None
    ) -> TrainedNetworks[FiniteEnsembleInfo]:
        require_pull(problem.ridge, self.anchor)
        params = self.initialise(problem, self.require_key(key))
        start = TrainedFunctions(self.network, params, params if self.shifted else None)
        return self.train(problem, start, self._own_kind, anchor=Anchor(self.anchor))

    @property
    def _own_kind(self) -> Kind:
        if self.anchor == Anchor.ZERO:
            return _WEIGHT_DECAY
        return _SHIFTED if self.shifted else self.kind


_SHIFTED = replace(
    FiniteEnsemble.kind,
    name="shifted ensemble",
    description="real networks of finite width less their own initial functions, each trained by "
    "gradient descent: of a wide one nothing is random, since all start as the prior’s mean.",
)
_WEIGHT_DECAY = replace(
    FiniteEnsemble.kind,
    name="weight-decay ensemble",
    description="real networks of finite width, each trained by gradient descent with weight decay: the "
    "ridge pulls towards zero, so that the kernel shrinks with the weights, and no kernel law at the "
    "initialisation describes them.",
)
