"""Comparisons over several splits of a data set, and over several data sets."""

from ntkbayes.repeated.splits import ROPE, Preference, SplitComparison

__all__ = ["ROPE", "Preference", "SplitComparison"]
