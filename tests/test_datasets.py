"""Data sets: what they hold, how they are split, and every input they refuse."""

import subprocess
import sys
from datetime import date

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkbayes.datasets import NAMES, Dataset, Scaling, load
from ntkbayes.errors import (
    ConfigurationError,
    DataError,
    DataWarning,
    UnknownNameError,
)

KEY = jax.random.key(0)
quick = settings(deadline=None, derandomize=True, max_examples=30)


def points(n, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def rows_of(data):
    return [tuple(row) for row in data.features.tolist()]


@st.composite
def labels_of_few(draw):
    """Labels of 6 or 20 points: 4 classes, of which some may be absent or have one point."""
    n = draw(st.sampled_from([6, 20]))  # few sizes: JAX compiles for each
    return draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))


def four_classes(labels):
    return Dataset(points(len(labels)), labels, class_names=range(4))


# What a data set holds


def test_labels_become_one_hot_rows_of_sorted_classes():
    data = Dataset([[1], [2], [3]], ["b", "a", "b"])
    assert data.class_names == ("a", "b")
    np.testing.assert_array_equal(data.targets, [[0, 1], [1, 0], [0, 1]])
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.features.dtype == data.targets.dtype == np.float64
    assert (data.num_points, data.num_features, data.num_classes) == (3, 1, 2)
    assert data.feature_names == ("x0",)
    assert data.scaling is None
    assert repr(data) == "Dataset('data', 3 points, 1 features, 2 classes)"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([2, 1, 2]), (1, 2)),
        ([True, False, True], (False, True)),
        ([1.5, -0.5, 1.5], (-0.5, 1.5)),
        (["b", 1, "b"], ("b", 1)),
        (np.array([("z", 1), ("a", 2), None], dtype=object)[[0, 1, 0]], (("a", 2), ("z", 1))),
        (pd.Series(["y", "x", "y"], index=[7, 8, 9]), ("x", "y")),
        (pd.Categorical(["y", "x", "y"], categories=["y", "x"]), ("x", "y")),
        (np.array([np.int64(3), "a", np.int64(3)], dtype=object), (3, "a")),
        (jax.numpy.array([1, 0, 1]), (0, 1)),
    ],
)
def test_labels_of_any_hashable_kind_are_kept_as_python_objects(labels, classes):
    data = Dataset(points(3), labels)
    assert data.class_names == classes
    assert [type(c) for c in data.class_names] == [type(c) for c in classes]
    first = classes.index(labels[0] if not hasattr(labels, "tolist") else labels.tolist()[0])
    np.testing.assert_array_equal(data.labels, [first, 1 - first, first])


def test_data_frames_give_feature_names():
    frame = pd.DataFrame({"height": [1.0, 2.0], "tall": [False, True]})
    data = Dataset(frame, pd.Series([0, 1]))
    assert data.feature_names == ("height", "tall")
    np.testing.assert_array_equal(data.features, [[1, 0], [2, 1]])


def test_class_names_fix_the_order_and_keep_absent_classes():
    data = Dataset([[0.0]], ["a"], class_names=["c", "a", "b"])
    assert data.class_names == ("c", "a", "b")
    np.testing.assert_array_equal(data.targets, [[0, 1, 0]])


def test_probabilities_are_normalised_to_round_off():
    data = Dataset(points(2), [[0.3, 0.7 + 5e-7], [1, 0]])
    np.testing.assert_array_equal(data.targets.sum(axis=1), [1, 1])
    np.testing.assert_allclose(data.targets[0], [0.3, 0.7], atol=5e-7)
    assert data.class_names == (0, 1)
    assert data.is_degenerate
    assert not data.is_hard


def test_arrays_are_read_only_copies():
    features = points(3)
    data = Dataset(features, [0, 1, 1])
    before = data.features.copy()
    features[:] = 0
    np.testing.assert_array_equal(data.features, before)
    for array in (data.features, data.targets, data.take([0]).features):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    with pytest.raises(AttributeError):
        data.name = "other"


