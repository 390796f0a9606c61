"""Data sets: validated, split, standardised, corrupted; by name, from a table, or from arrays."""

from ntkbayes.datasets.columns import Columns, Scaling, read_inputs
from ntkbayes.datasets.corruptions import CORRUPTIONS, corrupt
from ntkbayes.datasets.dataset import Dataset
from ntkbayes.datasets.images import read_images
from ntkbayes.datasets.new_rows import NewRows, read_rows
from ntkbayes.datasets.openml import read_openml
from ntkbayes.datasets.preparation import IMPUTATIONS, Preparation
from ntkbayes.datasets.sources import NAMES, load
from ntkbayes.datasets.tables import from_frame, read_table

__all__ = [
    "CORRUPTIONS",
    "IMPUTATIONS",
    "NAMES",
    "Columns",
    "Dataset",
    "NewRows",
    "Preparation",
    "Scaling",
    "corrupt",
    "from_frame",
    "load",
    "read_images",
    "read_inputs",
    "read_openml",
    "read_rows",
    "read_table",
]
