"""The exact posterior of GP classification by Markov chains: what its samplers share.

They start at the Laplace posterior, move in its geometry, and are judged by the same diagnostics. A
sampler is compiled once for all problems of a shape.
"""

import abc
import time
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped
from tqdm.auto import tqdm

from ntkbayes.laws.chains.mixing import MixingInfo, judged
from ntkbayes.laws.chains.threads import chain_threads
from ntkbayes.laws.kind import EXACT_POSTERIOR, Kind
from ntkbayes.laws.law import SampledLaw
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.trace import Trace
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    CholeskyFactor,
    Curvature,
    Draws,
    FormedBlock,
    FormedGram,
    Logits,
    Square,
    split_key,
    white_noise,
)
from ntkbayes.priors.paths import ConditionedPath
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.linearised import train
from ntkbayes.training.objective import Objective
from ntkbayes.training.operations import Size, chain, drawn_predictions

_EIGENVECTORS = 40.0  # operations of `eigh` per n³, at the speed of products

Positions = Float[Array, "chains samples _ _"]
Whitened = Float[Array, "chains samples n classes"]
Numbers = Shaped[Array | np.ndarray, "..."]


class ChainInfo(MixingInfo):
    """Of the chains: of the logits at the training points, up to what the likelihood cannot see.

    Attributes:
        max_rhat, min_bulk_ess, min_tail_ess: as in `MixingInfo`.
        num_divergences: transitions whose energy error exploded; should be 0.
        mean_steps: integrator steps per draw.
        mean_accept: acceptance statistic.
        mean_step_size: over chains.
    """

    num_divergences: int
    mean_steps: float
    mean_accept: float
    mean_step_size: float


class Chains(NamedTuple):
    """What is kept: (draws, chains, ...) while the chains run, (chains, samples, ...) at the end.

    `potential` is −log density at the position, `energy` that of position and velocity where the
    transition ended, both up to a constant.
    """

    position: Numbers
    diverging: Numbers
    num_steps: Numbers
    accept: Numbers
    step_size: Numbers
    potential: Numbers
    energy: Numbers


class ChainLaw(SampledLaw[ChainInfo]):
    """Draws of the posterior by Markov chains: g given the data, at X, and α = 0.

    Attributes:
        sample_stats: per draw, see `Trace`.
    """

    sample_stats: dict[str, Shaped[Array, " draws"]]

    @property
    def trace(self) -> Trace:
        assert isinstance(self.g, ConditionedPath)
        stats = {name: np.asarray(value) for name, value in self.sample_stats.items()}
        return Trace(stats, {"logits": standard_log_density(self.g.whitened)})


def standard_log_density(whitened: Draws) -> Float[np.ndarray, " draws"]:
    """log N(z; 0, I) of each draw."""
    flat = np.asarray(whitened).reshape(len(whitened), -1)
    return -0.5 * (np.einsum("sj,sj->s", flat, flat) + flat.shape[1] * np.log(2 * np.pi))


class Mode(NamedTuple):
    """Where the Laplace posterior sits: whitened ẑ with f̂ = mean + L ẑ, the score ∂ log p / ∂f there,
    which is P⁻¹ (f̂ − mean), and W."""

    whitened: Logits
    logits: Logits
    score: Logits
    curvature: Curvature


class Sampler(eqx.Module):
    """A target and a Markov kernel that leaves it invariant, after warm-up."""

    @abc.abstractmethod
    def start(self, noise: Draws, key: PRNGKeyArray) -> Any:
        """The state of all chains, begun at the Laplace posterior's draws made of white noise."""

    def apart(self, state: Any) -> list[Any]:
        """The same in parts that move on without each other: one, where chains share anything."""
        return [state]

    @abc.abstractmethod
    def move(self, state: Any) -> Any:
        """The chains of a part one draw on. The state knows when warm-up ends."""

    @abc.abstractmethod
    def seen(self, state: Any) -> Chains:
        """What is kept of a part: arrays with its chains as leading axis."""

    @abc.abstractmethod
    def whitened(self, positions: Positions, key: PRNGKeyArray) -> Whitened:
        """z of positions, f(X) = mean + L z, with whatever positions leave open drawn from its law."""