def test_real_values_have_no_classes():
    data = Dataset.real(points(3), [1.5, 2, -1])
    np.testing.assert_array_equal(data.targets, [[1.5], [2], [-1]])
    assert data.class_names is None
    assert not data.is_degenerate
    assert not data.is_hard
    for use in (lambda: data.labels, lambda: data.num_classes, lambda: data.smooth(0.1)):
        with pytest.raises(DataError, match="no classes"):
            use()
    train, test = data.split(KEY, test_share=1 / 3)
    assert (train.num_points, test.num_points) == (2, 1)
    assert train.class_names is None


def test_a_copy_with_another_name_is_otherwise_the_same():
    import dataclasses

    data = Dataset(points(3), ["b", "a", "b"])
    other = dataclasses.replace(data, name="other")
    assert other.name == "other"
    np.testing.assert_array_equal(other.targets, data.targets)


# Smoothing


@quick
@given(labels_of_few(), st.floats(0, 1))
def test_smoothing_stays_on_the_simplex(labels, amount):
    data = four_classes(labels)
    targets = data.smooth(amount).targets
    assert (targets >= 0).all()
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-14)
    expected = (1 - amount) * data.targets + amount / data.num_classes
    np.testing.assert_allclose(targets, expected, rtol=1e-14)


def test_smoothing_makes_hard_targets_interior():
    data = Dataset(points(2), [0, 1])
    assert data.is_hard
    assert data.is_degenerate
    smooth = data.smooth(0.2)
    np.testing.assert_allclose(smooth.targets, [[0.9, 0.1], [0.1, 0.9]], rtol=1e-15)
    assert not smooth.is_hard
    assert not smooth.is_degenerate


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan")])
def test_smoothing_outside_the_unit_interval_is_refused(amount):
    with pytest.raises(ConfigurationError, match=r"must lie in \[0, 1\]"):
        Dataset(points(2), [0, 1]).smooth(amount)


# Splits and subsets


@quick
@given(labels_of_few(), st.integers(0, 99), st.floats(0.05, 0.95))
def test_split_is_a_stratified_partition(labels, seed, share):
    data = four_classes(labels)
    train, test = data.split(jax.random.key(seed), test_share=share, standardise=False)
    assert sorted(rows_of(train) + rows_of(test)) == sorted(rows_of(data))
    label_of = dict(zip(rows_of(data), data.labels, strict=True))
    for part in (train, test):
        assert part.class_names == data.class_names
        assert [label_of[row] for row in rows_of(part)] == part.labels.tolist()
    for label, count in enumerate(np.bincount(data.labels, minlength=4)):
        in_test = (test.labels == label).sum()
        assert abs(in_test - count * share) <= 1
        if count >= 2:
            assert 1 <= in_test <= count - 1
        else:
            assert in_test == 0


@quick
@given(labels_of_few(), st.integers(0, 99))
def test_the_same_key_gives_the_same_split(labels, seed):
    data = four_classes(labels)
    one, other = (
        data.split(key, standardise=False)
        for key in (jax.random.key(seed), jax.random.PRNGKey(seed))
    )
    for part, twin in zip(one, other, strict=True):
        np.testing.assert_array_equal(part.features, twin.features)


def test_other_keys_give_other_splits():
    data = Dataset(points(40), [0, 1] * 20)
    tests = {tuple(rows_of(data.split(jax.random.key(s))[1])) for s in range(5)}
    assert len(tests) == 5


