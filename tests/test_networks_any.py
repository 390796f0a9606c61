"""Networks of any kind: convolutional ones, plain functions, and the one check of soundness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.networks import (
    cnn,
    flatten,
    from_functions,
    mlp,
    require_same_shapes,
    require_sound,
    reshaped,
)

IMAGES = jax.random.normal(jax.random.key(0), (2, 3, 4, 2))
X = IMAGES.reshape(2, -1)
W = jnp.ones((24, 2))


def of(apply):
    return from_functions(lambda key, x: W, apply)


def test_a_reshaped_network_has_the_analytic_kernels_of_the_network_inside():
    network = nb.networks.mlp(depth=1, bias_std=0.5)
    x = np.random.default_rng(0).normal(size=(5, 4))
    plain, rows = (nb.NTKPrior(n, ridge=1.0) for n in (network, reshaped(network, (4,))))
    for one, other in (
        (plain.gram(x), rows.gram(x)),
        (plain.cross(x[:2], x), rows.cross(x[:2], x)),
    ):
        np.testing.assert_array_equal(one.ntk, other.ntk)
        np.testing.assert_array_equal(one.nngp, other.nngp)
    np.testing.assert_array_equal(plain.diagonal(x).ntk, rows.diagonal(x).ntk)
    with pytest.raises(DataError, match="rows of 3 features cannot be reshaped to"):
        rows.diagonal(x[:, :3])


def test_a_reshaped_network_sees_the_rows_of_a_table_as_images():
    images = cnn(channels=(2,), num_outputs=2)
    rows = reshaped(images, (3, 4, 2))
    params = rows.init(jax.random.key(1), X)
    np.testing.assert_array_equal(rows.apply(params, X), images.apply(params, IMAGES))
    with pytest.raises(DataError, match="rows of 24 features cannot be reshaped to"):
        reshaped(images, (5, 5, 1)).init(jax.random.key(1), X)


def test_cnn_is_the_explicit_loop_over_windows():
    network = cnn(channels=(3,), gather=flatten, num_outputs=2)
    params = jax.jit(network.init)(jax.random.key(1), IMAGES)
    (kernel, shift), (weight, bias) = jax.tree.map(np.asarray, params)
    padded = np.pad(np.asarray(IMAGES), ((0, 0), (1, 1), (1, 1), (0, 0)))
    hidden = np.zeros((2, 3, 4, 3))
    for i in range(3):
        for j in range(4):
            window = padded[:, i : i + 3, j : j + 3].reshape(2, -1)
            hidden[:, i, j] = 1.5 * window @ kernel.reshape(18, 3) / np.sqrt(18) + 0.1 * shift
    expected = 1.5 * np.maximum(hidden, 0).reshape(2, -1) @ weight / 6 + 0.1 * bias
    np.testing.assert_allclose(jax.jit(network.apply)(params, IMAGES), expected, rtol=1e-12)


def test_cnn_output_has_the_variance_of_the_ntk_parameterisation():
    """At one pixel and with φ(x) = x every layer's variance is known in closed form."""
    network = cnn(channels=(16,), kernel_size=1, activation="identity", num_outputs=2)
    pixel = jnp.array([1.0, -2.0])[None, None, None, :]
    keys = jax.random.split(jax.random.key(2), 300)
    logits = jax.jit(jax.vmap(lambda key: network.apply(network.init(key, pixel), pixel)[0]))(keys)
    hidden = 1.5**2 * (1 + 4) / 2 + 0.1**2
    readout = 1.5**2 * hidden + 0.1**2
    # Given the hidden layer a logit is normal, with variance 1.5² hidden χ²_16 / 16 + 0.1².
    fourth = 3 * (readout**2 + 2 * (1.5**2 * hidden) ** 2 / 16)
    standard_error = np.sqrt((fourth - readout**2) / 300)
    z = (np.mean(np.asarray(logits) ** 2, axis=0) - readout) / standard_error
    assert np.abs(z).max() < 4.5
    # Two initialisations differ, and two outputs are independent of each other.
    assert np.abs(np.corrcoef(np.asarray(logits).T)[0, 1]) < 4.5 / np.sqrt(300)


