"""Expectation propagation for one logit (Minka 2001; R&W 3.6), all sites in parallel."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.gaussian.marginals import PerLogit, tilted
from ntkbayes.laws.gaussian.posterior import GaussianPosterior, SiteInfo, cavity
from ntkbayes.laws.gaussian.sites import Estimate, Posterior, SiteMethod, Sites
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Logits
from ntkbayes.ranges import Range, real_field, whole_field


class ExpectationPropagation(SiteMethod):
    """The Gaussian whose marginals have the moments of (likelihood of a point) × (all other sites).

    The most accurate of the Gaussian approximations of binary classification (Nickisch & Rasmussen
    2008). One logit only.

    Args:
        tolerance: on how far the marginals still move, as `SiteInfo.site_move`.
        max_iterations: parallel sweeps before giving up.
    """

    name: ClassVar[str] = "EP"
    kind: ClassVar[Kind] = Kind(
        "EP",
        Sampling.GAUSSIAN,
        "the Gaussian whose marginals match the moments of the posterior, site by "
        "site (expectation propagation).",
    )
    tolerance: float = real_field("tolerance", 1e-8, Range.POSITIVE_FINITE)
    max_iterations: int = whole_field("max_iterations", 400)

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None = None
    ) -> GaussianPosterior[SiteInfo]:
        if problem.num_outputs != 1:
            raise ConfigurationError(
                f"expectation propagation takes one logit, the likelihood has {problem.num_outputs}; "
                "use Variational() or MeanField()"
            )
        return super().solve(problem, key)

    def rule(self, likelihood: Likelihood, targets: Logits, posterior: Posterior) -> Sites:
        centre, spread = _without_site(posterior)
        _, mean, variance = tilted(likelihood, targets, centre, spread)
        precision = 1 / variance - 1 / spread
        # ν − Λ m of the site that would give the tilted moments.
        weights = mean / variance - centre / spread - precision * posterior.logits
        return Sites(weights, precision[:, :, None])

    def log_evidence(
        self, likelihood: Likelihood, targets: Logits, mean: Logits, posterior: Posterior
    ) -> Estimate:
        """EP's own approximation (R&W 3.65)."""
        return Estimate(_log_evidence(likelihood, targets, mean, posterior), jnp.zeros(()))


@eqx.filter_jit
def _log_evidence(
    likelihood: Likelihood, targets: Logits, mean: Logits, posterior: Posterior
) -> Float[Array, ""]:
    centre, spread = _without_site(posterior)
    m, variance = posterior.logits, posterior.covariances[:, :, 0]
    weights = posterior.sites.weights
    shifts = weights + posterior.sites.precisions[:, :, 0] * m
    log_masses, _, _ = tilted(likelihood, targets, centre, spread)
    gaussian = jnp.log(variance / spread) + m**2 / variance - centre**2 / spread
    joint = jnp.sum(weights * mean + shifts * m) - posterior.inverse.log_determinant
    return jnp.sum(log_masses - gaussian / 2) + joint / 2


def _without_site(posterior: Posterior) -> tuple[PerLogit, PerLogit]:
    """Mean and variance of each marginal without its own site."""
    sites = posterior.sites
    mean, covariance = cavity(
        posterior.logits, posterior.covariances, sites.weights, sites.precisions
    )
    return mean, covariance[:, :, 0]
