"""Data sets of OpenML, by number."""

from collections.abc import Iterable
from http.client import HTTPException

from ntkbayes.datasets.dataset import Dataset
from ntkbayes.datasets.tables import from_frame
from ntkbayes.errors import ConfigurationError, DataError, StorageError


def read_openml(
    number: int,
    *,
    target: str | None = None,
    drop: Iterable[str] = (),
    categorical: Iterable[str] = (),
    impute: str | None = None,
    missing: Iterable[str] = (),
) -> Dataset:
    """The data set of that number on https://www.openml.org, fetched by scikit-learn, which keeps it.

    Columns that OpenML calls nominal are categories.

    Args:
        number: of the data set, such as 61 for iris.
        target: column of the labels; OpenML's own if None.
        drop, categorical, impute, missing: as for `read_table`.

    Raises:
        StorageError: there is no network, or no such data set.
        DataError: OpenML knows no column of labels, or several; or as `from_frame`.
    """
    from sklearn.datasets import fetch_openml

    if number < 1:
        raise ConfigurationError(f"OpenML counts data sets from 1; got {number}")
    try:
        bunch = fetch_openml(data_id=number, as_frame=True, parser="auto")
    except (OSError, HTTPException, ValueError) as error:
        raise StorageError(
            f"OpenML's data set {number} cannot be fetched: {error}; check the number and the network, "
            f"or download its CSV file from https://www.openml.org/d/{number} and give that"
        ) from error
    names = list(bunch.target_names or ())
    if target is None and len(names) != 1:
        found = f"the columns {', '.join(names)}" if names else "no column"
        raise DataError(
            f"OpenML's data set {number} has {found} of labels; name one with --target (target=...)"
        )
    return from_frame(
        bunch.frame,
        target=names[0] if target is None else target,
        drop=drop,
        categorical=categorical,
        impute=impute,
        missing=missing,
        name=str(bunch.details["name"]),
    )
