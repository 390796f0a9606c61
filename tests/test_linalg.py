"""Factors, conditioning and structured matrices equal their dense definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jaxtyping import Array

from ntkbayes.errors import ConfigurationError, NotPositiveDefiniteError, PrecisionError
from ntkbayes.linalg import (
    BlockCurvature,
    BlockedTriangle,
    Conditional,
    CoupledBlock,
    CoupledGram,
    CoupledInverse,
    OperatorGram,
    SharedBlock,
    SharedGram,
    SharedInverse,
    StructuredCurvature,
    block_of,
    categorical,
    cholesky,
    frugal,
    frugal_jit,
    gram_of,
    largest,
    output_blocks,
    require_float64,
    uniform,
    white_noise,
)
from ntkbayes.linalg import matrix as matrix_of
from ntkbayes.linalg.halves import lower_half, lower_triangle, rows_of


def rbf(x1, x2, length=1.0):
    return np.exp(-0.5 * np.sum((x1[:, None] - x2[None]) ** 2, axis=-1) / length**2)


RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((7, 2))
GRAM = 3.0 * rbf(POINTS, POINTS)


# --- cholesky ------------------------------------------------------------------------------------


def test_factor_reproduces_a_well_conditioned_matrix_to_round_off():
    matrix = GRAM + np.eye(7)
    factor = cholesky(jnp.asarray(matrix))
    np.testing.assert_allclose(factor.lower @ factor.lower.T, matrix, atol=1e-12)
    assert factor.jitter <= 10 * 7 * np.finfo(float).eps * 4.0001


def test_whitening_inverts_the_factor():
    matrix = GRAM + np.eye(7)
    rhs = RNG.standard_normal((7, 3))
    factor = cholesky(jnp.asarray(matrix))
    white = np.array(factor.whiten(jnp.asarray(rhs)))
    np.testing.assert_allclose(white.T @ white, rhs.T @ np.linalg.solve(matrix, rhs), atol=1e-11)


@pytest.mark.parametrize("size", [512, 1100])
def test_a_factor_of_many_points_colours_and_whitens_as_scipy_does(size):
    points = np.random.default_rng(size).standard_normal((size, 2))
    gram = rbf(points, points)  # so smooth that jitter alone makes it positive definite
    factor = cholesky(jnp.asarray(gram))
    assert factor.jitter <= 1e-11
    lower = np.asarray(factor.lower)
    assert (np.triu(lower, 1) == 0).all()
    np.testing.assert_allclose(lower @ lower.T, gram, atol=1.1 * factor.jitter + 1e-14)
    z = RNG.standard_normal((3, size, 2))
    np.testing.assert_allclose(factor.colour(jnp.asarray(z)), lower @ z, atol=1e-12)
    coupled = factor.colour(jnp.asarray(z.reshape(3, size // 2, 4))[..., :2])
    flat = z.reshape(3, size // 2, 4)[..., :2].reshape(3, size, 1)
    np.testing.assert_allclose(coupled.reshape(flat.shape), lower @ flat, atol=1e-12)
    white = np.asarray(factor.whiten(jnp.asarray(lower @ z[0])))
    right = scipy.linalg.solve_triangular(lower, lower @ z[0], lower=True)
    np.testing.assert_allclose(lower @ white, lower @ right, atol=1e-12)


@pytest.mark.parametrize("copies", [2, 10, 50])
def test_duplicated_points_are_factored_with_jitter_of_round_off(copies):
    points = np.repeat(POINTS, copies, axis=0)
    gram = jnp.asarray(3.0 * rbf(points, points))
    factor = cholesky(gram)
    assert 0 < factor.jitter <= 3e-8
    np.testing.assert_allclose(
        factor.lower @ factor.lower.T, gram, atol=1.1 * factor.jitter + 1e-12
    )


def test_jitter_scales_with_the_matrix():
    points = np.repeat(POINTS, 2, axis=0)
    gram = jnp.asarray(rbf(points, points))
    assert cholesky(1e6 * gram).jitter == pytest.approx(1e6 * cholesky(gram).jitter)


def test_an_indefinite_matrix_is_refused_naming_its_eigenvalue_and_who_it_is():
    matrix = jnp.asarray([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(
        NotPositiveDefiniteError, match=r"the NTK is not .* smallest eigenvalue is -1,"
    ):
        cholesky(matrix, what="the NTK")


@pytest.mark.parametrize("eigenvalue", [-1e-3, -1e-6])
def test_a_slightly_indefinite_matrix_is_not_repaired_by_jitter(eigenvalue):
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))
    matrix = rotation @ np.diag([eigenvalue, 1.0, 1.0, 1.0]) @ rotation.T
    with pytest.raises(NotPositiveDefiniteError, match=f"{eigenvalue:.3g}"):
        cholesky(jnp.asarray((matrix + matrix.T) / 2))


@pytest.mark.parametrize(("i", "j"), [(0, 0), (2, 1)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_is_refused(i, j, bad):
    matrix = np.eye(3)
    matrix[i, j] = matrix[j, i] = bad
    with pytest.raises(NotPositiveDefiniteError, match=r"nan|inf|NaN"):
        cholesky(jnp.asarray(matrix))


def test_a_negative_diagonal_is_refused():
    with pytest.raises(NotPositiveDefiniteError, match="mean diagonal of -1"):
        cholesky(-jnp.eye(3))


def test_the_zero_matrix_has_a_factor_of_round_off():
    assert float(jnp.max(jnp.abs(cholesky(jnp.zeros((3, 3))).lower))) < 1e-6


@pytest.mark.parametrize("compile_", [jax.jit, lambda f: f])
@pytest.mark.parametrize("where", [slice(None), (3, 1)])
def test_the_largest_entry_is_nan_where_there_is_one(where, compile_):
    values = np.linspace(-4, 3, 5000).reshape(500, 10)
    assert float(compile_(largest)(jnp.asarray(values))) == 4
    values[where] = np.nan
    assert np.isnan(compile_(largest)(jnp.asarray(values)))
    expected = np.abs(values).max(axis=1)
    rows = compile_(lambda v: largest(v, axis=1))(jnp.asarray(values))
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 2), (2, 0, 3)])
def test_noise_drawn_in_one_axis_is_that_of_jax(shape, kind):
    key = jax.random.key(3, impl=kind)
    noise = jax.random.normal(key, shape)
    np.testing.assert_array_equal(white_noise(key, shape), noise)
    np.testing.assert_array_equal(uniform(key, shape), jax.random.uniform(key, shape))
    single = white_noise(key, shape, jnp.float32)
    np.testing.assert_array_equal(single, jax.random.normal(key, shape, jnp.float32))
    assert single.dtype == np.float32
    if noise.size and shape:
        labels = jax.random.categorical(key, noise, axis=-1)
        np.testing.assert_array_equal(categorical(key, noise), labels)


@pytest.mark.parametrize("size", [1, 512, 1100, 1600])
def test_a_triangle_by_halves_solves_as_scipy_does(size):
    rng = np.random.default_rng(size)
    root, scale = rng.standard_normal((size, size)) / np.sqrt(size), rng.uniform(0.5, 2.0, size)
    gram, v = root @ root.T, rng.standard_normal((size, 3))
    matrix = scale[:, None] * gram * scale + 0.5 * np.eye(size)
    lower = scipy.linalg.cholesky(matrix, lower=True)
    given = jnp.asarray(np.tril(gram))  # the rest is never read

    def found(gram, v):
        triangle = BlockedTriangle.factor(gram, scale=jnp.asarray(scale), shift=0.5)
        inverse = triangle.scaled_inverse(jnp.asarray(scale))
        rows = triangle.solve_gram_rows(v.T), matrix_of(triangle.gram_inverse())
        columns = triangle.solve(v), triangle.solve_transposed(v)
        return *columns, *rows, triangle.log_determinant, inverse

    solved, transposed, rows, full, log_determinant, inverse = jax.jit(found)(given, jnp.asarray(v))
    right = scipy.linalg.solve_triangular(lower, v, lower=True)
    np.testing.assert_allclose(solved, right, rtol=1e-9, atol=1e-11)
    right = scipy.linalg.solve_triangular(lower, v, lower=True, trans="T")
    np.testing.assert_allclose(transposed, right, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(rows, np.linalg.solve(matrix, v).T, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(full, np.linalg.inv(matrix), rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(log_determinant, np.linalg.slogdet(matrix)[1] / 2, rtol=1e-10)
    right = np.tril(scale[:, None] * np.linalg.inv(matrix) * scale)
    np.testing.assert_allclose(np.tril(lower_triangle(inverse)), right, rtol=1e-9, atol=1e-11)
    again = jax.jit(BlockedTriangle.factor)(inverse)  # a half is as good as a matrix
    expected = jnp.sum(jnp.log(scale)) - log_determinant
    np.testing.assert_allclose(again.log_determinant, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [(0, 1600), (500, 530), (0, 1), (1100, 1600)])
def test_rows_of_a_half_are_those_of_its_matrix(rows):
    matrix = np.random.default_rng(0).standard_normal((1600, 1600))
    matrix += matrix.T
    half = lower_half(jnp.asarray(matrix))
    np.testing.assert_array_equal(rows_of(half, *rows), matrix[slice(*rows)])


def test_a_triangle_by_halves_can_be_mapped_and_differentiated():
    size = 600
    rng = np.random.default_rng(0)
    root = rng.standard_normal((size, size)) / np.sqrt(size)
    gram, v = jnp.asarray(root @ root.T), jnp.asarray(rng.standard_normal((2, size, 3)))

    def energies(shift, v):
        triangle = BlockedTriangle.factor(gram, shift=shift)
        solved = jax.vmap(lambda v: triangle.solve_transposed(triangle.solve(v)))(v)
        return jnp.sum(v * solved)

    value, slope = jax.value_and_grad(energies)(0.5, v)
    inverse = np.linalg.inv(np.asarray(gram) + 0.5 * np.eye(size))
    np.testing.assert_allclose(value, np.einsum("kim,ij,kjm->", v, inverse, v), rtol=1e-10)
    expected = -np.einsum("kim,ij,kjm->", v, inverse @ inverse, v)
    np.testing.assert_allclose(slope, expected, rtol=1e-9)


def test_float64_is_required():
    require_float64()
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(PrecisionError, match="jax_enable_x64"):
            require_float64()
    finally:
        jax.config.update("jax_enable_x64", True)


# --- conditioning --------------------------------------------------------------------------------


def test_conditional_equals_dense_conditioning():
    new = RNG.standard_normal((4, 2))
    gram, cross, own = rbf(POINTS, POINTS) + 0.1 * np.eye(7), rbf(POINTS, new), rbf(new, new)
    factor = cholesky(jnp.asarray(gram))
    conditional = Conditional.build(factor, *(SharedBlock(jnp.asarray(k)) for k in (cross.T, own)))
    values = RNG.standard_normal((7, 2))
    white = factor.whiten(jnp.asarray(values))
    np.testing.assert_allclose(
        conditional.projection @ white, cross.T @ np.linalg.solve(gram, values), atol=1e-10
    )
    np.testing.assert_allclose(
        conditional.root.lower @ conditional.root.lower.T,
        own - cross.T @ np.linalg.solve(gram, cross),
        atol=1e-10,
    )


def test_conditional_at_the_points_known_is_certain():
    factor = cholesky(jnp.asarray(GRAM))
    gram = SharedBlock(jnp.asarray(GRAM))
    conditional = Conditional.build(factor, gram, gram)
    np.testing.assert_allclose(conditional.projection, factor.lower, atol=1e-9)
    assert float(jnp.max(jnp.abs(conditional.root.lower))) < 1e-5


# --- curvature -----------------------------------------------------------------------------------


def saturated(logits):
    """Softmax probabilities, exact zeros among them."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def dense_curvature(diagonal, coupled):
    out = np.zeros((diagonal.size, diagonal.size))
    size = diagonal.shape[1]
    for i, row in enumerate(diagonal):
        block = np.diag(row) - (np.outer(row, row) / (row.sum() or 1) if coupled else 0)
        out[i * size : (i + 1) * size, i * size : (i + 1) * size] = block
    return out


