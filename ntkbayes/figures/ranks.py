"""Ranks of simulation-based calibration."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ntkbayes.checks import Ranks
from ntkbayes.figures.style import (
    FAINT,
    INK,
    LAW_COLOURS,
    Keywords,
    outer_labels,
    short,
    small_multiples,
    styled,
)


@styled
def calibration_ranks(ranks: Mapping[str, Ranks]) -> Figure:
    """ECDF of simulation-based calibration ranks minus that of uniform ranks, with the 95% band; one
    panel per law, with a thin line per logit and a thick one for the joint log likelihood.

    For a law that is too narrow the curve is above zero on the left and below on the right; for one that
    is too wide, the reverse.

    Args:
        ranks: law → ranks, as `checks.simulation_based_calibration` gives them.
    """
    figure, panels = small_multiples(len(ranks), height=3.0, share=True)
    for place, (panel, (name, law_ranks)) in enumerate(zip(panels, ranks.items(), strict=True)):
        colour = LAW_COLOURS[place % len(LAW_COLOURS)]
        band = law_ranks.band()
        x = band.points
        panel.fill_between(x, band.lower - x, band.upper - x, color="#dcdcdc", linewidth=0)
        panel.axhline(0, color=FAINT, linewidth=1, dashes=(4, 3))
        for curve, quantity in zip(
            (law_ranks.ecdf(x) - x[:, None]).T, law_ranks.names, strict=True
        ):
            joint = quantity == law_ranks.names[-1]
            style: Keywords = {"linewidth": 1.8} if joint else {"linewidth": 0.9, "alpha": 0.55}
            panel.step(x, curve, where="post", color=INK if joint else colour, **style)
        outside = int((~law_ranks.uniform()).sum())
        note: Keywords = {"transform": panel.transAxes, "fontsize": 8.5, "color": FAINT}
        panel.text(
            0.97, 0.97, f"{outside} of {len(law_ranks.names)} outside", ha="right", va="top", **note
        )
        panel.set_title(short(name, 30), loc="left")
        panel.set(xlim=(0, 1))
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        outer_labels(panel, place, len(panels), "Fractional rank of the truth", "ECDF less uniform")
    keys = [
        Patch(color="#dcdcdc", linewidth=0, label="95% of uniform ranks"),
        Line2D([], [], color=FAINT, linewidth=0.9, label="a logit (coloured)"),
        Line2D([], [], color=INK, linewidth=1.8, label="joint log likelihood"),
    ]
    figure.legend(handles=keys, loc="outside upper left", ncols=3)
    return figure
