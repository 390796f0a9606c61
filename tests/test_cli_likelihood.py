"""Targets of numbers and ordered classes: from a table to predictions of new rows."""

import re
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from jax.scipy.stats import norm
from scipy import stats

import ntkbayes as nb
from ntkbayes import storage
from ntkbayes.app.cli import main
from ntkbayes.app.new_rows import predict_rows
from ntkbayes.datasets import read_table
from ntkbayes.errors import NTKBayesError
from ntkbayes.likelihood import LogConcave, Poisson

PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=3.0)


def visits(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": rng.normal(50, 10, n).round(1), "ward": rng.choice(["n", "s"], n)})
    level = (frame["age"] - 50) / 10
    frame["cost"] = 700 + 90 * level + 30 * rng.normal(size=n)
    frame["count"] = rng.poisson(np.exp(1 + 0.6 * level))
    frame["grade"] = np.digitize(level + 0.5 * rng.normal(size=n), [-0.5, 0.5]) + 1
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visits")
    visits(36, 0).to_csv(folder / "train.csv", index=False)
    visits(5, 1).to_csv(folder / "new.csv", index=False)
    return folder


@pytest.fixture
def ntkbayes(folder, monkeypatch, capsys):
    """Runs a command in the folder of the tables: exit code, output, messages."""
    monkeypatch.chdir(folder)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ntkbayes", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run


COLUMNS = {
    "cost": ("normal", "age,ward"),
    "count": ("poisson", "age,ward"),
    "grade": ("ordinal", "age,ward"),
}


def compared(ntkbayes, target: str, *words: str):
    others = ",".join({"cost", "count", "grade"} - {target})
    data = ("--data", "train.csv", "--target", target, "--drop", others, "--depth", 1)
    likelihood = ("--likelihood", COLUMNS[target][0])
    return ntkbayes("compare", *data, *likelihood, "--out", target, *words)


def test_a_table_of_real_targets_goes_to_predictions_of_new_rows(ntkbayes):
    laws = ("--laws", "laplace,random-init", "--draws", 50, "--no-baselines", "--test", "new.csv")
    code, out, err = compared(ntkbayes, "cost", *laws)
    assert code == 0, err
    assert "CRPS" in out
    known = storage.load("cost").predictions
    for law, predictions in known.items():
        code, out, err = ntkbayes("predict", "cost", "--data", "new.csv", "--law", law)
        assert code == 0, err
        assert out.startswith(f"{law}, 5 rows:")
        table = pd.read_csv("cost/predictions/new.csv")
        names = ["row", "mean", "median", "lower 90%", "upper 90%", "std", "epistemic std"]
        assert list(table) == names
        told = predictions.distributions
        # Rows of a file are drawn by themselves, test points together.
        error = 4 * np.sqrt(told.spread.max() / 50) if law == "random init" else 1e-9
        np.testing.assert_allclose(table["mean"], told.mean[:, 0], atol=error, rtol=1e-9)
        if law == "Laplace":
            truth = stats.norm(told.mean[:, 0], told.std[:, 0])
            np.testing.assert_allclose(table["median"], truth.median(), rtol=1e-9)
            np.testing.assert_allclose(table["lower 90%"], truth.ppf(0.05), rtol=1e-9)
            np.testing.assert_allclose(table["upper 90%"], truth.ppf(0.95), rtol=1e-9)
            np.testing.assert_allclose(table["epistemic std"] ** 2, told.spread[:, 0], rtol=1e-9)


@pytest.mark.parametrize("target", ["count", "grade"])
def test_counts_and_ordered_classes_go_to_predictions_of_new_rows(target, ntkbayes):
    code, _, err = compared(ntkbayes, target, "--laws", "map", "--no-baselines")
    assert code == 0, err
    code, _, err = ntkbayes("predict", target, "--data", "new.csv")
    assert code == 0, err
    table = pd.read_csv(f"{target}/predictions/new.csv")
    if target == "grade":
        assert list(table)[1:5] == ["predicted", "P(1)", "P(2)", "P(3)"]
        np.testing.assert_allclose(table[["P(1)", "P(2)", "P(3)"]].sum(axis=1), 1)
        return
    truth = stats.poisson(table["mean"])  # the law is a point
    for name, level in (("lower 90%", 0.05), ("median", 0.5), ("upper 90%", 0.95)):
        np.testing.assert_array_equal(table[name], truth.ppf(level))
    np.testing.assert_allclose(table["std"] ** 2, table["mean"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--likelihood", "gamma"), "unknown likelihood 'gamma'"),
        (("--likelihood", "poison"), "did you mean 'poisson'"),
        (("--data", "iris"), "--likelihood normal goes with a file, --data FILE; iris has classes"),
        (("--target", "ward"), "the targets 'ward' must be finite numbers, but row 0 holds 'n'"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_a_likelihood_that_does_not_go_with_the_data_is_told(command, words, message, ntkbayes):
    given = {"--data": "train.csv", "--target": "cost", "--likelihood": "normal"}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    if given["--data"] == "iris":
        del given["--target"]
    code, _, err = ntkbayes(command, *(part for pair in given.items() for part in pair))
    assert code == 1
    assert message in re.sub(r"\s+", " ", err)


def test_counts_must_be_counts_and_ordered_classes_numbers(ntkbayes):
    pd.DataFrame({"a": [1.0, 2, 3, 4], "y": [0, 1, 2.5, 3]}).to_csv("halves.csv", index=False)
    error = ntkbayes("compare", "--data", "halves.csv", "--target", "y", "--likelihood", "poisson")
    assert "counts must be non-negative integers" in error[2]
    error = ntkbayes(
        "compare", "--data", "train.csv", "--target", "ward", "--likelihood", "ordinal"
    )
    assert "needs the order of the classes, and 'n', 's' are words" in error[2]


# --- new rows -------------------------------------------------------------------------------------


def table_of(folder, target: str):
    others = [each for each in COLUMNS if each != target]
    kind = "classes" if target == "grade" else "numbers"
    return read_table(folder / "train.csv", target=target, drop=others, targets=kind)


def poisson(target, logits):
    return Poisson().log_density(target[None], logits[None])[0]


def drawn_count(key, logits):
    return Poisson().sample(key, logits[None])[0]


@pytest.mark.parametrize("is_own", [False, True], ids=["poisson", "own"])
def test_counts_of_a_row_do_not_depend_on_the_other_rows(is_own, folder, tmp_path):
    own = LogConcave(poisson, num_logits=1, examples=[[0.0], [30.0]], draw=drawn_count)
    law = nb.Laplace().fit(
        PRIOR, table_of(folder, "count"), likelihood=own if is_own else Poisson()
    )
    features = law.problem.features
    draw = {"key": jax.random.key(0), "num_draws": 400}
    whole = nb.predictions.marginal_distributions(law, features, **draw)
    some = nb.predictions.marginal_distributions(law, features[3:5], **draw)
    np.testing.assert_allclose(some.mean, whole.mean[3:5], rtol=1e-12)
    np.testing.assert_array_equal(some.quantile(0.95), whole.quantile(0.95)[3:5])


def test_a_folder_of_splits_is_told_to_name_one(folder, tmp_path):
    for name in ("split-0", "split-1"):
        (tmp_path / "splits" / name).mkdir(parents=True)
    with pytest.raises(
        NTKBayesError, match=r"holds splits, each .* the folder of one: .*split-0, "
    ):
        predict_rows(tmp_path, folder / "new.csv")


# --- a likelihood of classes of one's own ---------------------------------------------------------


def probit(target, logits):
    return (target * norm.logcdf(logits) + (1 - target) * norm.logcdf(-logits))[0]


PROBIT = LogConcave(probit, num_logits=1, examples=[[0.0], [1.0]])


def test_a_probit_likelihood_predicts_classes(folder):
    frame = pd.read_csv(folder / "train.csv")
    data = nb.Dataset(frame[["age"]].to_numpy() / 10 - 5, frame["cost"].to_numpy() > 700)
    law = nb.Laplace().fit(PRIOR, data, likelihood=PROBIT)
    logits = np.asarray(law.sample(key := jax.random.key(1), data))
    found = nb.predictions.predict_probabilities(law, data, key=key)
    np.testing.assert_allclose(found[..., 1], stats.norm.cdf(logits[..., 0]), atol=1e-9)
    told = nb.predict(law, data, key=key)
    mean = stats.norm.cdf(np.asarray(law.sample(jax.random.split(key)[0], data)))[..., 0].mean(0)
    np.testing.assert_allclose(told.probabilities[:, 1], mean, atol=1e-9)
    chosen = np.where(data.labels == 1, mean, 1 - mean)
    np.testing.assert_allclose(told.pointwise_elpd, np.log(chosen), atol=1e-9)
    again = nb.from_datatree(nb.to_datatree(told))
    np.testing.assert_array_equal(again.probabilities, told.probabilities)


def test_densities_of_classes_that_do_not_sum_to_1_are_no_probabilities(folder):
    squares = LogConcave(lambda y, f: -((y - f) ** 2).sum(), num_logits=2, examples=np.eye(2))
    data = read_table(folder / "train.csv", target="ward", drop="cost,count,grade")
    law = nb.MAP().fit(PRIOR, data, likelihood=squares)
    with pytest.raises(
        NTKBayesError, match=r"densities of the 2 classes sum to .*no probabilities"
    ):
        nb.predict(law, data, key=jax.random.key(0))
