"""Flax modules as networks."""

import importlib
import sys

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import ntkbayes as nb
from ntkbayes.bridges.flax import from_linen, from_nnx
from ntkbayes.errors import ConfigurationError, MissingDependencyError
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.likelihood import Categorical
from ntkbayes.networks import require_sound, reshaped

IMAGES = 3 + 2 * jax.random.normal(jax.random.key(1), (4, 3, 3, 1), jnp.float32)
X = IMAGES.reshape(4, 9)


class NNXModel(nnx.Module):
    def __init__(self, rngs, *, hidden=2):
        self.conv = nnx.Conv(1, hidden, (2, 2), rngs=rngs)
        self.norm = nnx.BatchNorm(hidden, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.readout = nnx.Linear(9 * hidden, 2, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.conv(x))))
        return self.readout(x.reshape(len(x), -1))


class LinenModel(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm(use_running_average=not train)(linen.Conv(2, (2, 2))(x))
        x = linen.Dropout(0.5, deterministic=not train)(linen.relu(x))
        return linen.Dense(2)(x.reshape(len(x), -1))


def evaluate(module, x):
    return module(x, train=False)


@pytest.fixture(scope="module")
def nnx_trained():
    """A module in training mode whose statistics are those of the images, not mean 0, variance 1."""
    module = NNXModel(nnx.Rngs(7))
    module.norm.momentum = 0.5
    module(IMAGES)
    return module


@pytest.fixture(scope="module")
def linen_trained():
    variables = LinenModel().init(jax.random.key(3), IMAGES, train=False)
    statistics = {
        "mean": jnp.array([0.3, -0.4], jnp.float32),
        "var": jnp.array([2, 0.5], jnp.float32),
    }
    return {"params": variables["params"], "batch_stats": {"BatchNorm_0": statistics}}


@pytest.fixture(scope="module")
def nnx_network(nnx_trained):
    return from_nnx(NNXModel).holding(nnx_trained)


@pytest.fixture(scope="module")
def linen_network(linen_trained):
    state = {"batch_stats": linen_trained["batch_stats"]}
    return from_linen(LinenModel(), IMAGES, state=state, call=evaluate)


@pytest.fixture(params=["nnx", "linen"])
def network(request):
    return request.getfixturevalue(f"{request.param}_network")


def test_trained_nnx_logits_are_the_modules_own_in_evaluation_mode(nnx_network, nnx_trained):
    params = nnx_network.params_of(nnx_trained)
    logits = nnx_network.apply(params, IMAGES)
    module = nnx.clone(nnx_trained)
    module.eval()
    np.testing.assert_allclose(logits, module(IMAGES), rtol=1e-5)
    fresh = from_nnx(NNXModel).apply(params, IMAGES)
    assert np.abs(fresh - logits).max() > 0.1 * np.abs(logits).max()
    assert require_sound(nnx_network, params, IMAGES) == 2


def test_holding_leaves_the_module_in_training_mode(nnx_network, nnx_trained):
    assert not nnx_trained.norm.use_running_average
    assert not nnx_trained.dropout.deterministic


def test_trained_linen_logits_are_the_modules_own_in_evaluation_mode(linen_network, linen_trained):
    params = linen_trained["params"]
    logits = linen_network.apply(params, IMAGES)
    own = LinenModel().apply(linen_trained, IMAGES, train=False)
    np.testing.assert_allclose(logits, own, rtol=1e-5)
    fresh = from_linen(LinenModel(), IMAGES, call=evaluate).apply(params, IMAGES)
    assert np.abs(fresh - logits).max() > 0.1 * np.abs(logits).max()
    assert require_sound(linen_network, params, IMAGES) == 2


def test_networks_are_jitted_mapped_over_parameters_and_differentiated(network):
    keys = jax.random.split(jax.random.key(0), 2)
    stacked = jax.jit(jax.vmap(lambda key: network.init(key, IMAGES)))(keys)
    mapped = jax.jit(jax.vmap(network.apply, in_axes=(0, None)))(stacked, IMAGES)
    one, two = (jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(2))
    apply = jax.jit(network.apply)
    np.testing.assert_allclose(mapped[0], apply(one, IMAGES), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mapped[1], apply(two, IMAGES), rtol=1e-4, atol=1e-5)
    assert np.abs(mapped[0] - mapped[1]).max() > 0.1
    # The logits are linear in the readout: the gradient along it is their sum.
    gradient = jax.jit(jax.grad(lambda p: network.apply(p, IMAGES).sum()))(one)
    readout = [(g, p) for g, p in zip(*map(jax.tree.leaves, (gradient, one)), strict=True)][-2:]
    inner = sum(float((g * p).sum()) for g, p in readout)
    np.testing.assert_allclose(inner, float(mapped[0].sum()), rtol=1e-4)


def test_laplace_of_a_network_with_running_statistics_is_that_of_its_jacobian(network):
    network = reshaped(network, (3, 3, 1))
    params = jax.tree.map(lambda leaf: leaf.astype(float), network.init(jax.random.key(0), X))
    data = nb.Dataset(np.asarray(X, float), np.arange(len(X)) % 2)
    prior = nb.NTKPrior(EmpiricalKernel(network, params), ridge=0.5)
    law = nb.Laplace().fit(prior, data, likelihood=Categorical())
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    jacobian = np.asarray(jax.jacrev(lambda v: network.apply(unravel(v), X.astype(float)))(flat))
    p = np.asarray(jax.nn.softmax(law.mean(data.features)))
    precision = 0.5 * np.eye(len(flat))
    for j, q in zip(jacobian, p, strict=True):
        precision += j.T @ (np.diag(q) - np.outer(q, q)) @ j
    expected = np.einsum("mcp,pq,mdq->mcd", jacobian, np.linalg.inv(precision), jacobian)
    np.testing.assert_allclose(law.covariance(data.features), expected, atol=1e-8)


# --- training mode -------------------------------------------------------------------------------


class Forced(nnx.Module):
    """Trains whatever `eval()` says."""

    def __init__(self, rngs, layer):
        self.layer = layer(rngs)
        self.switch = (
            {"use_running_average": False}
            if isinstance(self.layer, nnx.BatchNorm)
            else {"deterministic": False}
        )

    def __call__(self, x):
        return self.layer(x, **self.switch)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "layer",
    [lambda rngs: nnx.Dropout(0.5, rngs=rngs), lambda rngs: nnx.BatchNorm(9, rngs=rngs)],
    ids=["dropout", "batch norm"],
)
def test_an_nnx_module_that_trains_in_spite_of_eval_is_refused(layer, jit):
    network = from_nnx(lambda rngs: Forced(rngs, layer))
    params = network.init(jax.random.key(0), X)
    apply = jax.jit(network.apply) if jit else network.apply
    with pytest.raises(ConfigurationError, match=r"module\.eval\(\) was called"):
        apply(params, X)


