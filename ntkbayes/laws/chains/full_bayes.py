"""Hyper-parameters as part of the posterior: scales, ridge and latent function, sampled together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.laws.chains.mixing import MixingInfo, judged
from ntkbayes.laws.kind import Kind, Sampling
from ntkbayes.laws.law import Draws, Inputs, Law, evenly_spaced, joint_scatter, scatter
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.linalg import Logits, output_blocks, require_float64
from ntkbayes.priors.hyperparameters import value_of, with_values
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real_field, whole_field

_JITTER = 1e-9  # of the mean prior variance: a sampler cannot try one after another
_POSITIVE = ("weight_std", "bias_std", "ridge")


@dataclass(frozen=True, eq=False)
class NumPyroModel:
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
        return _model(self.problem, self.hyperpriors, values)

    def law(
        self, draws: Mapping[str, Any], *, values: Mapping[str, Any] | None = None
    ) -> "FullBayesLaw":
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
        info = MixingInfo(**_judged(seen, num_divergences=0))
        flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in values.items()}
        whitened = own["whitened"].reshape(-1, *shape)
        law = FullBayesLaw(
            self.problem, HIERARCHICAL_POSTERIOR, info, flat, whitened, num_chains=chains
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
    prior.require_ridge("the posterior")
    hyperpriors = dict(hyperpriors or {})
    require_support(prior, hyperpriors)
    problem = Problem.build(prior, data, likelihood or default_likelihood(data))
    return NumPyroModel(problem, hyperpriors)


def _model(
    problem: Problem, hyperpriors: Mapping[str, Any], values: Mapping[str, Any] | None = None
) -> Logits:
    import numpyro
    import numpyro.distributions as dist

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
    lower, _ = _factor(prior, problem.features, whitened.shape[1])
    return prior.mean_logits(problem.features, whitened.shape[1]) + lower @ whitened


def _factor(prior: NTKPrior, features: Array, num_outputs: int) -> tuple[Array, Array]:
    """L with L Lᵀ = Θ/ridge + jitter, and the jitter."""
    gram = prior.gram(features).ntk.dense() / prior.ridge
    jitter = _JITTER * jnp.mean(jnp.diagonal(gram))
    return jnp.linalg.cholesky(gram + jitter * jnp.eye(len(gram))), jitter


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


class FullBayesInfo(MixingInfo):
    """Of the hyper-parameters and of the logits at the training points; and num_divergences:
    transitions whose energy error exploded; should be 0. mean_steps: leapfrog steps per draw.
    mean_accept: acceptance statistic."""

    num_divergences: int
    mean_steps: float
    mean_accept: float


HIERARCHICAL_POSTERIOR = Kind(
    "hierarchical posterior",
    Sampling.CHAINS,
    "the exact posterior of GP classification in which hyperparameters have priors, so that each draw "
    "has its own kernel, by Markov chains: exact up to Monte Carlo error.",
    is_posterior=True,
)


class FullBayesLaw(Law):
    """Draws of (hyperparameters, latent function): each is a Gaussian process of its own kernel, and is
    conditioned at new inputs on its own values at X.

    Attributes:
        values: draws of each hyperparameter, (S, ...).
        whitened: z of each draw, (S, n, C).
    """

    info: MixingInfo
    values: dict[str, Array]
    whitened: Draws

    def sample(
        self, key: PRNGKeyArray, features: Inputs, num_draws: int | None = None
    ) -> Float[Array, "draws m classes"]:
        chosen, inputs = self._chosen(num_draws), self.problem.read(features)
        values = {name: draws[chosen] for name, draws in self.values.items()}
        noise = jax.random.normal(key, (len(chosen), len(inputs), self.problem.num_outputs))
        return _joint(self.problem, values, self.whitened[chosen], inputs, noise)

    def sample_marginals(
        self, key: PRNGKeyArray, features: Inputs, num_draws: int | None = None
    ) -> Float[Array, "draws m classes"]:
        chosen = self._chosen(num_draws)
        means, left = (part[chosen] for part in self._given(features))
        noise = jax.random.normal(key, (len(chosen), 1, self.problem.num_outputs))
        return means + jnp.sqrt(left)[:, :, None] * noise

    def mean(self, features: Inputs) -> Float[Array, "m classes"]:
        return jnp.mean(self._given(features)[0], axis=0)

    def covariance(self, features: Inputs) -> Float[Array, "m classes classes"]:
        means, left = self._given(features)
        return scatter(means) + output_blocks(jnp.mean(left, axis=0), self.problem.num_outputs)

    def joint_covariance(self, features: Inputs) -> Float[Array, "rows rows"]:
        inputs = self.problem.read(features)
        means, left = _jointly_given(self.problem, self.values, self.whitened, inputs)
        return joint_scatter(means) + jnp.kron(left, jnp.eye(self.problem.num_outputs))

    def _chosen(self, num_draws: int | None) -> Int[Array, " chosen"]:
        held = len(self.whitened)
        return evenly_spaced(held if num_draws is None else num_draws, held)

    def _given(
        self, features: Inputs
    ) -> tuple[Float[Array, "draws m classes"], Float[Array, "draws m"]]:
        inputs = self.problem.read(features)
        return _marginals(self.problem, self.values, self.whitened, inputs)


@eqx.filter_jit
def _marginals(
    problem: Problem, values: dict[str, Array], whitened: Draws, inputs: Array
) -> tuple[Float[Array, "draws m classes"], Float[Array, "draws m"]]:
    """Mean of each draw at the inputs, and the variance left to it."""

    def one(draw: tuple) -> tuple[Logits, Float[Array, " m"]]:
        prior, projection = _projected(problem, draw[0], inputs)
        mean = prior.mean_logits(inputs, whitened.shape[2]) + projection.T @ draw[1]
        variance = prior.diagonal(inputs).ntk / prior.ridge
        return mean, jnp.maximum(variance - jnp.sum(projection**2, axis=0), 0.0)  # round-off

    return jax.lax.map(one, (values, whitened))


@eqx.filter_jit
def _jointly_given(
    problem: Problem, values: dict[str, Array], whitened: Draws, inputs: Array
) -> tuple[Float[Array, "draws m classes"], Float[Array, "m m"]]:
    """Mean of each draw at the inputs, and the mean over draws of the covariance left to them."""

    def add(total: Array, draw: tuple) -> tuple[Array, Logits]:
        mean, left = _conditioned(problem, draw, inputs)
        return total + left / len(whitened), mean

    zero = jnp.zeros((len(inputs), len(inputs)))
    left, means = jax.lax.scan(add, zero, (values, whitened))
    return means, left


@eqx.filter_jit
def _joint(
    problem: Problem,
    values: dict[str, Array],
    whitened: Draws,
    inputs: Array,
    noise: Float[Array, "draws m classes"],
) -> Float[Array, "draws m classes"]:
    """Each draw jointly at the inputs, for white noise there."""

    def one(draw: tuple) -> Logits:
        values, whitened, noise = draw
        mean, left = _conditioned(problem, (values, whitened), inputs)
        prior = with_values(problem.prior, values)
        jitter = 2 * _JITTER * jnp.mean(prior.diagonal(inputs).ntk / prior.ridge)
        root = jnp.linalg.cholesky(left + jitter * jnp.eye(len(left)))
        return mean + root @ noise

    return jax.lax.map(one, (values, whitened, noise))


def _conditioned(
    problem: Problem, draw: tuple, inputs: Array
) -> tuple[Logits, Float[Array, "m m"]]:
    """Mean and covariance of one draw at the inputs, given its values at X (R&W 2.19)."""
    values, whitened = draw
    prior, projection = _projected(problem, values, inputs)
    mean = prior.mean_logits(inputs, whitened.shape[1]) + projection.T @ whitened
    left = prior.gram(inputs).ntk.dense() / prior.ridge - projection.T @ projection
    return mean, (left + left.T) / 2


def _projected(
    problem: Problem, values: dict[str, Array], inputs: Array
) -> tuple[NTKPrior, Float[Array, "n m"]]:
    """A draw's prior, and L⁻¹ P(X, x)."""
    prior = with_values(problem.prior, values)
    lower, _ = _factor(prior, problem.features, problem.num_outputs)
    cross = prior.cross(problem.features, inputs).ntk.dense() / prior.ridge
    return prior, jax.scipy.linalg.solve_triangular(lower, cross, lower=True)


