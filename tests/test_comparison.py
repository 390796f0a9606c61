"""Comparisons: the table is the numbers of calibration and distances, law by law."""

import dataclasses

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.comparison import compare, key_of
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.predictions import predict, predictions_from_probabilities
from ntkbayes.scores import calibration, distances

PRIOR = nb.NTKPrior(
    nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5), ridge=0.5
)
KEY = jax.random.key(0)
DRAWS = 200


def data_of(seed, count):
    features, labels = oracle.blobs(seed, count, 3)
    return nb.Dataset(features, labels, class_names=range(3))


TRAIN, TEST = data_of(7, 24), data_of(8, 15)


@pytest.fixture(scope="module")
def laws():
    return {"MAP": nb.MAP().fit(PRIOR, TRAIN), "Laplace": nb.Laplace().fit(PRIOR, TRAIN)}


@pytest.fixture(scope="module")
def chains(laws):
    """Draws of Laplace under another key, passed off as Markov chains."""
    found = predict(
        laws["Laplace"], TEST, key=jax.random.key(9), name="NUTS", num_draws=DRAWS, seconds=3.0
    )
    return dataclasses.replace(found, kind=nb.NUTS.kind, num_chains=2)


@pytest.fixture(scope="module")
def baseline():
    given = np.random.default_rng(0).dirichlet(np.ones(3), len(TEST.targets))
    return predictions_from_probabilities("baseline", given, TEST, key=KEY, num_draws=DRAWS)


@pytest.fixture(scope="module")
def comparison(laws, chains, baseline):
    laws = {**laws, "NUTS": chains, "baseline": baseline}
    return compare(laws, TEST, key=KEY, num_draws=DRAWS, seed=4, settings={"ridge": 0.5})


# --- the table -----------------------------------------------------------------------------------


def test_the_table_holds_the_scores_of_calibration(comparison):
    table = comparison.table()
    assert table.index.name == "law"
    assert list(table.index) == ["MAP", "Laplace", "NUTS", "baseline"]
    for name, predictions in comparison.predictions.items():
        truth = calibration.scores(predictions.probabilities, TEST.targets, seed=4)
        for score, interval in truth.items():
            row = table.loc[name]
            assert row[score] == interval.value
            assert row[f"{score}_lower"] == interval.lower
            assert row[f"{score}_upper"] == interval.upper
        for part in ("total", "aleatoric", "epistemic"):
            found = getattr(predictions.uncertainty, part).mean()
            assert table.loc[name, f"{part}_uncertainty"] == found
        assert table.loc[name, "nll"] == pytest.approx(-table.loc[name, "elpd"] / 15)
    assert table.loc["NUTS", "seconds"] == 3.0
    assert table.attrs["interval"] == "90% over test points"


def test_the_table_holds_the_distances_to_the_reference(comparison):
    table, reference = comparison.table(), comparison.predictions["NUTS"]
    assert comparison.reference == "NUTS"
    for name in ("MAP", "Laplace", "NUTS"):
        law = comparison.predictions[name]
        truth = {
            "tv": distances.total_variation(law.probability_draws, reference.probability_draws),
            "variance_ratio": distances.variance_ratio(
                law.centred_logits, reference.centred_logits
            ),
            "energy": distances.energy_coefficient(law.centred_logits, reference.centred_logits),
        }
        for what, distance in truth.items():
            assert table.loc[name, what] == distance.value
            assert table.loc[name, f"{what}_error"] == distance.error
    assert table.loc["MAP", "variance_ratio"] == 0
    assert table.loc["NUTS", "variance_ratio"] == 1
    assert table.loc["NUTS", "tv"] == 0


def test_a_baseline_has_no_distance_between_logits(comparison):
    assert set(comparison.distances["baseline"]) == {"tv"}
    row = comparison.table().loc["baseline"]
    assert np.isnan(row["variance_ratio"])
    assert np.isnan(row["energy"])
    gap = comparison.predictions["baseline"].probabilities
    gap = np.abs(gap - comparison.predictions["NUTS"].probabilities).sum(axis=1) / 2
    assert row["tv"] == pytest.approx(gap.mean())


