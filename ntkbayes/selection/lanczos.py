"""Laplace's evidence, and its slope in the ridge, where the kernel is known by its products alone.

Its determinant is estimated by Lanczos quadrature with random probes, preconditioned with the kernel's
surrogate, and the determinant's derivative by the same probes; all else in R&W 3.44 takes products.
"""

from collections.abc import Callable

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
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood.base import require_untempered
from ntkbayes.linalg import Curvature, IterativeInverse, Logits, white_noise
from ntkbayes.ranges import whole
from ntkbayes.selection.estimate import EvidenceEstimate
from ntkbayes.selection.evidence import Evidence
from ntkbayes.training.progress import DELAY

_BLOCK = 8  # probes that share passes through the network
_WITHIN = 1e-3  # of the residual: the quadrature's error is its square
_WITHIN_OF_SLOPE = 1e-5  # the same; the slope's error is linear in it
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
    posterior = _laplace("lanczos_evidence", law)
    num_probes = whole("num_probes", num_probes, at_least=4)
    problem, inverse = posterior.problem, posterior.inverse
    if not isinstance(inverse, IterativeInverse):
        exact = posterior.info.log_evidence
        return EvidenceEstimate(exact, 0.0, exact)

    def work(noise: Noise) -> Array:
        return _log_determinants(inverse, noise)

    mean, error = _average(work, problem, key, num_probes, progress=progress)
    weights = problem.ridge * posterior.alpha
    given = (problem.likelihood, problem.targets, posterior.logits, problem.mean, weights)
    log_evidence = float(laplace_evidence(*given, jnp.asarray(mean)))
    return EvidenceEstimate(log_evidence, error / 2, log_evidence)


def lanczos_evidence_slope(
    law: Law, *, key: PRNGKeyArray, num_probes: int = 16, progress: bool = False
) -> tuple[float, float]:
    """The derivative of Laplace's log evidence in the ridge, in nats per unit, and its standard error,
    for kernels too large to be formed; of a formed kernel that of `evidence_gradient`, with error 0.

    With s = log ridge, δ = f̂ − mean and Σ = (P⁻¹ + W)⁻¹ it is, over the ridge,

        d log q / ds = −½ aᵀδ + ½ tr (I + W P)⁻¹ W P − ½ tr Σ dW/ds,   df̂/ds = −(I + P W)⁻¹ δ

    (R&W 5.21 to 5.24). The traces take the probes of `lanczos_evidence`, and some more products of each.

    Args:
        law, key, num_probes, progress: as for `lanczos_evidence`.

    Raises:
        ConfigurationError, ConvergenceError: as `lanczos_evidence`.
    """
    posterior = _laplace("lanczos_evidence_slope", law)
    num_probes = whole("num_probes", num_probes, at_least=4)
    problem, inverse = posterior.problem, posterior.inverse
    ridge = float(problem.ridge)
    if not isinstance(inverse, IterativeInverse):
        prior, values = problem.prior, {"ridge": problem.objective.ridge}
        given = (prior, problem.likelihood, problem.features, problem.targets, values)
        slopes = Evidence(*given, problem.gram.ntk).value_and_gradient(values)[1]
        return slopes["ridge"].item(), 0.0
    change = _change_of_curvature(problem, inverse, posterior.logits)

    def work(noise: Noise) -> Array:
        return _slopes(inverse, noise, change)

    mean, error = _average(work, problem, key, num_probes, progress=progress)
    explained = ridge * float(jnp.sum(posterior.alpha * (posterior.logits - problem.mean)))
    return -(explained + mean) / (2 * ridge), error / (2 * ridge)


Noise = Float[Array, "2 probes n classes"]


def _laplace(call: str, law: Law) -> SitePosterior[LaplaceInfo]:
    """The law, if it is one with Laplace's evidence."""
    require_law(f"{call}(law, key=key)", "law", law)
    if not isinstance(law, SitePosterior) or not isinstance(law.info, LaplaceInfo):
        raise ConfigurationError(
            f"this evidence is Laplace's; the law is of kind {law.kind.name!r}: give "
            "nb.Laplace().fit(prior, data)"
        )
    require_untempered("the evidence", law.problem.likelihood)
    return law


def _average(
    work: Callable[[Noise], Array],
    problem: Problem,
    key: PRNGKeyArray,
    num_probes: int,
    *,
    progress: bool,
) -> tuple[float, float]:
    """Mean over probes of what `work` makes of a block of them, and its standard error.

    Raises:
        ConvergenceError: it is not a number for some of them.
    """
    starts = range(0, num_probes, _BLOCK)
    keys = jax.random.split(random_key(key), len(starts))
    found = []
    with tqdm(total=num_probes, desc="evidence", disable=not progress, delay=DELAY) as bar:
        for start, block_key in zip(starts, keys, strict=True):
            size = min(_BLOCK, num_probes - start)
            noise = white_noise(block_key, (2, size, *problem.targets.shape))
            found.append(np.asarray(work(noise)))
            bar.update(size)
    values = np.concatenate(found)
    if not np.isfinite(values).all():
        raise ConvergenceError(
            f"the evidence is not known: {_MAX_PRODUCTS} products were too few for "
            f"{np.sum(~np.isfinite(values))} of {num_probes} probes; use a larger ridge"
        )
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(num_probes))


@eqx.filter_jit
def _log_determinants(inverse: IterativeInverse, noise: Noise) -> Float[Array, " probes"]:
    return inverse.system.probe((noise[0], noise[1]), _WITHIN, _MAX_PRODUCTS).log_determinants


@eqx.filter_jit
def _slopes(inverse: IterativeInverse, noise: Noise, change: Curvature) -> Float[Array, " probes"]:
    """Of the log determinant in the log of the ridge; NaN where products were too few."""
    probes = inverse.system.probe((noise[0], noise[1]), _WITHIN_OF_SLOPE, _MAX_PRODUCTS)
    return jnp.where(probes.is_solved, inverse.system.slopes(probes, change), jnp.nan)


@eqx.filter_jit
def _change_of_curvature(problem: Problem, inverse: IterativeInverse, logits: Logits) -> Curvature:
    """dW/ds: along df̂/ds = −(δ − P B δ), s the log of the ridge."""
    delta = logits - problem.mean
    moved = inverse.gram @ inverse.matvec(delta) - delta
    return jax.jvp(lambda f: problem.objective.curvature(f), (logits,), (moved,))[1]
