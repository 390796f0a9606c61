"""Laws over data sets: against a Gaussian posterior, simulated scores, and what needs no chains."""

import dataclasses
import re

import jax
import numpy as np
import pandas as pd
import pytest
from numpyro.handlers import condition

import ntkbayes as nb
from ntkbayes.app import report
from ntkbayes.app.cli import terminal
from ntkbayes.app.sweep import Sweep, grid, result_of
from ntkbayes.app.sweep_result import Failure, Group, comparisons_over_seeds
from ntkbayes.errors import ArgumentError, ConfigurationError, UnknownNameError
from ntkbayes.repeated import SplitComparison, compare_over_data_sets, data_sets
from ntkbayes.repeated.data_sets import model, sample
from ntkbayes.scores.intervals import Over
from ntkbayes.scores.over_splits import mean_over_splits

KEY = jax.random.key(0)
RATIO = 1 / 3


def on_splits(**nll: np.ndarray) -> SplitComparison:
    scores = {
        law: {"accuracy": 1 - np.asarray(v) / 2, "nll": np.asarray(v)} for law, v in nll.items()
    }
    splits = tuple(f"seed {k}" for k in range(len(next(iter(nll.values())))))
    return SplitComparison(scores, splits, RATIO, next(iter(nll)))


# --- the model ------------------------------------------------------------------------------------


def test_with_known_variances_the_posterior_is_gaussian():
    """Then δ₀ has the precision of its prior and of every mean."""
    rng = np.random.default_rng(0)
    means, errors = rng.normal(size=(2, 3)), rng.uniform(0.3, 1, size=(2, 3))
    spread = np.array([0.5, 1.5])
    ones = np.ones_like(means)
    known = {"spread": spread, "freedom": np.ones(2), "precision": ones, "within": ones}
    given = condition(model, known)
    draws, divergences = sample(
        means, errors, np.full(3, 4.0), key=KEY, target=given, num_warmup=200, num_chains=2
    )
    precision = 1 / 25 + np.sum(1 / (spread[:, None] ** 2 + errors**2), axis=1)
    mean = np.sum(means / (spread[:, None] ** 2 + errors**2), axis=1) / precision
    centre = draws["centre"].reshape(-1, 2)
    assert divergences == 0
    error = 5 / np.sqrt(250)  # at least a quarter of the draws count
    np.testing.assert_allclose((centre.mean(axis=0) - mean) * np.sqrt(precision), 0, atol=error)
    np.testing.assert_allclose(centre.var(axis=0) * precision, 1, atol=error * np.sqrt(2))


def test_intervals_hold_as_often_as_they_say():
    """Of differences that are simulated from the model, all in one run."""
    pairs, sets, splits = 24, 4, 5
    rng = np.random.default_rng(1)
    centre, spread = 5 * rng.normal(size=pairs), np.abs(2 * rng.normal(size=pairs))
    freedom = rng.gamma(2, 10, size=pairs)
    deltas = centre[:, None] + spread[:, None] * rng.standard_t(
        np.broadcast_to(freedom[:, None], (pairs, sets))
    )
    sigma, rho = rng.uniform(0.2, 2, size=(pairs, sets, 1)), RATIO / (1 + RATIO)
    noise = np.sqrt(rho) * rng.normal(size=(pairs, sets, 1))
    noise = noise + np.sqrt(1 - rho) * rng.normal(size=(pairs, sets, splits))
    scores = deltas[..., None] + sigma * noise
    means = scores.mean(axis=-1)
    errors = np.sqrt(1 / splits + RATIO) * scores.std(axis=-1, ddof=1)
    few = {"num_warmup": 200, "num_samples": 200, "num_chains": 2}
    draws, _ = sample(means, errors, np.full(sets, splits - 1.0), key=KEY, **few)
    lower, upper = np.quantile(draws["centre"], [0.05, 0.95], axis=(0, 1))
    hold = np.mean((lower <= centre) & (centre <= upper))
    assert hold == pytest.approx(0.9, abs=3 * np.sqrt(0.09 / pairs))


# --- comparisons ----------------------------------------------------------------------------------


