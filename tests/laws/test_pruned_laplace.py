"""Laplace with a part of the curvature: what it is, and by how much its variances are too large."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import gp_classification as oracle
from scipy import linalg, special

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceError, DataError
from ntkbayes.laws.gaussian import pruned_laplace
from ntkbayes.linalg import SharedBlock, SharedInverse, StructuredCurvature, halves

RIDGE = 0.5
NETWORK = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.3)
PRIOR = nb.NTKPrior(NETWORK, ridge=RIDGE)
NEW = np.array([[0.0, 0.0], [1.0, -1.0], [-1.5, 0.2], [5.0, 5.0]])


def data_of(classes, count=30):
    return nb.Dataset(*oracle.blobs(2, count, classes), class_names=range(classes))


def lopsided():
    """Most points of one class, so that those of its points that it loses no other class keeps."""
    data = data_of(3, 60)
    chosen = np.concatenate([np.flatnonzero(data.labels == 0), np.flatnonzero(data.labels)[:6]])
    return data.take(chosen)


DATA = {
    "binary": (data_of(2), 0.6),
    "3 classes": (data_of(3), 0.6),
    "6 classes": (data_of(6), 0.4),
    "idle points": (lopsided(), 0.2),
}
every_problem = pytest.mark.parametrize("name", DATA)


def fitted(name):
    data, kept = DATA[name]
    return nb.PrunedLaplace(kept=kept).fit(PRIOR, data), nb.Laplace().fit(PRIOR, data)


def share(law, count):
    """Which (point, class) pairs are kept, by numpy."""
    f = np.array(law.logits)
    binary = f.shape[1] == 1
    scores = special.expit(f) * special.expit(-f) if binary else special.softmax(f, axis=1)
    rank = np.argsort(np.argsort(-scores, axis=0), axis=0)
    return rank < count, scores


def blocks_kept(is_kept, probabilities):
    """Of each point's diag(π) − π πᵀ the Schur complement of the classes that are not kept."""
    found = []
    for kept, p in zip(is_kept, probabilities, strict=True):
        whole = np.diag(p) - np.outer(p, p)
        block = np.zeros_like(whole)
        s, r = np.flatnonzero(kept), np.flatnonzero(~kept)
        if len(s):
            solved = np.linalg.solve(whole[np.ix_(r, r)], whole[np.ix_(r, s)])
            block[np.ix_(s, s)] = whole[np.ix_(s, s)] - whole[np.ix_(s, r)] @ solved
        found.append(block)
    return linalg.block_diag(*found)


@every_problem
def test_the_posterior_is_that_of_the_schur_complements_of_the_kept_classes(name):
    law, exact = fitted(name)
    data, kept = DATA[name]
    is_kept, scores = share(law, int(np.ceil(kept * data.num_points)))
    size = scores.shape[1]
    w = np.diag(np.where(is_kept, scores, 0).ravel())
    if size > 1:
        w = blocks_kept(is_kept, scores)
    gram, cross, own = (
        oracle.spread(part / RIDGE, size)
        for part in oracle.Kernels.of(PRIOR, data.features, NEW).ntk
    )
    covariance = own - cross.T @ np.linalg.solve(np.eye(len(w)) + w @ gram, w) @ cross
    np.testing.assert_array_equal(law.mean(NEW), exact.mean(NEW))
    np.testing.assert_allclose(law.covariance(NEW), oracle.blocks(covariance, size), atol=1e-9)
    np.testing.assert_allclose(law.joint_covariance(NEW), covariance, atol=1e-9)
    determinant = np.linalg.slogdet(np.eye(len(w)) + w @ gram)[1]
    np.testing.assert_allclose(law.inverse.log_determinant, determinant, atol=1e-9)
    assert (name in ("binary", "idle points")) == bool(np.any(~is_kept.any(axis=1)))


@every_problem
def test_the_excess_is_what_laplace_has_less(name):
    law, exact = fitted(name)
    for inputs in (NEW, DATA[name][0].features[:5]):
        wide, narrow = np.array(law.variance(inputs)), np.array(exact.variance(inputs))
        excess = np.array(law.variance_excess(inputs))
        np.testing.assert_allclose(wide - excess, narrow, rtol=1e-6)
        assert (excess > 0).all()
    with pytest.raises(DataError, match="give at least one point"):
        law.variance_excess(np.zeros((0, 2)))


