"""Laplace's evidence where the kernel is known by its products alone.

Its determinant is estimated by Lanczos quadrature with random probes, preconditioned with the kernel's
surrogate; all else in R&W 3.44 takes products.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from ntkbayes.arguments import random_key
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.laws import Law
from ntkbayes.laws.gaussian.laplace import LaplaceInfo, laplace_evidence
from ntkbayes.laws.gaussian.posterior import SitePosterior
from ntkbayes.laws.law import require_law
from ntkbayes.likelihood.base import require_untempered
from ntkbayes.linalg import IterativeInverse, white_noise
from ntkbayes.ranges import whole
from ntkbayes.selection.estimate import EvidenceEstimate
from ntkbayes.training.progress import DELAY

_BLOCK = 8  # probes that share passes through the network
_WITHIN = 1e-3  # of the residual: the quadrature's error is its square
_MAX_PRODUCTS = 200


def lanczos_evidence(
    law: Law, *, key: PRNGKeyArray, num_probes: int = 16, progress: bool = False
) -> EvidenceEstimate:
    """Laplace's log evidence with the standard error of its determinant, for kernels too large to be
    formed (`EmpiricalKernel`, `linearise`); of a formed kernel the exact one, with error 0.

    The error is of several nats for thousands of logits. The same key gives the same probes, so that
    evidences at several ridges are off alike, and their differences known better. Each probe takes some
    dozens of products, about as long as training.

    Args:
        law: of Laplace.
        key: of the probes.
        num_probes: at least 4.
        progress: show a bar, after two seconds.

    Raises:
        ConfigurationError: the law is not Laplace's, or one of a tempered likelihood.
        ConvergenceError: conjugate gradients did not converge.
    """
    require_law("lanczos_evidence(law, key=key)", "law", law)
    num_probes = whole("num_probes", num_probes, at_least=4)
    if not isinstance(law, SitePosterior) or not isinstance(law.info, LaplaceInfo):
        raise ConfigurationError(
            f"this evidence is Laplace's; the law is of kind {law.kind.name!r}: give "
            "nb.Laplace().fit(prior, data)"
        )
    problem = law.problem
    require_untempered("the evidence", problem.likelihood)
    inverse = law.inverse
    if not isinstance(inverse, IterativeInverse):
        return EvidenceEstimate(law.info.log_evidence, 0.0, law.info.log_evidence)
    shape, found = problem.targets.shape, []
    starts = range(0, num_probes, _BLOCK)
    keys = jax.random.split(random_key(key), len(starts))
    with tqdm(total=num_probes, desc="evidence", disable=not progress, delay=DELAY) as bar:
        for start, block_key in zip(starts, keys, strict=True):
            size = min(_BLOCK, num_probes - start)
            noise = white_noise(block_key, (2, size, *shape))
            found.append(np.asarray(_log_determinants(inverse, noise)))
            bar.update(size)
    log_determinants = np.concatenate(found)
    if not np.isfinite(log_determinants).all():
        raise ConvergenceError(
            f"the evidence is not known: {_MAX_PRODUCTS} products were too few for "
            f"{np.sum(~np.isfinite(log_determinants))} of {num_probes} probes; use a larger ridge"
        )
    weights = problem.ridge * law.alpha
    given = (problem.likelihood, problem.targets, law.logits, problem.mean, weights)
    log_evidence = float(laplace_evidence(*given, jnp.asarray(np.mean(log_determinants))))
    error = float(np.std(log_determinants, ddof=1) / (2 * np.sqrt(num_probes)))
    return EvidenceEstimate(log_evidence, error, log_evidence)


@eqx.filter_jit
def _log_determinants(
    inverse: IterativeInverse, noise: Float[Array, "2 probes n classes"]
) -> Float[Array, " probes"]:
    return inverse.system.log_determinants((noise[0], noise[1]), _WITHIN, _MAX_PRODUCTS)
