"""Pieces of HTML: prose out of report.html, tables, figures and numbers."""

import base64
import io
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from ntkbayes.app.report.words import listed, number
from ntkbayes.comparison import Comparison
from ntkbayes.errors import ConfigurationError
from ntkbayes.scores.calibration import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@cache
def own_file(name: str) -> str:
    """The text of a file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def pieces() -> dict[str, Template]:
    """The pieces of report.html by name: each starts with a comment that names it."""
    _, *parts = re.split(r"^<!-- (.+) -->$", own_file("report.html"), flags=re.MULTILINE)
    return {
        name: Template(text.strip()) for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def prose(name: str, **values: str) -> str:
    """A piece of report.html with its placeholders filled in."""
    return pieces()[name].substitute(values)


class Words(str):
    """A cell of words, not of a number."""


def escaped(value: object) -> str:
    """A value as text of HTML."""
    return escape(str(value))


def law_name(comparison: Comparison, name: str) -> str:
    """A law's name, next to its colour."""
    from ntkbayes import figures

    colour = figures.colours(comparison)[name]
    return f'<span class="swatch" style="background:{colour}"></span>{escaped(name)}'


def table_of(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    *,
    of: str = "Law",
) -> str:
    """Heads and cells are HTML already. A row without a head belongs to the law above it.

    Args:
        of: what the heads are.
    """
    head = "".join(
        f'<th scope="col"{_class_of(rows[0][1][i])}>{escaped(c)}</th>'
        for i, c in enumerate(columns)
    )
    body = "\n".join(
        "<tr>"
        + (f'<th scope="row">{first}</th>' if first else "<td></td>")
        + "".join(f"<td{_class_of(cell)}>{cell}</td>" for cell in cells)
        + "</tr>"
        for first, cells in rows
    )
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}">
<table>
<caption>{escaped(caption)}</caption>
<thead><tr><th scope="col">{of}</th>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def _class_of(cell: str) -> str:
    return ' class="text"' if isinstance(cell, Words) else ""


def figure_of(name: str, comparison: Comparison) -> str:
    """A figure by its function's name; nothing where the comparison has none."""
    from ntkbayes import figures

    try:
        figure = getattr(figures, name)(comparison)
    except ConfigurationError:
        return ""
    return drawn(figure, name, list(comparison.predictions))


def drawn(figure: "Figure", name: str, laws: Sequence[str]) -> str:
    """A figure of these laws, with the title and the caption that report.html has under its name."""
    import matplotlib

    from ntkbayes import figures

    svg = io.BytesIO()
    # The salt makes equal comparisons equal files.
    with figures.own_style(), matplotlib.rc_context({"svg.hashsalt": "ntkbayes"}):
        figure.savefig(svg, format="svg", metadata={"Date": None}, dpi=110)
    source = base64.b64encode(svg.getvalue()).decode("ascii")
    width = round(108 * figure.get_figwidth())
    title, caption = prose(f"title {name}"), prose(f"caption {name}")
    alternative = f"{title} Laws: {listed(laws)}. {caption}"
    return f"""<figure>
<div class="scroll" tabindex="0" role="region" aria-label="{escaped(title)}">
<img style="max-width:{width}px" alt="{escaped(alternative)}" src="data:image/svg+xml;base64,{source}">
</div>
<figcaption>{caption}</figcaption>
</figure>"""


def interval_of(
    interval: Interval, *, bold: bool = False, signed: bool = False, digits: int = 3
) -> str:
    value = data_of(interval.value, digits, signed=signed)
    ends = " – " if not signed else " to "
    lower, upper = (number(end, digits, signed=signed) for end in (interval.lower, interval.upper))
    shown = f"<strong>{value}</strong>" if bold else value
    return f'{shown}<span class="range">{lower}{ends}{upper}</span>'


def data_of(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with its unrounded value."""
    value = float(value)
    return f'<data value="{value!r}">{number(value, digits, signed=signed)}</data>'


def error_of(value: float, digits: int) -> str:
    return f' <span class="error">± {number(value, digits)}</span>' if 0 < value < np.inf else ""
