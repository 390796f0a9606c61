"""Importance correction against quadrature (oracle 9) and exact regression (oracle 10)."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle
from scipy import special

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceWarning
from ntkbayes.kernels import FunctionKernel
from ntkbayes.likelihood import Normal

RIDGE, MEAN = 0.5, 0.3
KEY = jax.random.key(4)
FEATURES, LABELS = oracle.blobs(5, 12, 2)


def rbf(x1, x2):
    return 3 * jnp.exp(-0.5 * jnp.sum((x1[:, None] - x2[None]) ** 2, axis=-1))


PRIOR = nb.NTKPrior(FunctionKernel(rbf), ridge=RIDGE, mean=MEAN)
CORRECTED = nb.ImportanceCorrected(nb.Laplace(), num_draws=20_000, num_resampled=4000)


def quadrature(gram, labels):
    """Mean, covariance and log evidence of the posterior of up to three logits, on a grid of the
    whitened logits."""
    count = len(labels)
    axis = np.linspace(-7, 7, 71)
    z = np.stack(np.meshgrid(*[axis] * count, indexing="ij"), axis=-1).reshape(-1, count)
    f = MEAN + z @ np.linalg.cholesky(gram).T
    prior = np.exp(-0.5 * np.sum(z**2, axis=1))
    mass = prior / prior.sum() * np.prod(special.expit(f * (2 * labels - 1)), axis=1)
    evidence = mass.sum()
    mean = mass @ f / evidence
    away = f - mean
    return mean, (away.T * (mass / evidence)) @ away, np.log(evidence)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_corrected_draws_have_the_exact_posteriors_moments(count):
    data = nb.Dataset(FEATURES[:count], LABELS[:count], class_names=[0, 1])
    law = CORRECTED.fit(PRIOR, data, key=KEY)
    gram = np.array(rbf(data.features, data.features)) / RIDGE
    mean, covariance, evidence = quadrature(gram, LABELS[:count])

    # Two sources of error: the weights', and that of drawing from them.
    info, num_resampled = law.info, 4000
    share = 1 / info.effective_draws + 1 / num_resampled
    deviation = np.sqrt(np.diag(covariance))
    away = np.abs(np.array(law.mean(data.features))[:, 0] - mean)
    assert (away / deviation / np.sqrt(share)).max() < 4.5
    logits = np.array(law.sample(KEY, data.features))[:, :, 0]
    centred = logits - mean
    products = centred[:, :, None] * centred[:, None]
    error = products.std(axis=0) * np.sqrt(share)
    assert (np.abs(products.mean(axis=0) - covariance) / error).max() < 4.5
    relative = np.sqrt(1 / info.effective_draws - 1 / 20_000)
    assert abs(np.exp(info.log_evidence - evidence) - 1) < 4.5 * relative
    assert info.pareto_k < 0.7
    # Laplace, which it corrects, is far outside.
    laplace = np.array(nb.Laplace().fit(PRIOR, data).mean(data.features))[:, 0]
    assert (np.abs(laplace - mean) / deviation / np.sqrt(share)).max() > 4.5


def test_for_a_normal_likelihood_there_is_nothing_to_correct():
    values = np.sin(FEATURES).sum(axis=1)[:6]
    data = nb.Dataset.real(FEATURES[:6], values)
    law = CORRECTED.fit(PRIOR, data, key=KEY, likelihood=Normal(0.4))
    new = np.array([[0.0, 0.0], [1.0, -1.0], [4.0, 3.0]])
    pairs = (FEATURES[:6], FEATURES[:6]), (FEATURES[:6], new), (new, new)
    grams = [np.array(rbf(a, b)) / RIDGE for a, b in pairs]
    truth, evidence = oracle.gp_regression(*grams, values[:, None], MEAN, MEAN, 0.4)
    assert law.info.log_evidence == pytest.approx(evidence, abs=1e-8)
    assert law.info.effective_draws == pytest.approx(20_000, rel=1e-6)
    assert np.isnan(law.info.pareto_k)  # weights that are all alike have no tail
    draws = law.sample(KEY, new)
    assert np.abs(oracle.mean_errors(draws, truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(draws, truth)).max() < 4.5


def test_a_gaussian_too_far_from_the_posterior_warns():
    data = nb.Dataset(FEATURES, LABELS)
    with pytest.warns(
        ConvergenceWarning, match=r"Pareto k = .*, above 0\.7: DirichletGP is too far"
    ):
        law = nb.ImportanceCorrected(nb.DirichletGP()).fit(PRIOR, data, key=KEY)
    assert law.info.pareto_k > 0.7


def test_better_gaussians_keep_more_effective_draws():
    data = nb.Dataset(FEATURES, LABELS)
    effective = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for method in (nb.DirichletGP(), nb.Laplace(), nb.ExpectationPropagation()):
            law = nb.ImportanceCorrected(method).fit(PRIOR, data, key=KEY)
            effective.append(law.info.effective_draws)
    assert effective[0] < effective[1] < effective[2]


def test_a_method_without_a_gaussian_posterior_is_refused():
    data = nb.Dataset(FEATURES, LABELS)
    with pytest.raises(ConfigurationError, match="FirstOrder has no Gaussian posterior to correct"):
        nb.ImportanceCorrected(nb.FirstOrder()).fit(PRIOR, data, key=KEY)


@pytest.mark.parametrize(("num_draws", "num_resampled"), [(100, 200), (100, 24)])
def test_numbers_of_draws_that_do_not_fit_together_are_refused(num_draws, num_resampled):
    with pytest.raises(ConfigurationError, match=f"got {num_resampled}"):
        nb.ImportanceCorrected(nb.Laplace(), num_draws=num_draws, num_resampled=num_resampled)