LOGITS = RNG.standard_normal((7, 3))
CASES = {
    "softmax": (saturated(LOGITS), True),
    "softmax saturated": (saturated(LOGITS * 1000), True),
    "softmax one class sure": (saturated(np.outer(np.ones(7), [0.0, 900.0, 0.0])), True),
    "softmax of some classes": (saturated(LOGITS) * (np.arange(21).reshape(7, 3) % 5 > 1), True),
    "softmax of idle points": (saturated(LOGITS) * (np.arange(7) > 1)[:, None], True),
    "apart": (np.exp(LOGITS), False),
    "apart with zeros": (np.where(LOGITS > 0, 0.25, 0.0), False),
    "one output": (np.exp(LOGITS[:, :1]), False),
}
case = pytest.mark.parametrize(("diagonal", "coupled"), CASES.values(), ids=CASES)


@case
def test_curvature_equals_its_dense_matrix(diagonal, coupled):
    w = dense_curvature(diagonal, coupled)
    curvature = StructuredCurvature(jnp.asarray(diagonal), coupled)
    v = RNG.standard_normal(diagonal.shape)
    np.testing.assert_allclose(curvature.matvec(jnp.asarray(v)).ravel(), w @ v.ravel(), atol=1e-14)
    np.testing.assert_allclose(curvature.matrix_diagonal.ravel(), np.diag(w), atol=1e-14)
    columns = np.eye(diagonal.size).reshape(-1, *diagonal.shape)
    root = np.stack([np.array(curvature.root_matvec(jnp.asarray(e))).ravel() for e in columns], 1)
    np.testing.assert_allclose(root @ root.T, w, atol=1e-14)


