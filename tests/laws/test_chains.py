"""The samplers of the posterior against posteriors known otherwise: quadrature and regression (oracles
9 and 10), and against each other."""

import warnings

import jax
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceWarning
from ntkbayes.laws.chains.nuts import NUTS
from ntkbayes.laws.chains.split_hmc import SplitHMC
from ntkbayes.likelihood import Bernoulli, Categorical

NETWORK = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5)
KEY = jax.random.key(21)
SAMPLERS = {"NUTS": NUTS, "split HMC": SplitHMC}

every_sampler = pytest.mark.parametrize("kind", SAMPLERS.values(), ids=SAMPLERS)


def moment_errors(law, draws, mean, variance):
    """z-scores of draws' mean and variance (S, m, C), with standard errors from effective samples."""
    chains = np.array(draws).reshape(law.num_chains, -1, *draws.shape[1:])
    deviation = (chains - mean) ** 2
    mean_error = np.sqrt(variance / effective_sample_size(chains))
    flat = deviation.reshape(-1, *mean.shape)
    variance_error = np.sqrt(flat.var(axis=0) / effective_sample_size(deviation))
    return (
        (np.array(draws).mean(axis=0) - mean) / mean_error,
        (flat.mean(axis=0) - variance) / variance_error,
    )


# --- one point: quadrature -----------------------------------------------------------------------

ONE = np.array([[0.8, -0.4]])
CASES = {
    "bernoulli": (Bernoulli(), oracle.Logistic(), [[0.0, 1.0]], 1.0),
    "softmax": (Categorical(), oracle.Softmax(), [[0.1, 0.2, 0.7]], 0.6),
}


@every_sampler
@pytest.mark.parametrize("name", CASES)
def test_one_point_has_the_posterior_of_quadrature(name, kind):
    likelihood, truth, target, ridge = CASES[name]
    data = nb.Dataset(ONE, target, class_names=range(len(target[0])))
    size = 1 if name == "bernoulli" else 3
    prior = nb.NTKPrior(NETWORK, ridge=ridge, mean=np.linspace(-1.0, 0.5, size))
    encoded = np.array(likelihood.encode(data))
    variance = float(prior.diagonal(ONE).ntk[0]) / ridge
    exact_mean, exact_covariance, evidence = oracle.one_point_posterior(
        truth, variance, encoded, np.linspace(-1.0, 0.5, size)
    )

    law = kind(num_samples=2000, num_warmup=300, num_chains=2).fit(
        prior, data, key=KEY, likelihood=likelihood
    )
    assert law.info.num_divergences == 0
    draws = law.sample(KEY, ONE)
    errors = moment_errors(law, draws, exact_mean[None], np.diag(exact_covariance)[None])
    assert max(np.abs(error).max() for error in errors) < 4

    laplace = nb.Laplace().fit(prior, data, likelihood=likelihood)
    # Laplace is an approximation here: near, and nearer than the prior is.
    gap = np.abs(np.array(laplace.mean(ONE))[0] - exact_mean)
    assert 1e-3 < gap.max() < 0.35 * np.sqrt(np.diag(exact_covariance)).max()
    np.testing.assert_allclose(laplace.variance(ONE)[0], np.diag(exact_covariance), rtol=0.3)
    assert laplace.info.log_evidence == pytest.approx(evidence, abs=0.15)


# --- real targets: exact regression --------------------------------------------------------------


@pytest.fixture(scope="module", params=SAMPLERS.values(), ids=SAMPLERS)
def regression(request):
    rng = np.random.default_rng(1)
    features, new = rng.standard_normal((12, 2)), 1.5 * rng.standard_normal((4, 2))
    data = nb.Dataset.real(features, rng.standard_normal((12, 2)))
    prior = nb.NTKPrior(NETWORK, ridge=0.5, mean=0.3)
    inputs = np.concatenate([new, features[:2]])
    grams = [part / 0.5 for part in oracle.Kernels.of(prior, features, inputs).ntk]
    truth, _ = oracle.gp_regression(*grams, data.targets, 0.3, 0.3, 0.5)
    law = request.param(num_samples=1500, num_warmup=300, num_chains=2).fit(
        prior, data, key=KEY, likelihood=nb.likelihood.Normal(0.5)
    )
    return law, inputs, truth


def test_posterior_draws_are_exact_regression_at_old_and_new_inputs(regression):
    law, inputs, truth = regression
    draws = law.sample(KEY, inputs)
    errors = moment_errors(law, draws, truth.mean, truth.variance)
    assert max(np.abs(error).max() for error in errors) < 4
    # All cross-covariances, with what autocorrelation leaves of the draws.
    scale = np.sqrt(min(1.0, effective_squares(law, draws, truth.mean) / len(draws)))
    assert np.abs(oracle.covariance_errors(draws, truth)).max() * scale < 4.5


def test_moments_of_the_law_are_exact_regression(regression):
    law, inputs, truth = regression
    error = np.sqrt(truth.variance / law.info.min_bulk_ess)
    assert np.abs((np.array(law.mean(inputs)) - truth.mean) / error).max() < 4.5
    ratio = np.array(law.variance(inputs)) / truth.variance
    squares = effective_squares(law, law.sample(KEY, inputs), truth.mean)
    assert np.abs(ratio - 1).max() < 4.5 * np.sqrt(2 / squares)


