"""Checks of a model against data, of a method against its own model, and of networks against a law.

* Predictive checks: could the labels have come from the law? Prior or posterior predictive.
* Simulation-based calibration: does a method find the posterior that it claims to find?
* Tests of ensembles: are these trained networks a sample of the law, and what of other widths?
"""

from ntkbayes.checks.ensembles import LawTest, WidthTrend, follows_law, over_widths
from ntkbayes.checks.models import (
    Band,
    PredictiveCheck,
    Ranks,
    class_frequencies,
    neighbour_agreement,
    predictive_check,
    simulation_based_calibration,
)

__all__ = [
    "Band",
    "LawTest",
    "PredictiveCheck",
    "Ranks",
    "WidthTrend",
    "class_frequencies",
    "follows_law",
    "neighbour_agreement",
    "over_widths",
    "predictive_check",
    "simulation_based_calibration",
]
