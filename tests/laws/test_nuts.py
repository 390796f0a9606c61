"""The coordinates in which NUTS moves. Its stationary law is tested with that of its rivals, in
`test_chains`."""

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle
from threadpoolctl import threadpool_info, threadpool_limits

import ntkbayes as nb
from ntkbayes.laws import Problem
from ntkbayes.laws.chains import nuts, threads
from ntkbayes.laws.chains.nuts import NUTS
from ntkbayes.laws.chains.sampler import laplace_mode
from ntkbayes.likelihood import Bernoulli

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


def problem_and_target(mean):
    rng = np.random.default_rng(2)
    small = nb.Dataset(rng.standard_normal((11, 2)), np.arange(11) % 3, class_names=range(3))
    problem = Problem.build(nb.NTKPrior(NETWORK, ridge=0.5, mean=mean), small, None)
    factor = problem.prior_gram.factor()
    found = laplace_mode(problem, factor)
    target = nuts._target(
        problem.likelihood, problem.targets, problem.gram.ntk.like(factor.lower), found
    )
    return problem, np.array(factor.lower), found, target


def test_the_potential_is_the_log_density_of_the_posterior_in_other_coordinates():
    mean = np.array([0.5, 0.0, -1.0])
    problem, lower, found, target = problem_and_target(mean)
    sampler = nuts.NUTSSampler(target, jax.numpy.asarray(0.8), 1, 10)
    mode = np.array(found.whitened)

    def log_density(z):
        prior = np.sum((z - z.mean(axis=1, keepdims=True)) ** 2) / 2
        return oracle.Softmax().log_density(np.array(problem.targets), mean + lower @ z) - prior

    origin = jax.numpy.zeros((2, 11))
    for scale in (0.0, 1.0, 3.0):
        position = scale * jax.random.normal(KEY, origin.shape)
        whitened = np.array(sampler.whitened(position[None, None], KEY))[0, 0]
        gap = float(target.potential(position) - target.potential(origin))
        assert gap == pytest.approx(log_density(mode) - log_density(whitened), rel=1e-10, abs=1e-9)


def test_coordinates_make_laplace_of_one_weight_a_point_standard_normal():
    _, lower, found, target = problem_and_target(0.0)
    weights = np.sqrt(np.array(found.curvature.matrix_diagonal)).mean(axis=1) ** 2 * 3 / 2
    precision = np.eye(11) + lower.T @ (weights[:, None] * lower)
    root = np.array(target.root)
    np.testing.assert_allclose(root.T @ precision @ root, np.eye(11), atol=1e-9)
    np.testing.assert_allclose(root.T @ root, np.diag(target.precision[0]), atol=1e-9)
    directions = np.array(target.directions)
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(directions.sum(axis=1), 0.0, atol=1e-12)


def test_the_mean_of_a_points_logits_keeps_its_prior():
    # Softmax does not see it: independent draws, of variance P_ii / C.
    problem, lower, _, _ = problem_and_target([0.5, 0.0, -1.0])
    method = NUTS(num_samples=2000, num_warmup=50, num_chains=2)
    law = method.solve(problem, KEY)
    means = np.linalg.solve(lower, np.array(law.g.values).mean(axis=2).T) * np.sqrt(3)
    count = means.size
    assert abs(means.mean()) < 4 / np.sqrt(count)
    assert abs((means**2).mean() - 1) < 4 * np.sqrt(2 / count)
    assert abs((means[:, 1:] * means[:, :-1]).mean()) < 4 / np.sqrt(count)


# --- chains in threads ---------------------------------------------------------------------------


def few_draws():
    rng = np.random.default_rng(0)
    data = nb.Dataset(rng.standard_normal((23, 2)), np.arange(23) % 3, class_names=range(3))
    method = NUTS(num_samples=8, num_warmup=60, num_chains=3)
    with pytest.warns(nb.errors.ConvergenceWarning):
        law = method.fit(nb.NTKPrior(NETWORK, ridge=0.5), data, key=KEY)
    return np.asarray(law.sample(KEY, data.features, 24))


def test_chains_in_threads_are_those_in_step(monkeypatch):
    apart = few_draws()
    monkeypatch.setattr(nuts.NUTSSampler, "apart", lambda self, state: [state])
    np.testing.assert_allclose(few_draws(), apart, rtol=1e-7, atol=1e-7)


def test_chains_do_not_depend_on_the_number_of_threads(monkeypatch):
    several = few_draws()
    monkeypatch.setattr(threads, "cpu_count", lambda: 1)
    np.testing.assert_array_equal(few_draws(), several)


def test_chains_have_the_precision_of_the_thread_that_asks_for_them():
    everywhere = few_draws()
    jax.config.update("jax_enable_x64", False)
    try:
        with jax.enable_x64(True):
            here = few_draws()
    finally:
        jax.config.update("jax_enable_x64", True)
    assert here.dtype == np.float64
    np.testing.assert_array_equal(here, everywhere)


def test_threads_of_chains_leave_blas_no_more_threads_than_it_had():
    def blas_threads():
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    with threadpool_limits(1, user_api="blas"), threads.chain_threads(1) as each:
        assert blas_threads() == {1}
        assert each(lambda value: value + 1, [(1,), (2,)]) == [2, 3]
