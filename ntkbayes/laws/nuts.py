"""The exact posterior of GP classification, by the no-U-turn sampler of NumPyro."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped
from tqdm.auto import tqdm

from ntkbayes.errors import ConfigurationError, ConvergenceWarning
from ntkbayes.laws.base import Draws, Info, Method, Problem, SampledLaw
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import CholeskyFactor, Curvature, Gram, Logits, apply
from ntkbayes.paths import conditioned_tangent_process
from ntkbayes.training import linearised

Roots = Float[Array, "classes n n"] | Float[Array, "rows rows"]


@dataclass(frozen=True)
class NUTSInfo(Info):
    """num_divergences: transitions whose energy error exploded; should be 0. max_rhat: the largest
    split R-hat, and min_ess the smallest effective sample size, of the logits at the training
    points up to what the likelihood cannot see. mean_steps: leapfrog steps a draw. mean_accept:
    acceptance statistic, mean_step_size: over chains."""

    num_divergences: int
    max_rhat: float
    min_ess: float
    mean_steps: float
    mean_accept: float
    mean_step_size: float


class NUTSLaw(SampledLaw):
    """Draws of the posterior: g given the data, at X, and α = 0. At new inputs g is conditioned on
    its values at X exactly."""

    sampling = "Markov chains"


class NUTS(Method[NUTSLaw]):
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
        max_tree_depth: a trajectory takes at most 2^this steps.
        progress: show a progress bar, over warm-up and samples.
    """

    name: ClassVar[str] = "NUTS"
    num_samples: int = 1000
    num_warmup: int = 500
    num_chains: int = 4
    target_accept: float = 0.8
    max_tree_depth: int = 10
    progress: bool = False

    def __check_init__(self) -> None:
        if self.num_samples < 4 or self.num_warmup < 1 or self.num_chains < 1:
            raise ConfigurationError(
                "NUTS needs num_samples ≥ 4, num_warmup ≥ 1 and num_chains ≥ 1; got "
                f"{self.num_samples}, {self.num_warmup}, {self.num_chains}"
            )

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> NUTSLaw:
        key = self._require_key(key)
        problem.prior.require_ridge("the posterior")
        start_key, run_key = jax.random.split(key)
        process = conditioned_tangent_process(
            problem.prior, problem.features, problem.gram, problem.num_outputs
        )
        factor = process.factor
        mode, curvature = _laplace(problem, factor)
        roots, target = _target(
            problem.likelihood, problem.targets, problem.mean, factor.lower, mode, curvature
        )
        starts = jax.random.normal(start_key, (self.num_chains, *mode.shape))
        chains = self._run(target, starts, jax.random.split(run_key, self.num_chains))

        whitened = _whitened(roots, mode, jnp.asarray(chains.position))
        info = self._diagnose(problem, factor, whitened, chains)
        draws = whitened.reshape(-1, *mode.shape)
        return NUTSLaw(problem, process.path(draws), jnp.zeros_like(draws), info, self.num_chains)

    def _run(self, target: "Target", starts: Draws, keys: Shaped[Array, " chains"]) -> "Chains":
        """The chains after warm-up, a chunk of draws at a time: Ctrl-C stops between chunks."""
        settings = (jnp.asarray(self.target_accept), self.num_warmup, self.max_tree_depth)
        state = _start(target, starts, keys, *settings)
        parts, done, total = [], 0, self.num_warmup + self.num_samples
        with tqdm(total=total, desc=self.name, disable=not self.progress) as bar:
            while done < total:
                count = min(_CHUNK, total - done)
                state, chunk = _advance(target, state, np.asarray(count), *settings)
                first = max(0, self.num_warmup - done)
                parts.append(Chains(*(np.asarray(v)[first:count] for v in chunk)))
                done += count
                bar.update(count)
        return Chains(*(np.concatenate(v).swapaxes(0, 1) for v in zip(*parts, strict=True)))

    def _diagnose(
        self, problem: Problem, factor: CholeskyFactor, whitened: Array, chains: "Chains"
    ) -> NUTSInfo:
        from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

        seen = np.asarray(problem.likelihood.project(factor.colour(whitened)))
        info = NUTSInfo(
            num_divergences=int(chains.diverging.sum()),
            max_rhat=float(np.max(split_gelman_rubin(seen))),
            min_ess=float(np.min(effective_sample_size(seen))),
            mean_steps=float(chains.num_steps.mean()),
            mean_accept=float(chains.accept.mean()),
            mean_step_size=float(chains.step_size.mean()),
        )
        if info.num_divergences or not info.max_rhat <= 1.05:
            warnings.warn(
                f"the chains have not converged: {info.num_divergences} divergences, R-hat up to "
                f"{info.max_rhat:.3f}. Use more num_warmup and num_samples, or a higher "
                "target_accept",
                ConvergenceWarning,
                stacklevel=4,
            )
        return info


# --- the coordinates of the chains ----------------------------------------------------------------


class Target(eqx.Module):
    """The posterior in the coordinates ξ of z = ẑ + T ξ, nearly standard normal in them.

    T Tᵀ is the covariance of the whitened Laplace posterior, and Tᵀ T is diagonal. So the logits
    f̂ + L T ξ and their transpose are the only matrix products of a leapfrog step.

    Attributes:
        likelihood, targets: of the data.
        logits: f̂ = mean + L ẑ, (n, C).
        roots: L T.
        slope: Tᵀ ẑ, (n, C).
        precision: the diagonal of Tᵀ T, (n, C).
    """

    likelihood: Likelihood
    targets: Logits
    logits: Logits
    roots: Roots
    slope: Logits
    precision: Logits

    def potential(self, position: Logits) -> Float[Array, ""]:
        """−log density at ξ, up to a constant."""
        logits = self.logits + _product(self.roots, position)
        whitened = jnp.sum(self.slope * position + self.precision * position**2 / 2)
        return whitened - jnp.sum(self.likelihood.log_density(self.targets, logits))


