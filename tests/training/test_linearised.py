"""The trained predictor of a linearised network: THEORY 2, 3 and 4 (oracles 3 and 4)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import (
    ConfigurationError,
    ConvergenceError,
    NotPositiveDefiniteError,
    RidgeError,
)
from ntkbayes.likelihood import Bernoulli, Categorical, Normal
from ntkbayes.linalg import CoupledGram, SharedGram
from ntkbayes.training.conjugate_gradients import ConjugateGradients
from ntkbayes.training.flow import GradientFlow
from ntkbayes.training.linearised import EXACT_ROWS, solver_for, train
from ntkbayes.training.newton import Newton
from ntkbayes.training.objective import Objective

NETWORK = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.3)
COUNT = 16

KINDS = {
    "binary": (Bernoulli(), oracle.Logistic(), 2),
    "3 classes": (Categorical(), oracle.Softmax(), 3),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def ntk_of(features):
    return nb.NTKPrior(NETWORK, ridge=1.0).gram(jnp.asarray(features)).ntk


def encoded(likelihood, probabilities):
    columns = slice(1, None) if isinstance(likelihood, Bernoulli) else slice(None)
    return jnp.asarray(np.asarray(probabilities)[:, columns])


def problem(kind, smooth=0.0):
    likelihood, truth, classes = KINDS[kind]
    features, labels = oracle.blobs(3, COUNT, classes)
    one_hot = (1 - smooth) * np.eye(classes)[labels] + smooth / classes
    return likelihood, truth, ntk_of(features), encoded(likelihood, one_hot)


def initials(targets, draws, scale, seed=0):
    return scale * jax.random.normal(jax.random.key(seed), (draws, *targets.shape))


def mismatch(likelihood, ntk, targets, initial, alpha, ridge):
    """max |α − (Y − σ(f*)) / ridge|, with f* = f0 + Θ α computed here."""
    f = np.asarray(initial) + np.asarray(ntk @ jnp.asarray(alpha))
    r = jax.vmap(lambda f: likelihood.residual(targets, f))(
        jnp.asarray(f).reshape(-1, *targets.shape)
    )
    return np.abs(np.asarray(alpha).reshape(r.shape) - np.asarray(r) / ridge).max()


def draws(objective, starts, centre, **settings):
    """The trained predictors from many initial functions around a centre."""
    return solver_for(objective, centre=centre, **settings).solve(objective, starts)


# --- ridge > 0 -----------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_newton_equals_scipy(kind, ridge):
    likelihood, truth, ntk, targets = problem(kind)
    initial = initials(targets, 1, 1.0)[0]
    found = train(Objective(likelihood, ntk, targets, ridge), initial)
    a = oracle.map_weights(truth, np.array(ntk) / ridge, np.array(targets), np.array(initial))
    np.testing.assert_allclose(ridge * found.alpha, a, atol=1e-8)
    np.testing.assert_allclose(found.logits, initial + np.array(ntk) @ a / ridge, atol=1e-6)


@each_kind
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_newton_solves_the_fixed_point_of_theory_2(kind, ridge):
    likelihood, _, ntk, targets = problem(kind)
    initial = initials(targets, 1, 2.0)[0]
    found = train(Objective(likelihood, ntk, targets, ridge), initial)
    assert found.residual <= 1e-10
    np.testing.assert_allclose(found.logits, initial + ntk @ found.alpha, rtol=1e-12)
    assert mismatch(likelihood, ntk, targets, initial, found.alpha, ridge) <= 2e-10 / ridge


@each_kind
@pytest.mark.parametrize("ridge", [1e-3, 1e-2, 1.0])
def test_every_draw_solves_the_fixed_point_and_equals_newton(kind, ridge):
    likelihood, _, ntk, targets = problem(kind)
    starts = initials(targets, 12, 1.5)
    zero = jnp.zeros_like(targets)
    centre = train(Objective(likelihood, ntk, targets, ridge), zero)
    many = draws(Objective(likelihood, ntk, targets, ridge), starts, centre, tolerance=1e-8)
    assert float(jnp.max(many.residual)) <= 1e-8
    assert mismatch(likelihood, ntk, targets, starts, many.alpha, ridge) <= 2e-8 / ridge
    one_by_one = jnp.stack(
        [train(Objective(likelihood, ntk, targets, ridge), f0).alpha for f0 in starts]
    )
    np.testing.assert_allclose(ridge * many.alpha, ridge * one_by_one, atol=1e-6)


def test_draws_solved_in_blocks_equal_draws_solved_at_once():
    likelihood, _, ntk, targets = problem("3 classes")
    starts = initials(targets, 7, 1.0)
    objective = Objective(likelihood, ntk, targets, 0.1)
    centre = train(objective, jnp.zeros_like(targets))
    finished = []
    at_once = ConjugateGradients(centre=centre, progress=finished.append)
    in_blocks = dataclasses.replace(at_once, block_numbers=3 * targets.size, block_columns=0)
    whole, blocks = (solver.solve(objective, starts) for solver in (at_once, in_blocks))
    assert finished == [7, 3, 3, 1]
    assert blocks.alpha.shape == whole.alpha.shape
    np.testing.assert_allclose(blocks.alpha, whole.alpha, atol=1e-6)


def many_points(kind):
    """As many as take conjugate gradients instead of Newton's method."""
    likelihood, _, classes = KINDS[kind]
    features, labels = oracle.blobs(5, EXACT_ROWS + 1, classes)
    return likelihood, ntk_of(features), encoded(likelihood, np.eye(classes)[labels])


