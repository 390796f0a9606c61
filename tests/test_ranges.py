"""Numbers among settings, of any kind that Python, NumPy and JAX have."""

from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes import ranges
from ntkbayes.app.study import Study
from ntkbayes.errors import ConfigurationError
from ntkbayes.likelihood import Normal
from ntkbayes.ranges import Range

NETWORK = nb.networks.mlp(depth=1)
DATA = nb.Dataset([[0.0], [1.0]], [0, 1])
KINDS = [float, np.float32, np.float64, np.array, jnp.asarray, Decimal, Fraction]
REALS = {  # of a value, each setting that must be positive
    "ridge": lambda v: nb.NTKPrior(NETWORK, ridge=v),
    "weight_std": lambda v: nb.networks.mlp(weight_std=v),
    "bias_std": lambda v: nb.networks.cnn(bias_std=v),
    "noise_std": lambda v: Normal(v),
    "tolerance": lambda v: nb.Laplace(tolerance=v),
    "training_time": lambda v: nb.MAP(training_time=v),
    "spread": lambda v: nb.PerturbedInit(spread=v),
    "kept": lambda v: nb.PrunedLaplace(kept=v),
    "concentration": lambda v: nb.DirichletGP(concentration=v),
    "target_accept": lambda v: nb.NUTS(target_accept=v),
    "smoothing amount": lambda v: DATA.smooth(v),
    "test_share": lambda v: Study("iris", nb.NTKPrior(NETWORK, ridge=1), test_share=v),
}
WHOLES = {
    "depth": lambda v: nb.networks.mlp(depth=v),
    "kernel_size": lambda v: nb.networks.cnn(kernel_size=v),
    "num_inits": lambda v: nb.RandomInit(num_inits=v),
    "num_networks": lambda v: nb.FiniteEnsemble(NETWORK, num_networks=v),
    "num_chains": lambda v: nb.NUTS(num_chains=v),
    "num_samples": lambda v: nb.SplitHMC(num_samples=v),
    "max_iterations": lambda v: nb.MeanField(max_iterations=v),
    "num_folds": lambda v: nb.TemperatureScaled(nb.MAP(), num_folds=v),
    "num_bins": lambda v: nb.calibration.EqualWidth(num_bins=v),
}
NO_NUMBERS = ["1", None, True, np.True_, 1j, [0.5], np.ones(1), jnp.ones(1), np.ma.masked]


@pytest.mark.parametrize("name", REALS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: getattr(k, "__name__", str(k)))
def test_a_negative_number_of_any_kind_is_refused_by_name(name, kind):
    with pytest.raises(ConfigurationError, match=rf"{name} must .*; got .*-2"):
        REALS[name](kind(-2))


@pytest.mark.parametrize("name", REALS)
def test_nan_is_in_no_range(name):
    for value in (float("nan"), np.float32("nan"), jnp.nan, Decimal("NaN")):
        with pytest.raises(ConfigurationError, match=rf"{name} must .*; got .*(nan|NaN)"):
            REALS[name](value)


@pytest.mark.parametrize("name", REALS | WHOLES)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} must be a number; got"):
        (REALS | WHOLES)[name](value)


@pytest.mark.parametrize("name", WHOLES)
def test_a_count_is_whole_and_large_enough_or_refused_by_name(name):
    for value in (np.int64(-2), np.int32(0), jnp.asarray(-1), 4.5, np.inf, np.nan, Fraction(9, 2)):
        with pytest.raises(ConfigurationError, match=rf"{name} must be .*at least \d+; got"):
            WHOLES[name](value)
    for value in (5, np.int64(5), 5.0, np.array(5), jnp.asarray(5), Fraction(5)):
        WHOLES[name](value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: getattr(k, "__name__", str(k)))
def test_the_kind_of_a_number_does_not_matter(kind):
    ridge = nb.NTKPrior(NETWORK, ridge=kind(0.25)).ridge
    assert ridge == 0.25
    assert isinstance(ridge, float | jax.Array)


def test_a_traced_number_is_taken_as_it_is():
    def variance(std):
        network = nb.networks.mlp(depth=1, weight_std=std, bias_std=0.0)
        return nb.NTKPrior(network, ridge=1.0).diagonal(np.ones((1, 2))).nngp[0]

    np.testing.assert_allclose(jax.grad(variance)(1.5), 4 * 1.5**3 / 2)


@pytest.mark.parametrize("value", [2**63, -1, 10**400])
def test_a_seed_has_63_bits(value):
    with pytest.raises(ConfigurationError, match="the seed must be at least 0 and below 2"):
        ranges.seed(value)
    assert ranges.seed(2**63 - 1) == 2**63 - 1


def test_numbers_beyond_float64_are_infinite():
    with pytest.raises(ConfigurationError, match="ridge must be at least 0 and finite; got 1000"):
        ranges.real("ridge", 10**400, Range.NOT_NEGATIVE_FINITE)


@pytest.mark.parametrize("mean", ["a", np.nan, [0.0, np.inf], [[1], [1, 2]]])
def test_a_mean_that_is_no_finite_numbers_is_refused(mean):
    with pytest.raises(ConfigurationError, match="the mean must be"):
        nb.NTKPrior(NETWORK, ridge=1.0, mean=mean)
