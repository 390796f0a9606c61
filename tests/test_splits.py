"""Several splits of the same data: what they share, errors over them, and folders that go on."""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ntkbayes as nb
from ntkbayes import datasets, storage
from ntkbayes.app.baselines import BASELINES
from ntkbayes.app.cli import main
from ntkbayes.app.methods import default_methods
from ntkbayes.app.splits import split_folder, write_report
from ntkbayes.errors import (
    ArgumentError,
    ConfigurationError,
    StorageError,
    UnknownNameError,
)
from ntkbayes.laws import Method
from ntkbayes.repeated import SplitComparison
from ntkbayes.scores.over_splits import chances_on_these_data, mean_over_splits

IRIS = datasets.load("iris").subset(jax.random.key(0), 24)
STUDY = nb.Study(
    IRIS,
    nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1),
    methods=default_methods(("map",)),
    baselines=False,
)


# --- errors over splits ---------------------------------------------------------------------------


def test_error_over_splits_is_that_of_nadeau_and_bengio():
    scores = np.array([0.3, 0.5, 0.4, 0.9])
    found = mean_over_splits(scores, 1 / 3)
    error = np.sqrt((1 / 4 + 1 / 3) * scores.var(ddof=1))
    assert found.value == pytest.approx(0.525)
    assert found.error == pytest.approx(error)
    lower, upper = stats.t.interval(0.9, 3, loc=0.525, scale=error)
    assert (found.lower, found.upper) == pytest.approx((lower, upper))


def test_without_shared_points_the_error_is_that_of_independent_scores():
    scores = np.random.default_rng(0).normal(size=7)
    found = mean_over_splits(scores, 0.0)
    assert found.error == pytest.approx(stats.sem(scores))


def correlated(rng: np.random.Generator, mean: float, rho: float, shape: tuple) -> np.ndarray:
    """Scores that have in common a part of their variance, ρ."""
    common = rng.normal(size=(*shape[:-1], 1))
    return mean + np.sqrt(rho) * common + np.sqrt(1 - rho) * rng.normal(size=shape)


def test_intervals_of_correlated_scores_hold_as_often_as_they_say():
    """n_test / n_train = 1/3 is a correlation of 1/4."""
    scores = correlated(np.random.default_rng(1), 2.0, 0.25, (4000, 5))
    found = [mean_over_splits(each, 1 / 3) for each in scores]
    hold = np.mean([each.lower <= 2.0 <= each.upper for each in found])
    assert hold == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 4000))
    naive = [mean_over_splits(each, 0.0) for each in scores]
    assert np.mean([each.lower <= 2.0 <= each.upper for each in naive]) < 0.8


@pytest.mark.parametrize(
    ("scores", "mean"), [([np.inf, 1.0], np.inf), ([np.inf, -np.inf], np.nan), ([2.0], 2.0)]
)
def test_what_has_no_error_over_splits_has_nan(scores, mean):
    found = mean_over_splits(np.array(scores), 0.25)
    np.testing.assert_equal(found.value, mean)
    assert np.isnan([found.error, found.lower, found.upper]).all()


def test_chances_are_areas_under_the_posterior_of_the_mean():
    differences = np.array([0.03, -0.01, 0.02, 0.05])
    found = chances_on_these_data(differences, 0.5, rope=0.01)
    posterior = stats.t(3, differences.mean(), np.sqrt(0.75) * differences.std(ddof=1))
    assert found.below == pytest.approx(posterior.cdf(-0.01))
    assert found.above == pytest.approx(posterior.sf(0.01))
    assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize(
    ("difference", "chances"), [(0.0, (0, 1, 0)), (0.02, (0, 0, 1)), (-0.02, (1, 0, 0))]
)
def test_differences_that_do_not_vary_leave_no_doubt(difference, chances):
    assert chances_on_these_data(np.full(3, difference), 0.5, rope=0.01) == chances


# --- comparisons over splits ----------------------------------------------------------------------


def made(**nll: list[float]) -> SplitComparison:
    scores = {law: {"accuracy": 1 - np.array(v) / 2, "nll": np.array(v)} for law, v in nll.items()}
    splits = tuple(f"seed {k}" for k in range(len(next(iter(nll.values())))))
    return SplitComparison(scores, splits, 1 / 3, next(iter(nll)))


TWO = made(a=[0.5, 0.7, 0.6], b=[0.4, 0.65, 0.5])


