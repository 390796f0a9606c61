"""The Laplace approximation: scikit-learn's, the dense one, and its symmetries (oracles 7 and 8)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError
from ntkbayes.likelihood import Bernoulli, Categorical

LENGTH, VARIANCE = 1.5, 4.0
NETWORK = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.3)


def rbf(x1, x2):
    distances = jnp.sum((x1[:, None, :] - x2[None, :, :]) ** 2, axis=-1)
    return VARIANCE * jnp.exp(-0.5 * distances / (LENGTH**2 * x1.shape[1]))


def two_classes(name):
    data = nb.datasets.load(name)
    if name == "iris":
        data = nb.Dataset(data.features[50:], data.labels[50:])
    if data.num_points > 120:
        data = data.subset(jax.random.key(0), 120)
    return data.split(jax.random.key(1), test_share=0.2)


@pytest.mark.parametrize("name", ["breast_cancer", "iris", "moons"])
def test_binary_laplace_is_that_of_scikit_learn(name):
    train, test = two_classes(name)
    kernel = ConstantKernel(VARIANCE) * RBF(LENGTH * np.sqrt(train.num_features))
    theirs = GaussianProcessClassifier(kernel, optimizer=None, max_iter_predict=1000)
    theirs.fit(train.features, train.labels)

    law = nb.Laplace().fit(nb.NTKPrior(nb.kernels.FunctionKernel(rbf), ridge=1.0), train)
    evidence = theirs.log_marginal_likelihood_value_
    assert law.info.log_evidence == pytest.approx(evidence, abs=1e-6)
    mean, variance = theirs.latent_mean_and_variance(test.features)
    # Their Newton's method stops once the evidence changes by less than 1e-10.
    np.testing.assert_allclose(law.mean(test.features)[:, 0], mean, atol=1e-6)
    np.testing.assert_allclose(law.variance(test.features)[:, 0], variance, atol=1e-6)
    # Their probabilities replace the logistic by five error functions, to about 1e-3.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    logits = mean[:, None] + np.sqrt(variance)[:, None] * nodes
    probabilities = (1 / (1 + np.exp(-logits))) @ weights / weights.sum()
    np.testing.assert_allclose(theirs.predict_proba(test.features)[:, 1], probabilities, atol=3e-3)


def three_classes():
    features, labels = oracle.blobs(2, 30, 3)
    new = np.array([[0.0, 0.0], [1.0, -1.0], [-1.5, 0.2], [5.0, 5.0]])
    return nb.Dataset(features, labels), new


@pytest.mark.parametrize("ridge", [0.01, 0.5, 20.0])
@pytest.mark.parametrize("mean", [0.0, (0.5, -1.0, 0.2)])
def test_multi_class_laplace_is_the_dense_one(ridge, mean):
    data, new = three_classes()
    prior = nb.NTKPrior(NETWORK, ridge=ridge, mean=np.array(mean))
    law = nb.Laplace().fit(prior, data)
    grams = [part / ridge for part in oracle.Kernels.of(prior, data.features, new).ntk]
    means = np.broadcast_to(mean, data.targets.shape), np.broadcast_to(mean, (len(new), 3))
    truth, evidence = oracle.laplace(oracle.Softmax(), *grams, data.targets, *means)
    scale = max(1.0, np.abs(truth.covariance).max())
    np.testing.assert_allclose(law.mean(new), truth.mean, atol=1e-8 * scale)
    np.testing.assert_allclose(
        law.covariance(new), oracle.blocks(truth.covariance, 3), atol=1e-8 * scale
    )
    assert law.info.log_evidence == pytest.approx(evidence, abs=1e-8)


def test_soft_targets_are_taken_as_they_are():
    data, new = three_classes()
    data = data.smooth(0.4)
    prior = nb.NTKPrior(NETWORK, ridge=0.3)
    law = nb.Laplace().fit(prior, data)
    grams = [part / 0.3 for part in oracle.Kernels.of(prior, data.features, new).ntk]
    zeros = np.zeros((30, 3)), np.zeros((4, 3))
    truth, evidence = oracle.laplace(oracle.Softmax(), *grams, data.targets, *zeros)
    np.testing.assert_allclose(law.mean(new), truth.mean, atol=1e-8)
    assert law.info.log_evidence == pytest.approx(evidence, abs=1e-8)


def test_two_class_softmax_is_a_bernoulli_with_twice_the_kernel():
    # f₂ − f₁ has prior variance 2P, and the likelihood sees nothing else: the half-sum f₁ + f₂ keeps
    # its prior, adds nothing to the quadratic, and 1 to the determinant |I + P W|. So the evidences
    # are equal, with no constant between them.
    features, labels = oracle.blobs(4, 25, 2)
    data = nb.Dataset(features, labels)
    new = np.array([[0.0, 0.0], [1.0, -1.0], [4.0, 4.0]])
    softmax = nb.Laplace().fit(nb.NTKPrior(NETWORK, ridge=0.4), data, likelihood=Categorical())
    logistic = nb.Laplace().fit(nb.NTKPrior(NETWORK, ridge=0.2), data, likelihood=Bernoulli())

    mean, covariance = np.array(softmax.mean(new)), np.array(softmax.covariance(new))
    np.testing.assert_allclose(mean[:, 1] - mean[:, 0], logistic.mean(new)[:, 0], atol=1e-8)
    np.testing.assert_allclose(mean.sum(axis=1), 0, atol=1e-8)
    contrast, total = np.array([-1.0, 1.0]), np.ones(2)
    np.testing.assert_allclose(
        np.einsum("c,mcd,d->m", contrast, covariance, contrast),
        logistic.variance(new)[:, 0],
        rtol=1e-8,
    )
    prior_variance = softmax.problem.prior.diagonal(new).ntk / 0.4
    np.testing.assert_allclose(
        np.einsum("c,mcd,d->m", total, covariance, total), 2 * prior_variance, rtol=1e-8
    )
    np.testing.assert_allclose(np.einsum("c,mcd,d->m", total, covariance, contrast), 0, atol=1e-8)
    assert softmax.info.log_evidence == pytest.approx(logistic.info.log_evidence, abs=1e-8)


def test_draws_from_laplace_have_its_joint_covariance():
    data, new = three_classes()
    prior = nb.NTKPrior(NETWORK, ridge=0.5)
    law = nb.Laplace().fit(prior, data)
    # Two training points among the inputs.
    inputs = np.concatenate([new, data.features[:2]])
    grams = [part / 0.5 for part in oracle.Kernels.of(prior, data.features, inputs).ntk]
    zeros = np.zeros((30, 3)), np.zeros((6, 3))
    truth, _ = oracle.laplace(oracle.Softmax(), *grams, data.targets, *zeros)
    draws = law.sample(jax.random.key(5), inputs, 8000)
    assert np.abs(oracle.mean_errors(draws, truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, truth)).max() < 4.5


def test_far_from_the_data_the_posterior_is_the_prior():
    data, _ = three_classes()
    prior = nb.NTKPrior(nb.kernels.FunctionKernel(rbf), ridge=0.5, mean=np.array([1.0, 0.0, 2.0]))
    law = nb.Laplace().fit(prior, data)
    far = np.array([[100.0, 0.0]])
    np.testing.assert_allclose(law.mean(far), [[1.0, 0.0, 2.0]], atol=1e-12)
    np.testing.assert_allclose(law.covariance(far)[0], VARIANCE / 0.5 * np.eye(3), atol=1e-12)


def test_laplace_for_real_targets_is_exact_regression():
    rng = np.random.default_rng(0)
    features, new = rng.standard_normal((20, 2)), rng.standard_normal((4, 2))
    data = nb.Dataset.real(features, rng.standard_normal((20, 2)))
    prior = nb.NTKPrior(NETWORK, ridge=0.5, mean=0.3)
    law = nb.Laplace().fit(prior, data, likelihood=nb.likelihood.Normal(0.4))
    grams = [part / 0.5 for part in oracle.Kernels.of(prior, features, new).ntk]
    truth, evidence = oracle.gp_regression(*grams, data.targets, 0.3, 0.3, 0.4)
    np.testing.assert_allclose(law.mean(new), truth.mean, atol=1e-8)
    np.testing.assert_allclose(law.covariance(new), oracle.blocks(truth.covariance, 2), atol=1e-8)
    assert law.info.log_evidence == pytest.approx(evidence, abs=1e-8)


def test_factors_in_float32_keep_half_of_the_digits():
    rng = np.random.default_rng(5)
    features = rng.standard_normal((40, 2))
    data = nb.Dataset(features, np.arange(40) % 3)
    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.5)
    wide, narrow = (nb.Laplace(factor_dtype=dtype).fit(prior, data) for dtype in ("f8", "f4"))
    evidence = wide.info.log_evidence
    assert narrow.info.log_evidence == pytest.approx(evidence, rel=1e-5)
    assert narrow.info.log_evidence != evidence
    new = 2 * rng.standard_normal((9, 2))
    np.testing.assert_allclose(narrow.variance(new), wide.variance(new), rtol=1e-3)
    np.testing.assert_array_equal(narrow.mean(new), wide.mean(new))


@pytest.mark.parametrize("dtype", ["float16", "int64", "nonsense"])
def test_a_precision_that_is_none_is_refused(dtype):
    with pytest.raises(ConfigurationError, match=f"float32 or float64.*{dtype}"):
        nb.Laplace(factor_dtype=dtype)
