"""Matching: the value of a knob at which two laws agree, where it is known exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.errors import (
    ConfigurationError,
    GridEdgeWarning,
    SearchError,
    UnknownNameError,
)
from ntkbayes.kernels import FunctionKernel
from ntkbayes.likelihood import Categorical, Normal
from ntkbayes.scores.distances import log_variance

KEY = jax.random.key(4)
FEATURES, LABELS = oracle.blobs(5, 12, 3)
DATA = nb.Dataset(FEATURES, LABELS, class_names=range(3))
REAL = nb.Dataset.real(FEATURES, np.sin(FEATURES[:, :1]))
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0]])


def rbf(x1, x2):
    return jnp.exp(-0.5 * jnp.sum((x1[:, None] - x2[None]) ** 2, axis=-1))


def four_times_rbf(x1, x2):
    return 4 * rbf(x1, x2)


THETA = FunctionKernel(rbf)  # K = Θ
RIDGE = 2.0
PRIOR = nb.NTKPrior(THETA, ridge=RIDGE)


def test_at_the_mode_the_variance_of_laplace_is_proportional_to_the_temperature():
    law = nb.Laplace().fit(PRIOR, DATA, likelihood=Categorical().tempered(0.3))
    found = nb.match(law, nb.Laplace(), NEW, over="temperature at the mode", key=KEY)
    assert found.value == pytest.approx(0.3, rel=1e-6)
    ratios = np.asarray([score.value for score in found.scores])
    np.testing.assert_allclose(ratios, 0.3 / np.asarray(found.values), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 3.0])
def test_a_normal_posterior_is_as_wide_as_itself_at_its_temperature(temperature):
    """In closed form: noise s² at temperature T is noise T s² at 1."""
    likelihood = Normal(0.3 * temperature**0.5)
    law = nb.Laplace().fit(PRIOR, REAL, likelihood=likelihood)
    fixed = dataclasses.replace(law.problem, likelihood=Normal(0.3))
    law = dataclasses.replace(law, problem=fixed)
    found = nb.match(law, nb.Laplace(), NEW, over="temperature", key=KEY)
    assert found.value == pytest.approx(temperature, rel=1e-6)
    assert found.lower == pytest.approx(found.upper, rel=1e-6)
    assert f"as wide as the posterior at temperature {temperature:g}" in repr(found)


def test_laplace_is_as_wide_as_laplace_at_its_ridge_and_at_temperature_one():
    law = nb.Laplace().fit(PRIOR, DATA)
    assert nb.match(law, law, NEW, over="ridge", key=KEY).value == pytest.approx(RIDGE, rel=1e-6)
    found = nb.match(law, nb.Laplace(), NEW, over="temperature", key=KEY)
    assert found.value == pytest.approx(1.0, rel=1e-6)
    ratios = [score.value for score in found.scores]
    assert (np.diff(ratios) < 0).all()  # a warmer posterior is wider
    assert list(found.table()["value"]) == ratios


def test_initial_functions_as_wide_as_the_prior_with_unit_noise_match_laplace_to_first_order():
    """scale² K = Θ/ridge at scale 1/√ridge. Little is curved at a large ridge."""
    wide = nb.NTKPrior(THETA, ridge=20.0)
    laplace = nb.Laplace().fit(wide, DATA)
    scale = 20.0**-0.5
    noisy = nb.RandomInit(num_inits=400, gradient_noise=1.0)
    found = nb.match(
        noisy, laplace, DATA, over="initial scale", key=KEY, within=(scale / 3, 3 * scale)
    )
    assert found.lower < scale < found.upper
    assert found.upper < 1.2 * scale


def test_unit_gradient_noise_matches_laplace_to_first_order():
    """Exactly, of a Normal likelihood, but for the draws being 400."""
    ridge = 0.5
    laplace = nb.Laplace().fit(nb.NTKPrior(THETA, ridge=ridge), REAL, likelihood=Normal(1.0))
    exact = nb.RandomInit(num_inits=400, initial_scale=ridge**-0.5)
    found = nb.match(exact, laplace, REAL, over="gradient noise", key=KEY, within=(0.1, 10.0))
    assert found.lower < 1.0 < found.upper
    assert found.upper / found.lower < 1.6


def test_the_energy_coefficient_is_least_near_the_law_itself():
    law = nb.Laplace().fit(PRIOR, DATA)
    found = nb.match(
        law, nb.Laplace(), NEW, over="temperature", key=KEY, by="energy", within=(0.05, 20.0)
    )
    assert found.lower < 1.0 < found.upper
    assert all(score.value >= min(s.value for s in found.scores) for score in found.scores)
    assert "nearest to the posterior at temperature" in repr(found)


def test_random_init_with_scaled_initial_functions_is_random_init_of_the_scaled_kernel():
    scaled = nb.NTKPrior(FunctionKernel(four_times_rbf), ridge=4 * RIDGE)  # of the same Θ/ridge
    ours = nb.RandomInit(num_inits=20, initial_scale=2.0).fit(PRIOR, DATA, key=KEY)
    theirs = nb.RandomInit(num_inits=20).fit(scaled, DATA, key=KEY)
    for draw in ("sample", "sample_marginals"):
        a, b = (getattr(law, draw)(KEY, NEW) for law in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.covariance(NEW), theirs.covariance(NEW), rtol=1e-4, atol=1e-6)


def test_scaled_initial_functions_of_a_finite_network_are_scaled_networks():
    network = nb.networks.mlp(depth=1, width=16, num_outputs=3)
    kernel = nb.kernels.EmpiricalKernel(network, network.init(KEY, jnp.asarray(FEATURES)))
    prior = nb.NTKPrior(kernel, ridge=RIDGE)
    laws = [
        nb.RandomInit(num_inits=5, initial_scale=scale).fit(prior, DATA, key=KEY)
        for scale in (1.0, 3.0)
    ]
    np.testing.assert_allclose(3 * laws[0].g.values, laws[1].g.values, rtol=1e-12)


def test_log_variance_is_unbiased_with_its_error():
    draws = np.random.default_rng(0).normal(size=(200, 400, 2))
    found = log_variance(draws)
    assert abs(found.value) < 4 * found.error
    assert found.error == pytest.approx((2 / 200 / 800) ** 0.5, rel=0.5)


def test_the_curve_is_drawn():
    law = nb.Laplace().fit(PRIOR, DATA)
    for by in ("variance ratio", "energy"):
        found = nb.match(
            law, nb.Laplace(), NEW, over="temperature", key=KEY, by=by, within=(0.05, 20.0)
        )
        panel = figures.match_curve(found).axes[0]
        assert panel.get_title("left").startswith(f"Best at {found.value:.3g}")
        np.testing.assert_allclose(panel.lines[-1].get_xdata(), found.values)


def test_a_range_without_an_optimum_is_refused():
    law = nb.Laplace().fit(PRIOR, DATA)
    given = {"over": "temperature", "key": KEY, "within": (2.0, 8.0)}
    with pytest.raises(SearchError, match=r"no temperature from 2 to 8 makes the law as wide"):
        nb.match(law, nb.Laplace(), NEW, **given)
    with pytest.raises(SearchError, match=r"least at the smallest temperature tried, 2"):
        nb.match(law, nb.Laplace(), NEW, by="energy", **given)


def test_an_interval_that_reaches_the_end_of_the_range_is_warned_of():
    law = nb.RandomInit(num_inits=30, initial_scale=0.6).fit(PRIOR, DATA, key=KEY)
    whole = nb.match(law, nb.Laplace(), NEW, over="temperature", key=KEY, within=(1e-4, 1e3))
    with pytest.warns(GridEdgeWarning, match="reaches an end of the range"):
        nb.match(
            law, nb.Laplace(), NEW, over="temperature", key=KEY, within=(whole.value * 0.999, 1e3)
        )


def test_bad_matches_are_refused():
    law, laplace = nb.RandomInit(num_inits=5).fit(PRIOR, DATA, key=KEY), nb.Laplace()

    def refused(error, message, *given, **options):
        with pytest.raises(error, match=message):
            nb.match(*given, NEW, **{"over": "temperature", "key": KEY, **options})

    refused(UnknownNameError, "unknown knob 'width'", law, laplace, over="width")
    refused(UnknownNameError, "unknown criterion", law, laplace, by="kl")
    refused(ConfigurationError, "within is increasing", law, laplace, within=(2.0, 1.0))
    refused(ConfigurationError, "must be positive", law, laplace, within=(0.0, 1.0))
    refused(ConfigurationError, "MAP is one function", law, nb.MAP())
    refused(ConfigurationError, "so the law must be fitted", nb.RandomInit(5), laplace)
    noisy = {"over": "gradient noise"}
    refused(ConfigurationError, "so the posterior must be fitted", law, laplace, **noisy)
    fitted = laplace.fit(PRIOR, DATA)
    refused(
        ConfigurationError,
        "of RandomInit, not of PerturbedInit",
        nb.PerturbedInit(5),
        fitted,
        **noisy,
    )
    refused(ConfigurationError, "give its method", law, nb.DirichletGP().fit(PRIOR, DATA))
    with pytest.raises(ConfigurationError, match="leave out training_time"):
        nb.RandomInit(training_time=1.0, gradient_noise=1.0)
