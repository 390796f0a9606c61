"""Log evidence of a prior by Laplace's approximation, its gradient, and its maximum.

    log q(y | X) = log p(y | f̂) − ½ aᵀ (f̂ − mean) − ½ log det(I + W P)       (R&W 3.44)

The mode f̂ depends on the hyper-parameters too. JAX differentiates through one Newton step at the mode,
whose derivative equals that of the mode by the implicit function theorem (by hand in R&W 5.5.1).
"""

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.errors import ConvergenceError
from ntkbayes.laws.gaussian.laplace import laplace_evidence
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.likelihood.base import require_untempered
from ntkbayes.linalg import (
    CurvedInverse,
    Gram,
    Logits,
    frugal_jit,
    nan_is_an_answer,
    require_float64,
)
from ntkbayes.priors.hyperparameters import value_of, with_values
from ntkbayes.priors.prior import NTKPrior, require_prior
from ntkbayes.training.accuracy import TOLERANCE, is_accurate
from ntkbayes.training.linearised import EXACT_ROWS, train
from ntkbayes.training.newton import Newton
from ntkbayes.training.objective import Objective, Optimum

Values = dict[str, Float[Array, "..."]]


def log_evidence(prior: NTKPrior, data: Dataset, *, likelihood: Likelihood | None = None) -> float:
    """Laplace's approximation to log p(y | X), in nats, at the prior's own hyper-parameters.

    Args:
        prior: network, ridge and mean.
        data: training data.
        likelihood: as for `Method.fit`.

    Raises:
        RidgeError: the ridge is 0.
        ConfigurationError: the likelihood is tempered, or the kernel is known by its products alone.
        ConvergenceError: the mode was not found.
    """
    return Evidence.build(prior, data, likelihood, ()).value_and_gradient({})[0]


def evidence_gradient(
    prior: NTKPrior,
    data: Dataset,
    *,
    over: tuple[str, ...] = ("bias_std", "ridge"),
    likelihood: Likelihood | None = None,
) -> dict[str, np.ndarray]:
    """Derivatives of the log evidence with respect to hyper-parameters (see `hyperparameters`), in nats
    per unit.

    Args:
        prior, data, likelihood: as for `log_evidence`.
        over: hyper-parameters, by name.

    Raises:
        UnknownNameError: a hyper-parameter is unknown.
        ConfigurationError: the prior does not have it, or its kernel is known by its products alone.
    """
    objective = Evidence.build(prior, data, likelihood, over)
    return objective.value_and_gradient(objective.start)[1]


_CALL = "log_evidence(prior, data)"


