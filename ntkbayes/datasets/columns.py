"""Names and scale of the columns of data, and how other data are matched to them."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from ntkbayes.datasets import validation
from ntkbayes.datasets.preparation import TRAINED, Preparation
from ntkbayes.display import few
from ntkbayes.errors import DataError, DataWarning

FITTED = "the scaling was fitted on"


@dataclass(frozen=True, eq=False)
class Scaling:
    """The map `(features - mean) / scale`, with one mean and one scale per column.

    `mean` and `scale` are `(d,)`, in the units of the features, and scales are positive.
    `feature_names` are those of the columns, None if unknown. Scalings with the same mean and scale are
    equal.

    Raises DataError unless mean and scale are finite vectors of equal length, with positive scales.
    """

    mean: Float[np.ndarray, "d"]
    scale: Float[np.ndarray, "d"]
    feature_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        mean, scale = (np.asarray(v, dtype=np.float64) for v in (self.mean, self.scale))
        if mean.ndim != 1 or mean.shape != scale.shape:
            raise DataError(
                f"a scaling has a mean and a scale per column; got shapes {mean.shape}, {scale.shape}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise DataError("the means and scales of a scaling must be finite, and scales positive")
        if self.feature_names is not None:
            object.__setattr__(self, "feature_names", tuple(map(str, self.feature_names)))
        object.__setattr__(self, "mean", validation.read_only(mean))
        object.__setattr__(self, "scale", validation.read_only(scale))

    @classmethod
    def fit(
        cls,
        features: Any,
        feature_names: Iterable[str] | None = None,
        *,
        unscaled: Bool[np.ndarray, " d"] | None = None,
    ) -> "Scaling":
        """The scaling that standardises every column of `features (n, d)`, but for those `unscaled`.

        A column that is constant up to round-off is only centred, with a DataWarning that names it.
        Raises DataError for features that are not a finite numeric matrix, or are too large.
        """
        values, names, are_given = validation.features(features, feature_names)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, spread = values.mean(axis=0), np.ptp(values, axis=0)
        too_large = ~(np.isfinite(mean) & np.isfinite(spread))
        if too_large.any():
            columns = [names[j] for j in np.flatnonzero(too_large)]
            raise DataError(f"columns {columns} overflow when standardised; change their unit")
        as_is = np.zeros(len(names), dtype=bool) if unscaled is None else unscaled
        constant = spread <= 8 * np.finfo(float).eps * np.abs(values).max(axis=0)
        mean = np.where(constant, values[0], mean)
        unit = np.where(constant, 1.0, spread)
        scale = np.where(constant, 1.0, unit * ((values - mean) / unit).std(axis=0))
        mean, scale = np.where(as_is, 0.0, mean), np.where(as_is, 1.0, scale)
        constant &= ~as_is
        if constant.any():
            warnings.warn(
                f"constant columns {[names[j] for j in np.flatnonzero(constant)]} among "
                f"{len(values)} points carry no information and are not rescaled; drop them",
                DataWarning,
                skip_file_prefixes=(str(Path(__file__).parent),),
            )
        return cls(mean, scale, names if are_given else None)

    def __call__(self, features: Any) -> Float[np.ndarray, "n d"]:
        """Standardised `features (n, d)`. Named columns may come in any order.

        Raises DataError for a wrong number of columns, or other names.
        """
        return (self._read(features) - self.mean) / self.scale

    def undo(self, features: Any) -> Float[np.ndarray, "n d"]:
        """The raw features `(n, d)` of standardised ones. Raises as `__call__` does."""
        return self._read(features) * self.scale + self.mean

    def after(self, before: "Scaling | None") -> "Scaling":
        """The composition: `before`, then this scaling."""
        if before is None:
            return self
        mean, scale = before.mean + before.scale * self.mean, before.scale * self.scale
        return Scaling(mean, scale, self.feature_names)

    def take(self, order: np.ndarray) -> "Scaling":
        """The scaling of the columns at these indices."""
        names = self.feature_names
        taken = None if names is None else tuple(names[j] for j in order)
        return Scaling(self.mean[order], self.scale[order], taken)

    def names_of(self, columns: "Columns") -> tuple[tuple[str, ...], bool]:
        """Names for columns on this scale, and whether the user gave them."""
        if self.feature_names is not None:
            return self.feature_names, True
        if len(columns.names) == len(self.mean):
            return columns.names, columns.are_named
        return tuple(f"x{j}" for j in range(len(self.mean))), False

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Scaling)
            and np.array_equal(self.mean, other.mean)
            and np.array_equal(self.scale, other.scale)
        )

    def __hash__(self) -> int:
        return hash((self.mean.tobytes(), self.scale.tobytes()))

    def _read(self, features: Any) -> np.ndarray:
        values, names, are_given = validation.features(features)
        theirs = Columns(names, are_given)
        return values[:, Columns(*self.names_of(theirs)).order_of(theirs, FITTED)]


@dataclass(frozen=True)
class Columns:
    """Names and scale of the columns of features.

    Attributes:
        names: one per column.
        are_named: whether the user gave the names; those of an array's columns are made up.
        scaling: what was applied to the raw features; None if nothing was.
        preparation: how the raw features were made from the columns of a table; None if they were
            given as numbers.
    """

    names: tuple[str, ...]
    are_named: bool
    scaling: Scaling | None = None
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        if self.scaling is None:
            return
        theirs = Columns(*self.scaling.names_of(self))
        if theirs.names == self.names:
            return
        theirs.order_of(self, FITTED)
        order = self.order_of(theirs, FITTED)
        object.__setattr__(self, "scaling", self.scaling.take(order))

    def order_of(self, other: "Columns", who: str) -> np.ndarray:
        """The indices (d,) that bring other columns into this order.

        Columns go by name where the user named both, in any order, else by position.

        Raises DataError, with a message that begins with `who`, for a wrong number of columns or other
        names.
        """
        if other.names == self.names:
            return np.arange(len(self.names))
        if set(other.names) == set(self.names):
            place = {name: j for j, name in enumerate(other.names)}
            return np.array([place[name] for name in self.names])
        if self.are_named and other.are_named:
            raise DataError(
                f"{who} other columns: "
                + " and ".join(
                    f"{few(map(repr, names))} {what}"
                    for names, what in (
                        ([n for n in self.names if n not in other.names], "missing"),
                        ([n for n in other.names if n not in self.names], "unknown"),
                    )
                    if names
                )
                + f"; give the columns {few(map(repr, self.names))}"
            )
        if len(other.names) != len(self.names):
            raise DataError(f"{who} {len(self.names)} features, got {len(other.names)}")
        return np.arange(len(self.names))

    def read(self, features: Any) -> Float[np.ndarray, "k d"]:
        """New inputs `(k, d)` as float64, in the order of these columns.

        Arrays carry neither names nor scale: they go by position, and are taken to be on the scale of
        these columns. A data frame must have the names of these columns, in any order. If these were
        made from a table, a data frame is one like it, with its columns before their preparation.

        Raises DataError for other columns or values that are not finite; of a table, for categories
        that were in no training row; and for other data frames if these columns are standardised,
        since they do not say whether their own are.
        """
        if self.preparation is not None and self._is_table(features):
            made = self.preparation.read(features)
            made = made[:, self.order_of(Columns(self.preparation.feature_names, True), TRAINED)]
            return made if self.scaling is None else self.scaling(made)
        values, names, are_given = validation.features(features)
        values = values[:, self.order_of(Columns(names, are_given), TRAINED)]
        if are_given and self.scaling is not None:
            raise DataError(
                "the training features were standardised, and a data frame does not say whether it "
                "is: give train.scaling(frame) for raw features, or an array of the same columns on the "
                "scale of the training features"
            )
        return values

    def _is_table(self, features: Any) -> bool:
        """Whether features have columns of their own, other than one per feature made of them."""
        names, are_given = validation.names_of(features)
        if names is None or not are_given:
            return False
        has_categories = self.preparation is not None and len(self.preparation.categories) > 0
        return not (has_categories and {*map(str, names)} == {*self.names})

    def require_width(self, features: Float[Array, "k ..."]) -> Float[Array, "k ..."]:
        """The features, traced by JAX. Raises DataError for a wrong number of columns."""
        self.order_of(Columns(tuple(f"x{j}" for j in range(features.shape[1])), False), TRAINED)
        return features

    def match(self, values: Float[np.ndarray, "k d"], other: "Columns") -> np.ndarray:
        """Features `(k, d)` with other columns, brought into this order and onto this scale.

        Raises DataError for other names, and if only one of the two is standardised.
        """
        order = self.order_of(other, TRAINED)
        values = values[:, order]
        before = None if other.scaling is None else other.scaling.take(order)
        if self.scaling == before:
            return values
        if self.scaling is None:
            raise DataError(
                "these data are standardised, but the training data were not: give "
                "data.rescaled(None), or train on standardised data"
            )
        if before is None and other.preparation is not None:
            return self.scaling(values)  # a table, which is raw
        if before is None:
            raise DataError(
                "the training features were standardised, but these data are raw: use "
                "data.rescaled(train.scaling), or Dataset(..., scaling=train.scaling) to say that "
                "they are on that scale already"
            )
        return self.scaling(before.undo(values))


def read_inputs(columns: Columns, inputs: Any) -> Float[np.ndarray, "k d"]:
    """New inputs `(k, d)` as float64, in the order and on the scale of the training data's columns.

    Args:
        columns: of the training data.
        inputs: a data set, matched by names and scale (`Columns.match`); or a data frame or an array
            (`Columns.read`).

    Raises DataError for other columns, and for features that are not finite or so large that their
    squares, which kernels need, overflow.
    """
    theirs = getattr(inputs, "columns", None)
    if isinstance(theirs, Columns):
        inputs = inputs.prepared_like(columns)
        values = columns.match(inputs.features, inputs.columns)
    else:
        values = columns.read(inputs)
    validation.require_squares("features", values, columns.names)
    return values
