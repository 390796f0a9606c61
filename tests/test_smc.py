"""The evidence by sequential Monte Carlo: quadrature, closed forms, bridge sampling, its own error."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from oracles import gp_classification as oracle
from oracles.quadrature import standard_normal
from scipy import special, stats

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceError, UnknownNameError
from ntkbayes.selection import estimate, full_bayes, smc

KEY = jax.random.key(3)
NETWORK = nb.networks.mlp(depth=1, activation="erf", weight_std=1.4, bias_std=0.6)
PRIOR = nb.NTKPrior(NETWORK, ridge=0.1)
FEATURES = np.array([[0.3, -0.5], [1.0, 0.4]])
DATA = nb.Dataset(FEATURES, np.array([0, 2]), class_names=range(3))


def factor_at(prior, features):
    return np.linalg.cholesky(np.asarray(prior.gram(features).ntk.dense()) / float(prior.ridge))


def is_near(found, truth):
    return abs(found.log_evidence - truth) < 4 * found.error + 1e-3


def softmax_evidence():
    nodes, weights = standard_normal(4, reach=6, num_nodes=33)
    # Differences of the logits of a point are all that softmax sees: two numbers per point.
    basis = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    f = factor_at(PRIOR, FEATURES) @ nodes.reshape(-1, 2, 2) @ basis
    return np.log(weights @ special.softmax(f, axis=2)[:, [0, 1], [0, 2]].prod(axis=1))


@pytest.mark.parametrize(
    "method", [nb.Laplace(), nb.Variational(), nb.DirichletGP()], ids=lambda method: method.name
)
def test_from_any_gaussian_the_evidence_of_softmax_is_that_of_quadrature(method):
    law = method.fit(PRIOR, DATA)
    found = nb.smc_evidence(law, key=KEY)
    assert found.error < 0.1
    assert is_near(found, softmax_evidence())
    if isinstance(method, nb.DirichletGP):  # whose density is one of numbers, not of classes
        assert np.isnan(found.approximate)
    else:
        assert found.approximate == law.info.log_evidence


def test_the_evidence_of_a_count_is_that_of_quadrature():
    data = nb.Dataset.real(FEATURES[:1], np.array([7.0]))
    law = nb.Laplace().fit(PRIOR, data, likelihood=nb.likelihood.Poisson())
    nodes, weights = standard_normal(reach=9, num_nodes=2001)
    rate = np.exp(factor_at(PRIOR, FEATURES[:1])[0, 0] * nodes[:, 0])
    truth = np.log(weights @ stats.poisson.pmf(7, rate))
    found = nb.smc_evidence(law, key=KEY)
    assert found.error < 0.05
    assert is_near(found, truth)


def test_outputs_that_the_kernel_couples_have_the_evidence_of_quadrature():
    network = nb.networks.mlp(depth=1, width=5, num_outputs=3)
    kernel = nb.kernels.EmpiricalKernel(network, network.init(KEY, jnp.asarray(FEATURES)))
    prior, one = nb.NTKPrior(kernel, ridge=0.3), nb.Dataset(FEATURES[:1], [1], class_names=range(3))
    law = nb.Laplace().fit(prior, one)
    nodes, weights = standard_normal(3, reach=6, num_nodes=81)
    f = nodes @ factor_at(prior, FEATURES[:1]).T
    found = nb.smc_evidence(law, key=KEY)
    assert found.error < 0.05
    assert is_near(found, np.log(weights @ special.softmax(f, axis=1)[:, 1]))


def test_under_a_normal_likelihood_the_evidence_is_exact():
    data = nb.Dataset.real(FEATURES, np.array([0.4, -1.0]))
    law = nb.Laplace().fit(PRIOR, data, likelihood=nb.likelihood.Normal(0.4))
    covariance = factor_at(PRIOR, FEATURES) @ factor_at(PRIOR, FEATURES).T + 0.16 * np.eye(2)
    truth = stats.multivariate_normal(np.zeros(2), covariance).logpdf([0.4, -1.0])
    found = nb.smc_evidence(law, key=KEY)
    assert found.log_evidence == pytest.approx(truth, abs=1e-8)
    assert found.error < 1e-9


def test_on_two_classes_it_is_that_of_draws_of_the_prior_where_gaussians_are_near_at_best():
    features, labels = oracle.blobs(7, 12, 2)
    data = nb.Dataset(features, labels, class_names=range(2))
    found = nb.smc_evidence(nb.Laplace().fit(PRIOR, data), key=KEY)
    noise = np.random.default_rng(0).normal(size=(200_000, 12))
    f = noise @ factor_at(PRIOR, features).T
    chances = special.expit(np.where(labels == 1, f, -f)).prod(axis=1)
    error = np.hypot(found.error, chances.std() / chances.mean() / np.sqrt(len(chances)))
    assert error < 0.05
    assert abs(found.log_evidence - np.log(chances.mean())) < 4 * error
    near = nb.ExpectationPropagation().fit(PRIOR, data).info.log_evidence
    assert abs(found.log_evidence - near) < abs(found.log_evidence - found.approximate)  # Laplace's


def test_the_error_is_the_scatter_of_repetitions():
    law, truth = nb.Laplace().fit(PRIOR, DATA), softmax_evidence()
    scores = []
    for seed in range(30):
        found = nb.smc_evidence(law, key=jax.random.key(seed), num_particles=50)
        scores.append((found.log_evidence - truth) / found.error)
    assert abs(np.mean(scores)) < 4 / np.sqrt(30)
    # Of the sum of squares of 30 scores.
    assert 0.9995 > stats.chi2(30).cdf(np.sum(np.square(scores))) > 0.0005


def test_a_step_keeps_the_share_of_effective_particles():
    log_weights = 5 * np.random.default_rng(0).normal(size=(4, 100))
    following = smc.next_power(log_weights, 0.25, 0.8)
    assert 0.25 < following < 1.0
    assert smc.effective_share((following - 0.25) * log_weights) == pytest.approx(0.8)
    assert smc.next_power(0.01 * log_weights, 0.25, 0.8) == 1.0
    assert smc.effective_share(np.log([1.0, 1.0, 1e-300, 1e-300])) == pytest.approx(0.5)
    with pytest.raises(ConvergenceError, match="no finite weight"):
        smc.next_power(np.array([0.0, np.inf]), 0.0, 0.8)


def test_a_particle_is_drawn_as_often_as_its_weight_says_in_its_own_population():
    weights = np.array([[0.05, 0.5, 0.15, 0.3], [0.25, 0.25, 0.25, 0.25]])
    counts = np.zeros((2, 4))
    number = jnp.arange(8.0)
    particles = smc._Particles(number[:, None, None], number)
    for key in jax.random.split(KEY, 400):
        drawn = smc._resampled(particles, jnp.log(weights), key)
        np.testing.assert_array_equal(drawn.position[:, 0, 0], drawn.remainder)
        once = np.stack(
            [np.bincount(row, minlength=8) for row in np.array(drawn.remainder, int).reshape(2, 4)]
        )
        own = np.stack([once[0, :4], once[1, 4:]])
        np.testing.assert_array_equal(own.sum(axis=1), 4)
        assert (np.abs(own - 4 * weights) < 1 + 1e-9).all()
        counts += own
    np.testing.assert_allclose(counts / 400, 4 * weights, atol=4 * 0.5 / np.sqrt(400))


def test_an_evidence_that_is_not_known_is_refused(monkeypatch):
    law = nb.Laplace().fit(PRIOR, DATA)
    with pytest.raises(ConfigurationError, match=r"of kind 'MAP': give nb\.Laplace"):
        nb.smc_evidence(nb.MAP().fit(PRIOR, DATA), key=KEY)
    with pytest.raises(ConfigurationError, match="num_particles must be at least 10; got 3"):
        nb.smc_evidence(law, key=KEY, num_particles=3)
    with pytest.raises(ConfigurationError, match="num_populations must be at least 4; got 1"):
        nb.smc_evidence(law, key=KEY, num_populations=1)
    with monkeypatch.context() as patch:
        patch.setattr(estimate, "LARGEST_ERROR", 1e-6)
        with pytest.raises(
            ConvergenceError, match=r"not known: about .* 100 particles are too few"
        ):
            nb.smc_evidence(law, key=KEY)
    with monkeypatch.context() as patch:
        patch.setattr(smc, "_STALE", 0.0)
        with pytest.raises(ConvergenceError, match="particles hardly move"):
            nb.smc_evidence(law, key=KEY)
    with monkeypatch.context() as patch:
        patch.setattr(smc, "_MOST_TEMPERATURES", 2)
        with pytest.raises(ConvergenceError, match=r"has come to temperature 0\.\d+ after 2 steps"):
            nb.smc_evidence(law, key=KEY)


NOISE = nb.likelihood.Normal(0.4)
NUMBERS = nb.Dataset.real(
    *(lambda x: (x, np.sin(2 * x[:, 0])))(np.random.default_rng(0).normal(size=(8, 2)))
)


def test_over_hyperparameters_the_evidence_is_that_of_quadrature():
    hyperpriors = {"ridge": dist.LogNormal(0.5, 1.0), "mean": dist.Normal(0.2, 0.5)}
    gram = np.asarray(PRIOR.gram(NUMBERS.features).ntk.dense())
    nodes, weights = standard_normal(2, reach=6, num_nodes=61)
    evidences = [
        stats.multivariate_normal(
            np.full(8, 0.2 + 0.5 * b), gram / np.exp(0.5 + a) + 0.16 * np.eye(8)
        ).pdf(NUMBERS.targets[:, 0])
        for a, b in nodes
    ]
    given = (PRIOR, NUMBERS, hyperpriors)
    found = nb.full_bayes_evidence(*given, key=KEY, likelihood=NOISE, num_values=50)
    assert found.error < 0.15
    assert is_near(found, np.log(weights @ evidences))
    assert found.approximate == pytest.approx(found.log_evidence, abs=1e-6)  # each is exact


def test_over_the_ridge_the_evidence_of_a_label_is_that_of_quadrature():
    one = nb.Dataset(FEATURES[[0, 0, 0]], [1, 1, 1], class_names=range(2))
    nodes, weights = standard_normal(2, reach=7, num_nodes=141)
    deviation = factor_at(PRIOR.with_ridge(1.0), FEATURES[:1])[0, 0]
    f = deviation * np.exp(-nodes[:, 0] / 2) * nodes[:, 1]
    truth = np.log(weights @ special.expit(f) ** 3)
    hyperpriors = {"ridge": dist.LogNormal(0.0, 1.0)}
    given = (PRIOR, one, hyperpriors)
    found = nb.full_bayes_evidence(*given, key=KEY, num_values=50, num_particles=100)
    assert found.error < 0.1
    assert is_near(found, truth)


@pytest.mark.parametrize(
    ("hyperpriors", "settings", "error", "message"),
    [
        ({}, {}, ConfigurationError, "no hyper-priors to integrate over: use smc_evidence"),
        ({"rigde": dist.LogNormal()}, {}, UnknownNameError, "rigde"),
        ({"ridge": dist.Normal()}, {}, ConfigurationError, "must have positive support"),
        ({"ridge": 1.0}, {}, ConfigurationError, "must be a NumPyro distribution; got 1.0"),
        ({"ridge": dist.LogNormal()}, {"num_values": 5}, ConfigurationError, "at least 20; got 5"),
        (
            {"ridge": dist.LogNormal()},
            {"method": nb.DirichletGP()},
            ConfigurationError,
            "DirichletGP has no evidence",
        ),
    ],
)
def test_hyperpriors_that_cannot_be_integrated_over_are_told(hyperpriors, settings, error, message):
    with pytest.raises(error, match=message):
        nb.full_bayes_evidence(PRIOR, DATA, hyperpriors, key=KEY, **settings)


def test_an_evidence_over_hyperparameters_that_is_not_known_is_refused(monkeypatch):
    given = (PRIOR, NUMBERS, {"ridge": dist.LogNormal(0.5, 1.0)})
    settings = {"key": KEY, "likelihood": NOISE, "num_values": 20}
    with monkeypatch.context() as patch:
        patch.setattr(full_bayes, "_MOST_ROUNDS", 1)
        with pytest.raises(ConvergenceError, match="was not found in 1 rounds"):
            nb.full_bayes_evidence(*given, **settings)
    monkeypatch.setattr(estimate, "LARGEST_ERROR", 1e-9)
    with pytest.raises(ConvergenceError, match="20 values of the hyper-parameters"):
        nb.full_bayes_evidence(*given, **settings)
