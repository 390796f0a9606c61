"""neural-tangents, brought to life on today's JAX: what works and what is left behind."""

import sys
from types import ModuleType

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import ad

from ntkbayes.bridges.neural_tangents import from_stax, load
from ntkbayes.errors import ConfigurationError, MissingDependencyError

nt = load()
stax = nt.stax

DROPPED_NAMES = [
    *((jax.core, name) for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")),
    (ad, "zeros_like_p"),
]


def dense(width: int = 32):
    return stax.Dense(width, W_std=1.3, b_std=0.2)


def residual():
    branch = stax.serial(stax.Relu(), dense())
    skip = stax.parallel(stax.Identity(), branch)
    return stax.serial(dense(), stax.FanOut(2), skip, stax.FanInSum(), dense(3))


def convolutional(*end):
    return stax.serial(stax.Conv(8, (3, 3), padding="SAME"), stax.Relu(), *end, dense(3))


def attention():
    layer = stax.GlobalSelfAttention(
        n_chan_out=8, n_chan_key=8, n_chan_val=8, n_heads=2, attention_mechanism="IDENTITY"
    )
    return stax.serial(dense(), layer, stax.GlobalAvgPool(), dense(3))


def normal(seed: int, *shape: int):
    return jax.random.normal(jax.random.key(seed), shape)


VECTORS, SEQUENCES, IMAGES = (5, 4), (4, 3, 2), (4, 4, 4, 2)
ARCHITECTURES = {
    "relu": (lambda: stax.serial(dense(), stax.Relu(), dense(3)), VECTORS),
    "erf": (lambda: stax.serial(dense(), stax.Erf(), dense(3)), VECTORS),
    "gelu": (lambda: stax.serial(dense(), stax.Gelu(), dense(3)), VECTORS),
    "leaky relu": (lambda: stax.serial(dense(), stax.LeakyRelu(0.1), dense(3)), VECTORS),
    "layer norm": (
        lambda: stax.serial(dense(), stax.LayerNorm(), stax.Relu(), dense(3)),
        VECTORS,
    ),
    "residual": (residual, VECTORS),
    "convolution": (lambda: convolutional(stax.Flatten()), IMAGES),
    "pooling": (lambda: convolutional(stax.AvgPool((2, 2), (2, 2)), stax.Flatten()), IMAGES),
    "global pooling": (lambda: convolutional(stax.GlobalAvgPool()), IMAGES),
    "attention": (attention, SEQUENCES),
}


@pytest.fixture(scope="module")
def finite():
    """A small finite network, its parameters and two batches of inputs."""
    init, apply, kernel = stax.serial(dense(16), stax.Erf(), dense(3))
    params = init(jax.random.key(0), VECTORS)[1]
    return init, apply, kernel, params, normal(1, 4, 4), normal(2, *VECTORS)


@pytest.fixture
def not_imported(monkeypatch):
    """The state before the first `load`; the imported package comes back after the test."""
    for name in list(sys.modules):
        if name == "neural_tangents" or name.startswith("neural_tangents."):
            monkeypatch.delitem(sys.modules, name)


def test_load_needs_no_tensorflow(not_imported):
    before = "tensorflow" in sys.modules
    fresh = load()
    assert isinstance(fresh, ModuleType)
    assert fresh is not nt
    assert ("tensorflow" in sys.modules) == before


def test_load_is_idempotent():
    assert load() is load() is sys.modules["neural_tangents"]


def test_load_leaves_an_imported_package_alone(monkeypatch):
    package = ModuleType("neural_tangents")
    monkeypatch.setitem(sys.modules, "neural_tangents", package)
    assert load() is package
    assert not hasattr(package, "stax")


def test_load_leaves_no_stub_behind(not_imported):
    fresh = load()
    assert "neural_tangents.experimental" not in sys.modules
    assert "jax.util" not in sys.modules
    assert not hasattr(fresh, "experimental")


def test_load_leaves_jax_as_it_was(not_imported):
    before = [hasattr(module, name) for module, name in DROPPED_NAMES]
    load()
    assert [hasattr(module, name) for module, name in DROPPED_NAMES] == before


def test_missing_package_names_the_remedy(not_imported, monkeypatch):
    monkeypatch.setitem(sys.modules, "neural_tangents", None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps neural-tangents"):
        load()


def test_from_stax_without_the_package_says_how_to_install_it_without_tensorflow(
    not_imported, monkeypatch
):
    monkeypatch.setitem(sys.modules, "neural_tangents", None)
    remedy = r"neural_tangents is not installed.*without TensorFlow.*--no-deps.*install frozendict"
    with pytest.raises(MissingDependencyError, match=remedy):
        from_stax(nt.stax.Relu())


def test_missing_frozendict_names_the_remedy(not_imported, monkeypatch):
    monkeypatch.setitem(sys.modules, "frozendict", None)
    with pytest.raises(MissingDependencyError, match=r"frozendict is not installed.*pip install"):
        load()


def test_failed_import_names_versions_keeps_its_cause_and_leaves_nothing(not_imported, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delattr(ad, "Zero")
        with pytest.raises(MissingDependencyError, match=rf"jax {jax.__version__}") as caught:
            load()
    assert isinstance(caught.value.__cause__, ImportError)
    assert not [name for name in sys.modules if name.startswith("neural_tangents")]
    assert not any(hasattr(module, name) for module, name in DROPPED_NAMES)
    assert load().stax


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.filterwarnings("ignore:`FanIn` layers assume:UserWarning")
@pytest.mark.filterwarnings("ignore:Linear scaling attention:UserWarning")
def test_analytic_kernels_are_finite_symmetric_and_positive_semidefinite(name):
    make, shape = ARCHITECTURES[name]
    init, apply, kernel = make()
    x = normal(0, *shape)
    params = init(jax.random.key(1), shape)[1]
    assert apply(params, x).shape == (shape[0], 3)
    for gram in jax.jit(lambda x: kernel(x, None, ("nngp", "ntk")))(x):
        gram = np.asarray(gram)
        assert gram.dtype == np.float64
        np.testing.assert_allclose(gram, gram.T, rtol=1e-13)
        eigenvalues = np.linalg.eigvalsh(gram)
        assert eigenvalues[0] > -1e-12 * eigenvalues[-1]


def test_numerical_activation_approaches_its_closed_form(recwarn):
    x = normal(0, *VECTORS)
    numerical = stax.ElementwiseNumerical(jax.scipy.special.erf, deg=100)
    approximate, exact = (
        jax.jit(stax.serial(dense(), layer, dense())[2], static_argnames="get")(x, get="ntk")
        for layer in (numerical, stax.Erf())
    )
    np.testing.assert_allclose(approximate, exact, rtol=1e-4)
    assert {str(warning.message)[:20] for warning in recwarn} >= {"Numerical Activation"}


def test_relu_kernels_on_the_diagonal_are_exact_in_float64():
    x = np.asarray(normal(0, *VECTORS))
    nngp, ntk = stax.serial(dense(), stax.Relu(), dense())[2](x, x, ("nngp", "ntk"))
    first = 1.3**2 * (x**2).mean(axis=1) + 0.2**2
    second = 1.3**2 * first / 2 + 0.2**2
    np.testing.assert_allclose(np.diag(nngp), second, rtol=1e-14)
    np.testing.assert_allclose(np.diag(ntk), second + 1.3**2 * first / 2, rtol=1e-14)


def test_jit_leaves_relu_kernels_half_their_digits_on_the_diagonal():
    """XLA fuses v·v − v² into rounding noise, and its square root is an angle of about 1e-8."""
    x = normal(0, *VECTORS)
    kernel = stax.serial(dense(), stax.Relu(), dense())[2]
    exact, compiled = kernel(x, None, "ntk"), jax.jit(lambda x: kernel(x, None, "ntk"))(x)
    off_diagonal = ~np.eye(len(x), dtype=bool)
    np.testing.assert_allclose(compiled[off_diagonal], exact[off_diagonal], rtol=1e-14)
    np.testing.assert_allclose(compiled, exact, rtol=1e-7)


def test_kernel_is_differentiable_in_its_hyperparameters():
    x = normal(0, *VECTORS)

    @jax.jit
    def total(weight_std):
        layers = stax.Dense(1, weight_std, 0.2), stax.Erf(), stax.Dense(1, weight_std, 0.2)
        return stax.serial(*layers)[2](x, None, "ntk").sum()

    step = 1e-5
    difference = (total(1.3 + step) - total(1.3 - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(1.3), difference, rtol=1e-7)


@pytest.mark.parametrize("trace_axes", [(), (-1,)])
def test_vector_products_agree_with_jacobian_contraction(finite, trace_axes):
    _, apply, _, params, x1, x2 = finite
    contracted, products = (
        jax.jit(nt.empirical_ntk_fn(apply, trace_axes=trace_axes, implementation=implementation))(
            x1, x2, params
        )
        for implementation in (
            nt.NtkImplementation.JACOBIAN_CONTRACTION,
            nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
        )
    )
    assert contracted.shape == ((4, 5) if trace_axes else (4, 5, 3, 3))
    np.testing.assert_allclose(products, contracted, rtol=1e-12, atol=1e-13)


def test_vector_products_split_an_output_of_several_arrays(finite):
    _, apply, _, params, x1, x2 = finite

    def pair(params, x):
        logits = apply(params, x)
        return logits, (logits**2).sum(axis=-1, keepdims=True)

    contracted, products = (
        jax.jit(nt.empirical_ntk_fn(pair, implementation=implementation))(x1, x2, params)
        for implementation in (1, 2)
    )
    assert len(products) == 2
    for product, contraction in zip(products, contracted, strict=True):
        np.testing.assert_allclose(product, contraction, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("implementation", [0, 3])
def test_structured_derivatives_are_refused_by_name(finite, implementation):
    with pytest.raises(ConfigurationError, match="NTK_VECTOR_PRODUCTS"):
        nt.empirical_ntk_fn(finite[1], implementation=implementation)


def test_monte_carlo_kernel_tends_to_the_analytic_one():
    init, apply, kernel = stax.serial(dense(256), stax.Relu(), dense(1))
    x = normal(0, 3, 4)
    estimate = nt.monte_carlo_kernel_fn(init, apply, jax.random.key(0), 64, vmap_axes=0)
    np.testing.assert_allclose(estimate(x, None, "ntk"), kernel(x, None, "ntk"), rtol=0.2)


def test_batched_kernel_is_the_kernel(finite):
    _, _, kernel, _, _, x = finite
    x1, x2 = x[:4], x[1:5]
    batched = nt.batch(kernel, batch_size=2, device_count=0)
    for get in ("nngp", "ntk"):
        np.testing.assert_allclose(batched(x1, x2, get), kernel(x1, x2, get), rtol=1e-13)


def test_linearised_network_is_the_network_at_its_own_parameters(finite):
    _, apply, _, params, x, _ = finite
    np.testing.assert_allclose(nt.linearize(apply, params)(params, x), apply(params, x), rtol=1e-13)


def test_infinite_training_interpolates_the_targets(finite):
    _, _, kernel, _, x_test, x = finite
    gram, cross, targets = kernel(x, None, "ntk"), kernel(x_test, x, "ntk"), normal(3, 5, 3)
    train, test = nt.predict.gradient_descent_mse(gram, targets)(
        None, jnp.zeros((5, 3)), jnp.zeros((4, 3)), cross
    )
    np.testing.assert_allclose(train, targets, rtol=1e-10)
    np.testing.assert_allclose(test, cross @ np.linalg.solve(gram, targets), rtol=1e-9)


def test_long_training_approaches_infinite_training(finite):
    _, _, kernel, _, x_test, x = finite
    gram, cross, targets = kernel(x, None, "ntk"), kernel(x_test, x, "ntk"), normal(3, 5, 3)
    predict = nt.predict.gradient_descent_mse(gram, targets)
    zeros = jnp.zeros((5, 3)), jnp.zeros((4, 3))
    np.testing.assert_allclose(
        predict(1e6, *zeros, cross)[1], predict(None, *zeros, cross)[1], rtol=1e-8
    )


def test_largest_learning_rate_is_set_by_the_largest_eigenvalue(finite):
    _, _, kernel, _, _, x = finite
    gram = kernel(x, None, "ntk")
    rate = nt.predict.max_learning_rate(gram, y_train_size=1, eps=0.0)
    np.testing.assert_allclose(rate, 2 / np.linalg.eigvalsh(gram)[-1], rtol=1e-12)
