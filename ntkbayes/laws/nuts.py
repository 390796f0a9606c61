"""The exact posterior of GP classification, by the no-U-turn sampler of NumPyro."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError, ConvergenceWarning
from ntkbayes.kernels import KernelPair
from ntkbayes.laws.base import Info, Method, Paths, Problem, SampledLaw
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import CholeskyFactor, Gram, Logits, cholesky
from ntkbayes.training import linearised


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

    def path_kernel(self, pair: KernelPair) -> Array:
        return pair.ntk / self.problem.ridge


class NUTS(Method[NUTSLaw]):
    """No-U-turn sampling of the whitened latent z, f(X) = mean + L z with L Lᵀ = Θ/ridge.

    The mass matrix is that of the Laplace posterior, class by class, and is not adapted; the chains
    start at draws of that Gaussian.

    Args:
        num_samples: draws kept, a chain.
        num_warmup: draws thrown away while the step size adapts, a chain.
        num_chains: chains, run side by side.
        target_accept: acceptance probability that the step size aims at.
        max_tree_depth: a trajectory takes at most 2^this steps.
        progress: show NumPyro's progress bar.
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
        from numpyro.infer import MCMC
        from numpyro.infer import NUTS as Kernel

        key = self._require_key(key)
        problem.prior.require_ridge("the posterior")
        start_key, run_key = jax.random.split(key)
        factor = cholesky(problem.prior_gram, what="the NTK Gram matrix")
        mode, covariances = _gaussian_guide(problem, factor)
        sites = _sites(problem.targets.shape[1])

        kernel = Kernel(
            _model,
            dense_mass=[(site,) for site in sites],
            inverse_mass_matrix={
                (site,): covariance for site, covariance in zip(sites, covariances, strict=True)
            },
            adapt_mass_matrix=False,
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_tree_depth,
        )
        sampler = MCMC(
            kernel,
            num_warmup=self.num_warmup,
            num_samples=self.num_samples,
            num_chains=self.num_chains,
            chain_method="vectorized",
            progress_bar=self.progress,
        )
        roots = jnp.linalg.cholesky(covariances)
        noise = jax.random.normal(start_key, (self.num_chains, *mode.shape))
        starts = mode[None] + jnp.einsum("cij,kjc->kic", roots, noise)
        if self.num_chains == 1:
            starts = starts[0]
        sampler.run(
            run_key,
            problem.likelihood,
            problem.targets,
            problem.mean,
            factor.lower,
            init_params={site: starts[..., c] for c, site in enumerate(sites)},
            extra_fields=("diverging", "num_steps", "accept_prob", "adapt_state.step_size"),
        )
        samples = sampler.get_samples(group_by_chain=True)
        whitened = jnp.stack([samples[site] for site in sites], axis=-1)
        info = self._diagnose(problem, factor, whitened, sampler.get_extra_fields(True))
        draws = whitened.reshape(-1, *whitened.shape[2:])
        return NUTSLaw(problem, Paths(draws, jnp.zeros_like(draws)), factor, info, self.num_chains)

    def _diagnose(
        self, problem: Problem, factor: CholeskyFactor, whitened: Array, fields: dict
    ) -> NUTSInfo:
        from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

        paths = jnp.einsum("ij,ksjc->ksic", factor.lower, whitened)
        seen = np.asarray(problem.likelihood.project(paths))
        info = NUTSInfo(
            num_divergences=int(fields["diverging"].sum()),
            max_rhat=float(np.max(split_gelman_rubin(seen))),
            min_ess=float(np.min(effective_sample_size(seen))),
            mean_steps=float(fields["num_steps"].mean()),
            mean_accept=float(fields["accept_prob"].mean()),
            mean_step_size=float(fields["adapt_state.step_size"].mean()),
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


def _sites(num_outputs: int) -> list[str]:
    return [f"latent_{c}" for c in range(num_outputs)]


def _model(likelihood: Likelihood, targets: Logits, mean: Logits, lower: Gram) -> None:
    """The whitened latent GP model: z ~ N(0, I), f = mean + L z, y ~ p(y | f)."""
    import numpyro
    from numpyro.distributions import Normal

    size, num_outputs = targets.shape
    standard = Normal(0.0, 1.0).expand((size,)).to_event(1)
    whitened = [numpyro.sample(site, standard) for site in _sites(num_outputs)]
    logits = mean + lower @ jnp.stack(whitened, axis=1)
    numpyro.factor("likelihood", jnp.sum(likelihood.log_density(targets, logits)))


@eqx.filter_jit
def _covariances(lower: Gram, weights: Logits) -> Float[Array, "classes n n"]:
    """(I + Lᵀ diag(w_c) L)⁻¹ for each logit: the whitened Laplace posterior, classes apart."""

    def covariance(weight: Float[Array, " n"]) -> Gram:
        inner = lower.T @ (weight[:, None] * lower)
        identity = jnp.eye(len(weight), dtype=lower.dtype)
        root = jnp.linalg.cholesky(inner + identity)
        return jax.scipy.linalg.cho_solve((root, True), identity)

    return jax.lax.map(covariance, weights.T)


def _gaussian_guide(
    problem: Problem, factor: CholeskyFactor
) -> tuple[Logits, Float[Array, "classes n n"]]:
    """Mode and class-wise covariance of the whitened latent: ẑ = Lᵀ a."""
    mode = linearised.train(
        problem.likelihood,
        problem.gram.ntk,
        problem.targets,
        problem.mean,
        ridge=problem.ridge,
    )
    weights = problem.likelihood.curvature(mode.logits).matrix_diagonal
    whitened = problem.ridge * factor.lower.T @ mode.alpha
    return whitened, _covariances(factor.lower, weights)
