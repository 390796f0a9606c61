"""What is printed, on terminals of any width and encoding."""

import codecs
import io
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from ntkbayes.app.clock import clock

console = Console(stderr=True)
_told = {"progress": True}
_ROWS = 10

_PLAIN = {
    "½": "1/2",
    "²": "^2",
    "θ": "theta",
    "Θ": "Theta",
    "η": "eta",
    "σ": "sigma",
    "‖": "||",
    "×": "x",
    "·": "*",
    "±": "+/-",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "∞": "inf",
    "…": "...",
    "’": "'",
    **dict.fromkeys("−–—‑", "-"),
}


def prepare() -> None:
    """Let any terminal show every message: what its encoding lacks is written in plain letters."""
    _told["progress"] = True
    codecs.register_error("ntkbayes", _in_plain_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ntkbayes")
    warnings.showwarning = lambda message, *_args, **_kwargs: say(
        f"warning: {message}", style="yellow"
    )


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in letters)
    return "".join(plain), error.end


def legible(text: str) -> str:
    """Text as the terminal's encoding can show it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "ntkbayes").decode(encoding)


def say(message: str, style: str | None = None) -> None:
    """One line, whatever the width of the terminal, with names and numbers in it as they are."""
    console.print(message, style=style, highlight=False, markup=False, soft_wrap=True)


def tell(message: str) -> None:
    """One line, unless progress is not to be told."""
    if _told["progress"]:
        say(message)


def be_quiet() -> None:
    """From now on, no progress: warnings and errors alone."""
    _told["progress"] = False


def shows_progress() -> bool:
    """Whether progress bars have somebody to look at them."""
    return _told["progress"] and sys.stderr.isatty()


@contextmanager
def announce(what: str) -> Iterator[None]:
    """Say what is being done, how long it took, and how much of that was compilation."""
    if not _told["progress"]:
        yield
        return
    with clock() as running:
        if console.is_terminal and not what.endswith("NUTS"):  # NUTS shows NumPyro's own bar
            spinner = "line" if console.options.ascii_only else "dots"
            with console.status(f"{what} …", spinner=spinner):
                yield
        else:
            say(f"{what} …")
            yield
        took, compiling = running.seconds, running.compile_seconds
    if took >= 0.05:
        say(f"{what}: {took:.1f} s{f', {compiling:.1f} s of it compiling' * (compiling >= 0.05)}")
    elif console.is_terminal:
        say(what)


def conclude(
    context: typer.Context, show: Callable[[], None], facts: Mapping[str, object], **paths: Path
) -> None:
    """Print what came out: a table and the paths, the paths alone for --quiet, or all as JSON.

    Args:
        show: prints the table.
        facts: what --json prints besides the paths.
        paths: of the results, by what they are.
    """
    if context.params["as_json"]:
        from ntkbayes.files import to_json

        print(to_json({**facts, "paths": paths}), end="")
        return
    if not context.params["quiet"]:
        show()
    for what, path in paths.items():
        print(f"{what}: {path}")


def records(frame) -> list[dict[str, object]]:  # type: ignore[no-untyped-def]
    """The rows of a data frame, with its index and what it says of itself among the columns."""
    return frame.reset_index().assign(**frame.attrs).to_dict("records")


def print_comparison(comparison) -> None:  # type: ignore[no-untyped-def]
    """The ridge, and the scores of every law."""
    from ntkbayes.app import budget
    from ntkbayes.app.ridges import sentence
    from ntkbayes.scores.names import called

    if ridge := sentence(comparison.settings):
        print(ridge)
    shown = next(iter(comparison.predictions.values())).headline
    heads = (called(score).short_with_unit for score in shown)
    columns = ["law", *heads, f"variance / {comparison.reference}"]
    table = Table()
    for column in columns:
        table.add_column(column, no_wrap=column == "law")
    for name, scores in comparison.scores.items():
        ratio = comparison.distances[name].get("variance_ratio")
        table.add_row(
            name,
            *(f"{scores[score].value:.3f}" for score in shown),
            f"{ratio.value:.3f}" if ratio and math.isfinite(ratio.value) else "",
        )
    print_table(table)
    if left_out := budget.sentence(comparison.settings):
        print(left_out)


def print_predictions(law: str, rows: list[dict[str, object]]) -> None:
    """The first predictions of a law."""
    print(f"{law}, {len(rows)} rows" + (f"; the first {_ROWS}:" if len(rows) > _ROWS else ":"))
    table = Table()
    for column in rows[0]:
        table.add_column(column)
    for row in rows[:_ROWS]:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    print_table(table)


def print_splits(comparison) -> None:  # type: ignore[no-untyped-def]
    """Mean scores over splits, and differences in NLL to the best law."""
    from ntkbayes.scores.names import called

    shown = ("accuracy" if "accuracy" in comparison.score_names else "crps", "nll")
    table = Table(show_edge=False, pad_edge=False)  # to fit 80 columns
    for column in ("law", *(called(s).short_with_unit for s in shown), "NLL less the best’s"):
        table.add_column(column, no_wrap=True)
    differences = comparison.differences(comparison.best)
    for law, means in comparison.means.items():
        cells = (f"{means[name].value:.3f} ± {means[name].error:.3f}" for name in shown)
        other = differences[law]["nll"] if law in differences else None
        interval = other and f"{other.value:+.3f} ({other.lower:.3f} to {other.upper:.3f})"
        table.add_row(law, *cells, interval or "best")
    print_table(table)
    print(
        f"Means over {len(comparison.splits)} splits, ± standard error; differences with 90% intervals "
        "over splits.\nBoth are corrected for the training points that splits share (Nadeau and Bengio "
        "2003)."
    )


def print_sweep(result) -> None:  # type: ignore[no-untyped-def]
    """Means over seeds, and laws over data sets."""
    from ntkbayes.scores.intervals import Over
    from ntkbayes.scores.names import called

    over_seeds = result.over_seeds
    known = {score for each in over_seeds.values() for score in each.score_names}
    shown = [s for s in ("accuracy", "crps", "nll", "brier", "ece") if s in known]
    table = Table()
    for column in ("data", "ridge", "law", "seeds", *(called(s).short_with_unit for s in shown)):
        table.add_column(column, no_wrap=column in ("law", called("nll").short_with_unit))
    for group, comparison in over_seeds.items():
        for law, means in comparison.means.items():
            cells = [f"{means[s].value:.3f}" if s in means else "" for s in shown]
            if "nll" in means and math.isfinite(error := means["nll"].error):
                cells[shown.index("nll")] += f" ± {error:.3f}"
            table.add_row(group.data, group.ridge, law, str(len(comparison.splits)), *cells)
    print_table(table)
    over = {each.over for each in result.over_seeds.values() if len(each.splits) > 1}
    if Over.SPLITS in over:
        print("± standard error over splits, corrected for the training points that they share.")
    if Over.FITS in over:
        print("± standard error over fits: of test points of one's own every seed has the same.")
    for ridge, comparison in result.over_data_sets.items():
        table = Table()
        for column in ("A", "B", "P(A better)", "P(equivalent)", "P(B better)"):
            table.add_column(column, no_wrap=column in "AB")
        for pair in comparison.pairs:
            table.add_row(pair.a, pair.b, *(f"{chance:.2f}" for chance in pair.preference))
        print_table(table)
        print(
            f"NLL on a further data set of this kind, ridge {ridge}; equivalent: within "
            f"{comparison.rope:g} nats per point."
        )


def print_verdicts(result) -> None:  # type: ignore[no-untyped-def]
    """Where the lazy regime holds."""
    table = Table()
    # Words of few letters, so that the table fits into 80 columns; the sentences below say the rest.
    # In brackets: of the peak.
    columns = (
        "regime",
        "verdict",
        "drift slope (peak)",
        "gap slope (peak)",
        "drift growth",
        "logit growth",
        "within",
    )
    for column in columns:
        table.add_column(column, no_wrap=column == "verdict")
    for v in result.verdicts:
        table.add_row(
            str(v.regime),
            str(v.finding),
            f"{v.drift.exponent:.2f} ({v.peak_drift.exponent:.2f})",
            f"{v.gap.exponent:.2f} ({v.peak_gap.exponent:.2f})",
            *(f"×{growth:.2f}" for growth in (v.drift_growth, v.logit_growth)),
            f"{v.trusted_within:.2g}",
        )
    print_table(table)
    for v in result.verdicts:
        print(v)


def print_table(table: Table) -> None:
    """A table as wide as the terminal, or as its longest words: nothing is ever cut."""
    out = Console()
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    least = out.measure(table, options=out.options.update(max_width=1000)).minimum
    Console(width=max(out.width, least)).print(table)
