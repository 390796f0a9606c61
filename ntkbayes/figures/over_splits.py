"""Scores on several splits."""

import numpy as np
from matplotlib.figure import Figure

from ntkbayes.figures.style import LAW_COLOURS, REFERENCE_COLOUR, WIDTH, short, styled
from ntkbayes.repeated import SplitComparison


@styled
def split_scores(comparison: SplitComparison) -> Figure:
    """NLL of every law on every split, with its mean and the mean's 90% interval over splits."""
    figure = Figure(figsize=(WIDTH, 1.1 + 0.34 * len(comparison.scores)), layout="constrained")
    ax = figure.subplots()
    score = "nll" if "nll" in comparison.score_names else comparison.score_names[0]
    for row, (law, scores) in enumerate(comparison.scores.items()):
        is_reference = law == comparison.reference
        colour = REFERENCE_COLOUR if is_reference else LAW_COLOURS[row % len(LAW_COLOURS)]
        mean = comparison.means[law][score]
        values = scores[score][np.isfinite(scores[score])]
        ax.plot(values, np.full(len(values), row), "o", color=colour, markersize=3, alpha=0.45)
        if np.isfinite(mean.value):
            ax.plot(mean.value, row, "o", color=colour, markersize=6)
        if np.isfinite(mean.error):
            ax.hlines(row, mean.lower, mean.upper, color=colour, linewidth=2.4, alpha=0.4)
    ax.set_yticks(range(len(comparison.scores)), [short(law) for law in comparison.scores])
    ax.set_ylim(len(comparison.scores) - 0.5, -0.5)
    ax.set_xlabel("Negative log likelihood (nats per point)" if score == "nll" else score)
    ax.grid(axis="x", linewidth=0.6)
    ax.tick_params(axis="y", length=0)
    return figure
