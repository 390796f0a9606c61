"""Predictions against their definitions, and probabilities from moments against Monte Carlo."""

import dataclasses

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle
from scipy import integrate, special, stats

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.likelihood import Bernoulli, Categorical, Ordinal, Poisson
from ntkbayes.predictions import (
    ClassPredictions,
    log_predictive_density,
    mean_field,
    predict,
    predict_probabilities,
    predictions_from_probabilities,
    probit,
    quadrature,
    replicates,
    surface,
)
from ntkbayes.predictions.pointwise import class_probabilities, log_probabilities

PRIOR = nb.NTKPrior(
    nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5), ridge=0.5
)
KEY = jax.random.key(0)
DRAWS = 1000  # what a law gives by default; one shape everywhere compiles once
METHODS = {"MAP": nb.MAP(), "Laplace": nb.Laplace()}
KINDS = {"binary": 2, "3 classes": 3}


def data_of(classes, *, seed=7, count=24):
    features, labels = oracle.blobs(seed, count, classes)
    return nb.Dataset(features, labels, class_names=range(classes))


TRAIN = {kind: data_of(classes) for kind, classes in KINDS.items()}
TEST = {kind: data_of(classes, seed=8, count=12) for kind, classes in KINDS.items()}


@pytest.fixture(scope="module")
def laws():
    return {
        (name, kind): method.fit(PRIOR, TRAIN[kind])
        for name, method in METHODS.items()
        for kind in KINDS
    }


@pytest.fixture(scope="module")
def predicted(laws):
    return {
        (name, kind): predict(law, TEST[kind], key=KEY, name=name)
        for (name, kind), law in laws.items()
    }


every_kind = pytest.mark.parametrize("kind", KINDS)


def by_hand(logits):
    """Class probabilities of logits (..., C)."""
    if logits.shape[-1] == 1:
        return np.concatenate([special.expit(-logits), special.expit(logits)], axis=-1)
    return special.softmax(logits, axis=-1)


def with_targets(predictions, targets):
    return dataclasses.replace(predictions, targets=np.asarray(targets, dtype=float))


def of_logits(logits, targets):
    """Predictions of given draws of the logits, (S, n, C)."""
    targets = np.asarray(targets, dtype=float)
    return ClassPredictions(
        name="made",
        targets=targets,
        class_names=tuple(range(targets.shape[1])),
        logits=logits,
        mean=logits.mean(axis=0),
        variance=logits.var(axis=0),
        point_probabilities=None,
        label_draws=np.zeros(logits.shape[:2], dtype=int),
        kind=nb.Laplace.kind,
    )


# --- definitions ---------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("name", METHODS)
def test_probabilities_are_the_mean_of_the_draws_probabilities(predicted, name, kind):
    found = predicted[name, kind]
    assert isinstance(found.likelihood, Bernoulli) == (kind == "binary")
    truth = by_hand(found.logits)
    np.testing.assert_allclose(found.probability_draws, truth, atol=1e-14)
    np.testing.assert_allclose(found.probabilities, truth.mean(axis=0), atol=1e-13)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-15)


def test_a_softmax_of_two_logits_is_told_from_one_logit():
    logits = np.random.default_rng(0).standard_normal((5, 3, 2))
    found = of_logits(logits, np.eye(2)[[0, 1, 0]])
    assert isinstance(found.likelihood, Categorical)
    np.testing.assert_allclose(found.probability_draws, by_hand(logits), atol=1e-14)


@every_kind
def test_draws_are_those_of_the_law_and_moments_its_own(laws, predicted, kind):
    law, found = laws["Laplace", kind], predicted["Laplace", kind]
    features = TEST[kind].features
    np.testing.assert_array_equal(found.mean, law.mean(features))
    np.testing.assert_array_equal(found.variance, law.variance(features))
    errors = (found.logits.mean(axis=0) - found.mean) / np.sqrt(found.variance / DRAWS)
    assert np.abs(errors).max() < 4.5
    assert found.kind == law.kind
    assert len(found.logits) == law.default_draws == DRAWS


