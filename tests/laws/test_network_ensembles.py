"""Real networks beside the laws that they approach: shifted, perturbed, without a ridge, of any
likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DivergenceError, RidgeError, UnknownNameError
from ntkbayes.scores.distances import energy_coefficient

KEY = jax.random.key(8)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0]])
FEATURES, LABELS = oracle.blobs(5, 10, 2)
DATA = nb.Dataset(FEATURES, LABELS)
EVERYWHERE = np.concatenate([FEATURES, NEW])


def network(width):
    return nb.networks.mlp(depth=1, activation="erf", bias_std=0.5, width=width)


PRIOR = nb.NTKPrior(network(1), ridge=0.5, mean=0.2)


def draws(method, prior=PRIOR, data=DATA, likelihood=None):
    law = method.fit(prior, data, key=KEY, likelihood=likelihood)
    return np.asarray(law.sample(KEY, EVERYWHERE))


def z_scores(a, b):
    """Of means and log variances, with the Monte Carlo error of both."""
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    mean = (a.mean(0) - b.mean(0)) / error
    log_ratio = np.log(a.var(0, ddof=1) / b.var(0, ddof=1))
    return np.abs(mean).max(), np.abs(log_ratio / np.sqrt(2 / len(a) + 2 / len(b))).max()


# --- shifted --------------------------------------------------------------------------------------


def test_shifted_networks_start_at_the_mean_and_approach_the_map_with_width():
    end = np.asarray(nb.MAP().fit(PRIOR, DATA).mean(EVERYWHERE))
    away = []
    for width in (8, 64, 512):
        trained = draws(nb.FiniteEnsemble(network(width), num_networks=16, shifted=True))
        away.append(np.sqrt(((trained - end) ** 2).mean()))
    start = nb.FiniteEnsemble(network(8), num_networks=16, shifted=True, training_time=0.0)
    np.testing.assert_allclose(draws(start), 0.2, atol=1e-6)
    assert away[1] < 0.6 * away[0]
    assert away[2] < 0.6 * away[1]


# --- weight decay ---------------------------------------------------------------------------------


def test_weight_decay_is_no_random_init_law_at_any_width():
    """The weights go to zero, and with them the kernel: the logits collapse."""
    law = nb.FiniteEnsemble(network(512), num_networks=4, anchor="zero").fit(PRIOR, DATA, key=KEY)
    reference = nb.MAP().fit(PRIOR, DATA).mean(FEATURES)
    assert jnp.abs(law.mean(FEATURES) - 0.2).max() < 0.3 * jnp.abs(reference - 0.2).max()
    assert law.kind.name == "weight-decay ensemble"
    assert law.kind != nb.FiniteEnsemble.kind


def test_an_anchor_without_a_ridge_is_refused():
    free = nb.NTKPrior(network(1), ridge=0.0)
    with pytest.raises(ConfigurationError, match="where the ridge pulls, and the ridge is 0"):
        nb.FiniteEnsemble(network(8), anchor="zero").fit(free, DATA.smooth(0.2), key=KEY)
    with pytest.raises(UnknownNameError, match="unknown anchor 'start'; known are: init, zero"):
        nb.FiniteEnsemble(network(8), anchor="start")


# --- perturbed ------------------------------------------------------------------------------------


def test_perturbed_networks_start_from_the_prior_of_bayes():
    method = nb.PerturbedEnsemble(network(512), num_networks=256, training_time=0.0)
    found, exact = draws(method), draws(nb.PriorPredictive())
    assert max(z_scores(found, exact)) < 4.5


def test_the_energy_distance_to_the_perturbed_init_law_falls_with_width():
    prior = nb.NTKPrior(network(1), ridge=0.2, mean=0.2)
    reference = draws(nb.PerturbedInit(num_inits=1000), prior)
    found = [
        energy_coefficient(
            draws(nb.PerturbedEnsemble(network(width), 256, tolerance=0.2), prior), reference
        )
        for width in (2, 8, 256)
    ]
    assert found[0].value > found[1].value > found[2].value
    assert found[2].value < 3 * found[2].error + 0.005


def test_perturbed_networks_sample_the_posterior_of_noisy_numbers():
    """The toy of He et al. (2020), x sin x with noise: NTKGP ensembles, and plain deep ones, beside the
    posterior in closed form."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-1, 1, 10))[:, None]
    y = 6 * x[:, 0] * np.sin(6 * x[:, 0]) + 0.1 * rng.normal(size=10)
    toy, at = nb.Dataset.real(x, y), np.linspace(-1.5, 1.5, 13)[:, None]
    erf = nb.networks.mlp(depth=2, activation="erf", bias_std=0.5, width=128)
    prior = nb.NTKPrior(erf, ridge=1.0)
    likelihood = nb.likelihood.Normal(0.3)
    posterior = nb.Laplace().fit(prior, toy, likelihood=likelihood)  # exact here
    std = np.sqrt(np.asarray(posterior.variance(at)))
    ratios = {}
    for method in (nb.PerturbedEnsemble, nb.FiniteEnsemble):
        law = method(erf, num_networks=48).fit(prior, toy, key=KEY, likelihood=likelihood)
        sampled = np.asarray(law.sample(KEY, at))
        ratios[method] = np.sqrt(np.mean(sampled.var(0, ddof=1) / std**2))
    assert 0.85 < ratios[nb.PerturbedEnsemble] < 1.2
    assert ratios[nb.FiniteEnsemble] < 0.75


