"""The look of all figures: colours, sizes, and grids of small panels."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ntkbayes.comparison import Comparison

WIDTH = 10.0
"""Width of every figure in inches, except for the surfaces of many laws."""


type Keywords = dict[str, Any]


REFERENCE_COLOUR = "#1a1a1a"
LAW_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#882255",
    "#999933",
)
BASELINE_COLOURS = ("#7f7f7f", "#adadad", "#5f6b73", "#c4b8a8")
CLASS_COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"),
    *("#D55E00", "#999933", "#882255", "#44AA99", "#332288"),
)
STRENGTH = 0.78
"""Strength of a class's colour where it is certain; training points have 1."""


INK, FAINT, GRID = "#333333", "#8a8a8a", "#e9e9e9"
STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": "#b5b5b5",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#b5b5b5",
    "ytick.color": "#b5b5b5",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "text.parse_math": False,
}


@contextmanager
def own_style() -> Iterator[None]:
    """Draw and save in this style, not the user's (LaTeX, xkcd, a style sheet for slides)."""
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # Scripts that matplotlib's font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph")
        yield


def styled[T](draw: Callable[[T], Figure]) -> Callable[[T], Figure]:
    @wraps(draw)
    def styled(shown: T) -> Figure:
        with own_style():
            figure = draw(shown)
            figure.draw_without_rendering()  # makes ticks, which take the style of the first drawing
            return figure

    return styled


def colours(comparison: Comparison) -> dict[str, str]:
    """The colour of each law, the same in all figures."""
    by_name, laws, baselines = {}, 0, 0
    for name, predictions in comparison.predictions.items():
        if name == comparison.reference:
            by_name[name] = REFERENCE_COLOUR
        elif predictions.logits is None:
            by_name[name] = BASELINE_COLOURS[baselines % len(BASELINE_COLOURS)]
            baselines += 1
        else:
            by_name[name] = LAW_COLOURS[laws % len(LAW_COLOURS)]
            laws += 1
    return by_name


def tint(colour: str, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white: unlike transparency, it hides grid lines."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def small_multiples(count: int, *, height: float, share: bool) -> tuple[Figure, list[Axes]]:
    columns = _columns(count)
    rows = -(-count // columns)
    # Few panels stay small rather than fill the width.
    width = WIDTH if columns == 4 else 0.6 + 3.0 * columns
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    return figure, list(grid[:count])


def _columns(count: int) -> int:
    """At most four, with rows as even as possible."""
    rows = -(-count // 4)
    return -(-count // rows)


def outer_labels(panel: Axes, place: int, count: int, x: str, y: str) -> None:
    """Axis labels and tick labels only on the left and at the bottom of small multiples."""
    columns = _columns(count)
    panel.tick_params(length=2.5)
    if place + columns >= count:
        panel.set_xlabel(x)
        panel.tick_params(labelbottom=True)
    if place % columns == 0:
        panel.set_ylabel(y)


def short(name: object, max_length: int = 26) -> str:
    text = " ".join(str(name).split())
    return text if len(text) <= max_length else text[: max_length - 1].rstrip() + "…"
