"""The empirical NTK against explicit Jacobians, the analytic kernel, and its promises on memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkbayes import networks
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.kernels import EmpiricalNTK, analytic_kernel
from ntkbayes.kernels.empirical.contractions import (
    CLASS_DIAGONAL,
    DIAGONAL,
    FULL,
    TRACED,
    Gradients,
    Grams,
)
from ntkbayes.kernels.empirical.ntk import _Computation
from ntkbayes.linalg.frugal import _LEAST_MEMORY
from ntkbayes.networks import Network


class Plain(Network):
    """A network from a function of parameters and features; its parameters are given."""

    function: object = eqx.field(static=True)

    def init(self, key, features):
        raise NotImplementedError

    def apply(self, params, features):
        return self.function(params, features)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def weights(*shapes):
    draws = (np.random.default_rng(10 + i).normal(size=shape) for i, shape in enumerate(shapes))
    return [jnp.asarray(draw / np.sqrt(len(draw))) for draw in draws]


def convolve(x, w, strides=(1, 1), padding="SAME", **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=numbers, **options
    )


# Each: function, parameters, shape of a point, and the leaves that are in no layer.
GRAM, GRADIENTS, JACOBIAN = "input Gram ∘ signal Gram", "per-point gradients", "explicit Jacobian"
CASES = {}


def case(params, point, loose=()):
    def register(function):
        CASES[function.__name__] = (function, params, point, loose)
        return function

    return register


@case({"w": normal(1, 3, 4), "b": normal(2, 4), "v": normal(3, 4, 2)}, (3,))
def dense(p, x):
    return jax.nn.relu(1.5 * (x @ p["w"]) / jnp.sqrt(3) + 0.1 * p["b"][None]) @ p["v"]


@case(tuple(weights((3, 4), (4, 4), (4, 2), (2,))), (3,))
def skip(p, x):
    h = jnp.tanh(x @ p[0])
    return (h + jnp.tanh(h @ p[1].T / 2)) @ p[2] - p[3][None]


@case(weights((3,), (1, 3)), (3,), ["[0]"])
def single_logit(p, x):
    return jnp.einsum("nd,cd->nc", x * p[0][None], p[1])


@case(weights((3, 3, 2, 3), (3,), (48, 2)), (4, 4, 2))
def conv_flatten(p, x):
    h = jax.nn.relu(convolve(x, p[0]) + p[1][None, None, None])
    return h.reshape(len(h), -1) @ p[2]


@case(weights((2, 3, 2, 3), (3,), (2, 2, 3, 4), (4, 2)), (6, 7, 2))
def conv_pooling(p, x):
    h = jnp.tanh(convolve(x, p[0], (2, 1), "VALID", rhs_dilation=(1, 2)) + p[1][None, None, None])
    h = jax.nn.gelu(convolve(h, p[2], padding=((1, 0), (0, 2)), lhs_dilation=(1, 2)))
    return jnp.mean(h, (1, 2)) @ p[3]


@case(weights((2, 2, 1, 4), (4,), (2, 2, 2, 4), (4, 3)), (4, 3, 2))
def conv_groups(p, x):
    h = jnp.tanh(convolve(x, p[0] * 0.5, feature_group_count=2) + p[1].reshape(1, 1, 1, 4))
    h = jnp.tanh(convolve(h, p[2], feature_group_count=2))
    return jnp.max(h, (1, 2)) @ p[3]


@case(weights((4, 2, 3), (4, 2, 3), (4, 6), (2, 3, 4), (4, 2)), (5, 4))
def attention(p, x):
    query, key = (jnp.einsum("nte,ehd->nthd", x, w) for w in p[:2])
    value = jnp.reshape(x @ p[2], (*x.shape[:2], 2, 3))
    weight = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", query, key) / 3**0.5)
    mixed = jnp.einsum("nhts,nshd,hde->nte", weight, value, p[3])
    return jnp.mean(x + mixed, 1) @ p[4]


@case(weights((3, 2, 4), (3, 4), (12, 2)), (3, 2))
def batched_weights(p, x):
    h = jnp.tanh(jnp.einsum("nbk,bko->nbo", x, p[0]) + p[1][None])
    return h.reshape(len(h), 12) @ p[2]


@case(weights((3, 4), (4, 2)), (3,), ["[0]"])
def tied_weights(p, x):
    h = jnp.tanh(jnp.tanh(x @ p[0]) @ p[0].T)
    return jnp.tanh(h @ p[0]) @ p[1]


@case(weights((2, 3), (3, 3), (3, 2)), (4, 2), ["[0]", "[1]"])
def recurrence(p, x):
    def step(h, x):
        return jnp.tanh(h @ p[1] + x @ p[0]), None

    h, _ = jax.lax.scan(step, jnp.zeros((len(x), 3)), x.transpose(1, 0, 2))
    return h @ p[2]


@case(weights((3, 4), (4,), (4,), (4, 2)), (3,), ["[1]", "[2]"])
def layer_norm(p, x):
    h = x @ p[0]
    h = (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1e-3)
    return jax.nn.relu(p[1][None] * h + p[2][None]) @ p[3]


@case(weights((5, 4), (4, 3)), (6,), ["[0]"])
def embedding(p, x):
    tokens = jnp.floor(2 * jnp.abs(x)).astype(int) % 5
    return jnp.mean(p[0][tokens], 1) @ p[1]


@case([*weights((3, 4), (4, 2)), normal(8, 7)], (3,))
def unused(p, x):
    return jnp.tanh(x @ p[0]) @ p[1] * 2


@case(weights((3, 3), (3, 3), (3, 2), (2,)), (3,), ["[3]"])
def weights_of_weights(p, x):
    """A product of two weights; an integer constant; a bias that the layer's input knows too."""
    h = jnp.tanh((x * jnp.arange(3)[None]) @ (p[0] @ p[1]))
    return (h + jnp.sum(p[3])) @ p[2] + p[3][None]