@case
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_curved_inverse_equals_its_dense_matrix(diagonal, coupled, scale):
    size = diagonal.shape[1]
    gram = scale * GRAM
    dense = np.kron(gram, np.eye(size))
    w = dense_curvature(diagonal, coupled)
    whole = np.eye(dense.shape[0]) + w @ dense
    expected = np.linalg.solve(whole, w)
    close = {"rtol": 1e-8, "atol": 1e-9 * max(1e-3, np.abs(expected).max())}

    inverse = SharedInverse.build(
        jnp.asarray(gram), StructuredCurvature(jnp.asarray(diagonal), coupled)
    )
    v = RNG.standard_normal(diagonal.shape)
    np.testing.assert_allclose(
        inverse.matvec(jnp.asarray(v)).ravel(), expected @ v.ravel(), **close
    )
    np.testing.assert_allclose(inverse.log_determinant, np.linalg.slogdet(whole)[1], atol=1e-8)

    k = RNG.standard_normal((7, 4))
    for j, (quadratic, columns) in enumerate(
        zip(
            inverse.quadratic(SharedBlock(jnp.asarray(k))),
            inverse.columns(jnp.asarray(k)),
            strict=True,
        )
    ):
        pushed = np.kron(k[:, j : j + 1], np.eye(size))
        np.testing.assert_allclose(quadratic, pushed.T @ expected @ pushed, **close)
        np.testing.assert_allclose(
            np.array(columns).transpose(1, 2, 0).reshape(-1, size), expected @ pushed, **close
        )


