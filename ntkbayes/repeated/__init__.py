"""Comparisons over several splits of a data set, and over several data sets."""

from ntkbayes.repeated.data_sets import (
    DataSetComparison,
    PairOverDataSets,
    compare_over_data_sets,
)
from ntkbayes.repeated.splits import ROPE, Preference, SplitComparison

__all__ = [
    "ROPE",
    "DataSetComparison",
    "PairOverDataSets",
    "Preference",
    "SplitComparison",
    "compare_over_data_sets",
]