@case(weights((3, 3), (3, 2)), (3,), ["[0]"])
def own_derivative(p, x):
    """The rule, twice the derivative, is what must count."""

    @jax.custom_vjp
    def f(w, x):
        return x @ w

    f.defvjp(lambda w, x: (x @ w, (w, x)), lambda s, g: (2 * s[1].T @ g, g @ s[0].T))
    return jax.checkpoint(lambda w, h: jnp.tanh(h) @ w)(p[1], f(p[0], x))


def build(name, num_rows=4, num_columns=3):
    function, params, point, _ = CASES[name]
    x1, x2 = normal(5, num_rows, *point), normal(6, num_columns, *point)
    return EmpiricalNTK(Plain(function), params), x1, x2


def explicit(ntk, x1, x2):
    """Θ by definition: (n1, n2, C, C)."""

    def jacobian(x):
        leaves = jax.tree.leaves(jax.jacrev(lambda p: ntk.network.apply(p, x))(ntk.params))
        return jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], 2)

    return jnp.einsum("icp,jdp->ijcd", jacobian(x1), jacobian(x2))


QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def quickly(function, *arguments):
    """function(*arguments), compiled with little effort, which is most of these tests' time."""
    return jax.jit(function, compiler_options=QUICK)(*arguments)


def plan_of(ntk, x):
    """The plan, found while tracing: without the checks, which evaluate the network."""
    plans = []

    def find(params, x):
        plans.append(EmpiricalNTK(ntk.network, params, ntk.max_bytes).plan(x))

    jax.eval_shape(find, ntk.params, x)
    return plans[0]


def assert_close(actual, expected, rtol=1e-12):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())


def forms(ntk, x1, x2):
    return ntk.full(x1, x2), ntk.class_diagonal(x1, x2), ntk.traced(x1, x2), ntk.diagonal(x1)


# ------------------------------------------------------------------ values


@pytest.mark.parametrize("name", CASES)
def test_full_form_is_the_explicit_jacobian_product(name):
    """Of one network for so many points that its layers are contracted one after the other."""
    ntk, x1, x2 = build(name, *((17, 16) if name == "conv_pooling" else (4, 3)))

    def both(params, x1, x2):
        tangent = EmpiricalNTK(ntk.network, params)
        assert tangent.plan(x1, x2).at_once == (name == "conv_pooling")
        return tangent.full(x1, x2), explicit(tangent, x1, x2)

    assert_close(*quickly(both, ntk.params, x1, x2))


@pytest.mark.parametrize("name", ["conv_pooling", "tied_weights"])
def test_other_forms_are_entries_of_the_full_form(name):
    ntk, x1, _ = build(name)
    full, class_diagonal, traced, diagonal = quickly(
        lambda p, x: forms(EmpiricalNTK(ntk.network, p), x, None), ntk.params, x1
    )
    assert_close(class_diagonal, jnp.einsum("ijcc->ijc", full))
    assert_close(traced, jnp.einsum("ijcc->ij", full) / full.shape[-1])
    assert_close(diagonal, jnp.einsum("iicd->icd", full))


