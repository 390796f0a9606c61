"""The ridge of a prior, chosen from the training points alone."""

import abc
import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray
from tqdm.auto import tqdm

from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.errors import (
    ConfigurationError,
    ConvergenceError,
    DataError,
    FailedTrialWarning,
    GridEdgeWarning,
    NotPositiveDefiniteError,
    SearchError,
)
from ntkbayes.laws import MAP, Laplace, Method
from ntkbayes.laws.wrappers.held_out import blocks_of_folds
from ntkbayes.likelihood import Likelihood
from ntkbayes.likelihood.base import require_untempered
from ntkbayes.priors.hyperparameters import RANGES
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real, whole_field
from ntkbayes.selection.cross_validation import held_out_nll
from ntkbayes.selection.lanczos import lanczos_evidence
from ntkbayes.selection.scan import scan
from ntkbayes.training.progress import DELAY


@dataclass(frozen=True)
class RidgeChoice:
    """A ridge, and how it came about.

    Attributes:
        ridge: weight of ½‖θ − θ0‖² against the loss summed over points.
        reason: how it was chosen, to be read after the ridge and a comma.
        scores: of every ridge tried, higher is better: the log evidence in nats, or minus the
            cross-validated NLL in nats per point; −∞ where the fit failed.
    """

    ridge: float
    reason: str
    scores: Mapping[float, float] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"ridge {self.ridge:.6g}, {self.reason}"


class RidgeRule(eqx.Module):
    """How the ridge of a prior is chosen.

    Attributes:
        name: what the command line and tables call it.
    """

    name: ClassVar[str]

    @property
    @abc.abstractmethod
    def methods(self) -> tuple[Method, ...]:
        """What is fitted to choose, and needs memory for it."""

    @abc.abstractmethod
    def choose(
        self,
        prior: NTKPrior,
        data: Dataset,
        *,
        key: PRNGKeyArray,
        likelihood: Likelihood | None = None,
    ) -> RidgeChoice:
        """The ridge for this prior, whose own is ignored, unless the rule is `GivenRidge`.

        Args:
            prior, likelihood: as for `Method.fit`.
            data: training points, as the laws will see them.
            key: of what is random, for the rules that draw.

        Raises:
            SearchError: no ridge could be chosen.
            InsufficientMemoryError: what is fitted to choose would not fit.
        """


class GivenRidge(RidgeRule):
    """The prior's own ridge."""

    name: ClassVar[str] = "given"

    @property
    def methods(self) -> tuple[Method, ...]:
        return ()

    def choose(
        self,
        prior: NTKPrior,
        data: Dataset,
        *,
        key: PRNGKeyArray,
        likelihood: Likelihood | None = None,
    ) -> RidgeChoice:
        return RidgeChoice(float(prior.ridge), "as given")


