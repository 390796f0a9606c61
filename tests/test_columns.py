"""What data state of themselves is compared: names and scale of columns, rows, classes, masks, units."""

from functools import partial

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from scipy import sparse

import ntkbayes as nb
from ntkbayes.app.baselines import logistic_regression
from ntkbayes.datasets import Dataset, Scaling
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.predictions import predict_probabilities

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NAMES = ["height", "width", "x0"]
RAW = RNG.normal(size=(12, 3)) * [1.0, 20.0, 0.1] + [0.0, 100.0, 3.0]
LABELS = np.array(["a", "b"])[np.arange(12) % 2]
FRAME = pd.DataFrame(RAW, columns=NAMES)
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1)
DATA = Dataset(FRAME, LABELS)
SCALING = Scaling.fit(FRAME)
STANDARDISED = DATA.rescaled(SCALING)
LAW = nb.MAP().fit(PRIOR, DATA)
SCALED_LAW = nb.MAP().fit(PRIOR, STANDARDISED)
SHUFFLED = FRAME[["x0", "height", "width"]]


@pytest.mark.parametrize(
    "same",
    [
        SHUFFLED,
        Dataset(SHUFFLED, LABELS),
        RAW,
        RAW.tolist(),
        pd.DataFrame(RAW),
        xr.DataArray(SHUFFLED, dims=("n", "d"), coords={"d": list(SHUFFLED.columns)}),
        np.ma.masked_array(RAW, mask=False),
    ],
    ids=["frame", "data set", "array", "list", "frame without names", "xarray", "mask of nothing"],
)
def test_a_law_reads_the_same_columns_alike_in_any_order(same):
    np.testing.assert_array_equal(LAW.mean(same), LAW.mean(RAW))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (FRAME.drop(columns="width"), "other columns: 'width' missing; give the columns 'height'"),
        (FRAME.rename(columns={"x0": "X0"}), "'x0' missing and 'X0' unknown"),
        (FRAME.assign(label=0), "'label' unknown"),
        (Dataset(RAW, LABELS, feature_names="pqr"), "'height', 'width', 'x0' missing and 'p'"),
        (RAW[:, :2], "trained on 3 features, got 2"),
        (STANDARDISED, r"standardised, but the training data were not: give data.rescaled\(None\)"),
        (np.ma.masked_greater(RAW, 100), "missing or not finite"),
        (sparse.csr_array(RAW), r"sparse matrix.*features.toarray\(\)"),
        (RAW[:0], "give at least one point"),
        (1e300 * RAW, "squares overflow float64"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_law_refuses_other_columns_and_says_which(other, message):
    for ask in (LAW.mean, partial(LAW.sample, KEY), partial(predict_probabilities, LAW, key=KEY)):
        with pytest.raises(DataError, match=message):
            ask(other)


def test_data_on_another_known_scale_are_brought_onto_that_of_the_law():
    other = Scaling(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    shuffled = Dataset(SHUFFLED, LABELS).rescaled(other)
    expected = SCALED_LAW.mean(STANDARDISED.features)
    np.testing.assert_allclose(SCALED_LAW.mean(shuffled), expected, rtol=1e-9)
    np.testing.assert_array_equal(SCALED_LAW.mean(STANDARDISED), expected)


@pytest.mark.parametrize("unknown", [DATA, FRAME], ids=["data set", "frame"])
def test_a_law_of_standardised_features_refuses_those_of_unknown_scale(unknown):
    with pytest.raises(DataError, match="the training features were standardised"):
        SCALED_LAW.mean(unknown)
    if isinstance(unknown, Dataset):
        with pytest.raises(DataError, match=r"use data.rescaled\(train.scaling\)"):
            nb.compare({"law": SCALED_LAW}, unknown, key=KEY)


def test_a_scaling_knows_the_names_of_its_columns():
    np.testing.assert_array_equal(SCALING(SHUFFLED), SCALING(RAW))
    np.testing.assert_allclose(SCALING.undo(SCALING(RAW)), RAW, rtol=1e-12)
    again = Dataset(SHUFFLED, LABELS).rescaled(SCALING)
    assert again.feature_names == tuple(NAMES)
    np.testing.assert_array_equal(again.features, STANDARDISED.features)
    mine = Dataset(
        SCALING(RAW)[:, [2, 0, 1]], LABELS, feature_names=SHUFFLED.columns, scaling=SCALING
    )
    np.testing.assert_allclose(mine.rescaled(None).features, SHUFFLED, rtol=1e-12)
    with pytest.raises(DataError, match="'width' missing and 'depth' unknown"):
        SCALING(FRAME.rename(columns={"width": "depth"}))
    with pytest.raises(DataError, match="scaling was fitted on 3 features, got 2"):
        Dataset(RAW[:, :2], LABELS, scaling=SCALING)


@pytest.mark.parametrize(("mean", "scale"), [(np.nan, 1.0), (0.0, 0.0), (0.0, -1.0), (0.0, np.inf)])
def test_a_scaling_that_cannot_be_undone_is_refused(mean, scale):
    with pytest.raises(DataError, match="must be finite, and scales positive"):
        Scaling(np.array([mean]), np.array([scale]))


def test_rows_whose_indices_differ_are_refused():
    labels = pd.Series(LABELS)
    for targets in (labels.sample(frac=1, random_state=0), labels[::-1]):
        with pytest.raises(DataError, match=r"indices differ. Give targets.loc\[features.index\]"):
            Dataset(FRAME, targets)
        found = Dataset(FRAME, targets.loc[FRAME.index])
        np.testing.assert_array_equal(found.targets, DATA.targets)
    kept = FRAME.index[[1, 4, 5, 8]]
    with pytest.raises(DataError, match="row 0 of the features is 1, that of the targets 0"):
        Dataset(FRAME.loc[kept], labels.loc[[0, 4, 5, 8]])
    assert Dataset(FRAME.loc[kept].reset_index(drop=True), labels.loc[kept]).num_points == 4


def test_rows_and_columns_that_xarray_names_are_compared():
    features = xr.DataArray(RAW, dims=("n", "d"), coords={"n": list("abcdefghijkl")})
    targets = xr.DataArray(LABELS, dims="n", coords={"n": features.n})
    assert not Dataset(features, targets).columns.are_named
    with pytest.raises(DataError, match="row 0 of the features is 'a', that of the targets 'l'"):
        Dataset(features, targets[::-1])
    with pytest.raises(DataError, match=r"vary along 'n', .* give features.transpose\('n', ...\)"):
        Dataset(features[:3].T, targets[:3])


@pytest.mark.parametrize("kind", ["pandas", "xarray", "pyarrow"])
def test_votes_of_any_table_are_read_by_the_names_of_their_columns(kind):
    frame = pd.DataFrame({"b": [1, 1], "a": [3, 1]}, index=["u", "v"])
    counts = {
        "pandas": frame,
        "xarray": xr.DataArray(frame, dims=("n", "c"), coords={"c": ["b", "a"]}),
        "pyarrow": pa.table(frame.reset_index(drop=True)),
    }[kind]
    data = Dataset.from_counts(RAW[:2], counts, class_names=["a", "b"])
    np.testing.assert_array_equal(data.targets, [[0.75, 0.25], [0.5, 0.5]])
    assert Dataset.from_counts(RAW[:2], counts).class_names == ("b", "a")


def test_votes_whose_rows_differ_from_those_of_the_features_are_refused():
    votes = pd.DataFrame({"b": [1, 1, 1], "a": [3, 1, 0]}, index=[2, 1, 0])
    with pytest.raises(DataError, match="their indices differ"):
        Dataset.from_counts(FRAME[:3], votes)


def test_an_ordered_categorical_says_the_order_of_the_classes():
    grades = pd.CategoricalDtype(["low", "mid", "high", "top"], ordered=True)
    data = Dataset(RAW[:3], pd.Series(["mid", "high", "low"], dtype=grades))
    assert data.class_names == ("low", "mid", "high", "top")
    assert data.labels.tolist() == [1, 2, 0]


@pytest.mark.parametrize("counts", [False, True])
def test_columns_of_soft_targets_are_matched_with_the_classes_by_name(counts):
    shares = pd.DataFrame({"b": [0.25, 0.5], "a": [0.75, 0.5]})
    make = Dataset.from_counts if counts else Dataset
    values = 8 * shares if counts else shares
    assert make(RAW[:2], values).class_names == ("b", "a")
    data = make(RAW[:2], values, class_names=["a", "b"])
    np.testing.assert_array_equal(data.targets, shares[["a", "b"]])
    with pytest.raises(DataError, match=r"columns of the targets are \['b', 'a'\]"):
        make(RAW[:2], values, class_names=["a", "c"])


class Quantity(np.ndarray):
    """As astropy's."""

    unit = "cm"
    value = property(np.asarray)


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (np.ma.masked_greater(RAW, 100), LABELS, "missing or not finite"),
        (RAW, np.ma.masked_equal(np.arange(12) % 3, 2), r"4 target\(s\) are missing, in rows 2, 5"),
        (RAW, np.ma.masked_less(np.full((12, 2), 0.5), 1.0), "not probabilities"),
        (RAW, sparse.csr_array(np.eye(12)), "targets are a sparse matrix"),
        (RAW.view(Quantity), LABELS, "in units of cm, which would be lost"),
        (FRAME.to_records(index=False), LABELS, "records with the fields"),
        (pd.concat([FRAME, FRAME], axis=1), LABELS, "more than one feature is called 'height'"),
    ],
    ids=["masked", "masked label", "masked share", "sparse", "unit", "records", "names twice"],
)
def test_what_would_be_lost_of_data_is_refused(features, targets, message):
    with pytest.raises(DataError, match=message):
        Dataset(features, targets)


