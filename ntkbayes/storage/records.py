"""What a finished comparison came to, without its laws: the table, and what it was made of."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ntkbayes.errors import StorageError
from ntkbayes.files import read_json
from ntkbayes.scores.intervals import COLUMN
from ntkbayes.storage.laws import SUMMARY


class ComparisonRecord(NamedTuple):
    """Of one comparison.

    Attributes:
        rows: the numbers of its table, by law, as they were written.
        settings: of the study.
        reference: the law that distances are measured to.
    """

    rows: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, object]
    reference: str

    @property
    def num_train(self) -> int:
        """Number of training points."""
        return int(str(self.settings["training points"]))

    @property
    def num_test(self) -> int:
        """Number of test points."""
        return int(str(self.settings["test points"]))


def read_record(folder: str | os.PathLike) -> ComparisonRecord:
    """What a study left in its folder.

    Raises:
        StorageError: a file is missing or broken.
    """
    folder = Path(folder)
    path = folder / "comparison.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = {
                row.pop("law"): {n: float(v or "nan") for n, v in row.items() if n != COLUMN}
                for row in csv.DictReader(file, restval="missing")
            }
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise StorageError(
            f"{path} is not the table of a study ({error}); delete it and run again"
        ) from error
    path = folder / SUMMARY
    try:
        summary = read_json(path)
        settings = summary["settings"]
        if not isinstance(settings, dict):
            raise ValueError("its settings are no object")
        record = ComparisonRecord(rows, settings, str(summary["reference"]))
        if min(record.num_train, record.num_test) < 1 or record.reference not in rows:
            raise ValueError("its table is of another comparison")
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(
            f"{path} is not the summary of a study ({error}); delete it and run again"
        ) from error
    return record
