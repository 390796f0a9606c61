"""Sites that reproduce themselves: the fixed point behind variational inference and EP.

A rule turns each point's posterior marginal N(mᵢ, Sᵢᵢ) into a new site; the posterior of the new sites
has new marginals; and so on, until nothing moves. See `posterior` for the
notation. One step costs what one Newton step of training does, O(C n³), where Λ is diagonal, and
O((nC)³) where it couples the outputs.
"""

import abc
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import ConvergenceError
from ntkbayes.laws.gaussian.posterior import (
    Covariances,
    GaussianPosterior,
    PosteriorMethod,
    SiteInfo,
)
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import (
    BlockCurvature,
    Curvature,
    CurvedInverse,
    Gram,
    Logits,
    StructuredCurvature,
    largest,
    nan_is_an_answer,
)
from ntkbayes.training.linearised import train
from ntkbayes.training.matrices import inverse_matrices
from ntkbayes.training.operations import Size, gaussian_predictions, inverse, kernels

_SMALLEST_STEP = 1 / 64  # which is taken even if it makes the sites move more
_VANISHING_STEP = 1e-4


class Sites(eqx.Module):
    """Sites, each given by Λᵢ and by aᵢ = νᵢ − Λᵢ mᵢ, its slope at the posterior mean."""

    weights: Logits
    precisions: Covariances


class Posterior(eqx.Module):
    """The Gaussian that sites and prior make.

    Attributes:
        sites: a and Λ.
        logits: m, (n, C).
        covariances: Sᵢᵢ, (n, C, C).
        curvature: Λ.
        inverse: B = (P + Λ⁻¹)⁻¹.
    """

    sites: Sites
    logits: Logits
    covariances: Covariances
    curvature: Curvature
    inverse: CurvedInverse


class Estimate(NamedTuple):
    """A number, and its standard error where it is an average over random points, else 0."""

    value: Float[Array, ""]
    error: Float[Array, ""]


_TYPICAL_STEPS = 20  # of a fixed point


class SiteMethod(PosteriorMethod[GaussianPosterior[SiteInfo]]):
    """A method given by its rule for sites.

    Attributes:
        tolerance: on how far the rule would still move the marginals, as `SiteInfo.site_move`.
        max_iterations: steps before giving up.
    """

    tolerance: eqx.AbstractVar[float]
    max_iterations: eqx.AbstractVar[int]

    @abc.abstractmethod
    def rule(self, likelihood: Likelihood, targets: Logits, posterior: Posterior) -> Sites:
        """New sites from the marginals of the posterior."""

    @abc.abstractmethod
    def log_evidence(
        self, likelihood: Likelihood, targets: Logits, mean: Logits, posterior: Posterior
    ) -> Estimate:
        """Its approximation of log p(y | X), or bound on it, in nats."""

    def couples(self, num_outputs: int) -> bool:
        """Whether the sites couple the outputs."""
        return False

    def matrices(self, size: Size) -> dict[str, float]:
        if self.couples(size.num_outputs):
            return {"(nC)² matrices": 5.0 * size.num_outputs**2}
        columns = {"columns of all points": 3.0 * size.num_outputs}
        return {**inverse_matrices(size._replace(couples=False)), **columns}  # P is formed

    def operations(self, size: Size) -> dict[str, float]:
        whole = size._replace(couples=False)  # the marginals take an inverse, not one factor
        if self.couples(size.num_outputs):
            rows, new = (count * size.num_outputs for count in (size.rows, size.num_new))
            whole = whole._replace(rows=rows, num_outputs=1, num_new=new)
        return {
            "kernels": kernels(size),
            "fixed point": _TYPICAL_STEPS * inverse(whole),
            **gaussian_predictions(whole, 3.0),
        }

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None = None
    ) -> GaussianPosterior[SiteInfo]:
        problem.prior.require_ridge(f"the posterior of {type(self).__name__}")
        gram = problem.prior_gram
        gram.require_formed(f"{type(self).__name__} needs the marginals of all training points")
        posterior, residual, count = self._iterate(problem, gram)
        given = (problem.likelihood, problem.targets, problem.mean, posterior)
        evidence = self.log_evidence(*given)
        value, error = (problem.evidence(part) for part in evidence)
        info = SiteInfo(value, error, residual, count)
        return GaussianPosterior(
            problem,
            self.kind,
            info,
            posterior.sites.weights / problem.ridge,
            posterior.logits,
            posterior.inverse,
            posterior.curvature,
        )

    def _iterate(self, problem: Problem, gram: Gram) -> tuple[Posterior, float, int]:
        """From Laplace's sites, by Anderson's mixing of the last few steps (Walker & Ni 2011). Where
        that makes the sites move more, a plain step is taken instead, halved until it does not or is
        a 64th, and mixing begins anew with steps as short."""
        given = (self, problem.likelihood, gram, problem.targets, problem.mean)
        sites, history, step, count = self._start(problem), Mixing(), 1.0, 0
        now = _assess(*given, sites)
        while not float(now.size) <= self.tolerance:
            self._require_steps(float(now.size), step, count)
            mixed = history.next(sites, now, step)
            trial = _assess(*given, mixed)
            count += 1
            while not _is_acceptable(float(trial.size), float(now.size), step):
                self._require_steps(float(now.size), step, count)
                mixed = jax.tree.map(lambda x, dx, t=step: x + t * dx, sites, now.move)
                trial = _assess(*given, mixed)
                history, step, count = Mixing(), step / 2, count + 1
            sites, now = mixed, trial
            step = min(1.0, 2 * step)
        return now.posterior, float(now.size), count

    def _require_steps(self, residual: float, step: float, count: int) -> None:
        """Raises ConvergenceError if there is to be no other step."""
        if count >= self.max_iterations or step < _VANISHING_STEP:
            raise ConvergenceError(
                f"the sites of {type(self).__name__} still move by {residual:.3g} after {count} "
                f"iterations, above the tolerance {self.tolerance:g}; use a larger ridge, or a larger "
                "tolerance if that is close enough"
            )

    def _start(self, problem: Problem) -> Sites:
        likelihood, targets = problem.likelihood, problem.targets
        mode = train(problem.objective, problem.mean, tolerance=1e-3)
        blocks = likelihood.curvature(targets, mode.logits).blocks
        if not self.couples(problem.num_outputs):
            blocks = diagonal_blocks(blocks)
        return Sites(problem.ridge * mode.alpha, blocks)


