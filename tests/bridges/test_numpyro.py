"""Laws as distributions in NumPyro models."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.reparam import TransformReparam
from numpyro.infer.util import log_density
from oracles import gp_classification as oracle
from scipy import stats
from scipy.special import expit, logsumexp

import ntkbayes as nb
from ntkbayes.bridges.numpyro import empirical_distribution, logits_distribution
from ntkbayes.errors import ConfigurationError, DataError

NETWORK = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5)
PRIOR = nb.NTKPrior(NETWORK, ridge=0.5)
KEY = jax.random.key(0)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0], [6.0, -6.0]])


@pytest.fixture(autouse=True)
def _numpyros_own_broadcasting():
    with jax.numpy_rank_promotion("allow"):
        yield


def data_of(classes):
    features, labels = oracle.blobs(7, 24, classes)
    return nb.Dataset(features, labels, class_names=range(classes))


@pytest.fixture(scope="module")
def laplace():
    return nb.Laplace().fit(PRIOR, data_of(2))


# --- Gaussian laws -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [nb.Laplace(), nb.FirstOrder(), nb.PriorPredictive()])
def test_a_gaussian_laws_density_is_that_of_its_mean_and_joint_covariance(method):
    law = method.fit(PRIOR, data_of(3))
    found = logits_distribution(law, NEW)
    assert found.event_shape == (4, 3)
    f = np.array(law.mean(NEW)) + np.random.default_rng(0).normal(size=(4, 3))
    moments = np.array(law.mean(NEW)).ravel(), np.array(law.joint_covariance(NEW))
    expected = stats.multivariate_normal(*moments).logpdf(f.ravel())
    np.testing.assert_allclose(found.log_prob(jnp.asarray(f)), expected, rtol=1e-8)


def test_draws_of_the_distribution_are_those_of_the_law(laplace):
    draws = logits_distribution(laplace, NEW).sample(KEY, (4000,))
    truth = oracle.Gauss(np.array(laplace.mean(NEW)), np.array(laplace.joint_covariance(NEW)))
    assert np.abs(oracle.mean_errors(draws, truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, truth)).max() < 4.5


def test_a_posterior_as_the_prior_of_further_points_is_the_posterior_of_all_points_at_once():
    # Exactly under a Normal likelihood: p(f | A) p(B | f) = p(f | A, B) p(A, B) / p(A) for every f.
    features = np.random.default_rng(1).normal(size=(9, 2))
    values = np.sin(features[:, 0])
    likelihood = nb.likelihood.Normal(0.3)

    def fit(chosen):
        data = nb.Dataset.real(features[chosen], values[chosen])
        return nb.Laplace().fit(PRIOR, data, likelihood=likelihood)

    before, after = fit(slice(0, 6)), fit(slice(0, 9))
    at_new = logits_distribution(before, features[6:])

    def model():
        logits = numpyro.sample("logits", at_new)
        numpyro.sample("y", dist.Normal(logits[:, 0], 0.3).to_event(1), obs=values[6:])

    evidence = after.info.log_evidence - before.info.log_evidence
    for f in np.random.default_rng(2).normal(size=(3, 3, 1)):
        joint, _ = log_density(model, (), {}, {"logits": f})
        posterior = logits_distribution(after, features[6:]).log_prob(f)
        np.testing.assert_allclose(joint, posterior + evidence, rtol=1e-9)


def test_a_noisy_annotator_is_judged_by_the_laplace_posterior_at_new_inputs(laplace):
    # Three new points, seen by an annotator who errs; how often, is to be learned.
    inputs, votes = NEW[:3], np.array([1, 0, 1])
    at_new = logits_distribution(laplace, inputs)

    def model(votes):
        accuracy = numpyro.sample("accuracy", dist.Beta(4.0, 2.0))
        logits = numpyro.sample("logits", at_new)
        right = jax.nn.sigmoid(logits[:, 0])
        says_yes = accuracy * right + (1 - accuracy) * (1 - right)
        numpyro.sample("votes", dist.Bernoulli(says_yes).to_event(1), obs=votes)

    whitened = numpyro.handlers.reparam(model, config={"logits": TransformReparam()})
    chains = MCMC(NUTS(whitened), num_warmup=200, num_samples=1000, progress_bar=False)
    chains.run(KEY, jnp.asarray(votes))
    found = chains.get_samples()

    # The same by a sum over draws of the law, and over a grid of accuracies.
    right = expit(np.array(laplace.sample(jax.random.key(1), inputs, 20_000)))[:, :, 0]
    grid = (np.arange(200) + 0.5) / 200
    says_yes = grid[:, None, None] * right + (1 - grid[:, None, None]) * (1 - right)
    density = np.where(votes == 1, says_yes, 1 - says_yes).prod(axis=2)
    joint = stats.beta(4, 2).pdf(grid)[:, None] * density
    joint /= joint.sum()
    accuracy = joint.sum(axis=1) @ grid
    assert abs(accuracy - 4 / 6) > 0.005  # the votes say something of the annotator
    ess = float(numpyro.diagnostics.effective_sample_size(np.array(found["accuracy"])[None]))
    error = np.std(found["accuracy"]) / np.sqrt(ess)
    assert abs(np.mean(found["accuracy"]) - accuracy) < 4 * error
    moved = expit(np.array(found["logits"]))[:, :, 0].mean(axis=0)
    np.testing.assert_allclose(moved, joint.sum(axis=0) @ right, atol=0.05)


def test_the_distribution_may_be_made_while_a_model_is_compiled(laplace):
    def density(f):
        return logits_distribution(laplace, NEW).log_prob(f)

    f = jnp.ones((4, 1))
    np.testing.assert_allclose(jax.jit(density)(f), density(f), rtol=1e-10)


def test_inputs_at_which_a_law_has_no_density_are_refused(laplace):
    with pytest.raises(ConfigurationError, match=r"no density .* logit 0 of input 2 is determined"):
        logits_distribution(laplace, NEW[[0, 1, 0]])
    data = data_of(3).smooth(0.1)
    law = nb.FirstOrder().fit(nb.NTKPrior(NETWORK, ridge=0.0), data)
    logits_distribution(law, NEW)
    with pytest.raises(ConfigurationError, match="without a ridge, inputs that were trained on"):
        logits_distribution(law, data.features[:2])
    with pytest.raises(DataError, match="trained on 2 features, got 1"):
        logits_distribution(laplace, NEW[:, :1])


# --- points and draws ----------------------------------------------------------------------------


def test_the_map_is_a_delta():
    law = nb.MAP().fit(PRIOR, data_of(3))
    found = logits_distribution(law, NEW)
    np.testing.assert_array_equal(found.sample(KEY, (2,)), np.stack([law.mean(NEW)] * 2))
    assert found.log_prob(law.mean(NEW)) == 0
    assert found.log_prob(law.mean(NEW) + 1e-6) == -jnp.inf


@pytest.fixture(scope="module")
def ensemble():
    return nb.RandomInit(num_inits=200).fit(PRIOR, data_of(2), key=KEY)


def test_a_law_of_draws_has_no_density(ensemble):
    with pytest.raises(
        ConfigurationError, match="law of independent initialisations has no known density"
    ):
        logits_distribution(ensemble, NEW)

    def model():
        numpyro.sample("logits", empirical_distribution(ensemble, NEW, key=KEY))

    with pytest.raises(ConfigurationError, match="200 draws of a law without a density"):
        log_density(model, (), {}, {"logits": jnp.zeros((4, 1))})
    with pytest.raises(ConfigurationError, match="holds 200 draws, 201 were asked"):
        empirical_distribution(ensemble, NEW, key=KEY, num_draws=201)


def test_draws_of_any_law_simulate_what_is_seen_next(ensemble):
    stored = np.array(ensemble.sample(KEY, NEW))
    at_new = empirical_distribution(ensemble, NEW, key=KEY)
    np.testing.assert_allclose(at_new.mean, stored.mean(axis=0))
    np.testing.assert_allclose(at_new.variance, stored.var(axis=0))

    def model():
        logits = numpyro.sample("logits", at_new)
        numpyro.sample("label", dist.Bernoulli(logits=logits[:, 0]).to_event(1))

    seen = Predictive(model, num_samples=2000)(jax.random.key(1))
    assert {row.tobytes() for row in np.array(seen["logits"])} <= {row.tobytes() for row in stored}
    expected = expit(stored)[:, :, 0].mean(axis=0)
    errors = np.sqrt(expected * (1 - expected) / 2000)
    assert np.abs((np.array(seen["label"]).mean(axis=0) - expected) / errors).max() < 4


def test_what_is_seen_next_weighs_the_draws_of_a_law(ensemble):
    at_new = empirical_distribution(ensemble, NEW, key=KEY)
    labels = np.array([1, 1, 0, 1])

    def model():
        log_p = dist.Bernoulli(logits=at_new.draws[:, :, 0]).to_event(1).log_prob(labels)
        numpyro.factor("seen", jax.nn.logsumexp(log_p) - jnp.log(len(log_p)))

    found, _ = log_density(model, (), {}, {})
    p = expit(np.array(at_new.draws))[:, :, 0]
    expected = logsumexp(np.log(np.where(labels == 1, p, 1 - p)).sum(axis=1)) - np.log(200)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
