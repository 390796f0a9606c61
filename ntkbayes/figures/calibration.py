"""Reliability diagrams, and scores with their intervals."""

import numpy as np
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
)
from ntkbayes.scores import calibration

SCORES = {
    "nll": ("Negative log likelihood", "nats per point, lower is better"),
    "brier": ("Brier score", "lower is better"),
    "ece": ("Calibration error (ECE)", "lower is better"),
    "accuracy": ("Accuracy", "higher is better"),
}


@styled
def reliability(comparison: Comparison) -> Figure:
    """Frequency of correct predictions against confidence; one panel per law."""
    colour_of = colours(comparison)
    figure, panels = small_multiples(len(colour_of), height=2.5, share=True)
    num_classes = next(iter(comparison.predictions.values())).targets.shape[1]
    left = np.floor(10 / num_classes) / 10
    for place, (panel, (name, colour)) in enumerate(zip(panels, colour_of.items(), strict=True)):
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
        panel.set_title(short(name, 30), loc="left")
        panel.set(xlim=(left - 0.02, 1.02), ylim=(-0.03, 1.04))
        panel.set_yticks([0, 0.5, 1])
        panel.grid(visible=True, linewidth=0.6)
        outer_labels(panel, place, len(panels), "Mean confidence", "Frequency correct")
    return figure


@styled
def scores(comparison: Comparison) -> Figure:
    """Scores of all laws with 90% bootstrap intervals."""
    colour_of = colours(comparison)
    size = (WIDTH, 1.1 + 0.3 * len(colour_of))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(SCORES), sharey=True, squeeze=False)[0]
    rows = np.arange(len(colour_of))
    for ax, (score, (title, unit)) in zip(axes, SCORES.items(), strict=True):
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
    axes[0].set_yticks(rows, [short(name) for name in colour_of])
    axes[0].set_ylim(len(colour_of) - 0.5, -0.5)
    return figure