def test_curved_inverse_stays_finite_when_every_probability_is_zero_or_one():
    probabilities = np.eye(3)[np.arange(7) % 3]
    inverse = SharedInverse.build(
        jnp.asarray(GRAM), StructuredCurvature(jnp.asarray(probabilities), True)
    )
    # W = 0: nothing is known of the curvature, and nothing is conditioned on.
    np.testing.assert_allclose(inverse.matvec(jnp.ones((7, 3))), 0, atol=1e-12)
    np.testing.assert_allclose(inverse.log_determinant, 0, atol=1e-12)
    np.testing.assert_allclose(inverse.quadratic(SharedBlock(jnp.asarray(GRAM))), 0, atol=1e-11)


# --- curvature of no known structure -------------------------------------------------------------


def random_blocks(rank):
    """Seven 3 × 3 blocks, positive semi-definite of a rank."""
    factors = np.random.default_rng(2).standard_normal((7, 3, rank))
    return np.einsum("ick,idk->icd", factors, factors)


def dense_blocks(blocks):
    out = np.zeros((21, 21))
    for i, block in enumerate(blocks):
        out[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = block
    return out


BLOCKS = {"definite": random_blocks(3), "singular": random_blocks(1), "none": np.zeros((7, 3, 3))}
every_block = pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)


