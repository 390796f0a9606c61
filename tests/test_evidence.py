"""The log evidence, its gradient and maximum, and the choice between priors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle
from scipy.optimize import minimize_scalar

import ntkbayes as nb
from ntkbayes.errors import (
    ConfigurationError,
    ConvergenceError,
    FailedTrialWarning,
    GridEdgeWarning,
    RidgeError,
    SearchError,
    UnknownNameError,
)
from ntkbayes.laws import Problem
from ntkbayes.laws.wrappers.held_out import folds
from ntkbayes.likelihood import Categorical
from ntkbayes.linalg import CoupledGram, CoupledInverse, frugal
from ntkbayes.priors.hyperparameters import value_of, with_values
from ntkbayes.selection import evidence, evidence_gradient

KEY = jax.random.key(2)
EVERY = ("weight_std", "bias_std", "ridge", "mean")


def data_of(classes, count=16):
    features, labels = oracle.blobs(7, count, classes)
    labels = labels.copy()
    labels[:2] = (labels[:2] + 1) % classes  # mistaken labels, so that less than certainty is best
    return nb.Dataset(features, labels, class_names=range(classes))


def prior_of(classes, **settings):
    mean = 0.2 if classes == 2 else np.array([0.1, -0.2, 0.3])
    network = nb.networks.mlp(depth=1, activation="erf", weight_std=1.4, bias_std=0.6)
    return nb.NTKPrior(network, **{"ridge": 0.3, "mean": mean, **settings})


@pytest.mark.parametrize("classes", [2, 3])
def test_log_evidence_is_that_of_laplace(classes):
    prior, data = prior_of(classes), data_of(classes)
    laplace = nb.Laplace().fit(prior, data).info.log_evidence
    np.testing.assert_allclose(nb.log_evidence(prior, data), laplace, rtol=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_gradient_of_the_evidence_is_its_finite_difference(classes):
    prior, data = prior_of(classes), data_of(classes)
    gradient = evidence_gradient(prior, data, over=EVERY)
    for name in EVERY:
        value = np.array(value_of(prior, name))

        def at(place, step, name=name, value=value):
            moved = value.copy()
            moved[place] += step
            return nb.log_evidence(with_values(prior, {name: moved}), data)

        for place in np.ndindex(value.shape):
            h = 1e-3
            near, far = (at(place, k * h) - at(place, -k * h) for k in (1, 2))
            difference = (8 * near - far) / (12 * h)
            assert abs(difference) > 1e-3
            np.testing.assert_allclose(gradient[name][place], difference, rtol=1e-6)


def test_the_evidence_of_many_points_and_its_slope_in_the_ridge_are_those_of_laplace():
    prior, data = prior_of(2), data_of(2, 270)
    given = {"over": ("ridge",)}
    slope = float(evidence_gradient(prior, data, **given)["ridge"])
    ridge, step = float(prior.ridge), 1e-4

    def evidence(ridge):
        return nb.Laplace(tolerance=1e-9).fit(prior.with_ridge(ridge), data).info.log_evidence

    difference = (evidence(ridge + step) - evidence(ridge - step)) / (2 * step)
    assert slope == pytest.approx(difference, rel=1e-5)
    assert nb.log_evidence(prior, data) == pytest.approx(evidence(ridge), rel=1e-9)


def test_for_real_targets_the_evidence_is_the_density_of_the_targets_and_so_is_its_gradient():
    features, _ = oracle.blobs(7, 12, 2)
    values = np.sin(features[:, 0])
    data, prior = nb.Dataset.real(features, values), prior_of(2, mean=0.0)
    likelihood = nb.likelihood.Normal(0.4)
    theta = np.asarray(prior.gram(features).ntk)
    covariance = theta / 0.3 + 0.16 * np.eye(12)
    solved = np.linalg.solve(covariance, values)
    expected = -(values @ solved + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2
    found = nb.log_evidence(prior, data, likelihood=likelihood)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    slope = -theta / 0.3**2  # of the covariance in the ridge (R&W 5.9)
    by_hand = (solved @ slope @ solved - np.trace(np.linalg.solve(covariance, slope))) / 2
    gradient = evidence_gradient(prior, data, over=("ridge",), likelihood=likelihood)
    np.testing.assert_allclose(gradient["ridge"], by_hand, rtol=1e-9)


@pytest.fixture(scope="module")
def climbed():
    return nb.maximise_evidence(prior_of(2), data_of(2), over=("ridge", "mean"))


def test_at_the_maximum_of_the_evidence_its_slopes_vanish(climbed):
    gradient = evidence_gradient(climbed.prior, data_of(2), over=("ridge", "mean"))
    assert abs(gradient["ridge"] * climbed.values["ridge"]) < 1e-2
    assert abs(gradient["mean"]) < 1e-2
    assert climbed.log_evidence > nb.log_evidence(prior_of(2), data_of(2))
    np.testing.assert_allclose(nb.log_evidence(climbed.prior, data_of(2)), climbed.log_evidence)
    assert max(value for _, value in climbed.path) == climbed.log_evidence


def test_no_ridge_nearby_has_more_evidence_than_the_maximum(climbed):
    best = float(climbed.prior.ridge)
    for factor in (0.8, 1.25):
        beside = with_values(climbed.prior, {"ridge": best * factor})
        assert nb.log_evidence(beside, data_of(2)) < climbed.log_evidence


def test_an_evidence_without_a_maximum_in_the_range_is_an_error_that_says_so():
    with pytest.raises(SearchError, match=r"no maximum with ridge inside \(10\.0, 20\.0\)"):
        nb.maximise_evidence(
            prior_of(2, ridge=15.0), data_of(2), over=("ridge",), ranges={"ridge": (10.0, 20.0)}
        )


@pytest.mark.parametrize(
    ("name", "size", "evidence", "bias_std"),
    [
        ("moons", 24, -14.0557, 1.238),
        ("moons", 30, -15.1165, 1.371),
        ("wine", 30, -19.490, 0.995),
    ],
)
def test_the_default_climb_ends_where_the_slopes_vanish(name, size, evidence, bias_std):
    key = jax.random.key(0)
    data = nb.datasets.load(name).split(key)[0].subset(key, size)
    network = nb.networks.mlp(depth=2, weight_std=1.5, bias_std=0.3)
    climbed = nb.maximise_evidence(nb.NTKPrior(network, ridge=0.5), data)
    np.testing.assert_allclose(climbed.log_evidence, evidence, atol=1e-3)
    np.testing.assert_allclose(climbed.values["bias_std"], bias_std, rtol=1e-2)


class Bounded(nb.kernels.Kernel):
    """A kernel of a variance, without numbers beyond `largest`, its slopes multiplied by `sign`."""

    variance: jax.Array
    largest: jax.Array
    sign: jax.Array

    def cross(self, x1, x2):
        fixed = jax.lax.stop_gradient(self.variance)
        variance = fixed + self.sign * (self.variance - fixed)
        distances = jnp.sum((x1[:, None] - x2[None]) ** 2, axis=2)
        block = jnp.where(variance > self.largest, jnp.nan, variance) * jnp.exp(-distances / 2)
        return nb.kernels.KernelPair(block, block)

    def diagonal(self, x):
        variance = jnp.broadcast_to(self.variance, len(x))
        return nb.kernels.KernelPair(variance, variance)


def climb_of_variance(largest, sign=1.0, start=1e-3, **settings):
    kernel = Bounded(*map(jnp.asarray, (start, largest, sign)))
    ranges = {"variance": (1e-6, 1e6)}
    prior = nb.NTKPrior(kernel, ridge=1.0)
    return nb.maximise_evidence(prior, data_of(2), over=("variance",), ranges=ranges, **settings)


@pytest.fixture(scope="module")
def free():
    return climb_of_variance(1e9)


def test_a_trial_whose_mode_is_not_found_is_stepped_back_from(free):
    best = float(free.values["variance"])
    assert max(float(values["variance"]) for values, _ in free.path) > 1.2 * best
    bound = climb_of_variance(1.2 * best)
    assert any(value == -np.inf for _, value in bound.path)
    np.testing.assert_allclose(bound.log_evidence, free.log_evidence, rtol=1e-8)
    np.testing.assert_allclose(bound.values["variance"], best, rtol=1e-2)


def best_of(error, why):
    best = error.value.best
    assert re.search(why, str(error.value))
    assert best.log_evidence == max(value for _, value in best.path) > -np.inf
    assert float(best.prior.kernel.variance) == float(best.values["variance"])
    return best


def test_a_climb_towards_values_without_mode_is_an_error_that_holds_the_best(free):
    largest = float(free.values["variance"]) / 2
    with pytest.raises(SearchError) as error:
        climb_of_variance(largest)
    best = best_of(error, "still grows towards values where the mode was not found")
    np.testing.assert_allclose(best.values["variance"], largest, rtol=1e-2)


def test_a_climb_whose_slopes_mislead_is_no_success():
    with pytest.raises(SearchError) as error:
        climb_of_variance(1e9, sign=-1.0, start=0.1)
    best_of(error, "stopped at slopes of")


def test_a_climb_without_evaluations_left_is_an_error_that_holds_the_best():
    with pytest.raises(SearchError) as error:
        climb_of_variance(1e9, max_evaluations=4)
    assert len(best_of(error, "no more max_evaluations").path) == 4


def test_the_ridge_of_a_linearised_network_is_found_from_afar():
    """The first step leads to ridges at which the mode may not be found. For real targets the evidence
    is a closed form (R&W 2.30)."""
    rng = np.random.default_rng(0)
    features = rng.uniform(-3, 3, (150, 1))
    values = np.sin(2 * features[:, 0]) + 0.2 * rng.standard_normal(150)
    network = nb.networks.mlp(depth=1, activation="tanh", width=50)
    kernel = nb.kernels.EmpiricalKernel(network, network.init(KEY, jnp.asarray(features)))
    prior = nb.NTKPrior(kernel, ridge=1.0)
    climbed = nb.maximise_evidence(
        prior,
        nb.Dataset.real(features, values),
        over=("ridge",),
        likelihood=nb.likelihood.Normal(0.2),
    )
    theta = np.asarray(prior.gram(features).ntk)

    def loss(log_ridge):
        covariance = theta / np.exp(log_ridge) + 0.04 * np.eye(150)
        misfit = values @ np.linalg.solve(covariance, values)
        return (misfit + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2

    truth = minimize_scalar(loss, bounds=(-9, 2), method="bounded", options={"xatol": 1e-6})
    np.testing.assert_allclose(climbed.log_evidence, -truth.fun, rtol=1e-8)
    np.testing.assert_allclose(climbed.values["ridge"], np.exp(truth.x), rtol=1e-2)


@pytest.mark.parametrize(
    ("prior", "settings", "error", "message"),
    [
        (prior_of(2), {"over": ()}, ConfigurationError, "names no hyper-parameter"),
        (prior_of(2), {"over": ("depth",)}, UnknownNameError, "hyper-parameter 'depth'"),
        (prior_of(2), {"ranges": {"ridge": (1.0, 2.0)}}, ConfigurationError, "outside its range"),
        (prior_of(2), {"ranges": {"ridge": (2.0, 1.0)}}, ConfigurationError, "range of ridge"),
        (prior_of(2, mean=lambda x: x[:, :1]), {"over": ("mean",)}, ConfigurationError, "function"),
        (prior_of(2, ridge=0.0), {}, RidgeError, "infinitely wide"),
    ],
)
def test_what_cannot_be_maximised_is_refused(prior, settings, error, message):
    with pytest.raises(error, match=message):
        nb.maximise_evidence(prior, data_of(2), **settings)


def test_a_kernel_without_scales_is_refused():
    kernel = nb.kernels.FunctionKernel(lambda a, b: a @ b.T)
    with pytest.raises(ConfigurationError, match="FunctionKernel has no weight_std"):
        evidence_gradient(nb.NTKPrior(kernel, ridge=1.0), data_of(2), over=("weight_std",))


# --- scans ----------------------------------------------------------------------------------------


def test_a_scan_returns_the_whole_curve_and_its_best(climbed):
    best = float(climbed.prior.ridge)
    ridges = (0.01 * best, best, 100 * best)
    priors = {(r, "erf"): with_values(climbed.prior, {"ridge": r}) for r in ridges}
    found = nb.scan(priors, data_of(2))
    assert found.best == (best, "erf")
    assert found.prior is priors[found.best]
    for label, prior in priors.items():
        assert found.scores[label] == nb.log_evidence(prior, data_of(2))


def test_a_best_value_at_the_edge_of_a_grid_warns():
    scores = {1: 0.0, 2: 1.0, 3: 2.0}
    priors = {depth: prior_of(2, ridge=float(depth)) for depth in scores}
    with pytest.warns(GridEdgeWarning, match="at 3, at the edge of \\[1, 2, 3\\]"):
        nb.scan(priors, data_of(2), score=lambda prior, data: scores[int(prior.ridge)])


def test_a_prior_without_score_does_not_lose_the_others():
    priors = {word: prior_of(2) for word in ("good", "bad", "worse")}

    def score(prior, data):
        if prior is priors["bad"]:
            raise ConvergenceError("no mode")
        return np.nan if prior is priors["worse"] else -5.0

    with pytest.warns(FailedTrialWarning) as told:
        found = nb.scan(priors, data_of(2), score=score)
    assert [str(w.message) for w in told] == [
        "'bad' has no score (ConvergenceError: no mode)",
        "'worse' has no score (ConvergenceError: its score is nan)",
    ]
    assert found.best == "good"
    assert found.scores == {"good": -5.0, "bad": -np.inf, "worse": -np.inf}
    assert set(found.failures) == {"bad", "worse"}


def test_a_scan_without_any_score_is_the_first_error():
    def score(prior, data):
        raise ConvergenceError(f"no mode at {prior.ridge}")

    priors = {ridge: prior_of(2, ridge=ridge) for ridge in (0.1, 0.2)}
    with pytest.raises(ConvergenceError, match=r"no mode at 0\.1"):
        nb.scan(priors, data_of(2), score=score)


def test_a_scan_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="at least one prior"):
        nb.scan({}, data_of(2))


# --- held out -------------------------------------------------------------------------------------


def test_cross_validated_nll_is_the_mean_over_folds_fitted_by_hand():
    prior, data, likelihood = prior_of(2), data_of(2), nb.likelihood.Bernoulli()
    found = nb.cross_validated_nll(nb.MAP(), prior, data, key=KEY, num_folds=4)
    fold = folds(Problem.build(prior, data, likelihood), jax.random.split(KEY, 3)[0], 4)
    terms = []
    for k in range(4):
        held = data.take(fold == k)
        logits = nb.MAP().fit(prior, data.take(fold != k)).mean(held.features)
        terms.append(likelihood.log_density(likelihood.encode(held), logits))
    np.testing.assert_allclose(found, -np.mean(np.concatenate(terms)), rtol=1e-10)


@pytest.mark.parametrize("classes", [2, 3])
def test_cross_validated_nll_of_soft_targets_is_the_nll_of_the_table(classes):
    soft, key = data_of(classes).smooth(0.4), jax.random.split(KEY, 3)
    found = nb.cross_validated_nll(nb.Laplace(), prior_of(classes), soft, key=KEY, num_folds=2)
    fold, terms = folds(Problem.build(prior_of(classes), soft, None), key[0], 2), []
    for k in range(2):
        held = soft.take(fold == k)
        law = nb.Laplace().fit(prior_of(classes), soft.take(fold != k))
        draws = law.sample(jax.random.fold_in(key[2], k), held.features)
        p = np.mean(law.problem.likelihood.probabilities(draws), axis=0)
        terms.append(nb.calibration.negative_log_likelihood(p, held.targets))
    np.testing.assert_allclose(found, np.mean(np.concatenate(terms)), rtol=1e-10)


@pytest.mark.parametrize("classes", [2, 3])
def test_leave_one_out_of_soft_targets_is_minus_the_cross_entropy_of_the_mean_prediction(classes):
    soft = data_of(classes).smooth(0.4)
    law = nb.Laplace().fit(prior_of(classes), soft)
    mean, covariance = (np.array(part) for part in law.leave_one_out())
    z = np.random.default_rng(0).standard_normal((200_000, mean.shape[1]))
    for i in range(3):
        logits = mean[i] + z @ np.linalg.cholesky(covariance[i]).T
        p = np.array(law.problem.likelihood.probabilities(jax.numpy.asarray(logits)))
        # To first order, the error of the sum is the mean of these.
        terms = p @ (soft.targets[i] / p.mean(axis=0))
        gap = nb.leave_one_out(law)[i] - soft.targets[i] @ np.log(p.mean(axis=0))
        # Several logits are averaged over 1024 nodes, whose own error is a few 1e-4.
        assert abs(gap) < 4.5 * terms.std() / np.sqrt(len(z)) + (0.0 if classes == 2 else 1e-3)


def test_every_class_is_spread_evenly_over_the_folds():
    data = data_of(3, 31)
    fold = folds(Problem.build(prior_of(3), data, None), KEY, 4)
    counts = np.array([np.bincount(fold[data.labels == c], minlength=4) for c in range(3)])
    assert np.ptp(counts, axis=1).max() <= 1
    assert np.ptp(np.bincount(fold)) <= 1


@pytest.mark.parametrize("num_folds", [1, 17])
def test_folds_outside_their_range_are_refused(num_folds):
    with pytest.raises(ConfigurationError, match=r"num_folds must be at least 2|2 to 16 folds"):
        nb.cross_validated_nll(nb.MAP(), prior_of(2), data_of(2), key=KEY, num_folds=num_folds)


def test_leave_one_out_of_a_law_that_has_none_is_refused():
    with pytest.raises(ConfigurationError, match="needs a Gaussian posterior, not PointLaw"):
        nb.leave_one_out(nb.MAP().fit(prior_of(2), data_of(2)))


def test_the_gradient_in_the_ridge_of_a_network_takes_less_memory_than_two_matrices():
    num_points, num_outputs = 400, 10
    matrix = jnp.zeros((4000, 4000))
    targets = jnp.zeros((num_points, num_outputs))
    inverse = CoupledInverse.build(matrix, Categorical().curvature(targets, targets))
    shapes = jax.eval_shape(inverse.explicit)
    inverse = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    prior = nb.NTKPrior(nb.networks.mlp(), ridge=0.1).traced()
    features = jnp.zeros((num_points, 2))

    def value_and_gradient(ridge, matrix, inverse):
        ntk = CoupledGram(matrix, num_outputs)
        objective = evidence.Evidence(prior, Categorical(), features, targets, {}, ntk)
        return jax.value_and_grad(evidence._evidence)(ridge, objective, targets, inverse)

    program = jax.jit(value_and_gradient, compiler_options=frugal._LEAST_MEMORY)
    given = {"ridge": jnp.asarray(0.1)}, matrix, inverse
    memory = program.lower(*given).compile().memory_analysis()
    assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 2 * matrix.nbytes


def test_the_evidence_without_a_gradient_factors_nothing_besides_the_inverse_at_the_mode():
    num_points, num_outputs = 8, 3
    targets = jnp.eye(num_outputs)[jnp.arange(num_points) % num_outputs]
    ntk = CoupledGram(jnp.eye(num_points * num_outputs), num_outputs)
    prior = nb.NTKPrior(nb.networks.mlp(), ridge=0.1).traced()
    features = jnp.zeros((num_points, 2))
    objective = evidence.Evidence(prior, Categorical(), features, targets, {}, ntk)
    inverse = ntk.curved(Categorical().curvature(targets, targets))

    def value(inverse):
        return jax.value_and_grad(evidence._evidence)({}, objective, targets, inverse)[0]

    program = jax.jit(value).lower(inverse).compile().as_text()
    assert "potrf" not in program
    assert "trsm" not in program
