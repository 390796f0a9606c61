"""Data sets: validated features and targets. All input validation of data happens in this module.

Arrays are numpy float64, copied and read-only. Rows and columns in messages count from 0.
"""

import difflib
import math
import numbers
import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from ntkbayes.errors import (
    ConfigurationError,
    DataError,
    DataWarning,
    StorageError,
    UnknownNameError,
)

NAMES = ("breast_cancer", "wine", "iris", "digits", "moons")
"""The data sets `load` knows."""

_SIMPLEX_TOLERANCE = 1e-6
_MOST_FRACTIONAL_LABELS = 20


@dataclass(frozen=True, eq=False)
class Scaling:
    """The map `(features - mean) / scale`, one mean and one scale a column.

    `mean` has the units of the features, and so has `scale`, which is positive; both are `(d,)`.
    """

    mean: Float[np.ndarray, "d"]
    scale: Float[np.ndarray, "d"]

    @classmethod
    def fit(cls, features: Any, feature_names: Iterable[str] | None = None) -> "Scaling":
        """The scaling after which every column of `features (n, d)` has mean 0 and deviation 1.

        A column that is constant up to round-off is only centred, with a DataWarning that names it.
        Raises DataError for features that are not a finite numeric matrix, or are too large.
        """
        values, names = _features(features, feature_names)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, spread = values.mean(axis=0), np.ptp(values, axis=0)
        too_large = ~(np.isfinite(mean) & np.isfinite(spread))
        if too_large.any():
            columns = [names[j] for j in np.flatnonzero(too_large)]
            raise DataError(f"columns {columns} overflow when standardised; change their unit")
        constant = spread <= 8 * np.finfo(float).eps * np.abs(values).max(axis=0)
        mean = np.where(constant, values[0], mean)
        unit = np.where(constant, 1.0, spread)
        scale = np.where(constant, 1.0, unit * ((values - mean) / unit).std(axis=0))
        if constant.any():
            warnings.warn(
                f"constant columns {[names[j] for j in np.flatnonzero(constant)]} among "
                f"{len(values)} points tell the model nothing and are not rescaled; drop them",
                DataWarning,
                skip_file_prefixes=(str(Path(__file__).parent),),
            )
        return cls(_read_only(mean), _read_only(scale))

    def __call__(self, features: Any) -> Float[np.ndarray, "n d"]:
        """Standardised `features (n, d)`; DataError if they have another number of columns."""
        values, _ = _features(features)
        if values.shape[1] != len(self.mean):
            raise DataError(
                f"the scaling was fitted on {len(self.mean)} features, got {values.shape[1]}"
            )
        return (values - self.mean) / self.scale


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Dataset:
    """Points and their targets: class probabilities, or real values (see `Dataset.real`).

    features: `(n, d)`, finite.
    targets: `(n, m)`; for classes each row lies on the simplex and `m` is the number of classes.
    class_names: one name a column of `targets`; None for real-valued targets.
    feature_names: one name a column of `features`.
    name: how tables and plots call the data set.
    scaling: takes features as first given to `features`; None if they are as given.
    """

    features: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, "n m"]
    class_names: tuple[Hashable, ...] | None
    feature_names: tuple[str, ...]
    name: str
    scaling: Scaling | None

    def __init__(
        self,
        features: Any,
        targets: Any,
        *,
        class_names: Iterable[Hashable] | None = None,
        feature_names: Iterable[str] | None = None,
        name: str = "data",
        scaling: Scaling | None = None,
    ):
        """Class data from arrays, lists or pandas objects; rows are matched by position.

        features: `(n, d)` numbers.
        targets: `n` labels of any hashable kind (tuples in a numpy object array), or probabilities
            `(n, C)`, whose rows must sum to 1 within 1e-6 and are then normalised.
        class_names: all classes, in the order of the columns of the targets. Give it where some
            class may be absent. By default the sorted labels (labels that cannot be sorted come in
            order of appearance), and 0, 1, … for probabilities.
        feature_names: by default a data frame's columns, else x0, x1, …
        scaling: what has already been applied to `features`, if anything; it is only kept.

        Raises DataError, naming the value, for anything no model could be trained on.
        """
        values, names = _features(features, feature_names)
        classes = None if class_names is None else tuple(_plain(c) for c in class_names)
        given = targets if hasattr(targets, "tolist") else np.asarray(targets, dtype=object)
        if np.ndim(given) == 1:
            probabilities, known = _one_hot(given.tolist(), classes)
        else:
            probabilities, known = _probabilities(given, classes)
        _require_same_length(values, probabilities)
        if classes is None and len(values) < len(known):
            raise DataError(
                f"{len(values)} points are fewer than {len(known)} classes; add points, "
                "or give class_names to say that classes may be absent"
            )
        self._set(values, probabilities, known, names, name, scaling)

    @classmethod
    def real(
        cls,
        features: Any,
        values: Any,
        *,
        feature_names: Iterable[str] | None = None,
        name: str = "data",
        scaling: Scaling | None = None,
    ) -> "Dataset":
        """Data with finite real-valued targets `(n,)`, which become `(n, 1)`, or `(n, m)`.

        The other arguments and the errors are those of `Dataset`.
        """
        matrix, names = _features(features, feature_names)
        column = np.asarray(values)
        column = column[:, None] if column.ndim == 1 else column
        if column.ndim != 2:
            raise DataError(f"values must be (n,) or (n, m), got shape {column.shape}")
        outputs = _numbers("values", column, range(column.shape[1]))
        _require_finite("values", outputs, range(column.shape[1]))
        _require_same_length(matrix, outputs)
        return cls.__new__(cls)._set(matrix, outputs, None, names, name, scaling)

    def _set(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        class_names: tuple[Hashable, ...] | None,
        feature_names: tuple[str, ...],
        name: str,
        scaling: Scaling | None,
    ) -> "Dataset":
        """Fill the fields of a new object with values that are known to be valid."""
        vars(self).update(
            features=_read_only(features),
            targets=_read_only(targets),
            class_names=class_names,
            feature_names=feature_names,
            name=name,
            scaling=scaling,
        )
        return self

    def _with(self, **changes: Any) -> "Dataset":
        """This data set with some fields changed, not validated again."""
        return type(self).__new__(type(self))._set(**(vars(self) | changes))

    def __repr__(self) -> str:
        kind = "real targets" if self.class_names is None else "classes"
        return (
            f"Dataset({self.name!r}, {self.num_points} points, {self.num_features} features, "
            f"{self.targets.shape[1]} {kind})"
        )

    @property
    def num_points(self) -> int:
        """The number of points n."""
        return self.features.shape[0]

    @property
    def num_features(self) -> int:
        """The number of features d."""
        return self.features.shape[1]

    @property
    def num_classes(self) -> int:
        """The number of classes C, absent ones included; DataError for real-valued targets."""
        return len(self._classes())

    @property
    def labels(self) -> Int[np.ndarray, "n"]:
        """The most probable class of each point, as an index; DataError for real-valued targets."""
        self._classes()
        return self.targets.argmax(axis=1)

    @property
    def is_degenerate(self) -> bool:
        """Whether some class has probability exactly 0 (False for real-valued targets)."""
        return self.class_names is not None and bool((self.targets == 0).any())

    @property
    def is_hard(self) -> bool:
        """Whether all targets are one-hot (False for real-valued targets)."""
        return self.class_names is not None and bool(np.isin(self.targets, (0, 1)).all())

    def smooth(self, amount: float) -> "Dataset":
        """Targets `(1 - amount) * targets + amount / C`; DataError for real-valued targets.

        Raises ConfigurationError unless 0 <= amount <= 1.
        """
        if not 0 <= amount <= 1:
            raise ConfigurationError(f"smoothing amount must lie in [0, 1], got {amount!r}")
        return self._with(targets=(1 - amount) * self.targets + amount / self.num_classes)

    def split(
        self, key: PRNGKeyArray, *, test_share: float = 0.25, standardise: bool = True
    ) -> tuple["Dataset", "Dataset"]:
        """Training and test points, drawn at random within each class, in their former order.

        Each class gives `test_share` of its points to the test set, within one point. A class with
        two points or more is in both parts, one with a single point only in the training set.
        With `standardise`, a `Scaling` fitted on the training points is applied to both parts.

        Raises ConfigurationError unless 0 < test_share < 1, DataError if a part would be empty.
        """
        if not 0 < test_share < 1:
            raise ConfigurationError(f"test_share must lie between 0 and 1, got {test_share!r}")
        strata, counts = self._strata()
        sizes = _apportion(counts * test_share, round(self.num_points * test_share))
        sizes = np.clip(sizes, counts >= 2, np.maximum(counts - 1, 0))
        if sizes.sum() == 0:
            raise DataError(
                f"{self.num_points} point(s) cannot be split: no class has two; add points"
            )
        in_test = _draw(key, strata, sizes)
        train, test = self.take(~in_test), self.take(in_test)
        if not standardise:
            return train, test
        step = Scaling.fit(train.features, self.feature_names)
        scaling = step
        if self.scaling is not None:
            before = self.scaling
            scaling = Scaling(
                _read_only(before.mean + before.scale * step.mean),
                _read_only(before.scale * step.scale),
            )
        return (
            train._with(features=step(train.features), scaling=scaling),
            test._with(features=step(test.features), scaling=scaling),
        )

    def subset(self, key: PRNGKeyArray, size: int) -> "Dataset":
        """`size` random points, each class in proportion within one point, in their former order.

        A rare class may lose all its points. ConfigurationError unless 1 <= size <= n.
        """
        if size not in range(1, self.num_points + 1):
            raise ConfigurationError(
                f"a subset of {self.num_points} points has 1 to {self.num_points}, got {size!r}"
            )
        strata, counts = self._strata()
        sizes = _apportion(counts * size / self.num_points, int(size))
        return self.take(_draw(key, strata, sizes))

    def take(self, indices: Any) -> "Dataset":
        """The points at `indices`, integers or a mask `(n,)`; DataError for none or outside."""
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or chosen.size == 0:
            raise DataError(f"indices must be a non-empty sequence, got shape {chosen.shape}")
        try:
            features, targets = self.features[chosen], self.targets[chosen]
        except IndexError as error:
            raise DataError(f"no such points among {self.num_points}: {error}") from error
        if len(features) == 0:
            raise DataError("the mask chooses no points; choose at least one")
        return self._with(features=features, targets=targets)

    def merged(self) -> "Dataset":
        """One point for each distinct row of features, with the mean of its targets.

        This leaves the ridge-less solution at infinite training time as it is; with a ridge, or
        with early stopping, it changes the weight of repeated points.
        """
        _, first, group = np.unique(
            self.features + 0.0, axis=0, return_index=True, return_inverse=True
        )
        group = group.reshape(-1)
        sums = np.zeros((len(first), self.targets.shape[1]))
        np.add.at(sums, group, self.targets)
        means = sums / np.bincount(group)[:, None]
        order = np.argsort(first)
        return self._with(features=self.features[first[order]], targets=means[order])

    def check_features(self, features: Any) -> Float[np.ndarray, "k d"]:
        """New inputs for prediction as float64, on the scale of `self.features`.

        They are not standardised: `self.scaling` does that to features as first given.
        Raises DataError unless they are finite numbers `(k, d)`, or if a data frame has the
        columns of the training data in another order.
        """
        values, names = _features(features)
        if values.shape[1] != self.num_features:
            raise DataError(
                f"the model was trained on {self.num_features} features, got {values.shape[1]}"
            )
        if names != self.feature_names and sorted(names) == sorted(self.feature_names):
            raise DataError(
                f"columns {list(names)} are those of the training data in another order; "
                f"reorder them as {list(self.feature_names)}"
            )
        return values

    def _classes(self) -> tuple[Hashable, ...]:
        if self.class_names is None:
            raise DataError("real-valued targets have no classes; make class data with Dataset()")
        return self.class_names

    def _strata(self) -> tuple[np.ndarray, np.ndarray]:
        """The class index of each point and the size of each class; real data are one class."""
        strata = np.zeros(self.num_points, int) if self.class_names is None else self.labels
        return strata, np.bincount(strata, minlength=len(self.class_names or ()))


