"""Traced programs whose convolutions are rearranged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

from ntkbayes import networks
from ntkbayes.kernels import EmpiricalKernel, EmpiricalNTK, jacobian
from ntkbayes.likelihood import Categorical
from ntkbayes.networks.programs import channels_last
from ntkbayes.training.networks.trainer import Trainer, _advance

KEY = jax.random.key(0)


def convolve(x, w, layout=("NCHW", "OIHW", "NCHW"), **settings):
    given = {"window_strides": (1, 2), "padding": "SAME", **settings}
    return lax.conv_general_dilated(x, w, dimension_numbers=layout, **given)


CASES = {
    "channels first": ((2, 4, 7, 6), (5, 4, 3, 2), {}),
    "channels last": ((2, 7, 6, 4), (3, 2, 4, 5), {"layout": ("NHWC", "HWIO", "NHWC")}),
    "points last": ((4, 7, 6, 2), (4, 3, 2, 5), {"layout": ("CHWN", "IHWO", "HWNC")}),
    "groups": ((2, 4, 7, 6), (6, 2, 3, 2), {"feature_group_count": 2}),
    "groups of points": ((4, 3, 7, 6), (6, 3, 3, 2), {"batch_group_count": 2}),
    "dilated": (
        (2, 4, 7, 6),
        (5, 4, 3, 2),
        {"rhs_dilation": (2, 1), "lhs_dilation": (1, 2), "padding": ((0, 0), (0, 0))},
    ),
    "one axis": (
        (2, 4, 9),
        (5, 4, 3),
        {"layout": ("NCH", "OIH", "NCH"), "window_strides": (2,)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_convolutions_and_their_derivatives_stay_the_same(case):
    left, right, settings = CASES[case]
    x, w = (
        jax.random.normal(key, shape)
        for key, shape in zip(jax.random.split(KEY), (left, right), strict=True)
    )

    def derivatives(x, w):
        def loss(x, w):
            return jnp.sum(jnp.tanh(convolve(x, w, **settings)))

        value, slopes = jax.value_and_grad(loss, argnums=(0, 1))(x, w)
        return {"value": value, "slopes": slopes, "logits": convolve(x, w, **settings)}

    found, expected = channels_last(derivatives)(x, w), derivatives(x, w)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected
    )


def convolutions(jaxpr):
    """Layouts of the convolutions of a program, and of the programs within it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.params["dimension_numbers"]
        for inner in jaxprs_in_params(equation.params):
            yield from convolutions(inner)


CNN = networks.cnn(channels=(3, 4), num_outputs=2)
TRAINER = Trainer(CNN, Categorical(), ridge=0.1, step_size=0.1)
IMAGES = jax.random.normal(KEY, (6, 4, 4, 1))


def slopes(params):
    return jax.grad(lambda params: jnp.sum(CNN.apply(params, IMAGES) ** 2))(params)


def steps(params):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    targets = jnp.eye(2)[jnp.arange(6) % 2]
    state = TRAINER.start(stacked, targets)
    return _advance(TRAINER, jnp.asarray(3), state, IMAGES, targets)[0].params


def products(params):
    block = EmpiricalKernel(CNN, params, max_rows=0).cross(IMAGES, IMAGES).ntk
    return block @ jnp.ones((3, 6, 2))


def kernels(params):
    return EmpiricalNTK(CNN, params, max_bytes=30_000).full(IMAGES)


@pytest.mark.parametrize("work", [steps, products, kernels])
def test_what_goes_through_networks_in_loops_has_the_channels_of_convolutions_last(
    work, monkeypatch
):
    monkeypatch.setattr(jacobian, "PASS_BYTES", 1000)
    params = CNN.init(KEY, IMAGES)
    program, plain = (jax.make_jaxpr(part)(params).jaxpr for part in (work, slopes))
    found = [(layout.lhs_spec, layout.rhs_spec) for layout in convolutions(program)]
    last = ((0, 3, 1, 2), (3, 2, 0, 1))
    assert len(found) >= 2
    assert set(found) == {last}
    assert any((layout.lhs_spec, layout.rhs_spec) != last for layout in convolutions(plain))


def test_programs_without_convolutions_keep_their_numbers():
    def function(x, *, scale):
        total, path = lax.scan(lambda total, v: (total + v, total), jnp.zeros(()), x * scale)
        return total, jax.jit(jnp.sin)(path), jax.nn.relu(x)

    x = jax.random.normal(KEY, (5,))
    found, expected = (f(x, scale=2.0) for f in (channels_last(function), function))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