@every_kind
def test_pointwise_elpd_is_the_log_of_the_mean_likelihood(predicted, kind):
    found = predicted["Laplace", kind]
    likelihood = np.sum(TEST[kind].targets * by_hand(found.logits), axis=2)
    np.testing.assert_allclose(found.log_likelihood, np.log(likelihood), atol=1e-12)
    np.testing.assert_allclose(found.pointwise_elpd, np.log(likelihood.mean(axis=0)), atol=1e-12)


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "soft"])
@every_kind
def test_nll_is_minus_the_mean_elpd(predicted, kind, soft):
    found = predicted["Laplace", kind]
    if soft:
        found = with_targets(found, np.random.default_rng(0).dirichlet(np.ones(KINDS[kind]), 12))
    nll = nb.calibration.negative_log_likelihood(found.probabilities, found.targets)
    np.testing.assert_allclose(nll, -found.pointwise_elpd, atol=1e-12)
    score = nb.calibration.scores(found.probabilities, found.targets, num_resamples=20, seed=0)
    assert score["nll"].value == pytest.approx(-found.pointwise_elpd.mean(), abs=1e-12)


@every_kind
def test_log_likelihood_of_soft_targets_is_minus_the_cross_entropy(predicted, kind):
    soft = np.random.default_rng(0).dirichlet(np.ones(KINDS[kind]), 12)
    found = with_targets(predicted["Laplace", kind], soft)
    truth = np.sum(soft * np.log(by_hand(found.logits)), axis=2)
    np.testing.assert_allclose(found.log_likelihood, truth, atol=1e-12)


@every_kind
def test_label_draws_follow_the_probabilities_of_their_own_draw(predicted, kind):
    found = predicted["Laplace", kind]
    p = found.probability_draws
    excess = np.eye(KINDS[kind])[found.label_draws] - p
    spread = np.sqrt(np.sum(p * (1 - p), axis=0))
    assert np.abs(excess.sum(axis=0) / spread).max() < 4.5
    # A label paired with another function's draw would not know its probability.
    centred = p - p.mean(axis=0)
    paired = np.sum(excess * centred, axis=0) / np.sqrt(np.sum(centred**2 * p * (1 - p), axis=0))
    assert np.abs(paired).max() < 4.5
    assert found.label_draws.shape == (DRAWS, 12)


@every_kind
def test_a_point_law_is_sure_of_its_function(predicted, kind):
    found = predicted["MAP", kind].uncertainty
    np.testing.assert_array_equal(found.epistemic, 0)
    np.testing.assert_allclose(found.total, found.aleatoric)
    assert np.all(found.total > 0)
    spread = predicted["Laplace", kind].uncertainty
    assert np.all(spread.epistemic > 1e-3)
    p = predicted["Laplace", kind].probabilities
    np.testing.assert_allclose(spread.total, stats.entropy(p, axis=1), atol=1e-12)


@every_kind
def test_the_same_key_gives_the_same_predictions_and_another_key_others(laws, kind):
    law = laws["Laplace", kind]
    first, again = (predict(law, TEST[kind], key=KEY, name="a") for _ in range(2))
    np.testing.assert_array_equal(first.logits, again.logits)
    np.testing.assert_array_equal(first.label_draws, again.label_draws)
    other = predict(law, TEST[kind], key=jax.random.key(1), name="a")
    assert np.all(first.logits != other.logits)
    assert np.any(first.label_draws != other.label_draws)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_saturated_logits_give_zeros_and_large_losses_not_nan(classes):
    logits = np.full((5, 2, classes), -800.0)
    logits[:, 0, 0] = 800.0
    targets = np.eye(max(2, classes))[[0, 0]]
    found = of_logits(logits, targets)
    assert np.all(np.isfinite(found.probabilities))
    if classes == 1:  # sure of class 1, then of class 0
        np.testing.assert_allclose(found.probabilities, [[0, 1], [1, 0]])
        np.testing.assert_allclose(found.pointwise_elpd, [-800, 0])
    else:  # sure of class 0, then equal logits
        np.testing.assert_allclose(found.probabilities[0], np.eye(classes)[0])
        np.testing.assert_allclose(found.pointwise_elpd, [0, -np.log(classes)], atol=1e-12)
        wrong = with_targets(found, np.eye(classes)[[1, 1]])
        assert wrong.pointwise_elpd[0] == pytest.approx(-1600)
    np.testing.assert_allclose(found.uncertainty.epistemic, 0, atol=1e-12)
    assert np.all(np.isfinite(found.uncertainty.total))


