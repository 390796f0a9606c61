"""The latent function, with or without its likelihood, as a NumPyro model."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.chains.hierarchical import (
    HIERARCHICAL_POSTERIOR,
    LATENT_FUNCTION,
    FullBayesLaw,
    factor_at,
    hyperprior_of,
    judged_draws,
)
from ntkbayes.laws.chains.mixing import MixingInfo
from ntkbayes.laws.kind import Kind
from ntkbayes.laws.problem import Problem, require_problem
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.linalg import Logits, Square, require_float64
from ntkbayes.priors.hyperparameters import value_of, with_values
from ntkbayes.priors.prior import NTKPrior

if TYPE_CHECKING:  # they need NumPyro, which is imported on first use
    from ntkbayes.laws.chains.coordinates import SiteCoordinates, Start

_POSITIVE = ("weight_std", "bias_std", "ridge")


@dataclass(frozen=True, eq=False, repr=False)
class LatentSites(Configured):
    """What `NumPyroPrior` and `NumPyroModel` share: the sites of hyper-parameters and latent logits."""

    problem: Problem
    hyperpriors: Mapping[str, Any]

    kind: ClassVar[Kind]

    @cached_property
    def starts(self) -> "list[Start]":
        """Places to start chains from, the best first; see `coordinates.starts`."""
        from ntkbayes.laws.chains import coordinates

        return coordinates.starts(self.problem, self.hyperpriors)

    @property
    def coordinates(self) -> "SiteCoordinates":
        """A reparametrisation of the site `whitened`, for `numpyro.handlers.reparam`: by a site
        `whitened_position`, in which the posterior under the problem's likelihood is nearly standard
        normal."""
        return self.starts[0].coordinates

    def declare(self, values: Mapping[str, Any] | None) -> Logits:
        """Declares all sites but those observed. Returns the logits; errors are those of a call."""
        import numpyro
        import numpyro.distributions as dist
        from numpyro.distributions import distribution

        from ntkbayes.laws.chains.coordinates import WhiteNoise

        # After `import arviz`, which loads NumPyro lazily, `import numpyro.distributions` runs that
        # package twice; the second lacks this attribute, which `numpyro.factor` takes its distribution
        # from.
        dist.distribution = distribution
        values = dict(values or {})
        if both := sorted(values.keys() & self.hyperpriors.keys()):
            raise ConfigurationError(
                f"{both[0]} has a hyper-prior already; leave it out there, or out of values"
            )
        for name in values:
            value_of(self.problem.prior, name)
        sampled = {name: numpyro.sample(name, law) for name, law in self.hyperpriors.items()}
        mean, lower = _mean_and_factor(self.problem, {**values, **sampled})
        logits = mean + lower @ numpyro.sample("whitened", WhiteNoise(lower, mean))
        return numpyro.deterministic("logits", logits)

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
            self.kind.at_temperature(self.problem.temperature),
            info,
            flat,
            own["whitened"].reshape(-1, *shape),
            *hyperprior_of(self.hyperpriors, flat, jax.random.key(0)),
            {},
            num_chains=chains,
        )
        mean, lower = _mean_and_factor(self.problem, {k: v[-1] for k, v in flat.items()})
        last = mean + lower @ law.whitened[-1]
        if not bool(jnp.allclose(last, own["logits"][-1, -1], rtol=1e-6, atol=1e-6)):
            raise ConfigurationError(
                "the logits drawn are not those of whitened under these hyper-parameters; give in "
                "values all that the model was called with"
            )
        return law


class NumPyroPrior(LatentSites):
    """The prior over logits at the training points as a NumPyro model; made by `numpyro_prior`.

    Called, it declares its sites: the hyper-parameters by name, the whitened latent `whitened` of shape
    (n, C), standard normal, and the deterministic `logits` = mean + L z with L Lᵀ = Θ/ridge. Nothing is
    observed: that is for the surrounding model to do.
    """

    kind: ClassVar[Kind] = LATENT_FUNCTION

    def __call__(self, values: Mapping[str, Any] | None = None) -> Logits:
        """The logits at the training points, (n, C).

        Args:
            values: of hyper-parameters that the surrounding model has made of sites of its own, by name.

        Raises:
            ConfigurationError: a hyper-parameter has both a hyper-prior and a value.
            UnknownNameError: there is no such hyper-parameter.
        """
        return self.declare(values)


class NumPyroModel(LatentSites):
    """The latent function and its likelihood as a NumPyro model; made by `numpyro_model`.

    Called, it declares the sites of `NumPyroPrior` in its `coordinates`: the hyper-parameters by name,
    `whitened_position` of shape (n, C), which is sampled, and `whitened` and `logits`, which follow
    from it. Then it observes the targets, by the factor `likelihood`. It is to be sampled as it is, or
    called within a larger model, under `numpyro.handlers.scope` if more than once.
    """

    kind: ClassVar[Kind] = HIERARCHICAL_POSTERIOR

    @property
    def start(self) -> dict[str, Array]:
        """Values of its sites near which the posterior lies, for `numpyro.infer.init_to_value`."""
        best = self.starts[0]
        return {**best.values, "whitened_position": jnp.zeros(self.problem.targets.shape)}

    @property
    def inverse_mass_matrix(self) -> dict[tuple[str, ...], Array]:
        """For `numpyro.infer.NUTS` to adapt from, with dense_mass=[tuple(hyperpriors)]: of the
        hyper-parameters their covariance near the start, see `coordinates.spread`; `whitened_position`
        has variances near one by itself."""
        from ntkbayes.laws.chains import coordinates

        blocks: dict[tuple[str, ...], Array] = {}
        if self.hyperpriors:
            covariance = coordinates.spread(self.problem, self.hyperpriors, self.starts)
            blocks[tuple(self.hyperpriors)] = jnp.asarray(covariance)
        return {**blocks, ("whitened_position",): jnp.ones(self.problem.targets.size)}

    def __call__(self, values: Mapping[str, Any] | None = None) -> Logits:
        """The logits at the training points, (n, C). Arguments and errors: see `NumPyroPrior`."""
        import numpyro

        with numpyro.handlers.reparam(config={"whitened": self.coordinates}):
            logits = self.declare(values)
        density = self.problem.likelihood.log_density(self.problem.targets, logits)
        numpyro.factor("likelihood", jnp.sum(density))
        return logits


def numpyro_model(
    prior: NTKPrior,
    data: Dataset,
    *,
    hyperpriors: Mapping[str, Any] | None = None,
    likelihood: Likelihood | None = None,
) -> NumPyroModel:
    """The latent function and its likelihood as a NumPyro model, to be sampled as it is or called within
    a larger one.

    Args:
        prior: network, ridge and mean.
        data: training data.
        hyperpriors: NumPyro distributions for some of weight_std, bias_std, ridge, mean and the numbers
            of a kernel of your own; the others stay as the prior has them.
        likelihood: as for `Method.fit`.

    Raises:
        ConfigurationError: a hyper-prior allows values that its hyper-parameter cannot have.
        UnknownNameError: there is no such hyper-parameter.
        ConvergenceError: at no draw of the hyper-priors is the posterior density finite.
    """
    model = NumPyroModel(*_sites("numpyro_model", prior, data, hyperpriors, likelihood))
    model.starts  # noqa: B018 (before anything is traced)
    return model


def numpyro_prior(
    prior: NTKPrior,
    data: Dataset,
    *,
    hyperpriors: Mapping[str, Any] | None = None,
    likelihood: Likelihood | None = None,
) -> NumPyroPrior:
    """The prior over logits at the training points as a NumPyro model, to be observed in your own way.

        latent = nb.numpyro_prior(prior, data)

        def model(count):
            offset = numpyro.sample("offset", dist.Normal(0.0, 1.0).expand((6,)).to_event(1))
            logits = latent()                                              # (n, C)
            rate = jnp.exp(logits[:, 0] + offset[group])
            numpyro.sample("count", dist.Poisson(rate).to_event(1), obs=count)

    The targets do not take part. `latent.law(draws)` is the law of the latent function, which knows
    nothing of the offset: add its draws to those of `law.sample`, whose order is that of the chains.

    Where the observations say much of the logits, sample in coordinates made for a likelihood like
    yours, `numpyro.handlers.reparam(model, config={"whitened": latent.coordinates})`: for what
    `likelihood` makes of the data's targets. They change the speed, not the posterior.

    Args:
        prior, data, hyperpriors: as for `numpyro_model`.
        likelihood: which counts the logits and makes `coordinates`, and by which the law predicts; as
            for `Method.fit`.

    Raises:
        ConfigurationError, UnknownNameError: as `numpyro_model` does.
    """
    return NumPyroPrior(*_sites("numpyro_prior", prior, data, hyperpriors, likelihood))


def _sites(
    name: str,
    prior: NTKPrior,
    data: Dataset,
    hyperpriors: Mapping[str, Any] | None,
    likelihood: Likelihood | None,
) -> tuple[Problem, Mapping[str, Any]]:
    require_float64()
    require_problem(f"{name}(prior, data)", prior, data, likelihood)
    prior.require_ridge("the posterior")
    hyperpriors = dict(hyperpriors or {})
    require_support(prior, hyperpriors)
    return Problem.build(prior, data, likelihood or default_likelihood(data)), hyperpriors


def _mean_and_factor(problem: Problem, values: Mapping[str, Any]) -> tuple[Logits, Square]:
    """Of the logits at the training points: mean, (n, C), and L."""
    prior = with_values(problem.prior, values)
    mean = prior.mean_logits(problem.features, problem.num_outputs)
    return mean, factor_at(problem, values)


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
