"""Functions that are no covariances are refused where a prior meets the data, with the reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.gaussian_process.kernels import RBF
from sklearn.metrics.pairwise import rbf_kernel

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, NotPositiveDefiniteError
from ntkbayes.kernels import FunctionKernel

RNG = np.random.default_rng(0)
DATA = nb.Dataset(RNG.normal(size=(30, 2)), np.arange(30) % 3 == 0)


def squares(a, b):
    return jnp.sum((a[:, None] - b[None]) ** 2, axis=2)


def rbf(a, b):
    return jnp.exp(-squares(a, b))


NONE = {
    "scikit-learn's": (RBF, ConfigurationError, "RBF has no hash, .*Write it with jax.numpy"),
    "scikit-learn's function": (lambda: rbf_kernel, ConfigurationError, "does not compute in JAX"),
    "SciPy's": (lambda: lambda a, b: np.exp(-cdist(a, b)), ConfigurationError, "compute in JAX"),
    "NumPy's": (
        lambda: lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2)),
        ConfigurationError,
        "does not compute in JAX",
    ),
    "rows": (lambda: lambda a, b: (a * b).sum(axis=1), ConfigurationError, r"shape \(30,\)"),
    "complex": (lambda: lambda a, b: 1j * rbf(a, b), ConfigurationError, "gives complex128"),
    "negative": (
        lambda: lambda a, b: -rbf(a, b),
        NotPositiveDefiniteError,
        r"k\(x, x\) = -1 at a point",
    ),
    "asymmetric": (
        lambda: lambda a, b: rbf(a, b) * (1 + a[:, :1] - b[:, 0][None]),
        ConfigurationError,
        "is not symmetric",
    ),
    "distance": (lambda: squares, NotPositiveDefiniteError, r"eigenvalue -\d"),
    "sigmoid": (
        lambda: lambda a, b: jnp.tanh(a @ b.T - 1),
        NotPositiveDefiniteError,
        "not a covariance",
    ),
    "not finite": (lambda: lambda a, b: jnp.log(squares(a, b)), ConfigurationError, "is -inf"),
    "of the batch": (
        lambda: lambda a, b: jnp.exp(-squares(a, b)) / len(a),
        ConfigurationError,
        "depends on what else is evaluated",
    ),
}


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("ask", [nb.MAP().fit, nb.log_evidence], ids=["law", "evidence"])
def test_a_kernel_that_is_none_is_refused_with_the_reason(ask, name):
    make, error, message = NONE[name]
    with pytest.raises(error, match=message):
        ask(nb.NTKPrior(FunctionKernel(make()), ridge=0.1), DATA)


class Stretched:
    """A callable object with an array, as GPJax's kernels are."""

    def __call__(self, a, b):
        return rbf(2 * a, 2 * b)


@pytest.mark.parametrize(
    "kernel",
    [
        rbf,
        Stretched(),
        lambda a, b: (a[:, None] > 0).astype(int)[..., 0] @ (b[:, None] > 0).astype(int)[..., 0].T,
        lambda a, b: jnp.ones((len(a), len(b))),
    ],
    ids=["rbf", "object", "whole numbers", "constant"],
)
def test_a_covariance_is_accepted(kernel):
    law = nb.MAP().fit(nb.NTKPrior(FunctionKernel(kernel), ridge=0.5), DATA)
    assert np.isfinite(law.mean(DATA)).all()


def test_a_mean_that_is_not_finite_at_the_data_is_refused():
    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.5, mean=lambda x: jnp.log(x[:, :1]))
    with pytest.raises(ConfigurationError, match="mean is not finite at some training points"):
        nb.MAP().fit(prior, DATA)


def test_only_some_of_many_points_are_looked_at():
    features = jax.random.normal(jax.random.key(0), (1000, 2))
    some = nb.kernels.validity.sample(features)
    assert some.shape == (nb.kernels.validity.SAMPLE, 2)
    assert np.isin(some, features).all()
