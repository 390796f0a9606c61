"""The random-init law and its first-order Gaussian (THEORY 5 and 6; oracles 5 and 6)."""

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.kernels import Kernel, KernelPair

NETWORK = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5)
NEW = np.array([[0.0, 0.0], [1.0, -1.0], [-1.5, 0.2], [4.0, 3.0]])
KEY = jax.random.key(11)


class Quieter(Kernel):
    """A kernel with its NNGP scaled, initial functions of `scale` times the standard deviation."""

    kernel: Kernel
    scale: float

    def cross(self, x1, x2):
        nngp, ntk = self.kernel.cross(x1, x2)
        return KernelPair(self.scale**2 * nngp, ntk)

    def diagonal(self, x):
        nngp, ntk = self.kernel.diagonal(x)
        return KernelPair(self.scale**2 * nngp, ntk)


class NNGPLikeNTK(Kernel):
    """K = Θ/ridge, so that initialisation spreads functions as the Bayesian prior does."""

    kernel: Kernel
    ridge: float

    def cross(self, x1, x2):
        ntk = self.kernel.cross(x1, x2).ntk
        return KernelPair(ntk / self.ridge, ntk)

    def diagonal(self, x):
        ntk = self.kernel.diagonal(x).ntk
        return KernelPair(ntk / self.ridge, ntk)


def data_of(count, seed=2):
    features, labels = oracle.blobs(seed, count, 3)
    return nb.Dataset(features, labels)


# --- ridge = 0: exactly Gaussian -----------------------------------------------------------------


@pytest.fixture(scope="module")
def ridgeless():
    data, prior = data_of(100).smooth(0.2), nb.NTKPrior(NETWORK, ridge=0.0, mean=0.2)
    kernels = oracle.Kernels.of(prior, data.features, NEW)
    means = np.full((100, 3), 0.2), np.full((len(NEW), 3), 0.2)
    return data, prior, oracle.ridgeless_law(kernels, data.targets, *means)


def test_without_ridge_the_first_order_law_is_the_dense_one_of_theory_3(ridgeless):
    data, prior, truth = ridgeless
    law = nb.FirstOrder().fit(prior, data)
    assert law.info.exact
    np.testing.assert_allclose(law.mean(NEW), truth.mean, atol=1e-6)
    np.testing.assert_allclose(law.covariance(NEW), oracle.blocks(truth.covariance, 3), atol=1e-6)
    draws = law.sample(KEY, NEW, 4000)
    assert np.abs(oracle.mean_errors(draws, truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, truth)).max() < 4.5


def test_without_ridge_trained_functions_have_exactly_that_gaussian_law(ridgeless):
    data, prior, truth = ridgeless
    law = nb.RandomInit(num_inits=4000).fit(prior, data, key=KEY)
    assert law.info.worst_residual < 1e-8
    draws = np.array(law.sample(jax.random.key(3), NEW))
    assert np.abs(oracle.mean_errors(draws, truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, truth)).max() < 4.5
    # Gaussian in its fourth moment too: the standard error of the kurtosis is √(24/S).
    flat = (draws - draws.mean(0)) / draws.std(0)
    assert np.abs((flat**4).mean(axis=0) - 3).max() < 4.5 * np.sqrt(24 / len(draws))


def test_without_ridge_the_data_pin_everything_but_a_shift_of_all_logits(ridgeless):
    data, prior, _ = ridgeless
    covariance = np.array(nb.FirstOrder().fit(prior, data).covariance(data.features[:5]))
    nngp = np.array(prior.diagonal(data.features[:5]).nngp)
    expected = nngp[:, None, None] / 3 * np.ones((1, 3, 3))  # Var of the mean logit, K/C
    np.testing.assert_allclose(covariance, expected, atol=1e-7)