def test_cnn_maps_over_parameters_and_has_the_gradient_of_its_readout():
    network = cnn(channels=(2,), num_outputs=1)
    keys = jax.random.split(jax.random.key(3), 2)
    stacked = jax.jit(jax.vmap(lambda key: network.init(key, IMAGES)))(keys)
    mapped = jax.jit(jax.vmap(network.apply, in_axes=(0, None)))(stacked, IMAGES)
    one = jax.tree.map(lambda leaf: leaf[0], stacked)
    np.testing.assert_allclose(mapped[0], jax.jit(network.apply)(one, IMAGES), rtol=1e-12)
    gradient = jax.jit(jax.grad(lambda p: network.apply(p, IMAGES).sum()))(one)
    weight, bias = gradient[-1]
    np.testing.assert_allclose(bias, 0.1 * len(IMAGES))
    # The logits are linear in the readout: the gradient along it is their sum.
    inner = (weight * one[-1][0]).sum() + (bias * one[-1][1]).sum()
    np.testing.assert_allclose(inner, mapped[0].sum(), rtol=1e-10)


def test_networks_that_hold_arrays_may_be_jitted_as_they_are():
    held = mlp(depth=1, width=3, weight_std=jnp.array(1.5))
    params = jax.jit(held.init)(jax.random.key(0), X)
    expected = mlp(depth=1, width=3).apply(params, X)
    np.testing.assert_allclose(jax.jit(held.apply)(params, X), expected, rtol=1e-12)
    # Networks of one structure share a hash, and not a compiled function.
    other = mlp(depth=1, width=3, weight_std=jnp.array(0.5))
    assert hash(other) == hash(held)
    expected = mlp(depth=1, width=3, weight_std=0.5).apply(params, X)
    np.testing.assert_allclose(jax.jit(other.apply)(params, X), expected, rtol=1e-12)


def test_cnn_refuses_what_is_no_image():
    with pytest.raises(DataError, match=r"\(n, height, width, channels\); got \(2, 24\)"):
        cnn().init(jax.random.key(0), X)
    with pytest.raises(DataError, match="channels"):
        cnn().apply([], X)


def test_from_functions_refuses_what_is_no_function():
    with pytest.raises(ConfigurationError, match="init must be a function; got 3"):
        from_functions(3, lambda p, x: x @ p)
    with pytest.raises(ConfigurationError, match="apply must be a function; got None"):
        from_functions(lambda key, x: W, None)


def test_a_sound_network_has_as_many_outputs_as_columns_also_of_one_point():
    assert require_sound(of(lambda p, x: x @ p), W, X) == 2
    assert require_sound(of(lambda p, x: x @ p), W, np.asarray(X[:1])) == 2


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda p, x: (x @ p)[:, 0], r"must be \(n, C\).*shape \(2,\)"),
        (lambda p, x: (x @ p)[:, None], r"must be \(n, C\).*shape \(2, 1, 2\)"),
        (lambda p, x: (x @ p).T[:1], r"must be \(n, C\).*shape \(1, 2\)"),
        (lambda p, x: (x @ p, 0), r"must be \(n, C\).*tuple"),
        (lambda p, x: (x @ p).astype(int), "must be floats; got int"),
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
    ("leaf", "message"),
    [
        (jnp.arange(3), "'w'.*int64"),
        (jnp.array(True), "'w'.*bool"),
        (1.5, "'w'.*float, not an array"),
        (W * jnp.nan, "'w'.*NaN"),
        (W.at[0, 1].set(jnp.inf), "'w'.*NaN or infinity"),
    ],
)
def test_bad_parameters_are_named(leaf, message):
    with pytest.raises(ConfigurationError, match=message):
        require_sound(of(lambda p, x: x @ p["w"]), {"w": leaf}, X)


def test_a_network_without_parameters_or_points_is_refused():
    with pytest.raises(ConfigurationError, match="no parameters"):
        require_sound(of(lambda p, x: x), {}, X)
    with pytest.raises(DataError, match=r"got shape \(0, 24\)"):
        require_sound(of(lambda p, x: x @ p), W, X[:0])


def test_trees_of_other_shapes_are_refused_by_name():
    require_same_shapes("params", {"a": X}, {"a": jax.ShapeDtypeStruct(X.shape, X.dtype)})
    for found, message in (
        ({"a": X[:1]}, r"params\['a'\] is of shape \(1, 24\), but should be of shape \(2, 24\)"),
        ({}, r"params\['a'\] is absent, but should be of shape"),
        ({"a": X, "b": X}, r"params\['b'\] is of shape \(2, 24\), but should be absent"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            require_same_shapes("params", found, {"a": X})


@pytest.mark.parametrize(
    "bad",
    [
        {"channels": ()},
        {"channels": (0,)},
        {"kernel_size": 0},
        {"weight_std": -1.0},
        {"weight_std": float("nan")},
        {"bias_std": -0.1},
        {"bias_std": float("inf")},
        {"num_outputs": 0},
        {"gather": "average"},
    ],
)
def test_cnn_refuses_numbers_out_of_range(bad):
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        cnn(**bad)
