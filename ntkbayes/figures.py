"""Figures of a comparison. Every function returns a new `matplotlib.figure.Figure`, and no global
state of matplotlib is touched: save it with `figure.savefig`, or let a notebook show it.

A law has the same colour in all figures: the reference is black, other laws coloured, baselines
grey. The colours are Okabe and Ito's, told apart by colour-blind readers.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from ntkbayes.checks import Ranks
from ntkbayes.comparison import Comparison
from ntkbayes.errors import ConfigurationError
from ntkbayes.predictions.predictive import Predictions, Surface
from ntkbayes.scores import calibration

WIDTH = 10.0
"""Inches, of every figure but the surfaces of many laws."""

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
"""Of a class's colour where it is certain; the training points are stronger."""
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
SCORES = {
    "nll": ("Negative log likelihood", "nats a point, lower is better"),
    "brier": ("Brier score", "lower is better"),
    "ece": ("Calibration error (ECE)", "lower is better"),
    "accuracy": ("Accuracy", "higher is better"),
}


@contextmanager
def own_style() -> Iterator[None]:
    """Draw and save in this style, whatever the user's: LaTeX, sketches or a sheet for slides."""
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # Names in a script that matplotlib's font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph")
        yield


def _styled[T](draw: Callable[[T], Figure]) -> Callable[[T], Figure]:
    @wraps(draw)
    def styled(shown: T) -> Figure:
        with own_style():
            figure = draw(shown)
            figure.draw_without_rendering()  # ticks are made when first drawn, in this style
            return figure

    return styled


def colours(comparison: Comparison) -> dict[str, str]:
    """The colour of each law, the same in all figures."""
    found, laws, baselines = {}, 0, 0
    for name, predictions in comparison.predictions.items():
        if name == comparison.reference:
            found[name] = REFERENCE_COLOUR
        elif predictions.logits is None:
            found[name] = BASELINE_COLOURS[baselines % len(BASELINE_COLOURS)]
            baselines += 1
        else:
            found[name] = LAW_COLOURS[laws % len(LAW_COLOURS)]
            laws += 1
    return found


# --- calibration ----------------------------------------------------------------------------------


@_styled
def reliability(comparison: Comparison) -> Figure:
    """How often the predicted class was right, against how sure the law was; one panel a law."""
    found = colours(comparison)
    figure, panels = _small_multiples(len(found), height=2.5, share=True)
    num_classes = next(iter(comparison.predictions.values())).targets.shape[1]
    left = np.floor(10 / num_classes) / 10
    for place, (panel, (name, colour)) in enumerate(zip(panels, found.items(), strict=True)):
        p = comparison.predictions[name]
        curve = calibration.reliability_curve(p.probabilities, p.targets)
        heights = 0.22 * curve.count / curve.count.max()
        bar: Keywords = {"width": 0.026, "color": "#dcdcdc", "linewidth": 0}
        panel.bar(curve.confidence, heights, **bar, label="share of points")
        panel.plot([0, 1], [0, 1], color=FAINT, linewidth=1, dashes=(4, 3), label="calibrated")
        band: Keywords = {"color": colour, "linewidth": 5, "alpha": 0.28}
        panel.vlines(curve.confidence, curve.lower, curve.upper, **band)
        panel.plot(curve.confidence, curve.frequency, color=colour, linewidth=0.8, alpha=0.35)
        panel.plot(curve.confidence, curve.frequency, "o", color=colour, markersize=4.5)
        panel.set_title(_short(name, 30), loc="left")
        panel.set(xlim=(left - 0.02, 1.02), ylim=(-0.03, 1.04))
        panel.set_yticks([0, 0.5, 1])
        panel.grid(visible=True, linewidth=0.6)
        _outer_labels(panel, place, len(panels), "Mean confidence", "Frequency correct")
    return figure


