"""Pieces of HTML: prose, tables, figures and numbers, by the templates of this package.

Jinja escapes whatever is not `Markup`, which only templates make.
"""

import base64
import inspect
import io
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ntkbayes.app.report.words import listed, number
from ntkbayes.comparison import Comparison
from ntkbayes.errors import ConfigurationError
from ntkbayes.scores.intervals import Interval

Text = str
"""Of a cell: Markup, or text that is still to be escaped."""


class Words:
    """A cell of words, not of a number."""

    def __init__(self, text: Text):
        self.text = text

    def __html__(self) -> str:
        return escape(self.text)


Cell = Text | Words
Row = tuple[Text, Sequence[Cell]]


@cache
def environment() -> Environment:
    """The templates, in which a name that is not given is an error."""
    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.tests["words"] = lambda cell: isinstance(cell, Words)
    return made


def whole(name: str, **values: object) -> str:
    """A template of its own."""
    return environment().get_template(name).render(values)


def prose(name: str, **values: object) -> Markup:
    """A piece of pieces.html with its placeholders filled in."""
    template = environment().get_template("pieces.html")
    context = template.new_context({"definitions": _macros().definitions, **values})
    return Markup("".join(template.blocks[_identifier(name)](context)).strip())


def static(name: str) -> Markup:
    """A piece without placeholders; nothing if there is none of that name."""
    known = environment().get_template("pieces.html").blocks
    return prose(name) if _identifier(name) in known else Markup("")


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def law_name(comparison: Comparison, name: str) -> Markup:
    """A law's name, next to its colour."""
    from ntkbayes import figures

    return _macro("law", name, figures.colours(comparison)[name])


def table_of(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    of: str = "Law",
) -> Markup:
    """A row without a head belongs to the law above it.

    Args:
        of: what the heads are.
    """
    return _macro("table", caption, of, columns, rows)


def link_to(place: str, name: object) -> Markup:
    """A link to a file, by its place."""
    return _macro("link", place, name)


def figure_of(name: str, comparison: Comparison) -> str:
    """A figure by its function's name; nothing where the comparison has none."""
    try:
        return drawn(name, comparison, list(comparison.predictions))
    except ConfigurationError:
        return ""


def drawn(name: str, shown: object, laws: Sequence[str]) -> Markup:
    """The figure of a name in `figures`, with the title and the caption that pieces.html has under it.

    Args:
        shown: what it is a figure of.
        laws: those in it.
    """
    import matplotlib

    from ntkbayes import figures

    svg = io.BytesIO()
    # The salt makes equal comparisons equal files.
    with figures.own_style(), matplotlib.rc_context({"svg.hashsalt": "ntkbayes"}):
        # As drawn before `styled` lays it out for others to save, which is done here.
        figure = inspect.unwrap(getattr(figures, name))(shown)
        figure.savefig(svg, format="svg", metadata={"Date": None}, dpi=110)
    source = base64.b64encode(svg.getvalue()).decode("ascii")
    width = round(108 * figure.get_figwidth())
    title, caption = static(f"title {name}"), static(f"caption {name}")
    alternative = f"{title.unescape()} Laws: {listed(laws)}. {caption.striptags()}"
    return _macro("figure", title, caption, alternative, width, source)


def interval_of(
    interval: Interval, *, bold: bool = False, signed: bool = False, digits: int = 3
) -> Markup:
    value = data_of(interval.value, digits, signed=signed)
    return _macro("interval", value, *_ends_of(interval, digits, signed=signed), bold)


def range_of(interval: Interval, *, signed: bool = False, digits: int = 3) -> Markup:
    """The ends alone."""
    return _macro("range", *_ends_of(interval, digits, signed=signed))


def _ends_of(interval: Interval, digits: int, *, signed: bool) -> tuple[str, str, str]:
    """Lower, upper, and what stands between them."""
    lower, upper = (number(end, digits, signed=signed) for end in (interval.lower, interval.upper))
    return lower, upper, " to " if signed else " – "


def data_of(value: float, digits: int, *, signed: bool = False) -> Markup:
    """A number with its unrounded value."""
    return shown_as(value, number(float(value), digits, signed=signed))


def shown_as(value: float, text: str) -> Markup:
    """A number with its unrounded value, in words of one's own."""
    return _macro("data", repr(float(value)), text)


def error_of(value: float, digits: int) -> Markup:
    return _macro("error", number(value, digits)) if 0 < value < np.inf else Markup("")


def _macro(name: str, *arguments: object) -> Markup:
    """A macro of macros.html."""
    return getattr(_macros(), name)(*arguments)


@cache
def _macros() -> Any:
    return environment().get_template("macros.html").module
