"""Hyper-parameters sampled together with the latent function."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, RidgeError, UnknownNameError
from ntkbayes.hyperparameters import with_values

KEY = jax.random.key(1)
NETWORK = nb.networks.mlp(depth=1, activation="erf", weight_std=1.4, bias_std=0.6)
PRIOR = nb.NTKPrior(NETWORK, ridge=0.5)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [6.0, -6.0]])
RIDGE = dist.LogNormal(-1.0, 0.8)


def data_of(count=8):
    features, labels = oracle.blobs(7, count, 2)
    return nb.Dataset(features, labels, class_names=range(2))


def fit(**settings):
    settings = {"num_samples": 300, "num_warmup": 200, "num_chains": 2, **settings}
    return nb.FullBayes({"ridge": RIDGE}, **settings).fit(PRIOR, data_of(), key=KEY)


@pytest.fixture(scope="module")
def law():
    return fit()


def test_the_models_density_is_prior_times_likelihood_written_by_hand():
    data = data_of()
    model = nb.numpyro_model(
        PRIOR, data, hyperpriors={"ridge": RIDGE, "weight_std": dist.HalfNormal()}
    )
    z = jax.random.normal(KEY, (8, 1))
    values = {"ridge": 0.7, "weight_std": 1.1}
    found, _ = log_density(model, (), {}, {**values, "whitened": z})
    gram = np.asarray(with_values(PRIOR, values).gram(data.features).ntk) / 0.7
    f = np.linalg.cholesky(gram + 1e-9 * np.mean(np.diag(gram)) * np.eye(8)) @ z
    expected = (
        oracle.Logistic().log_density(data.targets[:, 1:], f)
        - np.sum(z**2) / 2
        - 4 * np.log(2 * np.pi)
        + float(RIDGE.log_prob(0.7) + dist.HalfNormal().log_prob(1.1))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_the_posterior_of_the_ridge_is_that_of_evidence_times_hyperprior(law):
    # Importance-weighted evidence on a grid of the log ridge is exact up to Monte Carlo error.
    grid = np.linspace(-4.0, 2.0, 25)
    log_posterior = []
    for log_ridge in grid:
        prior = with_values(PRIOR, {"ridge": np.exp(log_ridge)})
        gaussian = nb.ExpectationPropagation().fit(prior, data_of())
        log_weights = gaussian.log_weights(gaussian.sample(KEY, data_of().features, 20_000))
        evidence = float(jax.scipy.special.logsumexp(log_weights)) - np.log(20_000)
        log_posterior.append(evidence + float(dist.Normal(-1.0, 0.8).log_prob(log_ridge)))
    weights = np.exp(np.array(log_posterior) - max(log_posterior))
    weights /= weights.sum()
    mean = weights @ grid
    spread = np.sqrt(weights @ (grid - mean) ** 2)
    draws = np.log(np.asarray(law.values["ridge"]))
    assert abs(draws.mean() - mean) < 4 * spread / np.sqrt(law.info.min_ess)
    assert abs(draws.std() / spread - 1) < 4 / np.sqrt(2 * law.info.min_ess)


@pytest.mark.parametrize("which", ["sample", "sample_marginals"])
def test_draws_have_the_mean_and_variance_of_the_law(law, which):
    draws = np.asarray(getattr(law, which)(KEY, NEW))
    mean, variance = np.asarray(law.mean(NEW)), np.asarray(law.variance(NEW))
    assert draws.shape == (600, 3, 1)
    assert np.abs((draws.mean(0) - mean) / np.sqrt(variance / 600)).max() < 4.5
    assert np.abs(draws.var(axis=0, ddof=1) / variance - 1).max() < 0.5
    np.testing.assert_array_equal(draws, getattr(law, which)(KEY, NEW))


def test_marginal_draws_at_an_input_depend_on_no_other_input(law):
    draws = law.sample_marginals(KEY, NEW, 7)
    np.testing.assert_allclose(law.sample_marginals(KEY, NEW[1:2], 7), draws[:, 1:2], atol=1e-9)


def test_draws_at_training_points_are_the_sampled_logits(law):
    features = data_of().features
    ridges, f = law.values["ridge"], law.sample(KEY, features, 6)
    for i, place in enumerate(range(0, 600, 100)):
        gram = np.asarray(PRIOR.gram(features).ntk) / float(ridges[place])
        lower = np.linalg.cholesky(gram + 1e-9 * np.mean(np.diag(gram)) * np.eye(8))
        np.testing.assert_allclose(f[i], lower @ law.whitened[place], atol=1e-2)


def test_a_user_can_extend_the_model():
    model = nb.numpyro_model(PRIOR, data_of(), hyperpriors={"ridge": RIDGE})

    def extended():
        offset = numpyro.sample("offset", dist.Normal(0.0, 1.0))
        logits = model()
        numpyro.sample("seen", dist.Normal(logits.mean() + offset, 0.1), obs=0.5)

    value, trace = log_density(
        extended, (), {}, {"ridge": 0.5, "whitened": jnp.zeros((8, 1)), "offset": 0.2}
    )
    assert {"offset", "ridge", "whitened", "logits", "seen"} <= set(trace)
    alone, _ = log_density(model, (), {}, {"ridge": 0.5, "whitened": jnp.zeros((8, 1))})
    added = dist.Normal(0.0, 1.0).log_prob(0.2) + dist.Normal(0.2, 0.1).log_prob(0.5)
    np.testing.assert_allclose(value, alone + added)


@pytest.mark.parametrize(
    ("hyperpriors", "error", "message"),
    [
        ({"ridge": dist.Normal()}, ConfigurationError, "ridge must have positive support, Normal"),
        ({"ridge": dist.Uniform(-1.0, 1.0)}, ConfigurationError, "must have positive support"),
        ({"ridge": 0.3}, ConfigurationError, "must be a NumPyro distribution; got 0.3"),
        ({"ridge": dist.HalfNormal().expand((3,))}, ConfigurationError, r"has shape \(3,\)"),
        ({"depth": dist.HalfNormal()}, UnknownNameError, "hyper-parameter 'depth'"),
    ],
)
def test_hyperpriors_that_do_not_fit_are_refused(hyperpriors, error, message):
    with pytest.raises(error, match=message):
        nb.numpyro_model(PRIOR, data_of(), hyperpriors=hyperpriors)
    with pytest.raises(error, match=message):
        nb.FullBayes(hyperpriors).fit(PRIOR, data_of(), key=KEY)


def test_settings_outside_their_range_are_refused(law):
    for settings in ({"num_samples": 3}, {"num_warmup": 0}, {"num_chains": 0}):
        with pytest.raises(ConfigurationError, match="full Bayes needs"):
            nb.FullBayes({"ridge": RIDGE}, **settings)
    with pytest.raises(ConfigurationError, match="holds 600 draws, 601 were asked"):
        law.sample(KEY, NEW, 601)
    with pytest.raises(ConfigurationError, match="holds 600 draws, 0 were asked"):
        law.sample_marginals(KEY, NEW, 0)
    with pytest.raises(RidgeError, match="infinitely wide"):
        nb.FullBayes({"ridge": RIDGE}).fit(nb.NTKPrior(NETWORK, ridge=0.0), data_of(), key=KEY)