def test_distances_do_not_see_what_is_added_to_all_logits(comparison, chains):
    shift = np.random.default_rng(0).normal(0, 10, (DRAWS, 15, 1))
    laws = {
        "as it is": chains,
        "shifted": dataclasses.replace(chains, logits=chains.logits + shift),
    }
    found = compare(laws, TEST, key=KEY, reference="as it is").distances["shifted"]
    assert found["variance_ratio"].value == pytest.approx(1)
    assert found["tv"].value == pytest.approx(0, abs=1e-12)
    assert found["energy"].value == pytest.approx(-1 / (DRAWS - 1), rel=1e-4)


# --- differences of scores ------------------------------------------------------------------------


def test_score_differences_are_paired_and_antisymmetric(comparison):
    against = {name: comparison.score_differences(name) for name in ("MAP", "baseline")}
    assert list(against["MAP"]) == ["Laplace", "NUTS", "baseline"]
    ours, theirs = (comparison.predictions[name].probabilities for name in ("baseline", "MAP"))
    for name, score in calibration.standard_scores().items():
        found, reverse = against["MAP"]["baseline"][name], against["baseline"]["MAP"][name]
        assert found == calibration.paired_difference(score, ours, theirs, TEST.targets, seed=4)
        assert (reverse.value, reverse.lower) == (-found.value, -found.upper)
        assert found.value == pytest.approx(
            comparison.scores["baseline"][name].value - comparison.scores["MAP"][name].value
        )


def test_score_differences_to_an_unknown_law_are_refused(comparison):
    with pytest.raises(UnknownNameError, match="unknown law 'map'; known are: MAP, Laplace"):
        comparison.score_differences("map")


# --- expected log predictive density -------------------------------------------------------------


def test_elpd_and_its_error_are_sums_over_points(comparison):
    for name, predictions in comparison.predictions.items():
        terms = predictions.pointwise_elpd
        assert comparison.elpd[name].value == pytest.approx(terms.sum())
        assert comparison.elpd[name].error == pytest.approx(np.sqrt(15 * np.var(terms, ddof=1)))


def test_elpd_differences_are_paired(comparison):
    reference = comparison.predictions["NUTS"].pointwise_elpd
    for name, predictions in comparison.predictions.items():
        gap = predictions.pointwise_elpd - reference
        found = comparison.elpd_difference[name]
        assert found.value == pytest.approx(gap.sum(), abs=1e-12)
        assert found.error == pytest.approx(np.sqrt(15 * np.var(gap, ddof=1)), abs=1e-12)
    assert comparison.elpd_difference["NUTS"] == nb.comparison.Elpd(0.0, 0.0)
    # Both laws find the same points hard: the difference is known better than either.
    laplace = comparison.elpd_difference["Laplace"]
    assert laplace.error < comparison.elpd["Laplace"].error / 2


def test_elpd_by_hand():
    data = nb.Dataset(np.arange(3.0)[:, None], [0, 1, 1])
    given = {
        "a": [[0.5, 0.5], [0.5, 0.5], [0.75, 0.25]],
        "b": [[0.25, 0.75], [0.5, 0.5], [0.0, 1.0]],
    }
    laws = {
        name: predictions_from_probabilities(name, np.array(p), data, key=KEY)
        for name, p in given.items()
    }
    found = compare(laws, data, key=KEY)
    log2 = np.log(2)
    assert found.elpd["a"].value == pytest.approx(-4 * log2)
    assert found.elpd["a"].error == pytest.approx(log2)  # of −1, −1, −2: √3 · √(1/3)
    assert found.elpd_difference["b"].value == pytest.approx(log2)
    # of −1, 0, 2: variance 7/3
    assert found.elpd_difference["b"].error == pytest.approx(np.sqrt(7) * log2)


# --- how laws are drawn --------------------------------------------------------------------------


def test_draws_of_a_law_do_not_depend_on_what_else_is_compared(laws, comparison):
    alone = compare({"Laplace": laws["Laplace"]}, TEST, key=KEY, num_draws=DRAWS)
    found, jointly = alone.predictions["Laplace"], comparison.predictions["Laplace"]
    np.testing.assert_array_equal(found.logits, jointly.logits)
    np.testing.assert_array_equal(found.label_draws, jointly.label_draws)
    direct = predict(
        laws["Laplace"], TEST, key=key_of(KEY, "Laplace"), name="Laplace", num_draws=DRAWS
    )
    np.testing.assert_array_equal(found.logits, direct.logits)