def test_draws_that_contradict_each_other_with_certainty_cost_log_two():
    logits = np.array([800.0, -800.0]).reshape(2, 1, 1)
    found = of_logits(logits, [[0.0, 1.0]])
    np.testing.assert_allclose(found.probabilities, [[0.5, 0.5]])
    np.testing.assert_allclose(found.pointwise_elpd, [-np.log(2)])
    np.testing.assert_allclose(found.uncertainty.epistemic, [np.log(2)])
    np.testing.assert_allclose(found.uncertainty.aleatoric, [0], atol=1e-12)


def test_centred_logits_are_what_softmax_sees(predicted):
    found = predicted["Laplace", "3 classes"]
    np.testing.assert_allclose(found.centred_logits.sum(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(by_hand(found.centred_logits), found.probability_draws, atol=1e-13)
    one = predicted["Laplace", "binary"]
    np.testing.assert_array_equal(one.centred_logits, one.logits)


# --- any likelihood ------------------------------------------------------------------------------

CUTS = (-0.5, 0.8)
COUNTS = nb.Dataset.real(TRAIN["binary"].features, np.arange(24) % 5)


@pytest.fixture(scope="module")
def ordinal():
    return nb.Laplace().fit(PRIOR, TRAIN["3 classes"], likelihood=Ordinal(CUTS))


@pytest.fixture(scope="module")
def poisson():
    return nb.Laplace().fit(PRIOR, COUNTS, likelihood=Poisson())


def test_predictions_of_ordered_classes_are_under_their_own_likelihood(ordinal):
    found = predict(ordinal, TEST["3 classes"], key=KEY, name="Laplace")
    assert found.logits.shape == (DRAWS, 12, 1)
    edges = special.expit(np.array([-np.inf, *CUTS, np.inf]) - found.logits)
    p = np.diff(edges, axis=2)
    np.testing.assert_allclose(found.probability_draws, p, atol=1e-14)
    labels = TEST["3 classes"].labels
    likelihood = p[:, np.arange(12), labels]
    np.testing.assert_allclose(found.log_likelihood, np.log(likelihood), atol=1e-11)
    np.testing.assert_allclose(found.pointwise_elpd, np.log(likelihood.mean(axis=0)), atol=1e-11)
    excess = np.eye(3)[found.label_draws] - p
    assert np.abs(excess.sum(axis=0) / np.sqrt(np.sum(p * (1 - p), axis=0))).max() < 4.5


def test_log_predictive_density_of_counts_is_the_log_of_their_mean_probability(poisson):
    logits = np.asarray(poisson.sample(KEY, COUNTS.features))[:, :, 0]
    truth = stats.poisson.pmf(COUNTS.targets[:, 0], np.exp(logits)).mean(axis=0)
    found = log_predictive_density(poisson, COUNTS, key=KEY)
    np.testing.assert_allclose(found, np.log(truth), atol=1e-12)


@every_kind
def test_log_predictive_density_of_soft_targets_is_minus_the_nll(laws, kind):
    soft = np.random.default_rng(0).dirichlet(np.ones(KINDS[kind]), 12)
    data = nb.Dataset(TEST[kind].features, soft, class_names=range(KINDS[kind]))
    mean = predict_probabilities(laws["Laplace", kind], data.features, key=KEY).mean(axis=0)
    found = log_predictive_density(laws["Laplace", kind], data, key=KEY)
    np.testing.assert_allclose(found, np.sum(soft * np.log(mean), axis=1), atol=1e-12)


@every_kind
def test_log_predictive_density_of_classes_is_the_elpd_of_the_same_draws(laws, predicted, kind):
    same, _ = jax.random.split(KEY)
    found = log_predictive_density(laws["Laplace", kind], TEST[kind], key=same)
    np.testing.assert_allclose(found, predicted["Laplace", kind].pointwise_elpd, atol=1e-13)


@every_kind
def test_predicted_probabilities_are_those_of_the_laws_draws(laws, kind):
    law, features = laws["Laplace", kind], TEST[kind].features
    truth = by_hand(np.asarray(law.sample(KEY, features)))
    found = predict_probabilities(law, features, key=KEY)
    np.testing.assert_allclose(found, truth, atol=1e-14)


def test_replicated_counts_have_the_moments_of_the_predictive(poisson):
    logits = np.asarray(poisson.sample(jax.random.split(KEY)[0], COUNTS.features))
    rates = np.exp(logits)
    found = replicates(poisson, COUNTS.features, key=KEY)
    assert found.shape == (DRAWS, 24, 1)
    # Given the rates of its own draw, each count is Poisson.
    errors = (found - rates).sum(axis=0) / np.sqrt(rates.sum(axis=0))
    assert np.abs(errors).max() < 4.5
    squared = ((found - rates) ** 2 - rates).sum(axis=0)
    assert np.abs(squared / np.sqrt((rates + 2 * rates**2).sum(axis=0))).max() < 4.5


@every_kind
def test_replicated_labels_follow_the_probabilities(laws, predicted, kind):
    found = replicates(laws["Laplace", kind], TEST[kind].features, key=KEY)
    p = predicted["Laplace", kind].probability_draws  # of the same functions
    p = p[:, :, 1:] if kind == "binary" else p
    assert np.abs((found - p).sum(axis=0) / np.sqrt((p * (1 - p)).sum(axis=0))).max() < 4.5
    assert set(np.unique(found)) == {0.0, 1.0}


def test_counts_beyond_float64_are_refused():
    law = nb.MAP().fit(PRIOR, COUNTS, likelihood=Poisson())
    law = dataclasses.replace(law, alpha=0 * law.alpha + 1e3)  # logits of thousands
    with pytest.raises(ConfigurationError, match=r"at the logit [\d.e+]+ targets are too large"):
        replicates(law, COUNTS.features, key=KEY)


def test_counts_have_no_class_probabilities(poisson):
    with pytest.raises(ConfigurationError, match=r"not Poisson; predict, log_predictive_density"):
        predict_probabilities(poisson, COUNTS.features, key=KEY)


def test_a_density_at_other_classes_is_refused(laws):
    with pytest.raises(ConfigurationError, match="with the same class_names"):
        log_predictive_density(laws["MAP", "binary"], TEST["3 classes"], key=KEY)


# --- refusals ------------------------------------------------------------------------------------


def test_a_surface_of_real_targets_is_refused():
    features = TRAIN["binary"].features
    data = nb.Dataset.real(features, features[:, 0])
    law = nb.MAP().fit(PRIOR, data)
    with pytest.raises(ConfigurationError, match="two features and classes"):
        surface(law, data, key=KEY)


def test_a_law_of_classes_refuses_real_targets(laws):
    data = nb.Dataset.real(TEST["binary"].features, np.ones(12))
    with pytest.raises(DataError, match="real targets"):
        predict(laws["MAP", "binary"], data, key=KEY, name="MAP")


@pytest.mark.parametrize(("fitted", "asked"), [("binary", "3 classes"), ("3 classes", "binary")])
def test_data_of_other_classes_are_refused(laws, fitted, asked):
    with pytest.raises(ConfigurationError, match="with the same class_names"):
        predict(laws["MAP", fitted], TEST[asked], key=KEY, name="MAP")


def test_data_with_classes_in_another_order_are_refused(laws):
    data = TEST["3 classes"]
    turned = nb.Dataset(data.features, data.targets, class_names=data.class_names[::-1])
    with pytest.raises(ConfigurationError, match="with the same class_names"):
        predict(laws["MAP", "3 classes"], turned, key=KEY, name="MAP")


def test_no_draws_are_refused(laws):
    with pytest.raises(ConfigurationError, match="at least 1"):
        predict(laws["MAP", "binary"], TEST["binary"], key=KEY, name="MAP", num_draws=0)


# --- probabilities alone -------------------------------------------------------------------------


def test_predictions_from_probabilities_are_those_probabilities():
    data = TEST["3 classes"]
    given = np.random.default_rng(1).dirichlet(np.ones(3), 12)
    given[0] = [0.0, 0.5, 0.5]
    found = predictions_from_probabilities("b", given, data, key=KEY, num_draws=4000)
    np.testing.assert_allclose(found.probabilities, given, atol=1e-15)
    truth = np.log(np.maximum(np.sum(data.targets * given, axis=1), 1e-300))
    truth = np.where(truth < -600, -np.inf, truth)
    np.testing.assert_allclose(found.pointwise_elpd, truth, atol=1e-12)
    np.testing.assert_array_equal(found.uncertainty.epistemic, 0)
    counts = np.eye(3)[found.label_draws].sum(axis=0)
    spread = np.sqrt(4000 * given * (1 - given))
    np.testing.assert_array_equal(counts[given == 0], 0)
    inside = given > 0
    assert np.abs((counts - 4000 * given)[inside] / spread[inside]).max() < 4.5


# --- the plane -----------------------------------------------------------------------------------


def nodes_of(found):
    return np.stack(np.meshgrid(found.x, found.y), axis=2)


def test_a_surface_holds_the_laws_probabilities_at_its_nodes(laws):
    train, law = TRAIN["3 classes"], laws["Laplace", "3 classes"]
    found = surface(law, train, key=KEY, resolution=12, num_draws=DRAWS)
    nodes = nodes_of(found)
    draws = by_hand(np.asarray(law.sample(KEY, nodes[3], DRAWS)))
    np.testing.assert_allclose(found.probabilities[3], draws.mean(axis=0), atol=1e-12)
    epistemic = nb.calibration.uncertainty(draws).epistemic
    np.testing.assert_allclose(found.epistemic[3], epistemic, atol=1e-12)
    # Other draws, of the nodes of a column at once, agree within Monte Carlo error.
    draws = by_hand(np.asarray(law.sample(jax.random.key(1), nodes[:, 8], DRAWS)))
    gaps = found.probabilities[:, 8] - draws.mean(axis=0)
    assert np.abs(gaps / np.sqrt(2 * draws.var(axis=0) / DRAWS)).max() < 4.5
    np.testing.assert_array_equal(found.features, train.features)
    np.testing.assert_array_equal(found.labels, train.labels)


def test_a_surface_reaches_half_a_range_beyond_the_points(laws):
    train = TRAIN["binary"]
    found = surface(laws["MAP", "binary"], train, key=KEY, resolution=12, num_draws=DRAWS)
    for axis, found_range in enumerate((found.x, found.y)):
        low, high = train.features[:, axis].min(), train.features[:, axis].max()
        assert found_range[0] == pytest.approx(low - (high - low) / 2)
        assert found_range[-1] == pytest.approx(high + (high - low) / 2)
        assert len(found_range) == 12
    np.testing.assert_allclose(found.epistemic, 0, atol=1e-14)
    logits = np.asarray(laws["MAP", "binary"].mean(nodes_of(found).reshape(-1, 2)))
    np.testing.assert_allclose(found.probabilities.reshape(-1, 2), by_hand(logits), atol=1e-12)


def test_a_surface_of_thirty_features_is_refused(laws):
    features = np.random.default_rng(0).standard_normal((10, 30))
    data = nb.Dataset(features, np.arange(10) % 2)
    with pytest.raises(ConfigurationError, match=r"two features.*the data have 30"):
        surface(laws["MAP", "binary"], data, key=KEY)


# --- probabilities from moments ------------------------------------------------------------------

MEANS = np.linspace(-6, 6, 13)
VARIANCES = (0.01, 0.3, 1.0, 3.0, 10.0, 25.0, 100.0)


def grid(variances):
    mean, variance = (a.ravel() for a in np.meshgrid(MEANS, variances))
    return mean, variance


def adaptive_quadrature(mean, variance):
    """E[σ(f)] by scipy's adaptive rule, split where the logit changes sign."""
    std = np.sqrt(variance)
    split = np.clip(-mean / std, -11, 11)

    def integrand(z):
        return special.expit(mean + std * z) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    options = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 200, "points": [split]}
    return integrate.quad(integrand, -12, 12, **options)[0]


def test_quadrature_equals_adaptive_quadrature():
    mean, variance = grid(VARIANCES)
    truth = [adaptive_quadrature(m, v) for m, v in zip(mean, variance, strict=True)]
    np.testing.assert_allclose(quadrature(mean, variance), truth, rtol=0, atol=1e-12)


def test_quadrature_equals_monte_carlo():
    mean, variance = grid((0.3, 3.0, 25.0))
    noise = np.random.default_rng(0).standard_normal((20_000, len(mean)))
    draws = special.expit(mean + np.sqrt(variance) * noise)
    errors = (quadrature(mean, variance) - draws.mean(0)) / (draws.std(0) / np.sqrt(20_000))
    assert np.abs(errors).max() < 4.5


def test_quadrature_of_huge_variance_is_the_chance_of_a_positive_logit():
    # The step of the logistic has the width 1 and no first moment: what is left is of order 1/variance.
    mean = np.array([-2e4, 0.0, 1.5e4])
    found = quadrature(mean, np.full(3, 1e8))
    np.testing.assert_allclose(found, stats.norm.cdf(mean / 1e4), atol=1e-8)


def test_probit_is_within_two_hundredths_of_quadrature():
    mean, variance = grid((0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 1e2, 1e4))
    gap = np.abs(probit(mean, variance) - quadrature(mean, variance))
    assert 0.01 < gap.max() < 0.02  # measured 0.018 where variances are large


def test_moments_without_variance_give_the_link_itself():
    logits = np.random.default_rng(3).normal(0, 3, (20, 3))
    one, none = logits[:, 0], np.zeros(20)
    np.testing.assert_allclose(quadrature(one, none), special.expit(one), atol=1e-14)
    np.testing.assert_allclose(probit(one, none), special.expit(one), atol=1e-14)
    found = mean_field(logits, np.zeros((20, 3, 3)))
    np.testing.assert_allclose(found, special.softmax(logits, axis=1), atol=1e-14)


def gaussians(classes, scale, *, count=100):
    """Random means and covariances with correlated classes."""
    rng = np.random.default_rng(classes)
    mean = 2 * rng.standard_normal((count, classes))
    root = scale * rng.standard_normal((count, classes, classes)) / np.sqrt(classes)
    return mean, root


# Measured over 200 Gaussians: worst 0.012, 0.094, 0.075 and mean 0.003, 0.010, 0.013 for variances of
# about 1; worst 0.018, 0.16, 0.15 for variances of about 4.
@pytest.mark.parametrize(
    ("classes", "scale", "worst", "average"),
    [
        (2, 1.0, 0.02, 0.005),
        (3, 0.5, 0.05, 0.006),
        (3, 1.0, 0.12, 0.015),
        (5, 1.0, 0.10, 0.02),
        (3, 2.0, 0.2, 0.035),
    ],
)
def test_mean_field_is_near_monte_carlo(classes, scale, worst, average):
    mean, root = gaussians(classes, scale)
    noise = np.random.default_rng(0).standard_normal((4000, 100, classes))
    draws = special.softmax(mean + np.einsum("ncd,snd->snc", root, noise), axis=2)
    gap = np.abs(mean_field(mean, root @ root.transpose(0, 2, 1)) - draws.mean(axis=0))
    assert gap.max() < worst
    assert gap.mean() < average


def test_mean_field_of_two_classes_is_probit_of_their_difference():
    mean, root = gaussians(2, 1.5)
    covariance = root @ root.transpose(0, 2, 1)
    spread = covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1]
    truth = probit(mean[:, 1] - mean[:, 0], spread)
    np.testing.assert_allclose(mean_field(mean, covariance)[:, 1], truth, atol=1e-13)


