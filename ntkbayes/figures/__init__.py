"""Figures of a comparison. Every function returns a new `matplotlib.figure.Figure` without touching
matplotlib's global state: save it with `figure.savefig`, or let a notebook show it.

A law has the same colour in all figures: the reference is black, other laws are coloured, baselines
grey. The palette is Okabe and Ito's, safe for colour-blind readers.
"""

from ntkbayes.figures.anatomy import anatomy
from ntkbayes.figures.calibration import coverage, pit, reliability, scores
from ntkbayes.figures.match import match_curve
from ntkbayes.figures.over_splits import split_scores
from ntkbayes.figures.plane import surfaces
from ntkbayes.figures.ranks import calibration_ranks
from ntkbayes.figures.spread import logit_spread, uncertainty
from ntkbayes.figures.style import (
    CLASS_COLOURS,
    FAINT,
    LAW_COLOURS,
    REFERENCE_COLOUR,
    STYLE,
    colours,
    own_style,
)

__all__ = [
    "CLASS_COLOURS",
    "FAINT",
    "LAW_COLOURS",
    "REFERENCE_COLOUR",
    "STYLE",
    "anatomy",
    "calibration_ranks",
    "colours",
    "coverage",
    "logit_spread",
    "match_curve",
    "own_style",
    "pit",
    "reliability",
    "scores",
    "split_scores",
    "surfaces",
    "uncertainty",
]
