"""Studies and comparisons of real targets, counts and ordered classes, from data to report."""

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ntkbayes as nb
from ntkbayes import figures, storage
from ntkbayes.app import report
from ntkbayes.app.baselines import OF_COUNTS, OF_REAL_TARGETS
from ntkbayes.errors import ArgumentError, ConfigurationError, DataError
from ntkbayes.predictions import predictions_from_distributions
from ntkbayes.scores.distributions import Normals

KEY = jax.random.key(0)
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=1.0)
RNG = np.random.default_rng(2)
X = RNG.normal(size=(48, 3))
REAL = nb.Dataset.real(X, 100 + 5 * np.sin(X[:, 0]) + RNG.normal(size=48), name="sines")
COUNTS = nb.Dataset.real(X, RNG.poisson(np.exp(1 + 0.5 * X[:, 0])), name="visits")
GRADES = nb.Dataset(X, np.digitize(X[:, 0] + RNG.normal(size=48), [-0.5, 0.5]), name="grades")
METHODS = {"MAP": nb.MAP(), "Laplace": nb.Laplace()}


def study(data, **changes):
    settings = {"prior": PRIOR, "methods": METHODS, "ridge": nb.RidgeByEvidence(), **changes}
    return nb.Study(data, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def real(folder):
    return study(REAL).run(folder)


def test_a_study_of_real_targets_beats_their_distribution_in_their_own_unit(real):
    assert list(real.predictions) == ["MAP", "Laplace", *OF_REAL_TARGETS]
    table = real.table()
    assert table.loc["Laplace", "nll"] < table.loc["base rate", "nll"] - 0.3
    assert table.loc["Laplace", "rmse"] < 0.7 * table.loc["base rate", "rmse"]
    assert "Normal noise of standard deviation" in real.settings["likelihood chosen"]
    assert 0.5 < real.predictions["Laplace"].likelihood.noise_std < 2
    assert {"crps_lower", "coverage_90", "pit_error", "epistemic_uncertainty"} <= set(table)
    difference = real.score_differences("base rate")["Laplace"]["crps"]
    assert difference.upper < 0


def test_it_is_read_again_as_it_was_and_goes_on_where_it_stopped(real, folder):
    found = storage.load(folder)
    pd.testing.assert_frame_equal(found.table(), real.table())
    again = study(REAL).run(folder)
    pd.testing.assert_frame_equal(again.table(), real.table())


def test_its_report_speaks_of_intervals_and_not_of_classes(real, folder):
    page = (folder / "report.html").read_text()
    for words in ("PIT", "90% intervals", "CRPS", "Width", "squared unit of the target"):
        assert words in page
    for words in ("accuracy", "Brier", "true class", "GP classification", "Total variation"):
        assert words not in page
    assert "Normal noise of standard deviation" in page
    topics = [topic for topic, _ in report.remarks(real)]
    assert topics[:2] == ["Best prediction", "Calibration"]
    assert "NLL (nats)" in repr(real)
    assert "numbers from" in repr(real)


def test_figures_of_classes_are_refused_for_numbers_and_the_reverse(real):
    with pytest.raises(ConfigurationError, match="this comparison is of numbers"):
        figures.reliability(real)
    assert len(figures.pit(real).axes) == 5
    assert len(figures.coverage(real).axes[0].lines) == 6


def test_a_study_of_counts_has_baselines_of_counts(tmp_path):
    found = study(COUNTS, likelihood=nb.PoissonAtMean(), methods={"MAP": nb.MAP()}).run(tmp_path)
    assert list(found.predictions) == ["MAP", *OF_COUNTS]
    base = found.predictions["base rate"]
    rate = base.distributions.mean[0, 0]
    expected = stats.poisson.logpmf(base.targets[:, 0], rate)
    np.testing.assert_allclose(base.pointwise_elpd, expected, rtol=1e-12)
    assert found.table().loc["MAP", "nll"] < found.table().loc["base rate", "nll"]
    pd.testing.assert_frame_equal(storage.load(tmp_path).table(), found.table())


def test_a_study_of_ordered_classes_has_the_ranked_probability_score(tmp_path):
    rule = nb.OrdinalAtFrequencies()
    found = study(GRADES, likelihood=rule, methods={"MAP": nb.MAP()}).run(tmp_path)
    table = found.table()
    assert table["rps"].notna().all()
    assert table.loc["MAP", "rps"] < table.loc["base rate", "rps"]
    assert "ranked probability score" in (tmp_path / "report.html").read_text()


# --- remarks --------------------------------------------------------------------------------------

Y = np.random.default_rng(3).normal(size=(400, 1))
DATA = nb.Dataset.real(np.arange(400.0)[:, None], Y)


def said_of(mean, std, topic="Calibration"):
    told = Normals(np.full((400, 1), mean), np.zeros((400, 1)), np.full((400, 1), std**2))
    law = predictions_from_distributions("law", told, DATA, key=KEY)
    found = nb.compare({"law": law, "other": law}, DATA, key=KEY)
    return dict(report.remarks(found))[topic]


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        (0.0, 1.0, "hold 90% of the targets within error: law"),
        (0.0, 0.6, "Over-confident, with 90% intervals that are too narrow: law, whose hold 0."),
        (0.0, 2.0, "Under-confident, with 90% intervals that are too wide: law, whose hold 0.99"),
        (-0.5, 1.0, "Too low on average"),
        (0.5, 1.0, "Too high on average"),
    ],
)
def test_calibration_is_told_in_words(mean, std, words):
    assert words in said_of(mean, std)


