"""Real networks against the random-init law (oracle 12), and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.scores.distances import energy_coefficient

KEY = jax.random.key(8)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0]])
FEATURES, LABELS = oracle.blobs(5, 10, 2)
DATA = nb.Dataset(FEATURES, LABELS)


def network(width, outputs=1):
    return nb.networks.mlp(
        depth=1, activation="erf", bias_std=0.5, width=width, num_outputs=outputs
    )


PRIOR = nb.NTKPrior(network(1), ridge=0.5, mean=0.2)


def ensemble(width, num_networks=100, **settings):
    method = nb.FiniteEnsemble(network=network(width), num_networks=num_networks, **settings)
    return method.fit(PRIOR, DATA, key=KEY)


def z_scores(law, reference):
    """Of mean and variance at new inputs, with the Monte Carlo error of both."""
    a, b = (np.asarray(x.sample(KEY, NEW))[..., 0] for x in (law, reference))
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    mean = (a.mean(0) - b.mean(0)) / error
    log_ratio = np.log(a.var(0, ddof=1) / b.var(0, ddof=1))
    return mean, log_ratio / np.sqrt(2 / len(a) + 2 / len(b))


def test_wide_trained_networks_have_the_random_init_law():
    law = ensemble(1024, 64)
    reference = nb.RandomInit(num_inits=2000).fit(PRIOR, DATA, key=KEY)
    assert law.info.last_move < 0.05
    mean, variance = z_scores(law, reference)
    assert np.abs(mean).max() < 4.5
    assert np.abs(variance).max() < 4.5


def test_the_energy_distance_to_the_random_init_law_falls_with_width():
    inputs = np.concatenate([DATA.features, NEW])
    reference = np.asarray(
        nb.RandomInit(num_inits=1000).fit(PRIOR, DATA, key=KEY).sample(KEY, inputs)
    )
    found = []
    for width in (3, 12, 512):
        draws = np.asarray(ensemble(width, 128).sample(KEY, inputs))
        found.append(energy_coefficient(draws, reference))
    assert found[0].value > found[1].value > found[2].value
    assert found[2].value < 3 * found[2].error + 0.01


def test_a_finite_training_time_is_that_of_gradient_flow():
    law = ensemble(1024, 64, training_time=0.1)
    reference = nb.RandomInit(num_inits=2000, training_time=0.1).fit(PRIOR, DATA, key=KEY)
    assert np.isnan(law.info.last_move)
    mean, variance = z_scores(law, reference)
    assert np.abs(mean).max() < 4.5
    assert np.abs(variance).max() < 4.5
    whole = nb.RandomInit(num_inits=2000).fit(PRIOR, DATA, key=KEY)
    assert np.abs(z_scores(law, whole)[1]).max() > 4.5  # so that there is something to see


def test_draws_are_the_trained_networks_plus_the_mean():
    law = ensemble(16, 3, dtype=jnp.float64)
    keys = jax.random.split(KEY, 3)
    trained = law.g.functions.params
    for k, key in enumerate(keys):
        start = network(16).init(key, jnp.asarray(DATA.features))
        params = jax.tree.map(lambda leaf, k=k: leaf[k], trained)
        expected = 0.2 + network(16).apply(params, jnp.asarray(NEW))
        np.testing.assert_allclose(law.sample(KEY, NEW)[k], expected, atol=1e-12)

        @jax.jit
        def loss(p, start=start):
            f = 0.2 + network(16).apply(p, jnp.asarray(DATA.features))
            y = DATA.targets[:, 1:]
            pairs = zip(jax.tree.leaves(p), jax.tree.leaves(start), strict=True)
            pull = sum(jnp.sum((a - b) ** 2) for a, b in pairs)
            return jnp.sum(jax.nn.softplus(f) - y * f) + 0.25 * pull

        assert loss(params) < 0.5 * loss(start)
        gradient = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
        assert max(float(jnp.max(jnp.abs(g))) for g in gradient) < 0.05


def test_a_network_with_other_outputs_than_the_data_is_refused():
    method = nb.FiniteEnsemble(network=network(8, outputs=3), num_networks=2)
    with pytest.raises(
        ConfigurationError, match="the network has 3 outputs, but Bernoulli takes 1"
    ):
        method.fit(PRIOR, DATA, key=KEY)


def test_networks_that_are_not_at_rest_are_not_returned():
    with pytest.raises(ConvergenceError, match="not at rest after 100 steps"):
        ensemble(8, 2, max_steps=150, tolerance=1e-9)
