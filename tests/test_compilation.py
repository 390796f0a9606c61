"""A sweep over ridges, scales and seeds compiles once."""

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.training import linearised

FEATURES, LABELS = oracle.blobs(4, 31, 3)
METHODS = {
    "MAP": nb.MAP(),
    "random init, few": nb.RandomInit(num_inits=2),
    "random init, many": nb.RandomInit(num_inits=5),
    "first order": nb.FirstOrder(),
    "Laplace": nb.Laplace(),
    "pruned Laplace": nb.PrunedLaplace(),
}


@pytest.mark.parametrize("exact_points", [20, 100], ids=["many points", "few points"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_other_ridges_scales_and_seeds_do_not_compile_again(
    method, exact_points, monkeypatch, caplog
):
    monkeypatch.setattr(linearised, "EXACT_POINTS", exact_points)

    def compiled(ridge, seed):
        caplog.clear()
        key = jax.random.key(seed)
        data = nb.Dataset(FEATURES + seed, np.roll(LABELS, seed))
        with jax.log_compiles():
            network = nb.networks.mlp(depth=1, weight_std=1.5 + seed, bias_std=0.1 * ridge)
            law = method.fit(nb.NTKPrior(network, ridge=ridge), data, key=key)
            law.sample(key, FEATURES[:7], 2)
            law.variance(FEATURES[:7])
        return [r.message for r in caplog.records if "Finished XLA compilation" in r.message]

    compiled(0.5, 0)
    assert compiled(0.3, 1) == []
    assert compiled(2.0, 2) == []


def test_the_evidence_of_other_ridges_and_scales_does_not_compile_again(caplog):
    data = nb.Dataset(FEATURES, LABELS)

    def compiled(ridge):
        caplog.clear()
        with jax.log_compiles():
            network = nb.networks.mlp(depth=1, weight_std=1.5 * ridge, bias_std=0.1)
            nb.log_evidence(nb.NTKPrior(network, ridge=ridge), data)
        return [r.message for r in caplog.records if "Finished XLA compilation" in r.message]

    assert compiled(0.5)
    assert compiled(0.3) == []


def test_refinement_with_factors_in_float32_compiles_conjugate_gradients_once_a_shape(
    monkeypatch, caplog
):
    monkeypatch.setattr(linearised, "EXACT_POINTS", 20)
    steps = []
    iterate = linearised._conjugate_gradients
    monkeypatch.setattr(
        linearised, "_conjugate_gradients", lambda *a: steps.append(a[4].shape) or iterate(*a)
    )
    features, labels = oracle.blobs(5, 37, 3)  # a shape of its own
    with jax.log_compiles():
        nb.RandomInit(num_inits=3, factor_dtype="float32").fit(
            nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1),
            nb.Dataset(features, labels),
            key=jax.random.key(0),
        )
    messages = [r.message for r in caplog.records if "Finished XLA compilation" in r.message]
    compiled = [m for m in messages if "_conjugate_gradients" in m]
    assert set(steps) == {(1, 37, 3), (3, 37, 3)}  # the centre, and the draws
    assert len(steps) > len(compiled) == 2
