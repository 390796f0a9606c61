"""A sweep over ridges, scales and seeds compiles once."""

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.training import conjugate_gradients
from ntkbayes.training.linearised import EXACT_ROWS

FEATURES, LABELS = oracle.blobs(4, 31, 3)
METHODS = {
    "MAP": nb.MAP(),
    "random init, few": nb.RandomInit(num_inits=2),
    "random init, many": nb.RandomInit(num_inits=5),
    "first order": nb.FirstOrder(),
    "Laplace": nb.Laplace(),
    "pruned Laplace": nb.PrunedLaplace(),
}


@pytest.mark.parametrize("count", [EXACT_ROWS + 3, 31], ids=["many points", "few points"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_other_ridges_scales_and_seeds_do_not_compile_again(method, count, programs):
    features, labels = oracle.blobs(4, count, 3)

    def study(ridge, seed):
        key = jax.random.key(seed)
        data = nb.Dataset(features + seed, np.roll(labels, seed))
        network = nb.networks.mlp(depth=1, weight_std=1.5 + seed, bias_std=0.1 * ridge)
        law = method.fit(nb.NTKPrior(network, ridge=ridge), data, key=key)
        law.sample(key, features[:7], 2)
        law.variance(features[:7])

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


BUDGET = 59  # programs; lower it whenever fewer do


def test_a_study_keeps_to_its_budget_of_programs_and_another_ridge_or_seed_needs_none(
    tmp_path, programs
):
    methods = {
        "MAP": nb.MAP(),
        "random init": nb.RandomInit(),
        "first order": nb.FirstOrder(),
        "Laplace": nb.Laplace(),
    }

    def study(folder, ridge, seed):
        prior = nb.NTKPrior(nb.networks.mlp(), ridge=ridge)
        wine = nb.Study("wine", prior, methods=methods, baselines=False, seed=seed)
        wine.run(tmp_path / folder)

    compiled = programs(lambda: study("first", 0.1, 0))
    assert 0 < len(compiled) <= BUDGET, "\n".join(compiled)
    assert programs(lambda: study("ridge", 0.2, 0)) == []
    assert programs(lambda: study("seed", 0.2, 1)) == []


def test_refinement_with_factors_in_float32_compiles_conjugate_gradients_once_a_shape(
    monkeypatch, programs
):
    steps = []
    iterate = conjugate_gradients.conjugate_gradients

    def counted(objective, initial, *given):
        steps.append(initial.shape)
        return iterate(objective, initial, *given)

    monkeypatch.setattr(conjugate_gradients, "conjugate_gradients", counted)
    count = EXACT_ROWS + 5
    data = nb.Dataset(*oracle.blobs(5, count, 3))  # a shape of its own
    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1)
    method = nb.RandomInit(num_inits=3, factor_dtype="float32")
    messages = programs(lambda: method.fit(prior, data, key=jax.random.key(0)))
    compiled = [message for message in messages if "conjugate_gradients" in message]
    assert set(steps) == {(1, count, 3), (3, count, 3)}  # the centre, and the draws
    assert len(steps) > len(compiled) == 2