def simulated(difference: float, *, number: int = 4) -> dict[str, SplitComparison]:
    """Data sets on which law b has that much more NLL than law a, and law c as much as a."""
    rng, found = np.random.default_rng(2), {}
    for k in range(number):
        a = rng.uniform(0.2, 0.8) + 0.05 * rng.normal(size=5)
        b = a + difference + 0.02 * rng.normal() + 0.01 * rng.normal(size=5)
        found[f"data {k}"] = on_splits(a=a, b=b, c=a)
    return found


def test_a_known_difference_is_found():
    found = compare_over_data_sets(simulated(0.2), key=KEY)
    ab, ac, bc = found.pairs
    assert [(p.a, p.b) for p in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert ab.preference.a_better > 0.95
    assert ab.difference.lower < -0.2 < ab.difference.upper
    assert sum(ab.preference) == pytest.approx(1)
    assert bc.preference.b_better > 0.95
    assert (ac.preference, ac.difference.value) == ((0.0, 1.0, 0.0), 0.0)
    assert found.max_rhat < 1.05
    table = found.table()
    assert list(table.columns[:5]) == ["a", "b", "a_better", "equivalent", "b_better"]
    assert table.loc[0, "difference"] == ab.difference.value
    assert {p.difference.over for p in found.pairs} == {Over.DATA_SETS}
    assert set(table["interval"]) == {"90% over data sets and splits"}
    assert "comparison over data sets" in repr(found)


@pytest.fixture
def without_chains(monkeypatch):
    """Draws that are always of centre 1 and spread ½, in units of the differences."""

    def drawn(means, errors, freedom, *, key):
        rng = np.random.default_rng(0)
        shape = (2, 50, len(means))
        spread = 0.5 + 1e-3 * rng.normal(size=shape)
        return {
            "centre": 1 + 1e-3 * rng.normal(size=shape),
            "spread": spread,
            "freedom": np.full(shape, 1e6),
        }, 0

    monkeypatch.setattr(data_sets, "sample", drawn)


def test_laws_are_compared_in_the_direction_of_the_score(without_chains):
    """a − b is one unit, and spread ½: two standard deviations above nothing."""
    sets = simulated(0.2)
    by_nll = compare_over_data_sets(sets, key=KEY, rope=0.0).pairs[0].preference
    by_accuracy = compare_over_data_sets(sets, key=KEY, rope=0.0, score="accuracy")
    assert by_nll.b_better == pytest.approx(0.977, abs=0.005)
    assert by_accuracy.pairs[0].preference.a_better == pytest.approx(0.977, abs=0.005)


def test_an_infinite_score_has_no_preference(without_chains):
    sets = simulated(0.1)
    sets["data 0"].scores["b"]["nll"][2] = np.inf
    ab, ac, _ = compare_over_data_sets(sets, key=KEY).pairs
    assert np.isnan(ab.preference).all()
    assert ac.preference == (0.0, 1.0, 0.0)


ONE = on_splits(a=[0.1, 0.2], b=[0.2, 0.4])


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ({"x": ONE}, {}, ConfigurationError, r"two or more; got 1\. On one data set SplitComp"),
        (
            {"x": ONE, "y": on_splits(a=[0.1, 0.2])},
            {},
            ConfigurationError,
            "'y' has the laws a, and",
        ),
        ({"x": ONE, "y": on_splits(a=[0.1], b=[0.2])}, {}, ConfigurationError, "'y' has one split"),
        (
            {"x": ONE, "y": dataclasses.replace(ONE, test_per_train=0.0)},
            {},
            ConfigurationError,
            "'y' are of the same points",
        ),
        ({"x": ONE, "y": ONE}, {"rope": -1}, ConfigurationError, "rope must be at least 0"),
        ({"x": ONE, "y": ONE}, {"score": "brier"}, UnknownNameError, "unknown score 'brier'"),
        ([ONE, ONE], {}, ArgumentError, "name the data sets"),
        ({"x": ONE, "y": 3}, {}, ArgumentError, r"comparisons\['y'\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, options, error, message):
    with pytest.raises(error, match=message):
        compare_over_data_sets(given, key=KEY, **options)


# --- sweeps ---------------------------------------------------------------------------------------


def table_of(**changes: object) -> pd.DataFrame:
    """Of a sweep of two data sets and three seeds, that never ran."""
    rng, rows = np.random.default_rng(3), []
    for data in ("wine", "iris"):
        for seed in range(3):
            for law in ("MAP", "Laplace"):
                nll = rng.uniform(0.2, 0.4)
                scores = {"accuracy": 0.9, "nll": nll, "brier": 0.1, "ece": 0.05}
                ends = {f"{s}_{end}": v for s, v in scores.items() for end in ("lower", "upper")}
                about = {"study": f"{data}, ridge 0.1, seed {seed}", "data": data, "ridge": 0.1}
                about |= {"ridge_rule": "given", "seed": seed, "law": law}
                points = {"training_points": 30, "test_points": 10, "split": "random"}
                end = {"attempts": 1, "error": ""}
                rows.append({**about, **scores, **ends, **points, **end, **changes})
    return pd.DataFrame(rows)


SWEEP = Sweep(
    grid(
        nb.Study("wine", nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1), baselines=False),
        data=("wine", "iris"),
        seeds=range(3),
    )
)


def test_means_over_seeds_have_errors_over_seeds():
    table = table_of()
    found = comparisons_over_seeds(table)
    assert list(found) == [Group("wine", "0.1"), Group("iris", "0.1")]
    each = table[(table["data"] == "iris") & (table["law"] == "MAP")]["nll"].to_numpy()
    assert found["iris", "0.1"].means["MAP"]["nll"] == mean_over_splits(each, 1 / 3)
    assert found["iris", "0.1"].splits == ("seed 0", "seed 1", "seed 2")


def test_seeds_of_test_points_of_ones_own_are_no_splits(without_chains, capsys):
    found = result_of(table_of(split="given"), (), seed=0, rope=0.01)
    assert {each.test_per_train for each in found.over_seeds.values()} == {0.0}
    assert found.over_data_sets == {}
    assert set(found.means()["interval"]) == {"90% over fits"}
    terminal.print_sweep(found)
    out = capsys.readouterr().out
    assert "± standard error over fits" in out
    assert "over splits" not in out
    places = dict.fromkeys(found.table["study"], "report.html")
    page = " ".join(report.sweep.page(found, places, {"command": ""}, "sweep.csv").split())
    assert "means over 3 seeds, which are fits" in page
    assert "standard error over fits" in page
    assert "Nadeau" not in page


def test_studies_that_differ_in_more_than_seeds_are_not_averaged():
    assert comparisons_over_seeds(table_of(seed=0)) == {}


def test_a_sweep_compares_laws_over_its_data_sets_and_reports_it(without_chains, capsys):
    failures = (Failure("wine, ridge 0, seed 0", "RidgeError: <no>", 1),)
    found = result_of(table_of(), failures, seed=0, rope=0.05)
    (pair,) = found.over_data_sets["0.1"].pairs
    assert (pair.a, pair.b) == ("MAP", "Laplace")
    means = found.means()
    assert list(means["law"]) == ["MAP", "Laplace"] * 2
    assert list(means["seeds"]) == [3] * 4
    assert set(means["interval"]) == {"90% over splits"}
    places = {name: f"studies/{k}/report.html" for k, name in enumerate(SWEEP.studies)}
    page = report.sweep.page(found, places, {"command": "ntkbayes sweep"}, "sweep.csv")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "wine, ridge 0, seed 0 (begun once): RidgeError: &lt;no&gt;" in text
    assert "Every pair of laws over 2 data sets, by NLL, ridge 0.1" in text
    assert "better score by more than 0.05" in text
    assert "iris, ridge 0.1: means over 3 seeds, which are splits" in text
    assert '<a href="studies/0/report.html">wine, ridge 0.1, seed 0</a>' in page
    terminal.print_sweep(found)
    out = capsys.readouterr().out
    assert f"{pair.preference.a_better:.2f}" in out
    error = found.over_seeds["wine", "0.1"].means["MAP"]["nll"].error
    assert f"± {error:.3f}" in out
    assert "± standard error over splits" in out


def test_a_negative_region_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigurationError, match=r"rope must be at least 0 .* got -0\.1"):
        SWEEP.run(tmp_path / "out", rope=-0.1, client=object())
    assert not (tmp_path / "out").exists()
