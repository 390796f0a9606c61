"""Temperature scaling against refits and a search of our own, in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle
from scipy import special

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.kernels import FunctionKernel
from ntkbayes.laws import Problem
from ntkbayes.laws.wrappers.held_out import folds

RIDGE, MEAN = 0.05, 0.3
KEY = jax.random.key(6)
NEW = np.array([[0.0, 0.0], [1.0, -1.0], [4.0, 3.0]])
DATA = nb.Dataset(*oracle.blobs(5, 30, 2))


def rbf(x1, x2):
    return 3 * jnp.exp(-0.5 * jnp.sum((x1[:, None] - x2[None]) ** 2, axis=-1))


PRIOR = nb.NTKPrior(FunctionKernel(rbf), ridge=RIDGE, mean=MEAN)


def problem_of(data):
    return Problem.build(PRIOR, data, None)


@pytest.fixture(scope="module")
def scaled():
    return nb.TemperatureScaled(nb.MAP(), num_folds=3).fit(PRIOR, DATA, key=KEY)


def test_the_temperature_has_the_least_held_out_nll(scaled):
    # The folds are a function of the key; each is refitted by scipy.
    fold_key = jax.random.split(jax.random.split(KEY)[0], 3)[0]
    fold = folds(problem_of(DATA), fold_key, 3)
    targets, features, logits = DATA.targets[:, 1:], DATA.features, np.zeros((30, 1))
    for k in range(3):
        rest, held = fold != k, fold == k
        gram = np.array(rbf(features[rest], features[rest])) / RIDGE
        cross = np.array(rbf(features[held], features[rest])) / RIDGE
        initial = np.full((rest.sum(), 1), MEAN)
        a = oracle.map_weights(oracle.Logistic(), gram, targets[rest], initial)
        logits[held] = MEAN + cross @ a

    def nll(temperature):
        return -np.mean(special.log_expit((2 * targets - 1) * logits / temperature))

    temperature = scaled.info.temperature
    assert scaled.info.held_out_nll == pytest.approx(nll(temperature), abs=1e-8)
    step = 1e-4 * temperature
    slope = (nll(temperature + step) - nll(temperature - step)) / (2 * step)
    assert slope == pytest.approx(0, abs=1e-5)
    elsewhere = [nll(t) for t in np.geomspace(0.01, 100, 200)]
    assert nll(temperature) <= min(elsewhere) + 1e-10
    assert temperature > 1.2  # so little ridge is over-confident
    assert nll(temperature) < nll(1.0) - 0.01


@pytest.mark.parametrize("classes", [2, 3])
def test_with_soft_targets_the_temperature_has_the_least_nll_of_the_table(classes):
    # Of draws, not of a point: −log mean exp(Σ y log p) is least at several times that temperature.
    features, labels = oracle.blobs(5, 30, classes)
    votes = np.random.default_rng(0).multinomial(4, 0.5 * np.eye(classes)[labels] + 0.5 / classes)
    soft = nb.Dataset.from_counts(features, votes)
    prior = nb.NTKPrior(FunctionKernel(rbf), ridge=0.3)
    found = nb.TemperatureScaled(nb.Laplace(), num_folds=2).fit(prior, soft, key=KEY).info

    fold_key, _, draw_key = jax.random.split(jax.random.split(KEY)[0], 3)
    fold, held_out = folds(problem_of(soft), fold_key, 2), []
    for k in range(2):
        law = nb.Laplace().fit(prior, soft.take(fold != k))
        held = soft.take(fold == k)
        draws = law.sample(jax.random.fold_in(draw_key, k), held.features)
        held_out.append((np.array(draws), held.targets))

    def nll(temperature, score):
        terms = []
        for draws, targets in held_out:
            scaled = draws / temperature
            if classes == 2:
                scaled = np.concatenate([np.zeros_like(scaled), scaled], axis=2)
            terms.append(score(special.log_softmax(scaled, axis=2), targets))
        return np.mean(np.concatenate(terms))

    def of_the_table(log_p, targets):
        return nb.calibration.negative_log_likelihood(np.exp(log_p).mean(axis=0), targets)

    def of_the_pseudo_likelihood(log_p, targets):
        return -np.log(np.exp((log_p * targets).sum(axis=2)).mean(axis=0))

    grid = np.geomspace(0.1, 30, 200)  # steps of 3%
    best, other = (
        grid[np.argmin([nll(t, score) for t in grid])]
        for score in (of_the_table, of_the_pseudo_likelihood)
    )
    assert found.temperature == pytest.approx(best, rel=0.03)
    assert found.held_out_nll == pytest.approx(nll(found.temperature, of_the_table), abs=1e-10)
    assert other > 4 * best


def test_everything_of_the_law_is_scaled_alike(scaled):
    law = nb.Laplace().fit(PRIOR, DATA)
    tempered = nb.TemperatureScaled(nb.Laplace(), num_folds=3).fit(PRIOR, DATA, key=KEY)
    temperature = tempered.info.temperature
    assert abs(temperature - 1) > 0.05
    assert temperature != scaled.info.temperature
    np.testing.assert_allclose(tempered.mean(NEW) * temperature, law.mean(NEW), rtol=1e-12)
    np.testing.assert_allclose(
        tempered.covariance(NEW) * temperature**2, law.covariance(NEW), rtol=1e-12
    )
    np.testing.assert_allclose(tempered.variance(NEW) * temperature**2, law.variance(NEW))
    np.testing.assert_allclose(
        tempered.joint_covariance(NEW) * temperature**2, law.joint_covariance(NEW), rtol=1e-12
    )
    for which in ("sample", "sample_marginals"):
        ours, theirs = (getattr(one, which)(KEY, NEW, 5) for one in (tempered, law))
        np.testing.assert_allclose(ours * temperature, theirs, rtol=1e-12)
    assert tempered.kind == law.kind.temperature_scaled


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
def test_separable_data_have_no_temperature(ridge):
    # Their held-out NLL falls towards temperature 0, and is 0 to round-off from somewhere on.
    features = np.concatenate([np.linspace(-1.2, -0.8, 6), np.linspace(0.8, 1.2, 6)])[:, None]
    data = nb.Dataset(features, np.repeat([0, 1], 6))
    prior = nb.NTKPrior(FunctionKernel(rbf), ridge=ridge)
    with pytest.raises(
        ConvergenceError, match=r"no minimum at a temperature .* it is .* at 0\.0\d+"
    ):
        nb.TemperatureScaled(nb.MAP(), num_folds=3).fit(prior, data, key=KEY)


def test_logits_without_information_have_no_temperature():
    prior = nb.NTKPrior(FunctionKernel(rbf), ridge=RIDGE)
    far = nb.Dataset(1000 * np.arange(12.0)[:, None], np.arange(12) % 2)  # each far from all others
    with pytest.raises(ConvergenceError, match="predicted alike"):
        nb.TemperatureScaled(nb.MAP(), num_folds=3).fit(prior, far, key=KEY)


# --- folds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_folds", [2, 3, 7, 30])
def test_folds_hold_each_class_and_all_points_evenly(num_folds):
    labels = np.array([0] * 17 + [1] * 3 + [2] * 10)
    data = nb.Dataset(np.arange(30.0)[:, None], labels)
    fold = folds(problem_of(data), KEY, num_folds)
    assert set(fold) == set(range(num_folds))
    for chosen in (labels == 0, labels == 1, labels == 2, labels >= 0):
        counts = np.bincount(fold[chosen], minlength=num_folds)
        assert counts.max() - counts.min() <= 1


def test_folds_are_a_function_of_the_key():
    np.testing.assert_array_equal(folds(problem_of(DATA), KEY, 5), folds(problem_of(DATA), KEY, 5))
    assert (folds(problem_of(DATA), KEY, 5) != folds(problem_of(DATA), jax.random.key(7), 5)).any()
    real = nb.Dataset.real(DATA.features, DATA.features[:, 0])
    assert np.bincount(folds(problem_of(real), KEY, 4)).tolist() == [8, 8, 7, 7]


@pytest.mark.parametrize("num_folds", [-1, 0, 1, 31])
def test_numbers_of_folds_outside_their_range_are_refused(num_folds):
    message = rf"num_folds must be at least 2; got|divided into 2 to 30 folds; got {num_folds}"
    with pytest.raises(ConfigurationError, match=message):
        folds(problem_of(DATA), KEY, num_folds)
    with pytest.raises(ConfigurationError, match=message):
        nb.TemperatureScaled(nb.MAP(), num_folds=num_folds).fit(PRIOR, DATA, key=KEY)


def test_a_key_is_required():
    with pytest.raises(ConfigurationError, match=r"give key=jax\.random\.key"):
        nb.TemperatureScaled(nb.MAP()).fit(PRIOR, DATA)