def test_differences_are_paired():
    found = TWO.differences("b")["a"]["nll"]
    assert found.value == pytest.approx(0.25 / 3)
    assert found.error == pytest.approx(np.sqrt((1 / 3 + 1 / 3) * np.var([0.1, 0.05, 0.1], ddof=1)))
    assert found.error < TWO.means["a"]["nll"].error / 2
    assert TWO.best == "b"
    table = TWO.table()
    assert table.loc["b", "nll_difference"] == pytest.approx(-found.value)
    assert table.loc["b", "nll_difference_lower"] == pytest.approx(-found.upper)
    assert table.loc["a", "nll_difference"] == 0


def test_intervals_are_over_splits_or_over_fits_of_the_same_points():
    for given, over in ((TWO, "splits"), (dataclasses.replace(TWO, test_per_train=0.0), "fits")):
        every = [*given.means.values(), *given.differences("b").values()]
        assert {each.over for row in every for each in row.values()} == {given.over}
        assert given.over == over
        assert given.table().attrs["interval"] == f"90% over {over}"
        assert f"comparison over {over}" in repr(given)
        assert f"standard error over {over}" in repr(given)
        assert ("corrected" in repr(given)) == (over == "splits")


def test_lower_nll_and_higher_accuracy_are_better():
    by_nll = TWO.preference("b", "a")
    by_accuracy = TWO.preference("b", "a", score="accuracy", rope=0.005)
    assert by_nll.a_better > 0.8
    assert by_accuracy == pytest.approx(by_nll)  # half the differences, half the region
    assert TWO.preference("a", "b") == pytest.approx(by_nll[::-1])


def test_an_infinite_score_has_no_preference_and_no_error():
    found = made(a=[0.5, np.inf], b=[0.4, 0.6])
    assert np.isnan(found.preference("a", "b")).all()
    assert found.means["a"]["nll"].value == np.inf
    assert found.differences("b")["a"]["nll"].value == np.inf
    assert found.best == "b"


def test_unknown_laws_scores_and_regions_are_named():
    with pytest.raises(UnknownNameError, match="unknown law 'c'; known are: a, b"):
        TWO.preference("a", "c")
    with pytest.raises(UnknownNameError, match="unknown law 'c'"):
        TWO.differences("c")
    with pytest.raises(UnknownNameError, match=r"unknown score 'nil'; known are: accuracy, nll"):
        TWO.preference("a", "b", score="nil")
    with pytest.raises(ConfigurationError, match=r"rope must be at least 0 .* got -0\.1"):
        TWO.preference("a", "b", rope=-0.1)
    with pytest.raises(ConfigurationError, match="take two or more"):
        made(a=[0.5], b=[0.4]).preference("a", "b")
    covered = {law: {"coverage_90": np.array([0.8, 0.95])} for law in "ab"}
    with pytest.raises(ConfigurationError, match=r"right value of coverage_90 is 0\.9"):
        SplitComparison(covered, ("x", "y"), 1 / 3, "a").preference("a", "b", score="coverage_90")


# --- folds ----------------------------------------------------------------------------------------