# --- ridge > 0: to first order -------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.02, 1.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_first_order_law_is_the_dense_one_of_theory_4(ridge, classes):
    features, labels = oracle.blobs(2, 24, classes)
    data = nb.Dataset(features, labels)
    prior = nb.NTKPrior(NETWORK, ridge=ridge)
    law = nb.FirstOrder().fit(prior, data)
    assert not law.info.exact
    truth = oracle.Logistic() if classes == 2 else oracle.Softmax()
    targets = data.targets[:, 1:] if classes == 2 else data.targets
    kernels = oracle.Kernels.of(prior, features, NEW)
    zeros = np.zeros_like(targets), np.zeros((len(NEW), targets.shape[1]))
    dense = oracle.first_order(truth, kernels, targets, *zeros, ridge)
    np.testing.assert_allclose(law.mean(NEW), dense.mean, atol=1e-8)
    expected = oracle.blocks(dense.covariance, targets.shape[1])
    np.testing.assert_allclose(law.covariance(NEW), expected, atol=1e-8)


def test_the_first_order_law_is_the_limit_of_little_spread():
    # Paired draws: with one key, every scale trains the same initial functions, scaled, and the
    # error to first order is that of each draw, free of Monte Carlo noise.
    data, ridge = data_of(30), 0.3
    kernel = nb.NTKPrior(NETWORK, ridge=ridge).kernel
    scales = np.array([1.0, 0.5, 0.25, 0.125])
    gaps, covariance_gaps = [], []
    for scale in scales:
        prior = nb.NTKPrior(Quieter(kernel, float(scale)), ridge=ridge)
        law = nb.RandomInit(num_inits=300, tolerance=1e-9).fit(prior, data, key=KEY)
        first = nb.FirstOrder().fit(prior, data)
        g = law.g.values
        linear = first.response(KEY, g)
        moved = np.array(law.alpha - first.alpha[None])
        gaps.append(np.sqrt(np.mean((moved - np.array(linear)) ** 2) / np.mean(moved**2)))
        ntk = np.array(first.problem.gram.ntk)
        trained = np.array(g) + np.einsum("ij,sjc->sic", ntk, moved)
        to_first = np.array(g) + np.einsum("ij,sjc->sic", ntk, np.array(linear))
        a, b = (np.cov(f.reshape(300, -1).T) for f in (trained, to_first))
        covariance_gaps.append(np.linalg.norm(a - b) / np.linalg.norm(b))
    rates = np.diff(np.log2(gaps))
    covariance_rates = np.diff(np.log2(covariance_gaps))
    assert gaps[0] > 0.02  # at full spread the law is not Gaussian
    np.testing.assert_allclose(rates[1:], -1, atol=0.2)  # second order in a draw: linear, relative
    assert np.all(
        covariance_rates[1:] < -0.8
    )  # odd terms nearly cancel: between linear and quadratic
    assert np.all(covariance_rates[1:] > -2.5)
    assert covariance_gaps[-1] < 0.02


def test_moments_of_trained_functions_agree_with_first_order_at_little_spread():
    data, ridge = data_of(30), 0.3
    kernel = nb.NTKPrior(NETWORK, ridge=ridge).kernel
    prior = nb.NTKPrior(Quieter(kernel, 0.05), ridge=ridge)
    law = nb.RandomInit(num_inits=3000).fit(prior, data, key=KEY)
    zeros = np.zeros((30, 3)), np.zeros((len(NEW), 3))
    kernels = oracle.Kernels.of(prior, data.features, NEW)
    truth = oracle.first_order(oracle.Softmax(), kernels, data.targets, *zeros, ridge)
    draws = law.sample(jax.random.key(4), NEW)
    assert np.abs(oracle.mean_errors(draws, truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, truth)).max() < 4.5