@quick
@given(st.integers(0, 99), st.sampled_from([6, 25]))
def test_scaling_is_fitted_on_the_training_points_only(seed, n):
    data = Dataset(3 + 5 * points(n), [0, 1] * (n // 2) + [0] * (n % 2))
    key = jax.random.key(seed)
    raw_train, raw_test = data.split(key, standardise=False)
    train, test = data.split(key)
    mean, scale = raw_train.features.mean(axis=0), raw_train.features.std(axis=0)
    np.testing.assert_allclose(train.scaling.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(train.scaling.scale, scale, rtol=1e-12)
    for part, raw in ((train, raw_train), (test, raw_test)):
        np.testing.assert_allclose(
            part.features, (raw.features - mean) / scale, rtol=1e-9, atol=1e-12
        )
        np.testing.assert_array_equal(part.scaling(raw.features), part.features)
    assert raw_train.scaling is None


def test_a_second_split_keeps_the_scaling_from_the_first_features():
    data = Dataset(3 + 5 * points(40), [0, 1] * 20)
    train, _ = data.split(KEY)
    raw, _ = data.split(KEY, standardise=False)
    inner, outer = train.split(jax.random.key(1))
    raw_inner, raw_outer = raw.split(jax.random.key(1), standardise=False)
    np.testing.assert_allclose(inner.scaling(raw_inner.features), inner.features, rtol=1e-9)
    np.testing.assert_allclose(inner.scaling(raw_outer.features), outer.features, rtol=1e-9)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_test_share_outside_the_open_interval_is_refused(share):
    with pytest.raises(ConfigurationError, match=r"test_share must lie in \(0, 1\)"):
        Dataset(points(4), [0, 1, 0, 1]).split(KEY, test_share=share)


def test_one_point_cannot_be_split():
    with pytest.raises(DataError, match=r"1 point\(s\) cannot be split"):
        Dataset([[1.0]], [0], class_names=(0, 1)).split(KEY)
    with pytest.raises(DataError, match="no class has two"):
        Dataset(points(2), [0, 1]).split(KEY)


@quick
@given(labels_of_few(), st.integers(0, 99), st.data())
def test_a_subset_has_its_size_and_is_stratified(labels, seed, more):
    data = four_classes(labels)
    counts = np.bincount(data.labels, minlength=4)
    size = more.draw(st.integers(np.count_nonzero(counts), data.num_points))
    subset = data.subset(jax.random.key(seed), size)
    assert subset.num_points == size
    assert set(rows_of(subset)) <= set(rows_of(data))
    assert len(set(rows_of(subset))) == size
    kept = np.bincount(subset.labels, minlength=4)
    quotas = counts * size / data.num_points
    assert (kept[counts > 0] >= 1).all()
    is_rare = quotas < 1  # keeps a point that another class goes without
    assert (kept - quotas < 1)[~is_rare].all()
    assert (quotas - kept < 1 + is_rare.sum()).all()


def test_a_subset_keeps_a_class_of_one_point_in_a_thousand():
    labels = np.repeat([0, 1], [999, 1])
    subset = Dataset(points(1000), labels).subset(KEY, 40)
    assert np.bincount(subset.labels).tolist() == [39, 1]


def test_a_subset_too_small_for_its_classes_is_refused():
    with pytest.raises(ConfigurationError, match="2 points cannot keep 3 classes; take at least 3"):
        Dataset(points(6), [0, 1, 2, 0, 1, 2]).subset(KEY, 2)


@pytest.mark.parametrize("size", [0, 5])
def test_a_subset_of_impossible_size_is_refused(size):
    with pytest.raises(ConfigurationError, match=f"(at least 1;|has 1 to 4,) got {size}"):
        Dataset(points(4), [0, 1, 0, 1]).subset(KEY, size)


def test_take_accepts_indices_and_masks():
    data = Dataset(points(3), [0, 1, 2])
    np.testing.assert_array_equal(data.take([2, 0]).labels, [2, 0])
    np.testing.assert_array_equal(data.take(np.array([True, False, True])).labels, [0, 2])
    assert data.take([2]).class_names == (0, 1, 2)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([3], "invalid indices for 3 points"),
        ([0.5], "invalid indices for 3 points"),
        ([], "non-empty sequence"),
        (0, "non-empty sequence"),
        (np.zeros(3, bool), "chooses no points"),
        (np.ones(4, bool), "invalid indices for 3 points"),
    ],
)
def test_take_refuses_points_that_are_not_there(indices, message):
    with pytest.raises(DataError, match=message):
        Dataset(points(3), [0, 1, 2]).take(indices)


def test_rows_keep_their_names_whatever_becomes_of_them():
    labels = ["a", "b", "c"] * 4
    frame = pd.DataFrame(points(12), index=[f"row {i}" for i in range(12)])
    data = Dataset(frame, labels)
    place = dict(zip(rows_of(data), frame.index, strict=True))
    train, test = data.split(KEY, standardise=False)
    inside, outside = data.hold_out_classes(["c"])
    twice = data.take([0, 0, 3])
    for part in (train, test, inside, outside, twice, twice.merged(), data.smooth(0.1)):
        assert list(part.row_names) == [place[row] for row in rows_of(part)]
    assert list(data.rescaled(None).row_names) == list(frame.index)
    assert list(Dataset(points(3), labels[:3]).take([2, 0]).row_names) == [2, 0]
    assert list(Dataset.real(frame, range(12)).row_names) == list(frame.index)


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (pd.RangeIndex(3), [0, 1, 2]),
        (pd.Index([7, -1, 5]), [7, -1, 5]),
        (pd.Index([0.5, 1.5, 2.5]), ["0.5", "1.5", "2.5"]),
        (pd.date_range("2026-01-01", periods=3), [f"2026-01-0{d} 00:00:00" for d in (1, 2, 3)]),
        (pd.MultiIndex.from_product([["x"], [1, 2, 3]]), ["('x', 1)", "('x', 2)", "('x', 3)"]),
        (pd.Index([None, "b", 3], dtype=object), ["None", "b", "3"]),
    ],
)
def test_row_names_are_the_index_as_whole_numbers_or_text(index, names):
    frame = pd.DataFrame(points(3), index=index)
    found = Dataset(frame, ["a", "b", "a"]).row_names
    assert list(found) == names
    assert found.dtype.kind == ("i" if isinstance(names[0], int) else "U")
    named = Dataset(points(3), pd.Series(["a", "b", "a"], index=index)).row_names
    assert list(named) == names  # where features have no index, that of the targets


