"""The perturbed-init law: exact for regression, Laplace to first order (THEORY 6, oracles 6 and 10)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import FunctionKernel
from ntkbayes.likelihood import Normal

RIDGE, MEAN = 0.5, 0.3
KEY = jax.random.key(8)
NEW = np.array([[0.0, 0.0], [1.0, -1.0], [4.0, 3.0]])
FEATURES, LABELS = oracle.blobs(5, 6, 2)
BINARY = nb.Dataset(FEATURES, LABELS)


def rbf(x1, x2):
    return 3 * jnp.exp(-0.5 * jnp.sum((x1[:, None] - x2[None]) ** 2, axis=-1))


PRIOR = nb.NTKPrior(FunctionKernel(rbf), ridge=RIDGE, mean=MEAN)


def prior_grams(new):
    pairs = (FEATURES, FEATURES), (FEATURES, new), (new, new)
    return [np.array(rbf(a, b)) / RIDGE for a, b in pairs]


def test_for_a_normal_likelihood_draws_are_of_the_exact_posterior():
    spread = 0.5
    values = np.sin(FEATURES).sum(axis=1)
    data = nb.Dataset.real(FEATURES, values)
    law = nb.PerturbedInit(num_inits=8000, spread=spread).fit(
        PRIOR, data, key=KEY, likelihood=Normal(0.4)
    )
    inputs = np.concatenate([NEW, FEATURES[:2]])
    truth, _ = oracle.gp_regression(*prior_grams(inputs), values[:, None], MEAN, MEAN, 0.4)
    scaled = oracle.Gauss(truth.mean, spread**2 * truth.covariance)
    draws = law.sample(KEY, inputs)
    assert np.abs(oracle.mean_errors(draws, scaled)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, scaled)).max() < 4.5


def noise_of(law, data):
    """ε of each draw, by what training solves, ridge α = r(f) + ε, and its logits at X."""
    f = np.array(law.sample(KEY, data.features))
    # The law is sampled at its training points to the jitter; f is mean + g + Θ α exactly.
    exact = (
        MEAN
        + np.array(law.g.values)
        + np.einsum("ij,sjc->sic", np.array(rbf(data.features, data.features)), np.array(law.alpha))
    )
    np.testing.assert_allclose(f, exact, atol=1e-3)
    targets = law.problem.targets
    residual = jax.vmap(lambda f: law.problem.likelihood.residual(targets, f))(jnp.asarray(exact))
    return RIDGE * np.array(law.alpha) - np.array(residual), exact


@pytest.mark.parametrize("classes", [2, 3])
def test_every_draw_is_trained_with_gradient_noise_of_the_likelihoods_curvature(classes):
    features, labels = oracle.blobs(5, 6, classes)
    data = nb.Dataset(features, labels)
    law = nb.PerturbedInit(num_inits=2000, tolerance=1e-9).fit(PRIOR, data, key=KEY)
    assert law.info.worst_residual < 1e-8
    noise, _ = noise_of(law, data)

    likelihood = oracle.Logistic() if classes == 2 else oracle.Softmax()
    targets = data.targets[:, 1:] if classes == 2 else data.targets
    gram = np.array(rbf(features, features)) / RIDGE
    initial = np.full(targets.shape, MEAN)
    mode = initial + gram @ oracle.map_weights(likelihood, gram, targets, initial)
    curvature = likelihood.curvature(targets, mode)
    truth = oracle.Gauss(np.zeros_like(targets), curvature)
    assert np.abs(oracle.mean_errors(noise, truth)).max() < 4.5
    # Between logits that are not coupled the covariance is 0, which the standard error allows for.
    assert np.abs(oracle.covariance_errors(noise, truth)).max() < 4.5
    if classes == 3:
        np.testing.assert_allclose(noise.sum(axis=2), 0, atol=1e-7)
    # The noise does not depend on the initial function.
    g = np.array(law.g.values)
    products = np.einsum("sic,sjd->sicjd", noise, g)
    error = products.std(axis=0) / np.sqrt(len(g))
    assert np.abs(products.mean(axis=0) / error).max() < 4.5


def test_a_draw_is_the_trained_predictor_of_an_initial_function_shifted_by_its_noise():
    law = nb.PerturbedInit(num_inits=2000, tolerance=1e-9).fit(PRIOR, BINARY, key=KEY)
    gram, targets = prior_grams(NEW)[0], BINARY.targets[:, 1:]
    initial = np.full((6, 1), MEAN)
    mode = initial + gram @ oracle.map_weights(oracle.Logistic(), gram, targets, initial)
    # ε = W^½ z with z of the second half of the key.
    white = np.array(jax.random.normal(jax.random.split(KEY)[1], (2000, 6, 1)))
    noise = np.sqrt(np.diag(oracle.Logistic().curvature(targets, mode)))[:, None] * white
    reconstructed, logits = noise_of(law, BINARY)
    np.testing.assert_allclose(reconstructed, noise, atol=1e-7)
    for s in range(3):
        shifted = initial + np.array(law.g.values[s]) + gram @ noise[s]
        weights = oracle.map_weights(oracle.Logistic(), gram, targets, shifted)
        np.testing.assert_allclose(logits[s], shifted + gram @ weights, atol=1e-6)


def test_the_covariance_approaches_laplaces_with_the_square_of_the_spread():
    # With one key every spread trains the same initial functions and noise, scaled. Beside them the
    # same draws to first order, A (g + P ε), have the covariance of Laplace and the same error of
    # Monte Carlo, which so cancels. Odd terms have no mean: what is left is quadratic in the spread.
    gram = prior_grams(NEW)[0]
    laplace, _ = oracle.laplace(
        oracle.Logistic(),
        gram,
        gram,
        gram,
        BINARY.targets[:, 1:],
        np.full((6, 1), MEAN),
        np.full((6, 1), MEAN),
    )
    mode = laplace.mean
    response = np.linalg.inv(
        np.eye(6) + gram @ oracle.Logistic().curvature(BINARY.targets[:, 1:], mode)
    )
    spreads, gaps = np.array([0.4, 0.28, 0.2, 0.14]), []
    for spread in spreads:
        law = nb.PerturbedInit(num_inits=20_000, spread=float(spread)).fit(PRIOR, BINARY, key=KEY)
        noise, logits = noise_of(law, BINARY)
        linear = (np.array(law.g.values)[:, :, 0] + noise[:, :, 0] @ gram) @ response.T
        trained, first = (np.cov(f.T) / spread**2 for f in (logits[:, :, 0], linear))
        joint = oracle.Gauss(np.zeros((6, 1)), laplace.covariance)
        assert np.abs(oracle.covariance_errors(linear[:, :, None] / spread, joint)).max() < 4.5
        gaps.append(np.linalg.norm(trained - first) / np.linalg.norm(first))
    exponent = np.polyfit(np.log(spreads), np.log(gaps), 1)[0]  # measured 1.98
    assert exponent == pytest.approx(2, abs=0.2)
    assert gaps[0] > 0.1  # 0.55 at full spread: there the law is not Laplace


def test_settings_outside_their_range_are_refused():
    with pytest.raises(ConfigurationError, match="num_inits must be at least 2; got 1"):
        nb.PerturbedInit(num_inits=1)
    for spread in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match=f"positive and finite; got {spread!r}"):
            nb.PerturbedInit(spread=spread)
