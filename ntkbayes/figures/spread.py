"""Uncertainty of predictions, and spread of logits."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from ntkbayes.comparison import Comparison
from ntkbayes.errors import ConfigurationError
from ntkbayes.figures.style import (
    FAINT,
    INK,
    WIDTH,
    Keywords,
    colours,
    outer_labels,
    short,
    small_multiples,
    styled,
    tint,
)
from ntkbayes.predictions import Predictions


@styled
def uncertainty(comparison: Comparison) -> Figure:
    """Mean aleatoric and epistemic uncertainty over test points, stacked to the total."""
    colour_of = colours(comparison)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.32 * len(colour_of)), layout="constrained")
    ax = figure.subplots()
    longest = max(parts["total"] for parts in comparison.uncertainty.values())
    for row, (name, colour) in enumerate(colour_of.items()):
        parts = comparison.uncertainty[name]
        if np.isnan(parts["epistemic"]):  # not known under a likelihood of one's own
            ax.barh(row, parts["total"], 0.6, color=tint(colour, 0.15), linewidth=0)
            continue
        ax.barh(row, parts["aleatoric"], 0.6, color=tint(colour, 0.35), linewidth=0)
        ax.barh(row, parts["epistemic"], 0.6, parts["aleatoric"], color=colour, linewidth=0)
        label = (
            f"{parts['epistemic']:.2g}" if comparison.predictions[name].logits is not None else "–"
        )
        ax.text(parts["total"] + 0.01 * longest, row, label, va="center", color=INK, fontsize=8.5)
    ax.set_yticks(range(len(colour_of)), [short(name) for name in colour_of])
    ax.set_ylim(len(colour_of) - 0.5, -0.5)
    ax.set_xlim(0, 1.1 * max(longest, 1e-12))
    ax.set_xlabel(
        "Mean entropy of the predicted class (nats)"
        if comparison.is_of_classes
        else "Mean predictive variance (squared unit of the target)"
    )
    ax.grid(axis="x", linewidth=0.6)
    ax.tick_params(axis="y", length=0)
    keys = [
        Patch(
            color=tint(FAINT, 0.4), linewidth=0, label="aleatoric: left if the function were known"
        ),
        Patch(
            color=FAINT, linewidth=0, label="epistemic: due to not knowing the function (number)"
        ),
    ]
    place = {"bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2, "ncols": 2}
    ax.legend(handles=keys, loc="lower left", **place)
    return figure


@styled
def logit_spread(comparison: Comparison) -> Figure:
    """Standard deviation of each centred logit against the reference's; one panel per law.

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
            "the spread of logits is compared with the reference's: at least two laws, including the "
            "reference, must have logits that vary"
        )
    colour_of = colours(comparison)
    figure, panels = small_multiples(len(shown), height=3.1, share=True)
    values = np.concatenate([reference.ravel(), *(s.ravel() for s in shown.values())])
    positive = values[values > 0]
    low, high = positive.min() / 1.5, positive.max() * 1.5
    x = reference.ravel()
    for place, (panel, (name, spread)) in enumerate(zip(panels, shown.items(), strict=True)):
        y = spread.ravel()
        both = (x > 0) & (y > 0)
        style: Keywords = {"s": 16, "color": colour_of[name], "alpha": 0.55, "linewidths": 0}
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
        panel.set_title(short(name, 30), loc="left")
        note: Keywords = {"transform": panel.transAxes, "fontsize": 8.5, "color": FAINT}
        panel.text(0.97, 0.03, "more confident", ha="right", **note)
        panel.text(0.03, 0.97, "less confident", va="top", **note)
        label = f"{short(comparison.reference, 20)}: sd of logit"
        outer_labels(panel, place, len(panels), label, "Law: sd of logit")
    return figure


def _spread(predictions: Predictions) -> Float[np.ndarray, "n outputs"] | None:
    """Standard deviation of the centred logits over draws; None for point laws and baselines."""
    if predictions.logits is None:
        return None
    logits = predictions.centred_logits
    spread = logits.std(axis=0)
    return spread if spread.max() > 1e-9 * max(1.0, float(np.abs(logits).max())) else None


def _plain_number(value: float, _: object = None) -> str:
    return f"{value:g}"
