"""Intervals, which say what they are over."""

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.9
"""Of all intervals of scores, unless said otherwise."""

COLUMN = "interval"
"""What a table calls what its intervals are: a column, or of a table of numbers alone an attribute."""


class Over(enum.StrEnum):
    """What an interval is over: what is thought of as drawn again, while all else stays as it is."""

    POINTS = "test points"
    """The laws are those of one training set."""
    SPLITS = "splits"
    """Into training and test points of one data set."""
    FITS = "fits"
    """By other keys, of the same training points, and scored on the same test points."""
    DATA_SETS = "data sets and splits"
    DRAWS = "draws"
    """The Monte Carlo error alone."""
    INITIALISATIONS = "initialisations"
    """Of real networks."""


@dataclass(frozen=True, repr=False)
class Interval:
    """A score and the ends of its interval.

    Attributes:
        value: of the score.
        lower, upper: ends of the interval; nan where there is none.
        over: what the interval is over.
        level: how often such an interval holds what it is about.
    """

    value: float
    lower: float
    upper: float
    over: Over = field(kw_only=True)
    level: float = field(default=LEVEL, kw_only=True)

    @property
    def meaning(self) -> str:
        """As in "90% over test points"."""
        return meaning(self.over, self.level)

    def __repr__(self) -> str:
        return f"{self.value:.6g} ({self.lower:.6g} to {self.upper:.6g}, {self.meaning})"


def meaning(over: Over, level: float = LEVEL) -> str:
    """As in "90% over test points"."""
    return f"{100 * level:g}% over {over}"


def with_column(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table of numbers with what its intervals are in a column: files keep no attributes."""
    return table.assign(**{COLUMN: table.attrs[COLUMN]})
