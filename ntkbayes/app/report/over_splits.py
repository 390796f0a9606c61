"""The page over splits: one comparison of laws out of those of several splits."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ntkbayes.app import budget
from ntkbayes.app.report.document import whole_page
from ntkbayes.app.report.html import (
    data_of,
    drawn,
    error_of,
    link_to,
    prose,
    range_of,
    table_of,
)
from ntkbayes.app.report.sections import SCORES, reproduction
from ntkbayes.app.report.sentences import Remark, unfinished
from ntkbayes.app.report.words import count, listed, number, with_meaning
from ntkbayes.repeated import ROPE, SplitComparison
from ntkbayes.scores.names import called
from ntkbayes.scores.over_splits import Estimate
from ntkbayes.storage import ComparisonRecord


def page(
    comparison: SplitComparison,
    records: Mapping[str, ComparisonRecord],
    folder: str | os.PathLike,
    places: Mapping[str, str],
) -> str:
    """The report over splits as HTML.

    Args:
        records: of the splits, by name.
        folder: that its table is in.
        places: of the reports of the splits, by name, relative to the folder.
    """
    settings = comparison.settings
    left_out = [told for each in records.values() if (told := budget.sentence(each.settings))]
    warnings = [
        prose("warning missing", told=told)
        for told in (unfinished(settings), *left_out[:1])
        if told
    ]
    call = f"{str(Path(folder, 'splits.csv'))!r}, index_col='law'"
    parts = (
        prose("section short", items=remarks(comparison, records), warnings=warnings),
        over_splits(comparison),
        _each(comparison, records, places),
        reproduction("split settings", settings, file=call),
    )
    title = str(settings.get("data", "Comparison"))
    return whole_page(
        title, "laws compared over splits", lead(comparison, records), parts, settings
    )


def lead(comparison: SplitComparison, records: Mapping[str, ComparisonRecord]) -> str:
    """What the splits are."""
    first = next(iter(records.values()))
    kind = str(comparison.settings.get("splits", ""))
    what = "folds" if kind.endswith("folds") else "random splits"
    return (
        f"{len(records)} {what}, of about {count(first.num_train, 'training point')} and "
        f"{count(first.num_test, 'held-out point')} each. Reference: {comparison.reference}."
    )


def remarks(comparison: SplitComparison, records: Mapping[str, ComparisonRecord]) -> list[Remark]:
    """The comparison in a few sentences, every one computed."""
    return [_ridges(records), *_best(comparison)]


def _ridges(records: Mapping[str, ComparisonRecord]) -> Remark:
    told = [each.settings.get("ridge") for each in records.values()]
    values = [float(each["value"]) for each in told if isinstance(each, Mapping)]
    if len(set(values)) == 1:
        return Remark("Ridge", f"{values[0]:.6g} on every split.")
    return Remark("Ridge", f"Chosen on every split: from {min(values):.6g} to {max(values):.6g}.")


def _best(comparison: SplitComparison) -> list[Remark]:
    if "nll" not in comparison.score_names:
        return []
    best = comparison.best
    mean = comparison.means[best]["nll"]
    if not np.isfinite(mean.value):
        return [Remark("Best prediction", "All mean negative log likelihoods are infinite.")]
    text = (
        f"{best} has the lowest mean negative log likelihood in nats per point over "
        f"{count(len(comparison.splits), 'split')}, {with_meaning(mean)}."
    )
    excess = comparison.differences(best)
    worse = [law for law, row in excess.items() if _is_worse(row["nll"])]
    level = [law for law in excess if law not in worse]
    if worse:
        text += f" It is significantly better than {listed(worse)}."
    if level:
        text += f" The splits do not tell it apart from {listed(level)}."
    equal = [law for law in level if comparison.preference(law, best).equivalent > 0.9]
    if equal:
        text += (
            f" Practically equivalent, to within {ROPE:g} nats, with a probability above 0.9: "
            f"{listed(equal)}."
        )
    return [Remark("Best prediction", text)]


def _is_worse(difference: Estimate) -> bool:
    """Significantly: or infinitely."""
    return difference.lower > 0 or difference.value == np.inf


def over_splits(comparison: SplitComparison) -> str:
    """Means with their errors, and differences to the best law."""
    names = [name for name in SCORES if name in comparison.score_names]
    rows = [(law, [cell(means[name]) for name in names]) for law, means in comparison.means.items()]
    titles = [called(name).head for name in names]
    best, splits = comparison.best, count(len(comparison.splits), "split")
    differences = []
    for law, row in comparison.differences(best).items():
        cells = [cell(row[name], signed=True) for name in names]
        if "nll" in names:
            cells += [number(chance, 2) for chance in comparison.preference(law, best)]
        differences.append((law, cells))
    figure = drawn("split_scores", comparison, list(comparison.scores))
    chances = ["P(better)", "P(equivalent)", "P(worse)"] if "nll" in names else []
    caption = f"Scores less those of {best}, paired: means over {splits}; probabilities are of NLL"
    return prose(
        "section splits",
        splits=splits,
        rope=f"{ROPE:g} nats per point",
        table=table_of(f"Scores: means over {splits}", titles, rows),
        differences=table_of(caption, [*titles, *chances], differences) if differences else "",
        figure=figure,
    )


def cell(mean: Estimate, *, signed: bool = False) -> str:
    """A mean with its error and interval."""
    if not np.isfinite(mean.error):
        return data_of(mean.value, 3, signed=signed)
    value = data_of(mean.value, 3, signed=signed) + error_of(mean.error, 3)
    return value + range_of(mean, signed=signed)


def _each(
    comparison: SplitComparison,
    records: Mapping[str, ComparisonRecord],
    places: Mapping[str, str],
) -> str:
    """Every split: its points, and the scores of the laws there."""
    score = "nll" if "nll" in comparison.score_names else comparison.score_names[0]
    rows = []
    for position, (name, record) in enumerate(records.items()):
        cells = [str(record.num_train), str(record.num_test)]
        cells += [data_of(scores[score][position], 3) for scores in comparison.scores.values()]
        rows.append((link_to(places[name], name), cells))
    columns = ["Training points", "Held-out points", *comparison.scores]
    caption = f"{called(score).head} of every law on every split; each has a report of its own"
    return prose("section each split", table=table_of(caption, columns, rows, of="Split"))
