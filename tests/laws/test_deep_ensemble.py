"""Deep ensembles: mini-batches, an optimiser, early stopping, and what may go wrong with a member."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataWarning, DivergenceError, StorageError
from ntkbayes.training.networks import Trainer

KEY = jax.random.key(3)
FEATURES, LABELS = oracle.blobs(5, 40, 2)
NOISY = np.where(np.random.default_rng(0).uniform(size=40) < 0.3, 1 - LABELS, LABELS)
DATA = nb.Dataset(FEATURES, NOISY)
NETWORK = nb.networks.mlp(depth=1, width=64)
PRIOR = nb.NTKPrior(NETWORK, ridge=0.01, mean=0.2)
SHORT = nb.DeepEnsemble(NETWORK, num_networks=3, num_epochs=6, validation_share=0.25)


def logits(law):
    return np.asarray(law.sample(KEY, FEATURES))


def test_without_batches_and_validation_it_is_gradient_descent_on_the_loss_of_the_prior():
    method = nb.DeepEnsemble(
        NETWORK,
        num_networks=2,
        optimizer=optax.sgd(0.4),
        batch_size=40,
        num_epochs=25,
        validation_share=0.0,
        dtype=jnp.float64,
    )
    law = method.fit(PRIOR, DATA, key=KEY)
    _, init_key, _ = jax.random.split(KEY, 3)
    start = jax.vmap(lambda key: NETWORK.init(key, law.problem.features))(
        jax.random.split(init_key, 2)
    )
    trainer = Trainer(NETWORK, law.problem.likelihood, ridge=0.01, step_size=0.4 / 40)
    targets = law.problem.targets
    state = trainer.start(start, targets, offset=jnp.full((2, 40, 1), 0.2))
    end = trainer.run(state, law.problem.features, targets, num_steps=25).params
    for ours, theirs in zip(jax.tree.leaves(law.params), jax.tree.leaves(end), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert np.isnan(law.info.validation_loss)
    assert law.info.best_epoch == 25
    density = [law.problem.likelihood.log_density(targets, f) for f in jnp.asarray(logits(law))]
    assert law.info.training_loss == pytest.approx(-float(np.mean(density)), abs=1e-6)


def test_a_network_is_kept_as_it_was_where_its_validation_loss_was_lowest():
    method = dataclasses.replace(SHORT, optimizer=optax.adam(0.02), batch_size=10)
    problem = method.problem(PRIOR, DATA, None)
    train, validation = method._split(problem, KEY)
    params = jax.vmap(lambda key: NETWORK.init(key, problem.features))(KEY[None])

    def run(patience: int, num_epochs: int = 40):
        stopping = method._stopping(problem, len(train.targets))
        stopping = dataclasses.replace(stopping, patience=patience, num_epochs=num_epochs)
        start = stopping.trainer.start(params, train.targets, offset=train.offset, key=KEY)
        told = {}
        return stopping.run(start, train, validation, tell=told.__setitem__), list(told.values())

    kept, losses = run(patience=40)
    best = int(np.argmin(losses))
    assert 3 < best < 35
    assert (kept.epoch, kept.validation_loss) == (best + 1, losses[best])
    exact, _ = run(patience=40, num_epochs=best + 1)
    for ours, theirs in zip(
        jax.tree.leaves(kept.state.params), jax.tree.leaves(exact.state.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    _, impatient = run(patience=2)
    assert impatient == losses[: len(impatient)]
    stops = [i for i in range(3, 41) if min(losses[:i]) < min(losses[i - 2 : i])]
    assert len(impatient) == stops[0]


def test_another_number_of_networks_changes_none_of_them():
    three = SHORT.fit(PRIOR, DATA, key=KEY)
    two = dataclasses.replace(SHORT, num_networks=2).fit(PRIOR, DATA, key=KEY)
    np.testing.assert_allclose(logits(three)[:2], logits(two), atol=1e-6)
    assert np.abs(logits(three)[1] - logits(three)[0]).max() > 0.1


@pytest.mark.filterwarnings("error")
def test_networks_that_diverge_are_named_and_the_others_kept():
    fragile = nb.networks.from_functions(
        lambda key, x: jax.random.normal(key, (2,), x.dtype),
        lambda w, x: jnp.where(w[0] > 0.3, jnp.nan, 1.0) * (x @ w)[:, None],
    )
    method = dataclasses.replace(SHORT, network=fragile, num_networks=6)
    starts = jax.random.split(jax.random.split(jax.random.key(0), 3)[1], 6)
    doomed = [
        i for i, key in enumerate(starts) if jax.random.normal(key, (2,), jnp.float32)[0] > 0.3
    ]
    assert 0 < len(doomed) < 5
    assert doomed[0] > 0  # the first is looked at before training
    named = ", ".join(map(str, doomed))
    with pytest.warns(DataWarning, match=rf"networks {named} diverged.*{6 - len(doomed)} of 6"):
        law = method.fit(PRIOR, DATA, key=jax.random.key(0))
    assert law.num_draws == law.info.num_networks == 6 - len(doomed)
    assert np.isfinite(logits(law)).all()
    wild = dataclasses.replace(method, network=NETWORK, optimizer=optax.sgd(1e30))
    with pytest.raises(DivergenceError, match="of 6 networks 0 kept a finite loss"):
        wild.fit(PRIOR, DATA, key=KEY)


def test_an_interrupted_ensemble_trains_what_is_missing(tmp_path, monkeypatch):
    method = dataclasses.replace(SHORT, folder=tmp_path / "networks")
    whole = method.fit(PRIOR, DATA, key=KEY)
    assert sorted(p.name for p in (tmp_path / "networks").iterdir()) == [
        f"network-{i}.npz" for i in range(3)
    ]
    (tmp_path / "networks" / "network-1.npz").unlink()
    trained = []
    advance = Trainer.advance
    monkeypatch.setattr(
        Trainer, "advance", lambda self, *args: trained.append(1) or advance(self, *args)
    )
    again = method.fit(PRIOR, DATA, key=KEY)
    assert 0 < len(trained) <= 6
    np.testing.assert_array_equal(logits(again), logits(whole))
    assert again.info == whole.info
    with pytest.raises(StorageError, match="a checkpoint of another training"):
        method.fit(PRIOR, nb.Dataset(FEATURES + 1, NOISY), key=KEY)


def test_every_class_keeps_a_point_to_be_trained_on():
    rare = nb.Dataset(FEATURES, [2, *LABELS[1:]], class_names=range(3))
    network = dataclasses.replace(NETWORK, num_outputs=3)
    method = dataclasses.replace(SHORT, network=network, num_networks=2, validation_share=0.9)
    prior = nb.NTKPrior(network, ridge=0.01)
    train, validation = method._split(method.problem(prior, rare, None), KEY)
    assert (np.asarray(train.targets).sum(axis=0) >= 1).all()
    assert len(validation.targets) >= 35


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 64}, "batch_size is 64, but there are 30 points"),
        ({"validation_share": 0.01}, "of 40 points holds out none"),
        ({"validation_share": 1.5}, "must lie in"),
        ({"num_epochs": 0}, "num_epochs must be at least 1; got 0"),
        ({"patience": 0}, "patience must be at least 1; got 0"),
        ({"num_networks": 1}, "num_networks must be at least 2; got 1"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        dataclasses.replace(SHORT, **changes).fit(PRIOR, DATA, key=KEY)