def test_a_law_that_loses_to_the_base_rate_is_named():
    from ntkbayes.app.number_baselines import gaussian_base_rate

    told = Normals(np.full((400, 1), 5.0), np.zeros((400, 1)), np.ones((400, 1)))
    law = predictions_from_distributions("law", told, DATA, key=KEY)
    base = gaussian_base_rate(DATA, DATA, key=KEY)
    found = nb.compare({"law": law, "base rate": base}, DATA, key=KEY)
    text = dict(report.remarks(found))["Base rate"]
    assert "targets’ distribution" in text
    assert "law by 12" in text


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "likelihood", "message"),
    [
        (GRADES, nb.likelihood.Normal(), "takes real targets; make them with Dataset.real"),
        (GRADES, nb.PoissonAtMean(), "takes counts; make them with Dataset.real"),
        (REAL, nb.likelihood.Categorical(), "real targets, not classes; use a Normal likelihood"),
        (REAL, nb.PoissonAtMean(), "counts must be non-negative integers"),
        (nb.Dataset.real(X, np.ones(48)), None, "targets of the training points are 1"),
    ],
)
def test_targets_that_a_likelihood_does_not_take_are_refused(data, likelihood, message, tmp_path):
    with pytest.raises(DataError, match=message):
        study(data, likelihood=likelihood).run(tmp_path)
    assert not list(tmp_path.glob("laws/*"))


def test_classes_and_numbers_are_not_compared():
    law = nb.MAP().fit(PRIOR, GRADES)
    given = nb.predict(law, GRADES, key=KEY)
    with pytest.raises(ConfigurationError, match="test data have"):
        nb.compare({"MAP": given}, DATA, key=KEY)
    numbers = predictions_from_distributions("law", Normals(Y, 0 * Y, 0 * Y + 1), DATA, key=KEY)
    with pytest.raises(ConfigurationError, match="are of numbers, the test data have the classes"):
        nb.compare({"law": numbers}, GRADES, key=KEY)
    with pytest.raises(ArgumentError, match=r"compare predictions\.target_draws"):
        nb.checks.predictive_check(numbers, np.mean)


@pytest.mark.parametrize(
    "values",
    [[1.0, np.nan], [1.0, np.inf], ["a", "b"], [1 + 2j, 3.0], [[1.0, None], [2.0, 3.0]]],
    ids=["nan", "inf", "text", "complex", "missing"],
)
def test_targets_that_are_no_numbers_are_refused(values):
    with pytest.raises(DataError, match=r"values (must be numbers|hold 1 value)"):
        nb.Dataset.real([[0.0], [1.0]], values)