def test_laws_of_other_names_have_other_draws(laws):
    twins = compare({"a": laws["Laplace"], "b": laws["Laplace"]}, TEST, key=KEY, num_draws=DRAWS)
    first, second = (twins.predictions[name] for name in "ab")
    assert np.all(first.logits != second.logits)
    ratio, energy = (twins.distances["b"][what] for what in ("variance_ratio", "energy"))
    assert abs(ratio.value - 1) < 4 * ratio.error
    assert abs(energy.value) < 4 * energy.error


def test_keys_of_names_differ_and_names_may_be_long_or_of_any_alphabet():
    names = ["", "a", "b", "ab", "ba", "Лаплас", "x" * 100]
    keys = {tuple(np.asarray(jax.random.key_data(key_of(KEY, name))).tolist()) for name in names}
    assert len(keys) == len(names)


def test_predictions_are_kept_under_the_name_they_are_given(comparison, chains, baseline):
    for name, given in (("NUTS", chains), ("baseline", baseline)):
        kept = comparison.predictions[name]
        assert kept.name == name
        np.testing.assert_array_equal(kept.probabilities, given.probabilities)
    assert comparison.settings == {"ridge": 0.5}


def test_progress_hears_each_name_before_its_turn(chains, baseline):
    heard = []
    compare({"a": chains, "b": baseline}, TEST, key=KEY, progress=heard.append)
    assert heard == ["a", "b"]


# --- the reference -------------------------------------------------------------------------------


def test_the_reference_is_the_last_law_of_markov_chains_else_the_first(chains, baseline):
    def reference_of(*names, **options):
        pool = {"chains": chains, "more chains": chains, "baseline": baseline, "other": baseline}
        return compare({name: pool[name] for name in names}, TEST, key=KEY, **options).reference

    assert reference_of("other", "baseline") == "other"
    assert reference_of("baseline", "chains", "other") == "chains"
    assert reference_of("chains", "more chains", "other") == "more chains"
    assert reference_of("baseline", "chains", reference="baseline") == "baseline"


def test_an_unknown_reference_is_refused(chains):
    with pytest.raises(UnknownNameError, match=r"unknown law 'nuts'; known are: NUTS"):
        compare({"NUTS": chains}, TEST, key=KEY, reference="nuts")


def test_nothing_to_compare_is_refused():
    with pytest.raises(ConfigurationError, match="at least one law"):
        compare({}, TEST, key=KEY)


def test_predictions_of_other_points_are_refused(chains):
    fewer, other = data_of(8, 12), nb.Dataset(TEST.features, np.roll(TEST.labels, 1))
    for test in (fewer, other):
        with pytest.raises(ConfigurationError, match="'NUTS' are not of these test points"):
            compare({"NUTS": chains}, test, key=KEY)


# --- extremes ------------------------------------------------------------------------------------


def test_a_point_law_as_reference_gives_no_warnings(laws, chains):
    found = compare(
        {"MAP": laws["MAP"], "NUTS": chains}, TEST, key=KEY, num_draws=DRAWS, reference="MAP"
    )
    table = found.table()
    assert table.loc["NUTS", "variance_ratio"] == np.inf
    assert np.isnan(table.loc["MAP", "variance_ratio"])
    assert table.loc["MAP", "energy"] == 0
    assert table.loc["MAP", "tv"] == 0
    assert 0 < table.loc["NUTS", "energy"] <= 1
    assert table.loc["MAP", "epistemic_uncertainty"] == 0


@pytest.mark.parametrize("reference", ["sure", "other", "chains"])
def test_a_certain_mistake_costs_infinity_without_warnings(chains, reference):
    given = np.eye(3)[(TEST.labels + (np.arange(15) == 2)) % 3]  # wrong at one point
    sure = predictions_from_probabilities("sure", given, TEST, key=KEY)
    laws = {"sure": sure, "other": sure, "chains": chains}
    found = compare(laws, TEST, key=KEY, reference=reference)
    table = found.table()
    assert table.loc["sure", "nll"] == np.inf
    assert table.loc["sure", "elpd"] == -np.inf
    assert np.isnan(table.loc["sure", "elpd_error"])
    assert np.isfinite(table.loc["chains", "elpd"])
    difference = found.elpd_difference
    if reference == "chains":
        assert difference["sure"].value == -np.inf
        assert difference["chains"].value == 0
    else:
        assert np.isnan(difference["sure"].value)  # −∞ less −∞
        assert difference["chains"].value == np.inf
