"""The GP classifier as a NumPyro model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.chains.hierarchical import (
    HIERARCHICAL_POSTERIOR,
    FullBayesLaw,
    factor,
    hyperprior_of,
    judged_draws,
)
from ntkbayes.laws.chains.mixing import MixingInfo
from ntkbayes.laws.problem import Problem, require_problem
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.linalg import Logits, require_float64
from ntkbayes.priors.hyperparameters import value_of, with_values
from ntkbayes.priors.prior import NTKPrior

_POSITIVE = ("weight_std", "bias_std", "ridge")


@dataclass(frozen=True, eq=False, repr=False)
class NumPyroModel(Configured):
    """The GP classifier as a NumPyro model; made by `numpyro_model`.

    Called, it declares its sites: the hyper-parameters by name, the whitened latent `whitened` of shape
    (n, C), the deterministic `logits` = mean + L z with L Lᵀ = Θ/ridge, and the factor `likelihood`. It
    is to be sampled as it is, or called within a larger model, under `numpyro.handlers.scope` if more
    than once.
    """

    problem: Problem
    hyperpriors: Mapping[str, Any]

    def __call__(self, values: Mapping[str, Any] | None = None) -> Logits:
        """The logits at the training points, (n, C).

        Args:
            values: of hyper-parameters that the surrounding model has made of sites of its own, by name.

        Raises:
            ConfigurationError: a hyper-parameter has both a hyper-prior and a value.
            UnknownNameError: there is no such hyper-parameter.
        """
        values = dict(values or {})
        if both := sorted(values.keys() & self.hyperpriors.keys()):
            raise ConfigurationError(
                f"{both[0]} has a hyper-prior already; leave it out there, or out of values"
            )
        for name in values:
            value_of(self.problem.prior, name)
        return declare(self.problem, self.hyperpriors, values)

    def law(
        self, draws: Mapping[str, Any], *, values: Mapping[str, Any] | None = None
    ) -> "FullBayesLaw[MixingInfo]":
        """The law of Markov chains that were run on this model, or on a larger one around it.

        Args:
            draws: of its sites, each (chains, samples, ...), as `MCMC.get_samples(group_by_chain=True)`
                gives them; under a scope, without its prefix. Other sites are passed over.
            values: draws of the hyper-parameters that the model was called with, (chains, samples, ...).

        Raises:
            ConfigurationError: a site is missing, or the logits are not those of the other draws.
        """
        values = {name: jnp.asarray(part) for name, part in (values or {}).items()}
        names = (*self.hyperpriors, "whitened", "logits")
        if missing := [name for name in names if name not in draws]:
            raise ConfigurationError(
                f"the draws lack the site {missing[0]!r} of this model; they have {sorted(draws)}"
            )
        own = {name: jnp.asarray(draws[name]) for name in names}
        shape = self.problem.targets.shape
        for name, part in {**own, **values}.items():
            leading = own["whitened"].shape[:2]
            if own["whitened"].shape[2:] != shape or part.shape[:2] != leading:
                raise ConfigurationError(
                    f"draws of {name} have shape {part.shape}, those of whitened "
                    f"{own['whitened'].shape}; give (chains, samples, ...) for the {shape} logits, by "
                    "get_samples(group_by_chain=True)"
                )
        chains = own["whitened"].shape[0]
        values |= {name: own[name] for name in self.hyperpriors}
        seen = {**values, "logits": self.problem.likelihood.project(own["logits"])}
        info = MixingInfo(**judged_draws(seen, num_divergences=0))
        flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in values.items()}
        law = FullBayesLaw(
            self.problem,
            HIERARCHICAL_POSTERIOR,
            info,
            flat,
            own["whitened"].reshape(-1, *shape),
            *hyperprior_of(self.hyperpriors, flat, jax.random.key(0)),
            {},
            num_chains=chains,
        )
        last = _logits({k: v[-1] for k, v in flat.items()}, law.whitened[-1], self.problem)
        if not bool(jnp.allclose(last, own["logits"][-1, -1], rtol=1e-6, atol=1e-6)):
            raise ConfigurationError(
                "the logits drawn are not those of whitened under these hyper-parameters; give in "
                "values all that the model was called with"
            )
        return law


def numpyro_model(
    prior: NTKPrior,
    data: Dataset,
    *,
    hyperpriors: Mapping[str, Any] | None = None,
    likelihood: Likelihood | None = None,
) -> NumPyroModel:
    """The GP classifier as a NumPyro model, to be sampled as it is or called within a larger one.

    Args:
        prior: network, ridge and mean.
        data: training data.
        hyperpriors: NumPyro distributions for some of weight_std, bias_std, ridge, mean and the numbers
            of a kernel of your own; the others stay as the prior has them.
        likelihood: as for `Method.fit`.

    Raises:
        ConfigurationError: a hyper-prior allows values that its hyper-parameter cannot have.
        UnknownNameError: there is no such hyper-parameter.
    """
    require_float64()
    require_problem("numpyro_model(prior, data)", prior, data, likelihood)
    prior.require_ridge("the posterior")
    hyperpriors = dict(hyperpriors or {})
    require_support(prior, hyperpriors)
    problem = Problem.build(prior, data, likelihood or default_likelihood(data))
    return NumPyroModel(problem, hyperpriors)


def declare(
    problem: Problem, hyperpriors: Mapping[str, Any], values: Mapping[str, Any] | None = None
) -> Logits:
    import numpyro
    import numpyro.distributions as dist
    from numpyro.distributions import distribution

    # After `import arviz`, which loads NumPyro lazily, `import numpyro.distributions` runs that package
    # twice; the second lacks this attribute, which `numpyro.factor` takes its distribution from.
    dist.distribution = distribution
    sampled = {name: numpyro.sample(name, law) for name, law in hyperpriors.items()}
    shape = problem.targets.shape
    whitened = numpyro.sample("whitened", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
    logits = _logits({**(values or {}), **sampled}, whitened, problem)
    numpyro.deterministic("logits", logits)
    density = problem.likelihood.log_density(problem.targets, logits)
    numpyro.factor("likelihood", jnp.sum(density))
    return logits


def _logits(values: Mapping[str, Any], whitened: Logits, problem: Problem) -> Logits:
    """mean + L z at the training points."""
    prior = with_values(problem.prior, values)
    lower = factor(prior, problem.features)
    return prior.mean_logits(problem.features, whitened.shape[1]) + lower @ whitened


def require_support(prior: NTKPrior, hyperpriors: Mapping[str, Any]) -> None:
    """Raises ConfigurationError for a hyper-prior that its hyper-parameter cannot have."""
    for name, law in hyperpriors.items():
        shape = value_of(prior, name).shape
        if not hasattr(law, "support"):
            raise ConfigurationError(
                f"the hyper-prior of {name} must be a NumPyro distribution; got {law!r}"
            )
        if name in _POSITIVE and not _is_positive(law.support):
            raise ConfigurationError(
                f"the hyper-prior of {name} must have positive support, {type(law).__name__} has "
                f"{law.support}; use LogNormal, HalfNormal or Gamma, say"
            )
        if tuple(law.shape()) != shape:
            raise ConfigurationError(
                f"the hyper-prior of {name} has shape {tuple(law.shape())}, {name} has {shape}; "
                "expand it, or give the prior a value of that shape"
            )


def _is_positive(support: Any) -> bool:
    from numpyro.distributions import constraints

    if support is constraints.positive or support is constraints.softplus_positive:
        return True
    lower = getattr(support, "lower_bound", None)
    return lower is not None and bool(np.all(np.asarray(lower) >= 0))
