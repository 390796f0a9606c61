"""A network as a function of some of its parameters."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.networks import from_functions, part

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((14, 3)))
NEW = jnp.asarray(np.random.default_rng(1).standard_normal((4, 3)))
DATA = nb.Dataset(np.asarray(X), np.arange(14) % 3)


def initial(key, x):
    first, last = jax.random.split(key)
    return {
        "body": {"weight": jax.random.normal(first, (3, 6)), "bias": jnp.ones(6)},
        "head": {"weight": jax.random.normal(last, (6, 3)) / 2, "bias": jnp.zeros(3)},
    }


def features(params, x):
    return jnp.tanh(x @ params["body"]["weight"] + params["body"]["bias"][None])


def function(params, x):
    return features(params, x) @ params["head"]["weight"] + params["head"]["bias"][None]


NETWORK = from_functions(initial, function)
PARAMS = initial(KEY, X)


def test_the_kernel_of_the_last_layer_is_the_conjugate_kernel():
    last = part(NETWORK, PARAMS, "head")
    kernel = EmpiricalKernel(last, last.of(PARAMS))
    left, right = features(PARAMS, NEW), features(PARAMS, X)
    by_hand = np.kron(left @ right.T + 1, np.eye(3))
    block = nb.NTKPrior(kernel, ridge=1.0).cross(NEW, X).ntk
    np.testing.assert_allclose(block.every_output(3), by_hand, atol=1e-12)


def scaled(params, x):
    return function(params, x) / 3 + x[:, :1]


def pooled(params, x):
    parts = jnp.stack([x, 2 * x], axis=1) @ params["body"]["weight"]
    return jnp.mean(jnp.tanh(parts) @ params["head"]["weight"], axis=1)


def bent(params, x):
    return jnp.tanh(function(params, x))


def by_feature(params, x):
    return function(params, x) * x


@pytest.mark.parametrize(
    ("apply", "over", "is_shared"),
    [
        (function, "head", True),
        (function, "head/weight", True),
        (scaled, "head", True),
        (function, "body", False),
        (function, "head/bias", False),
        (function, "*/weight", False),
        (bent, "head", False),
        (by_feature, "head", False),
        (pooled, "head/weight", False),
    ],
)
def test_outputs_share_the_kernel_of_a_readout_and_of_nothing_else(apply, over, is_shared):
    network = from_functions(initial, apply)
    prior = nb.linearise(network, PARAMS, ridge=0.5, over=over)
    chosen = part(network, PARAMS, over)
    flat, unravel = jax.flatten_util.ravel_pytree(chosen.of(PARAMS))
    left, right = (
        jax.jacrev(lambda v, x=x: chosen.apply(unravel(v), x))(flat).reshape(-1, len(flat))
        for x in (NEW, X)
    )
    cross, gram = prior.cross(NEW, X).ntk, prior.gram(X).ntk
    assert gram.couples is not is_shared
    np.testing.assert_allclose(cross.every_output(3), left @ right.T, atol=1e-12)
    np.testing.assert_allclose(gram.every_output(3), right @ right.T, atol=1e-12)
    own = np.asarray(left @ left.T).reshape(4, 3, 4, 3)[range(4), :, range(4)]
    diagonal = np.asarray(prior.diagonal(NEW).ntk)
    diagonal = diagonal[:, None, None] * np.eye(3) if is_shared else diagonal
    np.testing.assert_allclose(diagonal, own, atol=1e-12)


def test_a_readout_whose_products_are_asked_for_has_the_laws_of_the_shared_kernel():
    shared, products = (
        nb.Laplace(tolerance=1e-9).fit(
            nb.linearise(NETWORK, PARAMS, ridge=0.5, over="head", max_rows=rows), DATA
        )
        for rows in (None, 0)
    )
    assert shared.problem.gram.ntk.couples is False
    assert products.problem.gram.ntk.couples is True
    np.testing.assert_allclose(shared.mean(NEW), products.mean(NEW), atol=1e-7)
    np.testing.assert_allclose(shared.covariance(NEW), products.covariance(NEW), atol=1e-6)


def test_last_layer_laplace_is_that_of_a_linear_model_on_the_features():
    law = nb.Laplace().fit(nb.linearise(NETWORK, PARAMS, ridge=0.5, over="head"), DATA)

    def kernel(x1, x2):
        return features(PARAMS, x1) @ features(PARAMS, x2).T + 1

    mean = lambda x: function(PARAMS, x)  # noqa: E731
    by_hand = nb.Laplace().fit(
        nb.NTKPrior(nb.kernels.FunctionKernel(kernel), ridge=0.5, mean=mean), DATA
    )
    np.testing.assert_allclose(law.mean(NEW), by_hand.mean(NEW), atol=1e-7)
    np.testing.assert_allclose(law.covariance(NEW), by_hand.covariance(NEW), atol=1e-7)
    assert law.info.log_evidence == pytest.approx(by_hand.info.log_evidence, abs=1e-9)


def test_all_parts_together_are_the_network():
    whole = nb.linearise(NETWORK, PARAMS, ridge=0.5)
    parts = nb.linearise(NETWORK, PARAMS, ridge=0.5, over=["body", "*/bias", "head/weight"])
    np.testing.assert_allclose(parts.gram(X).ntk, whole.gram(X).ntk, atol=1e-12)


def test_an_anchor_moves_the_chosen_parameters_alone():
    anchor = jax.tree.map(lambda leaf: leaf + 0.1, PARAMS)
    prior = nb.linearise(NETWORK, PARAMS, ridge=0.5, anchor=anchor, over="head/bias")
    expected = function(PARAMS, NEW) + 0.1
    np.testing.assert_allclose(prior.mean_logits(NEW, 3), expected, atol=1e-12)


def test_initial_functions_draw_the_chosen_parameters_and_keep_the_others():
    bias = part(NETWORK, PARAMS, "*/bias")
    fresh = bias.init(jax.random.key(5), X)
    assert sorted(fresh) == ["body/bias", "head/bias"]
    np.testing.assert_allclose(bias.apply(fresh, NEW), function(PARAMS, NEW), atol=1e-12)


@pytest.mark.parametrize("over", ["tail", ["head", "body/kernel"], []])
def test_a_path_that_matches_nothing_is_named_beside_those_that_there_are(over):
    with pytest.raises(UnknownNameError, match=r"body/bias.*head/weight"):
        nb.linearise(NETWORK, PARAMS, ridge=0.5, over=over)


def test_an_anchor_of_another_structure_is_refused():
    with pytest.raises(ConfigurationError, match="anchor"):
        nb.linearise(NETWORK, PARAMS, ridge=0.5, anchor={"head": PARAMS["head"]}, over="head")
