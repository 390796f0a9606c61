"""Columns of tables as people have them: categories, missing values, identifiers."""

import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import ntkbayes as nb
from ntkbayes.datasets import from_frame, read_table
from ntkbayes.errors import ConfigurationError, DataError, DataWarning, UnknownNameError

NUMBERS, CATEGORIES = ["age", "income"], ["port", "plan"]


def people(n: int = 40, seed: int = 0) -> pd.DataFrame:
    """Two numeric columns, words, codes and labels; values are missing in all but the labels."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "port": rng.choice(["oslo", "cork", "bari"], n).astype(object),
            "age": rng.normal(40, 10, n).round(2),
            "plan": rng.integers(1, 4, n).astype(float),
            "income": rng.normal(3, 1, n).round(3),
            "left": rng.choice(["yes", "no"], n),
        }
    )
    for name in (*NUMBERS, *CATEGORIES):
        frame.loc[rng.choice(n, 4, replace=False), name] = None
    return frame


@pytest.fixture
def table(tmp_path):
    """Writes a data frame as CSV; returns its path."""

    def write(frame, name="people.csv"):
        frame.to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


OPTIONS = {"target": "left", "categorical": ["plan"], "impute": "median"}


# --- oracles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("impute", ["median", "mean", "most-frequent"])
def test_a_split_is_prepared_as_scikit_learn_does_from_its_training_points_alone(impute, table):
    frame = people()
    data = read_table(table(frame), **{**OPTIONS, "impute": impute})
    train, test = data.split(jax.random.key(1))
    columns = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(SimpleImputer(strategy=impute.replace("-", "_")), StandardScaler()),
                NUMBERS,
            ),
            (
                "categories",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"),
                    OneHotEncoder(
                        sparse_output=False, categories=[["bari", "cork", "oslo"], [1.0, 2.0, 3.0]]
                    ),
                ),
                CATEGORIES,
            ),
        ]
    )
    raw = frame.astype({"port": object})
    raw["port"] = raw["port"].where(raw["port"].notna(), np.nan)
    np.testing.assert_allclose(train.features, columns.fit_transform(raw.loc[train.row_names]))
    np.testing.assert_allclose(test.features, columns.transform(raw.loc[test.row_names]))
    assert train.feature_names[2:] == (
        *("port=bari", "port=cork", "port=oslo"),
        *("plan=1", "plan=2", "plan=3"),
    )


def test_what_stands_for_missing_values_is_not_learnt_from_test_points(table):
    frame = pd.DataFrame({"x": [1.0, 2.0, None, 4.0] * 5, "y": list("ab") * 10})
    data = read_table(table(frame), target="y", impute="mean")
    train, test = data.take(np.arange(20) < 3).made_ready(
        data.take(np.arange(20) >= 3), standardise=False
    )
    assert train.features[2, 0] == 1.5  # of 1 and 2
    assert test.features[3, 0] == 1.5
    assert data.features[2, 0] == pytest.approx(7 / 3)


# --- equivalences ---------------------------------------------------------------------------------


def test_files_and_data_frames_of_all_kinds_make_the_same_features(table, tmp_path):
    frame = people()
    expected = read_table(table(frame), **OPTIONS)
    frame.to_parquet(tmp_path / "people.parquet")
    declared = frame.astype({"port": "category", "plan": "Int64"})
    declared["plan"] = declared["plan"].astype("category")
    for other in (
        read_table(tmp_path / "people.parquet", **OPTIONS),
        from_frame(frame, **OPTIONS),
        from_frame(declared, target="left", impute="median"),
        from_frame(pa.Table.from_pandas(frame), **OPTIONS),
    ):
        assert other.feature_names == expected.feature_names
        np.testing.assert_array_equal(other.features, expected.features)
        np.testing.assert_array_equal(other.targets, expected.targets)


def test_a_law_takes_new_rows_through_the_preparation_it_was_trained_on(table, tmp_path):
    train, test = read_table(table(people()), **OPTIONS).split(jax.random.key(0))
    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=1.0)
    law = nb.MAP().fit(prior, train)
    rows = people().loc[test.row_names].iloc[:, ::-1]  # columns in another order, labels among them
    expected = law.predict_proba(test)
    np.testing.assert_array_equal(law.predict_proba(rows), expected)
    np.testing.assert_array_equal(law.predict_proba(rows.drop(columns="left")), expected)
    later = read_table(table(rows, "later.csv"), target="left", like=train)
    np.testing.assert_array_equal(law.predict_proba(later), expected)
    nb.save_law(law, tmp_path / "map.law")
    np.testing.assert_array_equal(nb.load_law(tmp_path / "map.law").predict_proba(rows), expected)
    with pytest.raises(
        DataError, match=r"column 'port' holds 'rome'.*categories are 'bari', 'cork'"
    ):
        law.predict_proba(rows.assign(port="rome"))


def test_a_table_prepared_by_itself_is_prepared_anew_for_the_law(table):
    train = read_table(table(people()), **OPTIONS).standardised()
    law = nb.MAP().fit(nb.NTKPrior(nb.networks.mlp(depth=1), ridge=1.0), train)
    rows = people(seed=5)
    own = read_table(table(rows, "own.csv"), **OPTIONS).rescaled(train.scaling)
    assert own.columns.preparation != train.columns.preparation
    np.testing.assert_allclose(law.predict_proba(own), law.predict_proba(rows), rtol=1e-12)


def test_tables_are_read_without_pandas(table):
    path = table(people())
    code = f"""
