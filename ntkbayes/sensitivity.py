"""Power-scaling: which scores move when prior, hyper-priors or likelihood get another power near 1.

The powers are those of `az.psense` (Kallioinen, Paananen, Bürkner & Vehtari 2024), which reports
for parameters what is reported here for scores. To the power α the function's prior is the one with α
times the ridge. So any law can be fitted again, exactly; and the draws of Markov chains can be
weighted instead, which takes no fit, and covers hyper-priors and the likelihood too.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import Sheet, Summarised
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws import Law, Method
from ntkbayes.laws.law import require_law
from ntkbayes.laws.method import require_method
from ntkbayes.laws.wrappers.held_out import log_densities
from ntkbayes.linalg import split_key
from ntkbayes.predictions import ClassPredictions, NumberPredictions, Predictions, predict
from ntkbayes.predictions.number_predictions import distributions_of
from ntkbayes.scores import numbers
from ntkbayes.scores.calibration import Interval, Statistic, difference, interval_of
from ntkbayes.scores.intervals import COLUMN

if TYPE_CHECKING:
    import pandas as pd

POWERS = (0.8, 1.25)
FUNCTION, LIKELIHOOD = "logits", "likelihood"

_CALL = "score_sensitivity(law, test, key=key)"
_COPIES = 2  # of the draws, among which weights are dealt out
_FEWEST_DRAWS = 25  # whose weights' tail Pareto's distribution can be fitted to
_BATCHES = 20  # of consecutive draws, whose scatter is the Monte Carlo error
Statistics = Mapping[str, Statistic]
LogWeights = Float[np.ndarray, " draws"]


def largest_reliable_k(num_draws: int) -> float:
    """The largest Pareto k̂ at which so many weighted draws are to be believed: 0.7, and less for fewer
    than 2200 (Vehtari et al. 2024)."""
    return min(0.7, 1 - 1 / np.log10(num_draws))


@dataclass(frozen=True, eq=False, repr=False)
class ScoreSensitivity(Summarised):
    """How far scores move by power-scaling.

    Attributes:
        law: its name.
        powers: the smaller and the larger one.
        scores: as they are, by name, with intervals over the test points.
        moved: by what is scaled and score: the score at the larger power less that at the smaller one,
            with the interval of this paired difference over the test points. NaN where weights of
            draws have no mean, k̂ ≥ 1.
        errors: of what moved, the Monte Carlo standard error: how far another run of the chains would
            move it. NaN where the law was fitted again.
        pareto_k: by what is scaled, the larger k̂ of the two weightings; NaN where the law was fitted
            again.
        effective_draws: by what is scaled, 1/Σw² of the less even of the two weightings: how many draws
            of equal weight are left; NaN where the law was fitted again.
        reliable: by what is scaled, whether k̂ is small enough for so many draws. If not, neither what
            moved nor its error is to be believed.
    """

    law: str
    powers: tuple[float, float]
    scores: Mapping[str, Interval]
    moved: Mapping[str, Mapping[str, Interval]]
    errors: Mapping[str, Mapping[str, float]]
    pareto_k: Mapping[str, float]
    effective_draws: Mapping[str, float]
    reliable: Mapping[str, bool]

    def table(self) -> "pd.DataFrame":
        """One row per component and score: value, lower and upper of the score; moved, moved_lower and
        moved_upper, over test points, and moved_error, over draws; share, what moved over half the width
        of the score's own interval; pareto_k, effective_draws and reliable. With a share above 1 the
        prior moves a score further than the choice of test points does. Its `attrs["interval"]` says
        what the intervals are: "90% over test points"."""
        import pandas as pd

        rows = {}
        for component, scores in self.moved.items():
            for name, moved in scores.items():
                own = self.scores[name]
                with np.errstate(divide="ignore", invalid="ignore"):
                    share = np.abs(moved.value) / np.float64((own.upper - own.lower) / 2)
                rows[component, name] = {
                    "value": own.value,
                    "lower": own.lower,
                    "upper": own.upper,
                    "moved": moved.value,
                    "moved_lower": moved.lower,
                    "moved_upper": moved.upper,
                    "moved_error": self.errors[component][name],
                    "share": share,
                    "pareto_k": self.pareto_k[component],
                    "effective_draws": self.effective_draws[component],
                    "reliable": self.reliable[component],
                }
        index = pd.MultiIndex.from_tuples(rows, names=["component", "score"])
        table = pd.DataFrame(rows.values(), index)
        table.attrs[COLUMN] = own.meaning
        return table

    @property
    def _sheet(self) -> Sheet:
        facts = {"law": self.law, "powers": "{:g} and {:g}".format(*self.powers)}
        doubtful = [
            f"{name} (Pareto k {self.pareto_k[name]:.2f}, {self.effective_draws[name]:.0f} effective "
            "draws)"
            for name, is_reliable in self.reliable.items()
            if not is_reliable
        ]
        if doubtful:
            facts["not to be believed"] = f"{', '.join(doubtful)}; use powers nearer 1, or method="
        rows = []
        for component, scores in self.moved.items():
            for name, moved in scores.items():
                error = self.errors[component][name]
                shown = f"{moved.value:+.4f}" + ("" if np.isnan(error) else f" ± {error:.4f}")
                rows.append([component, name, f"{self.scores[name].value:.3f}", shown])
        return Sheet("power-scaled scores", facts, ("component", "score", "value", "moved"), rows)


def score_sensitivity(
    law: Law,
    test: Dataset,
    *,
    key: PRNGKeyArray,
    method: Method | None = None,
    powers: tuple[float, float] = POWERS,
    seed: int = 0,
) -> ScoreSensitivity:
    """Which scores of held-out predictions move when prior or likelihood get another power.

    What is scaled goes by the names of `log_prior` in a law's DataTree: `logits` is the prior of the
    function, whose power α is α times the ridge; a hyper-parameter is its hyper-prior; `likelihood` is
    that.

    Args:
        law: fitted. Draws of NUTS, SplitHMC and FullBayes are weighted, with weights that are
            Pareto-smoothed by ArviZ.
        test: points with targets that the law was not fitted to.
        key: of the draws; both fits have the same.
        method: by which to fit again, with another ridge, instead of weighting draws; every law but
            those needs it. It tells of `logits` alone.
        powers: the smaller and the larger one, on both sides of 1.
        seed: of the bootstrap over test points.

    Raises:
        ConfigurationError: the law has no draws to weigh, or fewer than 25, and there is no method; or
            powers are not on both sides of 1.
        RidgeError: the ridge is 0.
        ConvergenceError: a fit failed.
        DataError: as for `predict`.
    """
    require_law(_CALL, "law", law)
    require_dataset(_CALL, "test", test)
    low, high = (float(power) for power in powers)
    if not 0 < low < 1 < high < np.inf:
        raise ConfigurationError(
            f"powers are the smaller and the larger one, as 0.8 and 1.25, on both sides of 1; got "
            f"{low:g} and {high:g}"
        )
    law.problem.prior.require_ridge("power-scaling")
    fit_key, draw_key = split_key(random_key(key))
    if method is not None:
        require_method(_CALL, "method", method)
        found = _fitted_again(law, method, test, (low, high), fit_key, draw_key)
    else:
        found = _weighted(law, test, (low, high), draw_key)
    own = predict(law, test, key=jax.random.clone(draw_key))
    count = len(test.targets)
    moved = {
        scaled.component: {name: scaled.moved(name, count, seed=seed) for name in own.reported}
        for scaled in found
    }
    scores = {name: interval_of(own.statistics[name], count, seed=seed) for name in own.reported}
    by_component: dict[str, Mapping[str, Any]] = {
        part: {scaled.component: getattr(scaled, part) for scaled in found}
        for part in ("errors", "pareto_k", "effective_draws", "reliable")
    }
    return ScoreSensitivity(own.name, (low, high), scores, moved, **by_component)


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Scores at the smaller and the larger power of a component, and how well they are known; see
    `ScoreSensitivity`."""

    component: str
    low: Statistics
    high: Statistics
    errors: Mapping[str, float]
    pareto_k: float = float("nan")
    effective_draws: float = float("nan")
    reliable: bool = True

    def moved(self, score: str, num_points: int, *, seed: int) -> Interval:
        found = interval_of(difference(self.high[score], self.low[score]), num_points, seed=seed)
        if self.pareto_k < 1 or np.isnan(self.pareto_k):
            return found
        unknown = float("nan")
        return dataclasses.replace(found, value=unknown, lower=unknown, upper=unknown)


