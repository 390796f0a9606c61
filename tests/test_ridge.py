"""The ridge is chosen on the training points alone, once, and told."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ntkbayes as nb
from ntkbayes import storage
from ntkbayes.app.methods import default_methods
from ntkbayes.app.ridges import RULES, ridge_of
from ntkbayes.app.study import Study
from ntkbayes.errors import (
    ConfigurationError,
    ConvergenceError,
    FailedTrialWarning,
    GridEdgeWarning,
    SearchError,
    StorageError,
)
from ntkbayes.laws import Method
from ntkbayes.selection import RidgeChoice
from ntkbayes.selection import ridge as ridge_rules
from ntkbayes.selection.ridge import _climb

KEY = jax.random.key(0)
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1)
EVIDENCE, CV = nb.RidgeByEvidence(), nb.RidgeByCrossValidation(ridges=(0.1, 1.0, 10.0), num_folds=3)
both_rules = pytest.mark.parametrize("rule", [EVIDENCE, CV], ids=["evidence", "cv"])


def noisy(seed: int = 0, num_points: int = 60, signal: float = 1.0) -> nb.Dataset:
    """Two overlapping Gaussians."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_points)
    features = rng.normal(size=(num_points, 3)) + signal * (labels[:, None] - 0.5)
    return nb.Dataset(features, labels, name="noisy")


TRAIN = noisy()


def study(rule: object = EVIDENCE, **changes: object) -> Study:
    settings = {"data": TRAIN, "prior": PRIOR, "methods": default_methods(("map",)), "ridge": rule}
    return Study(**{**settings, "baselines": False, **changes})


def count_fits(monkeypatch: pytest.MonkeyPatch, kind: type[Method]) -> list[float]:
    """The list fills with the ridges at which laws of a kind are fitted."""
    solve, ridges = kind.solve, []

    def counted(self, problem, *rest):
        ridges.append(problem.ridge)
        return solve(self, problem, *rest)

    monkeypatch.setattr(kind, "solve", counted)
    return ridges


# --- what is chosen -------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_evidences_ridge_is_that_of_the_search_with_gradients(smoothing):
    data = TRAIN.smooth(smoothing)
    climbed = nb.maximise_evidence(PRIOR, data, over=("ridge",))
    found = EVIDENCE.choose(PRIOR, data, key=KEY)
    assert found.ridge == pytest.approx(float(climbed.values["ridge"]), rel=0.05)
    best = found.scores[found.ridge]
    assert climbed.log_evidence - 1e-2 < best <= climbed.log_evidence + 1e-9
    assert best == max(found.scores.values())
    for ridge in (0.1, found.ridge):
        assert found.scores[ridge] == pytest.approx(nb.log_evidence(PRIOR.with_ridge(ridge), data))


def test_the_evidence_costs_ten_fits_of_laplace_and_no_compilation_per_ridge(monkeypatch, programs):
    EVIDENCE.choose(PRIOR, TRAIN, key=KEY)
    fits = count_fits(monkeypatch, nb.Laplace)
    assert programs(lambda: EVIDENCE.choose(PRIOR, noisy(1), key=KEY)) == []
    assert len(fits) <= 10
    assert len(set(fits)) == len(fits)


@given(
    place=st.floats(-4.5, 4.5),
    width=st.floats(0.4, 3.0),
    skew=st.floats(-0.6, 0.6),
    ends=st.tuples(st.floats(-4, -0.5), st.floats(0.5, 4)),
)
def test_few_calls_find_the_maximum_of_a_function_with_one(place, width, skew, ends):
    def score(x):
        z = (x - place) / width
        return -np.log(np.cosh(z)) + skew * np.tanh(z) * (1 - np.tanh(z) ** 2)

    tried = {}
    _climb(lambda x: tried.setdefault(x, score(x)), *ends)
    grid = np.linspace(*ends, 4001)
    assert score(max(tried, key=tried.get)) > np.max(score(grid)) - 1e-3
    assert len(tried) <= 13
    assert all(ends[0] <= x <= ends[1] for x in tried)


@both_rules
def test_a_bar_tells_the_ridges_tried_and_the_best(rule, capsys, monkeypatch):
    quiet = rule.choose(PRIOR, TRAIN, key=KEY)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(ridge_rules, "DELAY", 0)
    assert dataclasses.replace(rule, progress=True).choose(PRIOR, TRAIN, key=KEY) == quiet
    told = capsys.readouterr().err
    assert f"{len(quiet.scores)}" in told
    assert f"best {quiet.ridge:g}" in told


@both_rules
def test_the_priors_own_ridge_does_not_matter(rule):
    choices = [rule.choose(PRIOR.with_ridge(r), TRAIN, key=KEY) for r in (0.0, 0.3, 700.0)]
    assert choices[0] == choices[1] == choices[2]


def test_cross_validation_takes_the_ridge_with_the_lowest_nll():
    found = CV.choose(PRIOR, TRAIN, key=KEY)
    nll = {
        ridge: nb.cross_validated_nll(
            nb.MAP(), PRIOR.with_ridge(ridge), TRAIN, key=KEY, num_folds=3
        )
        for ridge in CV.ridges
    }
    assert found.scores == {ridge: -value for ridge, value in nll.items()}
    assert found.ridge == min(nll, key=nll.get)
    assert found.reason.startswith(
        "the one of 3 from 0.1 to 10 with the lowest NLL of MAP in 3-fold"
    )


