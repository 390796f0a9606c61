"""GPJax's Gaussian processes on our kernels are ours, and are trained as ours are."""

import importlib
import sys

import equinox as eqx
import gpjax as gpx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax
import pytest
from gpjax.parameters import val

import ntkbayes as nb
from ntkbayes.bridges.gpjax import NNGPKernel, NTKKernel, from_gpjax, to_gpjax
from ntkbayes.errors import (
    ConfigurationError,
    DataError,
    MissingDependencyError,
    PrecisionError,
)
from ntkbayes.kernels import last_layer
from ntkbayes.likelihood import Normal
from ntkbayes.networks.activations import LeakyReLU

NOISE = 0.05
NETWORK = nb.networks.mlp(depth=2, activation="relu", weight_std=1.3, bias_std=0.4)
X = np.asarray(jax.random.normal(jax.random.key(0), (9, 2)))
NEW = np.asarray(jax.random.normal(jax.random.key(1), (5, 2)))
KERNELS = {
    "NTK": (NTKKernel(NETWORK, ridge=0.5), nb.NTKPrior(NETWORK, ridge=0.5)),
    "NNGP": (NNGPKernel(NETWORK), nb.NTKPrior(last_layer(NETWORK), ridge=1.0)),
}
both_kernels = pytest.mark.parametrize("name", KERNELS)


@pytest.fixture(autouse=True)
def _gpjax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def model_of(kernel):
    prior = gpx.Prior(kernel=kernel, mean_function=gpx.mean_functions.Zero(), jitter=1e-12)
    model = prior * gpx.likelihoods.Gaussian(obs_stddev=NOISE)
    return eqx.tree_at(lambda m: m.likelihood, model, replace_fn=paramax.non_trainable)


def hold(kernel, name):
    return eqx.tree_at(lambda k: getattr(k, name), kernel, replace_fn=paramax.non_trainable)


def loss(model, data):
    return -gpx.objectives.conjugate_mll(model, data)


# --- the same kernels, the same regression --------------------------------------------------------


@both_kernels
def test_the_kernel_is_that_of_the_prior_in_blocks_and_pair_by_pair(name):
    kernel, prior = KERNELS[name]
    truth = np.asarray(prior.cross(NEW, X).ntk / prior.ridge)
    if name == "NNGP":
        np.testing.assert_array_equal(truth, nb.NTKPrior(NETWORK, ridge=1.0).cross(NEW, X).nngp)
    np.testing.assert_allclose(kernel.cross_covariance(NEW, X), truth, rtol=1e-12)
    pairs = jax.vmap(lambda x: jax.vmap(lambda y: kernel(x, y))(jnp.asarray(X)))(jnp.asarray(NEW))
    np.testing.assert_allclose(pairs, truth, rtol=1e-12)
    gram = np.asarray(prior.gram(X).ntk / prior.ridge)
    np.testing.assert_allclose(kernel.gram(X).as_matrix(), gram, rtol=1e-12)
    np.testing.assert_allclose(kernel.diagonal(X).as_matrix(), np.diag(np.diag(gram)), rtol=1e-12)


@both_kernels
def test_regression_is_that_of_our_laws(name):
    kernel, prior = KERNELS[name]
    data = nb.Dataset.real(X, np.sin(3 * X[:, 0]))
    laplace = nb.Laplace().fit(prior, data, likelihood=Normal(NOISE))
    posterior = model_of(kernel).condition(to_gpjax(data))
    found = posterior(jnp.asarray(NEW))
    np.testing.assert_allclose(found.mean, laplace.mean(NEW)[:, 0], rtol=1e-7)
    covariance = found.covariance_matrix
    np.testing.assert_allclose(jnp.diag(covariance), laplace.variance(NEW)[:, 0], rtol=1e-6)
    evidence = posterior.log_marginal_likelihood
    assert float(evidence) == pytest.approx(laplace.info.log_evidence, rel=1e-9)


