"""The maximum of the evidence over hyper-parameters, by L-BFGS-B with exact gradients."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import (
    ConfigurationError,
    ConvergenceError,
    NotPositiveDefiniteError,
    SearchError,
)
from ntkbayes.likelihood import Likelihood
from ntkbayes.priors.hyperparameters import RANGES
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real
from ntkbayes.selection.evidence import Evidence


@dataclass(frozen=True, repr=False)
class EvidenceMaximum(Configured):
    """Where the evidence of a prior is largest.

    Attributes:
        prior: with the best hyper-parameters.
        log_evidence: at the maximum, in nats.
        values: the best hyper-parameters.
        path: every evaluation in order, hyper-parameters and log evidence; −inf where the mode was not
            found.
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
    """Maximise the evidence from the prior's own hyper-parameters, by L-BFGS-B with exact gradients.

    The result is a local maximum: start from several priors if in doubt. The search steps back from
    trials where the mode is not found.

    Args:
        prior: where to start.
        data: training data.
        over: the hyper-parameters to change, among weight_std, bias_std, ridge, mean and a kernel's own.
            For a ReLU network without biases, weight_std is redundant with the ridge.
        ranges: search ranges by name, in place of `hyperparameters.RANGES`.
        likelihood: as for `Method.fit`.
        max_evaluations: evaluations of evidence and gradient before giving up.
        progress: called with the log evidence of each evaluation, −inf where the mode was not found.

    Raises:
        SearchError: the evidence still grows at the end of a range, or towards values where the mode is
            not found; or max_evaluations did not suffice. The error's `best` is the `EvidenceMaximum` of
            the trials so far.
        ConvergenceError: the mode was not found at the start.
        ConfigurationError: the prior lacks a hyper-parameter, or starts outside its range.
        UnknownNameError: a hyper-parameter is unknown.
    """
    if not over:
        raise ConfigurationError(
            "over names no hyper-parameter to change; give over=('ridge',), for example"
        )
    objective = Evidence.build(prior, data, likelihood, over)
    scales = [_Scale.of(name, objective.start[name], ranges) for name in over]
    search = _Search(objective, scales, max_evaluations, progress)
    return search.climb()


_ROUND_OFF = 1e-6  # of a slope, relative to the evidence
_MIN_REACH = 1e-3  # shortest step back, on the line
_FLAT = 1e-5  # slope at a maximum, in nats on the line
_NEARLY_FLAT = 1e-3  # the same if L-BFGS-B reports convergence


class _Trial(NamedTuple):
    """A place on the line (see `_Scale`), the evidence there, and its slope on the line."""

    place: np.ndarray
    value: float
    slope: np.ndarray


class _FailedTrial(Exception):
    """The mode was not found at `place`, for the reason in `__cause__`."""

    def __init__(self, place: np.ndarray):
        super().__init__(place)
        self.place = place


