"""The exact posterior of GP classification, by the no-U-turn sampler of NumPyro."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.laws.base import Draws, Problem
from ntkbayes.laws.chains import (
    ChainMethod,
    Chains,
    Mode,
    Positions,
    Roots,
    Sampler,
    laplace_roots,
    product,
)
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Gram, Logits, apply


class NUTS(ChainMethod):
    """No-U-turn sampling of the whitened latent z, f(X) = mean + L z with L Lᵀ = Θ/ridge.

    It moves in coordinates in which the Laplace posterior, class by class, is standard normal, with
    the identity as mass matrix (a dense one would be multiplied at every turning check), and the
    chains start at draws of that Gaussian. Another fit with the same shapes, num_warmup, num_chains and
    max_tree_depth does not compile again.

    Args:
        num_samples: draws kept, a chain.
        num_warmup: draws thrown away while the step size adapts, a chain.
        num_chains: chains, run side by side.
        target_accept: acceptance probability that the step size aims at.
        progress: show a progress bar, over warm-up and samples.
        max_tree_depth: a trajectory takes at most 2^this steps.
    """

    name: ClassVar[str] = "NUTS"
    max_tree_depth: int = 10

    def sampler(self, problem: Problem, lower: Gram, mode: Mode) -> "NUTSSampler":
        target = _target(problem.likelihood, problem.targets, lower, mode)
        accept = jnp.asarray(self.target_accept)
        return NUTSSampler(target, accept, self.num_warmup, self.max_tree_depth)


class Target(eqx.Module):
    """The posterior in the coordinates ξ of z = ẑ + T ξ, nearly standard normal in them.

    T Tᵀ is the covariance of the whitened Laplace posterior, and Tᵀ T is diagonal. So the logits
    f̂ + L T ξ and their transpose are the only matrix products of a leapfrog step.

    Attributes:
        likelihood, targets: of the data.
        mode: ẑ, (n, C).
        logits: f̂ = mean + L ẑ, (n, C).
        roots: T.
        logit_roots: L T.
        slope: Tᵀ ẑ, (n, C).
        precision: the diagonal of Tᵀ T, (n, C).
    """

    likelihood: Likelihood
    targets: Logits
    mode: Logits
    logits: Logits
    roots: Roots
    logit_roots: Roots
    slope: Logits
    precision: Logits

    def potential(self, position: Logits) -> Float[Array, ""]:
        """−log density at ξ, up to a constant."""
        logits = self.logits + product(self.logit_roots, position)
        whitened = jnp.sum(self.slope * position + self.precision * position**2 / 2)
        return whitened - jnp.sum(self.likelihood.log_density(self.targets, logits))


@eqx.filter_jit
def _target(likelihood: Likelihood, targets: Logits, lower: Gram, mode: Mode) -> Target:
    roots, precision = laplace_roots(lower, mode.curvature)
    if roots.ndim == 3:
        logit_roots = lower[None] @ roots
        slope = jnp.einsum("cji,jc->ic", roots, mode.whitened)
    else:
        logit_roots = lower @ roots
        slope = apply(roots.T, mode.whitened)
    given = (mode.whitened, mode.logits, roots, logit_roots, slope, precision)
    return Target(likelihood, targets, *given)


class NUTSSampler(Sampler):
    """NumPyro's functions that begin a chain and move it on."""

    target: Target
    target_accept: Float[Array, ""]
    num_warmup: int
    max_tree_depth: int

    def _transitions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        from numpyro.infer.hmc import hmc

        begin, move = hmc(self.target.potential, algo="NUTS")

        def configured(position: Logits, key: PRNGKeyArray) -> Any:
            return begin(
                position,
                self.num_warmup,
                adapt_mass_matrix=False,
                target_accept_prob=self.target_accept,
                trajectory_length=None,
                max_tree_depth=self.max_tree_depth,
                rng_key=key,
            )

        return configured, move

    def start(self, noise: Draws, key: PRNGKeyArray) -> Any:
        begin, _ = self._transitions()
        return jax.vmap(begin)(noise, jax.random.split(key, len(noise)))

    def move(self, state: Any) -> Any:
        begin, move = self._transitions()
        # NumPyro's `move` needs the settings; the value is unused.
        jax.vmap(begin)(state.z, state.rng_key)
        return jax.vmap(move)(state)

    def seen(self, state: Any) -> Chains:
        step_size = state.adapt_state.step_size
        return Chains(state.z, state.diverging, state.num_steps, state.accept_prob, step_size)

    def whitened(self, positions: Positions) -> Positions:
        """z = ẑ + T ξ."""
        return self.target.mode[None, None] + product(self.target.roots, positions)
