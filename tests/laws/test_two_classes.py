"""Softmax of two logits with kernel k is one logit with kernel 2k (oracle 8): laws that are trained or
drawn. Laplace and the variational posterior have it among their own tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.kernels import FunctionKernel
from ntkbayes.likelihood import Bernoulli, Categorical

KEY = jax.random.key(13)
NEW = np.array([[0.0, 0.0], [1.0, -1.0], [4.0, 3.0]])
FEATURES, LABELS = oracle.blobs(4, 8, 2)
DATA = nb.Dataset(FEATURES, LABELS)


def rbf(x1, x2):
    return 3 * jnp.exp(-0.5 * jnp.sum((x1[:, None] - x2[None]) ** 2, axis=-1))


# NTK and NNGP alike, so that initial functions are doubled with the kernel.
ONE = nb.NTKPrior(FunctionKernel(rbf), ridge=0.5)
TWICE = nb.NTKPrior(FunctionKernel(lambda a, b: 2 * rbf(a, b)), ridge=0.5)


def both(method):
    softmax_key, logistic_key = jax.random.split(KEY)
    softmax = method.fit(ONE, DATA, key=softmax_key, likelihood=Categorical())
    return softmax, method.fit(TWICE, DATA, key=logistic_key, likelihood=Bernoulli())


@pytest.mark.parametrize("method", [nb.MAP(), nb.FirstOrder()], ids=["MAP", "first order"])
def test_the_difference_of_two_logits_has_the_moments_of_one_with_twice_the_kernel(method):
    softmax, logistic = both(method)
    contrast = np.array([-1.0, 1.0])
    mean, covariance = np.array(softmax.mean(NEW)), np.array(softmax.covariance(NEW))
    np.testing.assert_allclose(mean @ contrast, logistic.mean(NEW)[:, 0], atol=1e-7)
    spread = np.einsum("c,mcd,d->m", contrast, covariance, contrast)
    np.testing.assert_allclose(spread, logistic.variance(NEW)[:, 0], atol=1e-6)


SAMPLED = {
    "random init": nb.RandomInit(num_inits=4000),
    "perturbed init": nb.PerturbedInit(num_inits=4000),
    "NUTS": nb.NUTS(num_samples=1000, num_warmup=200, num_chains=4),
    "split HMC": nb.SplitHMC(num_samples=1000, num_warmup=200, num_chains=4),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_the_difference_of_two_logits_is_drawn_like_one_with_twice_the_kernel(name):
    inputs = np.concatenate([FEATURES[:3], NEW])
    found = []
    for law in both(SAMPLED[name]):
        draws = np.array(law.sample(KEY, inputs))
        difference = draws[:, :, 1] - draws[:, :, 0] if draws.shape[2] == 2 else draws[:, :, 0]
        # Independent draws are their own chain; those of chains have memory.
        chains = difference.reshape(law.num_chains, -1, len(inputs))
        for of in (np.positive, np.square, np.tanh):
            values = of(chains)
            flat = values.reshape(-1, len(inputs))
            effective = effective_sample_size(values) if law.num_chains > 1 else len(flat)
            found.append((flat.mean(axis=0), flat.var(axis=0) / effective))
    for (one, error), (other, other_error) in zip(found[:3], found[3:], strict=True):
        assert np.abs((one - other) / np.sqrt(error + other_error)).max() < 4.5