def effective_squares(law, draws, mean):
    """Fewest effective draws of (f − mean)². Trajectories turn to the other side of the mean, so that
    f has more effective draws than there are, but its square has fewer."""
    chains = np.array(draws).reshape(law.num_chains, -1, *draws.shape[1:])
    return effective_sample_size((chains - mean) ** 2).min()


def test_chains_on_a_gaussian_posterior_mix_at_once(regression):
    law, _, _ = regression
    assert law.info.num_divergences == 0
    assert law.info.max_rhat < 1.01
    assert law.info.min_bulk_ess > 1000
    assert law.info.mean_steps <= 15  # the geometry is the posterior's own
    assert law.info.mean_accept > 0.7
    assert law.info.mean_step_size > 0.3


# --- softmax: each other -------------------------------------------------------------------------


def test_both_samplers_have_the_same_skewed_posterior_as_far_as_draws_can_tell():
    features, labels = oracle.blobs(7, 12, 3)
    data = nb.Dataset(features, labels, class_names=range(3))
    prior = nb.NTKPrior(NETWORK, ridge=0.05, mean=[0.5, 0.0, -1.0])
    inputs = np.concatenate([features, [[0.0, 0.0], [3.0, -2.0]]])
    found, skewness = [], []
    for kind in SAMPLERS.values():
        law = kind(num_samples=1500, num_warmup=300, num_chains=2).fit(prior, data, key=KEY)
        assert law.info.num_divergences == 0
        draws = np.array(law.problem.likelihood.project(law.sample(KEY, inputs)))
        chains = draws.reshape(2, -1, *draws.shape[1:])
        moments = []
        for power in (chains, chains**2, np.tanh(chains)):
            flat = power.reshape(-1, *power.shape[2:])
            effective = effective_sample_size(power)
            moments.append((flat.mean(axis=0), flat.var(axis=0) / effective))
        found.append(moments)
        centred = draws - draws.mean(axis=0)
        skewness.append((centred**3).mean(axis=0) / draws.std(axis=0) ** 3)
    for (one, its_error), (other, other_error) in zip(*found, strict=True):
        assert np.abs((one - other) / np.sqrt(its_error + other_error)).max() < 4.5
    # Laplace, which both start from, would not pass.
    assert min(np.abs(part).max() for part in skewness) > 0.5


# --- how it is computed --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(2)
    return nb.Dataset(rng.standard_normal((11, 2)), np.arange(11) % 3, class_names=range(3))


@every_sampler
def test_other_data_and_another_ridge_of_the_same_shape_do_not_compile_again(kind, small, programs):
    method = kind(num_samples=60, num_warmup=90, num_chains=4)

    def compiled(ridge, labels, seed):
        data = nb.Dataset(small.features, labels, class_names=(0, 1))
        prior, key = nb.NTKPrior(NETWORK, ridge=ridge), jax.random.key(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # chains are short
            return programs(lambda: method.fit(prior, data, key=key))

    first = compiled(0.5, np.arange(11) % 2, 0)
    assert sum("_advance" in message for message in first) == 1  # warm-up and sampling alike
    assert compiled(0.7, np.arange(11) % 2, 1) == []
    assert compiled(5.0, np.arange(11) > 4, 2) == []


@every_sampler
def test_the_progress_bar_counts_every_draw(kind, small, capsys):
    data = nb.Dataset(small.features, np.arange(11) % 2, class_names=(0, 1))
    method = kind(num_samples=60, num_warmup=90, num_chains=4, progress=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        method.fit(nb.NTKPrior(NETWORK, ridge=0.5), data, key=KEY)
    shown = capsys.readouterr().err
    assert kind.name in shown
    assert "150/150" in shown


# --- diagnostics and refusals --------------------------------------------------------------------


@every_sampler
def test_chains_that_have_not_converged_warn(kind):
    features, labels = oracle.blobs(7, 12, 2)
    method = kind(num_samples=10, num_warmup=1, num_chains=2)
    with pytest.warns(ConvergenceWarning, match=r"have not converged.*more num_warmup"):
        method.fit(nb.NTKPrior(NETWORK, ridge=0.5), nb.Dataset(features, labels), key=KEY)


@every_sampler
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"num_samples": 20, "num_chains": 1}, r"there is one chain.*use num_chains ≥ 2"),
        ({"num_samples": 9, "num_chains": 2}, r"a chain has 9 draws: use num_samples ≥ 10"),
    ],
    ids=["one chain", "short chains"],
)
def test_chains_that_nothing_is_known_of_have_no_diagnostics(kind, settings, why):
    features, labels = oracle.blobs(7, 12, 2)
    prior, data = nb.NTKPrior(NETWORK, ridge=0.5), nb.Dataset(features, labels)
    with pytest.warns(ConvergenceWarning, match=f"is not known, since {why}"):
        info = kind(num_warmup=1, **settings).fit(prior, data, key=KEY).info
    assert np.isnan([info.max_rhat, info.min_bulk_ess, info.min_tail_ess, info.min_ess]).all()


@every_sampler
@pytest.mark.parametrize(
    "setting", [{"num_samples": 3}, {"num_warmup": 0}, {"num_chains": 0}, {"target_accept": 1.0}]
)
def test_settings_outside_their_range_are_refused_by_name(kind, setting):
    ((name, value),) = setting.items()
    with pytest.raises(ConfigurationError, match=rf"{name} must .*; got {value}"):
        kind(**setting)
