"""NTKClassifier is a scikit-learn estimator, and predicts what its law does."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from joblib import parallel_config
from oracles import gp_classification as oracle
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ntkbayes as nb
from ntkbayes.bridges.sklearn import NTKClassifier
from ntkbayes.errors import (
    ConfigurationError,
    DataError,
    PrecisionError,
    RidgeError,
    UnknownNameError,
)
from ntkbayes.predictions import marginal_probabilities
from ntkbayes.scores import calibration

X, LABELS = oracle.blobs(3, 30, 3)
Y = np.array(["c", "a", "b"])[LABELS]
X_NEW, _ = oracle.blobs(4, 12, 3)
NETWORK = nb.networks.mlp(depth=1, activation="erf", weight_std=1.2, bias_std=0.3)
PARAMETERS = {"depth": 1, "activation": "erf", "weight_std": 1.2, "bias_std": 0.3, "ridge": 0.5}
METHODS = (
    nb.MAP(training_time=3.0),
    nb.RandomInit(num_inits=4),
    nb.FirstOrder(),
    nb.FiniteEnsemble(nb.networks.mlp(width=4)),
    nb.Laplace(factor_dtype="float32"),
    nb.PrunedLaplace(),
    nb.PerturbedInit(),
    nb.Variational(),
    nb.MeanField(),
    nb.ExpectationPropagation(),
    nb.DirichletGP(),
    nb.ImportanceCorrected(nb.Laplace()),
    nb.TemperatureScaled(nb.RandomInit(num_inits=4)),
    nb.NUTS(num_chains=2),
    nb.SplitHMC(),
    nb.FullBayes({"ridge": dist.LogNormal(0.0, 1.0)}),
    nb.PriorPredictive(),
)


def classifier(**others):
    return NTKClassifier(**PARAMETERS, random_state=5, **others)


@pytest.fixture(scope="module")
def sampling():
    return classifier(law=nb.RandomInit(num_inits=40)).fit(X, Y)


@pytest.mark.filterwarnings("default:.*")  # the checks' own business
def test_it_passes_every_check_of_scikit_learn(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it one check is skipped
    results = check_estimator(NTKClassifier(), on_skip=None, on_fail="raise")
    assert {result["status"] for result in results} == {"passed"}
    assert len(results) > 50


# --- what it predicts -----------------------------------------------------------------------------


@pytest.mark.parametrize("law", [None, nb.Laplace(), nb.RandomInit(num_inits=40)], ids=str)
def test_probabilities_are_the_mean_of_the_laws_own(law):
    found = classifier(law=law).fit(X, Y)
    scaling = nb.datasets.Scaling.fit(X)
    train = nb.Dataset(scaling(X), Y, scaling=scaling)
    fit_key, draw_key = jax.random.split(jax.random.key(5))
    by_hand = (law or nb.MAP()).fit(nb.NTKPrior(NETWORK, ridge=0.5), train, key=fit_key)
    draws = marginal_probabilities(by_hand, scaling(X_NEW), key=draw_key)
    np.testing.assert_allclose(found.predict_proba(X_NEW), draws.mean(axis=0), atol=1e-9)
    expected = np.array(train.class_names)[draws.mean(axis=0).argmax(axis=1)]
    np.testing.assert_array_equal(found.predict(X_NEW), expected)
    truth, told = calibration.uncertainty(draws), found.uncertainty(X_NEW)
    for part in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(getattr(told, part), getattr(truth, part), atol=1e-8)
    assert (told.epistemic > 0).all() or law is None


def test_many_inputs_are_predicted_as_each_alone(sampling, monkeypatch):
    every = sampling.predict_proba(X_NEW)
    np.testing.assert_allclose(sampling.predict_proba(X_NEW[7:1:-1]), every[7:1:-1], atol=1e-10)
    monkeypatch.setattr("ntkbayes.bridges.sklearn.classifier._INPUTS_AT_ONCE", 6)
    monkeypatch.setattr("ntkbayes.laws.law._INPUTS_AT_ONCE", 6)
    np.testing.assert_allclose(sampling.predict_proba(X_NEW), every, atol=1e-10)
    assert len(sampling.uncertainty(X_NEW).epistemic) == 12


def test_without_standardisation_the_law_is_over_the_features_as_they_are():
    found = classifier(standardise=False).fit(X, Y)
    np.testing.assert_array_equal(found.law_.problem.features, X)
    assert found.scaler_ is None
    np.testing.assert_allclose(
        found.predict_proba(X_NEW),
        marginal_probabilities(found.law_, X_NEW, key=jax.random.key(0))[0],
        atol=1e-12,
    )


def test_without_ridge_smoothed_labels_are_reproduced():
    found = classifier(smoothing=0.3).set_params(ridge=0.0).fit(X, Y)
    targets = 0.7 * (Y[:, None] == found.classes_) + 0.1
    np.testing.assert_allclose(found.predict_proba(X), targets, atol=1e-6)
    with pytest.raises(RidgeError, match="smooth"):
        classifier().set_params(ridge=0.0).fit(X, Y)


def test_the_same_random_state_gives_the_same_law_and_another_one_another(sampling):
    first = sampling.predict_proba(X_NEW)
    again = clone(sampling).fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X_NEW), first)
    other = clone(sampling).set_params(random_state=6).fit(X, Y)
    assert (other.predict_proba(X_NEW) != first).all()
    generators = [clone(sampling).set_params(random_state=np.random.RandomState(0)) for _ in "ab"]
    one, two = (g.fit(X, Y).predict_proba(X_NEW) for g in generators)
    np.testing.assert_array_equal(one, two)


# --- settings of the method -----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_method_is_made_again_from_its_settings(method):
    settings = method.get_params()
    assert clone(method) == method
    assert clone(method).get_params().keys() == settings.keys()
    assert method.get_params(deep=False).keys() == {n for n in settings if "__" not in n}
    with pytest.raises(UnknownNameError, match=f"unknown setting of {type(method).__name__} 'x'"):
        method.set_params(x=1)


def test_settings_of_a_method_are_changed_in_place_and_validated():
    inner = nb.RandomInit(num_inits=20)
    method = nb.TemperatureScaled(inner, num_folds=3)
    assert method.set_params(num_folds=4, method__num_inits=8) is method
    assert method == nb.TemperatureScaled(nb.RandomInit(num_inits=8), num_folds=4)
    assert inner.num_inits == 20
    with pytest.raises(ConfigurationError, match="num_folds"):
        method.set_params(num_folds=1)
    with pytest.raises(UnknownNameError, match="did you mean 'method__num_inits'"):
        method.set_params(method__num_init=1)
    assert method == nb.TemperatureScaled(nb.RandomInit(num_inits=8), num_folds=4)


def test_a_grid_search_reaches_the_settings_of_the_method_and_leaves_the_given_one_alone():
    given = nb.RandomInit(num_inits=9)
    pipeline = make_pipeline(StandardScaler(), classifier(law=given))
    grid = {"ntkclassifier__law__num_inits": [4, 6]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="neg_log_loss", refit=False).fit(X, Y)
    scores = search.cv_results_["mean_test_score"]
    expected = [
        cross_val_score(classifier(law=law), X, Y, cv=2, scoring="neg_log_loss").mean()
        for law in (nb.RandomInit(num_inits=4), nb.RandomInit(num_inits=6))
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    assert len(set(scores)) == 2
    assert given.num_inits == 9


def test_settings_of_a_method_that_is_not_there_are_refused():
    with pytest.raises(ConfigurationError, match="law is None: give law="):
        classifier().set_params(law__num_inits=4)
    with pytest.raises(UnknownNameError, match="did you mean 'num_inits'"):
        classifier(law=nb.RandomInit()).set_params(law__num_init=4)
    changed = classifier().set_params(law=nb.RandomInit(), law__num_inits=4)
    assert changed.law.num_inits == 4


def test_the_diagram_of_a_classifier_shows_its_method():
    assert "RandomInit" in classifier(law=nb.RandomInit(num_inits=4))._repr_html_()


# --- in people's tools ----------------------------------------------------------------------------


def test_a_grid_search_over_the_ridge_in_a_pipeline_finds_the_best():
    ridges = [0.01, 1.0, 100.0]
    pipeline = make_pipeline(StandardScaler(), NTKClassifier(depth=1))
    grid = {"ntkclassifier__ridge": ridges}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="neg_log_loss").fit(X, Y)
    scores = [
        cross_val_score(
            NTKClassifier(depth=1, ridge=ridge), X, Y, cv=2, scoring="neg_log_loss"
        ).mean()
        for ridge in ridges
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], scores, rtol=1e-8)
    assert search.best_params_["ntkclassifier__ridge"] == ridges[np.argmax(scores)] == 1.0
    np.testing.assert_array_equal(search.classes_, ["a", "b", "c"])


def test_a_grid_search_chooses_between_laws():
    laws = [nb.PriorPredictive(), nb.MAP()]  # the prior has seen no labels
    search = GridSearchCV(classifier(), {"law": laws}, cv=2).fit(X, Y)
    assert search.best_params_["law"] == nb.MAP()


def test_calibration_repairs_the_confidence_of_a_small_ridge():
    features, labels = oracle.blobs(8, 40, 2, spread_=2.5)
    new, truth = oracle.blobs(9, 40, 2, spread_=2.5)
    raw = NTKClassifier(depth=1, ridge=1e-3)
    calibrated = CalibratedClassifierCV(raw, cv=2, ensemble=False).fit(features, labels)
    before = log_loss(truth, clone(raw).fit(features, labels).predict_proba(new))
    after = log_loss(truth, calibrated.predict_proba(new))
    assert after < np.log(2) < before


def test_a_data_frames_columns_and_any_labels_are_kept():
    frame = pd.DataFrame(X.astype(np.float32), columns=["width", "height"])
    found = classifier().fit(frame, pd.Series(Y))
    assert list(found.feature_names_in_) == ["width", "height"]
    assert found.n_features_in_ == 2
    np.testing.assert_array_equal(found.classes_, ["a", "b", "c"])
    assert found.law_.problem.class_names == ("a", "b", "c")
    assert set(found.predict(frame)) == {"a", "b", "c"}


# --- float64 --------------------------------------------------------------------------------------


def test_it_computes_in_float64_where_jax_is_in_float32_and_leaves_jax_so(sampling):
    expected = sampling.predict_proba(X_NEW)
    with jax.enable_x64(False):
        found = clone(sampling).fit(X, Y)
        np.testing.assert_array_equal(found.predict_proba(X_NEW), expected)
        for _ in found._draws(X_NEW):  # between two parts, too
            assert jnp.zeros(1).dtype == np.float32
        copy = pickle.loads(pickle.dumps(found))
        assert copy.law_.alpha.dtype == np.float64
        np.testing.assert_array_equal(copy.predict_proba(X_NEW), expected)
        with pytest.raises(PrecisionError, match="jax_enable_x64"):
            nb.NTKPrior(NETWORK, ridge=0.5).gram(X)
        assert jnp.zeros(1).dtype == np.float32
    copy = pickle.loads(pickle.dumps(sampling))
    np.testing.assert_array_equal(copy.law_.alpha, sampling.law_.alpha)


def test_threads_compute_in_float64_each_for_itself():
    grid = {"ridge": [0.01, 1.0]}
    alone = GridSearchCV(classifier(), grid, cv=2, scoring="neg_log_loss").fit(X, Y)
    with jax.enable_x64(False), parallel_config("threading", n_jobs=2):
        threads = GridSearchCV(classifier(), grid, cv=2, scoring="neg_log_loss").fit(X, Y)
    for search in (alone, threads):
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    np.testing.assert_array_equal(
        threads.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


def test_a_law_of_functions_pickles():
    found = NTKClassifier(depth=1, activation="tanh", bias_std=0.3).fit(X, Y)
    copy = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(copy.predict_proba(X_NEW), found.predict_proba(X_NEW))


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "predict_proba", "uncertainty"])
def test_prediction_before_the_fit_is_refused(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(classifier(), method)(X_NEW)
    failed = classifier().set_params(ridge=0.0)
    with pytest.raises(RidgeError):
        failed.fit(X, Y)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(failed, method)(X_NEW)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "uncertainty"])
def test_other_features_than_those_trained_on_are_refused(sampling, method):
    with pytest.raises(ValueError, match=r"X has 3 features, but NTKClassifier is expecting 2"):
        getattr(sampling, method)(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="NaN"):
        getattr(sampling, method)([[0.0, np.nan]])


def test_sample_weights_are_refused_and_not_ignored():
    with pytest.raises(ConfigurationError, match=r"not sample_weight.*repeat the points"):
        classifier().fit(X, Y, sample_weight=np.ones(30))
    pipeline = make_pipeline(StandardScaler(), classifier())
    with pytest.raises(ConfigurationError, match="not sample_weight"):
        pipeline.fit(X, Y, ntkclassifier__sample_weight=np.ones(30))


def test_one_class_is_refused():
    with pytest.raises(DataError, match=r"one class, .*'a'.*stratify"):
        classifier().fit(X, np.full(30, "a"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"law": "laplace"}, r"law must be a method, such as ntkbayes.Laplace\(\).*'laplace'"),
        ({"law": nb.Laplace}, "law must be a method"),
        ({"ridge": -1.0}, "ridge must be at least 0"),
        ({"depth": 0}, "depth"),
        ({"smoothing": 1.5}, r"smoothing amount must lie in \[0, 1\]"),
    ],
)
def test_parameters_outside_their_range_are_refused_at_the_fit(parameters, message):
    with pytest.raises(ConfigurationError, match=message):
        classifier().set_params(**parameters).fit(X, Y)


PLAIN = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 3 == 0


def test_weights_that_are_none_weigh_nothing():
    features, labels = PLAIN
    model = NTKClassifier().fit(features, labels, sample_weight=None)
    np.testing.assert_array_equal(
        model.predict_proba(features), NTKClassifier().fit(features, labels).predict_proba(features)
    )


@pytest.mark.parametrize("standardise", [False, True])
def test_features_whose_squares_overflow_are_called_that(standardise):
    features, labels = PLAIN
    model = NTKClassifier(standardise=standardise)
    with pytest.raises(DataError, match=r"as large as .*e\+300 .*squares overflow float64"):
        model.fit(1e300 * features, labels)
    with pytest.raises(DataError, match="squares overflow float64"):
        model.fit(features, labels).predict(1e300 * features)


def test_masked_features_are_missing():
    features, labels = PLAIN
    with pytest.raises(ValueError, match="contains NaN"):
        NTKClassifier().fit(np.ma.masked_array(features, mask=features == features.max()), labels)