@every_problem
def test_the_info_tells_the_largest_share_of_eight_logits(name):
    law, exact = fitted(name)
    features = DATA[name][0].features
    points = np.linspace(0, len(features) - 1, 8).round().astype(int)
    logits = np.arange(8) % law.problem.num_outputs
    wide, narrow = (np.array(v.variance(features[points]))[range(8), logits] for v in (law, exact))
    assert law.info.sampled_excess == pytest.approx((wide / narrow - 1).max(), rel=1e-5)
    assert law.info.residual == exact.info.residual
    assert law.info.num_iterations == exact.info.num_iterations


@every_problem
def test_the_bound_is_the_largest_share_of_any_sum_of_training_logits(name):
    # The eigenvalues of T S̃ T are those of S⁻¹ S̃ − I, less zeros; S may be singular.
    law, exact = fitted(name)
    features = DATA[name][0].features
    lost = linalg.block_diag(*np.array(law.lost.roots))
    together = np.linalg.eigvalsh(lost @ np.array(law.joint_covariance(features)) @ lost)[-1]
    assert together * (1 - 1e-8) <= law.info.excess_bound <= 1.02 * together
    for inputs in (features, NEW):
        shares = np.array(law.variance(inputs)) / np.array(exact.variance(inputs)) - 1
        assert shares.max() <= law.info.excess_bound


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    ridge=st.sampled_from([1e-3, 1e-2, 0.1, 1.0, 30.0]),
    kept=st.sampled_from([0.2, 0.5]),
    classes=st.sampled_from([2, 20]),
)
def test_no_variance_exceeds_laplaces_by_more_than_the_bound(seed, ridge, kept, classes):
    rng = np.random.default_rng(seed)
    data = nb.Dataset(
        rng.standard_normal((12, 3)), rng.integers(0, classes, 12), class_names=range(classes)
    )
    prior = nb.NTKPrior(NETWORK, ridge=ridge)
    law, exact = (m.fit(prior, data) for m in (nb.PrunedLaplace(kept=kept), nb.Laplace()))
    inputs = np.concatenate([data.features, 2 * rng.standard_normal((4, 3))])
    shares = np.array(law.variance(inputs)) / np.array(exact.variance(inputs)) - 1
    assert law.info.sampled_excess <= law.info.excess_bound
    assert shares.max() <= law.info.excess_bound + 1e-9
    # Not empty: of a single logit it is some part of what it is of the worst sum of n logits a class.
    assert law.info.excess_bound <= 30 * shares.max() + 1e-6


def test_variances_fall_to_those_of_laplace_the_more_is_kept():
    data = data_of(3)
    shares = (0.2, 0.4, 0.6, 0.8, 1.0)
    laws = [nb.PrunedLaplace(kept=kept).fit(PRIOR, data) for kept in shares]
    variances = np.array([law.variance(NEW) for law in laws])
    assert (np.diff(variances, axis=0) < 0).all()
    np.testing.assert_allclose(
        variances[-1], nb.Laplace().fit(PRIOR, data).variance(NEW), rtol=1e-9
    )
    assert laws[-1].info.sampled_excess == pytest.approx(0, abs=1e-12)
    assert laws[-1].info.excess_bound == pytest.approx(0, abs=1e-12)


def test_factors_of_several_blocks_are_those_of_one(monkeypatch):
    # Blocks on the diagonal have 512 rows, more than a test's points.
    rng = np.random.default_rng(0)
    root = rng.standard_normal((40, 40))
    gram = jnp.asarray(root @ root.T)
    logits = jnp.asarray(3 * rng.standard_normal((40, 4)))
    curvature = StructuredCurvature(jax.nn.softmax(logits, axis=1), True).pruned(23)
    one = SharedInverse.build(gram, curvature)
    monkeypatch.setattr(halves, "_BLOCK", 8)
    several = SharedInverse.build(gram, curvature)
    assert len(jax.tree.leaves(several)) > len(jax.tree.leaves(one)) + 4
    v = jnp.asarray(rng.standard_normal((40, 4)))
    np.testing.assert_allclose(several.matvec(v), one.matvec(v), atol=1e-10)
    np.testing.assert_allclose(
        several.quadratic(SharedBlock(gram)), one.quadratic(SharedBlock(gram)), atol=1e-8
    )
    np.testing.assert_allclose(several.log_determinant, one.log_determinant, atol=1e-10)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("sure", [50.0, 200.0, 700.0])