@_styled
def scores(comparison: Comparison) -> Figure:
    """Scores of all laws with 90% bootstrap intervals."""
    found = colours(comparison)
    size = (WIDTH, 1.1 + 0.3 * len(found))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(SCORES), sharey=True, squeeze=False)[0]
    rows = np.arange(len(found))
    for ax, (score, (title, unit)) in zip(axes, SCORES.items(), strict=True):
        for row, (name, colour) in zip(rows, found.items(), strict=True):
            interval = comparison.scores[name][score]
            if not np.isfinite(interval.value):
                ax.text(
                    0.5, row, "∞", color=colour, transform=ax.get_yaxis_transform(), va="center"
                )
                continue
            ends = [e for e in (interval.lower, interval.upper) if np.isfinite(e)]
            if len(ends) == 2:
                ax.hlines(row, *ends, color=colour, linewidth=2.4, alpha=0.4)
            ax.plot(interval.value, row, "o", color=colour, markersize=5.5)
        ax.set_title(title, loc="left")
        ax.set_xlabel(unit)
        ax.grid(axis="x", linewidth=0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.locator_params(axis="x", nbins=4)
        if score == "accuracy":
            left, right = ax.get_xlim()
            ax.set_xlim(min(left, 0.9), min(right, 1.01))
    axes[0].set_yticks(rows, [_short(name) for name in found])
    axes[0].set_ylim(len(found) - 0.5, -0.5)
    return figure


# --- uncertainty ----------------------------------------------------------------------------------


@_styled
def uncertainty(comparison: Comparison) -> Figure:
    """Mean aleatoric and epistemic uncertainty of the test points, stacked to the total."""
    found = colours(comparison)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.32 * len(found)), layout="constrained")
    ax = figure.subplots()
    longest = max(parts["total"] for parts in comparison.uncertainty.values())
    for row, (name, colour) in enumerate(found.items()):
        parts = comparison.uncertainty[name]
        ax.barh(row, parts["aleatoric"], 0.6, color=_tint(colour, 0.35), linewidth=0)
        ax.barh(row, parts["epistemic"], 0.6, parts["aleatoric"], color=colour, linewidth=0)
        label = (
            f"{parts['epistemic']:.2g}" if comparison.predictions[name].logits is not None else "–"
        )
        ax.text(parts["total"] + 0.01 * longest, row, label, va="center", color=INK, fontsize=8.5)
    ax.set_yticks(range(len(found)), [_short(name) for name in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlim(0, 1.1 * max(longest, 1e-12))
    ax.set_xlabel("Mean entropy of the predicted class (nats)")
    ax.grid(axis="x", linewidth=0.6)
    ax.tick_params(axis="y", length=0)
    keys = [
        Patch(
            color=_tint(FAINT, 0.4), linewidth=0, label="aleatoric: left if the function were known"
        ),
        Patch(
            color=FAINT, linewidth=0, label="epistemic: due to not knowing the function (number)"
        ),
    ]
    place = {"bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2, "ncols": 2}
    ax.legend(handles=keys, loc="lower left", **place)
    return figure


@_styled
def logit_spread(comparison: Comparison) -> Figure:
    """Standard deviation of each centred logit, against the reference's; one panel a law.

    Raises:
        ConfigurationError: no law but the reference has logits that vary.
    """
    reference = _spread(comparison.predictions[comparison.reference])
    spreads = {
        name: _spread(p)
        for name, p in comparison.predictions.items()
        if name != comparison.reference
    }
    shown = {name: s for name, s in spreads.items() if s is not None}
    if reference is None or not shown:
        raise ConfigurationError(
            "the spread of logits is compared with the reference's: at least two laws, the reference "
            "among them, must have logits that vary"
        )
    found = colours(comparison)
    figure, panels = _small_multiples(len(shown), height=3.1, share=True)
    values = np.concatenate([reference.ravel(), *(s.ravel() for s in shown.values())])
    positive = values[values > 0]
    low, high = positive.min() / 1.5, positive.max() * 1.5
    x = reference.ravel()
    for place, (panel, (name, spread)) in enumerate(zip(panels, shown.items(), strict=True)):
        y = spread.ravel()
        both = (x > 0) & (y > 0)
        style: Keywords = {"s": 16, "color": found[name], "alpha": 0.55, "linewidths": 0}
        panel.scatter(x[both], y[both], **style, rasterized=len(x) > 1000)
        panel.plot([low, high], [low, high], color=FAINT, linewidth=1, dashes=(4, 3))
        panel.set(xscale="log", yscale="log", xlim=(x[x > 0].min() / 1.3, x.max() * 1.3))
        panel.set_ylim(low, high)
        for axis in (panel.xaxis, panel.yaxis):
            start, end = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if end < 30 * start else (1,)))
            axis.set_major_formatter(_plain_number)
        panel.minorticks_off()
        panel.grid(visible=True, linewidth=0.6)
        panel.set_title(_short(name, 30), loc="left")
        note: Keywords = {"transform": panel.transAxes, "fontsize": 8.5, "color": FAINT}
        panel.text(0.97, 0.03, "more confident", ha="right", **note)
        panel.text(0.03, 0.97, "less confident", va="top", **note)
        label = f"{_short(comparison.reference, 20)}: sd of logit"
        _outer_labels(panel, place, len(panels), label, "Law: sd of logit")
    return figure


def _spread(predictions: Predictions) -> Float[np.ndarray, "n outputs"] | None:
    """Standard deviation over draws of the centred logits; None for points and baselines."""
    if predictions.logits is None:
        return None
    logits = predictions.centred_logits
    spread = logits.std(axis=0)
    return spread if spread.max() > 1e-9 * max(1.0, float(np.abs(logits).max())) else None


def _plain_number(value: float, _: object = None) -> str:
    return f"{value:g}"


# --- the plane ------------------------------------------------------------------------------------


@_styled
def surfaces(comparison: Comparison) -> Figure:
    """Predicted class over the plane, and below it where the law lacks knowledge; a column a law.

    Raises:
        ConfigurationError: the comparison has no surfaces: the data do not have two features.
    """
    planes = {n: comparison.surfaces[n] for n in comparison.predictions if n in comparison.surfaces}
    if not planes:
        raise ConfigurationError("a picture of the plane needs data of two features")
    names = [str(n) for n in next(iter(comparison.predictions.values())).class_names]
    width = max(WIDTH, 2.0 * len(planes) + 1) if len(planes) > 2 else 3.2 * len(planes) + 1.2
    figure = Figure(figsize=(width, 5.0 if len(planes) > 2 else 6.4), layout="constrained")
    axes = figure.subplots(2, len(planes), sharex=True, sharey=True, squeeze=False)
    top = max(float(plane.epistemic.max()) for plane in planes.values())
    num_classes = next(iter(planes.values())).probabilities.shape[2]
    names = names or [str(k) for k in range(num_classes)]
    for column, (name, plane) in enumerate(planes.items()):
        upper, lower = axes[:, column]
        extent = (plane.x[0], plane.x[-1], plane.y[0], plane.y[-1])
        image: Keywords = {
            "extent": extent,
            "origin": "lower",
            "aspect": "auto",
            "interpolation": "bilinear",
        }
        upper.imshow(_class_colours(plane.probabilities), **image)
        _boundaries(upper, plane)
        range_: Keywords = {"vmin": 0.0, "vmax": top if top > 0 else np.log(num_classes)}
        epistemic = lower.imshow(plane.epistemic, cmap=_EPISTEMIC, **range_, **image)
        for ax in (upper, lower):
            _training_points(ax, plane)
            ax.locator_params(nbins=4)
            ax.set(xlim=extent[:2], ylim=extent[2:])
        upper.set_title(_short(name, 24), loc="left")
        lower.set_xlabel("Feature 1")
    axes[0, 0].set_ylabel("Predicted class\nFeature 2")
    axes[1, 0].set_ylabel("Epistemic uncertainty\nFeature 2")
    bar: Keywords = {"aspect": 24, "pad": 0.015}
    if num_classes == 2:
        scale = ScalarMappable(Normalize(0, 1), _two_classes())
        label = f"Probability of class {_short(names[1], 14)}"
        figure.colorbar(scale, ax=list(axes[0]), label=label, **bar).outline.set_visible(False)
    else:
        keys = [
            Patch(color=_class_colour(k), label=_short(n, 20)) for k, n in enumerate(names[:20])
        ]
        figure.legend(handles=keys, loc="outside upper left", ncols=min(6, len(keys)))
    colour_bar = figure.colorbar(
        epistemic, ax=list(axes[1]), label="Mutual information (nats)", **bar
    )
    colour_bar.outline.set_visible(False)
    return figure


_EPISTEMIC = LinearSegmentedColormap.from_list(
    "epistemic", ("#fbfbfd", "#c9b8dc", "#8a5fa8", "#3f1a5e")
)


def _tint(colour: str, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white, which hides grid lines as transparency would not."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _class_colour(k: int) -> str:
    return CLASS_COLOURS[k % len(CLASS_COLOURS)]


def _two_classes() -> LinearSegmentedColormap:
    ends = [_tint(_class_colour(k), STRENGTH) for k in (0, 1)]
    return LinearSegmentedColormap.from_list("two classes", (ends[0], (1, 1, 1), ends[1]))


def _class_colours(probabilities: Float[np.ndarray, "h w classes"]) -> Float[np.ndarray, "h w 3"]:
    """Colour of the likeliest class, mixed with white the less likely it is."""
    num_classes = probabilities.shape[2]
    palette = np.array([to_rgb(_class_colour(k)) for k in range(num_classes)])
    sure = np.clip((probabilities.max(axis=2) - 1 / num_classes) / (1 - 1 / num_classes), 0, 1)
    return 1 - STRENGTH * sure[..., None] * (1 - palette[probabilities.argmax(axis=2)])


def _boundaries(ax: Axes, plane: Surface) -> None:
    """Where the likeliest class changes."""
    p = plane.probabilities
    num_classes = p.shape[2]
    for k in range(1 if num_classes == 2 else 0, num_classes):
        lead = p[..., k] - np.delete(p, k, axis=2).max(axis=2)
        if lead.min() < 0 < lead.max():
            ax.contour(plane.x, plane.y, lead, levels=[0.0], colors=INK, linewidths=1.1)


def _training_points(ax: Axes, plane: Surface) -> None:
    fill = [_class_colour(int(k)) for k in plane.labels]
    style: Keywords = {"c": fill, "s": 11, "edgecolors": "white", "linewidths": 0.5}
    ax.scatter(*plane.features.T, rasterized=len(fill) > 2000, **style)


# --- layout ---------------------------------------------------------------------------------------


def _small_multiples(count: int, *, height: float, share: bool) -> tuple[Figure, list[Axes]]:
    columns = _columns(count)
    rows = -(-count // columns)
    # Few panels stay small, instead of filling the width.
    width = WIDTH if columns == 4 else 0.6 + 3.0 * columns
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    return figure, list(grid[:count])


def _columns(count: int) -> int:
    """At most four, and rows as even as they can be."""
    rows = -(-count // 4)
    return -(-count // rows)


def _outer_labels(panel: Axes, place: int, count: int, x: str, y: str) -> None:
    """Labels on the left and at the bottom of the small multiples, ticks likewise."""
    columns = _columns(count)
    panel.tick_params(length=2.5)
    if place + columns >= count:
        panel.set_xlabel(x)
        panel.tick_params(labelbottom=True)
    if place % columns == 0:
        panel.set_ylabel(y)


def _short(name: object, most: int = 26) -> str:
    text = " ".join(str(name).split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


@_styled
def calibration_ranks(ranks: Mapping[str, Ranks]) -> Figure:
    """ECDF of the simulation-based calibration ranks less that of uniform ones, with the 95% band; one
    panel a law, a thin line a logit, a thick one the joint log likelihood.

    Of a law that is too narrow the curve is above zero on the left and below on the right; of one too
    wide the reverse.

    Args:
        ranks: law → ranks, as `checks.simulation_based_calibration` gives them.
    """
    figure, panels = _small_multiples(len(ranks), height=3.0, share=True)
    for place, (panel, (name, found)) in enumerate(zip(panels, ranks.items(), strict=True)):
        colour = LAW_COLOURS[place % len(LAW_COLOURS)]
        band = found.band()
        x = band.points
        panel.fill_between(x, band.lower - x, band.upper - x, color="#dcdcdc", linewidth=0)
        panel.axhline(0, color=FAINT, linewidth=1, dashes=(4, 3))
        for curve, quantity in zip((found.ecdf(x) - x[:, None]).T, found.names, strict=True):
            joint = quantity == found.names[-1]
            style: Keywords = {"linewidth": 1.8} if joint else {"linewidth": 0.9, "alpha": 0.55}
            panel.step(x, curve, where="post", color=INK if joint else colour, **style)
        outside = int((~found.uniform()).sum())
        note: Keywords = {"transform": panel.transAxes, "fontsize": 8.5, "color": FAINT}
        panel.text(
            0.97, 0.97, f"{outside} of {len(found.names)} outside", ha="right", va="top", **note
        )
        panel.set_title(_short(name, 30), loc="left")
        panel.set(xlim=(0, 1))
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        _outer_labels(
            panel, place, len(panels), "Fractional rank of the truth", "ECDF less uniform"
        )
    keys = [
        Patch(color="#dcdcdc", linewidth=0, label="95% of uniform ranks"),
        Line2D([], [], color=FAINT, linewidth=0.9, label="a logit (coloured)"),
        Line2D([], [], color=INK, linewidth=1.8, label="joint log likelihood"),
    ]
    figure.legend(handles=keys, loc="outside upper left", ncols=3)
    return figure


__all__ = [
    "calibration_ranks",
    "colours",
    "logit_spread",
    "reliability",
    "scores",
    "surfaces",
    "uncertainty",
]