class ChainMethod(Method[ChainLaw]):
    """A method that runs Markov chains side by side, for draws of the posterior: g given the data, at X,
    and α = 0. At new inputs g is conditioned on its values at X exactly.

    Another fit with the same shapes, num_warmup and num_chains does not compile again.

    Args:
        num_samples: draws kept per chain.
        num_warmup: draws per chain discarded while the step size adapts.
        num_chains: chains, run side by side.
        target_accept: acceptance probability that the step size aims at.
        progress: show a progress bar, over warm-up and samples.
    """

    kind: ClassVar[Kind] = EXACT_POSTERIOR
    num_samples: int = whole_field("num_samples", 1000, at_least=4)
    num_warmup: int = whole_field("num_warmup", 500)
    num_chains: int = whole_field("num_chains", 4)
    target_accept: float = real_field("target_accept", 0.8, Range.OPEN_UNIT)
    progress: bool = False

    @abc.abstractmethod
    def sampler(self, problem: Problem, lower: FormedBlock, mode: Mode) -> Sampler:
        """The sampler of the posterior, for P = L Lᵀ."""

    def operations(self, size: Size) -> dict[str, float]:
        draws = self.num_warmup + self.num_samples
        moves = chain(size, self.num_chains, draws, *self.steps(size))
        predictions = drawn_predictions(size, self.num_chains * self.num_samples)
        geometry = _EIGENVECTORS * size.rows**3
        return {
            **super().operations(size),
            "geometry": geometry,
            "chains": moves,
            "predictions": predictions,
        }

    @abc.abstractmethod
    def steps(self, size: Size) -> tuple[float, float]:
        """Of the integrator per draw, about, and products with matrices of Θ's size per step."""

    @property
    def num_kept(self) -> int:
        return 4 * self.num_chains * self.num_samples

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> ChainLaw:
        key = self.require_key(key)
        problem.prior.require_ridge("the posterior")
        start_key, run_key, open_key = split_key(key, 3)
        process = problem.conditioned_process
        lower = problem.gram.ntk.like(process.factor.lower)
        sampler = self.sampler(problem, lower, laplace_mode(problem, process.factor))
        shape = (self.num_chains, *problem.targets.shape)
        chains = self._run(sampler, _start(sampler, start_key, run_key, shape))

        position = jax.device_put(chains.position)
        drawn = _drawn(sampler, process.factor, problem.likelihood, position, open_key)
        info = self._diagnose(drawn.seen, chains)
        path = ConditionedPath(drawn.values, process, drawn.whitened)
        alpha = jax.device_put(np.zeros_like(drawn.values))
        stats = self.sample_stats(chains)
        return ChainLaw(problem, self.kind, info, path, alpha, stats, num_chains=self.num_chains)

    def sample_stats(self, chains: Chains) -> dict[str, Array]:
        """Per draw, by ArviZ's names."""
        by_name = {
            "lp": -chains.potential,
            "energy": chains.energy,
            "diverging": chains.diverging,
            "n_steps": chains.num_steps,
            "acceptance_rate": chains.accept,
            "step_size": chains.step_size,
        }
        return {name: jax.device_put(np.reshape(value, -1)) for name, value in by_name.items()}

    def _run(self, sampler: Sampler, state: Any) -> Chains:
        """The chains after warm-up, about a second of draws at a time: Ctrl-C stops between them."""
        parts = sampler.apart(state)
        lowered = _advance.lower(sampler, parts[0], _whole(_CHUNK))  # type: ignore[attr-defined]
        advance = lowered.compile()
        kept: list[Chains] = []
        done, total, pace = 0, self.num_warmup + self.num_samples, _FIRST
        with (
            tqdm(total=total, desc=self.name, disable=not self.progress) as bar,
            chain_threads(len(parts)) as each,
        ):
            while done < total:
                count, begin = min(pace, total - done), time.perf_counter()
                moved = each(advance, [(sampler, part, _whole(count)) for part in parts])
                parts = [part for part, _ in moved]
                first = max(0, self.num_warmup - done)
                chunks = zip(*(chunk for _, chunk in moved), strict=True)
                kept.append(Chains(*(np.concatenate(v, axis=1)[first:count] for v in chunks)))
                done += count
                bar.update(count)
                pace = min(_CHUNK, 1 + int(count / (time.perf_counter() - begin)))
        return Chains(*(np.concatenate(v).swapaxes(0, 1) for v in zip(*kept, strict=True)))

    def _diagnose(self, seen: Whitened, chains: Chains) -> ChainInfo:
        num_divergences = int(chains.diverging.sum())
        mixing = judged(
            [seen],
            num_divergences=num_divergences,
            remedy="Use more num_warmup and num_samples, or a higher target_accept",
            stacklevel=4,
        )
        return ChainInfo(
            **mixing,
            num_divergences=num_divergences,
            mean_steps=float(chains.num_steps.mean()),
            mean_accept=float(chains.accept.mean()),
            mean_step_size=float(chains.step_size.mean()),
        )


# --- the geometry of the Laplace posterior --------------------------------------------------------


