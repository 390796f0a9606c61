"""Analytic kernels against neural-tangents, brute-force quadrature and exact decimals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.kernels import (
    exact_leaky_kernels,
    leaky_moments,
    plane_moments,
    recursion,
)

from ntkbayes import networks
from ntkbayes.bridges.neural_tangents import load
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.kernels import KernelPair, MLPKernel, analytic_kernel
from ntkbayes.networks.activations import (
    GELU,
    Elementwise,
    Erf,
    GaussianPair,
    Identity,
    LeakyReLU,
    get,
)

quick = settings(deadline=None, derandomize=True, max_examples=20)
stax = load().stax


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def kernel(**options):
    return analytic_kernel(networks.mlp(**options))


def assert_pairs_close(actual, expected, rtol, atol=0.0):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@jax.jit
def compiled_cross(kernel, x1, x2):
    return kernel.cross(x1, x2)


# ------------------------------------------------------------------ neural-tangents

ACTIVATIONS = {
    "relu": ("relu", lambda: stax.Relu()),
    "leaky_relu": ("leaky_relu", lambda: stax.LeakyRelu(0.01)),
    "steep leaky_relu": (LeakyReLU(0.3), lambda: stax.LeakyRelu(0.3)),
    "erf": ("erf", lambda: stax.Erf()),
    "gelu": ("gelu", lambda: stax.Gelu()),
    "identity": ("identity", lambda: stax.Identity()),
}


def stax_kernel(activation, depth, weight_std, bias_std, skip):
    def dense():
        return stax.Dense(1, W_std=weight_std, b_std=bias_std)

    layers = [dense()]
    for _ in range(depth - 1):
        branch = stax.serial(activation(), dense())
        residual = stax.FanOut(2), stax.parallel(stax.Identity(), branch), stax.FanInSum()
        layers += residual if skip else [branch]
    return stax.serial(*layers, activation(), dense())[2]


@pytest.mark.parametrize(
    ("depth", "skip"), [(1, False), (2, False), (4, False), (2, True), (4, True)]
)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore:`FanIn` layers assume:UserWarning")
def test_kernels_are_those_of_neural_tangents(name, depth, skip):
    """Measured: 2e-13 at worst, most of it neural-tangents' own angle."""
    ours, theirs = ACTIVATIONS[name]
    x = normal(0, 6, 3)
    for weight_std, bias_std in itertools.product((1.0, 1.5), (0.0, 0.1)):
        mine = kernel(
            depth=depth, activation=ours, weight_std=weight_std, bias_std=bias_std, skip=skip
        )
        expected = stax_kernel(theirs, depth, weight_std, bias_std, skip)(x, None, ("nngp", "ntk"))
        assert_pairs_close(mine.cross(x, x), expected, rtol=1e-12)


# ------------------------------------------------------------------ moments of activations

STDS = [(0.3, 1.1), (1.0, 1.0), (1.5, 0.7)]
ANGLES = [0.0, 1e-3, 0.4, np.pi / 2, 2.5, np.pi]


def moments(activation, std1, std2, angle):
    pair, slope = activation.moments(GaussianPair.of_angle(*map(jnp.asarray, (std1, std2, angle))))
    return float(pair.covariance), float(slope)


def gaussian_cdf(x):
    return scipy.special.ndtr(x)


def gaussian_pdf(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


SMOOTH = {
    "erf": (Erf(), scipy.special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2))),
    "gelu": (
        GELU(),
        lambda x: x * gaussian_cdf(x),
        lambda x: gaussian_cdf(x) + x * gaussian_pdf(x),
    ),
    "identity": (Identity(), lambda x: x, np.ones_like),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_moments_of_smooth_activations_are_gaussian_expectations(name):
    activation, function, derivative = SMOOTH[name]
    for (std1, std2), angle in itertools.product(STDS, ANGLES):
        expected = plane_moments(function, derivative, std1, std2, angle)
        np.testing.assert_allclose(
            moments(activation, std1, std2, angle), expected, rtol=1e-10, atol=1e-14
        )


