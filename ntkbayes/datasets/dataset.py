"""Data sets: validated features and targets.

Arrays are numpy float64, copied and read-only. The file is longer than others, since a reader looks for
all that a data set does in one place.
"""

import dataclasses
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, Shaped

from ntkbayes import ranges
from ntkbayes.datasets import class_targets, validation
from ntkbayes.datasets.columns import FITTED, Columns, Scaling, read_inputs
from ntkbayes.datasets.preparation import Preparation, Rows
from ntkbayes.datasets.strata import apportion, deal, draw
from ntkbayes.display import Sheet, Summarised, few
from ntkbayes.errors import ConfigurationError, DataError, UnknownNameError
from ntkbayes.ranges import Number, Range


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Dataset(Summarised):
    """Points and their targets: class probabilities, or real values (see `Dataset.real`).

    Attributes:
        features: `(n, d)`, finite.
        targets: `(n, m)`; for classes each row lies on the simplex and `m` is the number of classes.
        class_names: one name per column of `targets`; None for real-valued targets.
        feature_names: one name per column of `features`.
        name: label in tables and plots.
        scaling: what was applied to the raw features; None if nothing was.
        columns: feature names and scaling, and whether the user gave the names.
        rows: those of the table that the points come from, before their preparation; None if they were
            given as numbers.
        row_names: the index of the data frame that the points come from, whole numbers or text, `(n,)`;
            the files of images; or their positions 0, 1, …. They stay with the points in all that
            follows.
        share_scale: whether the features have one unit, as pixels of images: they are not standardised.
    """

    features: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, "n m"]
    class_names: tuple[Hashable, ...] | None
    feature_names: tuple[str, ...]
    name: str
    scaling: Scaling | None
    columns: Columns = dataclasses.field(init=False)
    rows: Rows | None = dataclasses.field(init=False)
    row_names: Shaped[np.ndarray, " n"] = dataclasses.field(init=False)
    share_scale: bool = dataclasses.field(init=False)

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

        Args:
            features: (n, d) numbers.
            targets: n labels of any hashable kind (tuples in a numpy object array), where None, NaN and
                blank text are missing; or probabilities (n, C), whose rows must sum to 1 within 1e-6
                and are then normalised.
            class_names: all classes, in the order of the columns of the targets. Pass it if some class
                may be absent. By default the categories of an ordered pandas Categorical, else the
                sorted labels (in order of appearance if they cannot be sorted); for probabilities the
                columns of a data frame, else 0, 1, …
            feature_names: distinct; by default a data frame's columns, else x0, x1, …
            name: of the data, for reports.
            scaling: what has already been applied to `features`, if anything; only recorded.

        Raises:
            DataError: no model can be trained on some value, which is named.
        """
        values, names, are_given = validation.features(features, feature_names)
        classes = validation.ordered_categories(targets) if class_names is None else class_names
        classes = None if classes is None else validation.in_order("class_names", classes)
        given = validation.labels(targets)
        validation.require_same_rows(features, targets)
        if np.ndim(given) == 1:
            probabilities, known = class_targets.one_hot(given.tolist(), classes)
        else:
            probabilities, known = class_targets.probabilities(targets, classes)
        validation.require_same_length(values, probabilities)
        if classes is None and len(values) < len(known):
            raise DataError(
                f"{len(values)} points are fewer than {len(known)} classes; add points, "
                "or give class_names to say that classes may be absent"
            )
        columns = Columns(names, are_given, scaling)
        rows = validation.row_names(features, targets)
        self._set(values, probabilities, known, columns, name, rows)

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
        matrix, names, are_given = validation.features(features, feature_names)
        validation.require_same_rows(features, values)
        column = validation.plain_array("values", values)
        column = column[:, None] if column.ndim == 1 else column
        if column.ndim != 2:
            raise DataError(f"values must be (n,) or (n, m), got shape {column.shape}")
        outputs = validation.number_matrix("values", column, range(column.shape[1]))
        validation.require_finite("values", outputs, range(column.shape[1]))
        validation.require_same_length(matrix, outputs)
        columns = Columns(names, are_given, scaling)
        rows = validation.row_names(features, values)
        return cls.__new__(cls)._set(matrix, outputs, None, columns, name, rows)

    @classmethod
    def from_counts(
        cls,
        features: Any,
        counts: Any,
        *,
        class_names: Iterable[Hashable] | None = None,
        feature_names: Iterable[str] | None = None,
        name: str = "data",
        scaling: Scaling | None = None,
    ) -> "Dataset":
        """Soft targets from several annotators: each class gets its share of a point's votes.

        Args:
            features, class_names, feature_names, name, scaling: as for `Dataset`.
            counts: (n, C), how many annotators chose each class. Row totals may differ, and are
                discarded. Votes may be weighted.

        Raises:
            DataError: a point has no votes, or counts are negative, missing or infinite; the row is
                named. Or as for `Dataset`.
        """
        validation.require_same_rows(features, counts)
        classes = None if class_names is None else validation.in_order("class_names", class_names)
        shares, classes = class_targets.shares(counts, classes)
        return cls(
            features,
            shares,
            class_names=classes,
            feature_names=feature_names,
            name=name,
            scaling=scaling,
        )

    def _set(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        class_names: tuple[Hashable, ...] | None,
        columns: Columns,
        name: str,
        row_names: np.ndarray,
        rows: Rows | None = None,
        share_scale: bool = False,
    ) -> "Dataset":
        """Set the fields of a new object to validated values."""
        vars(self).update(
            features=validation.read_only(features),
            targets=validation.read_only(targets),
            class_names=class_names,
            feature_names=columns.names,
            name=name,
            scaling=columns.scaling,
            columns=columns,
            rows=rows,
            row_names=validation.read_only(row_names),
            share_scale=share_scale,
        )
        return self

    def _with(self, **changes: Any) -> "Dataset":
        """A copy with some fields changed, without validation."""
        kept = {f.name for f in dataclasses.fields(self)} - {"feature_names", "scaling"}
        return type(self).__new__(type(self))._set(**{k: getattr(self, k) for k in kept} | changes)

    def __repr__(self) -> str:
        return self._title

    @property
    def _title(self) -> str:
        kind = "real targets" if self.class_names is None else "classes"
        return (
            f"Dataset({self.name!r}, {self.num_points} points, {self.num_features} features, "
            f"{self.targets.shape[1]} {kind})"
        )

    @property
    def _sheet(self) -> Sheet:
        facts = {"features": few(self.feature_names)}
        if self.class_names is not None:
            shares = zip(self.class_names, self.targets.mean(axis=0), strict=True)
            facts["classes"] = few(f"{name} ({share:.0%})" for name, share in shares)
        if told := self.preparation_told:
            facts["prepared"] = told
        facts["scale"] = "raw" if self.scaling is None else "standardised"
        return Sheet(self._title, facts)

    @property
    def preparation_told(self) -> str:
        """What was done to the columns of a table, in sentences; "" if nothing was."""
        preparation = self.columns.preparation
        return "" if preparation is None else preparation.told(self.rows)

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

    def smooth(self, amount: Number) -> "Dataset":
        """Targets `(1 - amount) * targets + amount / C`; DataError for real-valued targets.

        Raises ConfigurationError unless 0 <= amount <= 1.
        """
        amount = ranges.real("smoothing amount", amount, Range.CLOSED_UNIT)
        return self._with(targets=(1 - amount) * self.targets + amount / self.num_classes)

    def split(
        self, key: PRNGKeyArray, *, test_share: Number = 0.25, standardise: bool = True
    ) -> tuple["Dataset", "Dataset"]:
        """A random split into training and test points, stratified by class, order kept.

        Each class gives `test_share` of its points to the test set, to within one point. A class with
        two points or more is in both parts, one with a single point only in the training set.
        With `standardise`, a `Scaling` fitted to the training points is applied to both parts; what
        stands for missing values of a table is learnt from them, too.

        Raises ConfigurationError unless 0 < test_share < 1, DataError if a part would be empty.
        """
        test_share = ranges.real("test_share", test_share, Range.OPEN_UNIT)
        strata, counts = self._strata()
        sizes = apportion(counts * test_share, round(self.num_points * test_share))
        sizes = np.clip(sizes, counts >= 2, np.maximum(counts - 1, 0))
        if sizes.sum() == 0:
            raise DataError(
                f"{self.num_points} point(s) cannot be split: no class has two; add points"
            )
        in_test = draw(key, strata, sizes)
        return self.take(~in_test).made_ready(self.take(in_test), standardise=standardise)

    def folds(
        self, key: PRNGKeyArray, num_folds: Number, *, standardise: bool = True
    ) -> tuple[tuple["Dataset", "Dataset"], ...]:
        """Training and test points of every fold of K-fold cross-validation, stratified by class.

        Every point is a test point once; folds, and the points of each class in them, are equal in
        number to within one. `standardise` is as in `split`.

        Raises ConfigurationError for fewer than 2 folds, or more than the points of a class (of all
        points, for real-valued targets): some folds would not test it.
        """
        num_folds = ranges.whole("the number of folds", num_folds, at_least=2)
        strata, counts = self._strata()
        smallest = min(np.flatnonzero(counts), key=lambda stratum: counts[stratum])
        if num_folds > counts[smallest]:
            names = self.class_names
            of_class = "" if names is None else f" of the class {names[smallest]!r}"
            raise ConfigurationError(
                f"{num_folds} folds need at least {num_folds} points{of_class}, and there are "
                f"{counts[smallest]}; take fewer folds, or random splits"
            )
        fold = deal(key, strata, num_folds)
        return tuple(
            self.take(fold != k).made_ready(self.take(fold == k), standardise=standardise)
            for k in range(num_folds)
        )

    def made_ready(
        self, test: "Dataset", *, standardise: bool = True
    ) -> tuple["Dataset", "Dataset"]:
        """These points for training, and others for testing: with what stands for missing values, and
        with `standardise` the scale, learnt from these alone.

        Raises DataError if the others have other columns.
        """
        train = self.prepared_anew()
        test = test.prepared_like(train.columns)
        if standardise:
            train = train.standardised()
        return train, test.rescaled(train.scaling)

    def prepared_anew(self) -> "Dataset":
        """Points of a table, with what stands for missing values learnt from these alone; others as they
        are.

        Raises DataError if a column has no value in these points.
        """
        before = self.columns.preparation
        if self.rows is None or before is None or before.impute is None:
            return self
        return self._prepared(before.fitted(self.rows), self.rows)

    def prepared_like(self, columns: Columns) -> "Dataset":
        """Points of a table, with the categories, and what stands for missing values, of other columns;
        points as they are if the one or the other come from no table.

        Raises DataError for a table with other columns, or categories that the other has not.
        """
        before, now = self.columns.preparation, columns.preparation
        if self.rows is None or before is None or now is None or before == now:
            return self
        return self._prepared(now, now.adopted(self.rows, before))

    def _prepared(self, preparation: Preparation, rows: Rows) -> "Dataset":
        columns = Columns(preparation.feature_names, True, None, preparation)
        raw = self._with(features=preparation(rows), columns=columns, rows=rows)
        return raw if self.scaling is None else raw.rescaled(self.scaling)

    def standardised(self) -> "Dataset":
        """The points with every column centred and scaled to unit variance, but for those that tell a
        category of a table by 0 and 1; see `Scaling.fit`. Pixels of images, which share a scale, stay
        as they are."""
        if self.share_scale:
            return self
        own = self.feature_names if self.columns.are_named else None
        preparation = self.columns.preparation
        indicators = () if preparation is None else preparation.indicators
        unscaled = np.isin(self.feature_names, list(indicators))
        step = Scaling.fit(self.features, own, unscaled=unscaled)
        columns = dataclasses.replace(self.columns, scaling=step.after(self.scaling))
        return self._with(features=step(self.features), columns=columns)

    def subset(self, key: PRNGKeyArray, size: Number) -> "Dataset":
        """`size` random points, stratified by class to within one point, order kept.

        Every class with points keeps at least one, if need be at the expense of the largest.

        Raises ConfigurationError if size is above n, or below the number of classes with points.
        """
        strata, counts = self._strata()
        present = np.flatnonzero(counts)
        size = ranges.whole("the size of a subset", size)
        if size > self.num_points:
            raise ConfigurationError(
                f"a subset of {self.num_points} points has 1 to {self.num_points}, got {size!r}"
            )
        if size < len(present):
            raise ConfigurationError(
                f"{size!r} points cannot keep {len(present)} classes; take at least {len(present)}, "
                "or choose classes by hold_out_classes"
            )
        sizes = apportion(counts * size / self.num_points, size)
        lost = present[sizes[present] == 0]
        sizes[lost] = 1
        for _ in lost:
            sizes[np.argmax(sizes)] -= 1
        return self.take(draw(key, strata, sizes))

    def take(self, indices: Any) -> "Dataset":
        """The points at `indices`, integers or a mask `(n,)`. All class names are kept.

        Raises DataError for no points, or an index out of range.
        """
        chosen = validation.plain_array("indices", indices)
        if chosen.ndim != 1 or chosen.size == 0:
            raise DataError(f"indices must be a non-empty sequence, got shape {chosen.shape}")
        try:
            features, targets = self.features[chosen], self.targets[chosen]
        except IndexError as error:
            raise DataError(f"invalid indices for {self.num_points} points: {error}") from error
        if len(features) == 0:
            raise DataError("the mask chooses no points; choose at least one")
        rows = None if self.rows is None else self.rows.take(chosen)
        names = self.row_names[chosen]
        return self._with(features=features, targets=targets, row_names=names, rows=rows)

    def rescaled(self, scaling: Scaling | None) -> "Dataset":
        """The same points on another scale, such as that of the training data; raw for None.

        Named columns are brought into the order of the scaling's.

        Raises DataError if the scaling was fitted on other features, or on a different number.
        """
        features = self.features if self.scaling is None else self.scaling.undo(self.features)
        if scaling is None:
            return self._with(
                features=features, columns=dataclasses.replace(self.columns, scaling=None)
            )
        columns = Columns(*scaling.names_of(self.columns), scaling, self.columns.preparation)
        order = columns.order_of(self.columns, FITTED)
        return self._with(features=scaling(features[:, order]), columns=columns)

    def hold_out_classes(self, names: Iterable[Hashable]) -> tuple["Dataset", "Dataset"]:
        """Split off the named classes: points of the remaining ones (inside), and theirs (outside).

        A point belongs to its most probable class. Inside, `class_names` are the remaining ones,
        and soft targets are renormalised over them. Outside, no class is right: targets are uniform
        over the same classes, so that laws trained inside can predict there. Features are unchanged;
        after splitting the inside points, `outside.rescaled(train.scaling)` is on their scale.

        Raises UnknownNameError for a class not in `class_names`; DataError for real-valued targets, if
        a part would have no points, or if fewer than two classes remain.
        """
        classes = self._classes()
        held_out = [validation.plain(name) for name in names]
        for name in held_out:
            if name not in classes:
                raise UnknownNameError("class", name, tuple(map(str, classes)))
        kept = np.array([c not in held_out for c in classes])
        remaining = tuple(c for c in classes if c not in held_out)
        class_targets.require_classes(remaining)
        is_inside = kept[self.labels]
        if is_inside.all() or not is_inside.any():
            part = "outside" if is_inside.all() else "inside"
            raise DataError(f"no points are {part} when classes {held_out} are held out")
        inside, outside = self.take(is_inside), self.take(~is_inside)
        targets = inside.targets[:, kept]
        uniform = np.full((outside.num_points, len(remaining)), 1 / len(remaining))
        return (
            inside._with(
                targets=targets / targets.sum(axis=1, keepdims=True), class_names=remaining
            ),
            outside._with(
                targets=uniform, class_names=remaining, name=f"{self.name} (held-out classes)"
            ),
        )

    def merged(self) -> "Dataset":
        """One point per distinct row of features, with the mean of its targets.

        This does not change the ridgeless solution at infinite training time. With a ridge or early
        stopping it changes the weight of repeated points.
        """
        _, first, group = np.unique(
            self.features + 0.0, axis=0, return_index=True, return_inverse=True
        )
        group = group.reshape(-1)
        sums = np.zeros((len(first), self.targets.shape[1]))
        np.add.at(sums, group, self.targets)
        means = sums / np.bincount(group)[:, None]
        order = np.argsort(first)
        kept = first[order]
        return self.take(kept)._with(targets=means[order])

    def check_features(self, features: Any) -> Float[np.ndarray, "k d"]:
        """New inputs for prediction as float64, in the order and on the scale of `self.features`.

        Reads, and raises, as `read_inputs` does.
        """
        return read_inputs(self.columns, features)

    def _classes(self) -> tuple[Hashable, ...]:
        if self.class_names is None:
            raise DataError("real-valued targets have no classes; make class data with Dataset()")
        return self.class_names

    def _strata(self) -> tuple[np.ndarray, np.ndarray]:
        """The class index of each point, and the size of each class; real data are one class."""
        strata = np.zeros(self.num_points, int) if self.class_names is None else self.labels
        return strata, np.bincount(strata, minlength=len(self.class_names or ()))
