"""Equinox modules as networks."""

import equinox as eqx
import jax
import numpy as np
import pytest

from ntkbayes.bridges.equinox import from_equinox
from ntkbayes.errors import ConfigurationError
from ntkbayes.networks import require_sound

X = jax.random.normal(jax.random.key(1), (4, 3))


def make(key):
    k1, k2 = jax.random.split(key)
    return eqx.nn.Sequential(
        [eqx.nn.Linear(3, 5, key=k1), eqx.nn.Dropout(0.5), eqx.nn.Linear(5, 2, key=k2)]
    )


def test_logits_are_the_modules_own_in_inference_mode():
    network, module = from_equinox(make), make(jax.random.key(2))
    params = network.params_of(module)
    expected = jax.vmap(eqx.nn.inference_mode(module))(X)
    np.testing.assert_allclose(network.apply(params, X), expected, rtol=1e-12)
    np.testing.assert_allclose(network.apply(network.init(jax.random.key(2), X), X), expected)
    assert require_sound(network, params, X) == 2


def test_what_make_returns_is_checked():
    with pytest.raises(ConfigurationError, match="got int"):
        from_equinox(lambda key: 3)