def _laplace(problem: Problem, factor: CholeskyFactor) -> tuple[Logits, Curvature]:
    """Mode ẑ = Lᵀ a of the whitened latent, and W there."""
    mode = linearised.train(
        problem.likelihood,
        problem.gram.ntk,
        problem.targets,
        problem.mean,
        ridge=problem.ridge,
    )
    whitened = problem.ridge * apply(factor.lower.T, mode.alpha)
    return whitened, problem.likelihood.curvature(problem.targets, mode.logits)


@eqx.filter_jit
def _target(
    likelihood: Likelihood,
    targets: Logits,
    mean: Logits,
    lower: Gram,
    mode: Logits,
    curvature: Curvature,
) -> tuple[Roots, Target]:
    """T with T Tᵀ = (I + Lᵀ W L)⁻¹, the whitened Laplace posterior, and the chains' target. Where the
    outputs share L, class by class with the diagonal of W; in full where L couples them."""

    def root(precision: Gram) -> tuple[Gram, Float[Array, " rows"]]:
        values, vectors = jnp.linalg.eigh(precision)
        shrunk = 1 / (1 + values)
        return vectors * jnp.sqrt(shrunk)[None, :], shrunk

    weights = curvature.matrix_diagonal
    if lower.shape[0] == len(weights):
        roots, precision = jax.lax.map(lambda w: root(lower.T @ (w[:, None] * lower)), weights.T)
        logit_roots, precision = lower[None] @ roots, precision.T
        slope = jnp.einsum("cji,jc->ic", roots, mode)
    else:
        columns = lower.reshape(*weights.shape, -1)
        curved = jax.vmap(curvature.matvec, 2, 2)(columns)
        roots, precision = root(lower.T @ curved.reshape(lower.shape))
        logit_roots, precision = lower @ roots, precision.reshape(weights.shape)
        slope = apply(roots.T, mode)
    logits = mean + apply(lower, mode)
    return roots, Target(likelihood, targets, logits, logit_roots, slope, precision)


def _product(roots: Roots, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws n classes"]:
    if roots.ndim == 2:
        return apply(roots, v)
    return jnp.einsum("cij,...jc->...ic", roots, v)


@eqx.filter_jit
def _whitened(
    roots: Roots, mode: Logits, position: Float[Array, "chains samples n classes"]
) -> Float[Array, "chains samples n classes"]:
    """z = ẑ + T ξ."""
    return mode[None, None] + _product(roots, position)


# --- compiled once for all problems of a shape ----------------------------------------------------

_CHUNK = 50  # draws between two signs of life


Numbers = Shaped[Array | np.ndarray, "..."]


class Chains(NamedTuple):
    """What is kept: (draws, chains, ...) while the chains run, (chains, samples, ...) at the end."""

    position: Numbers
    diverging: Numbers
    num_steps: Numbers
    accept: Numbers
    step_size: Numbers


def _transitions(
    target: Target, target_accept: Array, num_warmup: int, max_tree_depth: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """NumPyro's functions that begin a chain and move it on."""
    from numpyro.infer.hmc import hmc

    begin, move = hmc(target.potential, algo="NUTS")

    def configured(position: Logits, key: PRNGKeyArray) -> Any:
        return begin(
            position,
            num_warmup,
            adapt_mass_matrix=False,
            target_accept_prob=target_accept,
            trajectory_length=None,
            max_tree_depth=max_tree_depth,
            rng_key=key,
        )

    return configured, move


@eqx.filter_jit
def _start(
    target: Target,
    starts: Draws,
    keys: Shaped[Array, " chains"],
    target_accept: Array,
    num_warmup: int,
    max_tree_depth: int,
) -> Any:
    begin, _ = _transitions(target, target_accept, num_warmup, max_tree_depth)
    return jax.vmap(begin)(starts, keys)


@eqx.filter_jit
def _advance(
    target: Target,
    state: Any,
    count: Int[np.ndarray, ""] | Int[Array, ""],
    target_accept: Array,
    num_warmup: int,
    max_tree_depth: int,
) -> tuple[Any, Chains]:
    """`count` more draws of every chain, in arrays of _CHUNK draws. Warm-up and sampling are the same
    program, which knows by the state's own count when to stop adapting."""
    begin, move = _transitions(target, target_accept, num_warmup, max_tree_depth)
    jax.vmap(begin)(
        state.z, state.rng_key
    )  # NumPyro's `move` needs the settings; its value is unused

    def seen(state: Any) -> Chains:
        step_size = state.adapt_state.step_size
        return Chains(state.z, state.diverging, state.num_steps, state.accept_prob, step_size)

    def draw(i: Array, carry: tuple[Any, Chains]) -> tuple[Any, Chains]:
        state, kept = carry
        state = jax.vmap(move)(state)
        return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), kept, seen(state))

    empty = jax.tree.map(lambda v: jnp.zeros((_CHUNK, *v.shape), v.dtype), seen(state))
    return jax.lax.fori_loop(0, count, draw, (state, empty))
