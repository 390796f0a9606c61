"""At which value of one knob do two laws agree best?

A knob belongs to one of the laws, which is fitted anew at each value: the temperature or the ridge to
the posterior, the scale of the initial function or the noise of the gradient to the law over
initialisations. All fits and draws share their keys, so that the curve is smooth in the knob.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.arguments import random_key
from ntkbayes.display import Sheet, Summarised
from ntkbayes.errors import ConfigurationError, GridEdgeWarning, SearchError, UnknownNameError
from ntkbayes.laws import (
    NUTS,
    ExpectationPropagation,
    GaussianLaw,
    Laplace,
    Law,
    MeanField,
    Method,
    Problem,
    RandomInit,
    SampledLaw,
    Sampling,
    Variational,
)
from ntkbayes.laws.law import require_law
from ntkbayes.laws.problem import Inputs
from ntkbayes.ranges import Range
from ntkbayes.scores.distances import Distance, energy_coefficient, log_variance
from ntkbayes.scores.intervals import Over

if TYPE_CHECKING:
    import pandas as pd

CRITERIA = ("variance ratio", "energy")


@dataclass(frozen=True)
class _Knob:
    """What a knob turns: of which of the two laws, within which range, and how it reads."""

    of_posterior: bool
    within: tuple[float, float]
    turned: Callable[[Problem, Method, float], tuple[Problem, Method]]
    told: str


def _at_temperature(problem: Problem, method: Method, value: float) -> tuple[Problem, Method]:
    likelihood = problem.likelihood.untempered.tempered(value)
    return dataclasses.replace(problem, likelihood=likelihood), method


def _at_mode(problem: Problem, method: Method, value: float) -> tuple[Problem, Method]:
    prior = problem.prior.with_ridge(problem.ridge * problem.temperature / value)
    return _at_temperature(dataclasses.replace(problem, prior=prior), method, value)


def _at_ridge(problem: Problem, method: Method, value: float) -> tuple[Problem, Method]:
    return dataclasses.replace(problem, prior=problem.prior.with_ridge(value)), method


def _at_scale(problem: Problem, method: Method, value: float) -> tuple[Problem, Method]:
    return problem, dataclasses.replace(method, initial_scale=value)  # type: ignore[call-arg]


def _with_noise(problem: Problem, method: Method, value: float) -> tuple[Problem, Method]:
    return problem, dataclasses.replace(method, gradient_noise=value)  # type: ignore[call-arg]


KNOBS: Mapping[str, _Knob] = {
    "temperature": _Knob(True, (1e-4, 1e2), _at_temperature, "the posterior at temperature {}"),
    "temperature at the mode": _Knob(
        True, (1e-5, 1e3), _at_mode, "the posterior with the same mode at temperature {}"
    ),
    "ridge": _Knob(True, (1e-3, 1e4), _at_ridge, "the posterior at ridge {}"),
    "initial scale": _Knob(
        False, (1e-2, 1e3), _at_scale, "the posterior, with initial functions times {},"
    ),
    "gradient noise": _Knob(
        False, (1e-4, 1e3), _with_noise, "the posterior, with gradient noise {} W,"
    ),
}


@dataclass(frozen=True, eq=False, repr=False)
class Match(Summarised):
    """The value of a knob at which two laws agree best.

    Attributes:
        over: the knob.
        by: the criterion.
        value: at which the ratio of variances is 1, or the energy coefficient least.
        lower, upper: by the ratio, a 95% interval for the Monte Carlo error; by the energy coefficient,
            the values whose coefficient is within two standard errors of the least.
        values: of the knob, in increasing order, as many as the curve has points.
        scores: ratio of the law's variance to the posterior's, or energy coefficient, at each value.
    """

    over: str
    by: str
    value: float
    lower: float
    upper: float
    values: tuple[float, ...]
    scores: tuple[Distance, ...]

    def table(self) -> "pd.DataFrame":
        """The curve: score and error at each value of the knob."""
        import pandas as pd

        rows = {v: dataclasses.asdict(s) for v, s in zip(self.values, self.scores, strict=True)}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(self.over)

    @property
    def _sheet(self) -> Sheet:
        measure = "as wide as" if self.by == "variance ratio" else "nearest to"
        title = f"the law is {measure} {KNOBS[self.over].told.format(f'{self.value:.3g}')}"
        ends = f"{self.lower:.3g} to {self.upper:.3g}, over {Over.DRAWS}"
        facts = {self.over: f"{self.value:.4g} ({ends})"}
        rows = [
            [f"{v:.3g}", f"{s.value:.4g} ± {s.error:.2g}"]
            for v, s in zip(self.values, self.scores, strict=True)
        ]
        return Sheet(title.rstrip(","), facts, (self.over, self.by), rows)


def match(
    law: Law | Method,
    posterior: Law | Method,
    features: Inputs,
    *,
    over: str,
    key: PRNGKeyArray,
    by: str = "variance ratio",
    within: tuple[float, float] | None = None,
    num_values: int = 9,
) -> Match:
    """At which value of a knob two laws agree best at some inputs, up to what the likelihood cannot see.

        nb.match(ensemble, nb.Laplace(), test, over="temperature", key=key)
        nb.match(nb.RandomInit(500), nuts, test, over="gradient noise", key=key)

    | over | turns | is told as |
    | --- | --- | --- |
    | `"temperature"` | the posterior's likelihood to the power 1/T | as wide as the posterior at T |
    | `"temperature at the mode"` | that, and the ridge to ridge/T | as wide as that of its mode at T |
    | `"ridge"` | the posterior's prior GP(m, Θ/ridge) | as wide as the posterior at this ridge |
    | `"initial scale"` | `RandomInit(initial_scale=)` | what initial functions should be multiplied by |
    | `"gradient noise"` | `RandomInit(gradient_noise=)` | the noise, in units of W, that it lacks |

    Cooling the likelihood alone leaves the posterior as wide as the prior where there are no data, so
    that an ensemble may be narrower at any temperature. At the mode Laplace's covariance is proportional
    to T (THEORY 9), so that there is one.

    The law whose knob is turned is given as a method, or as a law that a method with its defaults makes
    again (Laplace, Variational, MeanField, ExpectationPropagation, NUTS; RandomInit). It is fitted some
    twenty times.

    Args:
        law: over initialisations, such as that of `RandomInit` or `FiniteEnsemble`.
        posterior: the Bayesian posterior. One of the two must be fitted: it has the prior, data and
            likelihood.
        features: where they are compared, as for `Law.sample`.
        over: the knob.
        key: of all fits and draws.
        by: "variance ratio", of the logits' variances, geometric mean; or "energy", the coefficient
            between joint logits, which also sees means and shape.
        within: the range of the knob, searched on a log scale.
        num_values: points of the curve.

    Raises:
        SearchError: no value within the range makes the variances equal, or the least coefficient is at
            an end of it.
        UnknownNameError: there is no such knob or criterion.
        ConfigurationError: the range is empty or not positive, one of the two is a point, the one whose
            knob is not turned is not fitted, or the other is a law that cannot be made again.
        ArgumentError: law or posterior is something else.

    Warns:
        GridEdgeWarning: the interval reaches an end of the range.
    """
    knob, by = _named(over, by)
    key = random_key(key)
    low, high = _range(over, knob.within if within is None else within)
    num_values = ranges.whole("num_values", num_values, at_least=3)
    turned, fixed, problem = _sides(law, posterior, knob, over)
    comparison = _Comparison(knob, by, turned, fixed, problem, features, key)
    return _found(comparison, over, low, high, num_values)


@dataclass(eq=False)
class _Comparison:
    """The score of each value of the knob, computed once."""

    knob: _Knob
    by: str
    turned: Method
    fixed: Law
    problem: Problem
    features: Inputs
    key: PRNGKeyArray

    def __post_init__(self) -> None:
        self._scores: dict[float, Distance] = {}
        fit_key, fixed_key, turned_key = jax.random.split(self.key, 3)
        self._fit_key, self._turned_key = fit_key, turned_key
        self._fixed = self._seen(self.fixed, fixed_key)

    def __call__(self, log_value: float) -> Distance:
        """The score, or the log of the ratio of variances and its error."""
        if log_value not in self._scores:
            value = math.exp(log_value)
            problem, method = self.knob.turned(self.problem, self.turned, value)
            law = method.solve(problem, jax.random.clone(self._fit_key))
            seen = self._seen(law, jax.random.clone(self._turned_key))
            ours, theirs = (self._fixed, seen) if self.knob.of_posterior else (seen, self._fixed)
            self._scores[log_value] = _score(ours, theirs)
        return self._scores[log_value]

    def _seen(self, law: Law, key: PRNGKeyArray) -> "Distance | Float[np.ndarray, 'draws ...']":
        """Of a law: the mean log variance, exactly where there is a formula, or its draws."""
        project = law.problem.likelihood.project
        if self.by == "energy":
            return np.asarray(project(law.sample(key, self.features)))
        if isinstance(law, GaussianLaw):
            variance = _projected_variances(project, law.covariance(self.features))
            return Distance(float(jnp.mean(jnp.log(variance))), 0.0)
        return log_variance(np.asarray(project(law.sample(key, self.features))))


def _score(ours: object, theirs: object) -> Distance:
    if isinstance(ours, Distance) and isinstance(theirs, Distance):
        return Distance(ours.value - theirs.value, math.hypot(ours.error, theirs.error))
    assert isinstance(ours, np.ndarray)
    assert isinstance(theirs, np.ndarray)
    return energy_coefficient(ours, theirs)


def _projected_variances(
    project: Callable[[Array], Array], covariance: Float[Array, "m classes classes"]
) -> Float[Array, "m classes"]:
    half = project(covariance)
    whole = project(jnp.swapaxes(half, 1, 2))
    return jnp.diagonal(whole, axis1=1, axis2=2)


def _found(comparison: _Comparison, over: str, low: float, high: float, num_values: int) -> Match:
    grid = np.linspace(math.log(low), math.log(high), num_values)
    curve = [comparison(float(place)) for place in grid]
    find = _crossing if comparison.by == "variance ratio" else _least
    best, lower, upper = find(comparison, over, grid, curve)
    value, lower, upper = (math.exp(place) for place in (best, lower, upper))
    if lower <= low or upper >= high:
        warnings.warn(
            f"the interval for the {over}, {lower:.3g} to {upper:.3g}, reaches an end of the range from "
            f"{low:g} to {high:g}: use a wider one, or more draws",
            GridEdgeWarning,
            stacklevel=3,
        )
    if comparison.by == "variance ratio":
        curve = [Distance(math.exp(s.value), math.exp(s.value) * s.error) for s in curve]
    values = tuple(float(v) for v in np.exp(grid))
    return Match(
        over, comparison.by, value, max(lower, low), min(upper, high), values, tuple(curve)
    )


def _crossing(
    comparison: _Comparison, over: str, grid: np.ndarray, curve: list[Distance]
) -> tuple[float, float, float]:
    """Where the log ratio is 0, and its 95% interval, by the slope there."""
    from scipy.optimize import brentq

    signs = np.sign([s.value for s in curve])
    changes = np.flatnonzero(signs[:-1] * signs[1:] <= 0)
    if not changes.size:
        ratios = [math.exp(curve[i].value) for i in (0, -1)]
        ends = [f"{math.exp(place):g}" for place in (grid[0], grid[-1])]
        raise SearchError(
            f"no {over} from {ends[0]} to {ends[1]} makes the law as wide as the posterior: the "
            f"ratio of their variances is {ratios[0]:.3g} at {ends[0]} and {ratios[1]:.3g} at "
            f"{ends[1]}; use another range, or another knob"
        )
    a, b = float(grid[changes[0]]), float(grid[changes[0] + 1])
    best = float(brentq(lambda place: comparison(place).value, a, b, xtol=1e-9, rtol=1e-9))
    step = (b - a) / 10
    slope = (comparison(best + step).value - comparison(best - step).value) / (2 * step)
    reach = 1.96 * comparison(best).error / max(abs(slope), 1e-300)
    return best, best - reach, best + reach


def _least(
    comparison: _Comparison, over: str, grid: np.ndarray, curve: list[Distance]
) -> tuple[float, float, float]:
    """Where the coefficient is least, and where it is within two standard errors of that."""
    from scipy.optimize import minimize_scalar

    values = np.asarray([s.value for s in curve])
    place = int(np.argmin(values))
    if place in (0, len(grid) - 1):
        raise SearchError(
            f"the energy coefficient is least at the {'smallest' if place == 0 else 'largest'} {over} "
            f"tried, {math.exp(grid[place]):g}: use another range, or another knob"
        )
    bounds = float(grid[place - 1]), float(grid[place + 1])
    found = minimize_scalar(
        lambda at: comparison(float(at)).value,
        bounds=bounds,
        method="bounded",
        options={"xatol": (bounds[1] - bounds[0]) / 200},
    )
    best = float(found.x)
    least = comparison(best)
    places = np.append(grid, best)
    order = np.argsort(places)
    places, heights = places[order], np.append(values, least.value)[order]
    bound = least.value + 2 * least.error
    within = int(np.searchsorted(places, best))
    return (
        best,
        _reached(places, heights, within, -1, bound),
        _reached(places, heights, within, 1, bound),
    )


def _reached(places: np.ndarray, heights: np.ndarray, start: int, step: int, bound: float) -> float:
    """From the minimum in one direction, where the curve passes the bound, linearly interpolated."""
    i = start
    while 0 <= i + step < len(places):
        if heights[i + step] > bound:
            share = (bound - heights[i]) / (heights[i + step] - heights[i])
            return float(places[i] + share * (places[i + step] - places[i]))
        i += step
    return float(places[i])


# --- what was given -------------------------------------------------------------------------------


def _named(over: str, by: str) -> tuple[_Knob, str]:
    if over not in KNOBS:
        raise UnknownNameError("knob", over, tuple(KNOBS))
    if by not in CRITERIA:
        raise UnknownNameError("criterion", by, CRITERIA)
    return KNOBS[over], by


def _range(over: str, within: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(within, tuple | list) or len(within) != 2:
        raise ConfigurationError(f"within is a range of the {over}, (low, high); got {within!r}")
    low, high = (
        float(ranges.real(f"an end of within, of the {over},", end, Range.POSITIVE_FINITE))
        for end in within
    )
    if not low < high:
        raise ConfigurationError(f"within is increasing, (low, high); got {within!r}")
    return low, high


def _sides(
    law: Law | Method, posterior: Law | Method, knob: _Knob, over: str
) -> tuple[Method, Law, Problem]:
    """The method whose knob is turned, the law that stays, and the problem of both."""
    for name, given in (("law", law), ("posterior", posterior)):
        if not isinstance(given, Method):
            require_law("match(law, posterior, features, over=..., key=key)", name, given)
        if given.kind.sampling is Sampling.POINT:
            raise ConfigurationError(
                f"{given.kind.name} is one function, which has no width to match; give a law with a "
                "spread, such as that of RandomInit or Laplace"
            )
    turned, fixed = (posterior, law) if knob.of_posterior else (law, posterior)
    if not isinstance(fixed, Law):
        which = "law" if knob.of_posterior else "posterior"
        raise ConfigurationError(
            f"over={over!r} turns the {'posterior' if knob.of_posterior else 'law'}, so the {which} "
            f"must be fitted: {which}.fit(prior, data, key=key)"
        )
    method = turned if isinstance(turned, Method) else _method_of(turned)
    if not knob.of_posterior and not isinstance(method, RandomInit):
        raise ConfigurationError(
            f"the {over} is turned of RandomInit, not of {type(method).__name__}; use "
            "nb.RandomInit(num_inits=500)"
        )
    return method, fixed, fixed.problem


_AGAIN: tuple[Method, ...] = (Laplace(), Variational(), MeanField(), ExpectationPropagation())


def _method_of(law: Law) -> Method:
    """A method that makes such a law again. Raises ConfigurationError if none is known."""
    for method in _AGAIN:
        if law.kind == method.kind:
            return method
    if isinstance(law, SampledLaw) and law.kind == NUTS.kind:
        return NUTS(num_samples=law.num_draws // law.num_chains, num_chains=law.num_chains)
    if isinstance(law, SampledLaw) and law.kind == RandomInit.kind:
        return RandomInit(num_inits=law.num_draws)
    raise ConfigurationError(
        f"the knob belongs to the law of {law.kind.name}, which has to be fitted anew: give its "
        "method in place of the law"
    )
