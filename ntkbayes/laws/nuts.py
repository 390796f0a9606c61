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
from ntkbayes.laws.base import Info, Method, Problem, SampledLaw
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
        process = conditioned_tangent_process(
            problem.prior, problem.features, problem.gram, problem.num_outputs
        )
        factor = process.factor
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
        whitened = mode[None, None] + _colour(roots, standard)
        info = self._diagnose(problem, factor, whitened, sampler.get_extra_fields(True))
        draws = whitened.reshape(-1, *whitened.shape[2:])
        return NUTSLaw(problem, process.path(draws), jnp.zeros_like(draws), info, self.num_chains)

    def _diagnose(
        self, problem: Problem, factor: CholeskyFactor, whitened: Array, fields: dict
    ) -> NUTSInfo:
        from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

        seen = np.asarray(problem.likelihood.project(factor.colour(whitened)))
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
    roots: Roots,
) -> None:
    """The whitened latent GP model, z ~ N(0, I), f = mean + L z, y ~ p(y | f), in the coordinates
    ξ of z = ẑ + T ξ, in which the posterior is nearly standard normal."""
    import numpyro
    from numpyro.distributions import ImproperUniform, constraints

    standard = numpyro.sample(
        "standard", ImproperUniform(constraints.real_matrix, (), event_shape=targets.shape)
    )
    whitened = mode + _colour(roots, standard)
    numpyro.factor("prior", -jnp.sum(whitened**2) / 2)
    log_density = likelihood.log_density(targets, mean + apply(lower, whitened))
    numpyro.factor("likelihood", jnp.sum(log_density))


@eqx.filter_jit
def _roots(lower: Gram, curvature: Curvature) -> Roots:
    """T with T Tᵀ = (I + Lᵀ W L)⁻¹, the whitened Laplace posterior: where the outputs share L, class by
    class with the diagonal of W; in full where L couples them."""

    def root(precision: Gram) -> Gram:
        identity = jnp.eye(len(precision), dtype=precision.dtype)
        factor = jnp.linalg.cholesky(identity + precision)
        return jax.scipy.linalg.solve_triangular(factor, identity, lower=True).T

    weights = curvature.matrix_diagonal
    if lower.shape[0] == weights.shape[0]:
        return jax.lax.map(lambda w: root(lower.T @ (w[:, None] * lower)), weights.T)
    columns = lower.reshape(*weights.shape, -1)
    curved = jax.vmap(curvature.matvec, 2, 2)(columns)
    return root(lower.T @ curved.reshape(lower.shape))


def _colour(roots: Roots, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws n classes"]:
    """T v."""
    if roots.ndim == 2:
        return apply(roots, v)
    return jnp.einsum("cij,...jc->...ic", roots, v)


def _gaussian_guide(problem: Problem, factor: CholeskyFactor) -> tuple[Logits, Roots]:
    """Mode ẑ = Lᵀ a and root T of the covariance of the whitened latent."""
    mode = linearised.train(
        problem.likelihood,
        problem.gram.ntk,
        problem.targets,
        problem.mean,
        ridge=problem.ridge,
    )
    whitened = problem.ridge * apply(factor.lower.T, mode.alpha)
    return whitened, _roots(factor.lower, problem.likelihood.curvature(mode.logits))