@each_kind
@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_conjugate_gradients_of_many_points_equal_newton(kind, ridge):
    likelihood, ntk, targets = many_points(kind)
    initial = initials(targets, 1, 2.0)
    objective = Objective(likelihood, ntk, targets, ridge)
    assert isinstance(solver_for(objective), ConjugateGradients)
    found, exact = (
        solver.solve(objective, initial)
        for solver in (solver_for(objective, tolerance=1e-9), Newton(1e-9))
    )
    assert found.num_iterations[0] > exact.num_iterations[0]  # another way, indeed
    assert max(found.residual[0], exact.residual[0]) <= 1e-10
    np.testing.assert_allclose(ridge * found.alpha, ridge * exact.alpha, atol=1e-7)


@pytest.mark.parametrize("float32_first", [True, False])
def test_a_kernel_without_a_factor_in_float32_is_solved_in_float64(float32_first, monkeypatch):
    """All inputs coincide: each logit moves by the same amount, and the share of ones is met."""
    many = "ntkbayes.training.conjugate_gradients._NARROW_ROWS"
    monkeypatch.setattr(many, 0 if float32_first else 10**9)
    likelihood, _, targets = many_points("binary")
    ones = SharedGram(jnp.ones((len(targets), len(targets))))
    objective = Objective(likelihood, ones, targets, 1e-7)
    start = jnp.linspace(-1, 1, targets.size).reshape(targets.shape)  # weights that round
    factor = objective.preconditioner(start, num_draws=1, dtype=jnp.float32).factor
    assert not jnp.isfinite(factor.log_determinant)
    found = train(objective, start)
    moved = found.logits - start
    np.testing.assert_allclose(moved, moved[0, 0], atol=1e-7)
    np.testing.assert_allclose(jax.nn.sigmoid(found.logits).mean(), targets.mean(), atol=2e-8)


def test_the_error_is_told_of_each_preconditioner_that_has_served():
    likelihood, ntk, targets = many_points("3 classes")
    told = []
    solver = solver_for(Objective(likelihood, ntk, targets, 0.1), watch=told.append)
    found = solver.solve(Objective(likelihood, ntk, targets, 0.1), initials(targets, 1, 2.0))
    assert len(told) == 3
    assert told[0] > told[1] > told[2] > 0
    assert told[2] <= found.logit_error[0]


@each_kind
def test_ways_to_the_optimum_in_float32_and_in_float64_end_there(kind, monkeypatch):
    likelihood, ntk, targets = many_points(kind)
    objective = Objective(likelihood, ntk, targets, 0.1)
    solver = solver_for(objective, tolerance=1e-8)
    found = []
    for rows in (0, 10**9):
        monkeypatch.setattr("ntkbayes.training.conjugate_gradients._NARROW_ROWS", rows)
        found.append(solver.solve(objective, initials(targets, 1, 2.0)))
    narrow, wide = found
    assert max(narrow.residual[0], wide.residual[0]) <= 1e-8
    np.testing.assert_allclose(0.1 * narrow.alpha, 0.1 * wide.alpha, atol=1e-7)


