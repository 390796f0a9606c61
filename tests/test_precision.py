"""float64 in, float64 out: what computes in less is refused, and pickle keeps every digit."""

import copy
import dataclasses

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.errors import PrecisionError
from ntkbayes.kernels import EmpiricalKernel, EmpiricalNTK, FunctionKernel
from ntkbayes.laws import Law
from ntkbayes.networks import from_functions

X = np.random.default_rng(3).standard_normal((6, 2))
DATA = nb.Dataset(X, [0, 1, 1, 0, 1, 0], class_names=(0, 1))
NETWORK = nb.networks.mlp(depth=1, width=4)
NARROW = [jnp.bfloat16, jnp.float16, jnp.float32]
LINEAR = {"init": lambda key, x: jax.random.normal(key, (2, 1), x.dtype)}


def narrowed(dtype, back):
    """A linear network that computes in `dtype`, and whose logits are cast back or not."""

    def apply(weights, x):
        logits = x.astype(dtype) @ weights.astype(dtype)
        return logits.astype(x.dtype) if back else logits

    return from_functions(**LINEAR, apply=apply)


@pytest.mark.parametrize("back", [True, False], ids=["cast back", "as they are"])
@pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: dtype.__name__)
def test_a_network_that_computes_in_less_than_float64_is_refused(dtype, back):
    network = narrowed(dtype, back)
    params = network.init(jax.random.key(0), jnp.asarray(X))
    kernel = EmpiricalKernel(network, params)
    told = f"computes in {dtype.__name__} on float64 inputs"
    for fit in (
        lambda: nb.Laplace().fit(nb.NTKPrior(kernel, ridge=0.5), DATA),
        lambda: nb.Laplace().fit(nb.linearise(network, params, ridge=0.5), DATA),
        lambda: nb.NTKPrior(EmpiricalKernel(network, params, max_rows=2), ridge=0.5).gram(X),
        lambda: EmpiricalNTK(network, params).diagonal(X),
    ):
        with pytest.raises(PrecisionError, match=told):
            fit()


@pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: dtype.__name__)
def test_parameters_of_less_than_float64_are_taken_as_they_are(dtype):
    network = from_functions(**LINEAR, apply=lambda weights, x: x @ weights)
    weights = jnp.asarray([[0.1], [0.7]], dtype)
    ntk = EmpiricalNTK(network, weights).full(jnp.asarray(X, dtype))
    assert ntk.dtype == dtype
    gram = nb.NTKPrior(EmpiricalKernel(network, weights), ridge=1.0).gram(X).ntk
    np.testing.assert_allclose(gram, X @ X.T, rtol=1e-14)


@pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: dtype.__name__)
def test_kernels_activations_and_means_that_compute_in_less_are_refused(dtype):
    def kernel(x, y):
        return jnp.exp(x.astype(dtype) @ y.T.astype(dtype)).astype(x.dtype)

    def bent(x):
        return jnp.tanh(x.astype(dtype))

    told = f"the kernel computes in {dtype.__name__}"
    for network in (
        FunctionKernel(kernel),
        FunctionKernel(lambda x, y: jnp.ones((len(x), len(y)), dtype)),
        nb.networks.mlp(depth=1, activation=bent),
    ):
        prior = nb.NTKPrior(network, ridge=0.5)
        with pytest.raises(PrecisionError, match=told):
            prior.gram(X)
        with pytest.raises(PrecisionError, match=told):
            prior.cross(X, X[:1])
    prior = nb.NTKPrior(NETWORK, ridge=0.5, mean=lambda x: jnp.zeros((len(x), 1), dtype))
    with pytest.raises(PrecisionError, match=f"the prior's mean computes in {dtype.__name__}"):
        nb.MAP().fit(prior, DATA)


@pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: dtype.__name__)
def test_features_of_less_than_float64_are_computed_with_in_float64(dtype):
    few = np.asarray(jnp.asarray(X, dtype))
    exact = few.astype(np.float64)
    prior = nb.NTKPrior(NETWORK, ridge=0.5)
    np.testing.assert_array_equal(prior.gram(few).ntk, prior.gram(exact).ntk)
    law = nb.MAP().fit(prior, DATA)
    np.testing.assert_array_equal(law.mean(few), law.mean(exact))


def test_priors_are_refused_before_jax_is_in_float64():
    params = NETWORK.init(jax.random.key(0), jnp.asarray(X))
    for make in (
        lambda: nb.NTKPrior(NETWORK, ridge=0.5, mean=0.1),
        lambda: EmpiricalKernel(NETWORK, params),
    ):
        with jax.enable_x64(False), pytest.raises(PrecisionError, match="jax_enable_x64"):
            make()


MADE = {
    "a Gaussian law": lambda: nb.Laplace().fit(nb.NTKPrior(NETWORK, ridge=0.5, mean=0.1), DATA),
    "a sampled law": lambda: nb.RandomInit(num_inits=2).fit(
        nb.NTKPrior(
            EmpiricalKernel(NETWORK, NETWORK.init(jax.random.key(1), jnp.asarray(X))), ridge=0.5
        ),
        DATA,
        key=jax.random.key(0),
    ),
    "a prior": lambda: nb.NTKPrior(NETWORK, ridge=jnp.asarray(0.1), mean=0.1),
    "a network": lambda: nb.networks.mlp(weight_std=jnp.asarray(0.1)),
    "a likelihood": lambda: nb.likelihood.Ordinal(jnp.asarray([-0.1, 0.1])),
}


@pytest.mark.parametrize("what", MADE)
def test_what_is_unpickled_or_copied_before_float64_has_every_digit(what):
    whole = MADE[what]()
    stored = cloudpickle.dumps(whole)
    with jax.enable_x64(False):
        copies = [cloudpickle.loads(stored), copy.copy(whole), copy.deepcopy(whole)]
    ours = jax.tree.leaves(vars(whole))
    for found in copies:
        theirs = jax.tree.leaves(vars(found))
        arrays = [(a, b) for a, b in zip(ours, theirs, strict=True) if isinstance(a, jax.Array)]
        assert arrays
        for a, b in arrays:
            assert a.dtype == b.dtype
            if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                np.testing.assert_array_equal(a, b)
        if isinstance(whole, Law):
            key = jax.random.key(2)
            np.testing.assert_array_equal(found.sample(key, X), whole.sample(key, X))


def test_predictions_are_not_computed_in_float32():
    law = nb.MAP().fit(nb.NTKPrior(NETWORK, ridge=0.5), DATA)
    found = nb.predict(law, DATA, key=jax.random.key(0), name="MAP")
    found = dataclasses.replace(found)  # without what is computed and kept already
    with jax.enable_x64(False):
        for name in ("probability_draws", "log_likelihood", "log_probability_draws"):
            with pytest.raises(PrecisionError, match="jax_enable_x64"):
                getattr(found, name)
