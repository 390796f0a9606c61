"""Flax modules as networks."""

import jax
import numpy as np
import pytest
from flax import linen, nnx

from ntkbayes.bridges.flax import from_linen, from_nnx
from ntkbayes.errors import ConfigurationError
from ntkbayes.networks import require_sound

X = jax.random.normal(jax.random.key(1), (4, 3))


def make(rngs):
    return nnx.Sequential(
        nnx.Linear(3, 5, rngs=rngs),
        nnx.BatchNorm(5, rngs=rngs),
        nnx.Dropout(0.5, rngs=rngs),
        nnx.Linear(5, 2, rngs=rngs),
    )


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(5)(x))
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=not train)(x))


def test_nnx_logits_are_the_modules_own_in_evaluation_mode():
    network, module = from_nnx(make), make(nnx.Rngs(7))
    params = network.params_of(module)
    module.eval()
    np.testing.assert_allclose(network.apply(params, X), module(X), rtol=1e-6)
    assert require_sound(network, params, X) == 2
    keys = jax.random.split(jax.random.key(0), 2)
    logits = jax.vmap(lambda k: network.apply(network.init(k, X), X))(keys)
    assert not np.allclose(logits[0], logits[1])


def test_linen_logits_are_the_modules_own_in_evaluation_mode():
    network = from_linen(Linen(), X, call=lambda module, x: module(x, train=False))
    params = network.init(jax.random.key(3), X)
    expected = Linen().apply({"params": params, **network.state}, X, train=False)
    np.testing.assert_allclose(jax.jit(lambda p: network.apply(p, X))(params), expected, rtol=1e-5)
    assert require_sound(network, params, X) == 2


def test_linen_in_training_mode_is_refused():
    with pytest.raises(ConfigurationError, match="train=False"):
        from_linen(Linen(), X)
