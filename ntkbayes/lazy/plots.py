"""The figure of a study of the lazy regime, in the style of `ntkbayes.figures`."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from ntkbayes.figures.style import FAINT, INK, LAW_COLOURS, WIDTH, Keywords, own_style
from ntkbayes.files import write_atomically
from ntkbayes.lazy.result import LazyResult
from ntkbayes.lazy.trajectory import Trajectory
from ntkbayes.lazy.verdict import LEVEL, PowerLaw, Regime, Verdict
from ntkbayes.scores.intervals import Over, meaning

_MARKERS = "osD^vP"
_AT_THE_PEAK: Keywords = {"markerfacecolor": "none", "linestyle": (0, (3, 2))}


def lazy(result: LazyResult) -> Figure:
    """Above: drift against training time, a panel per regime, a colour per width, thin lines seeds.
    Below: drift and gap against width, at the final time (filled, solid) and at their peak (open,
    dashed), with fitted power laws."""
    with own_style():
        figure = Figure(figsize=(WIDTH, 7.4), layout="constrained")
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.15))[:, 0]
        verdicts = result.verdicts
        _against_time(above, result.trajectories, verdicts)
        _against_width(below, result.trajectories, verdicts)
        figure.draw_without_rendering()  # ticks are made when first drawn, in this style
        return figure


def write(result: LazyResult, folder: Path) -> None:
    """lazy.png and lazy.svg.

    Raises:
        StorageError: the folder cannot be written to.
    """
    figure = lazy(result)
    for kind in ("png", "svg"):
        image = io.BytesIO()
        with own_style():
            figure.savefig(image, format=kind, dpi=160)
        write_atomically(folder / f"lazy.{kind}", image.getvalue())


def _against_time(
    figure: Any,
    trajectories: Mapping[Regime, Mapping[int, Trajectory]],
    verdicts: tuple[Verdict, ...],
) -> None:
    panels = figure.subplots(1, len(trajectories), sharex=True, sharey=True, squeeze=False)[0]
    for panel, by_width, verdict in zip(panels, trajectories.values(), verdicts, strict=True):
        for colour, (_, t) in zip(_shades(len(by_width)), by_width.items(), strict=True):
            panel.plot(t.time, t.drift_train.T, color=colour, linewidth=0.6, alpha=0.45)
            mean = np.exp(np.log(t.drift_train).mean(axis=0))
            panel.plot(t.time, mean, color=colour, linewidth=1.8)
        _logarithmic(panel)
        panel.set_title(f"{str(verdict.regime).replace(', ', '\n')}\n{verdict.finding}", loc="left")
        panel.set_xlabel("Training time η · steps")
    panels[0].set_ylabel("Drift ‖Θ(t) − Θ(0)‖ / ‖Θ(0)‖")
    widths = list(next(iter(trajectories.values())))
    keys = [
        Line2D([], [], color=colour, linewidth=1.8, label=f"width {width}")
        for colour, width in zip(_shades(len(widths)), widths, strict=True)
    ]
    keys.append(Line2D([], [], color=FAINT, linewidth=0.6, label="single seeds"))
    figure.legend(handles=keys, loc="outside upper left", ncols=min(7, len(keys)))


def _against_width(
    figure: Any,
    trajectories: Mapping[Regime, Mapping[int, Trajectory]],
    verdicts: tuple[Verdict, ...],
) -> None:
    panels = figure.subplots(1, 2, sharex=True)
    for place, (by_width, verdict) in enumerate(zip(trajectories.values(), verdicts, strict=True)):
        look: Keywords = {
            "color": LAW_COLOURS[place % len(LAW_COLOURS)],
            "marker": _MARKERS[place % len(_MARKERS)],
        }
        for panel, name, laws in (
            (panels[0], "drift_train", (verdict.drift, verdict.peak_drift)),
            (panels[1], "gap_test", (verdict.gap, verdict.peak_gap)),
        ):
            series = {width: getattr(t, name) for width, t in by_width.items()}
            end = {width: values[:, -1] for width, values in series.items()}
            peak = {width: values.max(axis=1) for width, values in series.items()}
            _power_law(panel, peak, laws[1], "  at its peak", look | _AT_THE_PEAK)
            _power_law(panel, end, laws[0], str(verdict.regime), look)
    panels[0].set_ylabel("Drift of the NTK")
    panels[1].set_ylabel("Gap to the linearisation\n(RMS logit of test points)")
    widths = list(next(iter(trajectories.values())))
    for panel in panels:
        _logarithmic(panel)
        panel.minorticks_off()
        panel.set_xticks(widths, [str(width) for width in widths])
        panel.set_xlabel("Width (hidden units)")
        title = f"Exponent of the width [{meaning(Over.INITIALISATIONS, LEVEL)}]"
        handles, labels = panel.get_legend_handles_labels()
        order = [place + step for place in range(0, len(labels), 2) for step in (1, 0)]
        # Below the panel: the lines fill it.
        panel.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            title=title,
        )


def _power_law(
    panel: Axes, by_width: Mapping[int, np.ndarray], law: PowerLaw, name: str, look: Keywords
) -> None:
    widths = np.array(list(by_width), float)
    marks: Keywords = {**look, "linestyle": "", "markersize": 4.5}
    for width, values in by_width.items():
        panel.plot(np.full(len(values), width), values, **marks)
    numbers = f"{law.exponent:.2f} [{law.lower:.2f}, {law.upper:.2f}]".replace("-", "−")
    line: Keywords = {"linewidth": 1.3, "linestyle": look.get("linestyle", "-")}
    panel.plot(widths, law(widths), color=look["color"], **line)
    panel.plot([], [], markersize=4.5, label=f"{name}: {numbers}", **{**look, **line})


def _logarithmic(panel: Axes) -> None:
    panel.set(xscale="log", yscale="log")
    for axis in (panel.xaxis, panel.yaxis):
        # Few decades have ticks at 2 and 5 too; all are plain numbers, since STYLE parses no maths.
        start, end = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if end < 30 * start else (1,)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    panel.grid(visible=True, linewidth=0.6)


def _shades(count: int) -> list[str]:
    """From light to dark: wider networks are darker."""
    ramp = matplotlib.colors.LinearSegmentedColormap.from_list(
        "widths", ("#9ecae1", "#0072B2", INK)
    )
    places = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    return [matplotlib.colors.to_hex(ramp(place)) for place in places]


__all__ = ["lazy", "write"]
