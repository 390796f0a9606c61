"""Laws compared over data sets × splits, by a hierarchical model of their differences.

The model of G. Corani, A. Benavoli, J. Demšar, F. Mangili and M. Zaffalon, "Statistical comparison of
classifiers through Bayesian hierarchical modelling", Machine Learning 106 (2017): on data set i the
differences of two laws on kᵢ splits are Gaussian about δᵢ and correlated with ρ = n_test / n, because
their training sets share points; the δᵢ are Student's t about δ₀:

    x̄ᵢ ~ N(δᵢ, σᵢ² (1/kᵢ + n_test/n_train)),    (kᵢ − 1) sᵢ²/σᵢ² ~ χ² of kᵢ − 1 degrees of freedom,
    δᵢ ~ Student(ν; δ₀, τ).

What is asked for is δ of a further data set of this kind: whether it is below the region of practical
equivalence, within it, or above.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.arguments import random_key, require
from ntkbayes.display import Sheet, Summarised, few
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.laws.chains.mixing import judged
from ntkbayes.ranges import Number, Range
from ntkbayes.repeated.splits import ROPE, Preference, SplitComparison, paired, preferred
from ntkbayes.scores.intervals import COLUMN, LEVEL, Interval, Over
from ntkbayes.scores.over_splits import corrected_error

if TYPE_CHECKING:
    import pandas as pd

_SETTINGS = {"num_warmup": 300, "num_samples": 500, "num_chains": 4}


@dataclass(frozen=True)
class PairOverDataSets:
    """Two laws over data sets.

    Attributes:
        a, b: the laws.
        preference: for a further data set of this kind.
        difference: δ₀, the score of a less that of b on a typical data set: posterior mean, and 90%
            interval over data sets and their splits.
        spread: τ, how far data sets are from that, posterior mean.
    """

    a: str
    b: str
    preference: Preference
    difference: Interval
    spread: float


@dataclass(frozen=True, eq=False, repr=False)
class DataSetComparison(Summarised):
    """Every pair of laws over data sets, from `compare_over_data_sets`.

    Attributes:
        pairs: in the order of the laws.
        data_sets: their names.
        score: that is compared.
        rope: half the width of the region of practical equivalence, in units of the score.
        max_rhat, min_bulk_ess, min_tail_ess: of the Markov chains, see `MixingInfo`; nan if all pairs
            were decided without any.
    """

    pairs: tuple[PairOverDataSets, ...]
    data_sets: tuple[str, ...]
    score: str
    rope: float
    max_rhat: float
    min_bulk_ess: float
    min_tail_ess: float

    @property
    def _sheet(self) -> Sheet:
        facts = {
            "data sets": f"{len(self.data_sets)}: {few(self.data_sets)}",
            "score": f"{self.score}, equivalent within {self.rope:g}",
        }
        header = ("a", "b", "P(a better)", "P(equivalent)", "P(b better)", "a − b")
        rows = [
            [p.a, p.b, *(f"{chance:.2f}" for chance in p.preference), f"{p.difference.value:+.3f}"]
            for p in self.pairs
        ]
        return Sheet("comparison over data sets", facts, header, rows)

    def table(self) -> "pd.DataFrame":
        """One row per pair: a, b, a_better, equivalent and b_better, which are probabilities for a
        further data set; the difference a − b on a typical one with the ends of its interval; the spread
        of data sets about it; and what the interval is, as in "90% over data sets and splits"."""
        import pandas as pd

        return pd.DataFrame(
            {
                "a": p.a,
                "b": p.b,
                **p.preference._asdict(),
                "difference": p.difference.value,
                "difference_lower": p.difference.lower,
                "difference_upper": p.difference.upper,
                "spread": p.spread,
                COLUMN: p.difference.meaning,
            }
            for p in self.pairs
        )


def compare_over_data_sets(
    comparisons: Mapping[str, SplitComparison],
    *,
    key: PRNGKeyArray,
    score: str = "nll",
    rope: Number = ROPE,
) -> DataSetComparison:
    """Compare every pair of laws over data sets.

    Priors are weak, in units of S, the root mean square of the differences x̄ᵢ and of their errors:
    δ₀ ~ N(0, (5 S)²), τ ~ half-normal of scale 2 S, ν ~ Gamma(2, 0.1); p(σᵢ) ∝ 1/σᵢ. Sampled by NUTS,
    all pairs at once.

    Args:
        comparisons: of the same laws over the splits of each data set, by its name.
        key: of the chains.
        score: one of those of the comparisons.
        rope: differences up to this size count as none, in units of the score.

    Returns:
        The comparison; a pair has nan where a score is infinite on some split.

    Raises:
        ConfigurationError: there are fewer than two data sets, one has a single split, they have other
            laws, neither high nor low values of the score are good, or the region is negative.
        UnknownNameError: there is no such score.
        ArgumentError: something else was given.

    Warns:
        ConvergenceWarning: the chains have not converged.
    """
    laws = _laws_of(comparisons, score)
    preferred(score, 0.0, 1.0, 0.0)  # refuses a score before the chains run
    rope = float(ranges.real("rope", rope, Range.NOT_NEGATIVE_FINITE))
    key = random_key(key)
    names = list(combinations(laws, 2))
    means, errors = _summaries(comparisons, names, score)
    freedom = np.array([len(each.splits) - 1.0 for each in comparisons.values()])
    scale = np.sqrt(np.mean(means**2, axis=1) + np.mean(errors**2, axis=1))
    drawn = np.isfinite(scale) & (scale > 0)
    draws: dict[str, np.ndarray] = {}
    mixing = dict.fromkeys(("max_rhat", "min_bulk_ess", "min_tail_ess"), np.nan)
    if drawn.any():
        unit = scale[drawn, None]
        draws, divergences = sample(means[drawn] / unit, errors[drawn] / unit, freedom, key=key)
        mixing = judged(
            [draws["centre"], np.log(draws["spread"])],
            num_divergences=divergences,
            remedy="Take the probabilities for orders of magnitude, or compare over more splits",
            stacklevel=2,
        )
        draws = {name: values.reshape(-1, drawn.sum()) for name, values in draws.items()}
    pairs = []
    for place, (a, b) in enumerate(names):
        if not drawn[place]:  # no difference at all, or an infinite one
            value = 0.0 if scale[place] == 0 else np.nan
            sure = Preference(value, 1.0 + value, value)
            difference = Interval(value, value, value, over=Over.DATA_SETS)
            pairs.append(PairOverDataSets(a, b, sure, difference, value))
            continue
        column, unit = int(drawn[:place].sum()), scale[place]
        of_pair = {name: values[:, column] for name, values in draws.items()}
        pairs.append(_pair(a, b, of_pair, unit, score, rope))
    return DataSetComparison(tuple(pairs), tuple(comparisons), score, rope, **mixing)


def _laws_of(comparisons: Mapping[str, SplitComparison], score: str) -> tuple[str, ...]:
    """The laws that all data sets have. Raises as `compare_over_data_sets`."""
    call = "compare_over_data_sets(comparisons, key=key)"
    require(call, "comparisons", comparisons, Mapping, lambda given: "name the data sets")
    for name, each in comparisons.items():
        require(call, f"comparisons[{name!r}]", each, SplitComparison, lambda given: "")
    if len(comparisons) < 2:
        raise ConfigurationError(
            f"a comparison over data sets needs two or more; got {len(comparisons)}. On one data set "
            "SplitComparison.preference compares laws over its splits"
        )
    first, *_ = comparisons.values()
    for name, each in comparisons.items():
        if set(each.scores) != set(first.scores):
            raise ConfigurationError(
                f"{name!r} has the laws {', '.join(each.scores)}, and the first data set "
                f"{', '.join(first.scores)}; compare the same laws on all"
            )
        if score not in each.score_names:
            raise UnknownNameError("score", score, each.score_names)
        if len(each.splits) < 2:
            raise ConfigurationError(
                f"{name!r} has one split, which does not tell how differences vary; take two or more"
            )
        if each.test_per_train <= 0:
            raise ConfigurationError(
                f"the scores on {name!r} are of the same points: their spread is that of the fits, and "
                "does not tell how differences vary over splits"
            )
    return tuple(first.scores)


def _summaries(
    comparisons: Mapping[str, SplitComparison], pairs: list[tuple[str, str]], score: str
) -> tuple[Float[np.ndarray, "pairs sets"], Float[np.ndarray, "pairs sets"]]:
    """Means of the differences over splits, and their corrected errors; nan where infinite."""
    means, errors = np.full((2, len(pairs), len(comparisons)), np.nan)
    for row, (a, b) in enumerate(pairs):
        for column, each in enumerate(comparisons.values()):
            difference = paired(each.scores[a][score], each.scores[b][score])
            if np.all(np.isfinite(difference)):
                means[row, column] = np.mean(difference)
                errors[row, column] = corrected_error(difference, each.test_per_train)
    return means, errors


def _pair(
    a: str, b: str, draws: Mapping[str, np.ndarray], unit: float, score: str, rope: float
) -> PairOverDataSets:
    from scipy import special  # which takes long to import

    centre, spread = unit * draws["centre"], unit * draws["spread"]
    freedom = draws["freedom"]
    below = float(np.mean(special.stdtr(freedom, (-rope - centre) / spread)))
    above = float(np.mean(special.stdtr(freedom, (centre - rope) / spread)))
    preference = preferred(score, below, 1 - below - above, above)
    ends = np.quantile(centre, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    difference = Interval(float(np.mean(centre)), *map(float, ends), over=Over.DATA_SETS)
    return PairOverDataSets(a, b, preference, difference, float(np.mean(spread)))


def model(
    means: Float[np.ndarray, "pairs sets"],
    errors: Float[np.ndarray, "pairs sets"],
    freedom: Float[np.ndarray, " sets"],
) -> None:
    """The model in NumPyro, of several pairs that have nothing to do with each other, with the δᵢ
    integrated out: Student's t is Gaussian of random precision.

    Args:
        means: x̄ᵢ, in units in which they, or their errors, are about 1.
        errors: sᵢ √(1/kᵢ + n_test/n_train).
        freedom: kᵢ − 1.
    """
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    with numpyro.plate("pair", means.shape[0]):
        centre = numpyro.sample("centre", dist.Normal(0.0, 5.0))
        spread = numpyro.sample("spread", dist.HalfNormal(2.0))
        nu = numpyro.sample("freedom", dist.Gamma(2.0, 0.1))
    with numpyro.plate("pair_", means.shape[0], dim=-2), numpyro.plate("set", means.shape[1]):
        half = nu[:, None] / 2
        precision = numpyro.sample("precision", dist.Gamma(half, half))
        shape = jnp.broadcast_to(freedom / 2, means.shape)
        within = numpyro.sample("within", dist.Gamma(shape, shape))
        variance = spread[:, None] ** 2 / precision + errors**2 / within
        numpyro.sample("mean", dist.Normal(centre[:, None], jnp.sqrt(variance)), obs=means)


def sample(
    means: Float[np.ndarray, "pairs sets"],
    errors: Float[np.ndarray, "pairs sets"],
    freedom: Float[np.ndarray, " sets"],
    *,
    key: PRNGKeyArray,
    target: Callable[..., None] = model,
    **settings: int,
) -> tuple[dict[str, np.ndarray], int]:
    """Draws (chains, samples, pairs) of centre, spread and freedom, and the number of divergences.

    Args:
        means, errors, freedom: see `model`.
        key: of the chains.
        target: `model`, or the same with some of it known.
        settings: num_warmup, num_samples and num_chains.
    """
    import jax
    from numpyro.infer import MCMC
    from numpyro.infer import NUTS as Kernel

    sampler = MCMC(
        Kernel(target, target_accept_prob=0.9),
        chain_method="vectorized",
        progress_bar=False,
        **{**_SETTINGS, **settings},
    )
    with jax.debug_key_reuse(False):  # NumPyro's own
        sampler.run(key, means, errors, freedom)
    draws = sampler.get_samples(group_by_chain=True)
    kept = {n: np.asarray(draws[n]) for n in ("centre", "spread", "freedom") if n in draws}
    return kept, int(np.sum(sampler.get_extra_fields()["diverging"]))
