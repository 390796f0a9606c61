"""The kernel of the readout alone is the NNGP kernel, as K and as Θ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import EmpiricalKernel, FunctionKernel, analytic_kernel
from ntkbayes.kernels.last_layer import last_layer

NETWORK = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5)
FEATURES, LABELS = oracle.blobs(2, 12, 3)
NEW = np.array([[0.0, 0.0], [1.0, -1.0], [4.0, 3.0]])


def nngp(x1, x2):
    """Covariance of a one-hidden-layer ReLU network (Cho & Saul 2009), in numpy."""

    def affine(product):
        return 1.5**2 * product + 0.5**2

    inner = affine(x1 @ x2.T / x1.shape[1])
    first, second = (affine(np.sum(x**2, axis=1) / x.shape[1]) for x in (x1, x2))
    scale = np.sqrt(first[:, None] * second)
    angle = np.arccos(np.clip(inner / scale, -1, 1))
    return affine(scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi))


def test_both_kernels_are_the_covariance_of_the_network_at_initialisation():
    prior = nb.NTKPrior(last_layer(NETWORK), ridge=1.0)
    whole = nb.NTKPrior(NETWORK, ridge=1.0)
    for found, known in (
        (prior.cross(FEATURES, NEW), whole.cross(FEATURES, NEW)),
        (prior.diagonal(NEW), whole.diagonal(NEW)),
    ):
        np.testing.assert_array_equal(found.nngp, known.nngp)
        np.testing.assert_array_equal(found.ntk, known.nngp)
        assert np.abs(np.array(known.ntk) - np.array(known.nngp)).min() > 0.1
    np.testing.assert_allclose(prior.cross(FEATURES, NEW).ntk, nngp(FEATURES, NEW), rtol=1e-7)


def test_a_kernel_is_taken_as_its_network():
    found, same = (last_layer(given) for given in (NETWORK, analytic_kernel(NETWORK)))
    x = jnp.asarray(FEATURES)
    np.testing.assert_array_equal(found.cross(x, x).ntk, same.cross(x, x).ntk)


def test_with_ridge_1_laplace_is_the_posterior_of_the_nngp():
    data = nb.Dataset(FEATURES, LABELS)
    law = nb.Laplace().fit(nb.NTKPrior(last_layer(NETWORK), ridge=1.0, mean=0.2), data)
    pairs = (FEATURES, FEATURES), (FEATURES, NEW), (NEW, NEW)
    means = np.full((12, 3), 0.2), np.full((3, 3), 0.2)
    grams = [nngp(*pair) for pair in pairs]
    truth, evidence = oracle.laplace(oracle.Softmax(), *grams, data.targets, *means)
    np.testing.assert_allclose(law.mean(NEW), truth.mean, atol=1e-6)
    np.testing.assert_allclose(law.covariance(NEW), oracle.blocks(truth.covariance, 3), atol=1e-6)
    assert law.info.log_evidence == pytest.approx(evidence, abs=1e-6)


def test_the_kernel_of_a_finite_network_is_refused():
    network = nb.networks.mlp(depth=1, activation="erf", width=4, num_outputs=3)
    params = network.init(jax.random.key(0), jnp.asarray(FEATURES))
    prior = nb.NTKPrior(last_layer(EmpiricalKernel(network, params)), ridge=1.0)
    with pytest.raises(ConfigurationError, match="unknown for a finite network"):
        prior.gram(FEATURES)


def test_a_kernel_that_is_not_to_be_compiled_stays_so():
    class Eager(FunctionKernel):
        compiled = False

    assert not last_layer(Eager(nngp)).compiled
    assert last_layer(NETWORK).compiled