def test_both_contractions_of_a_layer_are_the_same_sum():
    """Of a grouped convolution: G = 2, T = 12. The sum is written out with every index."""
    ntk, x, _ = build("conv_groups")
    layer = _Computation(ntk, FULL, x, None).structure.layers[1]
    assert (layer.groups, layer.positions) == (2, 12)
    image, signals = normal(0, 3, 1, 4, 3, 4), normal(1, 3, 2, 1, 4, 3, 4)
    all_forms = FULL, CLASS_DIAGONAL, TRACED, DIAGONAL

    def shares(image, signals):
        kept = [jax.vmap(way.keep)((image, signals)) for way in ways]
        return [
            [way.share(form, k, k) for form in all_forms] for way, k in zip(ways, kept, strict=True)
        ]

    ways = Grams(layer), Gradients(layer)
    a = jax.vmap(lambda image: layer.activations((image,)))(image)
    delta = jax.vmap(layer.signals)(signals)
    assert a.shape == (3, 2, 12, 8)
    for way in quickly(shares, image, signals):
        for form, share in zip(all_forms, way, strict=True):
            left, right = form.left, form.right
            written = f"{left[0]}gtk,{right[0]}gsk,{left}gto,{right}gso->{form.result}"
            expected = np.einsum(written, a, a, delta, delta, optimize=True)
            assert_close(share, jnp.asarray(expected))


def test_product_is_that_with_the_full_form():
    ntk, x1, x2 = build("skip")
    v = normal(9, 3, 2)
    full, product = quickly(lambda x1, x2: (ntk.full(x1, x2), ntk.product(x1, x2, v)), x1, x2)
    assert_close(product, jnp.einsum("ijcd,jd->ic", full, v))


@pytest.mark.parametrize("max_bytes", [2**30, 4000])
def test_kernels_of_an_ensemble_are_those_of_its_members(max_bytes):
    ntk, x, _ = build("dense")
    members = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), ntk.params)
    together = quickly(jax.vmap(lambda p: EmpiricalNTK(ntk.network, p, max_bytes).full(x)), members)
    one_by_one = quickly(
        lambda p: jax.lax.map(lambda p: EmpiricalNTK(ntk.network, p).full(x), p), members
    )
    assert_close(together, one_by_one)


def test_precision_is_that_of_parameters_and_features():
    ntk, x, _ = build("dense")
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), ntk.params)
    result = EmpiricalNTK(ntk.network, single).full(np.asarray(x, np.float32))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(
        result, quickly(lambda x: ntk.full(x), x), rtol=0, atol=1e-5 * float(jnp.max(result))
    )


def test_parameters_may_be_a_module():
    model = eqx.filter_eval_shape(eqx.nn.MLP, 3, 2, 4, 1, key=jax.random.key(0))
    shapes, static = eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    leaves = jax.tree.map(lambda like: normal(0, *like.shape), shapes)
    ntk = EmpiricalNTK(Plain(lambda p, x: jax.vmap(eqx.combine(p, static))(x)), leaves)
    x = normal(0, 3, 3)
    assert_close(*quickly(lambda x: (ntk.full(x), explicit(ntk, x, x)), x))
    assert [step.how for step in plan_of(ntk, x).steps] == [GRAM, GRAM]


def test_one_point_is_enough():
    ntk, x, _ = build("single_logit")
    assert_close(ntk.full(x[:1]), ntk.full(x)[:1, :1])


def test_without_parameters_nothing_moves():
    ntk = EmpiricalNTK(Plain(lambda p, x: x), [normal(0, 2)])
    for num_points in (3, 17):
        assert not ntk.full(normal(1, num_points, 2)).any()
    assert "no influence" in str(ntk.plan(normal(1, 3, 2)))


# ------------------------------------------------------------------ blocks and memory


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("max_bytes", [2**30, 2**16])
def test_the_matrix_orders_the_full_form_by_point_then_output(symmetric, max_bytes):
    ntk, *_ = build("dense")
    x1, x2 = normal(0, 39, 3), None if symmetric else normal(1, 33, 3)
    tangent = EmpiricalNTK(ntk.network, ntk.params, max_bytes)
    matrix, full = quickly(lambda x1, x2: (tangent.matrix(x1, x2), tangent.full(x1, x2)), x1, x2)
    num_classes = full.shape[-1]
    rows = full.transpose(0, 2, 1, 3).reshape(39 * num_classes, -1)
    np.testing.assert_array_equal(matrix, rows)
    i, c, j, d = 7, 1, 20, 0
    np.testing.assert_array_equal(
        matrix[i * num_classes + c, j * num_classes + d], full[i, j, c, d]
    )


