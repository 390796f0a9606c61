"""The law before data: what a posterior was conditioned from."""

from jaxtyping import PRNGKeyArray

from ntkbayes.laws.chains.hierarchical import FullBayesLaw
from ntkbayes.laws.gaussian.prior_predictive import PriorPredictive
from ntkbayes.laws.law import Law


def has_prior(law: Law) -> bool:
    """Whether `before_data` knows the prior of a law."""
    outer = isinstance(law, FullBayesLaw) and bool(law.values.keys() - law.prior_values.keys())
    return law.problem.ridge > 0 and not outer


def before_data(law: Law, *, key: PRNGKeyArray, num_draws: int | None = None) -> Law:
    """The Bayesian prior with which a law was fitted: GP(mean, Θ/ridge), as a law of its own.

    Where hyper-parameters were sampled too (`FullBayes`) each draw has its own, from their hyper-priors.

    Args:
        law: any law.
        key: for hyper-parameters and their functions; the Gaussian process itself is not random.
        num_draws: draws that the law holds where hyper-parameters are drawn; as many as those of the
            posterior if None.

    Raises:
        RidgeError: the ridge is 0, for which there is no such prior.
        ConfigurationError: hyper-parameters belong to a NumPyro model around that of the law, or more
            draws are asked for than it holds.
    """
    if isinstance(law, FullBayesLaw):
        return law.before_data(key, num_draws)
    return PriorPredictive().solve(law.problem)
