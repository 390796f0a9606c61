"""The coordinates in which NUTS moves. Its stationary law is tested with that of its rivals, in
`test_chains`."""

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.laws import nuts
from ntkbayes.laws.base import Problem
from ntkbayes.laws.chains import laplace_mode
from ntkbayes.likelihood import Bernoulli
from ntkbayes.linalg import cholesky

NETWORK = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5)
KEY = jax.random.key(21)
ONE = np.array([[0.8, -0.4]])


def test_laplace_becomes_exact_for_one_point_as_the_prior_narrows():
    data, likelihood = nb.Dataset(ONE, ["b"], class_names=["a", "b"]), Bernoulli()
    gaps = []
    for ridge in (10.0, 100.0, 1000.0):
        prior = nb.NTKPrior(NETWORK, ridge=ridge)
        variance = float(prior.diagonal(ONE).ntk[0]) / ridge
        mean, _, _ = oracle.one_point_posterior(
            oracle.Logistic(), variance, np.ones((1, 1)), np.zeros(1)
        )
        law = nb.Laplace().fit(prior, data, likelihood=likelihood)
        gaps.append(abs(float(law.mean(ONE)[0, 0] - mean[0])))
    assert gaps[2] < 1e-6
    # The gap is P² times a third derivative of the log likelihood of order P: quadratic or faster.
    assert np.all(np.diff(np.log10(gaps)) < -1.9)


def test_the_potential_is_the_log_density_of_the_posterior_in_other_coordinates():
    rng = np.random.default_rng(2)
    small = nb.Dataset(rng.standard_normal((11, 2)), np.arange(11) % 3, class_names=range(3))
    prior = nb.NTKPrior(NETWORK, ridge=0.5, mean=[0.5, 0.0, -1.0])
    problem = Problem.build(prior, small, None)
    factor = cholesky(problem.prior_gram)
    found = laplace_mode(problem, factor)
    target = nuts._target(problem.likelihood, problem.targets, factor.lower, found)
    sampler = nuts.NUTSSampler(target, jax.numpy.asarray(0.8), 1, 10)

    def log_density(z):
        f = np.array([0.5, 0.0, -1.0]) + np.array(factor.lower) @ z
        return oracle.Softmax().log_density(small.targets, f) - np.sum(z**2) / 2

    mode = np.array(found.whitened)
    for scale in (0.0, 1.0, 3.0):
        position = scale * jax.random.normal(KEY, mode.shape)
        whitened = np.array(sampler.whitened(position[None, None]))[0, 0]
        gap = float(target.potential(position) - target.potential(jax.numpy.zeros_like(mode)))
        assert gap == pytest.approx(log_density(mode) - log_density(whitened), rel=1e-10, abs=1e-9)
    # Class by class, the coordinates make the Laplace posterior standard normal.
    weights = np.array(found.curvature.matrix_diagonal)
    for c in range(3):
        precision = np.eye(11) + factor.lower.T @ (weights[:, c, None] * factor.lower)
        np.testing.assert_allclose(
            target.roots[c].T @ precision @ target.roots[c], np.eye(11), atol=1e-9
        )