@both_kernels
def test_the_prior_of_a_kernel_is_the_one_it_was_made_from(name):
    kernel, prior = KERNELS[name]
    again = kernel.to_prior()
    assert float(again.ridge) == pytest.approx(prior.ridge, rel=1e-14)
    np.testing.assert_allclose(again.gram(X).ntk, prior.gram(X).ntk, rtol=1e-12)
    labels = nb.Dataset(X, np.arange(9) % 2)
    one, two = (nb.MAP().fit(p, labels).mean(NEW) for p in (again, prior))
    np.testing.assert_allclose(one, two, atol=1e-9)


def test_kernels_combine_and_see_the_features_they_are_told_to():
    network = nb.networks.mlp(depth=1)
    first, second = NTKKernel(network, active_dims=[1]), NNGPKernel(network)
    twice = gpx.kernels.Constant(constant=2.0) * second
    total = (first + twice).gram(jnp.asarray(X)).as_matrix()
    prior = nb.NTKPrior(network, ridge=1.0)
    expected = prior.gram(X[:, 1:]).ntk.dense() + 2 * prior.gram(X).nngp.dense()
    np.testing.assert_allclose(total, expected, rtol=1e-12)


# --- training -------------------------------------------------------------------------------------


DRAWN = nb.networks.mlp(depth=1, activation="erf", weight_std=1.5, bias_std=0.7)
START = nb.networks.mlp(depth=1, activation="erf", weight_std=1.0, bias_std=0.3)


@pytest.fixture(scope="module")
def drawn():
    """60 noisy values of a function drawn from GP(0, Θ), at scales 1.5 and 0.7."""
    point_key, function_key, noise_key = jax.random.split(jax.random.key(0), 3)
    x = 2 * jax.random.normal(point_key, (60, 3))
    gram = nb.NTKPrior(DRAWN, ridge=1.0).gram(x).ntk.dense()
    root = jnp.linalg.cholesky(gram + 1e-9 * jnp.eye(60))
    f = root @ jax.random.normal(function_key, (60, 1))
    return nb.Dataset.real(x, f + NOISE * jax.random.normal(noise_key, (60, 1)))


@pytest.fixture(scope="module")
def trained(drawn):
    with jax.numpy_rank_promotion("allow"):
        return gpx.fit(
            model=model_of(hold(NTKKernel(START), "ridge")),
            objective=loss,
            train_data=to_gpjax(drawn),
            optim=optax.adam(0.03),
            num_iters=400,
            verbose=False,
        )


def scales(kernel):
    return np.array([float(val(kernel.weight_std)), float(val(kernel.bias_std))])


def test_gpx_fit_finds_the_maximum_of_our_own_evidence(drawn, trained):
    model, history = trained
    ours = nb.maximise_evidence(
        nb.NTKPrior(START, ridge=1.0),
        drawn,
        over=("weight_std", "bias_std"),
        likelihood=Normal(NOISE),
    )
    expected = [ours.values["weight_std"], ours.values["bias_std"]]
    np.testing.assert_allclose(scales(model.prior.kernel), expected, rtol=1e-3)
    assert float(history[-1]) == pytest.approx(-ours.log_evidence, abs=1e-4)


def test_gpx_fit_recovers_the_scales_of_data_drawn_from_the_kernel(drawn, trained):
    # Twice the log ratio of evidences, of the maximum over the truth, is χ² with 2 degrees of freedom
    # in large samples: below 13.8 with a probability of 99.9 %.
    model, history = trained
    truth = loss(model_of(NTKKernel(DRAWN)), to_gpjax(drawn))
    assert 0 < 2 * float(truth - history[-1]) < 13.8
    assert 2 * float(history[0] - history[-1]) > 100  # the start is not among the likely scales
    np.testing.assert_allclose(scales(model.prior.kernel), [1.5, 0.7], rtol=0.2)


class Bent(LeakyReLU):
    """An activation with an array in it."""

    slope: jax.Array


