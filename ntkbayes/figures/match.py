"""The curve of a match."""

import numpy as np
from matplotlib.figure import Figure

from ntkbayes.figures.style import FAINT, INK, LAW_COLOURS, STYLE, styled
from ntkbayes.matching import Match


@styled
def match_curve(found: Match) -> Figure:
    """How far two laws are from each other at each value of the knob, with two standard errors, and the
    value at which they agree best, with its interval.

    Args:
        found: what `nb.match` returned.
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    panel = figure.subplots()
    values = np.asarray(found.values)
    scores, errors = (
        np.asarray([getattr(s, part) for s in found.scores]) for part in ("value", "error")
    )
    colour, is_ratio = LAW_COLOURS[0], found.by == "variance ratio"
    panel.axvspan(found.lower, found.upper, color="#e4e4e4", linewidth=0)
    panel.axvline(found.value, color=INK, linewidth=1.2)
    if is_ratio:
        panel.axhline(1, color=FAINT, linewidth=1, dashes=(4, 3))
        panel.set_yscale("log")
    lower, upper = scores - 2 * errors, scores + 2 * errors
    if is_ratio:
        lower = np.maximum(lower, scores / 10)
    panel.fill_between(values, lower, upper, color=colour, alpha=0.2, linewidth=0)
    panel.plot(values, scores, color=colour, marker="o", markersize=4, linewidth=1.4)
    panel.set_xscale("log")
    for axis in (panel.xaxis, panel.yaxis) if is_ratio else (panel.xaxis,):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.grid(visible=True, linewidth=0.6)
    panel.minorticks_off()
    panel.set_xlabel(found.over[0].upper() + found.over[1:])
    panel.set_ylabel("Law’s variance / posterior’s" if is_ratio else "Energy coefficient")
    told = f"{found.value:.3g} ({found.lower:.3g} to {found.upper:.3g})"
    panel.set_title(f"Best at {told}", loc="left", fontsize=STYLE["axes.titlesize"])
    return figure
