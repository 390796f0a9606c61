"""Data sets: validated, split, standardised; by name, from a table, or from arrays."""

from ntkbayes.datasets.dataset import Dataset, Scaling
from ntkbayes.datasets.sources import NAMES, load, read_table

__all__ = ["NAMES", "Dataset", "Scaling", "load", "read_table"]
