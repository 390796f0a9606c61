"""stax networks behind `NTKPrior`: the same kernels, accurate where inputs coincide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.bridges.neural_tangents import StaxNetwork, from_stax, load
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import analytic_kernel

stax = load().stax


def dense(width=1):
    return stax.Dense(width, W_std=1.5, b_std=0.1)


def fully_connected():
    return from_stax(stax.serial(dense(8), stax.Relu(), dense(8), stax.Relu(), dense(2)))


def convolutional(*end):
    return from_stax(stax.serial(stax.Conv(4, (3, 3), padding="SAME"), stax.Relu(), *end, dense(2)))


def normal(seed, *shape):
    return np.asarray(jax.random.normal(jax.random.key(seed), shape))


IMAGES = (3, 2, 2, 1)


def test_prior_of_a_stax_network_is_that_of_the_same_mlp():
    x, x_test = normal(0, 6, 3), normal(1, 6, 3)
    prior = nb.NTKPrior(fully_connected(), ridge=0.1)
    own = nb.NTKPrior(nb.networks.mlp(depth=2, weight_std=1.5, bias_std=0.1), ridge=0.1)
    for ours, theirs in (
        (own.gram(x), prior.gram(x)),
        (own.cross(x_test, x), prior.cross(x_test, x)),
        (own.diagonal(x), prior.diagonal(x)),
    ):
        np.testing.assert_allclose(theirs.nngp, ours.nngp, rtol=1e-12)
        np.testing.assert_allclose(theirs.ntk, ours.ntk, rtol=1e-12)


@pytest.mark.parametrize("num_features", [64, 300])
def test_kernels_are_accurate_where_inputs_coincide(num_features):
    """neural-tangents' own Gram is wrong by 1e-8 here."""
    x = jnp.asarray(normal(num_features, 6, num_features))
    kernel = analytic_kernel(nb.networks.mlp(depth=2, weight_std=1.5, bias_std=0.1))
    prior = nb.NTKPrior(fully_connected(), ridge=0.1)
    np.testing.assert_allclose(prior.gram(x).ntk, kernel.gram(x).ntk, rtol=1e-12)
    np.testing.assert_allclose(
        prior.cross(x[::-1], x).ntk, kernel.cross(x[::-1], x).ntk, rtol=1e-12
    )
    np.testing.assert_allclose(prior.diagonal(x).ntk, kernel.diagonal(x).ntk, rtol=1e-14)
    for block in map(np.asarray, prior.gram(x[np.array([3, 5, 3, 1, 0, 2])])):
        np.testing.assert_array_equal(block[0, 0], block[0, 2])
        np.testing.assert_allclose(block[0], block[2], rtol=1e-14)


def test_map_with_a_stax_network_is_map_with_the_same_mlp():
    train = nb.Dataset(normal(2, 6, 3), np.arange(6) % 3)
    x_test = normal(3, 6, 3)
    expected, obtained = (
        nb.MAP().fit(nb.NTKPrior(network, ridge=0.1), train).mean(x_test)
        for network in (nb.networks.mlp(depth=2, weight_std=1.5, bias_std=0.1), fully_connected())
    )
    np.testing.assert_allclose(obtained, expected, rtol=1e-8)


@pytest.mark.parametrize("pool", ["Flatten", "GlobalAvgPool"])
def test_convolutional_kernels_of_images_are_consistent_and_positive_semidefinite(pool):
    x = normal(4, *IMAGES)
    prior = nb.NTKPrior(convolutional(getattr(stax, pool)()), ridge=0.1)
    gram, diagonal, cross = prior.gram(x), prior.diagonal(x), prior.cross(x[::-1], x)
    for parts in zip(gram, diagonal, cross, strict=True):
        block, values, part = map(np.asarray, parts)
        np.testing.assert_allclose(block, block.T, rtol=1e-14)
        np.testing.assert_allclose(np.diagonal(block), values, rtol=1e-14)
        np.testing.assert_allclose(part, block[::-1], rtol=1e-12)
        assert np.linalg.eigvalsh(block)[0] > -1e-12 * np.linalg.eigvalsh(block)[-1]


def test_convolution_of_one_pixel_is_a_dense_layer():
    x = normal(5, 6, 3)
    layers = stax.Conv(1, (1, 1), W_std=1.5, b_std=0.1), stax.Relu(), stax.Flatten(), dense()
    prior = nb.NTKPrior(from_stax(stax.serial(*layers)), ridge=0.1)
    own = nb.NTKPrior(nb.networks.mlp(depth=1, weight_std=1.5, bias_std=0.1), ridge=0.1)
    for theirs, ours in zip(prior.gram(x[:, None, None, :]), own.gram(x), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-12)


def test_under_an_outer_jit_eight_digits_remain():
    x = jnp.asarray(normal(6, 6, 3))
    kernel = analytic_kernel(fully_connected())
    np.testing.assert_allclose(jax.jit(kernel.cross)(x, x).ntk, kernel.cross(x, x).ntk, rtol=1e-7)


def test_network_initialises_and_applies():
    network, x = fully_connected(), jnp.asarray(normal(7, 6, 3))
    assert isinstance(network, StaxNetwork)
    params = network.init(jax.random.key(0), x)
    logits = network.apply(params, x)
    assert logits.shape == (6, 2)
    assert logits.dtype == np.float64
    assert not np.array_equal(logits, network.apply(network.init(jax.random.key(1), x), x))


@pytest.mark.parametrize("end", [(), (stax.AvgPool((2, 2)),)])
def test_network_without_a_vector_at_its_end_is_refused(end):
    prior = nb.NTKPrior(convolutional(*end), ridge=0.1)
    for evaluate in (prior.gram, prior.diagonal):
        with pytest.raises(ConfigurationError, match=r"stax\.Flatten"):
            evaluate(normal(4, *IMAGES))


def test_layer_without_a_closed_form_is_refused():
    network = from_stax(stax.serial(dense(), stax.Elementwise(jnp.tanh), dense()))
    with pytest.raises(ConfigurationError, match="no analytic kernel"):
        nb.NTKPrior(network, ridge=0.1).gram(normal(0, 6, 3))


def test_a_triple_without_kernels_is_refused_with_what_to_use():
    with pytest.raises(ConfigurationError, match=r"no kernel_fn.*networks\.from_functions"):
        from_stax((*stax.Relu()[:2], None))


@pytest.mark.parametrize("triple", [None, (), stax.Relu()[:2], (*stax.Relu()[:2], 1), stax.Relu])
def test_anything_but_a_triple_of_functions_is_refused(triple):
    with pytest.raises(ConfigurationError, match=r"\(init_fn, apply_fn, kernel_fn\)"):
        from_stax(triple)
