"""Laws side by side on several splits of one data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from ntkbayes import ranges
from ntkbayes.display import Sheet, Summarised
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.ranges import Number, Range
from ntkbayes.scores.intervals import COLUMN, Over, meaning
from ntkbayes.scores.names import HIGHER, LOWER, called
from ntkbayes.scores.over_splits import Estimate, chances_on_these_data, mean_over_splits, over

if TYPE_CHECKING:
    import pandas as pd

ROPE = 0.01
"""Half the width of the region of practical equivalence: differences below one hundredth, of a nat per
point or of accuracy, count as none."""


class Preference(NamedTuple):
    """Probabilities that law a is better than law b, that they are practically equivalent, and that b is
    better; they sum to 1.

    Attributes:
        a_better, equivalent, b_better: the three probabilities.
    """

    a_better: float
    equivalent: float
    b_better: float


@dataclass(frozen=True, eq=False, repr=False)
class SplitComparison(Summarised):
    """Scores of several laws on several splits of the same data.

    Attributes:
        scores: by law and score, one value per split.
        splits: what each split is called.
        test_per_train: n_test / n_train, by which errors over splits are corrected; 0 where all splits
            have the same points.
        reference: the law that differences are to in the table.
        settings: how it came about, for the record.
    """

    scores: Mapping[str, Mapping[str, Float[np.ndarray, " k"]]]
    splits: tuple[str, ...]
    test_per_train: float
    reference: str
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def _sheet(self) -> Sheet:
        shared = ", corrected for the training points that they share"
        facts = {
            str(self.over): str(len(self.splits)),
            "reference": self.reference,
            "±": f"standard error over {self.over}{shared * (self.over is Over.SPLITS)}",
        }
        names = self.score_names
        rows = []
        for law, means in self.means.items():
            cells = (f"{means[s].value:.3f} ± {means[s].error:.3f}" for s in names[:4])
            rows.append([law, *cells])
        return Sheet(f"comparison over {self.over}", facts, ("law", *names[:4]), rows)

    @property
    def over(self) -> Over:
        """What errors and intervals are over: splits, or, where all have the same points, fits."""
        return over(self.test_per_train)

    @property
    def score_names(self) -> tuple[str, ...]:
        return tuple(next(iter(self.scores.values())))

    @cached_property
    def means(self) -> dict[str, dict[str, Estimate]]:
        """Mean scores over splits, by law and score, with 90% intervals."""
        return {
            law: {
                name: mean_over_splits(values, self.test_per_train) for name, values in row.items()
            }
            for law, row in self.scores.items()
        }

    @property
    def best(self) -> str:
        """The law with the lowest mean NLL; of other scores, the first."""
        score = "nll" if "nll" in self.score_names else self.score_names[0]
        values = {law: called(score).badness(row[score].value) for law, row in self.means.items()}
        return min(values, key=lambda law: (np.isnan(values[law]), values[law]))

    def differences(self, against: str) -> dict[str, dict[str, Estimate]]:
        """Mean over splits of the score of every other law less that of the law `against`, by law and
        score: paired, as both are scored on the same splits. nan where both are infinite.

        Raises:
            UnknownNameError: `against` is none of the laws.
        """
        if against not in self.scores:
            raise UnknownNameError("law", against, tuple(self.scores))
        other = self.scores[against]
        return {
            law: {
                name: mean_over_splits(paired(values, other[name]), self.test_per_train)
                for name, values in row.items()
            }
            for law, row in self.scores.items()
            if law != against
        }

    def preference(self, a: str, b: str, *, score: str = "nll", rope: Number = ROPE) -> Preference:
        """How probable it is that one law has the better mean score on data like these: the posterior of
        the correlated Bayesian t-test, `scores.over_splits.chances_on_these_data`.

        Args:
            a: the one law.
            b: the other.
            score: one of `score_names`.
            rope: differences up to this size count as none, in units of the score.

        Returns:
            The probabilities; nan where the score of a law is infinite on a split.

        Raises:
            UnknownNameError: there is no such law or score.
            ConfigurationError: the region is negative, there is one split, or neither high nor low
                values of the score are good.
        """
        for law in (a, b):
            if law not in self.scores:
                raise UnknownNameError("law", law, tuple(self.scores))
        if score not in self.score_names:
            raise UnknownNameError("score", score, self.score_names)
        rope = ranges.real("rope", rope, Range.NOT_NEGATIVE_FINITE)
        if len(self.splits) < 2:
            raise ConfigurationError(
                "one split does not tell how differences vary; take two or more"
            )
        difference = paired(self.scores[a][score], self.scores[b][score])
        if not np.all(np.isfinite(difference)):
            return Preference(np.nan, np.nan, np.nan)
        return preferred(score, *chances_on_these_data(difference, self.test_per_train, rope))

    def table(self) -> "pd.DataFrame":
        """One row per law: for every score its mean over splits, standard error and the ends of its 90%
        interval; the same of its difference to the reference, as SCORE_difference. Its
        `attrs["interval"]` says what the intervals are: "90% over splits", or "90% over fits" of the
        same points."""
        import pandas as pd

        differences = self.differences(self.reference)
        none = Estimate(0.0, np.nan, np.nan, over=self.over, error=np.nan)
        rows = {}
        for law, means in self.means.items():
            row: dict[str, float] = {}
            for name, mean in means.items():
                row |= _columns(name, mean)
                difference = differences[law][name] if law in differences else none
                row |= _columns(f"{name}_difference", difference)
            rows[law] = row
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("law")
        table.attrs[COLUMN] = meaning(self.over)
        return table


def preferred(score: str, below: float, within: float, above: float) -> Preference:
    """What probabilities of a difference a − b of a score mean for the laws.

    Raises:
        ConfigurationError: neither high nor low values of the score are good.
    """
    goal = called(score).goal
    if goal not in (LOWER, HIGHER):
        raise ConfigurationError(
            f"the right value of {score} is {goal}, so that neither the lower nor the higher one is "
            "better; compare another score"
        )
    return Preference(*((above, within, below) if goal == HIGHER else (below, within, above)))


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {
        name: estimate.value,
        f"{name}_error": estimate.error,
        f"{name}_lower": estimate.lower,
        f"{name}_upper": estimate.upper,
    }


def paired(a: Float[np.ndarray, " k"], b: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """a − b per split; nan where both are infinite, without a warning."""
    with np.errstate(invalid="ignore"):
        return np.asarray(a) - np.asarray(b)