def test_merged_averages_targets_of_equal_points():
    data = Dataset([[5, 0], [1, 1], [5, -0.0], [5, 0], [2, 2]], [0, 1, 1, 1, 0])
    merged = data.merged()
    np.testing.assert_array_equal(merged.features, [[5, 0], [1, 1], [2, 2]])
    np.testing.assert_allclose(merged.targets, [[1 / 3, 2 / 3], [0, 1], [1, 0]], rtol=1e-15)
    assert merged.class_names == (0, 1)


# Scaling and new inputs


def test_scaling_centres_and_divides_by_the_deviation():
    scaling = Scaling.fit([[1.0, 10.0], [3.0, 30.0]])
    np.testing.assert_array_equal(scaling.mean, [2, 20])
    np.testing.assert_array_equal(scaling.scale, [1, 10])
    np.testing.assert_array_equal(scaling([[5.0, 0.0]]), [[3, -2]])


def test_constant_columns_are_named_and_not_rescaled():
    frame = pd.DataFrame({"a": [0.1] * 10, "b": range(10)})
    with pytest.warns(DataWarning, match=r"constant columns \['a'\] among 10 points"):
        scaling = Scaling.fit(frame)
    assert scaling.scale[0] == 1
    assert (scaling(frame)[:, 0] == 0).all()
    with pytest.warns(DataWarning, match="'a'"):
        Dataset(frame, [0, 1] * 5).split(KEY)


def test_scaling_survives_tiny_and_refuses_huge_features():
    tiny = Scaling.fit([[1e-300], [3e-300]])
    np.testing.assert_allclose(tiny([[1e-300], [3e-300]]), [[-1], [1]], rtol=1e-12)
    with pytest.raises(DataError, match=r"\['x1'\] overflow when standardised"):
        Scaling.fit([[1, -1.7e308], [2, 1.7e308]])


def test_scaling_refuses_another_number_of_columns():
    with pytest.raises(DataError, match="fitted on 2 features, got 3"):
        Scaling.fit(points(4))(points(4, d=3))