def _fitted_again(
    law: Law,
    method: Method,
    test: Dataset,
    powers: tuple[float, float],
    fit_key: PRNGKeyArray,
    draw_key: PRNGKeyArray,
) -> list[_Scaled]:
    problem, found = law.problem, []
    for power in powers:
        prior = problem.prior.with_ridge(power * problem.ridge)
        again = method.solve(dataclasses.replace(problem, prior=prior), jax.random.clone(fit_key))
        found.append(predict(again, test, key=jax.random.clone(draw_key)).statistics)
    low, high = found
    return [_Scaled(FUNCTION, low, high, dict.fromkeys(low, float("nan")))]


def _weighted(
    law: Law, test: Dataset, powers: tuple[float, float], key: PRNGKeyArray
) -> list[_Scaled]:
    from arviz_stats.base import array_stats

    log_prior = law.trace.log_prior
    if not log_prior:
        raise ConfigurationError(
            f"only draws of NUTS, SplitHMC and FullBayes can be weighted; a law of kind "
            f"{law.kind.name!r} is fitted again: give its method, such as method=nb.Laplace()"
        )
    if (num_draws := len(law.trace)) < _FEWEST_DRAWS:
        raise ConfigurationError(
            f"{num_draws} draws are too few to be weighted: fit with num_samples for {_FEWEST_DRAWS} or "
            "more in all, or give a method"
        )
    problem = law.problem
    at_training = law.sample(jax.random.clone(key), problem.features)
    log_likelihood = np.asarray(log_densities(problem.likelihood, problem.targets, at_training))
    components = {**log_prior, LIKELIHOOD: log_likelihood.sum(axis=1)}
    held_out = predict(law, test, key=jax.random.clone(key))
    found = []
    for name, log_density in components.items():
        log_weights, k = [], []
        for power in powers:
            smoothed = array_stats.power_scale_lw(np.asarray(log_density), alpha=power)
            log_weights.append(smoothed - np.logaddexp.reduce(smoothed))
            k.append(float(array_stats.psislw((1 - power) * np.asarray(log_density))[1]))
        low, high = (_statistics(held_out, law, test, each) for each in log_weights)
        found.append(
            _Scaled(
                name,
                low,
                high,
                _errors(held_out, law, test, (log_weights[0], log_weights[1])),
                max(k),
                min(float(np.exp(-np.logaddexp.reduce(2 * each))) for each in log_weights),
                max(k) <= largest_reliable_k(len(log_density)),
            )
        )
    return found


