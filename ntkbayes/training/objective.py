"""What training minimises, and what its solvers return (THEORY 2).

Training f_lin(x; θ) = f0(x) + J(x)(θ − θ0) on the summed loss −Σ log p(y|f) + ridge/2 ‖θ − θ0‖² moves
the function only through weights α, one vector of C numbers per training point:

    f*(x) = f0(x) + Θ(x, X) α.

With P = Θ/ridge and a = ridge · α, stationarity reads a = r(f), with r the residual of the likelihood
(for cross-entropy Y − σ(f)). Shapes: n points, C logits, S initial functions.
"""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int

from ntkbayes.errors import ConvergenceError
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    Curvature,
    Draws,
    Gram,
    Interpolator,
    Logits,
    PerDraw,
    Preconditioner,
)


class Objective(eqx.Module):
    """−Σ log p(y | f) + ridge/2 ‖θ − θ0‖² of a linearised network, at its training points.

    Attributes:
        likelihood: p(y | f).
        gram: Θ(X, X).
        targets: as the likelihood encodes them, (n, C).
        ridge: weight of ½‖θ − θ0‖², an array, so that a new ridge does not recompile.
    """

    likelihood: Likelihood
    gram: Gram
    targets: Logits
    ridge: Float[Array, ""]

    def __init__(
        self,
        likelihood: Likelihood,
        gram: Gram,
        targets: Logits,
        ridge: Float[Array, ""] | float,
    ):
        self.likelihood = likelihood
        self.gram = gram
        self.targets = targets
        self.ridge = jnp.asarray(ridge, dtype=float)

    @property
    def prior_variances(self) -> Float[Array, "n outputs"]:
        """The diagonal of P, as `Gram.variances`."""
        return self.gram.variances / self.ridge

    def logits(
        self, initial: Float[Array, "*draws n classes"], a: Float[Array, "*draws n classes"]
    ) -> Float[Array, "*draws n classes"]:
        """f = f0 + P a."""
        return initial + self.prior_product(a)

    def prior_product(
        self, v: Float[Array, "*draws n classes"]
    ) -> Float[Array, "*draws n classes"]:
        """P v, without forming P."""
        return self.gram @ (v / self.ridge)

    def residual(self, f: Logits) -> Logits:
        """r(f)."""
        return self.likelihood.residual(self.targets, f)

    @eqx.filter_jit
    def curvature(self, f: Logits) -> Curvature:
        """W at f."""
        return self.likelihood.curvature(self.targets, f)

    def preconditioner(self, f: Logits, *, num_draws: int, dtype: DTypeLike) -> Preconditioner:
        """An approximation of (P⁻¹ + W)⁻¹, with W at f; see `Gram.preconditioner`."""
        return self.gram.preconditioner(
            self.ridge,
            self.curvature(f),
            is_flat=self.likelihood.is_flat,
            num_draws=num_draws,
            dtype=dtype,
        )

    def interpolator(self) -> Interpolator:
        """Q with α = Q (interpolant − f0), for training without ridge; errors as `Gram.interpolator`."""
        return self.gram.interpolator(
            is_flat=self.likelihood.is_flat, num_outputs=self.targets.shape[1]
        )


class Optimum(NamedTuple):
    """Where the minimisation ended, for one initial function or for each of many.

    Attributes:
        a: ridge · α.
        logits: f = f0 + P a.
        residual: max |a − r(f)|, in units of probability.
        logit_error: upper bound on the error of the logits, including round-off.
        spread: root mean square of f − f0.
        num_iterations: steps.
    """

    a: Float[Array, "*draws n classes"]
    logits: Float[Array, "*draws n classes"]
    residual: Float[Array, "*draws"]
    logit_error: Float[Array, "*draws"]
    spread: Float[Array, "*draws"]
    num_iterations: Int[Array, "*draws"]


class TrainedPredictors(eqx.Module):
    """f*(x) = f0(x) + Θ(x, X) α for each of S initial functions.

    Attributes:
        alpha: α of each, (S, n, C).
        residual: max |ridge α − r(f*)| of each, in units of probability; for a finite training time
            max |dα/dt| at its end, which need not be small.
        logit_error: upper bound on the error of each one's logits at the training points, including
            round-off; NaN for a finite training time.
        num_iterations: steps spent on each (0 for a closed form).
    """

    alpha: Draws
    residual: PerDraw
    logit_error: PerDraw | Float[np.ndarray, " draws"]
    num_iterations: Int[Array, " draws"]

    @classmethod
    def of(cls, objective: Objective, optimum: Optimum) -> "TrainedPredictors":
        """From the optima of many initial functions."""
        alpha = _divided(optimum.a, objective.ridge)
        return cls(alpha, optimum.residual, optimum.logit_error, optimum.num_iterations)


class TrainedPredictor(eqx.Module):
    """The same for one initial function.

    Attributes:
        initial: f0(X), (n, C).
        alpha: α, (n, C).
        logits: f* at the training points, (n, C).
        residual, logit_error, num_iterations: as for `TrainedPredictors`.
    """

    initial: Logits
    alpha: Logits
    logits: Logits
    residual: float
    logit_error: float
    num_iterations: int


_divided = jax.jit(jnp.divide)


class Solver(eqx.Module):
    """A way to train from initial functions."""

    @abc.abstractmethod
    def solve(self, objective: Objective, initial: Draws) -> TrainedPredictors:
        """The trained predictors.

        Args:
            initial: f0(X) of each, (S, n, C).

        Raises:
            ConvergenceError: one of them misses the tolerance.
        """


def silent(number: object) -> None:
    """Show neither progress nor errors."""


def not_converged(
    who: str, optimum: Optimum, tolerance: float, max_iterations: int
) -> ConvergenceError:
    """The error for an optimum, of one initial function, that misses the tolerance."""
    count = int(optimum.num_iterations)
    cause = ": the limit of float64, since Θ/ridge is so large"
    return ConvergenceError(
        f"{who} leaves logits off by up to {float(optimum.logit_error):.2g} after {count} iterations, "
        f"where their spread is {float(optimum.spread):.2g} and the tolerance {tolerance:g} of it"
        f"{cause if count < max_iterations else ''}. Use a larger ridge, standardised features, or a "
        "larger tolerance if that is close enough"
    )
