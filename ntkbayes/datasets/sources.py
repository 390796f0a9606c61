"""Built-in data sets, from scikit-learn."""

from pathlib import Path

from ntkbayes.datasets.dataset import Dataset
from ntkbayes.errors import DataError, UnknownNameError

NAMES = ("breast_cancer", "wine", "iris", "digits", "moons")
"""The data sets `load` knows."""


def load(name: str) -> Dataset:
    """The built-in data set of that name, one of `NAMES`, not standardised.

    breast_cancer, wine, iris and digits come with scikit-learn, with its names and order of
    classes. moons is two interleaved half circles: 200 fixed points with noise 0.2.

    Raises UnknownNameError for any other name, DataError for a file.
    """
    if isinstance(name, str | Path) and Path(name).suffix:
        raise DataError(
            f"{str(name)!r} is a file, not one of the built-in data sets; read it by "
            "nb.datasets.read_table(path, target=...)"
        )
    if name not in NAMES:
        raise UnknownNameError("data set", name, NAMES)
    from sklearn import datasets

    if name == "moons":
        points, labels = datasets.make_moons(n_samples=200, noise=0.2, random_state=0)
        return Dataset(points, labels, name=name)
    bunch = getattr(datasets, f"load_{name}")()
    return Dataset(
        bunch.data,
        bunch.target_names[bunch.target],
        class_names=bunch.target_names,
        feature_names=bunch.feature_names,
        name=name,
    )
