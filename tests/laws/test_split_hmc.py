"""Trajectories of split HMC. Its stationary law is tested with that of NUTS, in `test_chains`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle
from scipy.stats import multivariate_normal

import ntkbayes as nb
from ntkbayes.laws.chains import reference as motion
from ntkbayes.laws.chains import split_hmc
from ntkbayes.laws.chains.sampler import Mode
from ntkbayes.likelihood import Categorical, Normal
from ntkbayes.linalg import CoupledBlock, SharedBlock

KEY = jax.random.key(5)
SIZES = (6, 3)  # points and classes
COUNT = jnp.asarray(20)


def posterior(coupled, likelihood):
    """A reference about some point f̂, and what it is made of: that point, L, the mean and P."""
    n, size = SIZES
    rng = np.random.default_rng(4)
    rows = n * size if coupled else n
    factor = rng.standard_normal((rows, rows))
    lower = np.linalg.cholesky(4 * factor @ factor.T / rows + 0.1 * np.eye(rows))
    gram = lower @ lower.T if coupled else oracle.spread(lower @ lower.T, size)
    targets = jnp.eye(size)[np.arange(n) % size]
    mean, whitened = rng.standard_normal((2, n, size))
    spread = lower if coupled else oracle.spread(lower, size)
    logits = mean + (spread @ whitened.ravel()).reshape(n, size)
    score = np.linalg.solve(gram, (logits - mean).ravel()).reshape(n, size)
    logits = jnp.asarray(logits)
    curvature = likelihood.curvature(targets, logits)
    mode = Mode(jnp.asarray(whitened), logits, jnp.asarray(score), curvature)
    kind = CoupledBlock(jnp.asarray(lower), size) if coupled else SharedBlock(jnp.asarray(lower))
    reference = split_hmc._reference(likelihood, targets, kind, mode)
    return reference, mode, kind, mean, gram


def energy(reference, covariance):
    """δᵀ S⁻¹ δ / 2, with S as a matrix."""
    return lambda v: np.ravel(v) @ np.linalg.solve(covariance, np.ravel(v)) / 2


def covariance_of(reference):
    """S over all logits, point by point."""
    found = np.array(reference.covariance)
    if found.ndim == 2:
        return found
    n, size = SIZES
    full = np.zeros((n, size, n, size))
    for c in range(size):
        full[:, c, :, c] = found[c]
    return full.reshape(n * size, n * size)


coupling = pytest.mark.parametrize("coupled", [False, True], ids=["shared", "coupled"])


@coupling
def test_reference_and_remainder_make_up_the_posterior(coupled):
    reference, _, _, mean, gram = posterior(coupled, Categorical())
    quadratic = energy(reference, covariance_of(reference))

    def exact(logits):
        prior = multivariate_normal(np.ravel(mean), gram).logpdf(np.ravel(logits))
        return -prior - oracle.Softmax().log_density(np.array(reference.targets), logits)

    centre = np.array(reference.logits)
    at_centre = float(reference.remainder(jnp.zeros(SIZES)))
    for scale in (0.3, 1.0, 4.0):
        position = scale * jax.random.normal(KEY, SIZES)
        gap = quadratic(position) + float(reference.remainder(position)) - at_centre
        assert gap == pytest.approx(exact(centre + position) - exact(centre), rel=1e-9)
        slope = jax.grad(reference.remainder)(position)
        np.testing.assert_allclose(reference.force(position), -slope, atol=1e-12)


@coupling
def test_the_reference_is_laplace_with_the_curvature_that_its_kernel_allows(coupled):
    reference, mode, _, _, gram = posterior(coupled, Categorical())
    n, size = SIZES
    blocks = np.array(mode.curvature.blocks)
    if not coupled:  # class by class
        blocks = np.stack([np.diag(np.diag(block)) for block in blocks])
    full = np.zeros((n, size, n, size))
    full[np.arange(n), :, np.arange(n)] = blocks
    precision = np.linalg.inv(gram) + full.reshape(n * size, n * size)
    np.testing.assert_allclose(covariance_of(reference) @ precision, np.eye(n * size), atol=1e-9)
    # Velocities have that covariance.
    units = jnp.eye(n * size).reshape(n * size, n, size)
    columns = np.array(motion.product(reference.roots, units)).reshape(n * size, -1)
    np.testing.assert_allclose(columns.T @ columns, covariance_of(reference), atol=1e-10)


def phase(reference):
    """Some (δ, v)."""
    return motion.product(reference.roots, jax.random.normal(KEY, (2, *SIZES)))


@coupling
def test_trajectories_know_the_energy_that_kicks_add_to_the_reference(coupled):
    reference, *_ = posterior(coupled, Categorical())
    quadratic = energy(reference, covariance_of(reference))
    start, velocity = phase(reference)
    given = (reference, start, velocity, jnp.asarray(0.3), COUNT)
    end, fast, gained = motion.trajectory(*given)
    change = quadratic(end) + quadratic(fast) - quadratic(start) - quadratic(velocity)
    assert abs(change) > 0.1  # so that there is something to see
    assert float(gained) == pytest.approx(change, rel=1e-9)


@coupling
def test_trajectories_are_reversible(coupled):
    reference, *_ = posterior(coupled, Categorical())
    start, velocity = phase(reference)
    step = jnp.asarray(0.3)
    end, fast, gained = motion.trajectory(reference, start, velocity, step, COUNT)
    back, slow, lost = motion.trajectory(reference, end, -fast, step, COUNT)
    np.testing.assert_allclose(back, start, atol=1e-10)
    np.testing.assert_allclose(slow, -velocity, atol=1e-10)
    assert float(lost) == pytest.approx(-float(gained), abs=1e-10)


def test_trajectories_keep_volume():
    reference, *_ = posterior(False, Categorical())

    def end(flat):
        position, velocity = flat.reshape(2, *SIZES)
        step = jnp.asarray(0.5)
        there, fast, _ = motion.trajectory(reference, position, velocity, step, jnp.asarray(4))
        return jnp.stack([there, fast]).ravel()

    derivative = jax.jacfwd(end)(phase(reference).ravel())
    assert np.linalg.det(derivative) == pytest.approx(1.0, rel=1e-9)


def test_the_energy_error_falls_as_the_square_of_the_step():
    reference, *_ = posterior(False, Categorical())
    start, velocity = phase(reference)

    def error(step, count):
        given = (start, velocity, jnp.asarray(step), jnp.asarray(count))
        end, _, gained = motion.trajectory(reference, *given)
        return float(reference.remainder(end) - reference.remainder(start) + gained)

    errors = np.array([error(2.0 / count, count) for count in (10, 20, 40)])
    np.testing.assert_allclose(errors[:-1] / errors[1:], 4.0, rtol=0.1)
    assert abs(errors[0]) > 1e-4


def test_a_normal_likelihood_leaves_nothing_to_kick():
    reference, *_ = posterior(False, Normal(0.7))
    start, velocity = phase(reference)
    given = (reference, start, velocity, jnp.asarray(0.25), jnp.asarray(8))
    # About its own mode: f̂ of these tests is no mode, so that the force there is constant.
    force = np.array(reference.force(jnp.zeros(SIZES)))
    np.testing.assert_allclose(reference.force(start), force, atol=1e-12)
    reference = dataclasses.replace(reference, score=reference.score + force)
    end, fast, gained = motion.trajectory(reference, *given[1:])
    np.testing.assert_allclose(end, np.cos(2) * start + np.sin(2) * velocity, atol=1e-12)
    np.testing.assert_allclose(fast, np.cos(2) * velocity - np.sin(2) * start, atol=1e-12)
    assert abs(float(gained)) < 1e-10


@coupling
def test_towards_the_reference_kicks_fade(coupled):
    reference, *_ = posterior(coupled, Categorical())
    start, velocity = phase(reference)
    whole = np.array(reference.force(start))
    half = dataclasses.replace(reference, power=jnp.asarray(0.5))
    np.testing.assert_allclose(half.force(start), whole / 2, rtol=1e-12)
    assert float(half.remainder(start)) == float(reference.remainder(start))
    gone = dataclasses.replace(reference, power=jnp.zeros(()))
    end, _, gained = motion.trajectory(gone, start, velocity, jnp.asarray(0.3), COUNT)
    np.testing.assert_allclose(end, np.cos(6) * start + np.sin(6) * velocity, atol=1e-12)
    assert float(gained) == 0.0


@coupling
def test_positions_are_whitened_by_the_prior(coupled):
    reference, mode, kind, mean, _ = posterior(coupled, Categorical())
    numbers = (jnp.asarray(0.8), jnp.asarray(1))
    sampler = split_hmc.SplitHMCSampler(reference, kind, mode.whitened, *numbers)
    positions = jax.random.normal(KEY, (2, 5, *SIZES))
    whitened = np.array(sampler.whitened(positions, KEY))
    lower = np.array(kind.matrix)
    spread = lower if coupled else oracle.spread(lower, SIZES[1])
    logits = mean + (whitened.reshape(10, -1) @ spread.T).reshape(positions.shape)
    np.testing.assert_allclose(logits, reference.logits[None, None] + positions, atol=1e-10)


def test_the_step_size_reaches_the_acceptance_asked_for():
    features, labels = oracle.blobs(7, 40, 3)
    data = nb.Dataset(features, labels, class_names=range(3))
    network = nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5)
    seen = []
    for target in (0.65, 0.9):
        method = split_hmc.SplitHMC(num_samples=1500, num_warmup=400, target_accept=target)
        info = method.fit(nb.NTKPrior(network, ridge=0.01), data, key=KEY).info
        assert info.mean_accept == pytest.approx(target, abs=0.06)
        assert info.mean_steps > 2
        seen.append(info.mean_step_size)
    assert seen[0] > seen[1]
