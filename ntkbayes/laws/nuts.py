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

    It moves in coordinates in which the Laplace posterior, class by class, is standard normal, with
    the identity as mass matrix (a dense one would be multiplied at every turning check), and the
    chains start at draws of that Gaussian.

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
        mode, roots = _gaussian_guide(problem, factor)

        kernel = Kernel(
            _model,
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
        starts = jax.random.normal(start_key, (self.num_chains, *mode.shape))
        sampler.run(
            run_key,
            problem.likelihood,
            problem.targets,
            problem.mean,
            factor.lower,
            mode,
            roots,
            init_params={"standard": starts if self.num_chains > 1 else starts[0]},
            extra_fields=("diverging", "num_steps", "accept_prob", "adapt_state.step_size"),
        )
        standard = sampler.get_samples(group_by_chain=True)["standard"]
        whitened = mode[None, None] + jnp.einsum("cij,ksjc->ksic", roots, standard)
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


def _model(
    likelihood: Likelihood,
    targets: Logits,
    mean: Logits,
    lower: Gram,
    mode: Logits,
    roots: Float[Array, "classes n n"],
) -> None:
    """The whitened latent GP model, z ~ N(0, I), f = mean + L z, y ~ p(y | f), in the coordinates
    ξ of z = ẑ + T_c ξ_c, in which the posterior is nearly standard normal."""
    import numpyro
    from numpyro.distributions import ImproperUniform, constraints

    standard = numpyro.sample(
        "standard", ImproperUniform(constraints.real_matrix, (), event_shape=targets.shape)
    )
    whitened = mode + jnp.einsum("cij,jc->ic", roots, standard)
    numpyro.factor("prior", -jnp.sum(whitened**2) / 2)
    log_density = likelihood.log_density(targets, mean + lower @ whitened)
    numpyro.factor("likelihood", jnp.sum(log_density))


@eqx.filter_jit
def _roots(lower: Gram, weights: Logits) -> Float[Array, "classes n n"]:
    """T_c with T_c T_cᵀ = (I + Lᵀ diag(w_c) L)⁻¹: the whitened Laplace posterior, classes apart."""

    def root(weight: Float[Array, " n"]) -> Gram:
        identity = jnp.eye(len(weight), dtype=lower.dtype)
        precision = identity + lower.T @ (weight[:, None] * lower)
        factor = jnp.linalg.cholesky(precision)
        return jax.scipy.linalg.solve_triangular(factor, identity, lower=True).T

    return jax.lax.map(root, weights.T)


def _gaussian_guide(
    problem: Problem, factor: CholeskyFactor
) -> tuple[Logits, Float[Array, "classes n n"]]:
    """Mode ẑ = Lᵀ a and class-wise root T of the covariance of the whitened latent."""
    mode = linearised.train(
        problem.likelihood,
        problem.gram.ntk,
        problem.targets,
        problem.mean,
        ridge=problem.ridge,
    )
    weights = problem.likelihood.curvature(mode.logits).matrix_diagonal
    whitened = problem.ridge * factor.lower.T @ mode.alpha
    return whitened, _roots(factor.lower, weights)
