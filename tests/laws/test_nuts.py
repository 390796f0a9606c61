"""NUTS against posteriors known otherwise: quadrature and regression (oracles 9 and 10)."""

import jax
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConvergenceWarning
from ntkbayes.likelihood import Bernoulli, Categorical

NETWORK = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5)
KEY = jax.random.key(21)


def moment_errors(law, draws, mean, variance):
    """z-scores of draws' mean and variance (S, m, C), with standard errors from effective samples."""
    chains = np.array(draws).reshape(law.num_chains, -1, *draws.shape[1:])
    deviation = (chains - mean) ** 2
    mean_error = np.sqrt(variance / effective_sample_size(chains))
    flat = deviation.reshape(-1, *mean.shape)
    variance_error = np.sqrt(flat.var(axis=0) / effective_sample_size(deviation))
    return (
        (np.array(draws).mean(axis=0) - mean) / mean_error,
        (flat.mean(axis=0) - variance) / variance_error,
    )


# --- one point: quadrature -----------------------------------------------------------------------

ONE = np.array([[0.8, -0.4]])
CASES = {
    "bernoulli": (Bernoulli(), oracle.Logistic(), [[0.0, 1.0]], 1.0),
    "softmax": (Categorical(), oracle.Softmax(), [[0.1, 0.2, 0.7]], 0.6),
}


@pytest.mark.parametrize("name", CASES)
def test_one_point_has_the_posterior_of_quadrature(name):
    likelihood, truth, target, ridge = CASES[name]
    data = nb.Dataset(ONE, target, class_names=range(len(target[0])))
    size = 1 if name == "bernoulli" else 3
    prior = nb.NTKPrior(NETWORK, ridge=ridge, mean=np.linspace(-1.0, 0.5, size))
    encoded = np.array(likelihood.encode(data))
    variance = float(prior.diagonal(ONE).ntk[0]) / ridge
    exact_mean, exact_covariance, evidence = oracle.one_point_posterior(
        truth, variance, encoded, np.linspace(-1.0, 0.5, size)
    )

    law = nb.NUTS(num_samples=2000, num_warmup=300, num_chains=2).fit(
        prior, data, key=KEY, likelihood=likelihood
    )
    assert law.info.num_divergences == 0
    draws = law.sample(KEY, ONE)
    errors = moment_errors(law, draws, exact_mean[None], np.diag(exact_covariance)[None])
    assert max(np.abs(error).max() for error in errors) < 4

    laplace = nb.Laplace().fit(prior, data, likelihood=likelihood)
    # Laplace is an approximation here: near, and nearer than the prior is.
    gap = np.abs(np.array(laplace.mean(ONE))[0] - exact_mean)
    assert 1e-3 < gap.max() < 0.35 * np.sqrt(np.diag(exact_covariance)).max()
    np.testing.assert_allclose(laplace.variance(ONE)[0], np.diag(exact_covariance), rtol=0.3)
    assert laplace.info.log_evidence == pytest.approx(evidence, abs=0.15)


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


# --- real targets: exact regression --------------------------------------------------------------


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(1)
    features, new = rng.standard_normal((12, 2)), 1.5 * rng.standard_normal((4, 2))
    data = nb.Dataset.real(features, rng.standard_normal((12, 2)))
    prior = nb.NTKPrior(NETWORK, ridge=0.5, mean=0.3)
    inputs = np.concatenate([new, features[:2]])
    grams = [part / 0.5 for part in oracle.Kernels.of(prior, features, inputs).ntk]
    truth, _ = oracle.gp_regression(*grams, data.targets, 0.3, 0.3, 0.5)
    law = nb.NUTS(num_samples=1500, num_warmup=300, num_chains=2).fit(
        prior, data, key=KEY, likelihood=nb.likelihood.Normal(0.5)
    )
    return law, inputs, truth


def test_posterior_draws_are_exact_regression_at_old_and_new_inputs(regression):
    law, inputs, truth = regression
    draws = law.sample(KEY, inputs)
    errors = moment_errors(law, draws, truth.mean, truth.variance)
    assert max(np.abs(error).max() for error in errors) < 4
    # All cross-covariances, with what autocorrelation leaves of the draws.
    scale = np.sqrt(min(1.0, law.info.min_ess / len(draws)))
    assert np.abs(oracle.covariance_errors(draws, truth)).max() * scale < 4.5


def test_moments_of_the_law_are_exact_regression(regression):
    law, inputs, truth = regression
    error = np.sqrt(truth.variance / law.info.min_ess)
    assert np.abs((np.array(law.mean(inputs)) - truth.mean) / error).max() < 4.5
    ratio = np.array(law.variance(inputs)) / truth.variance
    assert np.abs(ratio - 1).max() < 4.5 * np.sqrt(2 / law.info.min_ess)


def test_chains_on_a_gaussian_posterior_mix_at_once(regression):
    law, _, _ = regression
    assert law.info.num_divergences == 0
    assert law.info.max_rhat < 1.01
    assert law.info.min_ess > 1000
    assert law.info.mean_steps <= 15  # the mass matrix is the posterior's own
    assert 0.7 < law.info.mean_accept < 0.99
    assert law.info.mean_step_size > 0.3


# --- diagnostics ---------------------------------------------------------------------------------


def test_chains_that_have_not_converged_warn():
    features, labels = oracle.blobs(7, 12, 2)
    method = nb.NUTS(num_samples=4, num_warmup=1, num_chains=2)
    with pytest.warns(ConvergenceWarning, match=r"have not converged.*more num_warmup"):
        method.fit(nb.NTKPrior(NETWORK, ridge=0.5), nb.Dataset(features, labels), key=KEY)
