"""The baselines are the base rate, and scikit-learn's own."""

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import LogisticRegression

import ntkbayes as nb
from ntkbayes.app.baselines import BASELINES, base_rate, baselines
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.kind import BASE_RATE, BASELINE

KEY = jax.random.key(0)


def data_of(seed, count, classes):
    features, labels = oracle.blobs(seed, count, classes)
    return nb.Dataset(features, labels, class_names=range(classes))


def theirs(name):
    if name == "logistic regression":
        return LogisticRegression(max_iter=5000)
    return GaussianProcessClassifier(ConstantKernel(1.0) * RBF(np.sqrt(2)), random_state=0)


def without(data, label):
    kept = data.labels != label
    return nb.Dataset(data.features[kept], data.labels[kept], class_names=data.class_names)


every_baseline = pytest.mark.parametrize("name", [n for n in BASELINES if n != "base rate"])


def test_the_base_rate_is_the_class_frequencies_of_training_at_every_point():
    train = nb.Dataset(np.arange(8.0)[:, None], [0, 2, 2, 1, 2, 0, 2, 2], class_names=range(4))
    test = nb.Dataset([[0.5], [70.0]], [2, 1], class_names=range(4))
    found = base_rate(train, test, key=KEY)
    np.testing.assert_array_equal(found.probabilities, [[0.25, 0.125, 0.625, 0.0]] * 2)
    np.testing.assert_allclose(found.pointwise_elpd, np.log([0.625, 0.125]), rtol=1e-15)
    assert (found.name, found.kind, found.logits) == ("base rate", BASE_RATE, None)
    assert found.kind != BASELINE
    assert not np.any(found.label_draws == 3)


def test_the_base_rate_of_soft_targets_is_their_mean():
    train = nb.Dataset([[0.0], [1.0]], [[0.25, 0.75], [0.5, 0.5]])
    found = base_rate(train, train, key=KEY)
    np.testing.assert_array_equal(found.probabilities, [[0.375, 0.625]] * 2)


def test_the_base_rate_of_other_classes_is_refused():
    with pytest.raises(ConfigurationError, match="make both with the same class_names"):
        base_rate(data_of(7, 24, 3), data_of(8, 12, 2), key=KEY)


@every_baseline
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_scikit_learns(name, classes):
    train, test = data_of(7, 24, classes), data_of(8, 12, classes)
    found = BASELINES[name](train, test, key=KEY)
    truth = theirs(name).fit(train.features, train.labels).predict_proba(test.features)
    np.testing.assert_array_equal(found.point_probabilities, truth)
    np.testing.assert_allclose(found.probabilities, truth, atol=1e-15)
    assert found.name == name
    assert found.kind == BASELINE
    assert found.held_out
    assert found.logits is None
    assert found.seconds > 0
    np.testing.assert_array_equal(found.targets, test.targets)


@every_baseline
@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_absent_from_training_has_probability_zero_in_its_own_column(name, absent):
    train, test = without(data_of(7, 24, 3), absent), data_of(8, 12, 3)
    found = BASELINES[name](train, test, key=KEY)
    np.testing.assert_array_equal(found.probabilities[:, absent], 0)
    present = np.delete(np.arange(3), absent)
    truth = theirs(name).fit(train.features, train.labels).predict_proba(test.features)
    np.testing.assert_allclose(found.probabilities[:, present], truth, atol=1e-15)
    assert not np.any(found.label_draws == absent)
    infinite = np.isinf(found.pointwise_elpd)
    np.testing.assert_array_equal(infinite, test.labels == absent)


def test_soft_targets_are_trained_on_as_their_most_probable_label():
    train, test = data_of(7, 24, 3), data_of(8, 12, 3)
    found = BASELINES["logistic regression"](train.smooth(0.3), test, key=KEY)
    hard = BASELINES["logistic regression"](train, test, key=KEY)
    np.testing.assert_array_equal(found.probabilities, hard.probabilities)


def test_baselines_are_deterministic_and_their_labels_depend_on_the_key():
    train, test = data_of(7, 24, 3), data_of(8, 12, 3)
    first, again = (baselines(train, test, key=KEY) for _ in range(2))
    other = baselines(train, test, key=jax.random.key(1))
    assert list(first) == list(BASELINES)
    for name in BASELINES:
        np.testing.assert_array_equal(first[name].probabilities, again[name].probabilities)
        np.testing.assert_array_equal(first[name].label_draws, again[name].label_draws)
        np.testing.assert_array_equal(first[name].probabilities, other[name].probabilities)
        assert np.any(first[name].label_draws != other[name].label_draws)
    labels = [found.label_draws for found in first.values()]
    assert np.any(labels[0] != labels[1])