def test_the_noisier_the_data_the_larger_the_ridge():
    chosen = [EVIDENCE.choose(PRIOR, noisy(0, signal=s), key=KEY).ridge for s in (3.0, 1.0)]
    assert chosen[0] < chosen[1] / 5


def test_where_the_evidence_grows_to_the_end_of_the_range_the_end_is_taken_and_told():
    for within, end in (((0.01, 0.1), 0.1), ((300.0, 1000.0), 300.0)):
        word = "largest" if end == 0.1 else "smallest"
        with pytest.warns(GridEdgeWarning, match=rf"still grows at a ridge of {end:g}, the {word}"):
            found = nb.RidgeByEvidence(within=within).choose(PRIOR, TRAIN, key=KEY)
        assert found.ridge == end
        assert found.reason.startswith(f"the {word} tried")


@both_rules
def test_a_choice_that_fails_says_how_to_give_a_number(rule, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ConvergenceError("the mode was not found")

    for method in rule.methods:
        monkeypatch.setattr(type(method), "solve", fail)
    message = (
        "could not be chosen by .*the mode was not found.* as a number: --ridge 0.1, or NTKPrior"
    )
    with pytest.raises(SearchError, match=message):
        rule.choose(PRIOR, TRAIN, key=KEY)


def test_a_ridge_that_fails_is_passed_over_and_the_best_is_kept(monkeypatch):
    rule, solve = nb.RidgeByEvidence(), nb.Laplace.solve
    whole = rule.choose(PRIOR, TRAIN, key=KEY)
    failing = min(whole.scores)

    def fail_there(self, problem, key=None):
        if problem.ridge <= failing:
            raise ConvergenceError("the mode was not found")
        return solve(self, problem, key)

    monkeypatch.setattr(nb.Laplace, "solve", fail_there)
    with pytest.warns(
        FailedTrialWarning, match=rf"ridge of {failing:g} \(Conv.*mode was not found"
    ):
        found = rule.choose(PRIOR, TRAIN, key=KEY)
    assert found.scores[failing] == -np.inf
    assert whole.ridge != failing
    assert abs(np.log10(found.ridge / whole.ridge)) < 0.03


def test_a_kernel_known_by_its_products_has_the_ridge_of_the_formed_one():
    """Of one logit, where the surrogate is the kernel, so that its determinant is known."""
    network = nb.networks.mlp(depth=1, width=4, num_outputs=1)
    params = network.init(KEY, jnp.asarray(TRAIN.features))
    formed, products = (
        EVIDENCE.choose(
            nb.NTKPrior(nb.kernels.EmpiricalKernel(network, params, max_rows=rows), ridge=1.0),
            TRAIN,
            key=KEY,
        )
        for rows in (1000, 0)
    )
    assert formed.scores is not None
    assert abs(np.log10(products.ridge / formed.ridge)) < 0.03
    shared = [(products.scores[r], formed.scores[r]) for r in formed.scores if r in products.scores]
    assert len(shared) >= 3
    for found, exact in shared:
        np.testing.assert_allclose(found, exact, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nb.RidgeByEvidence(within=(1.0, 0.1)), "within takes .* increasing order"),
        (lambda: nb.RidgeByEvidence(within=(0.0, 1.0)), "each of within must be positive"),
        (lambda: nb.RidgeByEvidence(within=3.0), "within takes two or more ridges"),
        (lambda: nb.RidgeByCrossValidation(ridges=(1.0,)), "ridges takes two or more"),
        (lambda: nb.RidgeByCrossValidation(num_folds=1), "num_folds must be at least 2; got 1"),
        (lambda: study(0.1), r"a rule, such as RidgeByEvidence\(\), not 0\.1; .*NTKPrior"),
        (lambda: study("evidence"), "a rule, .* not 'evidence'"),
    ],
)
def test_rules_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


# --- words ----------------------------------------------------------------------------------------


def test_words_are_rules_and_numbers():
    assert {word: ridge_of(word) for word in RULES} == {
        "evidence": nb.RidgeByEvidence(),
        "cv": nb.RidgeByCrossValidation(),
    }
    assert (ridge_of("0"), ridge_of("1e-2")) == (0.0, 0.01)


@pytest.mark.parametrize("word", ["foo", "", "Evidence", "0,1", "-1", "inf", "nan"])
def test_other_words_are_refused(word):
    with pytest.raises(ConfigurationError, match="ridge"):
        ridge_of(word)


# --- studies --------------------------------------------------------------------------------------