@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_change_nothing(symmetric):
    """From blocks of everything to single pairs of points, signals held and not."""
    ntk, *_ = build("dense")
    x1, x2 = normal(0, 39, 3), None if symmetric else normal(1, 33, 3)
    bounds = 2**30, 2**16, 6_000
    seen = set()

    def all_blocks(x1, x2):
        bounded = [EmpiricalNTK(ntk.network, ntk.params, max_bytes) for max_bytes in bounds]
        plans = [each.plan(x1, x2) for each in bounded]
        seen.update((plan.rows, plan.at_once, plan.holds_all) for plan in plans)
        return [each.full(x1, x2) for each in bounded]

    expected, *others = quickly(all_blocks, x1, x2)
    for other in others:
        assert_close(other, expected)
    assert len(seen) == 3
    assert {plan[1:] for plan in seen} == {(True, True), (False, True), (False, False)}


def test_points_that_are_not_held_pass_once_where_those_on_the_other_side_are():
    ntk, *_ = build("dense")
    x1, x2 = normal(0, 40, 3), normal(1, 330, 3)
    tangent = EmpiricalNTK(ntk.network, ntk.params, 150_000)
    plan = tangent.plan(x1, x2)
    assert (plan.at_once, plan.holds_all) == (False, False)
    assert plan.rows == len(x1)
    assert plan.num_bytes <= plan.max_bytes
    bounded, whole = quickly(lambda x1, x2: (tangent.full(x1, x2), ntk.full(x1, x2)), x1, x2)
    assert_close(bounded, whole)


@pytest.mark.parametrize("form", ["full", "traced", "diagonal"])
def test_memory_stays_below_the_bound_where_jacobians_need_ten_times_as_much(form):
    network = networks.mlp(depth=2, width=256, num_outputs=4)
    x = normal(0, 64, 8)
    params = jax.eval_shape(network.init, jax.random.key(1), x)
    bound = 4 * 2**20
    plans = []

    def evaluate(params, x):
        ntk = EmpiricalNTK(network, params, bound)
        plans.append(ntk.plan(x, form=form))
        return getattr(ntk, form)(x)

    memory = jax.jit(evaluate, compiler_options=QUICK).lower(params, x).compile().memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    assert used <= plans[0].num_bytes <= bound
    jacobian = 64 * 4 * sum(8 * leaf.size for leaf in jax.tree.leaves(params))
    assert jacobian > 10 * bound


@pytest.mark.parametrize("form", ["traced", "class_diagonal"])
def test_gradients_of_a_convolution_are_in_memory_once(form):
    """XLA's count is below the predicted one: no side is copied to bring classes into another order."""

    def function(p, x):
        x = jax.nn.relu(convolve(x, p[0]))
        x = jax.nn.relu(convolve(x, p[1], (2, 2)))
        return x.reshape(len(x), -1) @ p[2]

    params = weights((3, 3, 1, 32), (3, 3, 32, 64), (1024, 10))
    x, ntk = normal(0, 400, 8, 8, 1), EmpiricalNTK(Plain(function), params, 2**28)
    plan = ntk.plan(x, form=form)
    assert plan.steps[1].how == GRADIENTS
    assert plan.steps[1].bytes_held > plan.num_bytes / 2
    program = jax.jit(lambda ntk, x: getattr(ntk, form)(x), compiler_options=QUICK | _LEAST_MEMORY)
    memory = program.lower(ntk, x).compile().memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    assert used <= plan.num_bytes <= plan.max_bytes


def test_only_the_gradients_of_one_layer_are_in_memory():
    """Those of all six take more than everything; XLA's count is below the predicted one."""

    def function(p, x):
        for w in p[:-1]:
            x = jnp.tanh(x @ w)
        return jnp.mean(x, 1) @ p[-1]

    params, x = weights(*[(32, 32)] * 6, (32, 4)), normal(0, 16, 8, 32)
    plan = plan_of(EmpiricalNTK(Plain(function), params), x)
    assert [step.how for step in plan.steps] == [GRADIENTS] * 6 + [GRAM]
    full = jax.jit(lambda p, x: EmpiricalNTK(Plain(function), p).full(x), compiler_options=QUICK)
    memory = full.lower(params, x).compile().memory_analysis()
    predicted = plan.num_bytes
    assert memory.temp_size_in_bytes + memory.argument_size_in_bytes <= predicted
    assert 1.5 * predicted < 16 * 4 * sum(leaf.nbytes for leaf in params)