@every_block
def test_block_curvature_equals_its_dense_matrix(blocks):
    w, v = dense_blocks(blocks), RNG.standard_normal((7, 3))
    curvature = BlockCurvature(jnp.asarray(blocks))
    assert curvature.shape == (7, 3)
    np.testing.assert_allclose(curvature.matvec(jnp.asarray(v)).ravel(), w @ v.ravel(), atol=1e-13)
    np.testing.assert_allclose(curvature.matrix_diagonal.ravel(), np.diag(w), atol=1e-14)
    np.testing.assert_array_equal(curvature.blocks, blocks)
    roots = dense_blocks(np.array(curvature.root_blocks))
    np.testing.assert_allclose(roots @ roots.T, w, atol=1e-13)
    pushed, pulled = (
        product(jnp.asarray(v))
        for product in (curvature.root_matvec, curvature.root_transpose_matvec)
    )
    np.testing.assert_allclose(pushed.ravel(), roots @ v.ravel(), atol=1e-13)
    np.testing.assert_allclose(pulled.ravel(), roots.T @ v.ravel(), atol=1e-13)


@every_block
@pytest.mark.parametrize("coupled", [False, True])
def test_the_inverse_curved_by_blocks_equals_its_dense_matrix(blocks, coupled):
    gram, w = np.kron(GRAM, np.eye(3)), dense_blocks(blocks)
    if coupled:  # outputs with covariance of their own
        gram = np.kron(GRAM, np.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]]))
    whole = np.eye(21) + w @ gram
    expected = np.linalg.solve(whole, w)
    shared, both = SharedGram(jnp.asarray(GRAM)), CoupledGram(jnp.asarray(gram), 3)
    inverse = (both if coupled else shared).curved(BlockCurvature(jnp.asarray(blocks)))
    v = RNG.standard_normal((7, 3))
    np.testing.assert_allclose(
        inverse.matvec(jnp.asarray(v)).ravel(), expected @ v.ravel(), atol=1e-11
    )
    np.testing.assert_allclose(inverse.log_determinant, np.linalg.slogdet(whole)[1], atol=1e-10)
    k = both.like(jnp.asarray(RNG.standard_normal((21, 12))))
    if not coupled:
        k = shared.like(jnp.asarray(RNG.standard_normal((7, 4))))
    columns = np.asarray(k.every_output(3))
    quadratic = columns.T @ expected @ columns
    np.testing.assert_allclose(
        inverse.quadratic(k),
        [quadratic[3 * j : 3 * j + 3, 3 * j : 3 * j + 3] for j in range(4)],
        atol=1e-10,
    )


