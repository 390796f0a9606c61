"""The exact posterior of GP classification, by the no-U-turn sampler of NumPyro."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.laws.chains.sampler import (
    ChainLaw,
    ChainMethod,
    Chains,
    Mode,
    Numbers,
    Positions,
    Sampler,
    Whitened,
    coupled_root,
    laplace_root,
    seen_directions,
    shared_weights,
)
from ntkbayes.laws.chains.threads import each_chain
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Draws, FormedBlock, Logits, Square, num_shares, white_noise
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.operations import Size


class NUTS(ChainMethod):
    """No-U-turn sampling of the whitened latent z, f(X) = mean + L z with L Lᵀ = Θ/ridge.

    It moves in coordinates in which the Laplace posterior is nearly standard normal, with the identity
    as mass matrix (a dense one would be multiplied at every turning check), and the chains start at
    draws of that Gaussian. Where the outputs share Θ all logits have the same coordinates, and a step
    takes two products with one matrix; and what softmax cannot see, the mean of a point's logits, takes
    no part: it keeps its prior, from which it is drawn. Another fit with the same shapes, num_warmup,
    num_chains and max_tree_depth does not compile again.

    Args:
        num_samples: draws kept per chain.
        num_warmup: draws per chain discarded while the step size adapts.
        num_chains: chains, run in as many threads as there are cores.
        target_accept: acceptance probability that the step size aims at.
        progress: show a progress bar, over warm-up and samples.
        max_tree_depth: a trajectory takes at most 2^max_tree_depth steps.
    """

    name: ClassVar[str] = "NUTS"
    target_accept: float = real_field("target_accept", 0.9, Range.OPEN_UNIT)
    max_tree_depth: int = whole_field("max_tree_depth", 10)

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> ChainLaw:
        with jax.debug_key_reuse(False):  # NumPyro's own transitions use a key twice
            return super().solve(problem, key)

    def matrices(self, size: Size) -> dict[str, float]:
        return {"factor and P": 2.0, "roots": 3.0, "workspace": 5.0}

    def steps(self, size: Size) -> tuple[float, float]:
        return 7.0 * (size.rows * size.num_outputs) ** 0.25, 2.0

    def sample_stats(self, chains: Chains) -> dict[str, Array]:
        return {**super().sample_stats(chains), "tree_depth": tree_depth(chains.num_steps)}

    def sampler(self, problem: Problem, lower: FormedBlock, mode: Mode) -> "NUTSSampler":
        target = _target(problem.likelihood, problem.targets, lower, mode)
        accept = jax.device_put(np.asarray(self.target_accept))
        return NUTSSampler(target, accept, self.num_warmup, self.max_tree_depth)


def tree_depth(num_steps: Numbers) -> Int[Array, " draws"]:
    """Doublings of the trees with so many steps: the last one may have stopped half-way."""
    return jax.device_put(np.floor(np.log2(np.reshape(num_steps, -1))).astype(int) + 1)


class Target(eqx.Module):
    """The posterior in the coordinates ξ of z = ẑ + T ξᵀ H, nearly standard normal in them.

    T Tᵀ is the covariance of the whitened Laplace posterior, or where the outputs share L, of one with
    the same weight for all logits of a point; and Tᵀ T is diagonal. So the logits f̂ + L T ξᵀ H and their
    transpose are the only matrix products of a leapfrog step.

    ξ has a row for each direction: of a few hundred points XLA's products of few rows take a quarter of
    the time of as many columns.

    Attributes:
        likelihood, targets: of the data.
        mode: ẑ, (n, C).
        logits: f̂ = mean + L ẑ, (n, C).
        root: T.
        logit_root: L T.
        transposed_root: (L T)ᵀ, as a matrix of its own.
        slope: H ẑᵀ T, (directions, n).
        precision: the diagonal of Tᵀ T.
        directions: H, orthonormal rows. All of R^C, or those orthogonal to (1, …, 1), in which alone
            softmax is not flat.
    """

    likelihood: Likelihood
    targets: Logits
    mode: Logits
    logits: Logits
    root: FormedBlock
    logit_root: Square
    transposed_root: Square
    slope: Float[Array, "directions n"]
    precision: Float[Array, "_ n"]
    directions: Float[Array, "directions classes"]

    def potential(self, position: Float[Array, "directions n"]) -> Float[Array, ""]:
        """−log density at ξ, up to a constant."""
        logits = self.logits + self._moved(position)
        whitened = jnp.sum(self.slope * position + self.precision * position**2 / 2)
        return whitened - jnp.sum(self.likelihood.log_density(self.targets, logits))

    def _moved(self, position: Float[Array, "directions n"]) -> Logits:
        """L T ξᵀ H."""
        matrices = self.transposed_root, self.logit_root
        if self.root.couples:  # all logits are one row, and H is the identity
            return _rows_times(position.T.reshape(1, -1), *matrices).reshape(self.logits.shape)
        return (self.directions.T @ _rows_times(position, *matrices)).T


@jax.custom_vjp
def _rows_times(
    rows: Float[Array, "few n"], matrix: Square, transposed: Square
) -> Float[Array, "few n"]:
    """rows · matrix, constant in the matrix. Its derivative too is a product of rows, by the transposed
    matrix, where that of JAX would be one of columns."""
    return rows @ matrix


_rows_times.defvjp(
    lambda rows, matrix, transposed: (rows @ matrix, transposed),
    lambda transposed, slope: (slope @ transposed, None, None),
)


@eqx.filter_jit
def _target(likelihood: Likelihood, targets: Logits, lower: FormedBlock, mode: Mode) -> Target:
    num_points, num_outputs = targets.shape
    if lower.couples:
        directions = jnp.eye(num_outputs)
        matrix, shrunk = coupled_root(lower.matrix, mode.curvature)
    else:
        basis, num_seen = seen_directions(likelihood, num_outputs)
        directions = basis[:num_seen]
        matrix, shrunk = laplace_root(lower.matrix, shared_weights(mode.curvature, num_seen))
    root, logit_root = lower.like(matrix), lower.matrix @ matrix
    slope = (root.T @ mode.whitened @ directions.T).T
    precision = shrunk.reshape(num_points, -1).T
    given = (mode.whitened, mode.logits, root, logit_root, logit_root.T)
    return Target(likelihood, targets, *given, slope, precision, directions)


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
        position = jnp.swapaxes(noise @ self.target.directions.T, 1, 2)
        with jax.numpy_dtype_promotion("standard"):  # NumPyro's
            return jax.vmap(begin)(position, jax.random.split(key, len(noise)))

    def apart(self, state: Any) -> list[Any]:
        """Each chain for itself; not where an accelerator moves all in the time of one, nor where
        devices share the products, and would wait for one another."""
        if jax.default_backend() != "cpu" or num_shares() > 1:
            return [state]
        return each_chain(state)

    def move(self, state: Any) -> Any:
        if _in_step(state):
            return jax.vmap(self.move)(state)
        begin, move = self._transitions()
        with jax.numpy_dtype_promotion("standard"):
            # NumPyro's `move` needs the settings; the value is unused, and the key as good as new.
            begin(state.z, jax.random.clone(state.rng_key))
            return move(state)

    def seen(self, state: Any) -> Chains:
        chains = Chains(
            state.z,
            state.diverging,
            state.num_steps,
            state.accept_prob,
            state.adapt_state.step_size,
            state.potential_energy,
            state.energy,
        )
        return chains if _in_step(state) else jax.tree.map(lambda v: v[None], chains)

    def whitened(self, positions: Positions, key: PRNGKeyArray) -> Whitened:
        """z = ẑ + T ξᵀ H, and the prior's white noise in directions that H leaves out."""
        target = self.target
        noise = white_noise(key, (*positions.shape[:2], *target.mode.shape))
        unseen = noise - noise @ target.directions.T @ target.directions
        moved = target.root @ jnp.swapaxes(positions, 2, 3) @ target.directions
        return target.mode[None, None] + moved + unseen


def _in_step(state: Any) -> bool:
    """Whether it is the state of several chains."""
    return bool(state.potential_energy.ndim)