import sys
class WithoutPandas:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "pandas":
            raise ImportError(name)
sys.meta_path.insert(0, WithoutPandas())
from ntkbayes.datasets import read_table
import jax
data = read_table({str(path)!r}, target="left", categorical="plan", impute="median")
train, test = data.split(jax.random.key(0))
print(*train.features.sum(axis=0).round(6).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    train, _ = read_table(path, **OPTIONS).split(jax.random.key(0))
    assert [float(v) for v in done.stdout.split()] == train.features.sum(axis=0).round(6).tolist()


# --- contract -------------------------------------------------------------------------------------


def test_columns_of_words_are_detected_and_told(table):
    frame = people().dropna()[["age", "port", "left"]].reset_index(drop=True)
    data = read_table(table(frame), target="left")
    assert data.feature_names == ("age", "port=bari", "port=cork", "port=oslo")
    assert data.preparation_told == "Categories, one-hot: 'port' (bari, cork, oslo)."
    assert "Categories, one-hot: 'port'" in repr(data._sheet)


def test_codes_are_numbers_unless_they_are_declared(table):
    frame = people().dropna()[["plan", "left"]]
    assert read_table(table(frame), target="left").feature_names == ("plan",)
    data = read_table(table(frame), target="left", categorical="plan")
    assert data.feature_names == ("plan=1", "plan=2", "plan=3")


def test_what_was_filled_in_is_told_with_its_count(table):
    told = read_table(table(people()), **OPTIONS, drop="income").preparation_told
    assert "Left out: 'income'." in told
    assert "by the median of the training points 'age' (4)" in told
    assert "by the most frequent category of the training points 'port' (4), 'plan' (4)" in told


def test_declared_categories_are_kept_though_no_row_has_them():
    levels = pd.Categorical(["low", "high", "low"], categories=["low", "mid", "high"], ordered=True)
    data = from_frame(pd.DataFrame({"x": levels, "y": ["a", "b", "a"]}), target="y")
    assert data.feature_names == ("x=low", "x=mid", "x=high")
    train, _ = data.made_ready(data)  # no warning: what tells a category is not rescaled
    np.testing.assert_array_equal(train.features, [[1, 0, 0], [0, 0, 1], [1, 0, 0]])


def test_words_for_missing_values_are_missing_only_if_it_is_said(table):
    frame = pd.DataFrame({"x": [1, 2, 3, "NA"], "c": ["u", "?", "v", "u"], "y": list("abab")})
    with pytest.raises(
        DataError, match=r"'NA' in row 3; if it stands for a missing value.*--missing NA"
    ):
        read_table(table(frame), target="y")
    with pytest.warns(DataWarning, match=r"the category '\?', in 1 rows; .*--missing \?"):
        data = read_table(table(frame), target="y", missing="NA", impute="mean")
    assert data.feature_names == ("x", "c=?", "c=u", "c=v")
    data = read_table(table(frame), target="y", missing=["NA", "?"], impute="mean")
    np.testing.assert_array_equal(data.features, [[1, 1, 0], [2, 1, 0], [3, 0, 1], [2, 1, 0]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (range(12), "'x' counts the rows"),
        (range(1, 13), "'x' counts the rows"),
        ([7 * i + 3 for i in range(12)], "'x' holds another whole number in every row"),
    ],
)
def test_numbers_that_look_like_identifiers_are_told(values, message, table):
    frame = pd.DataFrame({"x": list(values), "z": [0.5, 1, 2] * 4, "y": list("ab") * 6})
    with pytest.warns(DataWarning, match=message):
        read_table(table(frame), target="y")
    assert read_table(table(frame), target="y", drop="x").feature_names == ("z",)


def test_words_that_look_like_identifiers_are_refused_unless_declared(table):
    frame = pd.DataFrame({"x": [f"p{i}" for i in range(12)], "y": list("ab") * 6})
    with pytest.raises(DataError, match=r"12 different words in 12 rows, such as 'p0'.*--drop x"):
        read_table(table(frame), target="y")
    assert read_table(table(frame), target="y", categorical="x").num_features == 12


def test_row_numbers_without_a_name_can_be_left_out(tmp_path):
    path = tmp_path / "t.csv"
    people().dropna()[["age", "left"]].to_csv(path)
    with pytest.raises(DataError, match=r"a column without a name.*--drop ''"):
        read_table(path, target="left")
    assert read_table(path, target="left", drop="").feature_names == ("age",)


def test_all_problems_of_a_table_are_told_at_once(table):
    frame = people(12)
    frame["born"] = [f"19{i}-01-01" for i in range(70, 82)]
    frame["price"] = [f"{i},50" for i in range(12)]
    frame["mixed"] = [*range(11), "tall"]
    frame["empty"] = None
    frame["id"] = range(12)
    frame.loc[2, "left"] = None
    with pytest.raises(DataError) as told:
        read_table(table(frame), target="left")
    first, *lines = str(told.value).splitlines()
    assert first.endswith("people.csv has 6 problems:")
    for part in (
        r"1 target(s) are missing, in rows 2",
        "column 'born' holds '1970-01-01' in row 0 and 11 more that are no numbers; count time",
        "column 'price' holds '0,50' in row 0 and 11 more that are no numbers; write plain numbers",
        "column 'mixed' holds 'tall' in row 11; encode it",
        "column 'empty' has no values; drop it (--drop empty)",
        "16 value(s) are missing, in the column(s) 'age' (4), 'plan' (4), 'income' (4), 'port' (4)",
        "besides: the column 'id' counts the rows",
    ):
        assert any(part in line for line in lines), part


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"drop": "ag"}, "no column 'ag'.*did you mean 'age'"),
        ({"categorical": ["age", "aeg"]}, "no column 'aeg'"),
        ({"drop": "left"}, "'left' holds the labels"),
        ({"categorical": "left"}, "'left' holds the labels"),
        ({"drop": "plan", "categorical": "plan"}, "'plan' is dropped, and declared categorical"),
        ({"drop": "age,income,port,plan"}, "no features: its only column .* but for 'age', "),
        ({"target": "lef", "drop": "ag"}, "2 problems:\n.*'lef'.*\n.*'ag'"),
    ],
)
def test_columns_that_are_not_there_are_told(words, message, table):
    with pytest.raises(DataError, match=message):
        read_table(table(people()), **{"target": "left", **words})


