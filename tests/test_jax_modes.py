"""JAX's own modes: with all that only look, every law is what it is without them."""

from contextlib import ExitStack, contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.errors import NotPositiveDefiniteError
from ntkbayes.linalg import cholesky
from ntkbayes.predictions import replicates

X = np.random.default_rng(3).standard_normal((6, 2))
NEW = X[:2] + 0.3
TWO = nb.Dataset(X, [0, 1, 1, 0, 1, 0], class_names=(0, 1))
THREE = nb.Dataset(X, [0, 1, 2, 0, 1, 2], class_names=(0, 1, 2))
NETWORK = nb.networks.mlp(depth=1, width=4, num_outputs=3)
PRIOR = nb.NTKPrior(NETWORK, ridge=0.5)


@contextmanager
def every_check():
    """All that JAX can be asked to look at, at once."""
    modes = (
        jax.debug_nans(True),
        jax.debug_key_reuse(True),
        jax.enable_checks(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.legacy_prng_key("error"),
    )
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        yield


def of_a_finite_network(**settings):
    params = NETWORK.init(jax.random.key(7), jnp.asarray(X))
    return nb.NTKPrior(nb.kernels.EmpiricalKernel(NETWORK, params, **settings), ridge=0.5)


CHAINS = {"num_samples": 4, "num_warmup": 4, "num_chains": 2}
FITS = {
    "MAP": lambda key: nb.MAP().fit(PRIOR, THREE),
    "MAP after a time": lambda key: nb.MAP(training_time=2.0).fit(PRIOR, THREE),
    "random init": lambda key: nb.RandomInit(num_inits=3).fit(PRIOR, THREE, key=key),
    "first order": lambda key: nb.FirstOrder().fit(PRIOR, THREE),
    "Laplace": lambda key: nb.Laplace().fit(PRIOR, THREE),
    "Laplace by products": lambda key: nb.Laplace().fit(of_a_finite_network(max_rows=5), THREE),
    "pruned Laplace": lambda key: nb.PrunedLaplace().fit(PRIOR, THREE),
    "perturbed init": lambda key: nb.PerturbedInit(num_inits=3).fit(
        of_a_finite_network(), THREE, key=key
    ),
    "variational": lambda key: nb.Variational().fit(PRIOR, TWO),
    "mean field": lambda key: nb.MeanField().fit(PRIOR, THREE),
    "EP": lambda key: nb.ExpectationPropagation().fit(PRIOR, TWO),
    "Dirichlet GP": lambda key: nb.DirichletGP().fit(PRIOR, THREE),
    "corrected": lambda key: nb.ImportanceCorrected(
        nb.Laplace(), num_draws=2000, num_resampled=25
    ).fit(PRIOR, TWO, key=key),
    "split HMC": lambda key: nb.SplitHMC(**CHAINS).fit(PRIOR, TWO, key=key),
    "finite ensemble": lambda key: nb.FiniteEnsemble(
        network=NETWORK, num_networks=2, training_time=1.0
    ).fit(PRIOR, THREE, key=key),
}


@pytest.mark.filterwarnings("ignore::ntkbayes.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", FITS)
def test_a_law_is_the_same_under_every_check_of_jax(name):
    def numbers():
        law = FITS[name](jax.random.key(0))
        return np.asarray(law.mean(NEW)), np.asarray(law.sample(jax.random.key(1), NEW))

    with every_check():
        found = numbers()
    for value, expected in zip(found, numbers(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


def test_jitter_is_found_where_nan_is_looked_for():
    twice = jnp.ones((4, 4)) - 1e-11 * jnp.eye(4)  # an eigenvalue below 0, by more than round-off
    expected = cholesky(twice).jitter
    with jax.debug_nans(True):
        assert cholesky(twice).jitter == expected > 1e-11
        with pytest.raises(NotPositiveDefiniteError, match="smallest eigenvalue is -1"):
            cholesky(jnp.diag(jnp.asarray([1.0, 1.0, 1.0, -1.0])))


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_counts_are_replicated_with_keys_of_any_kind(kind):
    counts = nb.Dataset.real(X, np.arange(6.0)[:, None])
    law = nb.MAP().fit(PRIOR, counts, likelihood=nb.likelihood.Poisson())
    drawn = replicates(law, X, key=jax.random.key(0, impl=kind), num_draws=4000)
    rate = np.exp(np.asarray(law.mean(X)))
    assert np.abs((drawn.mean(axis=0) - rate) / np.sqrt(rate / 4000)).max() < 4.5
    np.testing.assert_allclose(drawn.var(axis=0), rate, rtol=4.5 * np.sqrt(3 / 4000))
