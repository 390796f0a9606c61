"""Data sets: validated, split, standardised, corrupted; by name, from a table, or from arrays."""

from ntkbayes.datasets.columns import Columns, Scaling, read_inputs
from ntkbayes.datasets.corruptions import CORRUPTIONS, corrupt
from ntkbayes.datasets.dataset import Dataset
from ntkbayes.datasets.sources import NAMES, load
from ntkbayes.datasets.tables import read_table

__all__ = [
    "CORRUPTIONS",
    "NAMES",
    "Columns",
    "Dataset",
    "Scaling",
    "corrupt",
    "load",
    "read_inputs",
    "read_table",
]