def test_gradient_noise_that_a_narrow_network_cannot_bear_is_told():
    """f(x) = w v x: where |ε| > 1 the loss falls as the square of the weights, faster than the ridge."""
    product = nb.networks.from_functions(
        lambda key, x: jax.random.normal(key, (2,), x.dtype),
        lambda w, x: 3 * w[0] * w[1] * jnp.sum(x, axis=1, keepdims=True),
    )
    with pytest.raises(DivergenceError, match="Use a wider network, a larger ridge"):
        nb.PerturbedEnsemble(product, 64).fit(PRIOR, DATA, key=KEY)


def test_perturbed_networks_need_a_ridge():
    free = nb.NTKPrior(network(1), ridge=0.0)
    with pytest.raises(RidgeError, match="needs a ridge > 0"):
        nb.PerturbedEnsemble(network(8)).fit(free, DATA.smooth(0.2), key=KEY)


# --- without a ridge ------------------------------------------------------------------------------


def test_wide_networks_on_soft_targets_come_to_rest_in_the_ridgeless_law():
    free, soft = nb.NTKPrior(network(1), ridge=0.0), DATA.smooth(0.3)
    few = soft.take(range(0, 10, 3))
    law = nb.FiniteEnsemble(network(512), 32, tolerance=0.01).fit(free, few, key=KEY)
    fitted = np.log(few.targets[:, 1] / few.targets[:, 0])
    np.testing.assert_allclose(law.mean(few.features)[:, 0], fitted, atol=0.05)
    reference = nb.RandomInit(num_inits=1000).fit(free, few, key=KEY)
    a, b = (np.asarray(each.sample(KEY, NEW)) for each in (law, reference))
    assert max(z_scores(a, b)) < 4.5


def test_without_a_ridge_hard_targets_are_refused():
    free = nb.NTKPrior(network(1), ridge=0.0)
    with pytest.raises(RidgeError, match="training never ends"):
        nb.FiniteEnsemble(network(8), 2).fit(free, DATA, key=KEY)


def test_a_training_time_counts_points_twice_that_are_there_twice():
    """They are merged only where training reproduces the targets."""
    free = nb.NTKPrior(network(1), ridge=0.0)
    twice = DATA.take([*range(10), *range(10)])
    method = nb.FiniteEnsemble(network(8), 2, training_time=0.1)
    assert len(method.fit(free, twice, key=KEY).problem.features) == 20


# --- any likelihood -------------------------------------------------------------------------------

COUNTS = nb.Dataset.real(FEATURES, np.arange(10.0) % 4)
LIKELIHOODS = {
    "Normal": (nb.likelihood.Normal(0.5), nb.Dataset.real(FEATURES, FEATURES[:, 0])),
    "Poisson": (nb.likelihood.Poisson(), COUNTS),
    "Ordinal": (nb.likelihood.Ordinal((-0.5, 1.0)), nb.Dataset(FEATURES, np.arange(10) % 3)),
    "LogConcave": (
        nb.likelihood.LogConcave(
            lambda y, f: jnp.sum(y * f - jnp.exp(f)), num_logits=1, examples=[[0.0], [3.0]]
        ),
        COUNTS,
    ),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_wide_networks_have_the_random_init_law_under_every_likelihood(name):
    likelihood, data = LIKELIHOODS[name]
    method = nb.FiniteEnsemble(network(256), 32)
    found = draws(method, data=data, likelihood=likelihood)
    reference = draws(nb.RandomInit(num_inits=1000), data=data, likelihood=likelihood)
    assert max(z_scores(found, reference)) < 4.5


def test_rest_is_measured_in_the_unit_of_the_targets():
    """Metres or millimetres: the same networks, after the same steps."""
    likelihood, data = LIKELIHOODS["Normal"]
    method = nb.FiniteEnsemble(network(64), 2, shifted=True, dtype=jnp.float64)
    small = nb.Dataset.real(FEATURES, data.targets / 1000)
    prior = nb.NTKPrior(network(1), ridge=0.5)
    law = method.fit(prior, data, key=KEY, likelihood=likelihood)
    tiny = method.fit(
        nb.NTKPrior(network(1), ridge=0.5e6), small, key=KEY, likelihood=nb.likelihood.Normal(5e-4)
    )
    assert law.info.num_steps == tiny.info.num_steps
