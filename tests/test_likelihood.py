"""Likelihoods: derivatives are those of the log density, and nothing is clipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataError, RidgeError
from ntkbayes.likelihood import Bernoulli, Categorical, Normal, default_likelihood

LIKELIHOODS = {
    "categorical": (Categorical(), oracle.Softmax(), 3),
    "bernoulli": (Bernoulli(), oracle.Logistic(), 1),
    "normal": (Normal(0.7), oracle.Gaussian(0.7), 2),
}
each = pytest.mark.parametrize("name", LIKELIHOODS)


def logits_of(bound, width):
    return arrays(float, (2, width), elements=st.floats(-bound, bound))


def simplex(seed, count, size, likelihood):
    """Soft targets, their first row one-hot, as the likelihood encodes them."""
    rows = np.random.default_rng(seed).dirichlet(np.ones(max(size, 2)), count)
    rows[0] = np.eye(max(size, 2))[seed % max(size, 2)]
    return jnp.asarray(rows[:, 1:] if isinstance(likelihood, Bernoulli) else rows)


def summed(likelihood, targets):
    return lambda f: jnp.sum(likelihood.log_density(targets, f))


GRADIENTS = {
    name: jax.jit(lambda y, f, k=likelihood: jax.grad(summed(k, y))(f))
    for name, (likelihood, _, _) in LIKELIHOODS.items()
}
HESSIANS = {
    name: jax.jit(lambda y, f, k=likelihood: jax.hessian(summed(k, y))(f))
    for name, (likelihood, _, _) in LIKELIHOODS.items()
}


@each
@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 100))
def test_residual_is_the_gradient_and_curvature_minus_the_hessian(name, data, seed):
    likelihood, _, width = LIKELIHOODS[name]
    f = jnp.asarray(data.draw(logits_of(800, width)))
    targets = simplex(seed, 2, width, likelihood)
    gradient = GRADIENTS[name](targets, f)
    np.testing.assert_allclose(likelihood.residual(targets, f), gradient, rtol=1e-9, atol=1e-12)

    hessian = np.array(HESSIANS[name](targets, f)).reshape(f.size, f.size)
    curvature = likelihood.curvature(f)
    columns = jnp.eye(f.size).reshape(-1, *f.shape)
    dense = np.array(jax.vmap(curvature.matvec)(columns)).reshape(f.size, f.size)
    np.testing.assert_allclose(dense, -hessian, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(curvature.matrix_diagonal.ravel(), np.diag(dense), atol=1e-12)


@each
@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 100))
def test_everything_is_finite_and_equals_scipy_at_logits_of_800(name, data, seed):
    likelihood, truth, width = LIKELIHOODS[name]
    f = data.draw(logits_of(800, width))
    targets = simplex(seed, 2, width, likelihood)
    density = likelihood.log_density(targets, jnp.asarray(f))
    assert density.shape == (2,)
    assert bool(jnp.all(jnp.isfinite(density)))
    np.testing.assert_allclose(
        jnp.sum(density), truth.log_density(np.array(targets), f), rtol=1e-10
    )
    np.testing.assert_allclose(
        likelihood.residual(targets, jnp.asarray(f)),
        truth.residual(np.array(targets), f),
        rtol=1e-9,
        atol=1e-13,
    )
    assert bool(jnp.all(jnp.isfinite(likelihood.curvature(jnp.asarray(f)).diagonal)))


@pytest.mark.parametrize("name", ["categorical", "bernoulli"])
def test_a_certain_and_wrong_prediction_costs_its_logit(name):
    likelihood, _, width = LIKELIHOODS[name]
    targets = simplex(1, 1, width, likelihood)  # class 1 for sure
    wrong = jnp.zeros((1, width)).at[0, 0].set(700.0 if width > 1 else -700.0)
    assert float(likelihood.log_density(targets, wrong)[0]) == pytest.approx(-700, abs=1e-9)


def test_probabilities_are_not_clipped():
    tiny = Categorical().probabilities(jnp.asarray([[0.0, 0.0, 700.0]]))[0, 0]
    assert float(tiny) == pytest.approx(np.exp(-700.0), rel=1e-12)
    both = Bernoulli().probabilities(jnp.asarray([[-700.0], [700.0]]))
    np.testing.assert_allclose(both[0], [1.0, np.exp(-700.0)], rtol=1e-12)
    np.testing.assert_allclose(both[1], [np.exp(-700.0), 1.0], rtol=1e-12)
    curvature = Bernoulli().curvature(jnp.asarray([[60.0]])).diagonal
    assert float(curvature[0, 0]) == pytest.approx(np.exp(-60.0), rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(f=arrays(float, (3, 2), elements=st.floats(-400, 400)), seed=st.integers(0, 20))
def test_bernoulli_is_softmax_of_the_logit_difference(f, seed):
    targets = simplex(seed, 3, 2, Categorical())
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


@each
def test_the_interpolant_has_zero_residual_and_no_flat_part(name):
    likelihood, _, width = LIKELIHOODS[name]
    targets = simplex(3, 6, width, likelihood)[1:]
    goal = likelihood.interpolant(targets)
    np.testing.assert_allclose(likelihood.residual(targets, goal), 0, atol=1e-14)
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


@pytest.mark.parametrize(
    ("likelihood", "data", "message"),
    [
        (Bernoulli(), THREE, r"has two classes, the data have 3.*Categorical"),
        (Bernoulli(), REAL, "real targets"),
        (Categorical(), REAL, "real targets"),
        (Normal(), BINARY, r"Dataset\.real"),
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
