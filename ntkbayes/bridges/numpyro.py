"""NumPyro: a law as a distribution over logits, for models of observations made after the fit.

    at_new = logits_distribution(law, new_features)

    def model(votes=None):
        accuracy = numpyro.sample("accuracy", dist.Beta(8.0, 2.0))
        logits = numpyro.sample("logits", at_new)                       # (m, C), jointly
        right = jax.nn.sigmoid(logits[:, 0])
        says_yes = accuracy * right + (1 - accuracy) * (1 - right)
        numpyro.sample("votes", dist.Bernoulli(says_yes), obs=votes)

The posterior given the training data is the prior for what comes next. This is exact for a Gaussian
posterior under a Normal likelihood, and otherwise as good as the law approximates the posterior. To
sample hyper-parameters together with the function, see `ntkbayes.numpyro_model`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.transforms import LowerCholeskyAffine, ReshapeTransform

from ntkbayes.errors import ConfigurationError
from ntkbayes.laws import Law, Sampling
from ntkbayes.laws.problem import Inputs
from ntkbayes.linalg import cholesky, output_blocks

_MIN_VARIANCE = 1e-9  # relative to the prior's: smaller variances are round-off of a difference


def logits_distribution(law: Law, features: Inputs) -> dist.Distribution:
    """A law's logits at given inputs, jointly, with event shape (m, C).

    * A Gaussian law (Laplace, variational, first order, …): mean plus a Cholesky factor times white
      noise, with its exact density. `numpyro.infer.reparam.TransformReparam` samples the white noise
      instead, which spares NUTS the correlations between inputs.
    * A point law (MAP): `Delta`. NumPyro's inference does not accept Delta as a latent site; write
      `numpyro.deterministic("logits", law.mean(features))` there.

    O((mC)³) operations, once. A sampled law has no known density; see `empirical_distribution`.

    Raises:
        ConfigurationError: the law is known only by draws, or has no density at these inputs: one is
            repeated, or the law determines a combination of logits.
        DataError: the features do not match the training features, or are not finite.
    """
    if law.kind.sampling not in (Sampling.GAUSSIAN, Sampling.POINT):
        raise ConfigurationError(
            f"a law of {law.kind.sampling} has no known density; use empirical_distribution(law, "
            "features, key=key) to simulate from it, or a Gaussian law, such as Laplace"
        )
    with jax.ensure_compile_time_eval():  # a model that calls this may be being compiled
        mean = law.mean(features)
        if law.kind.sampling is Sampling.POINT:
            return dist.Delta(mean, event_dim=2)
        lower = cholesky(law.joint_covariance(features), what="the law's covariance").lower
        _require_density(law, features, lower)
    white = dist.Normal(jnp.zeros(mean.size), 1.0).to_event(1)
    affine = LowerCholeskyAffine(mean.reshape(-1), lower)
    return dist.TransformedDistribution(white, [affine, ReshapeTransform(mean.shape, (mean.size,))])


def _require_density(law: Law, features: Inputs, lower: Float[Array, "rows rows"]) -> None:
    """Raises ConfigurationError if the covariance is singular to round-off."""
    prior = law.problem.prior
    pair = prior.diagonal(law.problem.read(features))
    size = law.problem.num_outputs
    wide = pair.ntk / prior.ridge if float(prior.ridge) > 0 else pair.nngp
    scale = jnp.mean(jnp.diagonal(output_blocks(wide, size), axis1=1, axis2=2))
    left = jnp.diagonal(lower) ** 2  # variance of each logit given those before it
    if float(jnp.min(left)) < _MIN_VARIANCE * float(scale):
        row, output = divmod(int(jnp.argmin(left)), size)
        raise ConfigurationError(
            f"the law has no density at these inputs: logit {output} of input {row} is determined by "
            "those before it. Leave out inputs that repeat others, and, without a ridge, inputs that "
            "were trained on"
        )


def empirical_distribution(
    law: Law, features: Inputs, *, key: PRNGKeyArray, num_draws: int | None = None
) -> "EmpiricalLogits":
    """The uniform distribution over joint draws of any law at given inputs, for simulation, e.g. by
    `numpyro.infer.Predictive`.

    Args:
        law, features, key, num_draws: as for `Law.sample`.

    Raises:
        ConfigurationError: num_draws is below 1, or more than the law holds.
        DataError: the features do not match the training features, or are not finite.
    """
    with jax.ensure_compile_time_eval():
        return EmpiricalLogits(law.sample(key, features, num_draws))


class EmpiricalLogits(dist.Distribution):
    """The uniform distribution over draws (S, m, C), with event shape (m, C).

    It has no density. To condition on observations without Markov chains, weight the draws by their
    likelihoods. The evidence is the mean likelihood, `numpyro.factor("seen", logsumexp(log_p) − log S)`,
    with log_p (S,) the log likelihood of the observations under each of `draws`.
    """

    arg_constraints = {"draws": constraints.independent(constraints.real, 3)}  # noqa: RUF012
    support = constraints.independent(constraints.real, 2)
    pytree_data_fields = ("draws",)

    def __init__(
        self, draws: Float[Array, "draws m classes"], *, validate_args: bool | None = None
    ):
        self.draws = draws
        super().__init__(event_shape=draws.shape[1:], validate_args=validate_args)

    def sample(self, key: PRNGKeyArray | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Some of the draws, with replacement, (*sample_shape, m, C)."""
        assert key is not None
        return self.draws[jax.random.randint(key, sample_shape, 0, len(self.draws))]

    def log_prob(self, value: ArrayLike, intermediates: Any = None) -> ArrayLike:
        """Raises ConfigurationError."""
        raise ConfigurationError(
            f"the logits are {len(self.draws)} draws of a law without a density, which Markov chains "
            "need. Use logits_distribution of a Gaussian law, such as Laplace, or weight the draws by "
            "the likelihood of the observations"
        )

    @property
    def mean(self) -> Array:
        """Of the draws, (m, C)."""
        return jnp.mean(self.draws, axis=0)

    @property
    def variance(self) -> Array:
        """Of the draws, (m, C)."""
        return jnp.var(self.draws, axis=0)