class _Search:
    """Runs of L-BFGS-B on the line, each from the best trial so far.

    A run ends at a trial that fails; the next is confined to a box around the best trial that reaches
    half as far. Boxes double with every run without failure.
    """

    def __init__(
        self,
        objective: Evidence,
        scales: "list[_Scale]",
        max_evaluations: int,
        progress: Callable[[float], object],
    ):
        self.objective, self.scales = objective, scales
        self.max_evaluations, self.progress = max_evaluations, progress
        self.low, self.high = np.array([bound for s in scales for bound in s.bounds]).T
        self.path: list[tuple[Mapping[str, np.ndarray], float]] = []
        starts = [s.to_line(np.asarray(objective.start[s.name])) for s in scales]
        self.best = self._evaluate(np.concatenate(starts))

    def climb(self) -> EvidenceMaximum:
        from scipy.optimize import minimize

        reach = math.inf
        while True:
            start = self.best
            ends = start.place - reach, start.place + reach
            box = np.transpose([np.clip(end, self.low, self.high) for end in ends])
            try:
                run = minimize(
                    self._descend,
                    start.place,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=box,
                    options={"ftol": 1e-10, "gtol": _FLAT},
                )
            except _FailedTrial as failed:
                reach = float(np.max(np.abs(failed.place - self.best.place))) / 2
                if reach < _MIN_REACH:
                    raise self._ended(
                        f"it still grows towards values where {failed.__cause__}"
                    ) from failed
                continue
            if self._is_flat(_NEARLY_FLAT if run.success else _FLAT):
                self._require_inside()
                return self._maximum()
            if not self.best.value > start.value:
                raise self._ended(
                    f"L-BFGS-B stopped at slopes of {self.best.slope} ({run.message})"
                )
            reach *= 2

    def _descend(self, place: np.ndarray) -> tuple[float, np.ndarray]:
        trial = self.best
        if not np.array_equal(place, trial.place):
            if len(self.path) >= self.max_evaluations:
                raise self._ended("there were no more max_evaluations")
            try:
                trial = self._evaluate(place.copy())
            except (ConvergenceError, NotPositiveDefiniteError) as error:
                self._record(place, -math.inf)
                raise _FailedTrial(place.copy()) from error
            if trial.value > self.best.value:
                self.best = trial
        return -trial.value, -trial.slope

    def _evaluate(self, place: np.ndarray) -> _Trial:
        values = _by_name(place, self.scales)
        value, gradient = self.objective.value_and_gradient(values)
        self._record(place, value)
        slopes = [s.chain(values[s.name], gradient[s.name]) for s in self.scales]
        return _Trial(place, value, np.concatenate(slopes))

    def _record(self, place: np.ndarray, value: float) -> None:
        self.path.append((_by_name(place, self.scales), value))
        self.progress(value)

    def _is_flat(self, steepest: float) -> bool:
        """Whether the evidence grows nowhere inside the ranges, up to that slope and round-off."""
        place, value, slope = self.best
        moved = np.clip(place + slope, self.low, self.high) - place
        return bool(np.max(np.abs(moved)) <= steepest + _ROUND_OFF * abs(value))

    def _require_inside(self) -> None:
        place, _, slope = self.best
        outwards = (place <= self.low) & (slope < -1e-3) | (place >= self.high) & (slope > 1e-3)
        values = _by_name(place, self.scales)
        for scale, at_end in zip(self.scales, self._by_scale(outwards), strict=True):
            if at_end.any():
                raise self._ended(
                    f"it has no maximum with {scale.name} inside {scale.range}, since it still grows at "
                    f"{values[scale.name]}. Widen ranges={{{scale.name!r}: (low, high)}}, or set "
                    f"{scale.name} by hand and leave it out of over"
                )

    def _by_scale(self, numbers: np.ndarray) -> list[np.ndarray]:
        sizes = [len(scale.bounds) for scale in self.scales]
        return np.split(numbers, np.cumsum(sizes)[:-1])

    def _maximum(self) -> EvidenceMaximum:
        values = _by_name(self.best.place, self.scales)
        best = self.objective.with_values(values)
        return EvidenceMaximum(best, self.best.value, values, tuple(self.path))

    def _ended(self, why: str) -> SearchError:
        best = self._maximum()
        values = {name: value.tolist() for name, value in best.values.items()}
        return SearchError(
            f"the evidence was not maximised: {why}. The best of {len(self.path)} trials, "
            f"{best.log_evidence:.6g} at {values}, is in this error's `best`",
            best=best,
        )


@dataclass(frozen=True)
class _Scale:
    """One hyper-parameter, and the line on which it is searched: log scale, but for the mean."""

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
                f"no search range for {name}; pass ranges={{{name!r}: (low, high)}}"
            )
        low, high = ends = tuple(
            real(f"the range of {name}", end, Range.FINITE) for end in known[name]
        )
        if not low < high or (name != "mean" and low <= 0):
            raise ConfigurationError(f"the range of {name} must be (low, high), got {ends}")
        if not bool(jnp.all((low <= start) & (start <= high))):
            raise ConfigurationError(
                f"{name} starts at {np.asarray(start)}, outside its range {ends}; give ranges="
                f"{{{name!r}: (low, high)}}"
            )
        return cls(name, tuple(start.shape), ends)

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


def _by_name(x: np.ndarray, scales: list[_Scale]) -> dict[str, np.ndarray]:
    values, place = {}, 0
    for scale in scales:
        size = math.prod(scale.shape)
        values[scale.name] = scale.from_line(x[place : place + size])
        place += size
    return values
