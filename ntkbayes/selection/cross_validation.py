"""Cross-validation: each point predicted from the other folds."""

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.laws import Method
from ntkbayes.laws.method import require_method
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.wrappers.held_out import held_out_logits, log_score
from ntkbayes.likelihood import Likelihood
from ntkbayes.priors.prior import NTKPrior


def cross_validated_nll(
    method: Method,
    prior: NTKPrior,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    num_folds: int = 5,
    likelihood: Likelihood | None = None,
) -> float:
    """Mean of −log p(yᵢ | data of the other folds), in nats per point. Lower is better.

    The same NLL as in `Comparison.table`: for soft targets, the cross-entropy of the mean prediction.

    Args:
        method: fitted num_folds times, to all folds but one.
        prior, data, likelihood: as for `Method.fit`.
        key: for the folds, the fits and the draws.
        num_folds: number of folds, stratified by class.

    Raises:
        ConfigurationError: there are fewer than 2 folds, or more folds than points.
    """
    require_method("cross_validated_nll(method, prior, data, key=key)", "method", method)
    key = random_key(key)
    problem = method.problem(prior, data, likelihood)
    return held_out_nll(method, problem, key=key, num_folds=num_folds)


def held_out_nll(method: Method, problem: Problem, *, key: PRNGKeyArray, num_folds: int) -> float:
    """`cross_validated_nll` of a problem whose kernel is known."""
    held_out = held_out_logits(method, problem, key, num_folds)
    terms = [log_score(problem.likelihood, y, draws) for y, draws in held_out]
    return -float(jnp.mean(jnp.concatenate(terms)))