def test_blocks_of_softmax_curve_as_its_structure_does():
    curvature = StructuredCurvature(jnp.asarray(saturated(LOGITS)), True)
    gram = SharedGram(jnp.asarray(GRAM))
    known, found = gram.curved(curvature), gram.curved(BlockCurvature(curvature.blocks))
    assert isinstance(known, SharedInverse)
    assert isinstance(found, CoupledInverse)
    v = jnp.asarray(RNG.standard_normal((7, 3)))
    np.testing.assert_allclose(found.matvec(v), known.matvec(v), atol=1e-11)
    np.testing.assert_allclose(found.log_determinant, known.log_determinant, atol=1e-10)


def softmax_curvature(logits: Array) -> StructuredCurvature:
    return StructuredCurvature(jax.nn.softmax(logits), True)


def block_curvature(logits: Array) -> BlockCurvature:
    roots = jnp.eye(3)[None] + 0.3 * jnp.sin(logits)[:, :, None] * jnp.cos(logits)[:, None, :]
    return BlockCurvature(jnp.einsum("ick,idk->icd", roots, roots))


@pytest.mark.parametrize("curvature", [softmax_curvature, block_curvature])
@pytest.mark.parametrize("coupled", [False, True])
def test_the_log_determinant_has_the_derivative_of_its_dense_formula(curvature, coupled):
    outputs = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]])
    more, logits, turn = (
        np.cos(POINTS @ POINTS.T),
        jnp.asarray(LOGITS),
        jnp.cos(jnp.asarray(LOGITS)),
    )

    def gram(t: Array) -> SharedGram | CoupledGram:
        among_points = jnp.asarray(GRAM) + t * jnp.asarray(more)
        if not coupled:
            return SharedGram(among_points)
        return CoupledGram(jnp.kron(among_points, jnp.asarray(outputs)), 3)

    def dense(t: float) -> float:
        w = dense_blocks(np.array(curvature(logits + t * turn).blocks))
        return np.linalg.slogdet(np.eye(21) + w @ np.asarray(gram(t).every_output(3)))[1]

    inverse = gram(0.0).curved(curvature(logits)).explicit()
    value, slope = jax.value_and_grad(
        lambda t: inverse.differentiable(gram(t), curvature(logits + t * turn))
    )(0.0)
    np.testing.assert_allclose(value, dense(0.0), atol=1e-10)
    np.testing.assert_allclose(slope, (dense(1e-5) - dense(-1e-5)) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize("curvature", [softmax_curvature, block_curvature])
def test_the_log_determinant_has_that_derivative_where_the_curvature_alone_moves(curvature):
    outputs = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]])
    gram = CoupledGram(jnp.asarray(np.kron(GRAM, outputs)), 3)
    logits, turn = jnp.asarray(LOGITS), jnp.cos(jnp.asarray(LOGITS))

    def dense(t: float) -> float:
        w = dense_blocks(np.array(curvature(logits + t * turn).blocks))
        return np.linalg.slogdet(np.eye(21) + w @ np.asarray(gram))[1]

    inverse = gram.curved(curvature(logits)).explicit()
    slope = jax.grad(lambda t: inverse.differentiable(gram, curvature(logits + t * turn)))(0.0)
    np.testing.assert_allclose(slope, (dense(1e-5) - dense(-1e-5)) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize("curvature", [softmax_curvature, block_curvature])
@pytest.mark.parametrize("num_points", [7, 400])
def test_an_explicit_inverse_is_the_inverse(curvature, num_points):
    rng = np.random.default_rng(num_points)
    root = rng.standard_normal((3 * num_points, 20))
    logits = jnp.asarray(rng.standard_normal((num_points, 3)))
    gram = CoupledGram(jnp.asarray(root @ root.T), 3)
    columns = CoupledBlock(jnp.asarray(rng.standard_normal((3 * num_points, 6))), 3)
    inverse = gram.curved(curvature(logits))
    expected = inverse.matvec(logits), inverse.quadratic(columns), inverse.log_determinant
    explicit = inverse.explicit()
    np.testing.assert_allclose(explicit.matvec(logits), expected[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(explicit.quadratic(columns), expected[1], rtol=1e-8, atol=1e-10)
    assert explicit.log_determinant == expected[2]


@pytest.mark.parametrize("kind", [SharedGram, lambda matrix: CoupledGram(matrix, 1)])
def test_a_ridge_divides_the_kernel_of_an_inverse(kind):
    gram, curvature = kind(jnp.asarray(GRAM)), StructuredCurvature(jnp.ones((7, 1)), False)
    given, divided = gram.curved(curvature, ridge=0.3), (gram / 0.3).curved(curvature)
    v = jnp.asarray(LOGITS[:, :1])
    np.testing.assert_allclose(given.matvec(v), divided.matvec(v), rtol=1e-13)
    exact = np.linalg.solve(GRAM / 0.3 + np.eye(7), v)
    np.testing.assert_allclose(given.matvec(v), exact, rtol=1e-9, atol=1e-12)
    determinant = np.linalg.slogdet(GRAM / 0.3 + np.eye(7))[1]
    np.testing.assert_allclose(given.log_determinant, determinant, rtol=1e-12)


def test_a_block_curvature_of_a_kernel_known_by_products_is_refused():
    with pytest.raises(ConfigurationError, match="a larger max_rows"):
        Products(jnp.asarray(GRAM)).curved(BlockCurvature(jnp.asarray(BLOCKS["definite"])))


# --- kinds of Gram -------------------------------------------------------------------------------


class Products(OperatorGram):
    """shared ⊗ I, by its products."""

    shared: Array
    num_outputs = 3

    def gram(self):
        return self

    @property
    def variances(self):
        return jnp.broadcast_to(jnp.diagonal(self.shared)[:, None], (len(self.shared), 3))

    def diagonal_blocks(self, num_outputs):
        return output_blocks(jnp.diagonal(self.shared), num_outputs)

    def products(self, v):
        return SharedBlock(self.shared) @ v

    def dense(self):
        return jnp.kron(self.shared, jnp.eye(self.num_outputs))

    def __mul__(self, number):
        return Products(self.shared * number)

    def __truediv__(self, number):
        return Products(self.shared / number)

    @property
    def surrogate(self):
        return self.shared


@pytest.fixture(params=["shared", "coupled", "operator"])
def gram(request):
    """3 GRAM ⊗ I over 3 outputs."""
    matrix = jnp.asarray(GRAM)
    found = {
        "shared": SharedGram(matrix),
        "coupled": CoupledGram(jnp.kron(matrix, jnp.eye(3)), 3),
        "operator": Products(matrix),
    }[request.param]
    return np.float64(6.0) * found / 2


def test_every_kind_of_gram_acts_on_logits_as_its_matrix(gram):
    whole = np.kron(3 * GRAM, np.eye(3))
    v = RNG.standard_normal((2, 7, 3))
    np.testing.assert_allclose(gram.every_output(3), whole, rtol=1e-12)
    for given in (v, v[0]):
        expected = (given.reshape(-1, 21) @ whole).reshape(given.shape)
        np.testing.assert_allclose(gram @ jnp.asarray(given), expected, atol=1e-12)
    np.testing.assert_array_equal(np.asarray(gram), gram.dense())
    formed = gram.formed()
    np.testing.assert_allclose(formed.every_output(3), whole, rtol=1e-12)
    np.testing.assert_allclose(formed.T.every_output(3), whole, rtol=1e-12)
    products = [column.T @ column for column in np.split(whole, 7, axis=1)]
    np.testing.assert_allclose(formed.column_products(3), products, atol=1e-10)
    spread = np.broadcast_to(gram.variances, (7, 3)).ravel()
    assert (spread >= (1 - 1e-12) * np.diag(whole)).all()
    assert gram.largest_eigenvalue() == pytest.approx(np.linalg.eigvalsh(whole)[-1])


def test_a_gram_that_is_formed_has_a_factor_and_what_is_made_of_it(gram):
    whole = np.kron(3 * GRAM, np.eye(3))
    if not gram.couples or isinstance(gram, CoupledGram):
        gram.require_formed("this")
        np.testing.assert_allclose(
            gram.diagonal_blocks(3), 9 * np.broadcast_to(np.eye(3), (7, 3, 3))
        )
        lower = np.asarray(gram.formed().like(gram.factor().lower).every_output(3))
        np.testing.assert_allclose(lower @ lower.T, whole, atol=1e-9)
    else:
        with pytest.raises(ConfigurationError, match=r"this, .* a larger max_rows"):
            gram.require_formed("this")
        with pytest.raises(
            ConfigurationError, match="has 21 rows, more than the kernel's max_rows"
        ):
            gram.factor()
        with pytest.raises(ConfigurationError, match="has 21 rows: use a ridge > 0"):
            gram.interpolator(is_flat=True, num_outputs=3)


def test_values_between_points_are_shared_and_values_between_outputs_coupled():
    v = RNG.standard_normal((7, 3))
    for matrix, kind in ((GRAM, SharedGram), (np.kron(GRAM, np.eye(3)), CoupledGram)):
        found = gram_of(jnp.asarray(matrix), 7)
        assert isinstance(found, kind)
        assert gram_of(found, 7) is found
        np.testing.assert_allclose(found @ jnp.asarray(v), GRAM @ v, atol=1e-12)
        block = block_of(jnp.asarray(matrix[:, : matrix.shape[1] // 7]), 7, 1)
        assert block.couples == (kind is CoupledGram)
        np.testing.assert_allclose(block @ jnp.asarray(v[:1]), GRAM[:, :1] @ v[:1], atol=1e-12)


# --- memory of programs ---------------------------------------------------------------------------


def test_a_frugal_program_of_a_factor_needs_less_memory_than_jax_would_take():
    gram = jax.ShapeDtypeStruct((4000, 4000), float)

    def temporary(options):
        program = jax.jit(BlockedTriangle.factor, compiler_options=options).lower(gram).compile()
        return program.memory_analysis().temp_size_in_bytes / (8 * 4000**2)

    assert temporary(frugal._LEAST_MEMORY) < 0.8 * temporary(None)


def test_a_frugal_program_is_the_function_also_within_another_program():
    @frugal_jit
    def root(matrix, *, shift):
        return BlockedTriangle.factor(matrix, shift=shift).log_determinant

    def of_scale(scale):
        return root(scale * jnp.eye(5), shift=0.5)

    expected = 5 * np.log(2.5) / 2
    for found in (of_scale(2.0), jax.jit(of_scale)(2.0), jax.vmap(of_scale)(jnp.full(1, 2.0))):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(of_scale)(2.0), 1.0, rtol=1e-12)
    constant = jax.jit(lambda shift: shift + of_scale(2.0))  # no argument of the factor is traced
    np.testing.assert_allclose(constant(1.0), 1 + expected, rtol=1e-12)
    steps = jax.lax.scan(lambda total, _: (total + of_scale(2.0), None), 0.0, length=2)
    np.testing.assert_allclose(steps[0], 2 * expected, rtol=1e-12)


def test_a_solve_of_one_row_copies_no_block_of_the_factor():
    lower = jax.eval_shape(BlockedTriangle.factor, jax.ShapeDtypeStruct((4000, 4000), float))
    row = jax.ShapeDtypeStruct((1, 4000), float)
    program = jax.jit(BlockedTriangle.solve_gram_rows).lower(lower, row).compile()
    assert program.memory_analysis().temp_size_in_bytes < 0.01 * (8 * 4000**2)