def laplace_mode(problem: Problem, factor: CholeskyFactor) -> Mode:
    """Mode of the posterior: ẑ = ridge Lᵀ α (THEORY 2)."""
    mode = train(problem.objective, problem.mean)
    return _mode(problem.objective, problem.mean, factor, mode.alpha, mode.logits)


@eqx.filter_jit
def _mode(
    objective: Objective, mean: Logits, factor: CholeskyFactor, alpha: Logits, logits: Logits
) -> Mode:
    assert isinstance(objective.gram, FormedGram)  # it has a factor
    score = objective.ridge * alpha
    whitened = objective.gram.like(factor.lower).T @ score
    return Mode(whitened, mean + factor.colour(whitened), score, objective.curvature(logits))


def laplace_root(lower: Square, weights: Float[Array, " n"]) -> tuple[Square, Float[Array, " n"]]:
    """T with T Tᵀ = (I + Lᵀ diag(w) L)⁻¹, the whitened Laplace posterior of one logit a point, and the
    diagonal of Tᵀ T, which is all of it."""
    return _root(lower.T @ (weights[:, None] * lower))


def coupled_root(lower: Square, curvature: Curvature) -> tuple[Square, Float[Array, " rows"]]:
    """The same for all logits, (nC, nC), where L couples them."""
    columns = lower.reshape(*curvature.shape, -1)
    curved = jax.vmap(curvature.matvec, 2, 2)(columns)
    return _root(lower.T @ curved.reshape(lower.shape))


def seen_directions(
    likelihood: Likelihood, num_outputs: int
) -> tuple[Float[Array, "classes classes"], int]:
    """An orthonormal basis of a point's logits, in rows, those first that the likelihood sees, and how
    many these are: all, or all but (1, …, 1)/√C, along which softmax is flat."""
    from scipy.linalg import helmert

    if not likelihood.is_flat:
        return jnp.eye(num_outputs), num_outputs
    return jnp.roll(jnp.asarray(helmert(num_outputs, full=True)), -1, axis=0), num_outputs - 1


def shared_weights(curvature: Curvature, num_directions: int) -> Float[Array, " n"]:
    """One weight for all logits of a point, by the mean of their √w, because a root equalises scales,
    and logits with small weights are many."""
    weights = jnp.maximum(curvature.matrix_diagonal, 0.0)  # round-off
    return jnp.mean(jnp.sqrt(weights), axis=1) ** 2 * weights.shape[1] / num_directions


def _root(precision: Square) -> tuple[Square, Float[Array, " rows"]]:
    values, vectors = jnp.linalg.eigh(precision)
    shrunk = 1 / (1 + values)
    return vectors * jnp.sqrt(shrunk)[None, :], shrunk


# --- compiled once for all problems of a shape ----------------------------------------------------

_CHUNK = 50  # draws per compiled call, at most
_FIRST = 5  # of the first call, which tells how long they take


def _whole(number: int) -> Int[Array, ""]:
    """An array, in the precision of this thread."""
    return jax.device_put(np.asarray(number))


@eqx.filter_jit
def _start(
    sampler: Sampler, noise_key: PRNGKeyArray, key: PRNGKeyArray, shape: tuple[int, ...]
) -> Any:
    return sampler.start(white_noise(noise_key, shape), key)


class Drawn(NamedTuple):
    """z of all draws, f(X) − mean = L z, and of that what the likelihood sees, by chains."""

    whitened: Draws
    values: Draws
    seen: Whitened


@eqx.filter_jit
def _drawn(
    sampler: Sampler,
    factor: CholeskyFactor,
    likelihood: Likelihood,
    positions: Positions,
    key: PRNGKeyArray,
) -> Drawn:
    by_chain = sampler.whitened(positions, key)
    whitened = by_chain.reshape(-1, *by_chain.shape[2:])
    values = factor.colour(whitened)
    return Drawn(whitened, values, likelihood.project(values.reshape(by_chain.shape)))


@eqx.filter_jit
def _advance(sampler: Sampler, state: Any, count: Int[Array, ""]) -> tuple[Any, Chains]:
    """`count` more draws of a part's chains, in arrays of _CHUNK draws. Warm-up and sampling are one
    program, which knows by the state's own count when to stop adapting."""

    def draw(i: Array, carry: tuple[Any, Chains]) -> tuple[Any, Chains]:
        state, kept = carry
        state = sampler.move(state)
        seen = sampler.seen(state)
        return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), kept, seen)

    empty = jax.tree.map(lambda v: jnp.zeros((_CHUNK, *v.shape), v.dtype), sampler.seen(state))
    return jax.lax.fori_loop(0, count, draw, (state, empty))
