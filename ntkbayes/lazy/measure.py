"""How far real networks, trained by gradient descent, stay from the lazy regime (THEORY 1).

K networks of one width, one per seed, are trained side by side with their own `Linearisation`.

Shapes: K seeds, T recorded times, n training points, C logits.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.errors import ConfigurationError
from ntkbayes.lazy.linearisation import Linearisation, ntk_between
from ntkbayes.lazy.points import Points
from ntkbayes.lazy.trajectory import Trajectory
from ntkbayes.lazy.verdict import Regime
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import largest
from ntkbayes.networks import Network, Params, require_sound
from ntkbayes.training.networks import Anchor, Trainer, logits_of, shift, stable_step_size


def recorded_steps(num_steps: int, *, per_decade: int = 4, decades: int = 3) -> tuple[int, ...]:
    """Steps on a geometric grid that ends with `num_steps` and holds a tenth of it.

    Raises:
        ConfigurationError: fewer than 10 steps.
    """
    num_steps = ranges.whole("the number of training steps", num_steps, at_least=10)
    exponents = np.arange(per_decade * decades + 1) / per_decade
    steps = np.round(num_steps * 10.0**-exponents).astype(int)
    return tuple(int(step) for step in np.unique(steps[steps >= 1]))


def initialise(network: Network, points: Points, key: PRNGKeyArray, num_seeds: int) -> Params:
    """θ0 of K networks, stacked along a leading axis."""
    return _initial(network, points.train, key, num_seeds)


def require_fitting(network: Network, params: Params, points: Points) -> None:
    """Make sure that networks can be trained on the points.

    Raises:
        ConfigurationError: see `networks.require_sound`; or the number of outputs is not that of the
            targets.
        DataError: the logits are not finite.
    """
    outputs = require_sound(network, jax.tree.map(lambda leaf: leaf[0], params), points.train)
    needed = points.targets.shape[1]
    if outputs != needed:
        raise ConfigurationError(
            f"the network has {outputs} output(s), the targets need {needed}: one for two classes, "
            "one per class for more, one per column of numbers, unless another likelihood is given"
        )


def stable_step(
    network: Network, params: Params, points: Points, likelihood: Likelihood, regime: Regime
) -> float:
    """The largest step that is stable by a margin; see `stable_step_size`.

    Raises:
        ConfigurationError, DataError: as `require_fitting` does.
    """
    require_fitting(network, params, points)
    size = len(points.train)
    return stable_step_size(
        network,
        params,
        points.train,
        likelihood,
        regime.ridge,
        targets=points.targets,
        offset=offset_of(network, params, points, shifted=regime.shifted)[:, :size],
    )


def kernel_scale(network: Network, params: Params, points: Points) -> Float[np.ndarray, " seeds"]:
    """Mean diagonal entry of the NTK at initialisation, over training probes and logits."""
    probes = points.num_train_probes
    ntk = ntk_between(network, params, points.probes, points.probes)[:, :probes, :probes]
    return np.asarray(jnp.einsum("kiicc->k", ntk)) / (ntk.shape[1] * ntk.shape[3])


def follow(
    trainer: Trainer,
    params: Params,
    points: Points,
    *,
    steps: Sequence[int],
    shifted: bool = False,
) -> Trajectory:
    """Train K networks and their linearisations, and measure both at the given steps.

    Args:
        trainer: plain full-batch gradient descent.
        params: θ0 of every network, stacked along a leading axis of length K.
        points: to train and to measure at.
        steps: increasing; see `recorded_steps`.
        shifted: subtract each network's initial function, so that all start from the mean.

    Raises:
        ConfigurationError: the trainer does not take plain full-batch steps, the only ones that the
            linearisation can take too, or its step is not stable.
        DivergenceError: the loss became NaN or infinite.
    """
    if trainer.optimizer is not None or trainer.batch_size is not None:
        raise ConfigurationError(
            "the linearisation takes the same steps as the network only for plain full-batch "
            "gradient descent; leave out optimizer and batch_size"
        )
    has_end = points.have_end(trainer.likelihood, float(trainer.ridge))
    offset, size = offset_of(trainer.network, params, points, shifted=shifted), len(points.train)
    start = Snapshot.take(trainer.network, params, points, offset)
    linearised = Linearisation.build(
        trainer, params, points, train_initial=start.train, test_initial=start.test
    )
    state = trainer.start(params, points.targets, offset=offset[:, :size])
    rows, done = [], 0
    for step in steps:
        state = trainer.advance(state, points.train, points.targets, step - done)
        linearised = linearised.advance(jnp.asarray(step - done))  # an array: compiled once
        done = step
        now = Snapshot.take(trainer.network, state.params, points, offset)
        rows.append(_compare(trainer, points, start, now, linearised))
    columns = {
        name: np.stack([np.asarray(row[name], float) for row in rows], 1) for name in rows[0]
    }
    step_numbers = np.array(steps)
    time = float(np.asarray(trainer.step_size)) * step_numbers
    return Trajectory(has_end=has_end, step=step_numbers, time=time, **columns)


def offset_of(
    network: Network, params: Params, points: Points, *, shifted: bool
) -> Float[Array, "seeds points classes"]:
    """What is added to each network's logits at training and test points: the mean, less its initial
    function if it is shifted."""
    everywhere = jnp.concatenate([points.train, points.test])
    size = (len(everywhere), len(points.mean))
    mean = jnp.broadcast_to(points.mean[None], size)
    if shifted:
        return shift(network, params, everywhere, mean)
    return jnp.broadcast_to(mean, (len(jax.tree.leaves(params)[0]), *size))


class Snapshot(eqx.Module):
    """K networks at one time: parameters, logits at the points, NTK at the probes."""

    params: Params
    train: Float[Array, "seeds n classes"]
    test: Float[Array, "seeds m classes"]
    train_ntk: Float[Array, "seeds p p classes classes"]
    test_ntk: Float[Array, "seeds q q classes classes"]

    @classmethod
    def take(
        cls,
        network: Network,
        params: Params,
        points: Points,
        offset: Float[Array, "seeds points classes"],
    ) -> "Snapshot":
        everywhere = jnp.concatenate([points.train, points.test])
        logits = logits_of(network, params, everywhere) + offset
        # One kernel of all probes, though its block of training against test points is not used:
        # compiling is most of what a small kernel costs.
        ntk = ntk_between(network, params, points.probes, points.probes)
        size, probes = len(points.train), points.num_train_probes
        return cls(
            params=params,
            train=logits[:, :size],
            test=logits[:, size:],
            train_ntk=ntk[:, :probes, :probes],
            test_ntk=ntk[:, probes:, probes:],
        )


@eqx.filter_jit
def _initial(
    network: Network, features: Float[Array, "n ..."], key: PRNGKeyArray, num_seeds: int
) -> Params:
    keys = jax.random.split(key, num_seeds)
    return jax.vmap(lambda key: network.init(key, features))(keys)


@eqx.filter_jit
def _compare(
    trainer: Trainer, points: Points, start: Snapshot, now: Snapshot, linearised: Linearisation
) -> dict[str, Float[Array, " seeds"]]:
    """One number per seed for each series of `Trajectory`."""
    likelihood = trainer.likelihood
    pulled = _norm(Anchor(trainer.anchor).pull(now.params, start.params))
    distance = _norm(jax.tree.map(jnp.subtract, now.params, start.params))
    log_density = jax.vmap(likelihood.log_density, in_axes=(None, 0))(points.targets, now.train)
    series = {
        "drift_train": _norm(now.train_ntk - start.train_ntk) / _norm(start.train_ntk),
        "drift_test": _norm(now.test_ntk - start.test_ntk) / _norm(start.test_ntk),
        "distance": distance,
        "relative_distance": distance / _norm(start.params),
        "loss": linearised.ridge / 2 * pulled**2 - jnp.sum(log_density, axis=1),
        "largest_logit": largest(likelihood.project(now.train), axis=(1, 2)),
    }
    both = {
        "train": (now.train, linearised.train_logits),
        "test": (now.test, linearised.test_logits),
    }
    for where, (network, linear) in both.items():
        gap = likelihood.project(network - linear)
        variation = likelihood.total_variation(network, linear)
        series |= {
            f"gap_{where}": jnp.sqrt(jnp.mean(gap**2, axis=(1, 2))),
            f"worst_gap_{where}": largest(gap, axis=(1, 2)),
            f"variation_{where}": jnp.mean(variation, axis=1),
            f"worst_variation_{where}": largest(variation, axis=1),
        }
    return series


def _norm(stacked: Params) -> Float[Array, " seeds"]:
    """√Σ of squares over all leaves, of each seed."""
    squares = jax.vmap(lambda leaf: jnp.sum(leaf**2))
    return jnp.sqrt(sum(squares(leaf) for leaf in jax.tree.leaves(stacked)))
