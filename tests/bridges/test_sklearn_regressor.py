"""The regressor is GP regression with the NTK, in scikit-learn's words."""

import pickle

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ntkbayes as nb
from ntkbayes.bridges.sklearn import NTKRegressor
from ntkbayes.errors import ConfigurationError, DataError

RNG = np.random.default_rng(0)
X, X_NEW = RNG.normal(size=(30, 2)), RNG.normal(size=(8, 2))
Y = 50 + 4 * np.sin(X[:, 0]) + RNG.normal(size=30)
SETTINGS = {"depth": 1, "activation": "erf", "bias_std": 0.3}


@pytest.fixture(scope="module")
def fitted():
    return NTKRegressor(**SETTINGS).fit(X, Y)


@pytest.mark.filterwarnings("default:.*")  # the checks' own business
def test_it_passes_every_check_of_scikit_learn(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it one check is skipped
    results = check_estimator(NTKRegressor(), on_skip=None, on_fail="raise")
    assert {result["status"] for result in results} == {"passed"}
    assert len(results) > 50


def test_predictions_are_those_of_gp_regression_at_the_evidences_maximum(fitted):
    scale = StandardScaler().fit(X)
    x, new = scale.transform(X), scale.transform(X_NEW)
    prior = nb.NTKPrior(nb.networks.mlp(**SETTINGS), ridge=1.0)
    mean = np.full((30, 1), Y.mean())

    def regression(noise, ridge):
        grams = (
            np.asarray(prior.cross(a, b).ntk) / ridge for a, b in ((x, x), (x, new), (new, new))
        )
        return oracle.gp_regression(*grams, Y[:, None], mean, mean[:8], noise)

    exact, evidence = regression(fitted.noise_std_, fitted.ridge_)
    found, std = fitted.predict(X_NEW, return_std=True)
    np.testing.assert_allclose(found, exact.mean[:, 0], rtol=1e-6)
    total = exact.variance[:, 0] + fitted.noise_std_**2
    np.testing.assert_allclose(std, np.sqrt(total), rtol=1e-6)
    np.testing.assert_array_equal(fitted.predict(X_NEW), found)
    for factor in (0.9, 1.1):
        assert regression(fitted.noise_std_ * factor, fitted.ridge_)[1] < evidence
        assert regression(fitted.noise_std_, fitted.ridge_ * factor)[1] < evidence + 1e-3


def test_intervals_are_the_quantiles_of_a_normal(fitted):
    mean, std = fitted.predict(X_NEW, return_std=True)
    low, high = fitted.predict_interval(X_NEW, level=0.9)
    np.testing.assert_allclose(low, mean - 1.6448536 * std, rtol=1e-6)
    np.testing.assert_allclose(high, mean + 1.6448536 * std, rtol=1e-6)
    with pytest.raises(ConfigurationError, match="level must lie in"):
        fitted.predict_interval(X_NEW, level=1.0)


def test_given_noise_and_ridge_are_used(fitted):
    found = NTKRegressor(**SETTINGS, ridge=0.2, noise_std=0.5, law=nb.MAP()).fit(X, Y)
    assert (found.ridge_, found.noise_std_) == (0.2, 0.5)
    assert (found.predict(X_NEW, return_std=True)[1] == 0.5).all()
    law = clone(fitted).set_params(law=nb.RandomInit(num_inits=20), ridge=0.2, noise_std=0.5)
    spread = law.set_params(random_state=0).fit(X, Y).predict(X_NEW, return_std=True)[1]
    assert (spread > 0.5).all()


def test_it_is_cross_validated_in_a_pipeline_and_pickles(fitted):
    pipeline = make_pipeline(StandardScaler(), NTKRegressor(**SETTINGS))
    assert cross_val_score(pipeline, X, Y, cv=3).mean() > 0.5
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict(X_NEW), fitted.predict(X_NEW))


def test_it_computes_in_float64_where_jax_is_in_float32(fitted):
    with jax.enable_x64(False):
        found = clone(fitted).fit(X, Y)
        np.testing.assert_array_equal(found.predict(X_NEW), fitted.predict(X_NEW))


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (np.full(30, 2.0), DataError, "all 30 targets of the training points are 2"),
        (np.where(np.arange(30) == 3, np.nan, Y), ValueError, "NaN"),
        (Y + 1j, ValueError, "Complex data not supported"),
    ],
)
def test_targets_that_cannot_be_learnt_are_refused(targets, error, message):
    with pytest.raises(error, match=message):
        NTKRegressor(**SETTINGS).fit(X, targets)


def test_other_slips_are_told():
    with pytest.raises(
        ConfigurationError, match=r"NTKRegressor.fit takes X and y, not sample_weight"
    ):
        NTKRegressor().fit(X, Y, sample_weight=np.ones(30))
    with pytest.raises(ConfigurationError, match=r"NTKRegressor\(law=nb.RandomInit"):
        NTKRegressor().set_params(law__num_inits=4)
    with pytest.raises(NotFittedError):
        NTKRegressor().predict(X)