def load(name: str) -> Dataset:
    """A data set known by its name, one of `NAMES`, not standardised.

    breast_cancer, wine, iris and digits come with scikit-learn, with its names and order of
    classes. moons are two interleaved half circles: 200 points with noise 0.2, always the same.
    Raises UnknownNameError for any other name.
    """
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


def read_table(path: str | PathLike[str], *, target: str) -> Dataset:
    """Class data from a file: labels in the column `target`, features in all other columns.

    The suffix says how to read it: .csv (commas), .tsv (tabs), .parquet or .pq. In text files only
    an empty field is a missing value. Labels keep their type; booleans among the features become
    0 and 1. The data set is called after the file.

    Raises StorageError for a file that is missing, unreadable or of an unknown suffix, and
    DataError for a table that is empty or has missing values, text among the features, no column
    `target`, or a target that looks like that of a regression.
    """
    path = Path(path)
    frame = _read_frame(path)
    columns = list(frame.columns)
    if target not in columns:
        close = difflib.get_close_matches(str(target), [str(c) for c in columns], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{path} has no column {target!r}; its columns are {columns}{hint}")
    if len(columns) == 1:
        raise DataError(f"{path} has no features: its only column is the target {target!r}")
    return Dataset(frame.drop(columns=target), frame[target], name=path.stem)


def _read_frame(path: Path) -> Any:
    """The pandas data frame in a file, with nothing guessed beyond the types of whole columns."""
    import pandas as pd
    import pyarrow as pa

    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet", ".pq"):
        raise StorageError(f"cannot read {path}: known suffixes are .csv, .tsv, .parquet and .pq")
    if not path.is_file():
        raise StorageError(f"there is no file {path}; check the path")
    try:
        if suffix in (".parquet", ".pq"):
            return pd.read_parquet(path, engine="pyarrow")
        separator = "," if suffix == ".csv" else "\t"
        first = pd.read_csv(path, sep=separator, header=None, nrows=2, dtype=str)
        frame = pd.read_csv(
            path, sep=separator, keep_default_na=False, na_values=[""], low_memory=False
        )
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path} is empty; it needs a header and rows") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {path} as {suffix}: {error}") from error
    header = first.iloc[0].tolist()
    if any(map(_is_missing, header)):
        raise DataError(
            f"{path} has a column without a name, perhaps row numbers; name or remove it"
        )
    repeated = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if repeated:
        raise DataError(f"{path} has more than one column called {repeated[0]!r}; rename them")
    return frame