def test_every_point_is_tested_once_and_classes_are_even():
    folds = IRIS.folds(jax.random.key(3), 4, standardise=False)
    tested = np.concatenate([test.row_names for _, test in folds])
    assert sorted(tested) == sorted(IRIS.row_names)
    for train, test in folds:
        assert np.bincount(test.labels).tolist() == [2, 2, 2]
        assert not set(train.row_names) & set(test.row_names)
    standardised, _ = IRIS.folds(jax.random.key(3), 4)[0]
    np.testing.assert_allclose(standardised.features.mean(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("number", [0, 1, 2.5, "five"])
@pytest.mark.parametrize("kind", [nb.Splits, nb.KFold])
def test_numbers_of_splits_out_of_range_are_refused(kind, number):
    with pytest.raises(ConfigurationError, match=f"number of (splits|folds) must .*{number}"):
        kind(number)


def test_more_folds_than_points_of_a_class_are_refused():
    small = IRIS.take([0, 1, 2, 3, 8, 9, 10, 11, 16, 17])
    names = [str(each) for each in small.class_names]
    with pytest.raises(ConfigurationError, match=f"3 folds .*class .*{names[2]}.* there are 2"):
        small.folds(jax.random.key(0), 3)
    real = nb.Dataset.real(np.arange(4.0)[:, None], np.arange(4.0)[:, None])
    with pytest.raises(ConfigurationError, match="5 folds need at least 5 points, and there are 4"):
        real.folds(jax.random.key(0), 5)


# --- studies --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a study over two random splits, with baselines."""
    folder = tmp_path_factory.mktemp("splits")
    study = dataclasses.replace(STUDY, baselines=True)
    nb.SplitStudy(study, nb.Splits(2)).run(folder, command="ntkbayes compare --splits 2")
    return folder


def fits(monkeypatch) -> list[str]:
    whole, fitted = Method.fit, []

    def fit(self: Method, *args: object, **options: object) -> object:
        fitted.append(self.name)
        return whole(self, *args, **options)

    monkeypatch.setattr(Method, "fit", fit)
    return fitted


def test_the_split_of_a_seed_is_the_same_by_hand():
    seeded = dataclasses.replace(STUDY, seed=5)
    for ours, theirs in zip(seeded.parts(), IRIS.split(jax.random.key(5)), strict=True):
        np.testing.assert_array_equal(ours.row_names, theirs.row_names)
        np.testing.assert_array_equal(ours.features, theirs.features)


def test_scores_over_splits_are_those_of_the_studies_of_its_seeds(finished, tmp_path):
    table = pd.read_csv(finished / "splits.csv", index_col="law")
    assert list(table.index) == ["MAP", *BASELINES]
    alone = dataclasses.replace(STUDY, seed=1).run(tmp_path).scores["MAP"]["nll"].value
    each = [
        storage.load(split_folder(finished, f"seed {seed}")).scores["MAP"]["nll"].value
        for seed in (0, 1)
    ]
    assert each[1] == alone
    assert table.loc["MAP", "nll"] == pytest.approx(np.mean(each))
    error = mean_over_splits(np.array(each), 6 / 18).error
    assert table.loc["MAP", "nll_error"] == pytest.approx(error)


def test_report_over_splits_says_what_its_intervals_are_over(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "2 random splits, of about 18 training points and 6 held-out points each" in text
    assert "Nadeau and Bengio" in text
    assert "90% intervals over splits" in text
    assert "nats per point over 2 splits" in text
    assert "ntkbayes compare --splits 2" in text
    for name in ("seed 0", "seed 1"):
        place = split_folder(finished, name).relative_to(finished).as_posix()
        assert f'<a href="{place}/report.html">{name}</a>' in page
        assert (finished / place / "report.html").is_file()


def test_more_and_fewer_splits_and_laws_go_on_from_what_is_finished(
    finished, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    fitted = fits(monkeypatch)
    found = nb.SplitStudy(STUDY, nb.Splits(3)).run(folder)
    assert (fitted, found.splits) == (["MAP"], ("seed 0", "seed 1", "seed 2"))
    assert list(found.scores) == ["MAP"]
    found = nb.SplitStudy(STUDY, nb.Splits(2)).run(folder)
    assert (fitted, found.splits) == (["MAP"], ("seed 0", "seed 1"))


def test_folds_and_what_an_interrupted_run_reports(tmp_path, monkeypatch):
    whole, fitted = Method.fit, []

    def fit(self: Method, *args: object, **options: object) -> object:
        fitted.append(self.name)
        if len(fitted) == 3:
            raise KeyboardInterrupt
        return whole(self, *args, **options)

    monkeypatch.setattr(Method, "fit", fit)
    study = nb.SplitStudy(STUDY, nb.KFold(4))
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path)
    so_far = write_report(tmp_path)
    assert so_far.splits == ("fold 1", "fold 2")
    assert so_far.settings["unfinished"] == ["fold 3", "fold 4"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not finished yet: fold 3 and fold 4." in page
    found = study.run(tmp_path)
    assert len(fitted) == 5
    assert found.splits == ("fold 1", "fold 2", "fold 3", "fold 4")
    assert found.test_per_train == pytest.approx(1 / 3)
    with pytest.raises(StorageError, match=r"differing in: splits\)"):
        nb.SplitStudy(STUDY, nb.KFold(2)).run(tmp_path)


@pytest.mark.parametrize(
    ("changed", "splitting", "named"),
    [
        ({"seed": 1}, nb.Splits(2), "seed"),
        ({"smoothing": 0.1}, nb.Splits(2), "smoothing"),
        ({}, nb.KFold(2), "splits"),
    ],
)
def test_folder_of_other_splits_is_refused(changed, splitting, named, finished, monkeypatch):
    fitted = fits(monkeypatch)
    study = dataclasses.replace(STUDY, **changed)
    with pytest.raises(StorageError, match=rf"differing in: {named}\); choose another output"):
        nb.SplitStudy(study, splitting).run(finished)
    with pytest.raises(StorageError, match="holds a comparison over splits; choose another"):
        STUDY.run(finished)
    assert fitted == []


def test_folder_of_one_comparison_is_refused(tmp_path, monkeypatch):
    (tmp_path / "laws").mkdir()
    (tmp_path / "laws" / "map.nc").write_bytes(b"")
    with pytest.raises(StorageError, match="holds a comparison; choose another output folder"):
        nb.SplitStudy(STUDY, nb.Splits(2)).run(tmp_path)


def test_test_points_of_ones_own_are_not_split():
    train, test = IRIS.split(jax.random.key(0), standardise=False)
    study = dataclasses.replace(STUDY, data=train, test=test)
    with pytest.raises(ConfigurationError, match=r"test points of its own, .* leave out test="):
        nb.SplitStudy(study, nb.Splits(2))
    with pytest.raises(ArgumentError, match=r"give nb\.Splits\(5\) or nb\.KFold\(5\)"):
        nb.SplitStudy(STUDY, 5)


def test_a_broken_run_record_is_refused(finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    (folder / "run.json").write_text("{}")
    with pytest.raises(StorageError, match=r"run\.json does not name the splits"):
        write_report(folder)
    shutil.rmtree(folder / "splits")
    shutil.copy(finished / "run.json", folder)
    (folder / "splits").mkdir()
    with pytest.raises(StorageError, match="holds no finished split yet"):
        write_report(folder)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def ntkbayes(monkeypatch, capsys, tmp_path):
    """Runs a command in an empty folder, within this process: code, output, messages."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ntkbayes", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


COMPARE = ("compare", "--data", "iris", "--train-size", 24, "--depth", 1, "--laws", "map")
QUICK = (*COMPARE, "--ridge", 0.1, "--no-baselines")


def test_command_compares_over_splits(ntkbayes, finished):
    code, out, err = ntkbayes(*QUICK, "--splits", 2, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["paths"] == {"report": str(Path("runs/iris-splits/report.html"))}
    assert told["splits"] == ["seed 0", "seed 1"]
    assert [row["law"] for row in told["table"]] == ["MAP"]
    code, again, err = ntkbayes("compare", "--config", "runs/iris-splits/options.toml")
    assert code == 0, err
    assert "fold" not in again
    row = told["table"][0]
    assert f"{row['nll']:.3f} ± {row['nll_error']:.3f}" in again
    assert "Means over 2 splits, ± standard error" in again
    before = Path("runs/iris-splits/report.html").read_bytes()
    code, out, err = ntkbayes("report", "runs/iris-splits", "--quiet")
    assert (code, out, err) == (0, "report: runs/iris-splits/report.html\n", "")
    assert len(Path("runs/iris-splits/report.html").read_bytes()) == len(before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--splits", 1), "the number of splits must be at least 2; got 1"),
        (("--folds", 0), "the number of folds must be at least 2; got 0"),
        (("--folds", 9), "9 folds need at least 9 points of the class .* there are 8"),
        (("--splits", 2, "--folds", 2), "leave out one of them"),
        (("--folds", 2, "--test-share", 0.5), "leave out --test-share, or --folds"),
    ],
)
def test_wrong_splits_are_refused_at_once(words, message, ntkbayes):
    code, _, err = ntkbayes(*QUICK, *words)
    assert code == 1
    assert re.search(message, err.splitlines()[-1])
    assert not Path("runs").exists()


def test_splits_of_a_file_with_test_points_are_refused(ntkbayes):
    frame = pd.DataFrame({"x": [0.0, 1.0] * 6, "y": ["a", "b"] * 6})
    frame.to_csv("mine.csv", index=False)
    data = ("compare", "--data", "mine.csv", "--target", "y", "--test", "mine.csv")
    code, _, err = ntkbayes(*data, "--splits", 3)
    assert code == 1
    assert "--test mine.csv has the test points" in err
    assert "leave out --splits" in err