class Evidence(eqx.Module):
    """The log evidence as a function of some hyper-parameters."""

    prior: NTKPrior
    likelihood: Likelihood
    features: Array
    targets: Logits
    start: Values
    ntk: Gram | None

    @classmethod
    def build(
        cls, prior: NTKPrior, data: Dataset, likelihood: Likelihood | None, over: tuple[str, ...]
    ) -> "Evidence":
        require_float64()
        require_prior(_CALL, "prior", prior)
        require_dataset(_CALL, "data", data)
        prior.require_ridge("the evidence")
        require_untempered("the evidence", likelihood)
        likelihood = default_likelihood(data) if likelihood is None else likelihood
        start = {name: value_of(prior, name) for name in over}
        targets = likelihood.encode(data)
        features = jax.device_put(data.check_features(data))
        prior.require_covariance(features)
        # No hyper-parameter of the kernel changes: one Gram serves all evaluations.
        ntk = prior.gram(features).ntk if {*over} <= {"ridge", "mean"} else None
        if ntk is not None:
            ntk.require_formed(
                "the exact evidence needs the determinant of Θ (nb.lanczos_evidence estimates it)"
            )
        return cls(prior, likelihood, features, targets, start, ntk)

    def with_values(self, values: Mapping[str, Any]) -> NTKPrior:
        return with_values(self.prior, {name: jnp.asarray(v) for name, v in values.items()})

    def value_and_gradient(self, values: Mapping[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
        arrays = {name: jnp.asarray(value) for name, value in values.items()}
        mode, inverse = self._mode(arrays)
        inverse = inverse.explicit() if arrays else inverse
        value, gradient = _value_and_gradient(
            arrays, dataclasses.replace(self, prior=self.prior.traced()), mode.a, inverse
        )
        error, spread = mode.logit_error, mode.spread
        if not (
            bool(is_accurate(self.likelihood, error, spread, TOLERANCE))
            and math.isfinite(float(value))
        ):
            where = {name: np.asarray(value).tolist() for name, value in arrays.items()}
            raise ConvergenceError(
                f"the mode was not found: its logits are off by up to {float(error):.3g}, where their "
                f"spread is {float(spread):.3g}, and the evidence is {float(value):.3g} at "
                f"{where or 'this prior'}; use a larger ridge, or narrower ranges"
            )
        slopes = {name: np.asarray(slope) for name, slope in gradient.items()}
        for name, slope in slopes.items():
            if not np.isfinite(slope).all():
                raise ConvergenceError(
                    f"the evidence {float(value):.3g} has a slope of {slope} in {name} at "
                    f"{np.asarray(arrays[name])}; use narrower ranges, or leave {name} out of over"
                )
        return float(value), slopes

    def _mode(self, values: Values) -> tuple[Optimum, CurvedInverse]:
        """The mode by Newton's method, and (Θ + (W/ridge)⁻¹)⁻¹ there. Of many points, where one Gram
        serves all evaluations, it starts from the mode by conjugate gradients, which take fewer factors.

        Raises:
            ConvergenceError: those do not find it.
        """
        prior = self.with_values(values).traced()
        ntk = prior.gram(self.features).ntk if self.ntk is None else self.ntk
        objective = Objective(self.likelihood, ntk, self.targets, prior.ridge)
        mean = prior.mean_logits(self.features, self.targets.shape[1])
        start = None
        if self.ntk is not None and self.targets.size > EXACT_ROWS:
            start = objective.ridge * train(objective, mean).alpha
        mode = Newton().optimum(objective, mean, start)
        return mode, ntk.curved(_divided(objective.curvature(mode.logits), objective.ridge))


_divided = jax.jit(operator.truediv)


@nan_is_an_answer()  # without a mode
@frugal_jit
def _value_and_gradient(
    values: Values, objective: Evidence, mode: Logits, inverse: CurvedInverse
) -> tuple[Float[Array, ""], Values]:
    return jax.value_and_grad(_evidence)(values, objective, mode, inverse)


def _evidence(
    values: Values, objective: Evidence, mode: Logits, inverse: CurvedInverse
) -> Float[Array, ""]:
    """The log evidence.

    Args:
        mode: a.
        inverse: (Θ + (W/ridge)⁻¹)⁻¹ at the mode. With W/ridge in place of W, Θ takes the place of P,
            which need not be formed.
    """
    likelihood, targets = objective.likelihood, objective.targets
    prior = with_values(objective.prior, values)
    ntk = prior.gram(objective.features).ntk if objective.ntk is None else objective.ntk
    mean = prior.mean_logits(objective.features, targets.shape[1])

    # At the mode the bracket is 0; its derivative is that of the stationarity a = r(f).
    wrong = mode - likelihood.residual(targets, mean + ntk @ (mode / prior.ridge))
    mode = mode - (wrong - inverse.matvec(jax.lax.stop_gradient(ntk) @ wrong))

    logits = mean + ntk @ (mode / prior.ridge)
    curvature = likelihood.curvature(targets, logits) / jnp.asarray(prior.ridge)
    log_determinant = inverse.differentiable(ntk, curvature)
    return laplace_evidence(likelihood, targets, logits, mean, mode, log_determinant)