def test_new_inputs_are_checked_against_the_training_features():
    data = Dataset(pd.DataFrame({"a": [0, 1], "b": [1, 0]}), [0, 1])
    np.testing.assert_array_equal(data.check_features([[1, 2]]), [[1.0, 2.0]])
    with pytest.raises(DataError, match="the model was trained on 2 features, got 3"):
        data.check_features(points(4, d=3))
    with pytest.raises(DataError, match="not finite"):
        data.check_features([[np.inf, 0]])
    with pytest.raises(DataError, match=r"got shape \(2,\)"):
        data.check_features([1, 2])
    np.testing.assert_array_equal(
        data.check_features(pd.DataFrame({"b": [1], "a": [0]})), [[0.0, 1.0]]
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, "1", 2], "class names 1 and '1' read the same"),
        (["a\0", "b", "c"], r"class name 'a\\x00' holds NUL"),
        (["a\udce9", "b", "c"], r"class name 'a\\udce9' holds NUL or a lone surrogate"),
        (["1", " 1", "2"], "class names ' 1' and '1' read the same"),
        (["b", "a", "a\u200b"], r"class names 'a' and 'a\\u200b' read the same"),
        (["a b", "a\u00a0b", "c"], r"class names 'a b' and 'a\\xa0b' read the same"),
        (["caf\u00e9", "cafe\u0301", "c"], r"class names 'cafe\\u0301' and 'caf\\xe9' read the"),
    ],
)
def test_class_names_that_files_cannot_keep_apart_or_at_all_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        Dataset(np.eye(3), labels)


def test_times_are_no_features():
    for unit in ("M8[ns]", "M8[s]", "m8[ns]"):
        with pytest.raises(DataError, match=r"column 'x0' holds .* in row 0; count time in a unit"):
            Dataset(np.array([[1], [2]], dtype=unit), [0, 1])


# Bad features


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([[0, 1], [np.nan, np.inf]], r"2 value\(s\).* first nan in row 1, column 'x0'"),
        ([[0, 1], [2, None]], r"1 value\(s\).* first nan in row 1, column 'x1'"),
        (pd.DataFrame({"age": [1, pd.NA]}), "row 1, column 'age'"),
        ([["1", 0], ["red", 0]], "column 'x0' holds 'red' in row 1; encode it"),
        ([["1"], ["2"]], "column 'x0' holds '1' in row 0"),
        ([[10**400], [2]], "first inf in row 0"),
        ([[1j], [2]], "holds 1j in row 0"),
        (pd.DataFrame({"day": pd.to_datetime(["2020-01-01", "2020-01-02"])}), "column 'day' holds"),
        ([1, 2], r"got shape \(2,\); use reshape"),
        (np.zeros((2, 3, 3)), r"got shape \(2, 3, 3\)"),
        ([[1, 2], [3]], "must form a matrix"),
        (np.zeros((0, 3)), r"features are empty \(shape \(0, 3\)\)"),
        (np.zeros((2, 0)), "features are empty"),
        (points(3), "3 rows of features but 2 targets"),
    ],
)
def test_bad_features_are_refused(features, message):
    with pytest.raises(DataError, match=message):
        Dataset(features, [0, 1])


def test_times_of_labels_stay_times_in_any_unit():
    for unit in ("D", "s", "ns"):
        times = np.array(["2021-03-01", "2020-03-01"], f"M8[{unit}]")
        for labels in (times, list(times), np.ma.masked_array(times), xr.DataArray(times)):
            data = Dataset(np.eye(2), labels)
            assert [str(name)[:10] for name in data.class_names] == ["2020-03-01", "2021-03-01"]
            assert all(isinstance(name, date) for name in data.class_names)
            assert data.labels.tolist() == [1, 0]


def test_feature_names_must_match_the_features():
    with pytest.raises(DataError, match="feature_names must be a list, in the order of the col"):
        Dataset(points(2), [0, 1], feature_names={"a", "b"})
    with pytest.raises(DataError, match="1 feature names for 2 features"):
        Dataset(points(2), [0, 1], feature_names=["a"])


# Bad targets