def test_points_that_lose_the_class_that_they_are_sure_of_say_nothing(sure, dtype):
    # All are sure of the second class, and the last four lose it: what they keep is next to nothing.
    logits = jnp.zeros((8, 3)).at[:4, 1].set(sure + 1).at[4:, 1].set(sure)
    gram = jnp.eye(8) + 0.1
    probabilities = jax.nn.softmax(logits, axis=1)
    probabilities = probabilities.at[:4, 1].set(1.0).at[4:, 1].set(1 - 1e-15)
    curvature = StructuredCurvature(probabilities, True).pruned(4)
    np.testing.assert_array_equal(curvature.points, [[4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]])
    if sure == 50.0:
        assert (curvature.mass[4:] > 0).all()
        assert (curvature.mass[4:] < 1e-20).all()
    else:
        assert curvature.is_idle[4:].all()
    inverse = SharedInverse.build(gram, curvature, dtype)
    np.testing.assert_allclose(inverse.matvec(jnp.ones((8, 3))), 0, atol=1e-6)
    np.testing.assert_allclose(inverse.quadratic(SharedBlock(gram)), 0, atol=1e-6)
    np.testing.assert_allclose(inverse.log_determinant, 0, atol=1e-5)


def test_factors_in_float32_keep_half_of_the_digits():
    data = data_of(3)
    wide, narrow = (nb.PrunedLaplace(factor_dtype=d).fit(PRIOR, data) for d in ("f8", "f4"))
    leaves = jax.tree.leaves((narrow.inverse.factors, narrow.inverse.coupling))
    assert all(leaf.dtype == np.float32 for leaf in leaves)
    np.testing.assert_array_equal(narrow.mean(NEW), wide.mean(NEW))
    np.testing.assert_allclose(narrow.variance(NEW), wide.variance(NEW), rtol=1e-4)
    assert narrow.info.sampled_excess == pytest.approx(wide.info.sampled_excess, rel=1e-2)


def test_a_training_point_without_variance_has_no_excess():
    # Without biases a network is 0 at the origin.
    base = data_of(3)
    features = np.where(np.arange(30)[:, None] == 0, 0.0, base.features)
    data = nb.Dataset(features, base.labels, class_names=range(3))
    prior = nb.NTKPrior(nb.networks.mlp(depth=1, bias_std=0.0), ridge=RIDGE)
    law, exact = (m.fit(prior, data) for m in (nb.PrunedLaplace(), nb.Laplace()))
    np.testing.assert_allclose(law.variance(features[:1]), 0, atol=1e-12)
    assert 0 < law.info.sampled_excess < np.inf
    np.testing.assert_allclose(
        law.variance(NEW) - law.variance_excess(NEW), exact.variance(NEW), rtol=1e-6, atol=1e-12
    )


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.0, -1.0, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(kept):
    with pytest.raises(ConfigurationError, match=r"kept must lie in \(0, 1\]; got"):
        nb.PrunedLaplace(kept=kept)


def test_what_cannot_be_pruned_is_refused(monkeypatch):
    wide = nb.networks.mlp(depth=1, width=16, num_outputs=3)
    features = jnp.asarray(data_of(3).features)
    coupled = nb.linearise(wide, wide.init(jax.random.key(0), features), ridge=RIDGE)
    with pytest.raises(ConfigurationError, match="couples the outputs"):
        nb.PrunedLaplace().fit(coupled, data_of(3))

    def squares(target, logits):
        return -jnp.sum((target - logits) ** 2) - (logits[0] - logits[1]) ** 2

    likelihood = nb.likelihood.LogConcave(squares, num_logits=2, examples=np.eye(2))
    real = nb.Dataset.real(data_of(2).features, data_of(2).features)
    with pytest.raises(ConfigurationError, match="nothing to prune"):
        nb.PrunedLaplace().fit(PRIOR, real, likelihood=likelihood)
    monkeypatch.setattr(pruned_laplace, "num_shares", lambda: 2)
    with pytest.raises(ConfigurationError, match="not spread over devices"):
        nb.PrunedLaplace().fit(PRIOR, data_of(3))


@pytest.mark.parametrize("residual", [0.1, float("nan")])
def test_an_excess_that_was_not_found_is_an_error(residual, monkeypatch):
    law = nb.PrunedLaplace().fit(PRIOR, data_of(3))
    monkeypatch.setattr(pruned_laplace, "_quadratic_excess", lambda *_: (jnp.ones(3), residual))
    with pytest.raises(ConvergenceError, match="keep more points"):
        law.variance_excess(NEW)


def test_an_excess_beyond_the_variance_is_an_error(monkeypatch):
    monkeypatch.setattr(pruned_laplace, "_quadratic_excess", lambda *_: (jnp.full(8, 1e9), 0.0))
    with pytest.raises(ConvergenceError, match="lost in round-off"):
        nb.PrunedLaplace().fit(PRIOR, data_of(3))
