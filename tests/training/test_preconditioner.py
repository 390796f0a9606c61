"""Preconditioners are the inverses that they stand for, written out with NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from ntkbayes.likelihood import Bernoulli, Categorical, Normal
from ntkbayes.linalg import (
    BlockCurvature,
    CurvedPairs,
    PairedPreconditioner,
    SharedGram,
    SharedPreconditioner,
)
from ntkbayes.training.conjugate_gradients import ConjugateGradients
from ntkbayes.training.linearised import train
from ntkbayes.training.objective import Objective

SIZE, CLASSES, RIDGE = 40, 4, 0.3
POINTS = np.random.default_rng(0).standard_normal((SIZE, 2))
NTK = np.exp(-np.sum((POINTS[:, None] - POINTS[None]) ** 2, axis=-1)) + 0.01 * np.eye(SIZE)
GRAM = SharedGram(jnp.asarray(NTK))
LABELS = np.random.default_rng(1).integers(CLASSES, size=SIZE)


def curvature(likelihood, num_outputs):
    logits = 2 * np.random.default_rng(6).standard_normal((SIZE, num_outputs))
    targets = np.eye(num_outputs)[LABELS % num_outputs] if num_outputs > 1 else LABELS[:, None] % 2
    return likelihood.curvature(jnp.asarray(targets, dtype=float), jnp.asarray(logits))


def preconditioner(likelihood, num_draws, found, ridge=RIDGE):
    return GRAM.preconditioner(
        jnp.asarray(ridge),
        found,
        is_flat=likelihood.is_flat,
        num_draws=num_draws,
        dtype=np.float64,
    )


def eigenvalues(found):
    """Those that a likelihood flat along 1 has, none below 3e-4 of the largest."""
    values = np.linalg.eigvalsh(np.asarray(found.blocks))[:, 1:]
    return np.maximum(values, 3e-4 * values.max())


def test_pairs_and_weights_are_eigenvalues_of_the_curvature_and_the_mean_of_the_rest():
    found = curvature(Categorical(), CLASSES)
    weights, pairs = CurvedPairs.split(found, is_flat=True)
    blocks = np.asarray(weights)[:, None, None] * np.eye(CLASSES)
    for point, direction in zip(np.array(pairs.points), np.array(pairs.directions), strict=True):
        blocks[point] += np.outer(direction, direction)
    kept = np.bincount(pairs.points, minlength=SIZE)
    assert kept.sum() == 0.75 * SIZE
    assert set(kept) >= {0, 1, 2}
    values, truth = np.linalg.eigvalsh(blocks), eigenvalues(found)
    for point, count in enumerate(kept):
        top, rest = truth[point, CLASSES - 1 - count :], truth[point, : CLASSES - 1 - count]
        np.testing.assert_allclose(values[point, CLASSES - count :], top, rtol=1e-10)
        np.testing.assert_allclose(values[point, : CLASSES - count], np.exp(np.log(rest).mean()))


def test_a_point_all_of_whose_directions_are_pairs_is_exact():
    probabilities = np.full((8, 3), [1 - 2e-6, 1e-6, 1e-6])
    probabilities[:3] = 1 / 3
    found = Categorical().curvature(jnp.asarray(probabilities), jnp.asarray(np.log(probabilities)))
    weights, pairs = CurvedPairs.split(found, is_flat=True)
    assert sorted(np.array(pairs.points)) == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(weights[:3], 1 / 3, rtol=1e-12)
    np.testing.assert_allclose(pairs.directions, 0, atol=1e-7)


def test_the_paired_step_is_the_inverse_by_woodbury():
    likelihood = Categorical()
    found = curvature(likelihood, CLASSES)
    paired = preconditioner(likelihood, 20, found)
    assert isinstance(paired, PairedPreconditioner)
    root = np.zeros((SIZE, CLASSES, len(paired.pairs.points)))
    for pair, point in enumerate(np.array(paired.pairs.points)):
        root[point, :, pair] = paired.pairs.directions[pair]
    root = root.reshape(SIZE * CLASSES, -1)
    prior = np.kron(NTK / RIDGE, np.eye(CLASSES))
    shared = np.kron(np.diag(paired.shared.weights), np.eye(CLASSES))
    covariance = np.linalg.inv(np.linalg.inv(prior) + shared + root @ root.T)

    gradients = np.random.default_rng(3).standard_normal((5, SIZE, CLASSES))
    gradients -= gradients.mean(axis=2, keepdims=True)
    v, z = paired.apply(jnp.asarray(gradients), likelihood.project)
    expected = (gradients.reshape(5, -1) @ covariance).reshape(gradients.shape)
    np.testing.assert_allclose(v, expected, atol=2e-4 * np.abs(expected).max())
    back = np.einsum("ij,sjc->sic", NTK / RIDGE, z)  # v = P z to float64, whatever the correction
    np.testing.assert_allclose(v, back, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("likelihood", "num_outputs", "num_draws"),
    [(Bernoulli(), 1, 20), (Categorical(), 2, 20), (Normal(0.5), 3, 1), (Normal(0.5), 3, 20)],
)
def test_where_a_point_has_one_eigenvalue_the_step_is_that_of_the_posterior_covariance(
    likelihood, num_outputs, num_draws
):
    found = curvature(likelihood, num_outputs)
    steps = preconditioner(likelihood, num_draws, found)
    blocks = np.zeros((SIZE, num_outputs, SIZE, num_outputs))
    blocks[np.arange(SIZE), :, np.arange(SIZE)] = found.blocks
    size = SIZE * num_outputs
    prior = np.kron(NTK / RIDGE, np.eye(num_outputs))
    covariance = np.linalg.inv(np.linalg.inv(prior) + blocks.reshape(size, size))
    raw = np.random.default_rng(4).standard_normal((2, SIZE, num_outputs))
    gradients = likelihood.project(jnp.asarray(raw))
    v, _ = steps.apply(jnp.asarray(gradients), likelihood.project)
    expected = (gradients.reshape(2, -1) @ covariance).reshape(gradients.shape)
    np.testing.assert_allclose(v, expected, rtol=1e-8, atol=1e-10)


def test_pairs_save_most_of_the_steps():
    likelihood = Categorical()
    targets = jnp.asarray(np.eye(CLASSES)[LABELS])
    zero = jnp.zeros_like(targets)
    objective = Objective(likelihood, GRAM, targets, 0.01)
    centre = train(objective, zero)
    initials = jnp.asarray(3 * np.random.default_rng(5).standard_normal((4, SIZE, CLASSES)))
    curvature_there = objective.curvature(centre.logits)
    counts = {}
    for num_draws, kind in ((1, SharedPreconditioner), (4, PairedPreconditioner)):
        steps = preconditioner(likelihood, num_draws, curvature_there, ridge=0.01)
        assert isinstance(steps, kind)
        solver = ConjugateGradients(1e-8)
        found = solver.restarted(objective, initials, jnp.zeros_like(initials), initials, steps)
        assert float(jnp.max(found.optimum.residual)) <= 1e-8
        assert found.shortfall(1e-8) <= 1
        counts[kind] = int(jnp.max(found.optimum.num_iterations))
    assert counts[PairedPreconditioner] <= 0.6 * counts[SharedPreconditioner]


def test_curvature_by_blocks_is_split_as_its_like():
    found = curvature(Categorical(), CLASSES)
    one = CurvedPairs.split(found, is_flat=True)
    other = CurvedPairs.split(BlockCurvature(found.blocks), is_flat=True)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-12)
    np.testing.assert_array_equal(one[1].points, other[1].points)
