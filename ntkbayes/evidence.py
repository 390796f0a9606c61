"""Log evidence of a prior by Laplace's approximation, its gradient, and its maximum.

    log q(y | X) = log p(y | f̂) − ½ aᵀ (f̂ − mean) − ½ log det(I + W P)       (R&W 3.44)

The mode f̂ depends on the hyper-parameters too. One Newton step at the mode, whose derivative is that
of the mode by the implicit function theorem, lets JAX differentiate through it (R&W 5.5.1, where it
is done by hand).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.hyperparameters import RANGES, value_of, with_values
from ntkbayes.laws.laplace import laplace_evidence
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.linalg import Logits, apply, curved_inverse, require_float64
from ntkbayes.prior import NTKPrior
from ntkbayes.ranges import Range, real
from ntkbayes.training.linearised import newton

Values = dict[str, Float[Array, "..."]]

_TOLERANCE = 1e-9


def log_evidence(prior: NTKPrior, data: Dataset, *, likelihood: Likelihood | None = None) -> float:
    """log q(y | X) of the prior, in nats, with whatever its hyper-parameters are.

    Raises:
        RidgeError: the ridge is 0.
        ConvergenceError: the mode was not found.
    """
    return _Objective.build(prior, data, likelihood, ()).value_and_gradient({})[0]


def evidence_gradient(
    prior: NTKPrior,
    data: Dataset,
    *,
    over: tuple[str, ...] = ("bias_std", "ridge"),
    likelihood: Likelihood | None = None,
) -> dict[str, np.ndarray]:
    """Derivatives of the log evidence in hyper-parameters (see `hyperparameters`), in nats a unit.

    Raises:
        UnknownNameError: there is no such hyper-parameter.
        ConfigurationError: the prior does not have it.
    """
    objective = _Objective.build(prior, data, likelihood, over)
    return objective.value_and_gradient(objective.start)[1]


@dataclass(frozen=True)
class EvidenceMaximum:
    """Where the evidence of a prior is largest.

    Attributes:
        prior: with the best hyper-parameters.
        log_evidence: there, in nats.
        values: of the hyper-parameters.
        path: every evaluation, hyper-parameters and log evidence, in order.
    """

    prior: NTKPrior
    log_evidence: float
    values: Mapping[str, np.ndarray]
    path: tuple[tuple[Mapping[str, np.ndarray], float], ...]


def maximise_evidence(
    prior: NTKPrior,
    data: Dataset,
    *,
    over: tuple[str, ...] = ("bias_std", "ridge"),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    likelihood: Likelihood | None = None,
    max_evaluations: int = 200,
    progress: Callable[[float], object] = lambda value: None,
) -> EvidenceMaximum:
    """Climb the evidence from the prior's own hyper-parameters, by L-BFGS-B with exact gradients.

    The result is a local maximum: start from several priors if in doubt.

    Args:
        prior: where to start.
        data: training data.
        over: the hyper-parameters to change: of weight_std, bias_std, ridge, mean and a kernel's own.
            The weight_std of a ReLU network without biases does nothing that the ridge does not.
        ranges: where to look, by name, in place of `hyperparameters.RANGES`.
        likelihood: as for `Method.fit`.
        max_evaluations: of evidence and gradient, before giving up.
        progress: called with the log evidence of each evaluation.

    Raises:
        ConvergenceError: the evidence still grows at the end of a range, so that it has no maximum
            inside; or the maximum was not reached in max_evaluations.
        ConfigurationError: the prior lacks a hyper-parameter, or starts outside its range.
        UnknownNameError: there is no such hyper-parameter.
    """
    from scipy.optimize import minimize

    objective = _Objective.build(prior, data, likelihood, over)
    scales = [_Scale.of(name, objective.start[name], ranges) for name in over]
    path: list[tuple[Mapping[str, np.ndarray], float]] = []

    def descend(x: np.ndarray) -> tuple[float, np.ndarray]:
        values = _split(x, scales)
        value, gradient = objective.value_and_gradient(values)
        path.append((values, value))
        progress(value)
        slopes = [s.chain(values[s.name], gradient[s.name]) for s in scales]
        return -value, -np.concatenate(slopes)

    start = np.concatenate([s.to_line(np.asarray(objective.start[s.name])) for s in scales])
    bounds = [bound for s in scales for bound in s.bounds]
    found = minimize(
        descend,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxfun": max_evaluations, "ftol": 1e-10, "gtol": 1e-4},
    )
    values = _split(found.x, scales)
    _require_inside(found, scales, values)
    if not found.success:
        raise ConvergenceError(
            f"the evidence was not maximised in {len(path)} evaluations ({found.message}); use more "
            "max_evaluations, or start closer"
        )
    best = objective.with_values(values)
    return EvidenceMaximum(best, -float(found.fun), values, tuple(path))


def _require_inside(found: Any, scales: "list[_Scale]", values: dict[str, np.ndarray]) -> None:
    place = 0
    for scale in scales:
        (low, high), size = scale.bounds[0], len(scale.bounds)
        end = found.x[place : place + size]
        slope = -found.jac[place : place + size]
        at_end = ((end <= low) & (slope < -1e-3)) | ((end >= high) & (slope > 1e-3))
        place += size
        if at_end.any():
            raise ConvergenceError(
                f"the evidence has no maximum with {scale.name} inside {scale.range}: it still grows at "
                f"{values[scale.name]}, where it is {-found.fun:.6g}. Widen ranges={{{scale.name!r}: "
                f"(low, high)}}, or set {scale.name} by hand and leave it out of over"
            )


@dataclass(frozen=True)
class _Scale:
    """One hyper-parameter on the line on which it is searched."""

    name: str
    shape: tuple[int, ...]
    range: tuple[float, float]

    @classmethod
    def of(
        cls, name: str, start: Array, ranges: Mapping[str, tuple[float, float]] | None
    ) -> "_Scale":
        known = {**RANGES, **(ranges or {})}
        if name not in known:
            raise ConfigurationError(
                f"where is {name}, of the kernel's own, to be looked for? Give ranges="
                f"{{{name!r}: (low, high)}}"
            )
        low, high = found = tuple(
            real(f"the range of {name}", end, Range.FINITE) for end in known[name]
        )
        if not low < high or (name != "mean" and low <= 0):
            raise ConfigurationError(f"the range of {name} must be (low, high), got {found}")
        if not bool(jnp.all((low <= start) & (start <= high))):
            raise ConfigurationError(
                f"{name} starts at {np.asarray(start)}, outside its range {found}; give ranges="
                f"{{{name!r}: (low, high)}}"
            )
        return cls(name, tuple(start.shape), found)

    @property
    def bounds(self) -> list[tuple[float, float]]:
        low, high = (float(self.to_line(np.array(end))[0]) for end in self.range)
        return [(low, high)] * math.prod(self.shape)

    def to_line(self, value: np.ndarray) -> np.ndarray:
        return np.ravel(value if self.name == "mean" else np.log(value))

    def from_line(self, x: np.ndarray) -> np.ndarray:
        return np.reshape(x if self.name == "mean" else np.exp(x), self.shape)

    def chain(self, value: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """The slope on the line."""
        return np.ravel(slope if self.name == "mean" else slope * value)


def _split(x: np.ndarray, scales: list[_Scale]) -> dict[str, np.ndarray]:
    values, place = {}, 0
    for scale in scales:
        size = math.prod(scale.shape)
        values[scale.name] = scale.from_line(x[place : place + size])
        place += size
    return values


# --- the evidence as a function of hyper-parameters -------------------------------------------------


class _Objective(eqx.Module):
    """The evidence as a function of some hyper-parameters."""

    prior: NTKPrior
    likelihood: Likelihood
    features: Array
    targets: Logits
    start: Values

    @classmethod
    def build(
        cls, prior: NTKPrior, data: Dataset, likelihood: Likelihood | None, over: tuple[str, ...]
    ) -> "_Objective":
        require_float64()
        prior.require_ridge("the evidence")
        likelihood = default_likelihood(data) if likelihood is None else likelihood
        start = {name: value_of(prior, name) for name in over}
        targets = likelihood.encode(data)
        features = jnp.asarray(data.check_features(data))
        prior.require_covariance(features)
        return cls(prior, likelihood, features, targets, start)

    def with_values(self, values: Mapping[str, Any]) -> NTKPrior:
        return with_values(self.prior, {name: jnp.asarray(v) for name, v in values.items()})

    def value_and_gradient(self, values: Mapping[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
        arrays = {name: jnp.asarray(value) for name, value in values.items()}
        (value, residual), gradient = _value_and_gradient(
            arrays, dataclasses.replace(self, prior=self.prior.traced())
        )
        if not (float(residual) <= _TOLERANCE and math.isfinite(float(value))):
            told = {name: np.asarray(value).tolist() for name, value in arrays.items()}
            raise ConvergenceError(
                f"the mode was not found: its residual is {float(residual):.3g}, the evidence "
                f"{float(value):.3g} at {told or 'this prior'}; use a larger ridge, or narrower ranges"
            )
        return float(value), {name: np.asarray(slope) for name, slope in gradient.items()}


@eqx.filter_jit
def _value_and_gradient(
    values: Values, objective: _Objective
) -> tuple[tuple[Float[Array, ""], Float[Array, ""]], Values]:
    return jax.value_and_grad(_evidence, has_aux=True)(values, objective)


def _evidence(values: Values, objective: _Objective) -> tuple[Array, Array]:
    """Log evidence, and the residual of the mode."""
    likelihood, targets = objective.likelihood, objective.targets
    prior = with_values(objective.prior, values)
    gram = prior.gram(objective.features).ntk / prior.ridge
    mean = prior.mean_logits(objective.features, targets.shape[1])

    fixed_gram, fixed_mean = jax.lax.stop_gradient((gram, mean))
    zeros = jnp.zeros_like(mean)
    found = newton(likelihood, fixed_gram, targets, fixed_mean, _TOLERANCE, 100, zeros)
    mode, logits, residual, _ = jax.lax.stop_gradient(found)
    fixed_inverse = curved_inverse(fixed_gram, likelihood.curvature(targets, logits))
    # At the mode the bracket is 0; its derivative is that of the stationarity a = r(f).
    wrong = mode - likelihood.residual(targets, mean + apply(gram, mode))
    mode = mode - (wrong - fixed_inverse.matvec(apply(fixed_gram, wrong)))

    logits = mean + apply(gram, mode)
    inverse = curved_inverse(gram, likelihood.curvature(targets, logits))
    value = laplace_evidence(likelihood, targets, logits, mean, mode, inverse.log_determinant)
    return value, residual