@pytest.mark.parametrize("std", [1.0, 1e3, 1e7])
def test_moments_of_collinear_inputs_of_any_size_are_those_of_one_dimension(std):
    """u and v = ±3u: the products of variances cancel in the determinant, to what is added to them."""
    pair = GaussianPair.of_angle(
        *(jnp.array([x, x]) for x in (std, 3 * std)), jnp.array([0.0, jnp.pi])
    )
    cov, root = 3 * std**2 * np.array([1, -1]), np.sqrt(1 + 20 * std**2)
    erf = 2 / np.pi * np.arctan(2 * cov / root), 4 / np.pi / root * np.ones(2)
    np.testing.assert_allclose(Erf().expectation(pair), erf[0], rtol=1e-14)
    np.testing.assert_allclose(Erf().derivative_expectation(pair), erf[1], rtol=1e-14)
    # φ'(u) → 1 where u > 0 as u grows, and 0 elsewhere.
    if std > 1:
        np.testing.assert_allclose(GELU().derivative_expectation(pair), [0.5, 0.0], atol=1 / std)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3, 1.0])
def test_moments_of_leaky_relu_are_gaussian_expectations(slope):
    for (std1, std2), angle in itertools.product(STDS, ANGLES):
        np.testing.assert_allclose(
            moments(LeakyReLU(slope), std1, std2, angle),
            leaky_moments(slope, std1, std2, angle),
            rtol=1e-10,
            atol=1e-12,
        )


@pytest.mark.parametrize(
    ("closed", "function"), [(Erf(), jax.scipy.special.erf), (GELU(), GELU().__call__)]
)
def test_quadrature_agrees_with_closed_forms(closed, function):
    quadrature = Elementwise(function)
    stds = jnp.array([0.5, 1.0, 1.0]), jnp.array([1.0, 0.7, 1.0])
    pair = GaussianPair.of_angle(*stds, jnp.array([0.3, 2.0, 0.0]))
    for (a, slope_a), (b, slope_b) in [(closed.moments(pair), quadrature.moments(pair))]:
        np.testing.assert_allclose(b.covariance, a.covariance, rtol=1e-10)
        np.testing.assert_allclose(slope_b, slope_a, rtol=1e-10)


def test_quadrature_is_exact_for_polynomials():
    for (std1, std2), angle in itertools.product(STDS, ANGLES):
        covariance, product = std1 * std2 * np.cos(angle), std1 * std2
        square = moments(Elementwise(jnp.square, num_terms=3), std1, std2, angle)
        np.testing.assert_allclose(
            square, (product**2 + 2 * covariance**2, 4 * covariance), 1e-12, 1e-14
        )
        cube = moments(Elementwise(lambda x: x**3, num_terms=4), std1, std2, angle)
        second = 9 * product**2 * covariance + 6 * covariance**3
        np.testing.assert_allclose(
            cube, (second, 9 * (product**2 + 2 * covariance**2)), 1e-12, 1e-14
        )


def test_a_function_is_an_activation():
    assert get(jnp.tanh) == Elementwise(jnp.tanh) == get("tanh")


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("name", "rtol"), [("tanh", 1e-7), ("sin", 1e-12)])
def test_kernels_by_quadrature_are_the_recursion_by_brute_force(name, rtol, skip):
    """tanh has poles at ±iπ/2, so its Hermite series ends later than that of the entire sin."""
    x = normal(1, 3, 4)
    options = {"depth": 2, "weight_std": 1.2, "bias_std": 0.2, "skip": skip}
    function, derivative = {
        "tanh": (np.tanh, lambda u: 1 / np.cosh(u) ** 2),
        "sin": (np.sin, np.cos),
    }[name]

    def brute_force(std1, std2, angle):
        return plane_moments(function, derivative, std1, std2, angle)

    actual = kernel(activation=name, **options).cross(x, x)
    for i, j in itertools.product(range(3), range(3)):
        expected = recursion(np.asarray(x[i]), np.asarray(x[j]), brute_force, **options)
        np.testing.assert_allclose([block[i, j] for block in actual], expected, rtol=rtol)


# ------------------------------------------------------------------ geometry of the inputs

