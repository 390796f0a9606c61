"""Variances along the eigenvectors of the kernel."""

import itertools

import numpy as np
from matplotlib.figure import Figure

from ntkbayes.figures.style import (
    FAINT,
    LAW_COLOURS,
    REFERENCE_COLOUR,
    Keywords,
    short,
    styled,
)
from ntkbayes.spectra import Anatomy


@styled
def anatomy(found: Anatomy) -> Figure:
    """On the left the variance of laws along groups of eigenvectors of the kernel, from the largest
    eigenvalue on, and that of the Bayesian prior; on the right each law's over the reference's, with two
    Monte Carlo errors.

    Args:
        found: what `nb.anatomy` returned.
    """
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = np.arange(len(found.sizes))
    left.plot(places, found.eigenvalues, color=FAINT, linewidth=1, dashes=(4, 3), label="prior")
    others = 0
    for name, variance in found.variances.items():
        is_reference = name == found.reference
        colour = REFERENCE_COLOUR if is_reference else LAW_COLOURS[others % len(LAW_COLOURS)]
        style: Keywords = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.4}
        left.plot(places, variance, label=short(name), **style)
        if is_reference:
            continue
        others += 1
        ratio, error = found.ratio(name)
        right.plot(places, ratio, **style)
        lower = np.maximum(ratio - 2 * error, ratio / 10)
        right.fill_between(places, lower, ratio + 2 * error, color=colour, alpha=0.2, linewidth=0)
    right.axhline(1, color=FAINT, linewidth=1, dashes=(4, 3))
    starts = np.cumsum([1, *found.sizes])
    names = [f"{a}" if b - a == 1 else f"{a}–{b - 1}" for a, b in itertools.pairwise(starts)]
    for panel, label in (
        (left, "Variance of a logit along it"),
        (right, f"Variance / that of {short(found.reference, 20)}"),
    ):
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.minorticks_off()
        panel.set_xticks(places, names, rotation=45 if len(names) > 8 else 0)
        panel.set_xlabel("Eigenvectors of the kernel, largest eigenvalue first")
        panel.set_ylabel(label)
        panel.grid(visible=True, linewidth=0.6)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=6)
    return figure
