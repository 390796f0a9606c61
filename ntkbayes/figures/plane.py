"""Predictions over the plane, for data with two features."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ntkbayes.comparison import Comparison
from ntkbayes.errors import ConfigurationError
from ntkbayes.figures.style import (
    CLASS_COLOURS,
    INK,
    STRENGTH,
    WIDTH,
    Keywords,
    short,
    styled,
    tint,
)
from ntkbayes.predictions import Surface


@styled
def surfaces(comparison: Comparison) -> Figure:
    """Predicted class over the plane, and below it the epistemic uncertainty; one column per law.

    Raises:
        ConfigurationError: the comparison has no surfaces, as the data do not have two features.
    """
    planes = {n: comparison.surfaces[n] for n in comparison.predictions if n in comparison.surfaces}
    if not planes:
        raise ConfigurationError("a picture of the plane needs data with two features")
    names = [str(n) for n in next(iter(comparison.of_classes.values())).class_names]
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
        upper.set_title(short(name, 24), loc="left")
        lower.set_xlabel("Feature 1")
    axes[0, 0].set_ylabel("Predicted class\nFeature 2")
    axes[1, 0].set_ylabel("Epistemic uncertainty\nFeature 2")
    bar: Keywords = {"aspect": 24, "pad": 0.015}
    if num_classes == 2:
        scale = ScalarMappable(Normalize(0, 1), _two_classes())
        label = f"Probability of class {short(names[1], 14)}"
        figure.colorbar(scale, ax=list(axes[0]), label=label, **bar).outline.set_visible(False)
    else:
        keys = [Patch(color=_class_colour(k), label=short(n, 20)) for k, n in enumerate(names[:20])]
        figure.legend(handles=keys, loc="outside upper left", ncols=min(6, len(keys)))
    colour_bar = figure.colorbar(
        epistemic, ax=list(axes[1]), label="Mutual information (nats)", **bar
    )
    colour_bar.outline.set_visible(False)
    return figure


_EPISTEMIC = LinearSegmentedColormap.from_list(
    "epistemic", ("#fbfbfd", "#c9b8dc", "#8a5fa8", "#3f1a5e")
)


def _class_colour(k: int) -> str:
    return CLASS_COLOURS[k % len(CLASS_COLOURS)]


def _two_classes() -> LinearSegmentedColormap:
    ends = [tint(_class_colour(k), STRENGTH) for k in (0, 1)]
    return LinearSegmentedColormap.from_list("two classes", (ends[0], (1, 1, 1), ends[1]))


def _class_colours(probabilities: Float[np.ndarray, "h w classes"]) -> Float[np.ndarray, "h w 3"]:
    """The colour of the likeliest class, mixed with more white the less likely it is."""
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
