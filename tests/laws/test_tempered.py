"""Tempered posteriors (THEORY 9): the likelihood to the power 1/T in the fit, and not in predictions."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import LogNormal
from oracles import gp_classification as oracle
from scipy import special, stats

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import FunctionKernel
from ntkbayes.likelihood import (
    Bernoulli,
    Categorical,
    LogConcave,
    Normal,
    Ordinal,
    Poisson,
    Tempered,
)
from ntkbayes.linalg import StructuredCurvature
from ntkbayes.predictions import log_predictive_density

KEY = jax.random.key(5)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0], [6.0, -6.0]])
COLD, HOT = 0.1, 10.0
each_temperature = pytest.mark.parametrize("temperature", [COLD, HOT])


def rbf(x1, x2):
    return 3 * jnp.exp(-0.5 * jnp.sum((x1[:, None] - x2[None]) ** 2, axis=-1))


KERNEL = FunctionKernel(rbf)
PRIOR = nb.NTKPrior(KERNEL, ridge=1.0)
NETWORK = nb.networks.mlp(depth=1, weight_std=1.5, bias_std=0.5, width=32, num_outputs=3)
PRIOR_OF_NETWORK = nb.NTKPrior(NETWORK, ridge=1.0)


def gram(a, b):
    return 3 * np.exp(-0.5 * np.sum((a[:, None] - b[None]) ** 2, axis=-1))


def blobs(count, classes, seed=5):
    features, labels = oracle.blobs(seed, count, classes)
    return nb.Dataset(features, labels, class_names=range(classes))


THREE = blobs(12, 3)
REAL = nb.Dataset.real(THREE.features, np.sin(THREE.features[:, :1]))

# --- the identity between the two conventions ----------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
@each_temperature
def test_laplace_with_prior_theta_at_temperature_ridge_is_ridge_times_laplace(classes, temperature):
    """Θ⁻¹ + W/β = (P⁻¹ + W)/β with P = Θ/β."""
    data = blobs(12, classes)
    plain = nb.Laplace().fit(nb.NTKPrior(KERNEL, ridge=temperature), data)
    likelihood = nb.likelihood.default_likelihood(data)
    tempered = nb.Laplace().fit(PRIOR, data, likelihood=likelihood.tempered(temperature))
    np.testing.assert_allclose(tempered.logits, plain.logits, rtol=1e-10, atol=1e-10)
    for inputs in (data, NEW):
        ours = np.asarray(tempered.joint_covariance(inputs))
        theirs = temperature * np.asarray(plain.joint_covariance(inputs))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())


@pytest.mark.parametrize("name", ["MAP", "random init", "first order", "stopped"])
def test_laws_over_initialisations_depend_on_ridge_times_temperature(name):
    """A flow on a loss divided by T is T times as fast."""
    temperature, inits = 0.2, nb.RandomInit(num_inits=20)
    stopped = [dataclasses.replace(inits, training_time=time) for time in (1.0, 1.0 / temperature)]
    same = {"MAP": nb.MAP(), "random init": inits, "first order": nb.FirstOrder()}
    method, other = stopped if name == "stopped" else (same[name], same[name])
    likelihood = Categorical().tempered(temperature)
    tempered = method.fit(PRIOR_OF_NETWORK, THREE, key=KEY, likelihood=likelihood)
    plain = other.fit(PRIOR_OF_NETWORK.with_ridge(temperature), THREE, key=KEY)
    ours, theirs = (law.sample(KEY, NEW, 20) for law in (tempered, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


# --- against quadrature, and in closed form ------------------------------------------------------


def moments_of(grid_axes, log_density):
    """Mean and covariance of an unnormalised log density on a grid."""
    points = np.stack(np.meshgrid(*grid_axes, indexing="ij"), axis=-1).reshape(-1, len(grid_axes))
    values = log_density(points)
    weights = np.exp(values - values.max())
    weights /= weights.sum()
    mean = weights @ points
    centred = points - mean
    return mean, (weights[:, None] * centred).T @ centred


def by_quadrature(data, temperature):
    """Mean and covariance of the tempered posterior of one logit at one or two points."""
    labels, prior = data.targets[:, 1], gram(data.features, data.features)

    def log_density(f):
        likelihood = np.sum(special.log_expit((2 * labels - 1) * f), axis=1)
        return (
            stats.multivariate_normal(np.zeros(len(labels)), prior).logpdf(f)
            + likelihood / temperature
        )

    return moments_of([np.linspace(-12, 14, 801)] * len(labels), log_density)


def points(count):
    """One point of the second class, and one of the first near it."""
    return nb.Dataset(
        np.array([[0.3, -0.2], [1.1, 0.4]])[:count], [1, 0][:count], class_names=(0, 1)
    )


@cache
def sampled(count, temperature):
    method = nb.NUTS(num_samples=1000, num_warmup=200, num_chains=2)
    likelihood = Bernoulli().tempered(temperature)
    return method.fit(PRIOR, points(count), key=KEY, likelihood=likelihood)


@pytest.mark.parametrize("count", [1, 2])
@each_temperature
def test_nuts_samples_the_tempered_posterior(count, temperature):
    data, law = points(count), sampled(count, temperature)
    mean, covariance = by_quadrature(data, temperature)
    draws = np.asarray(law.sample(KEY, data))[:, :, 0]
    error = np.sqrt(np.diag(covariance) / law.info.min_bulk_ess)
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - mean), 4 * error)
    second = (draws - mean) ** 2
    spread = second.std(axis=0) / law.info.min_tail_ess**0.5
    np.testing.assert_array_less(np.abs(second.mean(axis=0) - np.diag(covariance)), 4 * spread)


@each_temperature
def test_one_site_of_expectation_propagation_has_the_tempered_posteriors_moments(temperature):
    data = points(1)
    mean, covariance = by_quadrature(data, temperature)
    law = nb.ExpectationPropagation().fit(PRIOR, data, likelihood=Bernoulli().tempered(temperature))
    np.testing.assert_allclose(law.mean(data)[0], mean, rtol=1e-5)
    np.testing.assert_allclose(law.variance(data)[0], np.diag(covariance), rtol=1e-5)


@each_temperature
def test_the_variational_bound_is_stationary_at_the_tempered_optimum(temperature):
    """m = P E r / T, and 1/S = 1/P + E W / T (Opper & Archambeau 2009)."""
    data = points(1)
    law = nb.Variational().fit(PRIOR, data, likelihood=Bernoulli().tempered(temperature))
    mean, variance = float(law.mean(data)[0, 0]), float(law.variance(data)[0, 0])
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    p = special.expit(mean + variance**0.5 * nodes)
    weights = weights / weights.sum()
    np.testing.assert_allclose(mean, 3 * (weights @ (1 - p)) / temperature, rtol=1e-6)
    np.testing.assert_allclose(
        1 / variance, 1 / 3 + weights @ (p * (1 - p)) / temperature, rtol=1e-6
    )


GAUSSIAN = {
    "Laplace": nb.Laplace(),
    "variational": nb.Variational(),
    "mean field": nb.MeanField(),
    "EP": nb.ExpectationPropagation(),
}


@pytest.mark.parametrize("name", GAUSSIAN)
@each_temperature
def test_a_tempered_normal_posterior_is_regression_with_t_times_the_noise_variance(
    name, temperature
):
    noise_std = 0.4
    law = GAUSSIAN[name].fit(PRIOR, REAL, likelihood=Normal(noise_std).tempered(temperature))
    theirs = nb.Laplace().fit(PRIOR, REAL, likelihood=Normal(noise_std * temperature**0.5))
    np.testing.assert_allclose(law.mean(NEW), theirs.mean(NEW), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(law.covariance(NEW), theirs.covariance(NEW), rtol=1e-7, atol=1e-9)


def test_nuts_of_a_tempered_normal_likelihood_is_regression():
    likelihood = Normal(0.4).tempered(COLD)
    method = nb.NUTS(num_samples=500, num_warmup=200, num_chains=2)
    law = method.fit(PRIOR, REAL, key=KEY, likelihood=likelihood)
    exact = nb.Laplace().fit(PRIOR, REAL, likelihood=Normal(0.4 * COLD**0.5))
    draws = np.asarray(law.sample(KEY, REAL))[:, :, 0]
    error = np.sqrt(np.asarray(exact.variance(REAL))[:, 0] / law.info.min_bulk_ess)
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - exact.mean(REAL)[:, 0]), 4 * error)
    ratio = draws.var(axis=0) / np.asarray(exact.variance(REAL))[:, 0]
    np.testing.assert_array_less(np.abs(ratio - 1), 4 * (2 / law.info.min_tail_ess) ** 0.5)


def test_perturbed_init_at_a_temperature_matches_laplace_at_it_to_first_order():
    likelihood = Categorical().tempered(COLD)
    narrow = nb.PerturbedInit(num_inits=400, spread=1e-3).fit(
        PRIOR, THREE, key=KEY, likelihood=likelihood
    )
    laplace = nb.Laplace().fit(PRIOR, THREE, likelihood=likelihood)
    draws = np.asarray(Categorical().project(narrow.sample(KEY, THREE))) / 1e-3
    covariance = np.asarray(laplace.covariance(THREE))
    centring = np.eye(3) - 1 / 3
    variance = np.einsum("cd,nde,ec->nc", centring, covariance, centring)
    ratio = draws.var(axis=0, ddof=1) / variance
    np.testing.assert_array_less(np.abs(ratio - 1), 5 * (2 / 400) ** 0.5)


@each_temperature
def test_dirichlet_regression_has_t_times_the_variance_of_its_observations(temperature):
    likelihood = Bernoulli().tempered(temperature)
    data = points(1)
    law = nb.DirichletGP().fit(PRIOR, data, likelihood=likelihood)
    counts = np.array([0.01, 1.01])
    variance = np.log1p(1 / counts)
    observed, noise = np.diff(np.log(counts) - variance / 2)[0], variance.sum() * temperature
    np.testing.assert_allclose(law.mean(data)[0, 0], 3 / (3 + noise) * observed, rtol=1e-10)
    np.testing.assert_allclose(law.variance(data)[0, 0], 3 * noise / (3 + noise), rtol=1e-10)


# --- of the likelihood ---------------------------------------------------------------------------


def own(target, logits):
    return jnp.sum(target * jax.nn.log_softmax(logits))


TEMPERED = {
    "categorical": (Categorical(), np.eye(3)),
    "Bernoulli": (Bernoulli(), np.array([[0.0], [1.0], [0.3]])),
    "ordinal": (Ordinal((-1.0, 1.0)), np.array([[0.0], [1.0], [2.0]])),
    "normal": (Normal(0.7), np.array([[0.5], [-1.0], [2.0]])),
    "Poisson": (Poisson(), np.array([[0.0], [3.0], [1.0]])),
    "own": (LogConcave(own, num_logits=3, examples=np.eye(3)), np.eye(3)),
}


@pytest.mark.parametrize("name", TEMPERED)
def test_a_tempered_likelihood_is_the_log_density_over_t_with_its_structure(name):
    likelihood, targets = TEMPERED[name]
    targets, temperature = jnp.asarray(targets), 0.25
    tempered = likelihood.tempered(temperature)
    logits = jax.random.normal(KEY, targets.shape)
    for what in ("log_density", "residual"):
        ours, theirs = (getattr(one, what)(targets, logits) for one in (tempered, likelihood))
        np.testing.assert_allclose(ours * temperature, theirs, rtol=1e-12)
    ours, theirs = (one.curvature(targets, logits) for one in (tempered, likelihood))
    assert type(ours) is type(theirs)
    if isinstance(ours, StructuredCurvature):
        assert ours.coupled == theirs.coupled
    v = jax.random.normal(jax.random.key(1), targets.shape)
    np.testing.assert_allclose(ours.matvec(v) * temperature, theirs.matvec(v), rtol=1e-12)
    root = ours.root_matvec(ours.root_transpose_matvec(v))
    np.testing.assert_allclose(root, ours.matvec(v), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ours.blocks * temperature, theirs.blocks, rtol=1e-12, atol=1e-14)


def test_temperatures_multiply_and_one_is_the_likelihood_itself():
    likelihood = Categorical()
    twice = likelihood.tempered(0.5).tempered(0.2)
    assert isinstance(twice, Tempered)
    assert twice.untempered is likelihood
    assert float(twice.temperature) == pytest.approx(0.1, rel=1e-15)
    assert likelihood.tempered(1) is likelihood
    assert likelihood.tempered(0.5).tempered(2.0) is likelihood


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf"), "cold", True])
def test_a_temperature_is_a_positive_number(wrong):
    with pytest.raises(ConfigurationError, match="the temperature must be"):
        Categorical().tempered(wrong)
    data = nb.datasets.load("iris").subset(jax.random.key(0), 20)
    with pytest.raises(ConfigurationError, match="the temperature must be"):
        nb.Study(data=data, prior=PRIOR, temperature=wrong)


def test_a_traced_temperature_is_refused():
    with pytest.raises(ConfigurationError, match="JAX is tracing it"):
        jax.grad(lambda t: Categorical().tempered(t).temperature)(0.5)


def test_another_temperature_does_not_recompile(programs):
    def fit(temperature):
        nb.Laplace().fit(PRIOR, THREE, likelihood=Categorical().tempered(temperature))

    fit(0.5)
    assert programs(lambda: fit(0.25)) == []


def test_real_networks_at_a_temperature_train_in_their_own_precision():
    method = nb.FiniteEnsemble(NETWORK, num_networks=2, training_time=0.5)
    tempered = method.fit(PRIOR_OF_NETWORK, THREE, key=KEY, likelihood=Categorical().tempered(0.5))
    slow = dataclasses.replace(method, training_time=1.0)
    plain = slow.fit(PRIOR_OF_NETWORK.with_ridge(0.5), THREE, key=KEY)
    assert jax.tree.leaves(tempered.g.functions.params)[0].dtype == jnp.float32
    np.testing.assert_allclose(tempered.sample(KEY, NEW), plain.sample(KEY, NEW), atol=2e-3)


# --- of predictions, and of the evidence ---------------------------------------------------------


def test_predictions_and_scores_are_of_the_likelihood_itself():
    likelihood = Categorical().tempered(COLD)
    law = nb.Laplace().fit(PRIOR, THREE, likelihood=likelihood)
    p = nb.predict(law, THREE, key=KEY, num_draws=50)
    np.testing.assert_allclose(
        p.probabilities, special.softmax(p.logits, axis=2).mean(axis=0), rtol=1e-12
    )
    density = log_predictive_density(law, THREE, key=KEY, num_draws=50)
    drawn = special.log_softmax(np.asarray(law.sample(KEY, THREE, 50)), axis=2)
    expected = np.log(np.mean(np.exp(np.sum(drawn * THREE.targets, axis=2)), axis=0))
    np.testing.assert_allclose(density, expected, rtol=1e-10)
    nll = nb.cross_validated_nll(
        nb.MAP(), PRIOR, THREE, key=KEY, num_folds=3, likelihood=likelihood
    )
    cooler = nb.NTKPrior(KERNEL, ridge=COLD)
    assert nll == pytest.approx(
        nb.cross_validated_nll(nb.MAP(), cooler, THREE, key=KEY, num_folds=3)
    )


def test_numbers_are_predicted_with_the_noise_itself():
    law = nb.Laplace().fit(PRIOR, REAL, likelihood=Normal(0.4).tempered(COLD))
    p = nb.predict(law, REAL, key=KEY)
    assert p.likelihood == Normal(0.4)
    variance = np.asarray(law.variance(REAL)) + 0.4**2
    expected = stats.norm.logpdf(REAL.targets, law.mean(REAL), variance**0.5)[:, 0]
    np.testing.assert_allclose(p.pointwise_elpd, expected, rtol=1e-8)


def test_a_point_left_out_takes_its_own_tempered_site_along():
    likelihood = Normal(0.4).tempered(COLD)
    law = nb.Laplace().fit(PRIOR, REAL, likelihood=likelihood)
    p = nb.predict(law, REAL, key=KEY, held_out=False)
    others = nb.Dataset.real(REAL.features[1:], REAL.targets[1:])
    refit = nb.Laplace().fit(PRIOR, others, likelihood=likelihood)
    variance = float(refit.variance(REAL.features[:1])[0, 0]) + 0.4**2
    expected = stats.norm.logpdf(
        REAL.targets[0, 0], float(refit.mean(REAL.features[:1])[0, 0]), variance**0.5
    )
    assert p.leave_one_out[0] == pytest.approx(expected, rel=1e-8)


def test_a_tempered_posterior_has_no_evidence_and_no_weights_for_leaving_out():
    likelihood, data = Bernoulli().tempered(COLD), points(1)
    for method in (nb.Laplace(), nb.Variational(), nb.ExpectationPropagation(), nb.DirichletGP()):
        info = method.fit(PRIOR, data, likelihood=likelihood).info
        assert np.isnan(getattr(info, "log_evidence", np.nan))
    law = sampled(2, COLD)
    assert not nb.predict(law, points(2), key=KEY, held_out=False).is_posterior
    assert "temperature 0.1" in law.kind.description
    assert law.kind == nb.NUTS.kind
    for refused in (
        lambda: nb.log_evidence(PRIOR, data, likelihood=likelihood),
        lambda: nb.bridge_evidence(law, key=KEY),
        lambda: nb.smc_evidence(nb.Laplace().fit(PRIOR, data, likelihood=likelihood), key=KEY),
        lambda: nb.full_bayes_evidence(
            PRIOR, data, {"ridge": LogNormal()}, key=KEY, likelihood=likelihood
        ),
        lambda: nb.RidgeByEvidence().choose(PRIOR, data, key=KEY, likelihood=likelihood),
        lambda: nb.maximise_evidence(PRIOR, data, over=("ridge",), likelihood=likelihood),
    ):
        with pytest.raises(ConfigurationError, match=r"at temperature 0\.1"):
            refused()
