"""The whole page, and its file."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ntkbayes.app.report import sections
from ntkbayes.app.report.html import whole
from ntkbayes.app.report.left_out import leave_one_out
from ntkbayes.comparison import Comparison
from ntkbayes.errors import ConfigurationError
from ntkbayes.storage import LawFolder


def write(comparison: Comparison, folder: str | os.PathLike) -> Path:
    """Write `report.html` into a folder. Returns its path.

    Raises:
        FolderInUseError: another run has the folder.
        StorageError: the folder cannot be written to.
    """
    with LawFolder(folder) as into:
        into.finish({"report.html": page(comparison, into.path)})
    return into.path / "report.html"


def require_drawing() -> None:
    """Import what draws the figures, which a report needs at its end.

    Raises:
        ConfigurationError: matplotlib cannot be imported as this process is set up.
    """
    try:
        from ntkbayes import figures  # noqa: F401
    except Exception as error:  # a wrong MPLBACKEND, no folder for its cache, a broken matplotlibrc
        raise ConfigurationError(
            f"matplotlib, which draws the report, does not start: {error}; check MPLBACKEND, "
            "MPLCONFIGDIR or the matplotlibrc"
        ) from error


def page(comparison: Comparison, folder: str | os.PathLike) -> str:
    """The report as HTML; `folder` is where it says that the comparison can be loaded from."""
    with np.errstate(invalid="ignore"):
        # Against a point, or where a score is infinite, errors are undefined.
        _ = comparison.distances, comparison.elpd_difference
    parts = (
        sections.in_short(comparison),
        sections.laws(comparison),
        sections.scores(comparison),
        sections.calibration(comparison),
        sections.uncertainty(comparison),
        sections.distances(comparison),
        sections.anatomy(comparison),
        sections.plane(comparison),
        leave_one_out(comparison),
        sections.diagnostics(comparison),
        sections.settings(comparison, folder),
    )
    title = str(comparison.settings.get("data", "Comparison"))
    return whole_page(title, "laws compared", sections.lead(comparison), parts, comparison.settings)


def whole_page(
    title: str, kind: str, lead: str, parts: Iterable[str], settings: Mapping[str, object]
) -> str:
    """Sections put together, but for empty ones."""
    versions = settings.get("versions")
    return whole(
        "page.html",
        version=versions.get("ntkbayes", "") if isinstance(versions, Mapping) else "",
        title=title,
        kind=kind,
        kicker=kind[0].upper() + kind[1:],
        lead=lead,
        parts=[part for part in parts if part],
    )
