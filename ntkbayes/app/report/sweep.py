"""The page of a sweep: means over seeds, laws over data sets, and where each study is."""

from collections.abc import Mapping

from ntkbayes.app.report.document import whole_page
from ntkbayes.app.report.html import (
    Cell,
    Row,
    Words,
    data_of,
    interval_of,
    link_to,
    prose,
    table_of,
)
from ntkbayes.app.report.over_splits import cell
from ntkbayes.app.report.sections import SCORES, reproduction
from ntkbayes.app.report.words import count, number
from ntkbayes.app.sweep_result import Group, SweepResult
from ntkbayes.repeated import DataSetComparison, SplitComparison
from ntkbayes.scores.intervals import Over
from ntkbayes.scores.names import called


def page(
    result: SweepResult, places: Mapping[str, str], settings: Mapping[str, object], file: str
) -> str:
    """The report of a sweep as HTML.

    Args:
        places: of the reports of the studies, by name, relative to the folder.
        settings: for the record; its command makes the sweep again.
        file: of the table.
    """
    parts = (
        prose("warning failed", items=result.failures) if result.failures else "",
        *(_over_data_sets(ridge, each) for ridge, each in result.over_data_sets.items()),
        _over_seeds(result.over_seeds),
        _studies(result, places),
        reproduction("split settings", settings, file=repr(file)),
    )
    return whole_page("Sweep", "laws compared over studies", _lead(result), parts, settings)


def _lead(result: SweepResult) -> str:
    table = result.table
    total, ended = table["study"].nunique(), table["study"].nunique() - len(result.failures)
    data_sets, seeds = (table[each].nunique() for each in ("data", "seed"))
    return (
        f"{ended} of {total} studies finished, of {count(data_sets, 'data set')} and "
        f"{count(seeds, 'seed')}."
    )


def _over_data_sets(ridge: str, comparison: DataSetComparison) -> str:
    rows = []
    for pair in comparison.pairs:
        cells: list[Cell] = [Words(pair.b), *(number(chance, 2) for chance in pair.preference)]
        cells += [interval_of(pair.difference, signed=True), data_of(pair.spread, 3)]
        rows.append((pair.a, cells))
    score = called(comparison.score).head
    columns = ["B", "P(A better)", "P(equivalent)", "P(B better)", f"{score}, A − B", "Spread"]
    caption = (
        f"Every pair of laws over {count(len(comparison.data_sets), 'data set')}, by {score}, ridge "
        f"{ridge}"
    )
    return prose(
        "section data sets",
        table=table_of(caption, columns, rows, of="A"),
        rope=f"{comparison.rope:g}",
    )


def _over_seeds(over_seeds: Mapping[Group, SplitComparison]) -> str:
    tables = []
    for group, comparison in over_seeds.items():
        names = [name for name in SCORES if name in comparison.score_names]
        rows = [
            (law, [cell(means[name]) for name in names]) for law, means in comparison.means.items()
        ]
        seeds = count(len(comparison.splits), "seed")
        caption = (
            f"{group.data}, ridge {group.ridge}: means over {seeds}, which are {comparison.over}"
        )
        tables.append(table_of(caption, [called(name).head for name in names], rows))
    over = {comparison.over for comparison in over_seeds.values()}
    return prose("section seeds", tables=tables, splits=Over.SPLITS in over, fits=Over.FITS in over)


def _studies(result: SweepResult, places: Mapping[str, str]) -> str:
    rows: list[Row] = []
    for name, group in result.table.groupby("study", sort=False):
        first = group.iloc[0]
        if first["error"]:
            rows.append((str(name), [Words("failed"), "–", "–"]))
            continue
        link = link_to(places[str(name)], name)
        points = [str(int(first[each])) for each in ("training_points", "test_points")]
        rows.append((link, [data_of(first["ridge"], 4), *points]))
    columns = ["Ridge", "Training points", "Held-out points"]
    return prose("section studies", table=table_of("Studies", columns, rows, of="Study"))