class RidgeByEvidence(RidgeRule):
    """The ridge that maximises the log evidence of the training points, by six to ten fits of Laplace.
    `choose` refuses a tempered likelihood, which has no evidence.

    Ridges are in units of 1/scale², with the likelihood's `scale` of a logit: the noise of real targets,
    whose unit thus does not matter, and otherwise 1.

    Climbs from a ridge of 1 by decades, then to the maximum of a cubic spline through the evidence in
    log ridge, until that stays within 2 %. The result has three digits, which is as many as matter, so
    that the same number, given by hand, is the same study. A ridge at which Laplace fails is passed
    over, with a warning. At an end of `within` it warns: the data ask for a narrower prior still, as
    where features say nothing, or for a wider one. Where the kernel is known by products alone the
    evidence is that of `lanczos_evidence`, with the same probes for all ridges.

    Args:
        within: the smallest and the largest ridge.
        progress: count the fits and show the best ridge, after two seconds.

    Raises:
        ConfigurationError: `within` is not a range of positive numbers.
    """

    name: ClassVar[str] = "evidence"
    within: tuple[float, float] = eqx.field(
        default=RANGES["ridge"], converter=lambda ends: _increasing("within", ends)
    )
    progress: bool = False

    @property
    def methods(self) -> tuple[Method, ...]:
        return (Laplace(),)

    def choose(
        self,
        prior: NTKPrior,
        data: Dataset,
        *,
        key: PRNGKeyArray,
        likelihood: Likelihood | None = None,
    ) -> RidgeChoice:
        require_untempered("the evidence, which chooses the ridge,", likelihood)
        key = random_key(key)
        problem = Laplace().problem(prior.with_ridge(1.0), data, likelihood)
        unit = float(problem.likelihood.scale) ** -2
        scores: dict[float, float] = {}
        failures: dict[float, Exception] = {}

        def evidence(exponent: float) -> float:
            ridge = float(f"{unit * 10**exponent:.3g}")
            if ridge not in scores:
                tried = dataclasses.replace(problem, prior=prior.with_ridge(ridge))
                try:
                    law = Laplace().solve(tried)
                    found = lanczos_evidence(law, key=jax.random.clone(key), num_probes=_PROBES)
                    scores[ridge] = found.log_evidence
                except (ConvergenceError, NotPositiveDefiniteError) as error:
                    scores[ridge], failures[ridge] = -math.inf, error
                told(ridge, scores[ridge])
            return scores[ridge]

        with _fits(self.name, shown=self.progress) as told:
            _climb(evidence, math.log10(self.within[0]), math.log10(self.within[-1]))
        best = max(scores, key=lambda ridge: scores[ridge])
        if len(failures) == len(scores):
            raise _unchosen(f"by the evidence: at a ridge of {best:g} {failures[best]}")
        for ridge, failure in failures.items():
            warnings.warn(
                f"no evidence at a ridge of {ridge:g} ({type(failure).__name__}: {failure})",
                FailedTrialWarning,
                stacklevel=2,
            )
        least, most = (float(f"{unit * end:.3g}") for end in self.within)
        if least < best < most:
            return RidgeChoice(best, "which maximises the evidence of the training points", scores)
        end = "smallest" if best <= least else "largest"
        warnings.warn(
            f"the evidence of the training points still grows at a ridge of {best:g}, the {end} tried"
            f"{': the features say little of the targets' if end == 'largest' else ''}",
            GridEdgeWarning,
            stacklevel=2,
        )
        reason = f"the {end} tried, at which the evidence of the training points still grows"
        return RidgeChoice(best, reason, scores)


_PROBES = 8  # of an evidence by products


class RidgeByCrossValidation(RidgeRule):
    """The ridge of a grid with the lowest cross-validated NLL of one method's law.

    Ridges are in units of 1/scale², as those of `RidgeByEvidence`.

    Args:
        method: whose predictions are scored.
        ridges: the grid.
        num_folds: as for `cross_validated_nll`.
        progress: count the ridges and show the best one, after two seconds.

    Raises:
        ConfigurationError: the grid is not of increasing positive numbers.
    """

    name: ClassVar[str] = "cv"
    method: Method = MAP()
    ridges: tuple[float, ...] = eqx.field(
        default=tuple(float(f"{10 ** (half / 2):.1g}") for half in range(-6, 5)),
        converter=lambda ridges: _increasing("ridges", ridges),
    )
    num_folds: int = whole_field("num_folds", 5, at_least=2)
    progress: bool = False

    @property
    def methods(self) -> tuple[Method, ...]:
        return (self.method,)

    def choose(
        self,
        prior: NTKPrior,
        data: Dataset,
        *,
        key: PRNGKeyArray,
        likelihood: Likelihood | None = None,
    ) -> RidgeChoice:
        problem = self.method.problem(prior.with_ridge(1.0), data, likelihood)
        unit = float(problem.likelihood.scale) ** -2
        ridges = [float(f"{unit * ridge:.3g}") for ridge in self.ridges]

        def score(prior: NTKPrior, data: Dataset) -> float:
            tried = dataclasses.replace(problem, prior=prior)
            return -held_out_nll(self.method, tried, key=key, num_folds=self.num_folds)

        try:
            with _fits(self.name, shown=self.progress, total=len(ridges)) as told:
                # Held by a name: every ridge finds them.
                held = blocks_of_folds(problem, random_key(key), self.num_folds)
                found = scan(
                    {r: prior.with_ridge(r) for r in ridges}, data, score=score, progress=told
                )
                del held
        except (ConvergenceError, NotPositiveDefiniteError, DataError) as error:
            raise _unchosen(f"by cross-validation: {error}") from error
        best = float(found.prior.ridge)
        among = f"{len(ridges)} from {ridges[0]:g} to {ridges[-1]:g}"
        reason = (
            f"the one of {among} with the lowest NLL of {self.method.name} in {self.num_folds}-fold "
            "cross-validation of the training points"
        )
        return RidgeChoice(best, reason, {r: found.scores[r] for r in ridges})


