"""Laplace's evidence by Lanczos quadrature, for kernels known by their products alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceError
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.linalg import CoupledGram, CurvedSystem, IterativeInverse, OperatorGram
from ntkbayes.linalg.curvature import StructuredCurvature
from ntkbayes.selection import lanczos

KEY = jax.random.key(0)
DATA = nb.Dataset(*oracle.blobs(5, 24, 3))
NETWORK = nb.networks.mlp(depth=1, width=12, num_outputs=3, activation=nb.activations.Erf())


def prior(max_rows, ridge=0.3):
    params = NETWORK.init(jax.random.key(7), jnp.asarray(DATA.features))
    return nb.NTKPrior(EmpiricalKernel(NETWORK, params, max_rows=max_rows), ridge=ridge)


@pytest.fixture(scope="module")
def laws():
    return [nb.Laplace(tolerance=1e-8).fit(prior(max_rows), DATA) for max_rows in (1000, 0)]


def test_the_evidence_is_the_formed_kernels_within_its_error(laws):
    formed, by_products = laws
    exact = formed.info.log_evidence
    found = nb.lanczos_evidence(by_products, key=KEY, num_probes=64)
    assert 0 < found.error < 0.5
    assert abs(found.log_evidence - exact) < 4 * found.error
    assert found.approximate == found.log_evidence


def test_its_error_is_the_scatter_of_independent_estimates(laws):
    exact = laws[0].info.log_evidence
    found = [
        nb.lanczos_evidence(laws[1], key=key, num_probes=8) for key in jax.random.split(KEY, 40)
    ]
    values, errors = (np.array([getattr(v, n) for v in found]) for n in ("log_evidence", "error"))
    scatter = values.std(ddof=1)
    assert abs(values.mean() - exact) < 4 * scatter / np.sqrt(40)
    # A standard deviation of 40 normal numbers is known to within 1/√80 of itself, each time.
    assert abs(np.sqrt(np.mean(errors**2)) / scatter - 1) < 4 / np.sqrt(80)


def test_same_key_same_evidence_and_one_more_block_of_probes_makes_it_more_accurate(laws):
    first, again = (nb.lanczos_evidence(laws[1], key=KEY, num_probes=10) for _ in range(2))
    assert (first.log_evidence, first.error) == (again.log_evidence, again.error)
    more = nb.lanczos_evidence(laws[1], key=KEY, num_probes=160)
    assert more.error < 0.5 * first.error


def test_of_a_formed_kernel_it_is_exact(laws):
    found = nb.lanczos_evidence(laws[0], key=KEY)
    assert (found.log_evidence, found.error) == (laws[0].info.log_evidence, 0.0)


def test_the_slope_is_the_formed_kernels_within_its_error_which_is_its_scatter(laws):
    exact = nb.selection.evidence_gradient(prior(1000), DATA, over=("ridge",))["ridge"]
    found = [
        nb.lanczos_evidence_slope(laws[1], key=key, num_probes=8)
        for key in jax.random.split(KEY, 40)
    ]
    slopes, errors = np.array(found).T
    scatter = slopes.std(ddof=1)
    assert 0 < scatter < abs(exact)
    assert abs(slopes.mean() - exact) < 4 * scatter / np.sqrt(40)
    assert abs(np.sqrt(np.mean(errors**2)) / scatter - 1) < 4 / np.sqrt(80)


def test_of_a_formed_kernel_the_slope_is_the_exact_gradient(laws):
    exact = nb.selection.evidence_gradient(prior(1000), DATA, over=("ridge",))["ridge"]
    slope, error = nb.lanczos_evidence_slope(laws[0], key=KEY)
    np.testing.assert_allclose(slope, exact, rtol=1e-9)
    assert error == 0


def test_the_slope_changes_sign_at_the_ridge_of_most_evidence():
    best = nb.RidgeByEvidence().choose(prior(1000), DATA, key=KEY).ridge
    for factor, sign in ((0.3, 1), (3.0, -1)):
        law = nb.Laplace().fit(prior(0, factor * best), DATA)
        slope, error = nb.lanczos_evidence_slope(law, key=KEY, num_probes=64)
        assert sign * slope > 4 * error


def test_a_ridge_chosen_by_it_is_that_of_the_formed_kernel():
    """Over a decade either way the evidence falls by many times its error."""
    ridges = (0.003, 0.03, 0.3, 3.0, 30.0)
    exact = [nb.log_evidence(prior(1000, ridge), DATA) for ridge in ridges]
    found = [
        nb.lanczos_evidence(nb.Laplace().fit(prior(0, ridge), DATA), key=KEY).log_evidence
        for ridge in ridges
    ]
    assert np.argmax(found) == np.argmax(exact)
    np.testing.assert_allclose(found, exact, atol=1.5)


class Product(OperatorGram):
    """A matrix that couples 3 outputs, known by its products."""

    matrix: jax.Array
    num_outputs = 3

    def gram(self):
        return self

    @property
    def variances(self):
        return jnp.diagonal(self.matrix).reshape(-1, 3)

    def diagonal_blocks(self, num_outputs):
        return CoupledGram(self.matrix, num_outputs).diagonal_blocks(num_outputs)

    def products(self, v):
        return (v.reshape(len(v), -1) @ self.matrix.T).reshape(v.shape)

    def dense(self):
        return self.matrix

    def __mul__(self, number):
        return Product(self.matrix * number)

    def __truediv__(self, number):
        return Product(self.matrix / number)

    @property
    def surrogate(self):
        size = len(self.matrix) // 3
        return jnp.einsum("icjc->ij", self.matrix.reshape(size, 3, size, 3)) / 3


def inverse_of(matrix, logits):
    curvature = StructuredCurvature(jax.nn.softmax(jnp.asarray(logits)), True)
    inverse = Product(jnp.asarray(matrix)).curved(curvature)
    assert isinstance(inverse, IterativeInverse)
    dense = scipy.linalg.block_diag(*np.asarray(curvature.blocks))
    return inverse, np.linalg.slogdet(np.eye(len(matrix)) + dense @ matrix)[1]


def test_determinants_average_to_that_of_numpy_and_are_exact_where_the_surrogate_is():
    rng = np.random.default_rng(0)
    root, logits = rng.standard_normal((30, 30)), rng.standard_normal((10, 3))
    shared = root[:10, :10] @ root[:10, :10].T
    noise = jax.random.normal(KEY, (2, 400, 10, 3))
    exactly, determinant = inverse_of(np.kron(shared, np.eye(3)), logits)
    np.testing.assert_allclose(lanczos._log_determinants(exactly, noise), determinant, rtol=1e-6)
    nearly, determinant = inverse_of(np.kron(shared, np.eye(3)) + 0.3 * root @ root.T, logits)
    found = np.asarray(lanczos._log_determinants(nearly, noise))
    assert found.std() > 0.1
    assert abs(found.mean() - determinant) < 4 * found.std() / np.sqrt(400)


def test_slopes_of_the_determinant_average_to_its_difference_and_are_exact_where_the_surrogate_is():
    rng = np.random.default_rng(1)
    root, logits = rng.standard_normal((30, 30)), rng.standard_normal((10, 3))
    direction, step = rng.standard_normal((10, 3)), 1e-4
    shared = np.kron(root[:10, :10] @ root[:10, :10].T, np.eye(3))
    noise = jax.random.normal(KEY, (2, 400, 10, 3))

    def found(matrix):
        """By probes, and by differences of the dense determinant."""
        inverse, _ = inverse_of(matrix, logits)
        change = jax.jvp(
            lambda f: StructuredCurvature(jax.nn.softmax(f), True),
            (jnp.asarray(logits),),
            (jnp.asarray(direction),),
        )[1]
        ends = [
            inverse_of(matrix * np.exp(-by), logits + by * direction)[1] for by in (step, -step)
        ]
        return lanczos._slopes(inverse, noise, change), (ends[0] - ends[1]) / (2 * step)

    slopes, difference = found(shared)
    np.testing.assert_allclose(slopes, difference, rtol=1e-6)
    slopes, difference = found(shared + 0.3 * root @ root.T)
    slopes = np.asarray(slopes)
    assert slopes.std() > 0.1
    assert abs(slopes.mean() - difference) < 4 * slopes.std() / np.sqrt(400)


def test_too_few_products_are_no_answer(laws, monkeypatch):
    system = laws[1].inverse.system
    assert isinstance(system, CurvedSystem)
    noise = jax.random.normal(KEY, (2, 4, *DATA.targets.shape))
    assert np.isnan(system.probe((noise[0], noise[1]), 1e-3, 2).log_determinants).all()
    for name, call in (
        ("_log_determinants", nb.lanczos_evidence),
        ("_slopes", nb.lanczos_evidence_slope),
    ):
        monkeypatch.setattr(lanczos, name, lambda *given: jnp.full(8, jnp.nan))
        with pytest.raises(ConvergenceError, match="too few for 16 of 16 probes; use a larger"):
            call(laws[1], key=KEY)


def test_the_exact_evidence_without_a_matrix_is_refused_with_what_to_use_instead():
    for call in (nb.log_evidence, lambda *given: nb.maximise_evidence(*given, over=("ridge",))):
        with pytest.raises(ConfigurationError, match=r"\(nb\.lanczos_evidence estimates it\), so"):
            call(prior(0), DATA)


def test_other_laws_and_tempered_likelihoods_are_refused(laws):
    tempered = nb.likelihood.Tempered(nb.likelihood.Categorical(), 2.0)
    law = nb.Laplace().fit(prior(1000), DATA, likelihood=tempered)
    for call in (nb.lanczos_evidence, nb.lanczos_evidence_slope):
        with pytest.raises(ConfigurationError, match=r"Laplace's; the law is of kind 'MAP'"):
            call(nb.MAP().fit(prior(1000), DATA), key=KEY)
        with pytest.raises(ConfigurationError, match="tempered"):
            call(law, key=KEY)
        with pytest.raises(ConfigurationError, match="num_probes"):
            call(laws[0], key=KEY, num_probes=2)
