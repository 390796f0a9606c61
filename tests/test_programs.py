"""Traced programs whose convolutions are rearranged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ntkbayes.networks.programs import channels_last, inlined

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


def test_convolutions_within_a_loop_all_have_their_channels_last():
    x, w = jax.random.normal(KEY, (3, 2, 8, 8, 1)), jax.random.normal(KEY, (3, 3, 1, 4))

    @channels_last
    def slope(x, w):
        same = {"layout": ("NHWC", "HWIO", "NHWC"), "window_strides": (1, 1)}
        return jax.grad(lambda w: jnp.sum(jax.nn.relu(convolve(x, w, **same))))(w)

    def loop(x, w):
        return lax.map(lambda part: slope(part, w), x)

    (body,) = [
        equation.params["jaxpr"]
        for equation in inlined(jax.make_jaxpr(loop)(x, w)).jaxpr.eqns
        if equation.primitive.name == "scan"
    ]
    layouts = [
        equation.params["dimension_numbers"]
        for equation in body.jaxpr.eqns
        if equation.primitive.name == "conv_general_dilated"
    ]
    assert len(layouts) == 2
    assert {layout.lhs_spec for layout in layouts} == {(0, 3, 1, 2)}
    assert {layout.rhs_spec for layout in layouts} == {(3, 2, 0, 1)}


def test_programs_without_convolutions_keep_their_numbers():
    def function(x, *, scale):
        total, path = lax.scan(lambda total, v: (total + v, total), jnp.zeros(()), x * scale)
        return total, jax.jit(jnp.sin)(path), jax.nn.relu(x)

    x = jax.random.normal(KEY, (5,))
    found, expected = (f(x, scale=2.0) for f in (channels_last(function), function))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
