"""Temperature scaling (Guo et al. 2017): the baseline that repairs confidence by one number.

It divides the logits of a law that is fitted already. A tempered posterior is another thing: of a
likelihood to the power 1/T in the fit (`Likelihood.tempered`), and predicts with its own logits.
"""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConvergenceError
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import Kind
from ntkbayes.laws.law import Inputs, Law, Moments
from ntkbayes.laws.method import Method, wrapped
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.wrappers.held_out import held_out_logits, log_score
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import split_key
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import whole_field
from ntkbayes.training.operations import Size

_SMALLEST, _LARGEST = 0.01, 100.0
_ROUND_OFF = 1e-9  # nats per point


class TemperatureInfo(Info):
    """Of the temperature that was found.

    Attributes:
        temperature: what logits are divided by; above 1 if the method alone is over-confident.
        held_out_nll: of the mean prediction with it, on the folds left out, in nats per point.
    """

    temperature: float
    held_out_nll: float


class TemperatureScaledLaw(Law[TemperatureInfo]):
    """Another law with its logits divided by a temperature.

    Attributes:
        law: the other one.
    """

    law: Law

    @property
    def _draws_in_words(self) -> str:
        return self.law._draws_in_words

    def sample(
        self, key: PRNGKeyArray, features: Inputs, num_draws: int | None = None
    ) -> Float[Array, "draws m classes"]:
        return self.law.sample(key, features, num_draws) / self.info.temperature

    def sample_marginals(
        self, key: PRNGKeyArray, features: Inputs, num_draws: int | None = None
    ) -> Float[Array, "draws m classes"]:
        return self.law.sample_marginals(key, features, num_draws) / self.info.temperature

    def mean(self, features: Inputs) -> Float[Array, "m classes"]:
        return self.law.mean(features) / self.info.temperature

    def covariance(self, features: Inputs) -> Float[Array, "m classes classes"]:
        return self.law.covariance(features) / self.info.temperature**2

    def moments(self, features: Inputs) -> Moments:
        mean, covariance = self.law.moments(features)
        return Moments(mean / self.info.temperature, covariance / self.info.temperature**2)

    def joint_covariance(self, features: Inputs) -> Float[Array, "rows rows"]:
        return self.law.joint_covariance(features) / self.info.temperature**2


class TemperatureScaled(Method[TemperatureScaledLaw]):
    """A method whose logits are divided by the temperature with the least held-out NLL. It tempers no
    posterior; see `Likelihood.tempered` for that.

    The temperature is found by cross-validation on the training data, which no test data see, and
    the method then fitted to all of them.

    Args:
        method: whose logits are scaled.
        num_folds: of the cross-validation.
    """

    name: ClassVar[str] = "temperature-scaled"
    method: Method = eqx.field(converter=wrapped)
    num_folds: int = whole_field("num_folds", 5, at_least=2)

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return self.method.kind.temperature_scaled

    def interpolates(self, prior: NTKPrior) -> bool:
        return self.method.interpolates(prior)

    def matrices(self, size: Size) -> dict[str, float]:
        return self.method.matrices(size)

    def operations(self, size: Size) -> dict[str, float]:
        fits = self.num_folds + 1
        return {what: fits * count for what, count in self.method.operations(size).items()}

    @property
    def num_kept(self) -> int:
        return self.method.num_kept

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> TemperatureScaledLaw:
        fold_key, fit_key = split_key(self.require_key(key))
        held_out = list(held_out_logits(self.method, problem, fold_key, self.num_folds))
        info = _best_temperature(problem.likelihood, held_out)
        law = self.method.solve(problem, fit_key)
        return TemperatureScaledLaw(problem, self.kind, info, law, num_chains=law.num_chains)


def _best_temperature(likelihood: Likelihood, held_out: list[tuple]) -> TemperatureInfo:
    from scipy.optimize import minimize_scalar

    size = sum(len(targets) for targets, _ in held_out)

    @jax.jit
    def nll(log_temperature: Float[Array, ""]) -> Float[Array, ""]:
        scale = jnp.exp(-log_temperature)
        terms = [log_score(likelihood, y, scale * f) for y, f in held_out]
        return -jnp.sum(jnp.concatenate(terms)) / size

    low, high = math.log(_SMALLEST), math.log(_LARGEST)
    minimum = minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    temperature = math.exp(minimum.x)
    rise = min(float(nll(jnp.asarray(end))) for end in (low, high)) - float(minimum.fun)
    if not rise > _ROUND_OFF:  # at an end, or anywhere on a plateau that reaches one
        raise ConvergenceError(
            f"the held-out NLL has no minimum at a temperature between {_SMALLEST} and {_LARGEST}, it "
            f"is {minimum.fun:.3g} at {temperature:.3g}: the held-out points are all predicted alike, "
            "or all right. Use more points, or fewer folds"
        )
    return TemperatureInfo(temperature, float(minimum.fun))
