"""`NTKPrior`: consistent blocks, initial functions with the right law, settings refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, PrecisionError, RidgeError
from ntkbayes.kernels import FunctionKernel, analytic_kernel
from ntkbayes.priors.paths import initial_process, tangent_process

NETWORK = nb.networks.mlp()
X = np.asarray(jax.random.normal(jax.random.key(0), (4, 3)))


def rbf(x1, x2):
    return jnp.exp(-jnp.sum((x1[:, None] - x2[None]) ** 2, axis=-1) / 2)


@pytest.mark.parametrize("network", [NETWORK, FunctionKernel(rbf)])
def test_gram_cross_and_diagonal_are_blocks_of_one_kernel(network):
    prior = nb.NTKPrior(network, ridge=0.1)
    blocks = prior.gram(X), prior.cross(X[::-1], X), prior.diagonal(X)
    for parts in zip(*blocks, strict=True):
        gram, cross, diagonal = map(np.asarray, parts)
        np.testing.assert_allclose(cross, gram[::-1], rtol=1e-14)
        np.testing.assert_allclose(np.diagonal(gram), diagonal, rtol=1e-14)
        np.testing.assert_allclose(gram, gram.T, rtol=1e-14)


def test_prior_of_a_network_is_that_of_its_analytic_kernel():
    from_kernel = nb.NTKPrior(analytic_kernel(NETWORK), ridge=0.1).gram(X)
    for a, b in zip(nb.NTKPrior(NETWORK, ridge=0.1).gram(X), from_kernel, strict=True):
        np.testing.assert_array_equal(a, b)


def test_function_kernel_is_both_kernels():
    gram = nb.NTKPrior(FunctionKernel(rbf), ridge=1.0).gram(X)
    np.testing.assert_array_equal(gram.nngp, gram.ntk)
    np.testing.assert_allclose(gram.ntk, rbf(jnp.asarray(X), jnp.asarray(X)), rtol=1e-14)


def mean_function(x):
    return np.stack([x[:, 0], x[:, 1] ** 2], axis=1)


@pytest.mark.parametrize("mean", [0.0, 2, np.array([1.0, -1.0]), mean_function])
def test_initial_functions_have_the_nngp_as_covariance_and_the_mean_as_mean(mean):
    prior, num_draws = nb.NTKPrior(NETWORK, ridge=0.1, mean=mean), 4000
    draws = prior.sample_initial(jax.random.key(1), X, num_draws=num_draws, num_outputs=2)
    expected_mean = mean(X) if callable(mean) else np.broadcast_to(mean, (4, 2))
    np.testing.assert_array_equal(prior.mean_logits(X, 2), expected_mean)
    centred = np.asarray(draws) - expected_mean
    covariance = np.asarray(prior.gram(X).nngp)
    variance = np.diag(covariance)
    z_mean = centred.mean(axis=0) / np.sqrt(variance / num_draws)[:, None]
    assert np.max(np.abs(z_mean)) < 4.5
    flat = centred.reshape(num_draws, 8)
    expected = np.kron(covariance, np.eye(2))  # the logits are independent
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / num_draws)
    assert np.max(np.abs(flat.T @ flat / num_draws - expected) / error) < 4.5


@pytest.mark.parametrize("mean", [np.zeros(3), np.zeros((3, 2)), lambda x: np.zeros((2, len(x)))])
def test_mean_of_another_shape_is_refused(mean):
    with pytest.raises(ConfigurationError, match=r"mean has shape .* 4 points with 2 logits"):
        nb.NTKPrior(NETWORK, ridge=0.1, mean=mean).mean_logits(X, 2)


@pytest.mark.parametrize("ridge", [-0.1, float("nan"), float("inf")])
def test_ridge_must_be_nonnegative_and_finite(ridge):
    with pytest.raises(ConfigurationError, match="ridge must be at least 0 and finite"):
        nb.NTKPrior(NETWORK, ridge=ridge)


def test_without_ridge_there_is_no_prior_of_bayes():
    with pytest.raises(RidgeError, match="Laplace needs a ridge > 0"):
        nb.NTKPrior(NETWORK, ridge=0.0).require_ridge("Laplace")
    nb.NTKPrior(NETWORK, ridge=0.1).require_ridge("Laplace")


def test_float32_is_refused():
    prior = nb.NTKPrior(NETWORK, ridge=0.1)
    with jax.enable_x64(False):
        for evaluate in (prior.gram, prior.diagonal):
            with pytest.raises(PrecisionError, match="jax_enable_x64"):
                evaluate(X)


class Unknown(nb.networks.Network):
    def init(self, key, features):
        return None

    def apply(self, params, features):
        return features


def test_networks_without_analytic_kernels_are_refused():
    with pytest.raises(ConfigurationError, match="no analytic kernel is known for"):
        nb.NTKPrior(Unknown(), ridge=0.1)


def test_an_anchor_of_another_structure_is_named():
    network = nb.networks.mlp(depth=1, width=4)
    params = network.init(jax.random.key(0), jnp.ones((2, 3)))
    with pytest.raises(
        ConfigurationError, match=r"anchor\[1\]\[0\] is absent, but should be of shape"
    ):
        nb.linearise(network, params, ridge=1.0, anchor=params[:1])


@pytest.mark.parametrize("process", ["initial", "scaled", "tangent"])
def test_a_path_at_the_training_inputs_is_its_values_and_elsewhere_the_conditional(process):
    prior, scale = nb.NTKPrior(NETWORK, ridge=0.3), 2.0
    x, new = jnp.asarray(X), jnp.asarray(X[:3] + 0.5)
    gram = prior.gram(x)
    of = {
        "initial": (initial_process(prior, x, gram, 2), lambda pair: pair.nngp),
        "scaled": (initial_process(prior, x, gram, 2, scale), lambda pair: scale**2 * pair.nngp),
        "tangent": (tangent_process(prior, x, gram, 2), lambda pair: pair.ntk / prior.ridge),
    }
    drawn, covariance = of[process]
    path = drawn.draw(jax.random.key(1), 5)
    for inputs in (x, jnp.array(X)):
        np.testing.assert_array_equal(path.at(jax.random.key(2), inputs), path.values)
    traced = jax.jit(lambda x: path.at(jax.random.key(2), x))(x)
    np.testing.assert_allclose(traced, path.values, atol=1e-4)  # a root of the jitter
    means, left = path.given(x)  # as without the other inputs, for draws that depend on none
    np.testing.assert_allclose(means[:, :2], path.given(x[:2])[0], rtol=1e-12)
    np.testing.assert_allclose(left, np.zeros((4, 2, 2)), atol=1e-9)

    known, cross, own = (
        np.asarray(covariance(pair)) for pair in (gram, prior.cross(new, x), prior.gram(new))
    )
    projection = np.linalg.solve(known, cross.T).T
    expected = own - projection @ cross.T
    means, left = path.given(new)
    np.testing.assert_allclose(means, projection @ np.asarray(path.values), rtol=1e-7)
    blocks = np.diagonal(expected)[:, None, None] * np.eye(2)
    np.testing.assert_allclose(left, blocks, rtol=1e-7, atol=1e-10)
    _, joint = path.jointly_given(new)
    np.testing.assert_allclose(joint, np.kron(expected, np.eye(2)), rtol=1e-7, atol=1e-10)