EXACT = [
    {"slope": slope, "depth": depth, "weight_std": 1.5, "bias_std": bias_std, "skip": skip}
    for slope, depth, bias_std, skip in [
        (0.0, 1, 0.0, False),
        (0.0, 3, 0.1, False),
        (0.3, 3, 0.0, False),
        (0.01, 4, 0.1, True),
    ]
]


def leaky_kernel(*, slope, **options):
    return kernel(activation=LeakyReLU(slope), **options)


def special_inputs():
    """Generic, equal, near-collinear, collinear, antipodal, near-antipodal and zero inputs."""
    x, y, *_ = np.asarray(normal(2, 4, 3))
    near = 1e-9 * y
    rows = [x, y, x, x * (1 + 1e-9), x + near, x + 1e-5 * y, 3 * x, -x, -x + near, -2 * x, 0 * x]
    return np.stack(rows)


@pytest.mark.parametrize("options", EXACT)
def test_kernels_are_exact_to_round_off_for_every_pair_of_inputs(options):
    x = special_inputs()
    actual = leaky_kernel(**options).cross(*[jnp.asarray(x)] * 2)
    expected = np.array([[exact_leaky_kernels(a, b, **options) for a in x] for b in x])
    expected = KernelPair(expected[..., 0], expected[..., 1])
    for block, truth in zip(actual, expected, strict=True):
        scale = np.sqrt(np.outer(np.diag(truth), np.diag(truth)))
        np.testing.assert_array_less(np.abs(block - truth), 1e-14 * scale + 1e-300)


def test_small_angles_survive_a_layer_where_arccos_loses_half_of_their_digits():
    x = np.asarray(normal(2, 2, 3))
    x1, x2 = x[0], x[0] + 1e-9 * x[1]
    options = {"slope": 0.0, "depth": 2, "weight_std": 1.5, "bias_std": 0.0}

    def arccos_moments(std1, std2, angle):
        pair, slope = LeakyReLU(0.0).moments(
            GaussianPair.of_angle(*map(jnp.asarray, (std1, std2, angle)))
        )
        return float(pair.covariance), float(slope)

    exact = exact_leaky_kernels(x1, x2, **options)[1]
    ours = leaky_kernel(**options).cross(jnp.asarray(x1[None]), jnp.asarray(x2[None])).ntk[0, 0]
    del options["slope"]
    naive = recursion(x1, x2, arccos_moments, **options)[1]
    assert abs(ours / exact - 1) < 1e-14
    assert abs(naive / exact - 1) > 1e-11


@pytest.mark.parametrize(
    ("activation", "skip"),
    [("relu", False), ("relu", True), ("erf", True), ("gelu", True), ("tanh", True)],
)
def test_diagonal_of_the_gram_is_the_diagonal(activation, skip):
    x = jnp.concatenate([normal(3, 5, 3), jnp.zeros((1, 3))])
    mine = kernel(activation=activation, depth=3, skip=skip)
    gram = mine.cross(x, x)
    assert_pairs_close(KernelPair(*map(jnp.diagonal, gram)), mine.diagonal(x), rtol=1e-14)


def test_relu_kernels_without_bias_are_homogeneous():
    x = normal(4, 5, 3)
    mine = kernel(depth=3, bias_std=0.0)
    diagonal = mine.diagonal(x)
    for factor in (1e-3, 0.7, 5.0, 1e4):
        scaled = KernelPair(*map(jnp.diagonal, mine.cross(x, factor * x)))
        assert_pairs_close(scaled, KernelPair(*(factor * k for k in diagonal)), rtol=1e-14)


def test_first_layer_of_relu_kernels_of_antipodal_inputs_is_zero_without_bias():
    x = normal(4, 5, 3)
    pair = kernel(depth=1, bias_std=0.0).cross(x, -x)
    for block, diagonal in zip(pair, kernel(depth=1, bias_std=0.0).diagonal(x), strict=True):
        np.testing.assert_array_less(np.abs(np.diagonal(block)), 1e-15 * diagonal)


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu", "tanh"])
def test_gram_with_duplicates_and_the_origin_is_symmetric_and_positive_semidefinite(activation):
    x = normal(5, 5, 2)
    x = jnp.concatenate([x, x, 2 * x, -x, jnp.zeros((1, 2))])
    for gram in compiled_cross(kernel(activation=activation, depth=2), x, x):
        np.testing.assert_allclose(gram, gram.T, rtol=1e-14, atol=1e-15)
        eigenvalues = np.linalg.eigvalsh(gram)
        assert eigenvalues[0] > -1e-13 * eigenvalues[-1]