def test_an_unknown_imputation_is_told():
    with pytest.raises(
        UnknownNameError, match=r"'medain'; known are: median.*did you mean 'median'"
    ):
        from_frame(people(), target="left", impute="medain")


def test_a_column_without_values_in_the_training_points_is_told():
    frame = pd.DataFrame({"x": [None] * 10 + [1.0] * 10, "z": [0.5, 1] * 10, "y": list("ab") * 10})
    data = from_frame(frame, target="y", impute="median")
    with pytest.raises(
        DataError, match="column 'x' is without any value in the rows to learn from"
    ):
        data.take(np.arange(10)).made_ready(data.take(np.arange(10, 20)))


# --- like another table ---------------------------------------------------------------------------


def test_a_test_table_is_prepared_as_the_training_table(table):
    train = read_table(table(people()), **OPTIONS, drop="income")
    other = people(seed=3).assign(income="secret")  # it is dropped, whatever it holds
    test = read_table(table(other, "test.csv"), target="left", like=train)
    assert test.columns.preparation == train.columns.preparation
    missing = other["age"].isna().to_numpy()
    assert set(test.features[missing, 0]) == {people()["age"].median()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(port="rome", plan=7), "2 problems:\n.*'rome'.*\n.*'7', first in row 0"),
        (lambda f: f.drop(columns=["age", "port"]), "the columns 'age', 'port' are missing"),
        (lambda f: f.assign(hight=1), "the column 'hight' is unknown"),
        (lambda f: f.assign(age="old"), "column 'age' holds 'old' in row 0"),
    ],
)
def test_a_test_table_that_does_not_match_is_told(change, message, table):
    train = read_table(table(people()), **OPTIONS)
    with pytest.raises(DataError, match=message):
        read_table(table(change(people()), "test.csv"), target="left", like=train)