def test_training_from_random_initial_functions_is_more_confident_than_bayes():
    # THEORY 6: with K = P the first-order law's covariance on the data, A P Aᵀ, is below Laplace's A P.
    data, ridge = data_of(24), 0.3
    kernel = nb.NTKPrior(NETWORK, ridge=ridge).kernel
    prior = nb.NTKPrior(NNGPLikeNTK(kernel, ridge), ridge=ridge)
    inputs = np.concatenate([data.features, NEW])
    zeros = np.zeros((24, 3)), np.zeros((len(inputs), 3))
    kernels = oracle.Kernels.of(prior, data.features, inputs)
    first = oracle.first_order(oracle.Softmax(), kernels, data.targets, *zeros, ridge)
    grams = [part / ridge for part in kernels.ntk]
    bayes, _ = oracle.laplace(oracle.Softmax(), *grams, data.targets, *zeros)
    surplus = np.linalg.eigvalsh(bayes.covariance - first.covariance)
    assert surplus.min() > -1e-8
    assert surplus.max() > 0.1

    initial, laplace = nb.FirstOrder().fit(prior, data), nb.Laplace().fit(prior, data)
    gap = np.array(laplace.covariance(inputs)) - np.array(initial.covariance(inputs))
    assert np.linalg.eigvalsh(gap).min() > -1e-8
    assert np.all(np.diagonal(gap, axis1=1, axis2=2)[:24] > 1e-3)  # strictly, on the data

    sampled = nb.RandomInit(num_inits=1000).fit(prior, data, key=KEY)
    # The sampled law is not Gaussian and its draws are finitely many: no strict order point by point.
    ratio = np.array(sampled.variance(data.features)) / np.array(laplace.variance(data.features))
    assert ratio.max() < 1 + 4.5 * np.sqrt(2 / 1000)
    assert ratio.mean() < 0.95


def test_a_shifted_network_is_the_mean_of_the_first_order_law():
    data, prior = data_of(24), nb.NTKPrior(NETWORK, ridge=0.3)
    np.testing.assert_allclose(
        nb.MAP().fit(prior, data).mean(NEW), nb.FirstOrder().fit(prior, data).mean(NEW), atol=1e-9
    )


# --- real targets: closed form -------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_for_real_targets_training_is_kernel_ridge_regression(ridge):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((12, 2))
    data = nb.Dataset.real(features, rng.standard_normal((12, 2)))
    prior = nb.NTKPrior(NETWORK, ridge=ridge, mean=0.4)
    likelihood = nb.likelihood.Normal(0.5)
    kernels = oracle.Kernels.of(prior, features, NEW)
    noisy = kernels.ntk[0] + ridge * 0.25 * np.eye(12)
    response = np.linalg.solve(noisy, kernels.ntk[1]).T  # (m, n)
    mean = 0.4 + response @ (data.targets - 0.4)
    nngp = kernels.nngp
    both = response @ nngp[1]
    covariance = nngp[2] - both - both.T + response @ nngp[0] @ response.T
    truth = oracle.Gauss(mean, oracle.spread(covariance, 2))

    fit = {"data": data, "likelihood": likelihood}
    np.testing.assert_allclose(nb.MAP().fit(prior, **fit).mean(NEW), mean, atol=1e-7)
    first = nb.FirstOrder().fit(prior, **fit)
    np.testing.assert_allclose(first.mean(NEW), mean, atol=1e-7)
    np.testing.assert_allclose(first.variance(NEW), truth.variance, atol=1e-7)
    law = nb.RandomInit(num_inits=4000).fit(prior, key=KEY, **fit)
    draws = law.sample(KEY, NEW)
    assert np.abs(oracle.mean_errors(draws, truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, truth)).max() < 4.5


def test_early_stopping_interpolates_between_initialisation_and_training():
    data, prior = data_of(12), nb.NTKPrior(NETWORK, ridge=0.3)
    trained = nb.RandomInit(num_inits=5).fit(prior, data, key=KEY)
    early = nb.RandomInit(num_inits=5, training_time=0.0).fit(prior, data, key=KEY)
    late = nb.RandomInit(num_inits=5, training_time=300.0).fit(prior, data, key=KEY)
    np.testing.assert_allclose(early.alpha, 0, atol=1e-12)
    initial = prior.gram(data.features).nngp
    np.testing.assert_allclose(
        early.sample(KEY, data.features),
        np.einsum("ij,sjc->sic", np.linalg.cholesky(initial), early.g.whitened),
        atol=1e-3,
    )
    np.testing.assert_allclose(late.sample(KEY, NEW), trained.sample(KEY, NEW), atol=1e-5)