class Tensor:
    """As PyTorch's while gradients are recorded."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("use detach()")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["a", "a"], "all labels are 'a'"),
        ([], "targets are empty"),
        ([0, None], r"1 target\(s\) are missing, in rows 1;"),
        (["a", " \u200b"], r"1 target\(s\) are missing, in rows 1;"),
        (np.array(["2020", "NaT"], "M8[ns]"), r"1 target\(s\) are missing, in rows 1;"),
        (Tensor(), r"must form a vector or a matrix: use detach\(\)"),
        (np.array([np.nan, 1.0]), "in rows 0;"),
        (pd.Series([pd.NA, 1], dtype="Int64"), "in rows 0;"),
        (pd.Series(pd.to_datetime(["2020-01-01", None])), "in rows 1;"),
        ([[0, 1], [0]], "labels must be hashable"),
        (3, r"got shape \(\)"),
        ([[0], [1]], r"got shape \(2, 1\)"),
        ([[1, 0], [-0.5, 1.5]], r"row 1 are not probabilities: \[-0.5, 1.5\]"),
        ([[1, 0], [0.5, 0.6]], r"row 1 are not probabilities: \[0.5, 0.6\]"),
        ([[np.nan, 1], [0, 1]], r"row 0 are not probabilities: \[nan, 1.0\]"),
        ([[0.5, "x"], [0, 1]], "column 1 holds 'x' in row 0"),
        (np.eye(3)[:2], "2 points are fewer than 3 classes"),
        (np.zeros((0, 2)), "targets are empty"),
    ],
)
def test_bad_targets_are_refused(targets, message):
    with pytest.raises(DataError, match=message):
        Dataset(points(2), targets)


def test_many_missing_targets_are_counted():
    with pytest.raises(DataError, match=r"7 target\(s\) are missing, in rows 0, 1, 2, 3, 4, …"):
        Dataset(points(8), [None] * 7 + ["a"])


def test_labels_outside_the_class_names_are_refused():
    with pytest.raises(DataError, match=r"unseen label 'c' in row 1: class_names are \['a', 'b'\]"):
        Dataset(points(2), ["a", "c"], class_names=["a", "b"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "at least two classes"),
        (["a", "a"], "must differ"),
        ({"a", "b"}, "class_names must be a list, in the order of the columns, got {'"),
        ({"a": "no", "b": "yes"}, r"must be a list, .* got \{'a': 'no', 'b': 'yes'\}"),
        (["a", "b", "c"], "3 class names for 2 columns"),
    ],
)
def test_impossible_class_names_are_refused(names, message):
    with pytest.raises(DataError, match=message):
        Dataset(points(2), np.eye(2), class_names=names)


def test_fewer_points_than_classes_are_allowed_with_class_names():
    data = Dataset(points(1), np.eye(3)[:1], class_names="abc")
    assert (data.num_points, data.num_classes) == (1, 3)


def test_fractional_targets_look_like_a_regression():
    with pytest.raises(DataError, match="look like regression; use Dataset"):
        Dataset(points(40), points(40)[:, 0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, np.nan], "values hold 1 value.* row 1, column 0"),
        ([1, "a"], "values must be numbers, but column 0 holds 'a' in row 1"),
        (1.0, r"got shape \(\)"),
        ([1, 2, 3], "2 rows of features but 3 targets"),
    ],
)
def test_bad_real_values_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        Dataset.real(points(2), values)


# Votes of several annotators


def test_counts_become_shares_of_votes():
    data = Dataset.from_counts(points(3), [[3, 1, 0], [0, 0, 2], [1, 1, 1]], class_names="abc")
    np.testing.assert_array_equal(data.targets[:2], [[0.75, 0.25, 0], [0, 0, 1]])
    np.testing.assert_allclose(data.targets[2], 1 / 3)
    assert data.class_names == ("a", "b", "c")
    assert Dataset.from_counts(points(2), pd.DataFrame([[1, 2], [3, 4]])).class_names == (0, 1)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, 2], [0, 0]], "row 1 of counts has no votes"),
        ([[1, 2], [3, -1]], r"counts in row 1 are \[3.0, -1.0\]"),
        ([[np.nan, 2], [3, 1]], r"counts in row 0 are \[nan, 2.0\]"),
        ([[1, 2], [3, np.inf]], "counts in row 1"),
        ([[1, "x"], [3, 1]], "column 1 holds 'x' in row 0"),
        ([1, 2], r"at least two classes, got shape \(2,\)"),
        ([[1], [2]], r"at least two classes, got shape \(2, 1\)"),
        ([[1, 2]], "2 rows of features but 1 targets"),
    ],
)
def test_bad_counts_are_refused(counts, message):
    with pytest.raises(DataError, match=message):
        Dataset.from_counts(points(2), counts, class_names="ab")


# Classes held out


def test_classes_held_out_leave_the_others_inside():
    data = Dataset(points(6), list("abcacb"), class_names="abc", name="letters")
    inside, outside = data.hold_out_classes(["b"])
    np.testing.assert_array_equal(inside.features, data.features[[0, 2, 3, 4]])
    np.testing.assert_array_equal(inside.targets, np.eye(2)[[0, 1, 0, 1]])
    np.testing.assert_array_equal(outside.features, data.features[[1, 5]])
    np.testing.assert_array_equal(outside.targets, np.full((2, 2), 0.5))
    assert inside.class_names == outside.class_names == ("a", "c")
    assert (inside.name, outside.name) == ("letters", "letters (held-out classes)")


def test_soft_targets_inside_are_normalised_over_the_remaining_classes():
    data = Dataset(points(2), [[0.6, 0.2, 0.2], [0.1, 0.2, 0.7]], class_names=range(3))
    inside, outside = data.hold_out_classes([np.int64(2)])
    np.testing.assert_allclose(inside.targets, [[0.75, 0.25]])
    np.testing.assert_array_equal(outside.features, data.features[1:])


def test_held_out_classes_are_put_on_the_scale_of_the_training_points():
    data = Dataset(points(60) * [1, 5] + 3, np.arange(60) % 3)
    inside, outside = data.hold_out_classes([0])
    train, _ = inside.split(KEY)
    moved = outside.rescaled(train.scaling)
    np.testing.assert_array_equal(moved.features, train.scaling(outside.features))
    assert moved.scaling is train.scaling
    np.testing.assert_allclose(moved.rescaled(None).features, outside.features, rtol=1e-13)
    # The same from points that were standardised before.
    first, _ = data.split(KEY)
    again = first.hold_out_classes([0])[1].rescaled(train.scaling)
    raw = first.rescaled(None).hold_out_classes([0])[1]
    np.testing.assert_allclose(again.features, train.scaling(raw.features), atol=1e-13)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["a", "z"], UnknownNameError, "unknown class 'z'; known are: a, b, c, d"),
        ("bc", DataError, r"no points are inside when classes \['b', 'c'\]"),
        (["d"], DataError, r"no points are outside when classes \['d'\]"),
        ([], DataError, "no points are outside"),
        (["a", "b", "c"], DataError, r"at least two classes, got \['d'\]"),
    ],
)
def test_classes_that_cannot_be_held_out_are_refused(names, error, message):
    data = Dataset(points(4), list("bcbc"), class_names="abcd")
    with pytest.raises(error, match=message):
        data.hold_out_classes(names)


def test_real_data_have_no_classes_to_hold_out():
    with pytest.raises(DataError, match="no classes"):
        Dataset.real(points(3), [1, 2, 3]).hold_out_classes([0])


def test_undoing_a_scaling_of_other_columns_is_refused():
    with pytest.raises(DataError, match="fitted on 2 features, got 3"):
        Scaling.fit(points(5)).undo(points(5, 3))


# Named data sets and files


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("breast_cancer", (569, 30), ("malignant", "benign")),
        ("wine", (178, 13), ("class_0", "class_1", "class_2")),
        ("iris", (150, 4), ("setosa", "versicolor", "virginica")),
        ("digits", (1797, 64), tuple(range(10))),
        ("moons", (200, 2), (0, 1)),
    ],
)
def test_named_data_sets_have_their_known_shapes(name, shape, classes):
    data = load(name)
    assert name in NAMES
    assert data.name == name
    assert data.features.shape == shape
    assert data.class_names == classes
    assert [type(c) for c in data.class_names] == [type(c) for c in classes]
    assert data.is_hard


def test_breast_cancer_keeps_its_meaning():
    data = load("breast_cancer")
    assert np.bincount(data.labels).tolist() == [212, 357]
    assert data.feature_names[0] == "mean radius"


def test_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown data set 'mnist'; known are: breast_canc"):
        load("mnist")


def test_importing_data_sets_loads_no_heavy_library():
    heavy = ("sklearn", "pandas", "pyarrow", "matplotlib")
    program = (
        f"import sys, ntkbayes.datasets\nprint([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