def test_mean_field_rows_lie_on_the_simplex():
    mean, root = gaussians(4, 3.0)
    found = mean_field(100 * mean, root @ root.transpose(0, 2, 1))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-14)
    assert found.min() >= 0


def test_mean_field_does_not_see_what_is_added_to_all_logits():
    mean, root = gaussians(3, 1.0)
    covariance = root @ root.transpose(0, 2, 1)
    found = mean_field(mean, covariance)
    shift = np.random.default_rng(1).normal(0, 5, (100, 1))
    np.testing.assert_allclose(mean_field(mean + shift, covariance), found, atol=1e-12)
    np.testing.assert_allclose(mean_field(mean, covariance + 7.0), found, atol=1e-12)


def test_moments_give_the_probabilities_that_a_laplace_law_samples(laws, predicted):
    law, found = laws["Laplace", "binary"], predicted["Laplace", "binary"]
    mean, variance = found.mean[:, 0], found.variance[:, 0]
    error = found.probability_draws[:, :, 1].std(axis=0) / np.sqrt(DRAWS)
    sampled = found.probabilities[:, 1]
    assert np.abs((quadrature(mean, variance) - sampled) / error).max() < 4.5
    assert np.all(np.abs(probit(mean, variance) - sampled) < 0.02 + 4.5 * error)

    law, found = laws["Laplace", "3 classes"], predicted["Laplace", "3 classes"]
    error = found.probability_draws.std(axis=0) / np.sqrt(DRAWS)
    shortcut = mean_field(found.mean, np.asarray(law.covariance(TEST["3 classes"].features)))
    assert np.all(np.abs(shortcut - found.probabilities) < 0.1 + 4.5 * error)
    assert np.abs(shortcut - found.probabilities).mean() < 0.05
    plugged = by_hand(found.mean)
    better = np.abs(shortcut - found.probabilities) - np.abs(plugged - found.probabilities)
    assert better.mean() < 0


def test_class_probabilities_of_any_number_of_draws_and_points_are_softmax_by_one_program(programs):
    rng = np.random.default_rng(0)
    likelihood = Categorical()

    def compared(num_draws, num_points):
        logits = rng.standard_normal((num_draws, num_points, 7))
        found = class_probabilities(likelihood, logits)
        np.testing.assert_allclose(found, special.softmax(logits, axis=2), rtol=1e-14)
        found = log_probabilities(likelihood, logits)
        np.testing.assert_allclose(found, special.log_softmax(logits, axis=2), rtol=1e-13)

    assert len(programs(lambda: compared(1, 1))) == 2
    for sizes in ((3, 0), (2, 40_000), (1, 16384), (1000, 17)):
        assert programs(lambda sizes=sizes: compared(*sizes)) == []
