"""Networks of any kind: convolutional ones, plain functions, and the one check of soundness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.networks import cnn, flatten, from_functions, require_sound

IMAGES = jax.random.normal(jax.random.key(0), (2, 3, 4, 2))
X = IMAGES.reshape(2, -1)
W = jnp.ones((24, 2))


def of(apply):
    return from_functions(lambda key, x: W, apply)


def test_cnn_is_the_explicit_loop_over_windows():
    network = cnn(channels=(3,), gather=flatten, num_outputs=2)
    params = network.init(jax.random.key(1), IMAGES)
    (kernel, shift), (weight, bias) = jax.tree.map(np.asarray, params)
    padded = np.pad(np.asarray(IMAGES), ((0, 0), (1, 1), (1, 1), (0, 0)))
    hidden = np.zeros((2, 3, 4, 3))
    for i in range(3):
        for j in range(4):
            window = padded[:, i : i + 3, j : j + 3].reshape(2, -1)
            hidden[:, i, j] = 1.5 * window @ kernel.reshape(18, 3) / np.sqrt(18) + 0.1 * shift
    expected = 1.5 * np.maximum(hidden, 0).reshape(2, -1) @ weight / 6 + 0.1 * bias
    np.testing.assert_allclose(network.apply(params, IMAGES), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda p, x: (x @ p)[:, 0], r"must be \(n, C\)"),
        (lambda p, x: (x - x.mean(axis=0, keepdims=True)) @ p, "other points"),
    ],
)
def test_unsound_outputs_are_refused(apply, message):
    with pytest.raises(ConfigurationError, match=message):
        require_sound(of(apply), W, X)


def test_random_outputs_are_refused():
    noise = np.random.default_rng(0)
    with pytest.raises(ConfigurationError, match="random"):
        require_sound(of(lambda p, x: x @ p + noise.normal()), W, X)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="not finite"):
        require_sound(of(lambda p, x: jnp.inf * (x @ p)), W, X)


@pytest.mark.parametrize(
    ("leaf", "message"), [(jnp.arange(3), "'w'.*int64"), (W * jnp.nan, "'w'.*NaN")]
)
def test_bad_parameters_are_named(leaf, message):
    with pytest.raises(ConfigurationError, match=message):
        require_sound(of(lambda p, x: x @ p["w"]), {"w": leaf}, X)


@pytest.mark.parametrize(
    "bad", [{"channels": ()}, {"channels": (0,)}, {"kernel_size": 0}, {"weight_std": -1.0}]
)
def test_cnn_refuses_numbers_out_of_range(bad):
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        cnn(**bad)
