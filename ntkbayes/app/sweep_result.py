"""What became of a sweep: its table, means over seeds, and laws compared over data sets."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ntkbayes.display import Configured
from ntkbayes.repeated import DataSetComparison, SplitComparison
from ntkbayes.scores.intervals import with_column

if TYPE_CHECKING:
    import pandas as pd


class Failure(NamedTuple):
    """A study without results.

    Attributes:
        study: its name.
        error: what it ended with.
        attempts: how often it was begun, in this run and before.
    """

    study: str
    error: str
    attempts: int

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return f"{self.study} (begun {times}): {self.error}"


class Group(NamedTuple):
    """The studies of a sweep that differ in nothing but their seeds.

    Attributes:
        data: name of the data set.
        ridge: its value, or the rule that chooses it.
    """

    data: str
    ridge: str


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(Configured):
    """What became of the studies.

    Attributes:
        table: tidy, one row per study and law, failed studies included: the columns study, data, ridge
            (nan if the study failed before it was chosen), ridge_rule, seed, law; those of
            `Comparison.table`, nan where the study failed; training_points and test_points; split,
            "random" or, of test points of one's own, "given"; attempts, how often a worker began the
            study; and error, empty where it finished.
        failures: studies without results.
        over_data_sets: every pair of laws over data sets, by ridge or its rule, where there are two data
            sets or more with two random splits or more.
    """

    table: "pd.DataFrame"
    failures: tuple[Failure, ...]
    over_data_sets: Mapping[str, DataSetComparison] = field(default_factory=dict)

    @cached_property
    def over_seeds(self) -> dict[Group, SplitComparison]:
        """Comparisons over the seeds of each data set and ridge, which are random splits: of the
        finished studies, and the laws that all of them have. Of studies with test points of their own
        the seeds are of fits and draws alone, and errors are those of independent scores. The reference
        is the first law. Studies of one seed that differ in something else are passed over."""
        return comparisons_over_seeds(self.table)

    def means(self) -> "pd.DataFrame":
        """One row per data set, ridge and law: the number of seeds, and the columns of
        `SplitComparison.table`, with what the intervals over seeds are, see `SplitComparison.over`."""
        import pandas as pd

        frames = []
        for group, comparison in self.over_seeds.items():
            frame = with_column(comparison.table()).reset_index()
            frame.insert(0, "data", group.data)
            frame.insert(1, "ridge", group.ridge)
            frame.insert(3, "seeds", len(comparison.splits))
            frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def comparisons_over_seeds(table: "pd.DataFrame") -> dict[Group, SplitComparison]:
    """See `SweepResult.over_seeds`.

    Args:
        table: of a sweep, also as read from its sweep.csv.
    """
    done = table[table["error"].fillna("") == ""]
    every = [name for name in table.columns if f"{name}_lower" in table.columns]
    asked = (
        done["ridge"].map("{:g}".format).where(done["ridge_rule"] == "given", done["ridge_rule"])
    )
    found = {}
    for (data, ridge), group in done.groupby(["data", asked], sort=False):
        if group.groupby("law")["seed"].apply(lambda seeds: seeds.duplicated().any()).any():
            continue
        studies = list(dict.fromkeys(group["study"]))
        by_law = {law: part.set_index("study") for law, part in group.groupby("law", sort=False)}
        laws = [law for law, part in by_law.items() if set(part.index) == set(studies)]
        if not laws:
            continue
        scores = [name for name in every if group[name].notna().any()]
        ratio = (group["test_points"] / group["training_points"]).mean()
        found[Group(str(data), str(ridge))] = SplitComparison(
            scores={
                law: {s: by_law[law].loc[studies, s].to_numpy(dtype=np.float64) for s in scores}
                for law in laws
            },
            splits=tuple(f"seed {seed}" for seed in by_law[laws[0]].loc[studies, "seed"]),
            test_per_train=float(ratio) if set(group["split"]) == {"random"} else 0.0,
            reference=laws[0],
            settings={"data": data},
        )
    return found


def by_ridge(
    over_seeds: Mapping[Group, SplitComparison],
) -> dict[str, dict[str, SplitComparison]]:
    """What can be compared over data sets, by ridge and data set: two data sets or more of the same kind
    of targets, each of two random splits or more, and the laws that all of them have."""
    found: dict[str, dict[str, SplitComparison]] = {}
    for group, each in over_seeds.items():
        if len(each.splits) > 1 and each.test_per_train > 0:
            kind = "" if "accuracy" in each.score_names else ", numbers"
            found.setdefault(f"{group.ridge}{kind}", {})[group.data] = each
    comparable = {}
    for ridge, sets in found.items():
        first = next(iter(sets.values()))
        laws = [law for law in first.scores if all(law in each.scores for each in sets.values())]
        if len(sets) > 1 and len(laws) > 1:
            comparable[ridge] = {
                data: replace(
                    each, scores={law: each.scores[law] for law in laws}, reference=laws[0]
                )
                for data, each in sets.items()
            }
    return comparable
