"""Reliability diagrams, and scores with their intervals."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ntkbayes.comparison import Comparison
from ntkbayes.figures.style import (
    FAINT,
    WIDTH,
    Keywords,
    colours,
    outer_labels,
    short,
    small_multiples,
    styled,
    tint,
)
from ntkbayes.scores import calibration
from ntkbayes.scores.names import called


@styled
def reliability(comparison: Comparison) -> Figure:
    """Frequency of correct predictions against confidence; one panel per law."""
    predicted, colour_of = comparison.of_classes, colours(comparison)
    figure, panels = small_multiples(len(colour_of), height=2.5, share=True)
    num_classes = next(iter(predicted.values())).targets.shape[1]
    left = np.floor(10 / num_classes) / 10
    for place, (panel, (name, colour)) in enumerate(zip(panels, colour_of.items(), strict=True)):
        p = predicted[name]
        binning = calibration.EqualWidth.suited(len(p.targets))
        curve = calibration.reliability_curve(p.probabilities, p.targets, binning)
        heights = 0.22 * curve.count / curve.count.max()
        bar: Keywords = {"width": 0.026, "color": "#dcdcdc", "linewidth": 0}
        panel.bar(curve.confidence, heights, **bar, label="share of points")
        panel.plot([0, 1], [0, 1], color=FAINT, linewidth=1, dashes=(4, 3), label="calibrated")
        band: Keywords = {"color": colour, "linewidth": 5, "alpha": 0.28}
        panel.vlines(curve.confidence, curve.lower, curve.upper, **band)
        panel.plot(curve.confidence, curve.frequency, color=colour, linewidth=0.8, alpha=0.35)
        panel.plot(curve.confidence, curve.frequency, "o", color=colour, markersize=4.5)
        panel.set_title(short(name, 30), loc="left")
        panel.set(xlim=(left - 0.02, 1.02), ylim=(-0.03, 1.04))
        panel.set_yticks([0, 0.5, 1])
        panel.grid(visible=True, linewidth=0.6)
        outer_labels(panel, place, len(panels), "Mean confidence", "Frequency correct")
    return figure


@styled
def scores(comparison: Comparison) -> Figure:
    """The scores of short tables, of all laws, with 90% bootstrap intervals."""
    colour_of = colours(comparison)
    shown = next(iter(comparison.predictions.values())).headline
    order = sorted(shown, key=lambda score: score == "accuracy")  # at the right
    size = (WIDTH, 1.1 + 0.3 * len(colour_of))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(order), sharey=True, squeeze=False)[0]
    rows = np.arange(len(colour_of))
    for ax, score in zip(axes, order, strict=True):
        for row, (name, colour) in zip(rows, colour_of.items(), strict=True):
            interval = comparison.scores[name][score]
            if not np.isfinite(interval.value):
                ax.text(
                    0.5, row, "∞", color=colour, transform=ax.get_yaxis_transform(), va="center"
                )
                continue
            ends = [e for e in (interval.lower, interval.upper) if np.isfinite(e)]
            if len(ends) == 2:
                ax.hlines(row, *ends, color=colour, linewidth=2.4, alpha=0.4)
            ax.plot(interval.value, row, "o", color=colour, markersize=5.5, clip_on=False)
        ax.set_title(short(called(score).title, 30), loc="left")
        ax.set_xlabel(called(score).axis)
        if isinstance(goal := called(score).goal, float):
            ax.axvline(goal, color=FAINT, linewidth=1, dashes=(4, 3))
        ax.grid(axis="x", linewidth=0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.locator_params(axis="x", nbins=4)
        if score == "accuracy":
            left, right = ax.get_xlim()
            ax.set_xlim(min(left, 0.9), min(right, 1.01))
    axes[0].set_yticks(rows, [short(name) for name in colour_of])
    axes[0].set_ylim(len(colour_of) - 0.5, -0.5)
    return figure


@styled
def pit(comparison: Comparison) -> Figure:
    """Histograms of the probability integral transform of real targets and counts; one panel per law.

    Raises:
        ConfigurationError: the comparison is of classes.
    """
    predicted, colour_of = comparison.of_numbers, colours(comparison)
    figure, panels = small_multiples(len(colour_of), height=2.3, share=True)
    edges = np.linspace(0, 1, 11)
    for place, (panel, (name, colour)) in enumerate(zip(panels, colour_of.items(), strict=True)):
        below = predicted[name].pit.share_below(edges).reshape(-1, len(edges)).mean(axis=0)
        low, high = _band(1 / (len(edges) - 1), predicted[name].targets.size)
        panel.axhspan(10 * low, 10 * high, color="#dcdcdc", linewidth=0)
        style: Keywords = {"align": "edge", "color": tint(colour, 0.55), "linewidth": 0}
        panel.bar(edges[:-1], 10 * np.diff(below), 0.094, **style)
        panel.axhline(1, color=FAINT, linewidth=1, dashes=(4, 3))
        panel.set_title(short(name, 30), loc="left")
        panel.set(xlim=(0, 1))
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        outer_labels(panel, place, len(panels), "PIT of the target", "Density")
    return figure


@styled
def coverage(comparison: Comparison) -> Figure:
    """Coverage of the central predictive intervals less their level, over the level; a line per law.

    Raises:
        ConfigurationError: the comparison is of classes.
    """
    predicted, colour_of = comparison.of_numbers, colours(comparison)
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    ax = figure.subplots()
    levels = np.arange(1, 100) / 100
    first = next(iter(predicted.values()))
    low, high = _band(levels, first.targets.size)
    ax.fill_between(levels, low - levels, high - levels, color="#dcdcdc", linewidth=0)
    ax.axhline(0, color=FAINT, linewidth=1, dashes=(4, 3))
    for name, colour in colour_of.items():
        pits = predicted[name].pit
        inside = pits.share_below((1 + levels) / 2) - pits.share_below((1 - levels) / 2)
        share = inside.reshape(-1, len(levels)).mean(axis=0)
        ax.plot(levels, share - levels, color=colour, linewidth=1.6, label=short(name, 30))
    ax.set(xlim=(0, 1), xlabel="Level of the interval", ylabel="Coverage less level")
    ax.grid(visible=True, linewidth=0.6)
    figure.legend(loc="outside upper left", ncols=min(5, len(colour_of)))
    return figure


def _band(shares: float | Float[np.ndarray, " k"], num_points: int) -> list[Any]:
    """90% ranges of the shares of so many points, each of which is counted with that probability."""
    from scipy.stats import binom

    return [binom.ppf(end, num_points, shares) / num_points for end in (0.05, 0.95)]