@both_rules
def test_the_choice_does_not_see_the_test_points(rule, tmp_path):
    first = study(rule).run(tmp_path / "first")
    split_key = jax.random.key(0)
    held_out = ~np.isin(TRAIN.features, TRAIN.split(split_key, standardise=False)[0].features)[:, 0]
    assert held_out.sum() == len(first.predictions["MAP"].targets)
    features = np.where(held_out[:, None], -3 * TRAIN.features, TRAIN.features)
    changed = nb.Dataset(features, TRAIN.targets, class_names=TRAIN.class_names, name="changed")
    second = study(rule, data=changed).run(tmp_path / "second")
    assert second.settings["ridge"] == first.settings["ridge"]
    assert second.scores["MAP"]["nll"] != first.scores["MAP"]["nll"]


@both_rules
def test_a_resumed_run_does_not_choose_again(rule, tmp_path, monkeypatch):
    first = study(rule).run(tmp_path)
    monkeypatch.setattr(type(rule), "choose", lambda *_, **__: pytest.fail("chosen again"))
    for path in (tmp_path / "laws").iterdir():
        path.unlink()
    again = study(rule).run(tmp_path)
    assert again.settings["ridge"] == first.settings["ridge"]
    assert again.scores == first.scores


def test_every_law_has_the_chosen_ridge_and_the_record_tells_it(tmp_path):
    found = study(methods=default_methods(("map", "laplace"))).run(tmp_path)
    ridge = found.settings["ridge"]["value"]
    train, test = TRAIN.split(jax.random.key(0))
    assert EVIDENCE.choose(PRIOR, train, key=KEY).ridge == ridge
    by_hand = nb.MAP().fit(PRIOR.with_ridge(ridge), train).mean(test.features)
    np.testing.assert_allclose(found.predictions["MAP"].mean, by_hand, atol=1e-9)
    assert found.predictions["Laplace"].info["log_evidence"] == pytest.approx(
        found.settings["ridge"]["scores"][f"{ridge:g}"]
    )
    assert found.settings["prior"]["ridge"] == ridge
    assert storage.load(tmp_path).settings["ridge"] == found.settings["ridge"]
    assert json.loads((tmp_path / "study.json").read_text())["ridge"]["type"] == "RidgeByEvidence"


def test_smoothed_targets_have_a_ridge_of_their_own(tmp_path):
    plain, smoothed = (study(smoothing=s).run(tmp_path / str(s)) for s in (0.0, 0.4))
    assert smoothed.settings["ridge"]["value"] != plain.settings["ridge"]["value"]


def test_another_rule_is_another_study(tmp_path):
    study(EVIDENCE).run(tmp_path)
    with pytest.raises(StorageError, match=r"other settings \(differing in: ridge\)"):
        study(CV).run(tmp_path)


def test_a_choice_of_another_study_in_the_folder_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(nb.MAP, "solve", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        study().run(tmp_path)  # it ends between the choice and the first law
    monkeypatch.undo()
    other = study(data=noisy(3)).run(tmp_path)
    fresh = study(data=noisy(3)).run(tmp_path / "fresh")
    assert other.settings["ridge"] == fresh.settings["ridge"]


@pytest.mark.parametrize("content", ["{", '{"value": -1}', '{"value": "x", "reason": ""}'])
def test_a_broken_choice_is_named(content, tmp_path):
    study().run(tmp_path)
    path = tmp_path / "ridge.json"
    mark = json.loads(path.read_text())["study"]
    path.write_text(content.replace("{", f'{{"study": "{mark}", ', 1) if len(content) > 1 else "{")
    with pytest.raises(StorageError, match=r"ridge\.json .*delete it and run again"):
        study().run(tmp_path)


def test_a_given_ridge_leaves_no_choice_behind(tmp_path):
    found = study(nb.GivenRidge()).run(tmp_path)
    assert not (tmp_path / "ridge.json").exists()
    assert found.settings["ridge"]["value"] == 0.1
    assert found.settings["ridge"]["reason"] == "as given"


def test_a_choice_is_told_in_one_line():
    assert str(RidgeChoice(8.75, "as given")) == "ridge 8.75, as given"


# --- the conclusion -------------------------------------------------------------------------------


LAWS = default_methods(("map", "laplace"))


def test_on_a_noisy_table_the_chosen_ridge_beats_the_base_rate_and_matches_logistic_regression(
    tmp_path,
):
    data = noisy(5, num_points=240, signal=0.9)
    found = study(data=data, methods=LAWS, baselines=True).run(tmp_path)
    assert list(found.predictions) == [*LAWS, "base rate", "logistic regression", "sklearn GPC"]
    against = found.score_differences("base rate")
    assert max(against[name]["nll"].upper for name in LAWS) < 0
    against = found.score_differences("logistic regression")
    assert max(against[name]["nll"].lower for name in LAWS) < 0
    assert "Worse than the class frequencies" not in (tmp_path / "report.html").read_text("utf-8")


def test_where_the_features_say_nothing_a_small_ridge_loses_to_the_base_rate_and_is_named(tmp_path):
    data = noisy(5, num_points=240, signal=0.0)
    lost = study(
        nb.GivenRidge(), prior=PRIOR.with_ridge(1e-3), data=data, methods=LAWS, baselines=True
    ).run(tmp_path)
    excess = lost.score_differences("base rate")["MAP"]["nll"]
    assert excess.lower > 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Worse than the class frequencies" in page
    assert f"MAP by {excess.value:.3f}" in page
