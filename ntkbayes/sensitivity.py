"""Power-scaling: which scores move when prior, hyper-priors or likelihood get another power near 1.

The powers are those of `az.psense` (Kallioinen, Paananen, Bürkner & Vehtari 2024), which tells of
parameters what is told here of scores. Under a prior to the power a the function's prior is the one with
a times the ridge. So any law can be fitted again, exactly; and the draws of Markov chains can be
weighted instead, which takes no fit, and tells of hyper-priors and of the likelihood too.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import Sheet, Summarised
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws import Law, Method
from ntkbayes.laws.law import require_law
from ntkbayes.laws.method import require_method
from ntkbayes.laws.wrappers.held_out import log_densities
from ntkbayes.predictions import ClassPredictions, NumberPredictions, Predictions, predict
from ntkbayes.predictions.number_predictions import distributions_of
from ntkbayes.scores import numbers
from ntkbayes.scores.calibration import Interval, Statistic, difference, interval_of
from ntkbayes.scores.intervals import COLUMN

if TYPE_CHECKING:
    import pandas as pd

POWERS = (0.8, 1.25)
FUNCTION, LIKELIHOOD = "logits", "likelihood"
RELIABLE_K = 0.7
"""The largest Pareto k̂ at which weighted draws are to be believed (Vehtari et al. 2024)."""

_CALL = "score_sensitivity(law, test, key=key)"
_COPIES = 2  # of the draws, among which weights are dealt out
Statistics = Mapping[str, Statistic]


@dataclass(frozen=True, eq=False, repr=False)
class ScoreSensitivity(Summarised):
    """How far scores move by power-scaling.

    Attributes:
        law: its name.
        powers: the smaller and the larger one.
        scores: as they are, by name, with intervals over the test points.
        moved: by what is scaled and score: the score at the larger power less that at the smaller one,
            with the interval of this paired difference over the test points.
        pareto_k: by what is scaled, the larger k̂ of the two weightings; NaN where the law was fitted
            again. Above 0.7 what moved is not to be believed.
    """

    law: str
    powers: tuple[float, float]
    scores: Mapping[str, Interval]
    moved: Mapping[str, Mapping[str, Interval]]
    pareto_k: Mapping[str, float]

    def table(self) -> "pd.DataFrame":
        """One row per component and score: value, lower and upper of the score; moved, moved_lower and
        moved_upper; pareto_k; and share, what moved over half the width of the score's own interval.
        Above 1 the prior moves a score further than the choice of test points does. Its
        `attrs["interval"]` says what the intervals are: "90% over test points"."""
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
                    "share": share,
                    "pareto_k": self.pareto_k[component],
                }
        index = pd.MultiIndex.from_tuples(rows, names=["component", "score"])
        table = pd.DataFrame(rows.values(), index)
        table.attrs[COLUMN] = own.meaning
        return table

    @property
    def _sheet(self) -> Sheet:
        facts = {"law": self.law, "powers": "{:g} and {:g}".format(*self.powers)}
        doubtful = [name for name, k in self.pareto_k.items() if k > RELIABLE_K]
        if doubtful:
            facts["not to be believed"] = (
                f"{', '.join(doubtful)}, whose Pareto k is above {RELIABLE_K}; fit again by method="
            )
        rows = [
            [component, name, f"{self.scores[name].value:.3f}", f"{moved.value:+.4f}"]
            for component, scores in self.moved.items()
            for name, moved in scores.items()
        ]
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
    function, whose power a is a times the ridge; a hyper-parameter is its hyper-prior; `likelihood` is
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
        ConfigurationError: the law has no draws to weigh and there is no method, or powers are not on
            both sides of 1.
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
    fit_key, draw_key = jax.random.split(random_key(key))
    if method is not None:
        require_method(_CALL, "method", method)
        found = _fitted_again(law, method, test, (low, high), fit_key, draw_key)
    else:
        found = _weighted(law, test, (low, high), draw_key)
    own = predict(law, test, key=jax.random.clone(draw_key))
    count = len(test.targets)
    moved, pareto_k = {}, {}
    for component, (at_low, at_high), k in found:
        moved[component] = {
            name: interval_of(difference(at_high[name], at_low[name]), count, seed=seed)
            for name in own.reported
        }
        pareto_k[component] = k
    scores = {name: interval_of(own.statistics[name], count, seed=seed) for name in own.reported}
    return ScoreSensitivity(own.name, (low, high), scores, moved, pareto_k)


Found = Iterator[tuple[str, tuple[Statistics, Statistics], float]]


def _fitted_again(
    law: Law,
    method: Method,
    test: Dataset,
    powers: tuple[float, float],
    fit_key: PRNGKeyArray,
    draw_key: PRNGKeyArray,
) -> Found:
    problem, found = law.problem, []
    for power in powers:
        prior = problem.prior.with_ridge(power * problem.ridge)
        again = method.solve(dataclasses.replace(problem, prior=prior), jax.random.clone(fit_key))
        found.append(predict(again, test, key=jax.random.clone(draw_key)).statistics)
    yield FUNCTION, (found[0], found[1]), float("nan")


def _weighted(law: Law, test: Dataset, powers: tuple[float, float], key: PRNGKeyArray) -> Found:
    from arviz_stats.base import array_stats

    log_prior = law.trace.log_prior
    if not log_prior:
        raise ConfigurationError(
            f"only draws of NUTS, SplitHMC and FullBayes can be weighted; a law of kind "
            f"{law.kind.name!r} is fitted again: give its method, such as method=nb.Laplace()"
        )
    problem = law.problem
    at_training = law.sample(jax.random.clone(key), problem.features)
    log_likelihood = np.asarray(log_densities(problem.likelihood, problem.targets, at_training))
    components = {**log_prior, LIKELIHOOD: log_likelihood.sum(axis=1)}
    held_out = predict(law, test, key=jax.random.clone(key))
    for name, log_density in components.items():
        found, k = [], []
        for power in powers:
            log_weights = array_stats.power_scale_lw(np.asarray(log_density), alpha=power)
            log_weights -= np.logaddexp.reduce(log_weights)
            found.append(_statistics(held_out, law, test, log_weights))
            k.append(float(array_stats.psislw((1 - power) * np.asarray(log_density))[1]))
        yield name, (found[0], found[1]), max(k)


def _statistics(
    held_out: Predictions, law: Law, test: Dataset, log_weights: Float[np.ndarray, " draws"]
) -> Statistics:
    """Of predictions whose draws have these weights, which sum to 1."""
    weights = np.exp(log_weights)
    if isinstance(held_out, ClassPredictions):
        mean = np.einsum("s,snk->nk", weights, held_out.probability_draws)
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
    logits = jnp.asarray(held_out.logits)
    terms = np.asarray(log_densities(likelihood, likelihood.encode(test), logits))
    log_predictive = np.logaddexp.reduce(log_weights[:, None] + terms, axis=0)
    # Distributions have no weights: draws are repeated as often as these say (systematic resampling).
    places = (np.arange(_COPIES * len(weights)) + 0.5) / (_COPIES * len(weights))
    drawn = np.minimum(np.searchsorted(np.cumsum(weights), places), len(weights) - 1)
    distributions = distributions_of(
        held_out.likelihood,
        held_out.kind,
        held_out.logits[drawn],
        None,
        None,
        held_out.target_draws[drawn],
    )
    return numbers.standard_scores(distributions, held_out.targets, log_predictive)