def test_missing_values_of_a_test_table_need_a_training_table_that_says_how_to_fill_them(table):
    train = read_table(table(people().dropna()), target="left", categorical="plan")
    with pytest.raises(DataError, match=r"missing, in the column\(s\) 'age' \(4\)"):
        read_table(table(people(), "test.csv"), target="left", like=train)
    with pytest.raises(ConfigurationError, match="prepared as those were; leave out"):
        read_table(table(people(), "test.csv"), target="left", like=train, impute="mean")


# --- properties -----------------------------------------------------------------------------------

CELL = st.one_of(st.none(), st.floats(-1e6, 1e6))
WORD = st.sampled_from(["u", "v", "w w", "é"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(CELL, WORD), min_size=3, max_size=9), st.permutations(["x", "c", "y"]))
def test_features_do_not_depend_on_the_order_of_columns_and_each_row_has_one_category(cells, order):
    cells = [*cells, (1.5, "u"), (2.5, "v")]
    frame = pd.DataFrame(cells, columns=["x", "c"]).astype({"x": float})
    frame["y"] = (["a", "b"] * len(frame))[: len(frame)]
    data = from_frame(frame, target="y", impute="median")
    again = from_frame(frame[order], target="y", impute="median")
    np.testing.assert_array_equal(again.features, data.features)
    np.testing.assert_array_equal(data.features[:, 1:].sum(axis=1), 1)
    known = frame["x"].notna()
    np.testing.assert_array_equal(data.features[known, 0], frame["x"][known])


# --- from CSV to conclusion -----------------------------------------------------------------------


def noisy(n: int, seed: int) -> tuple[pd.DataFrame, float]:
    """Two classes, ten numbers, two columns of words and one of codes, 5 % of the cells missing; and the
    error of whoever knows the truth."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 10)), columns=[f"m{j}" for j in range(10)])
    frame["region"] = rng.choice(["north", "south", "east", "west"], n, p=[0.4, 0.3, 0.2, 0.1])
    frame["plan"] = rng.choice(["basic", "plus", "pro"], n)
    frame["grade"] = rng.integers(1, 6, n)
    effects = {"north": -0.4, "south": 0.1, "east": 0.5, "west": 0.3}
    logit = (
        0.8 * frame["m0"] - 0.6 * frame["m1"] + 0.4 * frame["m2"] + 0.3 * (frame["plan"] == "pro")
    )
    chances = 1 / (1 + np.exp(-(logit + frame["region"].map(effects) + 0.1 * (frame["grade"] - 3))))
    cells = frame.astype(object).mask(rng.random(frame.shape) < 0.05)
    cells["churn"] = np.where(rng.random(n) < chances, "yes", "no")
    return cells, float(np.minimum(chances, 1 - chances).mean())


def test_on_a_noisy_table_the_default_ridge_is_no_worse_than_logistic_regression(table, tmp_path):
    frame, bayes_error = noisy(600, 0)
    assert 0.27 < bayes_error < 0.33
    data = read_table(table(frame), target="churn", categorical="grade", impute="median")
    assert len(data.columns.preparation.names) == 13
    study = nb.Study(
        data,
        nb.NTKPrior(nb.networks.mlp(depth=2), ridge=1.0),
        methods={"MAP": nb.MAP()},
        ridge=nb.RidgeByEvidence(),
    )
    found = study.run(tmp_path / "out").predictions
    nll = {name: -np.log((p.probabilities * p.targets).sum(axis=1)) for name, p in found.items()}
    for other, is_beaten in (("logistic regression", False), ("base rate", True)):
        excess = nll["MAP"] - nll[other]
        error = excess.std(ddof=1) / np.sqrt(len(excess))
        bound = -2 * error if is_beaten else 2 * error
        assert excess.mean() < bound, other
