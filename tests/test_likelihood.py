"""Likelihoods: derivatives are those of the log density, and nothing is clipped."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import gp_classification as oracle
from scipy import special, stats

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataError, RidgeError
from ntkbayes.likelihood import (
    Bernoulli,
    Categorical,
    LogConcave,
    Normal,
    Ordinal,
    Poisson,
    default_likelihood,
)


def logistic(target, logits):
    return (target * logits - jax.nn.softplus(logits))[0]


def softmax(target, logits):
    return jnp.sum(target * jax.nn.log_softmax(logits))


CUTS = (-1.0, 0.5, 2.0)
OWN = LogConcave(logistic, num_logits=1, examples=[[0.0], [1.0]])
OWN_SOFTMAX = LogConcave(softmax, num_logits=3, examples=np.eye(3))
LIKELIHOODS = {
    "categorical": (Categorical(), oracle.Softmax(), 3),
    "bernoulli": (Bernoulli(), oracle.Logistic(), 1),
    "normal": (Normal(0.7), oracle.Gaussian(0.7), 2),
    "ordinal": (Ordinal(CUTS), oracle.CumulativeLogit(CUTS), 1),
    "poisson": (Poisson(), oracle.Counts(), 1),
    "own logistic": (OWN, oracle.Logistic(), 1),
    "own softmax": (OWN_SOFTMAX, oracle.Softmax(), 3),
}
FARTHEST = {"poisson": 700.0}  # exp(710) is beyond float64
each = pytest.mark.parametrize("name", LIKELIHOODS)


def logits_of(name):
    bound, width = FARTHEST.get(name, 800.0), LIKELIHOODS[name][2]
    return arrays(float, (2, width), elements=st.floats(-bound, bound))


def targets_of(likelihood, seed, count, size):
    """Targets as the likelihood encodes them: soft, their first row one-hot; counts; indices."""
    rng = np.random.default_rng(seed)
    if isinstance(likelihood, Poisson):
        return jnp.asarray(rng.poisson(5.0, (count, 1)).astype(float))
    if isinstance(likelihood, Ordinal):
        return jnp.asarray(rng.integers(4, size=(count, 1)).astype(float))
    rows = rng.dirichlet(np.ones(max(size, 2)), count)
    rows[0] = np.eye(max(size, 2))[seed % max(size, 2)]
    return jnp.asarray(rows[:, 1:] if size == 1 else rows)


def summed(likelihood, targets):
    return lambda f: jnp.sum(likelihood.log_density(targets, f))


CLOSED = [name for name in LIKELIHOODS if not name.startswith("own")]
GRADIENTS = {
    name: jax.jit(lambda y, f, k=LIKELIHOODS[name][0]: jax.grad(summed(k, y))(f)) for name in CLOSED
}
HESSIANS = {
    name: jax.jit(lambda y, f, k=LIKELIHOODS[name][0]: jax.hessian(summed(k, y))(f))
    for name in CLOSED
}


@eqx.filter_jit
def everything(likelihood, targets, f):
    """Log density, residual and the diagonal of the curvature."""
    curvature = likelihood.curvature(targets, f).matrix_diagonal
    return likelihood.log_density(targets, f), likelihood.residual(targets, f), curvature


@pytest.mark.parametrize("name", GRADIENTS)
@settings(deadline=None, max_examples=30)
@given(data=st.data(), seed=st.integers(0, 100))
def test_residual_is_the_gradient_and_curvature_minus_the_hessian(name, data, seed):
    likelihood, _, width = LIKELIHOODS[name]
    f = jnp.asarray(data.draw(logits_of(name)))
    targets = targets_of(likelihood, seed, 2, width)
    gradient = GRADIENTS[name](targets, f)
    np.testing.assert_allclose(likelihood.residual(targets, f), gradient, rtol=1e-9, atol=1e-12)

    hessian = np.array(HESSIANS[name](targets, f)).reshape(f.size, f.size)
    curvature = likelihood.curvature(targets, f)
    columns = jnp.eye(f.size).reshape(-1, *f.shape)
    dense = np.array(jax.vmap(curvature.matvec)(columns)).reshape(f.size, f.size)
    np.testing.assert_allclose(dense, -hessian, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(curvature.matrix_diagonal.ravel(), np.diag(dense), atol=1e-12)


@each
@settings(deadline=None, max_examples=25)
@given(data=st.data(), seed=st.integers(0, 100))
def test_everything_is_finite_and_equals_scipy_at_logits_of_800(name, data, seed):
    likelihood, truth, width = LIKELIHOODS[name]
    f = data.draw(logits_of(name))
    targets = targets_of(likelihood, seed, 2, width)
    density, residual, curvature = everything(likelihood, targets, jnp.asarray(f))
    assert density.shape == (2,)
    assert bool(jnp.all(jnp.isfinite(density)))
    targets = np.array(targets)
    total = truth.log_density(targets, f)
    # XLA takes what is below the smallest normal number for 0.
    np.testing.assert_allclose(jnp.sum(density), total, rtol=1e-10, atol=1e-307)
    np.testing.assert_allclose(residual, truth.residual(targets, f), rtol=1e-9, atol=1e-13)
    expected = np.diag(truth.curvature(targets, f)).reshape(f.shape)
    np.testing.assert_allclose(curvature, expected, rtol=1e-9, atol=1e-12)
    assert bool(jnp.all((curvature >= 0) & (curvature <= likelihood.curvature_bound)))


@pytest.mark.parametrize("name", ["categorical", "bernoulli"])
def test_a_certain_and_wrong_prediction_costs_its_logit(name):
    likelihood, _, width = LIKELIHOODS[name]
    targets = targets_of(likelihood, 1, 1, width)  # class 1 for sure
    wrong = jnp.zeros((1, width)).at[0, 0].set(700.0 if width > 1 else -700.0)
    assert float(likelihood.log_density(targets, wrong)[0]) == pytest.approx(-700, abs=1e-9)


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "ordinal"])
def test_targets_are_decoded_to_those_that_were_encoded(name):
    likelihood, _, width = LIKELIHOODS[name]
    encoded = targets_of(likelihood, 1, 5, width)
    decoded = likelihood.decode(encoded)
    np.testing.assert_allclose(decoded.sum(axis=1), 1, atol=1e-15)
    np.testing.assert_array_equal(likelihood.encode_classes(decoded), encoded)


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "ordinal"])
def test_log_probabilities_are_the_log_densities_of_labels(name):
    likelihood, _, width = LIKELIHOODS[name]
    logits = jnp.asarray(np.random.default_rng(0).uniform(-800, 800, (50, width)))
    found = likelihood.log_probabilities(logits)
    for c, one in enumerate(np.eye(found.shape[1])):
        encoded = likelihood.encode_classes(jnp.broadcast_to(jnp.asarray(one), found.shape))
        expected = likelihood.log_density(encoded, logits)
        np.testing.assert_allclose(found[:, c], expected, rtol=1e-12, atol=1e-12)
    assert float(jnp.min(found)) < -750  # where a probability is 0 in float64


def test_probabilities_are_not_clipped():
    tiny = Categorical().probabilities(jnp.asarray([[0.0, 0.0, 700.0]]))[0, 0]
    assert float(tiny) == pytest.approx(np.exp(-700.0), rel=1e-12)
    both = Bernoulli().probabilities(jnp.asarray([[-700.0], [700.0]]))
    np.testing.assert_allclose(both[0], [1.0, np.exp(-700.0)], rtol=1e-12)
    np.testing.assert_allclose(both[1], [np.exp(-700.0), 1.0], rtol=1e-12)
    curvature = Bernoulli().curvature(jnp.ones((1, 1)), jnp.asarray([[60.0]])).diagonal
    assert float(curvature[0, 0]) == pytest.approx(np.exp(-60.0), rel=1e-12)


@settings(deadline=None, max_examples=20)
@given(f=arrays(float, (3, 2), elements=st.floats(-400, 400)), seed=st.integers(0, 20))
def test_bernoulli_is_softmax_of_the_logit_difference(f, seed):
    targets = targets_of(Categorical(), seed, 3, 2)
    difference = jnp.asarray(f[:, 1:] - f[:, :1])
    f = jnp.asarray(f)
    np.testing.assert_allclose(
        Bernoulli().log_density(targets[:, 1:], difference),
        Categorical().log_density(targets, f),
        rtol=1e-9,
        atol=1e-11,
    )
    np.testing.assert_allclose(
        Bernoulli().probabilities(difference), Categorical().probabilities(f), rtol=1e-9, atol=1e-14
    )
    np.testing.assert_allclose(
        Bernoulli().residual(targets[:, 1:], difference)[:, 0],
        Categorical().residual(targets, f)[:, 1],
        atol=1e-12,
    )


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "normal", "ordinal", "poisson"])
def test_the_interpolant_has_zero_residual_and_no_flat_part(name):
    likelihood, _, width = LIKELIHOODS[name]
    targets = targets_of(likelihood, 3, 6, width)[1:]
    if name == "ordinal":
        targets = jnp.asarray([[1.0], [2.0], [1.0]])  # neither the first class nor the last
    goal = likelihood.interpolant(targets)
    np.testing.assert_allclose(likelihood.residual(targets, goal), 0, atol=3e-14)
    np.testing.assert_allclose(likelihood.project(goal), goal, atol=1e-14)


def test_categorical_projects_out_constants_which_it_cannot_see():
    f = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5, 3)))
    projected = Categorical().project(f)
    np.testing.assert_allclose(jnp.sum(projected, axis=-1), 0, atol=1e-14)
    np.testing.assert_allclose(
        Categorical().probabilities(projected), Categorical().probabilities(f), atol=1e-14
    )
    for other in (Bernoulli(), Normal()):
        np.testing.assert_array_equal(other.project(f), f)


@pytest.mark.parametrize(
    ("likelihood", "targets"),
    [
        (Categorical(), [[0.5, 0.5, 0.0]]),
        (Bernoulli(), [[0.0]]),
        (Bernoulli(), [[1.0]]),
    ],
)
def test_degenerate_targets_have_no_interpolant_and_the_error_says_what_to_do(likelihood, targets):
    with pytest.raises(RidgeError) as caught:
        likelihood.interpolant(jnp.asarray(targets))
    for word in ("ridge", "smooth", "training_time"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("likelihood", "target", "message"),
    [
        (Poisson(), 0.0, r"point 1, whose count is 0.*ridge > 0.*training_time"),
        (Ordinal(CUTS), 0.0, r"point 1, of the first or the last class.*ridge > 0.*training_time"),
        (Ordinal(CUTS), 3.0, "point 1"),
        (OWN, 0.5, "ridge > 0"),
    ],
)
def test_targets_that_no_finite_logit_reproduces_are_named(likelihood, target, message):
    kind = ConfigurationError if likelihood is OWN else RidgeError
    with pytest.raises(kind, match=message):
        likelihood.interpolant(jnp.asarray([[1.0], [target]]))


# --- ordered classes -----------------------------------------------------------------------------


def test_ordinal_probabilities_are_differences_of_logistic_functions():
    f = jnp.asarray([[0.3], [-4.0], [6.0]])
    edges = special.expit(np.concatenate([[-np.inf], CUTS, [np.inf]])[None] - np.asarray(f))
    np.testing.assert_allclose(Ordinal(CUTS).probabilities(f), np.diff(edges, axis=1), atol=1e-15)
    stack = Ordinal(CUTS).probabilities(jnp.stack([f, 2 * f]))
    np.testing.assert_allclose(stack[0], np.diff(edges, axis=1), atol=1e-15)
    np.testing.assert_allclose(jnp.sum(stack, axis=-1), 1, atol=1e-15)


def test_ordinal_tails_are_not_clipped():
    tail = Ordinal((0.0, 1.0)).probabilities(jnp.asarray([[-700.0]]))[0]
    expected = [1.0, np.exp(-700.0) * (1 - np.exp(-1.0)), np.exp(-701.0)]
    np.testing.assert_allclose(tail, expected, rtol=1e-12)


def test_two_ordered_classes_are_a_bernoulli_about_the_cutpoint():
    f, y = jnp.asarray([[0.2], [-3.0], [50.0]]), jnp.asarray([[1.0], [0.0], [0.0]])
    np.testing.assert_allclose(
        Ordinal([0.7]).log_density(y, f + 0.7), Bernoulli().log_density(y, f), rtol=1e-14
    )
    assert Ordinal([0.7]).curvature_bound == Bernoulli().curvature_bound


@pytest.mark.parametrize(
    "cuts", [[], [1.0, 1.0], [2.0, 1.0], [0.0, np.inf], [np.nan], [[0.0, 1.0]]]
)
def test_cutpoints_must_increase(cuts):
    with pytest.raises(ConfigurationError, match="cutpoints"):
        Ordinal(cuts)


# --- draws ---------------------------------------------------------------------------------------

MANY = 20_000


def z_scores(found, expected):
    return (found - expected) / np.sqrt(np.maximum(expected * (1 - expected), 1e-300) / MANY)


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "ordinal"])
def test_drawn_labels_have_their_probabilities(name):
    likelihood, _, width = LIKELIHOODS[name]
    f = jnp.asarray(np.random.default_rng(1).normal(0, 1.5, (3, width)))
    drawn = likelihood.sample(jax.random.key(2), jnp.broadcast_to(f[None], (MANY, 3, width)))
    p = np.asarray(likelihood.probabilities(f))
    labels = drawn.argmax(axis=2) if width > 1 else drawn[:, :, 0]
    frequency = np.stack([(labels == k).mean(axis=0) for k in range(p.shape[1])], axis=1)
    assert np.abs(z_scores(frequency, p)).max() < 4.5
    np.testing.assert_array_equal(
        drawn[0], likelihood.sample(jax.random.key(2), drawn * 0 + f[None])[0]
    )
    if width > 1:
        np.testing.assert_array_equal(drawn.sum(axis=2), 1)


# On both sides of the rate where the sampler changes.
RATES = np.array([0.3, 8.0, 290.0, 310.0, 1e4, 1e9])


def test_drawn_counts_are_poisson():
    f = jnp.asarray(np.log(RATES))[:, None]
    drawn = np.asarray(Poisson().sample(jax.random.key(0), jnp.broadcast_to(f[None], (MANY, 6, 1))))
    np.testing.assert_array_equal(drawn, np.round(drawn))
    for level in (0.02, 0.3, 0.5, 0.9, 0.99):
        law = stats.poisson(RATES)
        quantile = law.ppf(level)
        frequency = (drawn[:, :, 0] <= quantile).mean(axis=0)
        assert np.abs(z_scores(frequency, law.cdf(quantile))).max() < 4.5


def test_drawn_numbers_have_the_noise_added():
    f = jnp.broadcast_to(jnp.asarray([[1.0, -3.0]])[None], (MANY, 1, 2))
    noise = np.asarray(Normal(0.7).sample(jax.random.key(0), f) - f) / 0.7
    for level in (-2.0, -0.5, 0.0, 1.5):
        assert np.abs(z_scores((noise <= level).mean(axis=0), stats.norm.cdf(level))).max() < 4.5


# --- a user's own --------------------------------------------------------------------------------


def test_a_likelihood_of_ones_own_draws_by_its_own_function():
    def draw(key, logits):
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(float)

    own = LogConcave(logistic, num_logits=1, examples=[[1.0]], draw=draw)
    f = jnp.broadcast_to(jnp.asarray([[0.4], [-2.0]])[None], (MANY, 2, 1))
    frequency = np.asarray(own.sample(jax.random.key(1), f)).mean(axis=0)
    assert np.abs(z_scores(frequency, special.expit([[0.4], [-2.0]]))).max() < 4.5
    with pytest.raises(ConfigurationError, match="pass draw="):
        OWN.sample(jax.random.key(1), f)


def student(target, logits):
    return jax.scipy.stats.t.logpdf(target, 4.0, logits, 1.0)[0]


def absolute(target, logits):
    return jnp.abs(logits)[0]


def unstable(target, logits):
    return jnp.log(1 - jax.nn.sigmoid(logits))[0]


@pytest.mark.parametrize(
    ("density", "options", "message"),
    [
        (student, {}, r"not concave.*target \[0\.0\] and logits \[.*eigenvalue 0\.\d+ > 0"),
        (
            absolute,
            {},
            r"not concave.*target \[0\.0\].*halfway to \[.*below the mean of the two ends",
        ),
        (unstable, {}, r"target \[0\.0\].*the log density is -inf.*must be finite"),
        (lambda y, f: f, {}, "one float64 number"),
        (logistic, {"examples": [0.0]}, r"one column per logit; got shape \(1,\)"),
        (logistic, {"curvature_bound": 0.2}, "curvature_bound is 0.2, but a curvature of 0.25"),
        (logistic, {"curvature_bound": -1.0}, "must be positive; got -1"),
        (logistic, {"num_logits": 0}, "num_logits must be at least 1; got 0"),
    ],
)
def test_what_is_not_log_concave_is_refused_and_says_where(density, options, message):
    given = {"num_logits": 1, "examples": [[0.0]]} | options
    with pytest.raises(ConfigurationError, match=message):
        LogConcave(density, **given)


def test_concavity_is_checked_at_the_targets_of_the_data():
    # Concave for targets of 0 alone.
    own = LogConcave(lambda y, f: ((y - 0.5) * f**2)[0], num_logits=1, examples=[[0.0]])
    with pytest.raises(ConfigurationError, match=r"not concave.*target \[2\.0\]"):
        own.encode(REAL)


def test_a_curvature_without_known_bound_is_unbounded():
    assert OWN.curvature_bound == Poisson().curvature_bound == float("inf")
    assert LogConcave(logistic, num_logits=1, examples=[[0.0]], curvature_bound=0.25).bound == 0.25


def test_two_objects_of_one_function_share_a_compilation():
    traced = []

    @eqx.filter_jit
    def density(likelihood, y, f):
        traced.append(likelihood)
        return likelihood.log_density(y, f)

    y = f = jnp.zeros((2, 1))
    for own in (OWN, OWN, LogConcave(logistic, num_logits=1, examples=[[0.0], [1.0]])):
        np.testing.assert_allclose(density(own, y, f), -np.log(2))
    assert len(traced) == 1


# --- laws against dense numpy --------------------------------------------------------------------

PRIOR = nb.NTKPrior(
    nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5), ridge=0.4
)
KEY = jax.random.key(0)
BLOBS, LABELS = oracle.blobs(3, 12, 4)
NEW = np.array([[0.0, 0.0], [1.0, -1.0], [-1.5, 0.2], [4.0, 4.0]])
COUNTS = np.random.default_rng(5).poisson(np.exp(1 + BLOBS[:, 0])).astype(float)
FITTED = {
    "ordinal": nb.Dataset(BLOBS, LABELS, class_names=range(4)),
    "poisson": nb.Dataset.real(BLOBS, COUNTS),
    "own softmax": nb.Dataset(BLOBS, LABELS % 3),
}
one_logit = pytest.mark.parametrize("name", ["ordinal", "poisson"])


@one_logit
def test_map_and_laplace_are_the_dense_ones(name):
    likelihood, truth, _ = LIKELIHOODS[name]
    grams = [part / 0.4 for part in oracle.Kernels.of(PRIOR, BLOBS, NEW).ntk]
    targets = np.asarray(likelihood.encode(FITTED[name]))
    expected, evidence = oracle.laplace(truth, *grams, targets, np.zeros((12, 1)), np.zeros((4, 1)))
    law = nb.Laplace().fit(PRIOR, FITTED[name], likelihood=likelihood)
    np.testing.assert_allclose(law.mean(NEW), expected.mean, atol=1e-8)
    np.testing.assert_allclose(law.variance(NEW), expected.variance, atol=1e-8)
    assert law.info.log_evidence == pytest.approx(evidence, abs=1e-8)
    point = nb.MAP().fit(PRIOR, FITTED[name], likelihood=likelihood)
    np.testing.assert_allclose(point.mean(NEW), expected.mean, atol=1e-8)


@pytest.mark.parametrize("name", FITTED)
def test_every_draw_of_the_random_init_law_is_a_trained_predictor(name):
    likelihood, truth, _ = LIKELIHOODS[name]
    method = nb.RandomInit(num_inits=5, tolerance=1e-8)
    law = method.fit(PRIOR, FITTED[name], likelihood=likelihood, key=KEY)
    targets = np.asarray(likelihood.encode(FITTED[name]))
    gram = np.asarray(PRIOR.gram(BLOBS).ntk)
    for initial, alpha in zip(np.asarray(law.g.values), np.asarray(law.alpha), strict=True):
        f = initial + gram @ alpha
        np.testing.assert_allclose(0.4 * alpha, truth.residual(targets, f), atol=2e-8)


@one_logit
def test_the_first_order_law_is_the_dense_one(name):
    likelihood, truth, _ = LIKELIHOODS[name]
    law = nb.FirstOrder().fit(PRIOR, FITTED[name], likelihood=likelihood)
    kernels = oracle.Kernels.of(PRIOR, BLOBS, NEW)
    targets = np.asarray(likelihood.encode(FITTED[name]))
    zeros = np.zeros((12, 1)), np.zeros((4, 1))
    expected = oracle.first_order(truth, kernels, targets, *zeros, 0.4)
    np.testing.assert_allclose(law.mean(NEW), expected.mean, atol=1e-8)
    np.testing.assert_allclose(law.variance(NEW), expected.variance, atol=1e-8)


def test_the_first_order_law_refuses_what_couples_logits_in_its_own_way():
    with pytest.raises(ConfigurationError, match="does not take LogConcave"):
        nb.FirstOrder().fit(PRIOR, FITTED["own softmax"], likelihood=OWN_SOFTMAX)


def test_nuts_on_one_point_is_quadrature():
    one = FITTED["poisson"].take([1])
    law = nb.NUTS(num_samples=1000, num_warmup=200, num_chains=2).fit(
        PRIOR, one, likelihood=Poisson(), key=KEY
    )
    variance = float(PRIOR.gram(one.features).ntk.dense()[0, 0]) / 0.4
    mean, spread, _ = oracle.one_point_posterior(
        oracle.Counts(), variance, one.targets, np.zeros(1)
    )
    error = np.sqrt(spread[0, 0] / law.info.min_bulk_ess)
    assert abs(float(law.mean(one.features)[0, 0]) - mean[0]) < 4.5 * error
    ratio = float(law.variance(one.features)[0, 0]) / spread[0, 0]
    assert abs(ratio - 1) < 4.5 * np.sqrt(4 / law.info.min_bulk_ess)


@pytest.mark.parametrize(
    ("own", "known", "classes"), [(OWN, Bernoulli(), 2), (OWN_SOFTMAX, Categorical(), 3)]
)
def test_a_likelihood_of_ones_own_gives_the_laws_of_its_twin(own, known, classes):
    data = nb.Dataset(BLOBS, LABELS % classes)
    ours, theirs = (nb.Laplace().fit(PRIOR, data, likelihood=kind) for kind in (own, known))
    np.testing.assert_allclose(ours.mean(NEW), theirs.mean(NEW), atol=1e-8)
    np.testing.assert_allclose(ours.covariance(NEW), theirs.covariance(NEW), atol=1e-8)
    assert ours.info.log_evidence == pytest.approx(theirs.info.log_evidence, abs=1e-8)
    points = [nb.MAP().fit(PRIOR, data, likelihood=kind) for kind in (own, known)]
    np.testing.assert_allclose(points[0].mean(NEW), points[1].mean(NEW), atol=1e-8)


# --- encoding ------------------------------------------------------------------------------------

POINTS = np.arange(6.0).reshape(3, 2)
BINARY = nb.Dataset(POINTS, ["b", "a", "b"])
THREE = nb.Dataset(POINTS, [2, 0, 1])
REAL = nb.Dataset.real(POINTS, [0.5, -1.0, 2.0])


def test_bernoulli_takes_the_probability_of_the_second_class():
    np.testing.assert_array_equal(Bernoulli().encode(BINARY), [[1.0], [0.0], [1.0]])


def test_categorical_and_normal_take_the_targets_as_they_are():
    np.testing.assert_array_equal(Categorical().encode(THREE), THREE.targets)
    np.testing.assert_array_equal(Normal().encode(REAL), [[0.5], [-1.0], [2.0]])


def test_ordered_classes_are_encoded_by_their_index_and_counts_as_they_are():
    np.testing.assert_array_equal(Ordinal(CUTS[:2]).encode(THREE), [[2.0], [0.0], [1.0]])
    ordered = nb.Dataset(POINTS, ["high", "low", "high"], class_names=["low", "high"])
    np.testing.assert_array_equal(Ordinal([0.0]).encode(ordered), [[1.0], [0.0], [1.0]])
    counts = nb.Dataset.real(POINTS, [3, 0, 7])
    np.testing.assert_array_equal(Poisson().encode(counts), [[3.0], [0.0], [7.0]])
    np.testing.assert_array_equal(OWN.encode(BINARY), [[1.0], [0.0], [1.0]])


@pytest.mark.parametrize(
    ("likelihood", "data", "message"),
    [
        (Bernoulli(), THREE, r"has two classes, but the data have 3.*Categorical"),
        (Bernoulli(), REAL, "real targets"),
        (Categorical(), REAL, "real targets"),
        (Normal(), BINARY, r"Dataset\.real"),
        (Poisson(), BINARY, r"Dataset\.real"),
        (Poisson(), REAL, r"point 0 has 0\.5"),
        (Poisson(), nb.Dataset.real(POINTS, [3, 0, -2]), r"point 2 has -2\.0"),
        (Poisson(), nb.Dataset.real(POINTS, np.ones((3, 2))), "2 columns"),
        (Ordinal(CUTS), REAL, "real targets"),
        (Ordinal(CUTS), THREE, "3 cutpoints are for 4 classes, but the data have 3"),
        (Ordinal(CUTS[:2]), THREE.smooth(0.3), r"point 0 are the probabilities \[0\.\d+"),
        (OWN_SOFTMAX, BINARY, "3 logits, but the data have 2 columns"),
        (OWN, THREE, "1 logits, but the data have 3 columns"),
    ],
)
def test_data_of_another_kind_are_refused(likelihood, data, message):
    with pytest.raises(DataError, match=message):
        likelihood.encode(data)


def test_the_default_follows_the_data():
    assert isinstance(default_likelihood(BINARY), Bernoulli)
    assert isinstance(default_likelihood(THREE), Categorical)
    assert isinstance(default_likelihood(REAL), Normal)


@pytest.mark.parametrize("noise_std", [0.0, -1.0, float("nan")])
def test_noise_must_be_positive(noise_std):
    with pytest.raises(ConfigurationError, match="noise_std"):
        Normal(noise_std)