@contextmanager
def _fits(
    name: str, *, shown: bool, total: int | None = None
) -> Iterator[Callable[[Hashable, float], None]]:
    """A function to be called with each ridge and its score; it counts them and shows the best."""
    best: tuple[float, Hashable] = (-math.inf, None)
    with tqdm(
        desc=f"ridge ({name})", total=total, unit=" ridges", delay=DELAY, disable=not shown
    ) as bar:

        def told(ridge: Hashable, score: float) -> None:
            nonlocal best
            if score > best[0]:
                best = score, ridge
                bar.set_postfix_str(f"best {ridge:g}", refresh=False)
            bar.update()

        yield told


_NEAR = 0.01  # decades
_MOST = 8  # refinements


def _climb(score: Callable[[float], float], low: float, high: float) -> None:
    """Call a function of one number where its maximum may be: by steps of 1, then at the maximum of a
    spline through what is known, until that is near a place where it was called."""
    from scipy.interpolate import CubicSpline

    known: dict[float, float] = {}

    def at(place: float) -> float:
        if place not in known:
            known[place] = score(place)
        return known[place]

    best = min(max(0.0, low), high)
    for step in (-1.0, 1.0):
        while at(beside := min(max(best + step, low), high)) > at(best):
            best = beside
    for refinement in range(_MOST):
        finite = sorted(place for place, value in known.items() if math.isfinite(value))
        if not finite:
            return
        best = max(finite, key=lambda place: known[place])
        others = [place for place in (*known, low, high) if abs(place - best) > _NEAR]
        left = max((place for place in others if place < best), default=best)
        right = min((place for place in others if place > best), default=best)
        peak = best
        if len(finite) > 2:
            spline = CubicSpline(finite, [known[place] for place in finite])
            level = spline.derivative().roots(extrapolate=False)
            peak = max([best, *level[(left < level) & (level < right)]], key=spline)
        if any(abs(peak - place) < _NEAR for place in known):
            ends = sorted({left, right} - {best}, key=lambda place: known.get(place, -math.inf))
            if not ends:
                return
            failed = known.get(ends[0]) == -math.inf
            if refinement > 1 and not failed and min(abs(end - best) for end in ends) < 0.15:
                return
            # What is known is too far away to tell, or a failure: nearer to it, then.
            peak = (best + ends[0]) / 2 if failed else best + 0.1 * (ends[-1] - best)
        at(peak)


def _unchosen(why: str) -> SearchError:
    return SearchError(
        f"the ridge could not be chosen {why}. Give it as a number: --ridge 0.1, or "
        "NTKPrior(network, ridge=0.1) without a rule"
    )


def _increasing(name: str, values: object) -> tuple[float, ...]:
    """Two or more positive numbers in increasing order."""
    ridges = [
        float(real(f"each of {name}", ridge, Range.POSITIVE_FINITE))
        for ridge in (values if isinstance(values, list | tuple) else ())
    ]
    if len(ridges) < 2 or not all(a < b for a, b in itertools.pairwise(ridges)):
        raise ConfigurationError(
            f"{name} takes two or more ridges in increasing order, got {values!r}"
        )
    return tuple(ridges)
