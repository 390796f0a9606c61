"""The evidence by bridge sampling, with its Monte Carlo error: the check on Laplace's.

Draws of the posterior and of a Gaussian q near it meet half-way (Meng & Wong 1996). With weights
w = p(y | f) p(f) / q(f), and shares s₁ and s₂ of the two kinds of draw, the evidence is the fixed point

    r = mean over q of w / (s₁ w + s₂ r)  /  mean over the posterior of 1 / (s₁ w + s₂ r)

whose two integrands are bounded, where w itself may have infinite variance. q is not fitted to the
draws, so that none have to be set apart for it.
"""

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.laws import Laplace, Law
from ntkbayes.laws.chains.hierarchical import FullBayesLaw
from ntkbayes.laws.chains.mixing import WORST_RHAT
from ntkbayes.laws.chains.sampler import ChainLaw
from ntkbayes.laws.gaussian.posterior import PosteriorMethod
from ntkbayes.laws.law import require_law
from ntkbayes.likelihood.base import require_untempered
from ntkbayes.ranges import whole
from ntkbayes.selection.estimate import (
    EvidenceEstimate,
    approximate_evidence,
    known,
    log_mean,
)

_ALIKE = 1e-9  # nats, to which log weights may differ by round-off alone

LogWeights = Float[np.ndarray, "chains samples"]


def bridge_evidence(
    law: Law,
    *,
    key: PRNGKeyArray,
    method: PosteriorMethod | None = None,
    num_draws: int = 10_000,
) -> EvidenceEstimate:
    """The log evidence of the prior whose posterior was sampled, with its standard error
    (Frühwirth-Schnatter 2004), which counts draws of Markov chains by their effective number.

    Args:
        law: of NUTS or SplitHMC.
        key: of the Gaussian's draws.
        method: of the Gaussian posterior, by default Laplace; the nearer to the posterior, the smaller
            the error. Variational, MeanField and ExpectationPropagation are others.
        num_draws: of the Gaussian.

    Raises:
        ConvergenceError: the chains have not converged (R-hat above 1.05), or the posterior and the
            Gaussian overlap too little: the error would be above 0.3 nats. `smc_evidence` then still
            knows it.
        ConfigurationError: the law's draws are not those of a posterior by Markov chains, or of a
            tempered one.
    """
    require_law("bridge_evidence(law, key=key)", "law", law)
    num_draws = whole("num_draws", num_draws, at_least=100)
    if not isinstance(law, ChainLaw):
        instead = "nb.smc_evidence takes Gaussian posteriors"
        if isinstance(law, FullBayesLaw):
            instead = "the evidence of FullBayes is nb.full_bayes_evidence's"
        raise ConfigurationError(
            "the evidence by bridge sampling needs draws of the posterior by NUTS or SplitHMC; this law "
            f"is of kind {law.kind.name!r}, and {instead}"
        )
    if not law.info.max_rhat <= WORST_RHAT:
        raise ConvergenceError(
            f"the chains have not converged (R-hat {law.info.max_rhat:.3f}), so that their draws are "
            "not the posterior's: use more num_warmup and num_samples"
        )
    problem = law.problem
    require_untempered("the evidence", problem.likelihood)
    gaussian = (method or Laplace()).solve(problem)
    posterior = np.asarray(gaussian.log_weights(problem.mean[None] + law.g.values))
    g, alpha = gaussian.paths(random_key(key), num_draws)
    assert g is not None
    proposed = gaussian.log_weights(problem.mean[None] + g.values + problem.gram.ntk @ alpha)
    chains = posterior.reshape(law.num_chains, -1)
    log_evidence, error = bridge(chains, np.asarray(proposed))
    return known(
        EvidenceEstimate(log_evidence, error, approximate_evidence(gaussian)),
        f"the posterior and {gaussian.kind.name} overlap too little. Use nb.smc_evidence, "
        "method=nb.Variational(), or more draws of both",
    )


def bridge(posterior: LogWeights, proposed: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    """Log evidence and its standard error from log weights, of Markov chains' draws of the posterior and
    of independent draws of q.

    Raises:
        ConvergenceError: the weights are not finite.
    """
    from scipy.optimize import brentq  # which takes long to import

    if not (np.isfinite(posterior).all() and np.isfinite(proposed).all()):
        raise ConvergenceError("some draws have no finite weight: the posterior is too far from q")
    smallest = min(posterior.min(), proposed.min())
    largest = max(posterior.max(), proposed.max())
    if largest - smallest <= _ALIKE:
        return float(np.mean(proposed)), 0.0  # q is the posterior
    effective = _effective(posterior)
    share = effective / (effective + proposed.size)

    def growth(log_r: float) -> float:
        """Of r in one step to the fixed point; it falls, from ≥ 0 at the smallest weight to ≤ 0 at the
        largest."""
        of_q, of_p = _integrands(posterior, proposed, share, log_r)
        return log_mean(of_q) - log_mean(of_p)

    log_r = float(brentq(growth, smallest, largest, xtol=1e-10))
    of_q, of_p = (
        np.exp(part - part.max()) for part in _integrands(posterior, proposed, share, log_r)
    )
    squares = np.var(of_q) / np.mean(of_q) ** 2 / of_q.size
    squares += np.var(of_p) / np.mean(of_p) ** 2 / _effective(of_p)
    return log_r, float(np.sqrt(squares))


def _integrands(
    posterior: LogWeights, proposed: Float[np.ndarray, " draws"], share: float, log_r: float
) -> tuple[Float[np.ndarray, " draws"], LogWeights]:
    """Logs of w/r / (s₁ w/r + s₂) over q, and 1 / (s₁ w/r + s₂) over the posterior."""
    log_share, log_other = np.log(share), np.log1p(-share)
    over_q, over_p = proposed - log_r, posterior - log_r
    denominator = np.logaddexp(log_share + over_q, log_other)
    return over_q - denominator, -np.logaddexp(log_share + over_p, log_other)


def _effective(values: LogWeights) -> float:
    """How many independent draws would give the mean as accurately, at most as many as there are."""
    from arviz_stats.base import array_stats

    if values.shape[1] < 4:
        raise ConfigurationError(f"chains of {values.shape[1]} draws tell no error: use 4 or more")
    ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")
    return float(np.clip(ess, 1.0, values.size))
