"""A sweep over ridges, scales and seeds compiles once."""

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.training import conjugate_gradients, linearised

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
    method, exact_points, monkeypatch, programs
):
    monkeypatch.setattr(linearised, "EXACT_POINTS", exact_points)

    def study(ridge, seed):
        key = jax.random.key(seed)
        data = nb.Dataset(FEATURES + seed, np.roll(LABELS, seed))
        network = nb.networks.mlp(depth=1, weight_std=1.5 + seed, bias_std=0.1 * ridge)
        law = method.fit(nb.NTKPrior(network, ridge=ridge), data, key=key)
        law.sample(key, FEATURES[:7], 2)
        law.variance(FEATURES[:7])

    study(0.5, 0)
    assert programs(lambda: study(0.3, 1)) == []
    assert programs(lambda: study(2.0, 2)) == []


def test_the_evidence_of_other_ridges_and_scales_does_not_compile_again(programs):
    data = nb.Dataset(FEATURES, LABELS)

    def evidence(ridge):
        network = nb.networks.mlp(depth=1, weight_std=1.5 * ridge, bias_std=0.1)
        nb.log_evidence(nb.NTKPrior(network, ridge=ridge), data)

    assert programs(lambda: evidence(0.5))
    assert programs(lambda: evidence(0.3)) == []


def test_refinement_with_factors_in_float32_compiles_conjugate_gradients_once_a_shape(
    monkeypatch, programs
):
    monkeypatch.setattr(linearised, "EXACT_POINTS", 20)
    steps = []
    iterate = conjugate_gradients.conjugate_gradients

    def counted(*given):
        steps.append(given[4].shape)
        return iterate(*given)

    for module in (conjugate_gradients, linearised):
        monkeypatch.setattr(module, "conjugate_gradients", counted)
    data = nb.Dataset(*oracle.blobs(5, 37, 3))  # a shape of its own
    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1)
    method = nb.RandomInit(num_inits=3, factor_dtype="float32")
    messages = programs(lambda: method.fit(prior, data, key=jax.random.key(0)))
    compiled = [message for message in messages if "conjugate_gradients" in message]
    assert set(steps) == {(1, 37, 3), (3, 37, 3)}  # the centre, and the draws
    assert len(steps) > len(compiled) == 2
