"""Gaussian posteriors: the prior GP(mean, Θ/ridge) times one Gaussian site per training point.

With sites exp(νᵢᵀ fᵢ − ½ fᵢᵀ Λᵢ fᵢ) the posterior is, with P = Θ(X, X)/ridge,

    f(X) ~ N(m, S),   S = (P⁻¹ + Λ)⁻¹,   m = mean + P a,   a = ν − Λ m.

Laplace, variational inference, expectation propagation and the Dirichlet classifier differ in their
sites alone.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.attached import Attached
from ntkbayes.errors import ConvergenceError, NotPositiveDefiniteError
from ntkbayes.laws.gaussian.gaussian_law import GaussianLaw, solve_columns
from ntkbayes.laws.info import Info, InfoT
from ntkbayes.laws.law import Inputs
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    CoupledGram,
    CoupledInverse,
    Covariances,
    Curvature,
    CurvedInverse,
    Draws,
    FormedBlock,
    Gram,
    IterativeInverse,
    Logits,
    SharedInverse,
    num_shares,
    output_blocks,
    white_noise,
)
from ntkbayes.priors.paths import Process
from ntkbayes.training.linearised import train
from ntkbayes.training.objective import TrainedPredictor, silent

_PROCESSES = Attached[Process]()  # of a law
_FEW_DRAWS = 100  # of functions, which take as long as a factor of 10⁴ rows for a small network


class SiteInfo(Info):
    """Of the fixed point of Gaussian sites.

    Attributes:
        log_evidence: in nats. Of EP its approximation of log p(y | X); of variational inference a lower
            bound of it, up to Monte Carlo error; NaN at a temperature other than 1.
        log_evidence_error: its standard error; 0 for one logit, whose expectations are by quadrature;
            NaN at a temperature other than 1.
        site_move: by how much sites that reproduced themselves would differ, to first order: the largest
            move of a mean m, in standard deviations of its logit, or of an entry of Λ, as a part of the
            precisions of its logits.
        num_iterations: of the fixed point.
    """

    log_evidence: float
    log_evidence_error: float
    site_move: float
    num_iterations: int


class PosteriorMethod[LawT: "SitePosterior"](Method[LawT]):
    """A method whose law is a `SitePosterior`, and that draws nothing at random."""

    @abc.abstractmethod
    def solve(self, problem: Problem, key: PRNGKeyArray | None = None) -> LawT:
        """The posterior; the key is not used."""


def mode_and_curvature(
    problem: Problem,
    tolerance: float,
    factor_dtype: np.dtype,
    *,
    watch: Callable[[float], object] = silent,
) -> tuple[TrainedPredictor, Curvature]:
    """f̂ with its weights, and W there.

    Args:
        tolerance, factor_dtype, watch: as for `train`.

    Raises:
        RidgeError: the ridge is 0.
    """
    problem.prior.require_ridge("the Laplace posterior")
    objective = problem.objective
    mode = train(
        objective, problem.mean, tolerance=tolerance, factor_dtype=factor_dtype, watch=watch
    )
    return mode, objective.curvature(mode.logits)


class SitePosterior(GaussianLaw[InfoT]):
    """N(m, (P⁻¹ + Λ)⁻¹).

    Drawn pathwise by Matheron's rule: g from the prior, noise ε ~ N(0, Λ), δa = ε − B (g + P ε), with
    B = (P + Λ⁻¹)⁻¹. Of Laplace this is the perturbed-init law to first order (THEORY 6).

    Attributes:
        curvature: Λ.
    """

    inverse: CurvedInverse
    curvature: Curvature

    @property
    def process(self) -> Process:
        """GP(0, Θ/ridge), computed lazily; only sampling needs its factor."""
        return self._kept("as the kernel draws it", lambda: self.problem.tangent_process)

    def process_for(self, num_draws: int) -> Process:
        """`process`; many draws of a network's formed kernel by its factor, where it has one, since each
        of its functions takes a pass of all points."""
        problem = self.problem
        if num_draws <= _FEW_DRAWS or not isinstance(problem.gram.ntk, CoupledGram):
            return self.process
        try:
            return self._kept("by the factor", lambda: problem.conditioned_process)
        except NotPositiveDefiniteError:
            return self.process

    def _kept(self, how: str, make: Callable[[], Process]) -> Process:
        kept = _PROCESSES.of(self)
        if how not in kept:
            kept[how] = self._outliving_the_trace(make)
        return kept[how]

    def _outliving_the_trace(self, make: Callable[[], Process]) -> Process:
        is_tracing, is_traced = (
            isinstance(v, jax.core.Tracer) for v in (jnp.zeros(()), self.alpha)
        )
        if is_traced or not is_tracing or num_shares() > 1:  # a mesh needs its own trace
            return make()
        with jax.ensure_compile_time_eval():
            return make()

    def response(self, key: PRNGKeyArray, g: Draws) -> Draws:
        noise = white_noise(key, g.shape)
        objective = self.problem.objective
        given = (self.curvature, self.inverse, objective.gram, objective.ridge)
        return _response(*given, noise, g)

    def covariance(self, features: Inputs) -> Array:
        return site_covariance(self.problem, self.inverse, self.problem.read(features))

    def joint_covariance(self, features: Inputs) -> Array:
        """P(x, x') − P(x, X) B P(X, x')."""
        problem, features = self.problem, self.problem.read(features)
        size = problem.num_outputs
        gram = problem.prior.gram(features).ntk.every_output(size)
        cross = problem.prior.cross(features, problem.features).ntk
        columns = cross.every_output(size).T / problem.prior.ridge
        return gram / problem.prior.ridge - columns.T @ solve_columns(self.inverse, columns, size)

    def leave_one_out(self) -> tuple[Logits, Covariances]:
        """Mean (n, C) and covariance (n, C, C) of the logits of each training point with its own
        site removed: N(mᵢ − Vᵢ aᵢ, Vᵢ) with Vᵢ = (Sᵢᵢ⁻¹ − Λᵢ)⁻¹.

        For a Normal likelihood exactly the posterior without the point (R&W 5.12). Otherwise the other
        sites would move if it were gone (Opper & Winther 2000; Vehtari et al. 2016), the more so the
        fewer the points.
        """
        problem = self.problem
        posterior = site_covariance(problem, self.inverse, problem.features)
        return _left_out(
            self.logits, posterior, problem.objective.ridge, self.alpha, self.curvature
        )

    def log_weights(self, logits: Draws) -> Float[Array, " draws"]:
        """log of (prior × likelihood) / (density of this law) of draws at the training points.

        Their exponentials average to the evidence p(y | X), exactly. With δ = f − m it is, point by
        point, log p(y | f) − aᵀδ + ½ δᵀΛδ, and P⁻¹ takes no part.

        Raises:
            ConfigurationError: Θ is known by products alone, which do not give its determinant.
        """
        problem = self.problem
        problem.gram.ntk.require_formed("the weights of draws need the determinant of Θ")
        weights = problem.prior.ridge * self.alpha
        given = (problem.likelihood, problem.targets, self.curvature, weights, self.logits)
        shift = jnp.sum(weights * (self.logits - problem.mean)) + self.inverse.log_determinant
        return _log_ratios(*given, logits) - shift / 2


class GaussianPosterior(SitePosterior[InfoT]):
    """The posterior of all the sites that a method found."""


@eqx.filter_jit
def _response(
    curvature: Curvature,
    inverse: CurvedInverse,
    ntk: Gram,
    ridge: Float[Array, ""],
    noise: Draws,
    g: Draws,
) -> Draws:
    """δα = (ε − B (g + P ε)) / ridge with ε ~ N(0, Λ)."""
    epsilon = jax.vmap(curvature.root_matvec)(noise)
    return (epsilon - inverse.products(g + ntk @ (epsilon / ridge))) / ridge


@eqx.filter_jit
def cavity(
    mean: Logits, covariance: Covariances, weights: Logits, precisions: Covariances
) -> tuple[Logits, Covariances]:
    """Mean and covariance of each point's logits without its own site, (Sᵢᵢ⁻¹ − Λᵢ)⁻¹ the covariance.

    Args:
        mean, covariance: mᵢ and Sᵢᵢ of the posterior.
        weights, precisions: aᵢ and Λᵢ of the site.
    """
    identity = jnp.eye(mean.shape[1])[None]
    left = jnp.linalg.solve(identity - covariance @ precisions, covariance)
    left = (left + left.transpose(0, 2, 1)) / 2
    return mean - jnp.einsum("icd,id->ic", left, weights), left


@eqx.filter_jit
def _left_out(
    mean: Logits,
    covariance: Covariances,
    ridge: Float[Array, ""],
    alpha: Logits,
    curvature: Curvature,
) -> tuple[Logits, Covariances]:
    return cavity(mean, covariance, ridge * alpha, curvature.blocks)


@eqx.filter_jit
def _log_ratios(
    likelihood: Likelihood,
    targets: Logits,
    curvature: Curvature,
    weights: Logits,
    mode: Logits,
    draws: Draws,
) -> Float[Array, " draws"]:
    def one(logits: Logits) -> Float[Array, ""]:
        delta = logits - mode
        spread = jnp.sum(delta * curvature.matvec(delta))
        density = jnp.sum(likelihood.log_density(targets, logits))
        return density - jnp.sum(weights * delta) + spread / 2

    return jax.vmap(one)(draws)


# In the columns of B's argument, of which there are some copies: 64 MiB, or more beside large factors.
_COLUMN_NUMBERS = 2**23
_COLUMN_SHARE = 0.3


def site_covariance(problem: Problem, inverse: CurvedInverse, features: Array) -> Covariances:
    """P(x, x) − P(x, X) B P(X, x), a block of inputs at a time, since their columns are formed even
    where Θ is not: one per input, or one per output of it where Θ couples them.

    Raises:
        ConvergenceError: conjugate gradients did not converge (while JAX is tracing: NaN).
    """
    rows = problem.targets.size
    columns = 1 if isinstance(inverse, SharedInverse) else problem.num_outputs
    match inverse:
        case CoupledInverse():
            numbers = max(_COLUMN_NUMBERS, int(_COLUMN_SHARE * rows**2))
        case IterativeInverse():
            numbers = _COLUMN_NUMBERS // 8
        case _:
            numbers = _COLUMN_NUMBERS
    step = max(1, numbers // (rows * columns))

    def part(inputs: Array) -> Covariances:
        cross = problem.prior.cross(inputs, problem.features).ntk.formed()
        variance = problem.prior.diagonal(inputs).ntk
        return _left(inverse, cross, variance, problem.objective.ridge, problem.num_outputs)

    if len(features) <= step:
        covariance = part(features)
    else:
        covariance = _by_blocks(part, features, -(-len(features) // step))
    if not isinstance(covariance, jax.core.Tracer) and not np.isfinite(covariance).all():
        raise ConvergenceError(
            "the posterior's covariance was not found: conjugate gradients did not converge. Use a "
            "larger ridge, or a kernel with a larger max_rows, which is formed and factored"
        )
    return covariance


def _by_blocks(part: Callable[[Array], Covariances], features: Array, count: int) -> Covariances:
    """The parts of `count` blocks of one size, of which the last may overlap the one before."""
    size = -(-len(features) // count)
    starts = range(0, len(features), size)
    parts = [part(features[min(i, len(features) - size) :][:size]) for i in starts]
    parts[-1] = parts[-1][starts[-1] + size - len(features) :]
    return jnp.concatenate(parts)


@eqx.filter_jit
def _left(
    inverse: CurvedInverse,
    cross: FormedBlock,
    variance: Float[Array, " m"] | Covariances,
    ridge: Float[Array, ""],
    num_outputs: int,
) -> Covariances:
    """P(x, x) − P(x, X) B P(X, x).

    Args:
        cross, variance: Θ(x, X) and the diagonal of Θ(x, x).
    """
    return output_blocks(variance / ridge, num_outputs) - inverse.quadratic(cross.T / ridge)