def _features(
    features: Any, feature_names: Iterable[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Features as a new finite matrix, and the names of its columns."""
    try:
        array = np.asarray(features)
    except ValueError as error:
        raise DataError(f"features must form a matrix (n, d): {error}") from error
    if array.ndim != 2:
        raise DataError(
            f"features must be a matrix (n, d), got shape {array.shape}; use reshape(-1, 1) "
            "for a single feature, reshape(n, -1) for images"
        )
    given = getattr(features, "columns", None) if feature_names is None else feature_names
    names = tuple(f"x{j}" for j in range(array.shape[1])) if given is None else tuple(given)
    names = tuple(str(name) for name in names)
    if len(names) != array.shape[1]:
        raise DataError(f"{len(names)} feature names for {array.shape[1]} features; give one each")
    values = _numbers("features", array, names)
    _require_finite("features", values, names)
    return values, names


def _numbers(what: str, array: np.ndarray, names: Sequence[Hashable]) -> np.ndarray:
    """A new float64 matrix, not empty; missing values become NaN, text is an error."""
    if 0 in array.shape:
        raise DataError(f"{what} are empty (shape {array.shape}); give at least one point")
    if array.dtype.kind in "biuf":
        return np.array(array, dtype=np.float64, order="C")
    cells = array.astype(object)
    wrong = ~np.frompyfunc(_is_number_or_missing, 1, 1)(cells).astype(bool)
    if wrong.any():
        column = int(np.flatnonzero(wrong.any(axis=0))[0])
        rows = np.flatnonzero(wrong[:, column])
        row = next((i for i in rows if not _reads_as_number(cells[i, column])), rows[0])
        raise DataError(
            f"{what} must be numbers, but column {names[column]!r} holds "
            f"{_plain(cells[row, column])!r} in row {row}; encode it as numbers or drop it"
        )
    return np.frompyfunc(_to_float, 1, 1)(cells).astype(np.float64)


def _require_finite(what: str, values: np.ndarray, names: Sequence[Hashable]) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"{what} hold {len(wrong)} value(s) that are missing or not finite, the first "
            f"{values[row, column]} in row {row}, column {names[column]!r}; "
            "drop such rows or fill the values in"
        )


def _require_same_length(features: np.ndarray, targets: np.ndarray) -> None:
    if len(features) != len(targets):
        raise DataError(f"{len(features)} rows of features but {len(targets)} targets; match them")


def _one_hot(
    labels: list[Any], classes: tuple[Hashable, ...] | None
) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Labels as one-hot rows, and the names of the classes."""
    labels = [_plain(label) for label in labels]
    if not labels:
        raise DataError("targets are empty; give at least one label")
    missing = [row for row, label in enumerate(labels) if _is_missing(label)]
    if missing:
        rows = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise DataError(f"{len(missing)} target(s) are missing, in rows {rows}; drop these rows")
    try:
        distinct = list(dict.fromkeys(labels))
    except TypeError as error:
        raise DataError(f"labels must be hashable: {error}; use strings or integers") from error
    if classes is None:
        fractions = [v for v in distinct if isinstance(v, float) and not v.is_integer()]
        if len(fractions) > _MOST_FRACTIONAL_LABELS:
            raise DataError(
                f"targets such as {fractions[0]!r} with {len(fractions)} distinct fractional values"
                " look like those of a regression; use Dataset.real, or give class_names"
            )
        if len(distinct) == 1:
            raise DataError(
                f"all labels are {distinct[0]!r}, but classification takes two classes; "
                "add points of another class or give class_names"
            )
        try:
            classes = tuple(sorted(distinct))
        except TypeError:
            classes = tuple(distinct)
    _require_classes(classes)
    index = {c: j for j, c in enumerate(classes)}
    for row, label in enumerate(labels):
        if label not in index:
            raise DataError(
                f"unseen label {label!r} in row {row}: class_names are {list(classes)}; "
                "add it there or drop the row"
            )
    return np.eye(len(classes))[[index[label] for label in labels]], classes


def _probabilities(
    targets: Any, classes: tuple[Hashable, ...] | None
) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Probabilities with rows that sum to 1, and the names of the classes."""
    array = np.asarray(targets)
    if array.ndim != 2 or array.shape[1] == 1:
        raise DataError(
            f"targets must be n labels or probabilities (n, C), got shape {array.shape}; "
            "use Dataset.real for real values and a numpy object array for tuples"
        )
    values = _numbers("targets", array, range(array.shape[1]))
    if classes is None:
        classes = tuple(range(values.shape[1]))
    _require_classes(classes)
    if len(classes) != values.shape[1]:
        raise DataError(f"{len(classes)} class names for {values.shape[1]} columns of targets")
    sums = values.sum(axis=1, keepdims=True)
    on_simplex = (values >= 0).all(axis=1) & (np.abs(sums[:, 0] - 1) <= _SIMPLEX_TOLERANCE)
    if not on_simplex.all():
        row = int(np.argmin(on_simplex))
        raise DataError(
            f"targets in row {row} are no probabilities: {values[row].tolist()}; "
            "each row must be non-negative and sum to 1. Use Dataset.real for real values"
        )
    return values / sums, classes


def _require_classes(classes: tuple[Hashable, ...]) -> None:
    if len(classes) < 2:
        raise DataError(f"classification takes two classes at least, got {list(classes)}")
    if len(set(classes)) < len(classes):
        raise DataError(f"class names must differ, got {list(classes)}")


def _apportion(quotas: np.ndarray, total: int) -> np.ndarray:
    """Integers that sum to `total`, each within one of its quota: largest remainders go up."""
    sizes = np.floor(quotas).astype(int)
    by_remainder = np.argsort(sizes - quotas, kind="stable")
    sizes[by_remainder[: total - sizes.sum()]] += 1
    return sizes


def _draw(key: PRNGKeyArray, strata: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A mask that chooses `sizes[s]` random points of each stratum `s`."""
    order = np.asarray(jax.random.permutation(key, len(strata)))
    mask = np.zeros(len(strata), dtype=bool)
    for stratum, size in enumerate(sizes):
        mask[order[strata[order] == stratum][:size]] = True
    return mask


def _read_only(array: np.ndarray) -> np.ndarray:
    array = np.array(array)
    array.setflags(write=False)
    return array


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python object it stands for."""
    return value.item() if isinstance(value, np.generic) else value


def _is_missing(value: Any) -> bool:
    """None, NaN, and the missing values of pandas, which need not be imported for this."""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _is_number_or_missing(value: Any) -> bool:
    return isinstance(value, numbers.Real | np.bool_) or _is_missing(value)


def _to_float(value: Any) -> float:
    try:
        return math.nan if _is_missing(value) else float(value)
    except OverflowError:
        return math.inf


def _reads_as_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
