"""Gradient descent on real networks: against linearised training, and whatever may go wrong."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DivergenceError, StorageError, UnknownNameError
from ntkbayes.likelihood import Bernoulli, Categorical, LogConcave, Normal, Poisson
from ntkbayes.linalg import SharedGram
from ntkbayes.training import networks as finite
from ntkbayes.training.flow import GradientFlow
from ntkbayes.training.linearised import train
from ntkbayes.training.networks import Trainer
from ntkbayes.training.networks.trainer import _batch
from ntkbayes.training.objective import Objective

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (12, 2))
Y = jax.nn.one_hot(jnp.arange(12) % 3, 3)
SOFT = 0.8 * Y + 0.2 / 3
NETWORK = nb.networks.mlp(depth=1, width=16, num_outputs=3, activation="erf")
START = jax.vmap(lambda key: NETWORK.init(key, X))(jax.random.split(KEY, 3))
RIDGE = 0.3
ETA = finite.stable_step_size(NETWORK, START, X, Categorical(), RIDGE)
TRAINER = Trainer(NETWORK, Categorical(), ridge=RIDGE, step_size=ETA)


def linear(features):
    """A network that is its own linearisation, with its NTK."""
    at = jnp.concatenate([jnp.sin(features), jnp.ones((len(features), 1))], axis=1)
    network = nb.networks.from_functions(
        lambda key, x: jax.random.normal(key, (3, 3)),
        lambda params, x: jnp.concatenate([jnp.sin(x), jnp.ones((len(x), 1))], axis=1) @ params,
    )
    return network, SharedGram(at @ at.T)


LINEAR, NTK = linear(X)
LINEAR_START = LINEAR.init(KEY, X)[None]


def linear_trainer(step_size=None, **settings):
    largest = finite.largest_eigenvalue(LINEAR, LINEAR_START, X)
    if "optimizer" not in settings:
        settings["step_size"] = step_size or 1 / (0.5 * largest + RIDGE)
    return Trainer(LINEAR, Categorical(), ridge=RIDGE, **settings)


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


# --- where it ends, and when ----------------------------------------------------------------------


@pytest.mark.parametrize("targets", [Y, SOFT])
def test_gradient_descent_on_a_linear_network_ends_in_the_linearised_solution(targets):
    trainer = linear_trainer()
    state = trainer.run(trainer.start(LINEAR_START, targets), X, targets, num_steps=3000)
    initial = LINEAR.apply(LINEAR_START[0], X)
    exact = train(Objective(Categorical(), NTK, targets, RIDGE), initial)
    np.testing.assert_allclose(LINEAR.apply(state.params[0], X), exact.logits, atol=1e-8)


def test_weight_decay_on_a_linear_network_ends_as_if_it_had_started_from_zero():
    trainer = linear_trainer(anchor="zero")
    state = trainer.run(trainer.start(LINEAR_START, Y), X, Y, num_steps=3000)
    exact = train(Objective(Categorical(), NTK, Y, RIDGE), jnp.zeros_like(Y))
    np.testing.assert_allclose(LINEAR.apply(state.params[0], X), exact.logits, atol=1e-8)
    np.testing.assert_array_equal(state.initial, LINEAR_START)


def test_gradient_noise_on_a_linear_network_is_a_shift_of_its_initial_function():
    noise = jax.random.normal(jax.random.key(5), (1, *Y.shape))
    trainer = linear_trainer()
    state = trainer.run(trainer.start(LINEAR_START, Y, noise=noise), X, Y, num_steps=3000)
    initial = LINEAR.apply(LINEAR_START[0], X) + NTK @ noise[0] / RIDGE
    exact = train(Objective(Categorical(), NTK, Y, RIDGE), initial)
    np.testing.assert_allclose(LINEAR.apply(state.params[0], X), exact.logits, atol=1e-8)


def test_steps_times_their_size_are_the_time_of_gradient_flow():
    trainer = linear_trainer(step_size=1e-4)
    state = trainer.advance(trainer.start(LINEAR_START, Y), X, Y, 5000)
    initial = LINEAR.apply(LINEAR_START[0], X)
    exact = GradientFlow(0.5).solve(Objective(Categorical(), NTK, Y, RIDGE), initial[None])
    expected = initial + NTK @ exact.alpha[0]
    np.testing.assert_allclose(LINEAR.apply(state.params[0], X), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("likelihood", "targets"),
    [(Categorical(), SOFT), (Bernoulli(), SOFT[:, :1]), (Normal(0.5), X[:, :1])],
)
def test_one_step_goes_down_the_gradient_of_the_summed_loss(likelihood, targets):
    network = nb.networks.mlp(depth=1, width=5, num_outputs=targets.shape[1])
    start, anchor = (network.init(key, X) for key in jax.random.split(KEY))
    trainer = Trainer(network, likelihood, ridge=RIDGE, step_size=1e-2)
    state = trainer.start(jax.tree.map(lambda leaf: leaf[None], anchor), targets)
    away = jax.tree.map(lambda leaf: leaf[None], start)
    state = eqx.tree_at(lambda s: s.params, state, away)

    def loss(params):
        f = network.apply(params, X)
        if isinstance(likelihood, Categorical):
            data = -jnp.sum(targets * (f - jnp.log(jnp.sum(jnp.exp(f), axis=1, keepdims=True))))
        elif isinstance(likelihood, Bernoulli):
            p = 1 / (1 + jnp.exp(-f))
            data = -jnp.sum(targets * jnp.log(p) + (1 - targets) * jnp.log(1 - p))
        else:
            data = jnp.sum((f - targets) ** 2) / (2 * 0.25)
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(anchor), strict=True)
        return data + RIDGE / 2 * sum(jnp.sum((p - a) ** 2) for p, a in pairs)

    expected = jax.tree.map(lambda p, g: p - 1e-2 * g, start, jax.grad(loss)(start))
    moved = trainer.advance(state, X, targets, 1).params
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-10, atol=1e-12)


def test_members_of_an_ensemble_train_as_if_alone():
    together = TRAINER.advance(TRAINER.start(START, Y), X, Y, 200).params
    for k in range(3):
        alone = jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], START)
        alone = TRAINER.advance(TRAINER.start(alone, Y), X, Y, 200).params
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[k], b[0], atol=1e-10)


def test_a_shifted_network_trains_from_the_mean():
    offset = finite.shift(NETWORK, START, X, mean=0.7)
    state = TRAINER.start(START, Y, offset=offset)
    logits = jax.vmap(lambda p: NETWORK.apply(p, X))(state.params) + state.offset
    np.testing.assert_allclose(logits, 0.7, atol=1e-12)
    # What is left of the spread over initialisations is that of finite width.
    spread = {}
    for name, start in (("shifted", state), ("plain", TRAINER.start(START, Y))):
        end = TRAINER.advance(start, X, Y, 1000)
        logits = jax.vmap(lambda p: NETWORK.apply(p, X))(end.params) + end.offset
        spread[name] = float(jnp.mean(jnp.std(logits, axis=0)))
    assert spread["shifted"] < spread["plain"] / 2


def test_float32_stays_float32():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), START)
    x, y = X.astype(jnp.float32), Y.astype(jnp.float32)
    end = TRAINER.advance(TRAINER.start(half, y), x, y, 10)
    assert {leaf.dtype for leaf in jax.tree.leaves(end.params)} == {jnp.dtype("float32")}
    same(TRAINER.advance(TRAINER.start(half, Y), X, Y, 10).params, end.params)


# --- step size ------------------------------------------------------------------------------------


def test_power_iteration_finds_the_largest_eigenvalue_of_the_jacobian_product():
    def top(params):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        j = jax.jacrev(lambda theta: NETWORK.apply(unravel(theta), X).ravel())(flat)
        return np.linalg.eigvalsh(j @ j.T)[-1]

    members = [jax.tree.map(lambda leaf, k=k: leaf[k], START) for k in range(3)]
    found = finite.largest_eigenvalue(NETWORK, START, X)
    np.testing.assert_allclose(found, max(map(top, members)), rtol=1e-2)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Normal(0.3)])
def test_no_curvature_exceeds_its_bound(likelihood):
    size = 1 if isinstance(likelihood, Bernoulli) else 3
    logits = 3 * jax.random.normal(KEY, (500, size))
    logits = logits.at[0].set(0.0).at[1].set(jnp.array([9.0, 9.0, -9.0])[:size])
    curvature = likelihood.curvature(jnp.zeros_like(logits), logits)
    columns = [curvature.matvec(jnp.broadcast_to(e, logits.shape)) for e in jnp.eye(size)]
    largest = float(jnp.max(jnp.linalg.eigvalsh(jnp.stack(columns, axis=2))))
    np.testing.assert_allclose(largest, likelihood.curvature_bound, rtol=1e-6)


def test_the_stable_step_descends_and_a_larger_one_is_refused():
    state, losses = TRAINER.start(START, Y), []
    for _ in range(20):
        members = (state.params, state.initial, state.offset)
        losses.append(jax.vmap(lambda p, a, o: TRAINER.loss(p, a, o, X, Y))(*members))
        state = TRAINER.advance(state, X, Y, 1)
    assert np.all(np.diff(np.array(losses), axis=0) < 0)
    reckless = Trainer(NETWORK, Categorical(), ridge=RIDGE, step_size=2.5 * ETA)
    with pytest.raises(ConfigurationError, match=r"largest eigenvalue .* the limit is"):
        reckless.run(reckless.start(START, Y), X, Y, num_steps=10)


# --- mini-batches and optimisers -----------------------------------------------------------------


def test_batches_of_an_epoch_are_the_whole_data_once():
    trainer = linear_trainer(step_size=1e-3, batch_size=4)
    chosen = [_batch(KEY, jnp.asarray(step), 12, 4) for step in range(6)]
    np.testing.assert_array_equal(np.sort(np.concatenate(chosen[:3])), np.arange(12))
    np.testing.assert_array_equal(np.sort(np.concatenate(chosen[3:])), np.arange(12))
    assert not np.array_equal(np.concatenate(chosen[:3]), np.concatenate(chosen[3:]))

    # From one θ, the mean of the steps over an epoch's batches is the step over all the data.
    state = trainer.start(LINEAR_START, Y, key=KEY)
    at = [eqx.tree_at(lambda s: s.step, state, jnp.asarray(k)) for k in range(3)]
    moves = [trainer.advance(s, X, Y, 1).params - LINEAR_START for s in at]
    whole = linear_trainer(step_size=1e-3)
    move = whole.advance(whole.start(LINEAR_START, Y), X, Y, 1).params - LINEAR_START
    np.testing.assert_allclose(np.mean(moves, axis=0), move, atol=1e-14)


def test_adam_reaches_the_same_solution_of_a_convex_problem():
    trainer = linear_trainer(optimizer=optax.adam(optax.exponential_decay(0.1, 300, 0.3)))
    state = trainer.run(trainer.start(LINEAR_START, Y), X, Y, num_steps=3000)
    initial = LINEAR.apply(LINEAR_START[0], X)
    exact = train(Objective(Categorical(), NTK, Y, RIDGE), initial)
    np.testing.assert_allclose(LINEAR.apply(state.params[0], X), exact.logits, atol=1e-4)


def test_batches_need_a_key_and_enough_points():
    with pytest.raises(ConfigurationError, match="give key="):
        linear_trainer(batch_size=4).start(LINEAR_START, Y)
    with pytest.raises(ConfigurationError, match="batch_size is 13, but there are 12 points"):
        linear_trainer(batch_size=13).start(LINEAR_START, Y, key=KEY)


# --- checkpoints ---------------------------------------------------------------------------------


def stochastic(key=KEY, **changes):
    settings = {"ridge": RIDGE, "step_size": ETA / 4, "batch_size": 5} | changes
    trainer = Trainer(NETWORK, Categorical(), **settings)
    return trainer, trainer.start(START, Y, key=key)


@pytest.mark.parametrize("optimizer", [None, optax.adam(1e-3)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, monkeypatch, optimizer):
    trainer, start = stochastic()
    if optimizer is not None:
        trainer, start = stochastic(optimizer=optimizer, step_size=None)
    whole = trainer.run(start, X, Y, num_steps=30)
    file = tmp_path / "checkpoint.npz"
    advance, calls = Trainer.advance, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    monkeypatch.setattr(Trainer, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(start, X, Y, num_steps=30, checkpoint=file, every=10)
    monkeypatch.undo()
    assert int(np.load(file)["leaf" + str(len(np.load(file).files) - 2)]) == 20
    end = trainer.run(start, X, Y, num_steps=30, checkpoint=file, every=10)
    same(end.params, whole.params)
    same(trainer.run(start, X, Y, num_steps=30, checkpoint=file).params, whole.params)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    trainer, start = stochastic()
    file = tmp_path / "checkpoint.npz"
    trainer.run(start, X, Y, num_steps=2, checkpoint=file)

    def refused(trainer, start, what, features=X):
        with pytest.raises(StorageError, match=f"differs in: {what}"):
            trainer.run(start, features, Y, num_steps=4, checkpoint=file)

    refused(trainer, start, "data", X + 1)
    refused(*stochastic(ridge=0.2), "ridge")
    refused(*stochastic(anchor="zero"), "anchor")
    refused(*stochastic(key=jax.random.key(9)), "key")
    refused(*stochastic(batch_size=6), "batch size")
    refused(*stochastic(optimizer=optax.adam(0.1), step_size=None), "step size, optimiser")
    relu = nb.networks.mlp(depth=1, width=16, num_outputs=3, activation="relu")
    settings = {"ridge": RIDGE, "step_size": ETA / 4, "batch_size": 5}
    refused(Trainer(relu, Categorical(), **settings), start, "network")
    with pytest.raises(StorageError, match="2 steps already, more than num_steps = 1"):
        trainer.run(start, X, Y, num_steps=1, checkpoint=file)


def test_another_step_of_the_same_optimiser_is_another_training(tmp_path):
    file = tmp_path / "checkpoint.npz"
    trainer, start = stochastic(optimizer=optax.adam(0.1), step_size=None)
    trainer.run(start, X, Y, num_steps=2, checkpoint=file)
    trainer, start = stochastic(optimizer=optax.adam(0.2), step_size=None)
    with pytest.raises(StorageError, match="differs in: optimiser"):
        trainer.run(start, X, Y, num_steps=4, checkpoint=file)


def test_a_broken_checkpoint_is_refused_and_a_full_disk_keeps_the_last_one(tmp_path, monkeypatch):
    trainer, start = stochastic()
    file = tmp_path / "checkpoint.npz"
    trainer.run(start, X, Y, num_steps=2, checkpoint=file)
    before = file.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        trainer.run(start, X, Y, num_steps=4, checkpoint=file)
    monkeypatch.undo()
    assert file.read_bytes() == before
    file.write_bytes(before[: len(before) // 2])
    with pytest.raises(StorageError, match="delete it and run again"):
        trainer.run(start, X, Y, num_steps=4, checkpoint=file)


# --- when it goes wrong ---------------------------------------------------------------------------


def test_a_loss_that_explodes_stops_at_its_step_and_keeps_the_last_checkpoint(tmp_path):
    squares = nb.networks.from_functions(
        lambda key, x: jnp.full((1, 1), 3.0), lambda params, x: jnp.exp(x[:, :1] @ params)
    )
    trainer = Trainer(squares, Normal(1.0), 0.0, optimizer=optax.sgd(5.0))
    start = trainer.start(jnp.full((1, 1, 1), 0.1), X[:, :1])
    file = tmp_path / "checkpoint.npz"
    with pytest.raises(DivergenceError, match=r"no longer finite at step (\d+)") as caught:
        trainer.run(start, X, X[:, :1], num_steps=100, checkpoint=file, every=1)
    last = caught.value.state
    assert 0 < int(last.step) < 10
    assert last.step == caught.value.step - 1
    assert np.isfinite(trainer.loss(last.params[0], last.initial[0], 0.0 * X[:, :1], X, X[:, :1]))
    with pytest.raises(DivergenceError):
        trainer.run(start, X, X[:, :1], num_steps=100, checkpoint=file)
    once = trainer.run(start, X, X[:, :1], num_steps=int(last.step), checkpoint=file)
    same(once.params, last.params)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": -1.0}, "the ridge must be at least 0"),
        ({"step_size": 0.0}, "the step size must be positive"),
        ({"optimizer": optax.sgd(0.1)}, "either a step_size or an optimizer"),
        ({"step_size": None}, "either a step_size or an optimizer"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"anchor": "zero", "ridge": 0.0}, "where the ridge pulls, and the ridge is 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    given = {"ridge": 0.1, "step_size": 0.1} | settings
    with pytest.raises(ConfigurationError, match=message):
        Trainer(NETWORK, Categorical(), **given)


def test_an_unknown_anchor_is_named():
    with pytest.raises(UnknownNameError, match="unknown anchor 'zeros'; known are: init, zero"):
        Trainer(NETWORK, Categorical(), ridge=RIDGE, step_size=0.1, anchor="zeros")


def test_a_curvature_without_bound_asks_for_targets():
    with pytest.raises(ConfigurationError, match=r"curvature of Poisson has no bound.*targets="):
        finite.stable_step_size(NETWORK, START, X, Poisson(), 0.4)


@pytest.mark.parametrize(
    "likelihood",
    [
        Poisson(),
        LogConcave(
            lambda y, f: jnp.sum(y * f - jnp.exp(f)), num_logits=1, examples=[[0.0], [40.0]]
        ),
    ],
    ids=["Poisson", "LogConcave"],
)
def test_without_a_bound_the_step_is_stable_at_the_curvature_that_training_meets(likelihood):
    network = nb.networks.mlp(depth=1, width=16, activation="erf")
    start = jax.vmap(lambda key: network.init(key, X))(jax.random.split(KEY, 2))
    counts = jnp.arange(12.0)[:, None] % 4 * 10  # W reaches 30, from about 1
    eta = finite.stable_step_size(network, start, X, likelihood, 0.1, targets=counts)
    largest = finite.largest_eigenvalue(network, start, X)
    assert 30 < (1 / eta - 0.1) / largest < 90
    trainer, losses = Trainer(network, likelihood, ridge=0.1, step_size=eta), []
    state = trainer.start(start, counts)
    for _ in range(10):
        members = (state.params, state.initial, state.offset)
        losses.append(jax.vmap(lambda p, a, o: trainer.loss(p, a, o, X, counts))(*members))
        state = trainer.advance(state, X, counts, 30)
    assert np.all(np.diff(np.array(losses), axis=0) < 0)
