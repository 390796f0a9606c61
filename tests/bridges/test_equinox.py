"""Equinox modules as networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkbayes.bridges.equinox import from_equinox
from ntkbayes.errors import ConfigurationError
from ntkbayes.networks import require_sound

X = jax.random.normal(jax.random.key(1), (4, 3))
IMAGES = 3 + 2 * jax.random.normal(jax.random.key(1), (4, 1, 3, 3))


def make(key):
    k1, k2 = jax.random.split(key)
    return eqx.nn.Sequential(
        [eqx.nn.Linear(3, 5, key=k1), eqx.nn.Dropout(0.5), eqx.nn.Linear(5, 2, key=k2)]
    )


class Model(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    readout: eqx.nn.Linear

    def __init__(self, key, hidden=2):
        k1, k2 = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, hidden, 2, key=k1)
        self.norm = eqx.nn.BatchNorm(hidden, axis_name="batch", mode="batch", momentum=0.5)
        self.readout = eqx.nn.Linear(4 * hidden, 2, key=k2)

    def __call__(self, x, state):
        x, state = self.norm(self.conv(x), state)
        return self.readout(jax.nn.relu(x).ravel()), state


def make_stateful(key):
    return eqx.nn.make_with_state(Model)(key)


def run(module, state):
    def batch(x):
        return jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    return batch


@pytest.fixture(scope="module")
def trained():
    module, state = make_stateful(jax.random.key(2))
    return module, run(module, state)(IMAGES)[1]


@pytest.fixture(scope="module")
def stateful(trained):
    return from_equinox(make_stateful).holding(*trained)


def test_logits_are_the_modules_own_in_inference_mode():
    network, module = from_equinox(make), make(jax.random.key(2))
    params = network.params_of(module)
    expected = jax.vmap(eqx.nn.inference_mode(module))(X)
    np.testing.assert_allclose(network.apply(params, X), expected, rtol=1e-12)
    np.testing.assert_allclose(network.apply(network.init(jax.random.key(2), X), X), expected)
    np.testing.assert_allclose(network.holding(module).apply(params, X), expected, rtol=1e-12)
    assert require_sound(network, params, X) == 2


def test_trained_logits_are_the_modules_own_with_its_batch_statistics(stateful, trained):
    module, state = trained
    params = stateful.params_of(module)
    logits = jax.jit(stateful.apply)(params, IMAGES)
    own = jax.jit(run(eqx.nn.inference_mode(module), state))(IMAGES)[0]
    np.testing.assert_allclose(logits, own, rtol=1e-12)
    fresh = jax.jit(from_equinox(make_stateful).apply)(params, IMAGES)
    assert np.abs(fresh - logits).max() > 0.1 * np.abs(logits).max()


def test_training_on_leaves_the_network_as_it_was():
    module, state = make_stateful(jax.random.key(2))
    network = from_equinox(make_stateful).holding(module, state)
    params = network.params_of(module)
    before = network.apply(params, IMAGES)
    run(module, state)(IMAGES)
    np.testing.assert_array_equal(network.apply(params, IMAGES), before)


def test_networks_are_jitted_mapped_over_parameters_and_differentiated(stateful):
    keys = jax.random.split(jax.random.key(0), 2)
    stacked = jax.jit(jax.vmap(lambda key: stateful.init(key, IMAGES)))(keys)
    mapped = jax.jit(jax.vmap(stateful.apply, in_axes=(0, None)))(stacked, IMAGES)
    one, two = (jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(2))
    apply = jax.jit(stateful.apply)
    np.testing.assert_allclose(mapped[0], apply(one, IMAGES), rtol=1e-10)
    np.testing.assert_allclose(mapped[1], apply(two, IMAGES), rtol=1e-10)
    assert np.abs(mapped[0] - mapped[1]).max() > 0.1
    gradient = jax.jit(jax.grad(lambda p: stateful.apply(p, IMAGES).sum()))(one)
    np.testing.assert_allclose(gradient.readout.bias, [4, 4])
    # The logits are linear in the readout: the gradient along it is their sum.
    inner = (gradient.readout.weight * one.readout.weight).sum() + 4 * one.readout.bias.sum()
    np.testing.assert_allclose(inner, mapped[0].sum(), rtol=1e-10)


# --- bad input -----------------------------------------------------------------------------------


class ForcedDropout(eqx.nn.Dropout):
    def __call__(self, x):
        return super().__call__(x, inference=False)


class ForcedNorm(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")

    def __call__(self, x, state):
        return self.norm(x, state, inference=False)


@pytest.mark.parametrize(
    "make", [lambda key: ForcedDropout(0.5), eqx.nn.make_with_state(ForcedNorm)]
)
def test_a_module_that_trains_in_spite_of_inference_mode_is_refused(make):
    network = from_equinox(make)
    with pytest.raises(ConfigurationError, match="inference_mode was called"):
        network.apply(network.init(jax.random.key(0), X), X)


def test_errors_that_are_not_about_the_mode_are_left_alone():
    class Broken(eqx.Module):
        def __call__(self, x):
            raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match=r"^my own"):
        from_equinox(lambda key: Broken()).apply(Broken(), X)


@pytest.mark.parametrize(
    ("make", "message"),
    [(3, "function make"), (lambda key: 3, "got int"), (lambda key: (make(key), 3), "got tuple")],
)
def test_what_make_is_and_returns_is_checked(make, message):
    with pytest.raises(ConfigurationError, match=message):
        from_equinox(make)


def test_holding_refuses_another_architecture_and_a_missing_state(stateful, trained):
    with pytest.raises(
        ConfigurationError, match=r"params\.conv\.weight is of shape \(3, 1, 2, 2\)"
    ):
        stateful.holding(*eqx.nn.make_with_state(Model)(jax.random.key(0), hidden=3))
    with pytest.raises(ConfigurationError, match="state=None"):
        stateful.holding(trained[0])
    with pytest.raises(ConfigurationError, match="got int"):
        from_equinox(make).holding(3)


def test_parameters_are_the_inexact_arrays_alone():
    class Counting(eqx.Module):
        w: jax.Array
        count: jax.Array

        def __call__(self, x):
            return self.w * x * self.count

    network = from_equinox(lambda key: Counting(jnp.ones(3), jnp.array(2)))
    params = network.init(jax.random.key(0), X)
    assert params.count is None
    np.testing.assert_array_equal(network.apply(params, X), 2 * X)