def _errors(
    held_out: Predictions, law: Law, test: Dataset, log_weights: tuple[LogWeights, LogWeights]
) -> dict[str, float]:
    """Standard errors of what moved, by score: from the scatter of batches of consecutive draws, as if
    each were all there is."""
    num_draws = len(log_weights[0])
    num_batches = min(_BATCHES, num_draws // 4)
    moved: dict[str, list[float]] = {name: [] for name in held_out.reported}
    for batch in np.array_split(np.arange(num_draws), num_batches):
        low, high = (
            _statistics(held_out, law, test, each[batch] - np.logaddexp.reduce(each[batch]), batch)
            for each in log_weights
        )
        for name in moved:
            moved[name].append(float(difference(high[name], low[name])(None)))
    return {name: float(np.std(each, ddof=1) / np.sqrt(len(each))) for name, each in moved.items()}


def _statistics(
    held_out: Predictions,
    law: Law,
    test: Dataset,
    log_weights: LogWeights,
    draws: slice | Int[np.ndarray, " draws"] = slice(None),
) -> Statistics:
    """Of predictions whose draws have these weights, which sum to 1.

    Args:
        draws: which of them the weights are of, by default all.
    """
    weights = np.exp(log_weights)
    if isinstance(held_out, ClassPredictions):
        mean = np.tensordot(weights, held_out.probability_draws[draws], axes=1)
        weighted = dataclasses.replace(
            held_out,
            point_probabilities=mean / mean.sum(axis=1, keepdims=True),
            logits=None,
            mean=None,
            variance=None,
            likelihood=None,
        )
        return weighted.statistics
    assert isinstance(held_out, NumberPredictions)
    assert held_out.logits is not None
    likelihood = law.problem.likelihood
    logits, target_draws = held_out.logits[draws], held_out.target_draws[draws]
    terms = np.asarray(log_densities(likelihood, likelihood.encode(test), jax.device_put(logits)))
    log_predictive = np.logaddexp.reduce(log_weights[:, None] + terms, axis=0)
    # Distributions have no weights: draws are repeated as often as these say (systematic resampling).
    places = (np.arange(_COPIES * len(weights)) + 0.5) / (_COPIES * len(weights))
    chosen = np.minimum(np.searchsorted(np.cumsum(weights), places), len(weights) - 1)
    distributions = distributions_of(
        held_out.likelihood,
        held_out.kind,
        logits[chosen],
        None,
        None,
        target_draws[chosen],
    )
    return numbers.standard_scores(distributions, held_out.targets, log_predictive)
