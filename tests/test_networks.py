"""Finite networks against their kernels at infinite width, within Monte Carlo error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkbayes import networks
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.kernels import analytic_kernel


def inputs():
    return jax.random.normal(jax.random.key(0), (3, 4))


def keys(count):
    return jax.random.split(jax.random.key(1), count)


@pytest.mark.parametrize(("depth", "skip"), [(1, False), (2, True)])
def test_initial_functions_of_a_wide_network_have_the_nngp_as_covariance(depth, skip):
    x, num_inits, width = inputs(), 400, 1024 if depth == 1 else 256
    network = networks.mlp(depth=depth, skip=skip, width=width)

    @jax.jit
    def draw(keys):
        return jax.lax.map(lambda key: network.apply(network.init(key, x), x)[:, 0], keys)

    outputs = np.asarray(draw(keys(num_inits)))
    expected = np.asarray(analytic_kernel(network).cross(x, x).nngp)
    variance = np.diag(expected)
    # Var(f f') = K K + K² for a Gaussian; finite width adds O(depth / width) to the fourth moment.
    error = np.sqrt((np.outer(variance, variance) + expected**2) / num_inits)
    error *= 1 + 10 * depth / width
    assert np.max(np.abs(outputs.T @ outputs / num_inits - expected) / error) < 4.5
    assert np.max(np.abs(outputs.mean(axis=0)) / np.sqrt(variance / num_inits)) < 4.5


@pytest.mark.parametrize("skip", [False, True])
def test_empirical_ntk_approaches_the_analytic_one_at_rate_one_over_root_width(skip):
    x, widths, num_inits = inputs(), (32, 512), 16
    errors = []
    for width in widths:
        network = networks.mlp(depth=2, skip=skip, width=width)

        @jax.jit
        def empirical(keys, network=network):
            def one(key):
                params = network.init(key, x)
                jacobian = jax.jacrev(lambda params: network.apply(params, x)[:, 0])(params)
                flat = [leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(jacobian)]
                return sum(leaf @ leaf.T for leaf in flat)

            return jax.lax.map(one, keys)

        exact = analytic_kernel(network).cross(x, x).ntk
        deviation = np.asarray(empirical(keys(num_inits)) - exact[None])
        errors.append(np.sqrt(np.mean(deviation**2)) / np.linalg.norm(exact))
    rate = np.log(errors[1] / errors[0]) / np.log(widths[1] / widths[0])
    # 16 inits of strongly dependent entries: each RMS is known to about a fifth.
    assert abs(rate + 0.5) < 0.2
    assert errors[1] < 0.05


def test_parameters_have_the_shapes_asked_for():
    network = networks.mlp(depth=3, width=5, num_outputs=2)
    params = network.init(jax.random.key(0), inputs())
    assert [weight.shape for weight, _ in params] == [(4, 5), (5, 5), (5, 5), (5, 2)]
    assert [bias.shape for _, bias in params] == [(5,), (5,), (5,), (2,)]
    assert network.apply(params, inputs()).shape == (3, 2)


@pytest.mark.parametrize("name", ["depth", "width", "num_outputs"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_that_are_no_counts_are_refused(name, value):
    with pytest.raises(ConfigurationError, match=rf"{name} must be at least 1; got {value}"):
        networks.mlp(**{name: value})


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf")])
def test_weight_std_must_be_positive_and_finite(value):
    with pytest.raises(ConfigurationError, match="weight_std must be positive and finite"):
        networks.mlp(weight_std=value)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bias_std_must_be_nonnegative_and_finite(value):
    with pytest.raises(ConfigurationError, match="bias_std must be at least 0 and finite"):
        networks.mlp(bias_std=value)


def test_unknown_activations_are_refused():
    with pytest.raises(UnknownNameError, match=r"unknown activation 'relo'; known are: relu"):
        networks.mlp(activation="relo")


def test_any_function_is_an_activation():
    network = networks.mlp(activation=jnp.tanh, width=3)
    assert network.apply(network.init(jax.random.key(0), inputs()), inputs()).shape == (3, 1)
