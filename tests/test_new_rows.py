"""`ntkbayes predict`: rows without labels, through what was done to the training table."""

import json
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import ntkbayes as nb
from ntkbayes import storage
from ntkbayes.app.cli import main
from ntkbayes.app.new_rows import predict_rows
from ntkbayes.app.study import Study
from ntkbayes.datasets import read_table
from ntkbayes.errors import NTKBayesError

LAWS = {"MAP": nb.MAP(), "Laplace": nb.Laplace()}


def patients(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"p{seed}{i}" for i in range(n)],
            "dose": rng.normal(50, 10, n).round(1),
            "ward": rng.choice(["north", "south"], n),
            "stage": rng.integers(1, 4, n),
        }
    )
    frame["outcome"] = np.where(
        rng.random(n) < 1 / (1 + np.exp(0.1 * (frame["dose"] - 50))), "well", "ill"
    )
    frame.loc[[0, 2], "dose"] = None
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished study of a table, with the table of test points beside it."""
    folder = tmp_path_factory.mktemp("study")
    for name, frame in (("train", patients(24, 1)), ("test", patients(8, 2))):
        frame.to_csv(folder / f"{name}.csv", index=False)
    train = read_table(
        folder / "train.csv", target="outcome", drop="id", categorical="stage", impute="median"
    )
    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=3.0)
    test = read_table(folder / "test.csv", target="outcome", like=train)
    Study(train, prior, test=test, methods=LAWS).run(folder / "out")
    return folder


def rows(folder, change=lambda frame: frame) -> Path:
    """The test points, changed, as a file of new rows."""
    path = folder / "new.csv"
    change(pd.read_csv(folder / "test.csv")).to_csv(path, index=False)
    return path


def test_the_probabilities_are_those_of_the_law_at_the_test_points(folder):
    expected = storage.load(folder / "out").predictions["MAP"]
    found = predict_rows(folder / "out", rows(folder), law="map")
    assert (found.law, found.class_names) == ("MAP", ("ill", "well"))
    assert found.ignored == ("id", "outcome")
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-12)
    np.testing.assert_array_equal(found.uncertainty.epistemic, 0)  # the law is a point


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.iloc[:, ::-1],
        lambda f: f.drop(columns=["id", "outcome"]),
        lambda f: f.assign(stage=f["stage"].astype(float)),
    ],
)
def test_columns_go_by_name_and_labels_are_not_looked_at(folder, change):
    expected = predict_rows(folder / "out", rows(folder), law="laplace")
    again = predict_rows(folder / "out", rows(folder, change), law="LAPLACE")
    assert again.law == "Laplace"
    assert predict_rows(folder / "out", rows(folder)).law == "MAP"  # the reference
    np.testing.assert_array_equal(again.probabilities, expected.probabilities)


def test_a_row_is_predicted_alike_whatever_else_is(folder):
    whole = predict_rows(folder / "out", rows(folder), law="laplace")
    some = predict_rows(folder / "out", rows(folder, lambda f: f[3:5]), law="laplace")
    np.testing.assert_allclose(some.probabilities, whole.probabilities[3:5], rtol=1e-12)


def test_a_parquet_file_is_read_as_a_csv_is(folder):
    expected = predict_rows(folder / "out", rows(folder), law="MAP")
    pd.read_csv(folder / "test.csv").to_parquet(folder / "new.parquet")
    found = predict_rows(folder / "out", folder / "new.parquet", law="MAP")
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(ward="west", stage=9), "2 problems:\n.*'ward' holds 'west'.*\n.*'9'"),
        (lambda f: f.drop(columns="dose"), "the column 'dose' is missing; give the columns 'dose'"),
        (lambda f: f.assign(weight=1), "'weight' is unknown.*; leave columns out by --drop"),
        (lambda f: f.assign(ward=None), r"column\(s\) 'ward'|no row"),
        (lambda f: f.assign(dose="high"), "column 'dose' holds 'high' in row 0"),
        (lambda f: f[:0], "has no rows"),
        (lambda f: f.rename(columns={"ward": ""}), "a column without a name"),
    ],
)
def test_rows_that_do_not_match_are_told(folder, change, message):
    if message.startswith(r"column\(s\)"):  # a category is filled in as numbers are
        assert len(predict_rows(folder / "out", rows(folder, change)).probabilities) == 8
        return
    with pytest.raises(NTKBayesError, match=message):
        predict_rows(folder / "out", rows(folder, change))


def test_unknown_columns_can_be_dropped_but_not_those_trained_on(folder):
    path = rows(folder, lambda f: f.assign(weight=1))
    assert "weight" in predict_rows(folder / "out", path, drop="weight").ignored
    with pytest.raises(NTKBayesError, match="'dose' was trained on, and cannot be left out"):
        predict_rows(folder / "out", path, drop="weight,dose")
    with pytest.raises(NTKBayesError, match=r"no column 'wieght'.*did you mean 'weight'"):
        predict_rows(folder / "out", path, drop="wieght")


@pytest.mark.parametrize(
    ("where", "law", "message"),
    [
        ("none", None, "there is no folder .*none"),
        ("", None, "is no folder of a comparison"),
        ("train.csv", None, "there is no folder .*train.csv"),
        (
            "out",
            "laplaze",
            "unknown law in .*'laplaze'; known are: MAP, Laplace, base rate.*'Laplace'",
        ),
        ("out", "base rate", "holds no fit of 'base rate': it is a baseline.*of: MAP, Laplace"),
    ],
)
def test_what_cannot_predict_is_told(folder, where, law, message):
    with pytest.raises(NTKBayesError, match=message):
        predict_rows(folder / where, rows(folder), law=law)


def test_a_broken_fit_is_named(folder):
    path = storage.fits_in(folder / "out")["MAP"]
    content = path.read_bytes()
    try:
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(NTKBayesError, match=rf"{path.name} cannot be read"):
            predict_rows(folder / "out", rows(folder), law="MAP")
        path.unlink()
        with pytest.raises(NTKBayesError, match=r"no fit of 'MAP'.*; fits are there of: Laplace"):
            predict_rows(folder / "out", rows(folder), law="MAP")
    finally:
        path.write_bytes(content)


def test_a_fit_that_is_too_large_is_not_kept_and_that_is_told(folder, tmp_path, monkeypatch):
    law = nb.load_law(storage.fits_in(folder / "out")["MAP"])
    monkeypatch.setattr(storage.fits, "LARGEST", 1000)
    assert "MiB, more than" in storage.keep_fit(law, tmp_path / "map.nc")
    assert not os.listdir(tmp_path)


def test_a_law_of_real_networks_which_holds_keys_is_kept(tmp_path):
    iris = nb.datasets.load("iris").subset(jax.random.key(0), 12)
    network, features = nb.networks.mlp(depth=1, width=4, num_outputs=3), jnp.asarray(iris.features)
    kernel = nb.kernels.EmpiricalKernel(network, network.init(jax.random.key(1), features))
    prior = nb.NTKPrior(kernel, ridge=3.0)
    methods = {
        "random init": nb.RandomInit(num_inits=3),
        "ensemble": nb.FiniteEnsemble(network, 2, tolerance=1.0),
    }
    Study(iris, prior, methods=methods, baselines=False).run(tmp_path)
    for name in methods:
        law = nb.load_law(storage.fits_in(tmp_path)[name])
        told = nb.load(tmp_path).predictions[name]
        np.testing.assert_allclose(law.mean(jnp.asarray(told.features)), told.mean, rtol=1e-9)


def test_named_data_are_predicted_by_the_names_of_their_columns(tmp_path):
    iris = nb.datasets.load("iris").subset(jax.random.key(0), 24)
    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=3.0)
    Study(iris, prior, methods={"MAP": nb.MAP()}, baselines=False).run(tmp_path / "out")
    law = nb.load_law(storage.fits_in(tmp_path / "out")["MAP"])
    frame = pd.DataFrame(iris.features, columns=iris.feature_names)
    frame.iloc[:, ::-1].to_csv(tmp_path / "new.csv", index=False)
    found = predict_rows(tmp_path / "out", tmp_path / "new.csv")
    np.testing.assert_allclose(
        found.probabilities, law.predict_proba(iris.rescaled(law.problem.columns.scaling))
    )


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def predict(folder, monkeypatch, capsys):
    """Runs `ntkbayes predict` in the folder of the study."""
    monkeypatch.chdir(folder)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ntkbayes", "predict", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return (code, *capsys.readouterr())

    return run


def test_the_command_writes_a_table_and_tells_what_it_passed_over(predict, folder):
    rows(folder)
    code, out, err = predict("out", "--data", "new.csv", "--law", "map", "--out", "p/map.csv")
    assert code == 0, err
    assert "new.csv: passed over, since no law was trained on it: 'id', 'outcome'" in err
    assert out.splitlines()[0] == "MAP, 8 rows:"
    assert out.endswith("predictions: p/map.csv\n")
    table = pd.read_csv("p/map.csv")
    assert list(table) == ["row", "predicted", "P(ill)", "P(well)", "entropy", "epistemic"]
    expected = predict_rows("out", "new.csv", law="map")
    np.testing.assert_array_equal(table[["P(ill)", "P(well)"]], expected.probabilities)
    likelier = np.where(table["P(ill)"] > table["P(well)"], "ill", "well")
    assert list(table["predicted"]) == list(likelier)


def test_the_command_speaks_json_or_is_quiet(predict, folder):
    rows(folder)
    code, out, err = predict("out", "--data", "new.csv", "--json", "--quiet")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["law"] == "MAP"
    assert found["ignored"] == ["id", "outcome"]
    assert len(found["predictions"]) == 8
    assert predict("out", "--data", "new.csv", "--quiet") == (
        0,
        f"predictions: {Path('out/predictions/new.csv')}\n",
        "",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("out", "--data", "none.csv"), "there is no file none.csv"),
        (("nowhere", "--data", "new.csv"), "there is no folder nowhere"),
        (("out", "--data", "new.csv", "--law", "nuts"), "unknown law in out 'nuts'"),
        (
            ("out", "--data", "new.csv", "--out", "train.csv/p.csv"),
            "cannot make the folder train.csv",
        ),
    ],
)
def test_what_is_wrong_is_one_line(words, message, predict, folder):
    rows(folder)
    code, _, err = predict(*words)
    assert code == 1
    assert f"error: {message}" in err
