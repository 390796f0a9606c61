"""The law of real networks that sample close to the posterior: randomised, then optimised."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

from ntkbayes.errors import DivergenceError
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.sampled.gradient_noise import gradient_noise
from ntkbayes.laws.sampled.network_ensemble import (
    FiniteEnsembleInfo,
    NetworkEnsemble,
    TrainedFunctions,
    TrainedNetworks,
)
from ntkbayes.linalg import white_noise
from ntkbayes.networks import Network, Params
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.linearised import train


class PerturbedEnsemble(NetworkEnsemble):
    """Train real networks as `PerturbedInit` trains linearised ones.

    Network k is

        f(x) = mean(x) + network(x; θ) − network(x; θ0) + J(x; θ0) δ,    δ ~ N(0, I/ridge),

    with a random tangent function in place of its own initial function (He et al. 2020, who add one to
    it): it starts from GP(mean, Θ/ridge), whatever K and the ridge. It is trained on the loss less
    ⟨ε, f(X)⟩, ε ~ N(0, W), with W the curvature at the MAP of the prior. As the width grows the law
    approaches `PerturbedInit`, which for a Normal likelihood is the posterior. A narrow network's loss
    may have no minimum: gradient noise is unbounded, the slopes of most likelihoods are not, and a
    network grows faster than its parameters.

    Args:
        network: with as many outputs as the likelihood takes logits, and the prior's architecture.
        num_networks, training_time, tolerance, max_steps, dtype, progress: as for `FiniteEnsemble`.
    """

    name: ClassVar[str] = "perturbed ensemble"
    kind: ClassVar[Kind] = Kind(
        "perturbed ensemble",
        Sampling.PERTURBED_INITIALISATIONS,
        "real networks of finite width, each started from a draw of GP(m, Θ/ridge) and trained by "
        "gradient descent on a loss to which gradient noise was added: what the perturbed-init law "
        "describes where the kernel stays constant, close to the posterior.",
    )
    network: Network
    num_networks: int = whole_field("num_networks", 64, at_least=2)
    training_time: float = real_field("training_time", float("inf"), Range.NOT_NEGATIVE)
    tolerance: float = real_field("tolerance", 0.05, Range.POSITIVE_FINITE)
    max_steps: int = whole_field("max_steps", 20_000)
    dtype: DTypeLike = eqx.field(static=True, default=jnp.float32)
    progress: bool = False

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None
    ) -> TrainedNetworks[FiniteEnsembleInfo]:
        problem.prior.require_ridge("the perturbed-init law")
        init_key, tangent_key, noise_key = jax.random.split(self.require_key(key), 3)
        params = self.initialise(problem, init_key)
        centre = train(problem.objective, problem.mean)
        shape = (self.num_networks, *problem.targets.shape)
        noise = gradient_noise(problem, centre, noise_key, shape, 1.0).astype(self.dtype)
        direction = _normal_like(tangent_key, params, 1 / jnp.sqrt(problem.ridge))
        start = TrainedFunctions(self.network, params, params, direction)
        try:
            return self.train(problem, start, self.kind, noise=noise)
        except DivergenceError as error:
            raise DivergenceError(
                f"{error}. Or the loss of some network has no minimum: where gradient noise exceeds the "
                "likelihood's steepest slope, a narrow network gains more from growing than the ridge "
                "takes. Use a wider network, a larger ridge, or a training_time",
                step=error.step,
                state=error.state,
            ) from error


def _normal_like(key: PRNGKeyArray, params: Params, std: jax.Array) -> Params:
    leaves, structure = jax.tree.flatten(params)
    drawn = [
        std.astype(leaf.dtype) * white_noise(k, leaf.shape, leaf.dtype)
        for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)
