"""Gradients of the evidence in scales and ridge against 60 digits, where inputs coincide above all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import evidence as oracle

import ntkbayes as nb
from ntkbayes.kernels import analytic_kernel
from ntkbayes.networks.activations import GaussianPair, LeakyReLU
from ntkbayes.selection import evidence_gradient

KEY = jax.random.key(0)
WORKER = Path(__file__).parent / "gradients_worker.py"


def special_inputs():
    """Generic, equal, collinear, nearly equal, opposite and zero inputs, and labels that disagree."""
    a, b, c = np.random.default_rng(3).standard_normal((3, 3))
    features = np.stack([a, b, c, a, 2 * a, a + 1e-7 * b, -a, 0 * a])
    return features, np.array([0, 1, 1, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("activation", "depth", "bias_std"),
    [("relu", 2, 0.01), ("leaky_relu", 4, 0.3), ("gelu", 3, 0.3), ("erf", 1, 2.0), ("sin", 2, 0.3)],
)
def test_the_default_gradient_of_the_evidence_is_that_of_sixty_digits(activation, depth, bias_std):
    features, labels = special_inputs()
    options = {"activation": activation, "depth": depth, "weight_std": 1.5, "bias_std": bias_std}
    prior = nb.NTKPrior(nb.networks.mlp(**options), ridge=0.5)
    found = evidence_gradient(prior, nb.Dataset(features, labels))
    expected = oracle.evidence_gradient(
        features, labels, ridge=0.5, over=("bias_std", "ridge"), **options
    )
    for name, slope in expected.items():
        np.testing.assert_allclose(found[name], slope, rtol=1e-7, err_msg=name)


def test_an_optimising_compiler_leaves_the_default_gradient_what_it_is():
    """In a process of its own: the other tests compile without optimisations, and so without the fused
    loops that compute a round-off twice, and differently."""
    unset = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)}
    done = subprocess.run(
        [sys.executable, str(WORKER)],
        env={**unset, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(1)
    features, labels = rng.standard_normal((30, 4)), rng.integers(0, 2, 30)
    expected = oracle.evidence_gradient(
        features,
        labels,
        ridge=0.5,
        over=("bias_std", "ridge"),
        activation="relu",
        depth=2,
        weight_std=1.5,
        bias_std=0.3,
    )
    assert abs(expected["bias_std"] + 0.2326) < 1e-4
    found = json.loads(done.stdout)
    for name, slope in expected.items():
        np.testing.assert_allclose(found[name], slope, rtol=1e-7)


def test_no_derivative_of_the_angle_of_a_sum_needs_another_to_cancel_against_where_inputs_coincide():
    """Up to the last digit of a standard deviation, in which compiled programs may differ."""
    for std2 in (1.3, np.nextafter(1.3, 2), 1.3 * (1 - 1e-15)):
        u = GaussianPair.of_angle(*map(jnp.asarray, (1.3, std2, 0.0)))
        bias = GaussianPair.alike(jnp.asarray(0.7))

        def angle(u, bias):
            return LeakyReLU(0.0).moments(u + bias)[0].angle

        assert angle(u, bias) < 1e-15
        of_u, of_bias = jax.grad(angle, argnums=(0, 1))(u, bias)
        for slope in (of_u.std1, of_u.std2, of_bias.std1, of_bias.std2):
            assert abs(slope) < 1e-14


def test_gradients_of_kernels_are_the_same_in_both_modes_and_both_precisions():
    features = special_inputs()[0]

    def slopes(mode, dtype):
        x = jnp.asarray(features, dtype)

        def theta(stds):
            network = nb.networks.mlp(depth=2, weight_std=stds[0], bias_std=stds[1], skip=True)
            return analytic_kernel(network).cross(x, x).ntk

        return jax.jit(mode(theta))(jnp.asarray([1.5, 0.3], dtype))

    truth = slopes(jax.jacfwd, jnp.float64)
    scale = np.abs(truth).max()
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(slopes(mode, jnp.float64), truth, atol=1e-13 * scale)
        single = slopes(mode, jnp.float32)
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, truth, atol=1e-5 * scale)