def test_masked_real_targets_are_refused():
    with pytest.raises(DataError, match=r"values hold 1 value\(s\) that are missing"):
        Dataset.real(RAW, np.ma.masked_equal(np.arange(12.0), 3))


def test_predictions_of_other_points_are_refused_though_their_labels_are_alike():
    predictions = nb.predictions.predict(LAW, DATA, key=KEY, name="MAP")
    other = Dataset(FRAME + 1.0, LABELS)
    with pytest.raises(ConfigurationError, match="'MAP' are not of these test points"):
        nb.compare({"MAP": predictions}, other, key=KEY)
    renamed = Dataset(FRAME, np.where(LABELS == "a", "A", "B"))
    with pytest.raises(ConfigurationError, match=r"of the classes \['a', 'b'\]"):
        nb.compare({"MAP": predictions}, renamed, key=KEY)


def test_baselines_read_the_test_data_by_the_names_of_the_training_data():
    both = [logistic_regression(DATA, test, key=KEY) for test in (DATA, Dataset(SHUFFLED, LABELS))]
    np.testing.assert_array_equal(both[0].probabilities, both[1].probabilities)
    with pytest.raises(ConfigurationError, match="the same class_names"):
        logistic_regression(DATA, Dataset(FRAME, LABELS, class_names=["b", "a"]), key=KEY)


def test_calibration_of_a_method_reads_its_inputs_by_name():
    options = {"key": KEY, "num_simulations": 2, "num_draws": 3}
    ranks = [
        nb.checks.simulation_based_calibration(nb.Laplace(), PRIOR, DATA, at=at, **options).ranks
        for at in (FRAME[:2], SHUFFLED[:2])
    ]
    np.testing.assert_array_equal(*ranks)


def test_a_fold_that_would_lose_a_class_is_refused():
    data = Dataset(RAW, [0] * 11 + [1])
    with pytest.raises(DataError, match="the class 1 has one point, which is in one fold"):
        nb.cross_validated_nll(nb.MAP(), PRIOR, data, key=KEY, num_folds=3)
