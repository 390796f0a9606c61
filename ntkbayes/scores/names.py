"""What scores are called in tables, figures and sentences, and which values of them are good."""

from dataclasses import dataclass

_TARGET = "unit of the target"
LOWER, HIGHER = "lower is better", "higher is better"


@dataclass(frozen=True)
class ScoreName:
    """How a score is shown.

    Attributes:
        short: at the head of a column.
        title: of a panel.
        unit: of its values; "" if they have none.
        goal: which values are good: `LOWER`, `HIGHER`, or the nominal value itself.
    """

    short: str
    title: str
    unit: str = ""
    goal: str | float = LOWER

    @property
    def short_with_unit(self) -> str:
        """As in "NLL (nats)"."""
        return f"{self.short} ({self.unit})" if self.unit == "nats" else self.short

    @property
    def axis(self) -> str:
        """What to write below a panel."""
        per_point = {"nats": "nats per point"}.get(self.unit, self.unit)
        goal = f"{self.goal:g} is right" if isinstance(self.goal, float) else self.goal
        return f"{per_point}, {goal}" if per_point else str(goal)

    @property
    def head(self) -> str:
        """At the head of a column of a report."""
        return self.short[0].upper() + self.short[1:]

    @property
    def is_in_unit_of_target(self) -> bool:
        """Whether its values grow with the targets'."""
        return self.unit == _TARGET

    def badness(self, value: float) -> float:
        """A number that is least for the best value."""
        if isinstance(self.goal, float):
            return abs(value - self.goal)
        return -value if self.goal == HIGHER else value


NAMES = {
    "accuracy": ScoreName("accuracy", "Accuracy", goal=HIGHER),
    "nll": ScoreName("NLL", "Negative log likelihood", "nats"),
    "brier": ScoreName("Brier", "Brier score"),
    "ece": ScoreName("ECE", "Calibration error (ECE)"),
    "ece_equal_mass": ScoreName("ECE, equal mass", "Calibration error, bins of equal mass"),
    "ece_classwise": ScoreName("ECE, class‑wise", "Calibration error, class-wise"),
    "smooth_ece": ScoreName("smooth ECE", "Smooth calibration error"),
    "rps": ScoreName("RPS", "Ranked probability score"),
    "crps": ScoreName("CRPS", "Continuous ranked probability score", _TARGET),
    "rmse": ScoreName("RMSE", "Error of the mean", _TARGET),
    "mae": ScoreName("MAE", "Error of the median", _TARGET),
    "coverage_50": ScoreName("50% coverage", "Coverage of 50% intervals", goal=0.5),
    "coverage_90": ScoreName("90% coverage", "Coverage of 90% intervals", goal=0.9),
    "width_90": ScoreName("90% width", "Width of 90% intervals", _TARGET),
    "pit_error": ScoreName("PIT error", "Distance of the PIT from uniform"),
}
"""By the name in `Comparison.scores`."""


def called(score: str) -> ScoreName:
    """How a score of that name is shown; one that is not known, by its name."""
    return NAMES.get(score, ScoreName(score, score))