def test_what_is_held_stays_and_a_network_without_biases_keeps_none():
    data = to_gpjax(nb.Dataset.real(X, X[:, 0]))
    activation = Bent(jnp.asarray(0.2))
    network = nb.networks.mlp(depth=1, activation=activation, weight_std=1.0, bias_std=0.0)
    kernel = hold(NTKKernel(network, ridge=0.5), "weight_std")
    fitted, _ = gpx.fit(
        model=model_of(kernel),
        objective=loss,
        train_data=data,
        optim=optax.adam(0.1),
        num_iters=5,
        verbose=False,
    )
    fitted = fitted.prior.kernel
    np.testing.assert_array_equal(scales(fitted), scales(kernel))
    assert float(val(fitted.bias_std)) == 0
    assert float(fitted.network.activation.slope) == 0.2
    assert abs(float(val(fitted.ridge)) - 0.5) > 0.05


# --- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [None, 2, 3])
def test_data_go_there_and_back(classes):
    if classes is None:
        data = nb.Dataset.real(X, np.stack([X[:, 0], X[:, 1] ** 2], axis=1))
    else:
        names = ["no", "yes", "perhaps"][:classes]
        data = nb.Dataset(X, np.arange(9) % classes, class_names=range(classes)).smooth(0.1)
        data = nb.Dataset(X, data.targets, class_names=names)
    there = to_gpjax(data)
    assert there.y.shape[1] == (1 if classes == 2 else data.targets.shape[1])
    back = from_gpjax(there, class_names=data.class_names, name="again")
    np.testing.assert_array_equal(back.features, data.features)
    np.testing.assert_allclose(back.targets, data.targets, atol=1e-15)
    assert back.class_names == data.class_names
    assert back.name == "again"


def test_the_second_class_is_a_one_to_gpjax():
    data = nb.Dataset(X, np.where(X[:, 0] > 0, "yes", "no"))
    np.testing.assert_array_equal(to_gpjax(data).y[:, 0], X[:, 0] > 0)


# --- bad input ------------------------------------------------------------------------------------


def test_images_are_refused():
    kernel, images = NTKKernel(NETWORK), jnp.zeros((4, 8, 8, 1))
    asks = (
        kernel.gram,
        kernel.diagonal,
        lambda x: kernel.cross_covariance(x, x),
        lambda x: kernel(x[0], x[0]),
    )
    for ask in asks:
        with pytest.raises(
            DataError, match=r"matrices \(n, d\), got shape \((4|1), 8, 8, 1\); resh"
        ):
            ask(images)


def test_without_gpjax_the_bridge_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpjax", None)
    monkeypatch.delitem(sys.modules, "ntkbayes.bridges.gpjax")
    with pytest.raises(MissingDependencyError, match="pip install 'gpjax>=1,<2'"):
        importlib.import_module("ntkbayes.bridges.gpjax")


def test_inputs_of_two_widths_are_refused():
    with pytest.raises(DataError, match="2 and 3 features"):
        NTKKernel(NETWORK).cross_covariance(X, np.zeros((4, 3)))


def test_other_networks_and_ridges_are_refused():
    convolutional = nb.networks.cnn(channels=(2,), num_outputs=1)
    for kernel in (NTKKernel, NNGPKernel):
        with pytest.raises(ConfigurationError, match=r"networks\.mlp, got CNN"):
            kernel(convolutional)
    for ridge in (0.0, -1.0, float("inf")):
        with pytest.raises(ConfigurationError, match="ridge must be positive and finite"):
            NTKKernel(NETWORK, ridge=ridge)


def test_single_precision_is_refused():
    with jax.enable_x64(False), pytest.raises(PrecisionError):
        NTKKernel(NETWORK).gram(X.astype(np.float32))


def test_data_that_are_none_are_refused():
    data = gpx.Dataset(X=jnp.asarray(X), y=None)
    with pytest.raises(DataError, match="one of X and y"):
        from_gpjax(data)
    with pytest.raises(DataError, match="not probabilities"):
        from_gpjax(gpx.Dataset(X=jnp.asarray(X), y=jnp.full((9, 1), 2.0)), class_names=["a", "b"])