def test_a_bound_too_small_for_a_pair_of_points_is_refused():
    ntk, x, _ = build("conv_flatten")
    ntk = EmpiricalNTK(ntk.network, ntk.params, 2000)
    with pytest.raises(ConfigurationError, match=r"max_bytes is 2000, but .* needs \d+ bytes"):
        ntk.full(x)


def test_parameters_that_are_not_finite_are_refused():
    ntk, x, _ = build("dense")
    broken = EmpiricalNTK(ntk.network, ntk.params | {"b": jnp.full(4, jnp.nan)})
    for evaluate in (broken.full, broken.traced, broken.diagonal, broken.plan):
        with pytest.raises(ConfigurationError):
            evaluate(x)


# ------------------------------------------------------------------ plan


@pytest.mark.parametrize("name", CASES)
def test_only_what_is_not_linear_needs_an_explicit_jacobian(name):
    ntk, x, _ = build(name)
    explicit = [step for step in plan_of(ntk, x).steps if step.how == JACOBIAN]
    assert [name for step in explicit for name in step.parameters] == list(CASES[name][3])


def test_grams_are_for_large_weights_and_gradients_for_many_positions():
    shapes = (3, 3, 8, 8), (512, 64), (64, 3)

    def function(p, x):
        return jnp.tanh(jnp.tanh(convolve(x, p[0]).reshape(len(x), -1)) @ p[1]) @ p[2]

    ntk = EmpiricalNTK(Plain(function), weights(*shapes))
    plan = plan_of(ntk, normal(0, 20, 8, 8, 8))
    assert [step.how for step in plan.steps] == [GRADIENTS, GRAM, GRAM]
    assert all(f"{way}  " in str(plan) for way in (GRADIENTS, GRAM))


def test_dense_layers_and_their_biases_are_one_step():
    network = networks.mlp(depth=2, width=5, num_outputs=2, skip=True)
    x = normal(0, 3, 4)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    plan = plan_of(EmpiricalNTK(network, params), x)
    expected = [(f"[{layer}][0]", f"[{layer}][1]") for layer in range(3)]
    assert [step.parameters for step in plan.steps] == expected


def test_operations_are_counted():
    """n = 3, C = 2, one dense layer 4 → 5 and its bias: Grams of 5 and 5, and their product."""
    weight, bias, readout = normal(0, 4, 5), normal(1, 5), normal(2, 5, 2)
    ntk = EmpiricalNTK(Plain(lambda p, x: (x @ p[0] + p[1][None]) @ readout), [weight, bias])
    (step,) = ntk.plan(normal(3, 3, 4)).steps
    assert step.operations == 2 * 9 * (5 + 4 * 5 + 4)


def test_an_unknown_form_is_refused():
    ntk, x, _ = build("dense")
    with pytest.raises(UnknownNameError, match="known are: full, class_diagonal"):
        ntk.plan(x, form="trace")


# ------------------------------------------------------------------ infinite width


def test_wide_networks_have_the_analytic_kernel_at_rate_one_over_root_width():
    """Oracle 1 of THEORY 8. Over 16 seeds each mean distance is known to about 10 %."""
    x = normal(0, 4, 3)
    limit = quickly(
        lambda x: analytic_kernel(networks.mlp(depth=2, width=1, num_outputs=2)).cross(x, x).ntk, x
    )

    def distance(width):
        network = networks.mlp(depth=2, width=width, num_outputs=2)

        def at(key):
            return EmpiricalNTK(network, network.init(key, x)).traced(x)

        keys = jax.random.split(jax.random.key(1), 16)
        kernels = np.asarray(quickly(lambda keys: jax.lax.map(at, keys), keys))
        differences = np.linalg.norm(kernels - np.asarray(limit)[None], axis=(1, 2))
        return np.mean(differences) / np.linalg.norm(limit)

    narrow, wide = distance(16), distance(256)
    assert wide < 0.15
    slope = np.log(wide / narrow) / np.log(256 / 16)
    assert -0.65 < slope < -0.35
