"""The evidence by bridge sampling: closed forms, quadrature, and its own error."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from scipy import special, stats

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.selection.bridge import bridge

KEY = jax.random.key(3)
NETWORK = nb.networks.mlp(depth=1, activation="erf", weight_std=1.4, bias_std=0.6)
PRIOR = nb.NTKPrior(NETWORK, ridge=0.1)
FEATURES = np.array([[0.3, -0.5], [1.0, 0.4]])
DATA = nb.Dataset(FEATURES, np.array([0, 2]), class_names=range(3))
CHAINS = {"num_samples": 1000, "num_warmup": 200, "num_chains": 2}


def autoregressive(random, correlation, shape):
    """Stationary chains with standard normal margins."""
    noise = random.normal(size=shape)
    chains = noise.copy()
    for t in range(1, shape[1]):
        moved = np.sqrt(1 - correlation**2) * noise[:, t]
        chains[:, t] = correlation * chains[:, t - 1] + moved
    return chains


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_a_normalising_constant_is_found_within_its_error(correlation):
    # p = e³ N(0, 1), q = N(0.7, 0.8²), whose weights have infinite variance.
    random, scores = np.random.default_rng(0), []
    for _ in range(60):
        drawn = autoregressive(random, correlation, (4, 300))
        proposed = 0.7 + 0.8 * random.normal(size=2000)

        def log_weight(f):
            return 3.0 + stats.norm.logpdf(f) - stats.norm.logpdf(f, 0.7, 0.8)

        found, error = bridge(log_weight(drawn), log_weight(proposed))
        scores.append((found - 3.0) / error)
    assert abs(np.mean(scores)) < 4 / np.sqrt(60)
    # Of the sum of squares of 60 scores.
    assert 0.9995 > stats.chi2(60).cdf(np.sum(np.square(scores))) > 0.0005


def test_densities_that_hardly_overlap_have_a_large_error():
    random = np.random.default_rng(0)
    drawn, proposed = random.normal(size=(4, 250, 40)), 1.5 + random.normal(size=(1000, 40))

    def log_weight(f):
        return np.sum(stats.norm.logpdf(f) - stats.norm.logpdf(f, 1.5), axis=-1)

    assert bridge(log_weight(drawn), log_weight(proposed))[1] > 0.3


@pytest.fixture(scope="module")
def law():
    return nb.NUTS(**CHAINS).fit(PRIOR, DATA, key=KEY)


def test_the_evidence_of_softmax_is_that_of_quadrature(law):
    gram = np.asarray(PRIOR.gram(FEATURES).ntk) / 0.1
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    # Differences of the logits of a point are all that softmax sees: two numbers per point.
    basis = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    z = np.array(list(itertools.product(nodes, repeat=4))).reshape(-1, 2, 2)
    mass = np.array(list(itertools.product(weights / weights.sum(), repeat=4))).prod(axis=1)
    f = np.linalg.cholesky(gram) @ z @ basis
    likelihood = special.softmax(f, axis=2)[:, [0, 1], [0, 2]].prod(axis=1)
    truth = np.log(mass @ likelihood)
    found = nb.bridge_evidence(law, key=KEY)
    assert found.error < 0.05
    assert abs(found.log_evidence - truth) < 4 * found.error
    assert found.approximate == nb.Laplace().fit(PRIOR, DATA).info.log_evidence
    assert abs(found.approximate - truth) > 4 * found.error
    other = nb.bridge_evidence(law, key=KEY, method=nb.Variational(), num_draws=5000)
    assert abs(other.log_evidence - truth) < 4 * other.error
    particles = nb.smc_evidence(nb.Laplace().fit(PRIOR, DATA), key=KEY)
    apart, error = found.log_bayes_factor(particles)
    assert abs(apart) < 4 * error
    factor, error = found.log_bayes_factor(other)
    assert factor == found.log_evidence - other.log_evidence
    assert error == np.hypot(found.error, other.error)


def test_under_a_normal_likelihood_the_evidence_is_exact():
    data = nb.Dataset.real(FEATURES, np.array([0.4, -1.0]))
    law = nb.NUTS(**CHAINS).fit(PRIOR, data, key=KEY, likelihood=nb.likelihood.Normal(0.4))
    covariance = np.asarray(PRIOR.gram(FEATURES).ntk) / 0.1 + 0.16 * np.eye(2)
    truth = stats.multivariate_normal(np.zeros(2), covariance).logpdf([0.4, -1.0])
    found = nb.bridge_evidence(law, key=KEY)
    assert found.log_evidence == pytest.approx(truth, abs=1e-6)
    assert found.error == 0.0


def test_an_evidence_that_is_not_known_is_refused(law, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"this law is of kind 'Laplace', and nb\.smc_ev"):
        nb.bridge_evidence(nb.Laplace().fit(PRIOR, DATA), key=KEY)
    apart = dataclasses.replace(law, info=dataclasses.replace(law.info, max_rhat=1.3))
    with pytest.raises(ConvergenceError, match=r"R-hat 1\.300.*not the posterior's"):
        nb.bridge_evidence(apart, key=KEY)
    with pytest.raises(ConfigurationError, match="num_draws must be at least 100; got 10"):
        nb.bridge_evidence(law, key=KEY, num_draws=10)
    monkeypatch.setattr("ntkbayes.selection.estimate.LARGEST_ERROR", 1e-6)
    with pytest.raises(ConvergenceError, match=r"not known: about .* an error of .* above 1e-06"):
        nb.bridge_evidence(law, key=KEY)