class FullBayes(Method[FullBayesLaw]):
    """No-U-turn sampling of hyper-parameters and whitened latent function together.

    Every gradient differentiates through a Cholesky factor of the Gram matrix, O(n³): for some hundred
    points. The kernel has to be that of a network at infinite width.

    Args:
        hyperpriors: as for `numpyro_model`.
        num_samples: draws kept, a chain.
        num_warmup: draws thrown away while step size and mass adapt, a chain.
        num_chains: chains, run side by side.
        target_accept: acceptance probability that the step size aims at.
        progress: show NumPyro's progress bar.
    """

    name: ClassVar[str] = "full Bayes"
    kind: ClassVar[Kind] = HIERARCHICAL_POSTERIOR
    hyperpriors: dict[str, Any]
    num_samples: int = whole_field("num_samples", 250, at_least=4)
    num_warmup: int = whole_field("num_warmup", 250)
    num_chains: int = whole_field("num_chains", 4)
    target_accept: float = real_field("target_accept", 0.9, Range.OPEN_UNIT)
    progress: bool = False

    def matrices(self, rows: int, num_outputs: int) -> dict[str, float]:
        return {"kernels of the chains and their gradients": 20.0 * self.num_chains}

    @property
    def num_kept(self) -> int:
        return 2 * self.num_chains * self.num_samples

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> FullBayesLaw:
        from numpyro.infer import MCMC
        from numpyro.infer import NUTS as Kernel

        key = self.require_key(key)
        problem.prior.require_ridge("the posterior")
        if problem.gram.nngp is None:
            raise ConfigurationError(
                "full Bayes changes the scales of a network at infinite width; a finite network has "
                "none: use NUTS"
            )
        require_support(problem.prior, self.hyperpriors)
        sampler = MCMC(
            Kernel(_model, target_accept_prob=self.target_accept),
            num_warmup=self.num_warmup,
            num_samples=self.num_samples,
            num_chains=self.num_chains,
            chain_method="vectorized",
            progress_bar=self.progress,
        )
        fields = ("diverging", "num_steps", "accept_prob")
        try:
            with jax.debug_key_reuse(False):  # NumPyro's own
                sampler.run(key, problem, self.hyperpriors, extra_fields=fields)
        except RuntimeError as error:
            if "initial parameters" not in str(error):
                raise
            raise ConvergenceError(
                "no draw of the hyper-priors has a finite posterior density, from which chains could "
                f"start ({error}); use hyper-priors that are narrower, or centred on other values"
            ) from error
        draws = sampler.get_samples(group_by_chain=True)
        info = _diagnose(draws, problem, sampler.get_extra_fields(True))
        flat = {name: part.reshape(-1, *part.shape[2:]) for name, part in draws.items()}
        values = {name: flat[name] for name in self.hyperpriors}
        return FullBayesLaw(
            problem, self.kind, info, values, flat["whitened"], num_chains=self.num_chains
        )


def _diagnose(draws: Mapping[str, Array], problem: Problem, fields: dict) -> FullBayesInfo:
    seen = {name: part for name, part in draws.items() if name != "whitened"}
    seen["logits"] = problem.likelihood.project(draws["logits"])
    num_divergences = int(fields["diverging"].sum())
    return FullBayesInfo(
        **_judged(seen, num_divergences=num_divergences),
        num_divergences=num_divergences,
        mean_steps=float(fields["num_steps"].mean()),
        mean_accept=float(fields["accept_prob"].mean()),
    )


def _judged(seen: Mapping[str, Array], *, num_divergences: int) -> dict[str, float]:
    """The fields of `MixingInfo`, for draws (chains, samples, ...)."""
    return judged(
        seen.values(),
        num_divergences=num_divergences,
        remedy="Use more num_warmup and num_samples, a higher target_accept, or narrower hyper-priors",
        stacklevel=4,
    )