def coupled(ntk, size):
    """A kernel that mixes the outputs, more so from point to point."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((size, size))
    own = rng.standard_normal((len(ntk.matrix) * size, 3))
    matrix = np.kron(ntk.matrix, mixing @ mixing.T + np.eye(size)) + own @ own.T
    return CoupledGram(jnp.asarray(matrix), size)


@each_kind
@pytest.mark.parametrize("ridge", [1e-9, 1e-3, 1.0])
def test_a_large_coupled_kernel_has_the_optimum_of_newton_with_factors_in_float32(
    kind, ridge, monkeypatch
):
    """Where those do not reach the tolerance, one in float64 does."""
    monkeypatch.setattr("ntkbayes.training.conjugate_gradients._NARROW_ROWS", 0)
    likelihood, ntk, targets = many_points(kind)
    objective = Objective(likelihood, coupled(ntk, targets.shape[1]), targets, ridge)
    used, build = [], Objective.preconditioner

    def preconditioner(self, f, *, num_draws, dtype):
        used.append(np.dtype(dtype))
        return build(self, f, num_draws=num_draws, dtype=dtype)

    monkeypatch.setattr(Objective, "preconditioner", preconditioner)
    initial = initials(targets, 1, 2.0)
    found = solver_for(objective).solve(objective, initial)
    assert used[0] == np.float32
    assert (np.float64 in used) == (ridge < 1e-6)
    exact = Newton(1e-10).solve(objective, initial)
    moved = np.asarray(objective.gram @ found.alpha), np.asarray(objective.gram @ exact.alpha)
    assert np.abs(moved[0] - moved[1]).max() <= float(found.logit_error[0] + exact.logit_error[0])


@each_kind
def test_few_draws_that_share_one_factor_equal_each_alone(kind):
    likelihood, ntk, targets = many_points(kind)
    starts, zero = initials(targets, 3, 1.0), jnp.zeros_like(targets)
    centre = train(Objective(likelihood, ntk, targets, 0.1), zero)
    many = draws(Objective(likelihood, ntk, targets, 0.1), starts, centre, tolerance=1e-8)
    alone = [train(Objective(likelihood, ntk, targets, 0.1), f0) for f0 in starts]
    assert float(jnp.max(many.residual)) <= 1e-8
    for one, alpha in zip(alone, many.alpha, strict=True):
        np.testing.assert_allclose(0.1 * alpha, 0.1 * one.alpha, atol=1e-6)


@each_kind
def test_factors_in_float32_reach_the_tolerance_of_float64(kind):
    likelihood, ntk, targets = many_points(kind)
    starts, zero = initials(targets, 20, 1.0), jnp.zeros_like(targets)
    found = []
    for dtype in (jnp.float64, jnp.float32):
        settings = {"factor_dtype": dtype, "tolerance": 1e-9}
        objective = Objective(likelihood, ntk, targets, 0.1)
        centre = train(objective, zero, **settings)
        few = draws(objective, starts[:2], centre, **settings)
        many = draws(objective, starts, centre, **settings)
        assert centre.residual <= 1e-10
        assert float(jnp.max(few.residual)) <= 1e-8
        assert float(jnp.max(many.residual)) <= 1e-8
        # Newton's method, which finishes what conjugate gradients cannot, was not needed.
        assert centre.residual > 1e-13
        found.append((centre.alpha, few.alpha, many.alpha))
    for wide, narrow in zip(*found, strict=True):
        np.testing.assert_allclose(0.1 * narrow, 0.1 * wide, atol=1e-6)


def test_weights_of_softmax_sum_to_zero_over_classes():
    likelihood, _, ntk, targets = problem("3 classes")
    starts = initials(targets, 5, 3.0)
    zero = jnp.zeros_like(targets)
    centre = train(Objective(likelihood, ntk, targets, 0.01), zero)
    many = draws(Objective(likelihood, ntk, targets, 0.01), starts, centre)
    for alpha in (centre.alpha, many.alpha):
        assert float(jnp.max(jnp.abs(0.01 * jnp.sum(alpha, axis=-1)))) <= 3e-8


def test_full_newton_steps_cycle_for_ever_where_a_line_search_converges():
    # One point, f0 = -50, P = 1000: the flat likelihood sends f to 950, where it is flat again.
    targets, initial = jnp.ones((1, 1)), jnp.full((1, 1), -50.0)
    gram = SharedGram(jnp.full((1, 1), 1000.0))
    wrong = oracle.undamped_newton(
        oracle.Logistic(), np.array(gram), np.ones((1, 1)), np.array(initial), 100
    )
    np.testing.assert_allclose(wrong, 1.0, atol=1e-12)
    found = train(Objective(Bernoulli(), gram, targets, 1.0), initial)
    assert found.residual <= 1e-10
    # a = 1 - σ(-50 + 1000 a), by bisection.
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if middle < 1 / (1 + np.exp(-50 + 1000 * middle)) else (low, middle)
        )
    assert float(found.alpha[0, 0]) == pytest.approx(low, abs=1e-11)


@each_kind
def test_newton_converges_from_huge_initial_functions_where_full_steps_do_not(kind):
    likelihood, truth, ntk, targets = problem(kind)
    starts = initials(targets, 6, 50.0, seed=1)
    for initial in starts:
        found = train(Objective(likelihood, ntk, targets, 0.01), initial)
        assert found.residual <= 1e-10
        assert found.num_iterations <= 50
        full = oracle.undamped_newton(
            truth, np.array(ntk) / 0.01, np.array(targets), np.array(initial), 100
        )
        assert full[50:].min() > 1e-2  # no sign of convergence after 100 steps


@each_kind
def test_draws_converge_from_huge_initial_functions(kind):
    likelihood, _, ntk, targets = problem(kind)
    starts = initials(targets, 6, 50.0, seed=1)
    zero = jnp.zeros_like(targets)
    centre = train(Objective(likelihood, ntk, targets, 0.01), zero)
    many = draws(Objective(likelihood, ntk, targets, 0.01), starts, centre, tolerance=1e-8)
    assert float(jnp.max(many.residual)) <= 1e-8


def test_too_few_iterations_are_an_error():
    likelihood, _, ntk, targets = problem("3 classes")
    starts = initials(targets, 3, 2.0)
    zero = jnp.zeros_like(targets)
    with pytest.raises(
        ConvergenceError, match=r"Newton's method leaves logits off by up to .* after 1 iterations"
    ):
        Newton(max_iterations=1).solve(Objective(likelihood, ntk, targets, 0.01), zero[None])
    centre = train(Objective(likelihood, ntk, targets, 0.01), zero)
    with pytest.raises(ConvergenceError, match=r"training many draws leaves logits off"):
        ConjugateGradients(max_iterations=1, centre=centre).solve(
            Objective(likelihood, ntk, targets, 0.01), starts
        )


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_normal_likelihood_gives_kernel_ridge_regression(ridge):
    likelihood = Normal(0.5)
    features, _ = oracle.blobs(5, COUNT, 2)
    ntk = ntk_of(features)
    targets = initials(jnp.zeros((COUNT, 2)), 1, 1.0, seed=2)[0]
    starts = initials(targets, 4, 1.0, seed=3)
    zero = jnp.zeros_like(targets)
    centre = train(Objective(likelihood, ntk, targets, ridge), zero)
    many = draws(Objective(likelihood, ntk, targets, ridge), starts, centre)
    noisy = np.array(ntk) + ridge * 0.25 * np.eye(COUNT)
    np.testing.assert_allclose(centre.alpha, np.linalg.solve(noisy, targets), rtol=1e-7, atol=1e-9)
    for f0, alpha in zip(starts, many.alpha, strict=True):
        np.testing.assert_allclose(
            alpha, np.linalg.solve(noisy, targets - f0), rtol=1e-5, atol=1e-6
        )


# Shapes are fixed so that everything is compiled once.
@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(list(KINDS)),
    ridge_exponent=st.floats(-4, 4),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 10.0, 50.0, 1e3]),
    minority=st.integers(0, COUNT // 2),
    copies=st.integers(1, 4),
    smooth=st.sampled_from([0.0, 1e-3, 0.3]),
    seed=st.integers(0, 1000),
)
def test_training_always_reaches_its_tolerance(
    kind, ridge_exponent, scale, minority, copies, smooth, seed
):
    likelihood, _, classes = KINDS[kind]
    rng = np.random.default_rng(seed)
    features = np.repeat(rng.standard_normal((COUNT, 2)), copies, axis=0)[:COUNT]
    labels = np.zeros(COUNT, dtype=int)
    labels[:minority] = rng.integers(0, classes, minority)
    probabilities = (1 - smooth) * np.eye(classes)[labels] + smooth / classes
    targets = encoded(likelihood, probabilities)
    starts = initials(targets, 4, scale, seed)
    ntk, ridge, zero = ntk_of(features), 10.0**ridge_exponent, jnp.zeros_like(targets)

    centre = train(Objective(likelihood, ntk, targets, ridge), zero)
    alone = train(Objective(likelihood, ntk, targets, ridge), starts[0])
    many = draws(Objective(likelihood, ntk, targets, ridge), starts, centre, tolerance=1e-9)
    assert max(centre.residual, alone.residual / max(1.0, scale)) <= 1e-10
    moved = jnp.sqrt(jnp.mean((ntk @ many.alpha) ** 2, axis=(1, 2)))
    assert jnp.all(many.logit_error <= 1e-9 * jnp.maximum(moved, likelihood.unit))
    assert jnp.all(many.residual <= 1e-8 * jnp.maximum(moved, 1.0))
    # ... which the solver does not only say.
    round_off = 1e-14 * float(jnp.max(jnp.abs(ntk.dense()))) * COUNT / ridge
    found = mismatch(likelihood, ntk, targets, starts, many.alpha, ridge)
    assert found * ridge <= 1.1e-8 * max(1.0, float(jnp.max(moved))) + round_off


# --- ridge = 0 -----------------------------------------------------------------------------------


def test_without_ridge_training_is_the_closed_form_of_theory_3():
    likelihood, _, ntk, targets = problem("3 classes", smooth=0.2)
    starts = initials(targets, 4, 1.5)
    zero = jnp.zeros_like(targets)
    centre = train(Objective(likelihood, ntk, targets, 0.0), zero)
    many = draws(Objective(likelihood, ntk, targets, 0.0), starts, centre)
    assert centre.num_iterations == 0
    for f0, alpha in zip([zero, *starts], [centre.alpha, *many.alpha], strict=True):
        dense = oracle.ridgeless_weights(np.array(ntk), np.array(targets), np.array(f0))
        np.testing.assert_allclose(alpha, dense, rtol=1e-7, atol=1e-7)
        # The shared kernel's form: f* = log y − mean log y + mean f0.
        log_y = np.log(targets)
        expected = log_y - log_y.mean(1, keepdims=True) + np.mean(f0, axis=1, keepdims=True)
        np.testing.assert_allclose(f0 + ntk @ alpha, expected, atol=1e-8)
        np.testing.assert_allclose(alpha.sum(axis=1), 0, atol=1e-8)


@each_kind
def test_as_the_ridge_goes_to_zero_theory_2_becomes_theory_3_at_a_linear_rate(kind):
    likelihood, _, ntk, targets = problem(kind, smooth=0.3)
    initial = initials(targets, 1, 1.0)[0]
    limit = train(Objective(likelihood, ntk, targets, 0.0), initial).logits
    # A ridge is small where it is small against Θ's eigenvalues times the curvature.
    ridges = [1e-4, 1e-5, 1e-6]  # at the last one float64 reaches about 1e-9 of a logit
    gaps = [
        float(
            jnp.max(
                jnp.abs(
                    train(
                        Objective(likelihood, ntk, targets, ridge), initial, tolerance=1e-8
                    ).logits
                    - limit
                )
            )
        )
        for ridge in ridges
    ]
    assert gaps[-1] < 1e-3
    np.testing.assert_allclose(np.diff(np.log10(gaps)), -1, atol=0.1)


@each_kind
def test_without_ridge_one_hot_targets_are_refused(kind):
    likelihood, _, ntk, targets = problem(kind)
    zero = jnp.zeros_like(targets)
    with pytest.raises(RidgeError, match="smooth the targets"):
        train(Objective(likelihood, ntk, targets, 0.0), zero)


def test_without_ridge_a_singular_kernel_is_an_error_of_convergence():
    # Two copies of a point with different targets cannot both be met.
    likelihood, _, _, targets = problem("3 classes", smooth=0.2)
    features = np.repeat(oracle.blobs(3, COUNT // 2, 2)[0], 2, axis=0)
    zero = jnp.zeros_like(targets)
    with pytest.raises((ConvergenceError, NotPositiveDefiniteError)):
        train(Objective(likelihood, ntk_of(features), targets, 0.0), zero)


# --- finite time ---------------------------------------------------------------------------------


@each_kind
def test_at_time_zero_nothing_has_been_learnt(kind):
    likelihood, _, ntk, targets = problem(kind)
    starts = initials(targets, 2, 1.0)
    end = GradientFlow(0.0).solve(Objective(likelihood, ntk, targets, 0.1), starts)
    np.testing.assert_array_equal(end.alpha, 0)
    single = train(Objective(likelihood, ntk, targets, 0.1), starts[0], time=0.0, tolerance=1e-10)
    np.testing.assert_array_equal(single.logits, starts[0])


def test_one_initial_function_flows_as_it_does_among_many():
    likelihood, _, ntk, targets = problem("binary")
    given = (likelihood, ntk, targets)
    starts = initials(targets, 2, 1.0)
    many = GradientFlow(2.0).solve(Objective(*given, 0.1), starts)
    single = train(Objective(*given, 0.1), starts[0], time=2.0, tolerance=1e-10)
    np.testing.assert_allclose(single.logits, starts[0] + ntk @ many.alpha[0], atol=1e-6)


@each_kind
def test_at_large_time_the_flow_ends_in_the_ridge_solution(kind):
    likelihood, _, ntk, targets = problem(kind)
    starts = initials(targets, 2, 1.0)
    end = GradientFlow(1000.0).solve(Objective(likelihood, ntk, targets, 0.1), starts)
    for f0, alpha in zip(starts, end.alpha, strict=True):
        f = train(Objective(likelihood, ntk, targets, 0.1), f0).logits
        np.testing.assert_allclose(f0 + ntk @ alpha, f, atol=1e-6)


def test_at_large_time_the_flow_without_ridge_ends_in_the_closed_form():
    likelihood, _, ntk, targets = problem("3 classes", smooth=0.3)
    starts = initials(targets, 2, 1.0)
    end = GradientFlow(1e6).solve(Objective(likelihood, ntk, targets, 0.0), starts)
    for f0, alpha in zip(starts, end.alpha, strict=True):
        f = train(Objective(likelihood, ntk, targets, 0.0), f0).logits
        np.testing.assert_allclose(f0 + ntk @ alpha, f, atol=1e-5)


@each_kind
@pytest.mark.parametrize(("ridge", "time"), [(0.1, 0.03), (0.1, 2.0), (0.0, 20.0)])
def test_at_any_time_the_flow_equals_scipy(kind, ridge, time):
    likelihood, truth, ntk, targets = problem(kind)  # one-hot is fine: time is finite
    starts = initials(targets, 2, 1.0)
    end = GradientFlow(time).solve(Objective(likelihood, ntk, targets, ridge), starts)
    for f0, alpha in zip(starts, end.alpha, strict=True):
        f = oracle.flow(truth, np.array(ntk), np.array(targets), np.array(f0), ridge, time)
        np.testing.assert_allclose(f0 + ntk @ alpha, f, atol=1e-5)
    moving = jax.vmap(lambda f, a: likelihood.residual(targets, f) - ridge * a)(
        starts + ntk @ end.alpha, end.alpha
    )
    np.testing.assert_allclose(end.residual, jnp.max(jnp.abs(moving), axis=(1, 2)), rtol=1e-9)


def test_one_hot_logits_grow_as_the_logarithm_of_time_without_ridge():
    # One point, Θ = 1, one logit: df/dt = 1 − σ(f), so f + e^f = t + f0 + e^f0.
    one = jnp.ones((1, 1))
    for time in (1e2, 1e4, 1e6):
        end = GradientFlow(time).solve(
            Objective(Bernoulli(), SharedGram(one), one, 0.0), jnp.zeros((1, 1, 1))
        )
        f = float(end.alpha[0, 0, 0])
        assert f + np.exp(f) == pytest.approx(time + 1, rel=1e-5)


@each_kind
def test_explicit_and_implicit_steps_agree(kind):
    likelihood, _, ntk, targets = problem(kind)
    objective, starts = Objective(likelihood, ntk, targets, 0.1), initials(targets, 2, 1.0)
    flow = GradientFlow(3.0)
    explicit, implicit = (run(objective, starts)[0] for run in (flow.explicit, flow.implicit))
    np.testing.assert_allclose(explicit, implicit, atol=1e-6)


def test_a_flow_too_long_and_too_large_is_refused_before_it_starts():
    size = 20
    zeros = jnp.zeros((size, 2))
    objective = Objective(Categorical(), SharedGram(jnp.eye(size)), zeros, 0.1)
    with pytest.raises(ConfigurationError, match="infinite time"):
        GradientFlow(1e7, max_jacobian=2 * size - 1).solve(objective, zeros[None])


def test_newton_reaches_counts_whose_loss_grows_exponentially():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 2))
    counts = jnp.asarray(rng.poisson(100 * np.exp(features[:, :1])).astype(float))
    network = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5)
    gram = nb.NTKPrior(network, ridge=0.4).gram(features).ntk
    likelihood = nb.likelihood.Poisson()
    found = train(Objective(likelihood, gram, counts, 0.4), jnp.zeros((20, 1)))
    expected = oracle.map_weights(oracle.Counts(), np.array(gram) / 0.4, counts, np.zeros((20, 1)))
    np.testing.assert_allclose(found.alpha * 0.4, expected, rtol=1e-8, atol=1e-8)