def test_without_bias_the_origin_has_zero_kernels():
    x = jnp.concatenate([normal(5, 3, 2), jnp.zeros((1, 2))])
    for block in kernel(bias_std=0.0).cross(x, x):
        np.testing.assert_array_equal(block[3], 0.0)


@quick
@given(st.integers(0, 2**31 - 1))
def test_kernels_are_invariant_under_rotations_of_the_features(seed):
    rng = np.random.default_rng(seed)
    x, rotation = rng.normal(size=(4, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    mine = kernel()
    x, rotated = jnp.asarray(x), jnp.asarray(x @ rotation)
    assert_pairs_close(compiled_cross(mine, rotated, rotated), compiled_cross(mine, x, x), 1e-13)


@quick
@given(st.integers(0, 2**31 - 1))
def test_kernels_are_symmetric_in_their_arguments(seed):
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(8, 3)))
    a = compiled_cross(kernel(skip=True), x[:4], x[4:])
    b = compiled_cross(kernel(skip=True), x[4:], x[:4])
    assert_pairs_close(a, KernelPair(b.nngp.T, b.ntk.T), 1e-14)


# ------------------------------------------------------------------ hyper-parameters


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_compiled_kernels_are_the_kernels(activation):
    x = jnp.asarray(special_inputs())
    mine = kernel(activation=activation, depth=3, skip=True)
    assert_pairs_close(compiled_cross(mine, x, x), mine.cross(x, x), rtol=1e-13, atol=1e-14)


def test_kernels_of_many_weight_stds_at_once_are_each_ones():
    x, weight_stds = normal(6, 4, 3), jnp.array([0.5, 1.0, 2.0])
    many = jax.vmap(lambda weight_std: kernel(weight_std=weight_std).cross(x, x))(weight_stds)
    for i, weight_std in enumerate(weight_stds):
        one = kernel(weight_std=float(weight_std)).cross(x, x)
        assert_pairs_close((many.nngp[i], many.ntk[i]), one, rtol=1e-13)


@pytest.mark.parametrize(
    ("activation", "skip"),
    [("relu", False), ("relu", True), ("erf", False), ("gelu", False), ("tanh", False)],
)
def test_gradients_in_the_hyperparameters_are_finite_differences(activation, skip):
    """At equal, collinear, antipodal and zero inputs too."""
    a, b = normal(7, 2, 3)
    x = jnp.stack([a, b, a, 2 * a, -a, jnp.zeros(3)])

    def both(theta):
        options = {"weight_std": theta[0], "bias_std": theta[1]}
        return jnp.stack(kernel(activation=activation, depth=2, skip=skip, **options).cross(x, x))

    @jax.jit
    def slopes(theta):
        return both(theta), jax.jacfwd(both)(theta), jax.jacrev(both)(theta)

    step = 1e-5
    for start in (jnp.array([1.2, 0.0]), jnp.array([1.2, 0.3])):
        differences = jnp.stack(
            [
                (slopes(start + step * e)[0] - slopes(start - step * e)[0]) / (2 * step)
                for e in jnp.eye(2)
            ],
            -1,
        )
        _, forward, reverse = slopes(start)
        np.testing.assert_allclose(forward, differences, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-9)


def test_networks_without_analytic_kernels_are_refused():
    with pytest.raises(ConfigurationError, match="no analytic kernel is known for 'mlp'"):
        analytic_kernel("mlp")


def test_unknown_activations_are_refused_by_name():
    with pytest.raises(UnknownNameError, match="unknown activation 'relo'"):
        kernel(activation="relo")


def test_the_kernel_of_an_mlp_is_its_analytic_kernel():
    assert isinstance(kernel(), MLPKernel)
