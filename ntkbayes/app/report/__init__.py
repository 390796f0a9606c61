"""The report: a comparison as one HTML file that needs nothing else, to be read or sent on.

Its sentences are computed from the numbers (`remarks`), its tables are `Comparison`'s, and its
figures are those of `figures`. What it says regardless of the numbers is in
templates/pieces.html, piece by piece.
"""

from ntkbayes.app.report import over_splits, sweep
from ntkbayes.app.report.document import page, require_drawing, write
from ntkbayes.app.report.sentences import Remark, remarks, unfinished

__all__ = [
    "Remark",
    "over_splits",
    "page",
    "remarks",
    "require_drawing",
    "sweep",
    "unfinished",
    "write",
]