def _is_acceptable(size: float, before: float, step: float) -> bool:
    return size < 1.5 * before or (step <= _SMALLEST_STEP and math.isfinite(size))


class Mixing:
    """Anderson's mixing: the step whose linear model, of the last few moves, is to stand still."""

    depth = 6

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []
        self.moves: list[np.ndarray] = []

    def next(self, sites: Sites, assessment: "Assessment", step: float) -> Sites:
        """Where to go from sites, if only this part of a move is taken."""
        point, unravel = ravel_pytree(sites)
        move, unit = (
            np.asarray(ravel_pytree(part)[0]) for part in (assessment.move, assessment.unit)
        )
        self.points = [*self.points[-self.depth :], np.asarray(point)]
        self.moves = [*self.moves[-self.depth :], move]
        goal = self.points[-1] + step * move
        if len(self.moves) > 1:
            moved, turned = (np.diff(np.array(x), axis=0).T for x in (self.points, self.moves))
            mixture = np.linalg.lstsq(turned / unit[:, None], move / unit)[0]
            goal = goal - (moved + step * turned) @ mixture
        return unravel(jnp.asarray(goal))


class Assessment(NamedTuple):
    """The posterior of some sites, how their rule would move them, in what units, and how far."""

    posterior: Posterior
    move: Sites
    unit: Sites
    size: Float[Array, ""]


@nan_is_an_answer()  # a step too long
@eqx.filter_jit
def _assess(
    method: SiteMethod,
    likelihood: Likelihood,
    gram: Gram,
    targets: Logits,
    mean: Logits,
    sites: Sites,
) -> Assessment:
    """The weights take a Newton step towards a = a*, whose slope in m is about −Λ, along the
    directions that the likelihood sees. Moves are measured by what they do to the marginals: to m in
    standard deviations, to S⁻¹ as a part of it.
    """
    posterior = _posterior(gram, mean, sites, couples=method.couples(targets.shape[1]))
    goal = method.rule(likelihood, targets, posterior)
    wrong, apart = goal.weights - sites.weights, goal.precisions - sites.precisions
    step = likelihood.project(wrong - posterior.inverse.matvec(gram @ wrong))
    seen = likelihood.project(likelihood.project(posterior.covariances).transpose(0, 2, 1))
    deviation = jnp.sqrt(jnp.diagonal(seen, axis1=1, axis2=2))
    unit = Sites(1 / deviation, 1 / (deviation[:, :, None] * deviation[:, None, :]))
    moved = largest((gram @ step) / deviation)
    size = largest(jnp.stack([moved, largest(apart / unit.precisions)]))
    return Assessment(posterior, Sites(step, apart), unit, size)


def _posterior(gram: Gram, mean: Logits, sites: Sites, *, couples: bool) -> Posterior:
    blocks = sites.precisions
    curvature: Curvature
    if couples:
        curvature = BlockCurvature(blocks)
    else:
        diagonal = jnp.diagonal(blocks, axis1=1, axis2=2)
        curvature = StructuredCurvature(diagonal, coupled=False)
    inverse = gram.curved(curvature)
    covariances = gram.diagonal_blocks(mean.shape[1]) - inverse.quadratic(gram)
    logits = mean + gram @ sites.weights
    return Posterior(sites, logits, covariances, curvature, inverse)


def diagonal_blocks(blocks: Covariances) -> Covariances:
    """The blocks with their off-diagonal entries removed."""
    return blocks * jnp.eye(blocks.shape[1])[None]