class Unset(linen.Module):
    layer: type

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(self.layer()(x))


class HalfDropout(linen.Dropout):
    rate: float = 0.5


@pytest.mark.parametrize(
    "module",
    [LinenModel(), Unset(HalfDropout), Unset(linen.BatchNorm)],
    ids=["training", "dropout", "batch norm"],
)
def test_linen_in_training_mode_or_without_a_mode_is_refused(module):
    with pytest.raises(ConfigurationError, match="train=False"):
        from_linen(module, IMAGES)


class DropoutAlone(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dropout(0.5, deterministic=False)(linen.Dense(2)(x))


def test_linen_dropout_without_a_key_is_refused():
    with pytest.raises(ConfigurationError, match=r"InvalidRngError.*deterministic=True"):
        from_linen(DropoutAlone(), X)


# --- bad input -----------------------------------------------------------------------------------


def test_errors_that_are_not_about_the_mode_are_left_alone():
    class Broken(linen.Module):
        @linen.compact
        def __call__(self, x):
            raise ValueError("my own")

    with pytest.raises(ValueError, match=r"^my own"):
        from_linen(Broken(), X)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: from_nnx(3), "function make"),
        (lambda: from_nnx(lambda rngs: 3), "must return an nnx.Module; got 3"),
        (lambda: from_linen(3, X), "flax.linen.Module; got 3"),
        (lambda: from_linen(linen.Dense(2), X, call=3), "call must be a function"),
    ],
)
def test_what_is_no_module_or_function_is_refused(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()


def test_holding_refuses_another_architecture(nnx_network):
    with pytest.raises(ConfigurationError, match=r"'conv'.*is of shape \(3,\)"):
        nnx_network.holding(NNXModel(nnx.Rngs(0), hidden=3))
    with pytest.raises(ConfigurationError, match=r"holding takes an nnx\.Module"):
        nnx_network.holding(3)


@pytest.mark.parametrize("wrong", ["everything", "nothing"])
def test_linen_state_is_every_collection_but_the_parameters(linen_trained, wrong):
    state, message = {
        "everything": (linen_trained, "'params'.*should be absent"),
        "nothing": ({}, "'batch_stats'.*is absent"),
    }[wrong]
    with pytest.raises(ConfigurationError, match=message):
        from_linen(LinenModel(), IMAGES, state=state, call=evaluate)


def test_without_flax_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "ntkbayes.bridges.flax")
    monkeypatch.setitem(sys.modules, "flax", None)
    with pytest.raises(MissingDependencyError, match="pip install 'flax"):
        importlib.import_module("ntkbayes.bridges.flax")
