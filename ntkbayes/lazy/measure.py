"""How far real networks, trained by gradient descent, stay from the lazy regime (THEORY 1).

K networks of one width, one per seed, are trained side by side with their own linearisations at θ0.
The linearisation takes the same steps as the network: with Θ0 the empirical NTK at θ0 and
f_lin(x) = f0(x) + Θ0(x, X) α, a step of size η on the loss (1) is

    α ← α − η (ridge α − r(f_lin(X)))                                        r: residual, Y − σ(f)

so that what is left between the two is laziness alone, not the time at which they stopped.

Shapes: K seeds, T recorded times, n training points, C logits.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels.empirical.ntk import EmpiricalNTK
from ntkbayes.likelihood import ClassLikelihood, Likelihood, Stack
from ntkbayes.linalg import largest
from ntkbayes.networks import Network, Params, require_sound
from ntkbayes.training.networks import Trainer, logits_of

if TYPE_CHECKING:
    import pandas as pd

Series = Float[np.ndarray, "seeds times"]
Logits = Float[Array, "seeds points classes"]
Blocks = Float[Array, "seeds n1 n2 classes classes"]


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Configured):
    """What was measured while the networks of one width trained.

    *Gap*: between the network and its linearisation trained from the same start by the same steps.
    Logits are in nats; those of a softmax are taken less the mean of their point, which changes no
    probability. Total variations are between two vectors of class probabilities, in [0, 1].

    Attributes:
        step: gradient steps taken.
        time: training time t = η · steps, in the units in which gradient flow is dθ/dt = −∇L.
        drift_train: ‖Θ_t − Θ_0‖ / ‖Θ_0‖ of the full empirical NTK at probes among the training
            points (Frobenius).
        drift_test: the same at probes among the test points.
        distance: ‖θ_t − θ_0‖.
        relative_distance: ‖θ_t − θ_0‖ / ‖θ_0‖.
        loss: the loss (1) with its ridge term, summed over the training points, in nats.
        largest_logit: largest |logit| at the training points.
        gap_train: root mean square over training points and logits of the gap.
        gap_test: the same at the test points.
        worst_gap_train: largest absolute gap at the training points.
        worst_gap_test: the same at the test points.
        variation_train: mean total variation at the training points.
        variation_test: the same at the test points.
        worst_variation_train: largest total variation at the training points.
        worst_variation_test: the same at the test points.
    """

    step: Int[np.ndarray, "times"]
    time: Float[np.ndarray, "times"]
    drift_train: Series
    drift_test: Series
    distance: Series
    relative_distance: Series
    loss: Series
    largest_logit: Series
    gap_train: Series
    gap_test: Series
    worst_gap_train: Series
    worst_gap_test: Series
    variation_train: Series
    variation_test: Series
    worst_variation_train: Series
    worst_variation_test: Series

    @property
    def worst_variation(self) -> Series:
        """Largest total variation at training and test points."""
        return np.maximum(self.worst_variation_train, self.worst_variation_test)

    def growth(self, series: Series) -> float:
        """Ratio of a series at the final time to the same at a tenth of it.

        Of means over seeds; 1 once training has stopped, and if nothing ever moved.
        """
        tenth = int(np.argmin(np.abs(np.log(10 * self.step / self.step[-1]))))
        before, after = float(series[:, tenth].mean()), float(series[:, -1].mean())
        if before == 0:
            return 1.0 if after == 0 else float("inf")
        return after / before

    def to_frame(self) -> "pd.DataFrame":
        """One row per seed and time, one column per attribute."""
        import pandas as pd

        seeds, times = self.loss.shape
        columns = {"seed": np.repeat(np.arange(seeds), times)}
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            columns[field.name] = values.ravel() if values.ndim == 2 else np.tile(values, seeds)
        return pd.DataFrame(columns)


def recorded_steps(num_steps: int, *, per_decade: int = 4, decades: int = 3) -> tuple[int, ...]:
    """Steps on a geometric grid that ends with `num_steps` and holds a tenth of it.

    Raises:
        ConfigurationError: fewer than 10 steps.
    """
    num_steps = ranges.whole("the number of training steps", num_steps, at_least=10)
    exponents = np.arange(per_decade * decades + 1) / per_decade
    steps = np.round(num_steps * 10.0**-exponents).astype(int)
    return tuple(int(step) for step in np.unique(steps[steps >= 1]))


class Points(eqx.Module):
    """Training and test points in the precision of the training, and the probes among them.

    Attributes:
        train: features of the training points.
        targets: as the likelihood encodes them, (n, C).
        test: features of the test points.
        probes: points at which the drift is measured, training points first.
        num_train_probes: how many of them are training points.
    """

    train: Float[Array, "n ..."]
    targets: Float[Array, "n classes"]
    test: Float[Array, "m ..."]
    probes: Float[Array, "p ..."]
    num_train_probes: int = eqx.field(static=True)

    @classmethod
    def build(
        cls,
        train: Dataset,
        test: Dataset,
        likelihood: Likelihood,
        *,
        num_probes: int,
        key: PRNGKeyArray,
    ) -> "Points":
        """In float32, with at most `num_probes` random points of either set as probes.

        Raises:
            ConfigurationError: the likelihood is not one of classes, or there are no probes.
            DataError: the targets are not what the likelihood takes.
        """
        if not isinstance(likelihood, ClassLikelihood):
            raise ConfigurationError(
                f"the lazy regime of THEORY 1 is one of classifiers: a {type(likelihood).__name__} "
                "likelihood has no class probabilities; give data with classes"
            )
        num_probes = ranges.whole("num_probes", num_probes)

        def single(values: np.ndarray | Array) -> Array:
            return jnp.asarray(values, dtype=jnp.float32)

        def some(features: np.ndarray, key: PRNGKeyArray) -> np.ndarray:
            order = np.asarray(jax.random.permutation(key, len(features)))
            return features[order[:num_probes]]

        train_key, test_key = jax.random.split(key)
        train_probes = some(train.features, train_key)
        return cls(
            train=single(train.features),
            targets=single(likelihood.encode(train)),
            test=single(test.features),
            probes=single(np.concatenate([train_probes, some(test.features, test_key)])),
            num_train_probes=len(train_probes),
        )


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
            "one per class for more, unless another likelihood is given"
        )


class Linearisation(eqx.Module):
    """K networks linearised at their own θ0, at training and test points.

    Attributes:
        likelihood, ridge, step_size: those of the networks' training.
        targets: (n, C).
        train_initial: f0 at the training points.
        test_initial: f0 at the test points.
        train_ntk: Θ0 between training points, [k, i, j, c, d].
        test_ntk: Θ0 between test and training points.
        alpha: α, the only thing that training changes.
    """

    likelihood: Likelihood
    ridge: Float[Array, ""]
    step_size: Float[Array, ""]
    targets: Float[Array, "n classes"]
    train_initial: Float[Array, "seeds n classes"]
    test_initial: Float[Array, "seeds m classes"]
    train_ntk: Float[Array, "seeds n n classes classes"]
    test_ntk: Float[Array, "seeds m n classes classes"]
    alpha: Float[Array, "seeds n classes"]

    @classmethod
    def build(cls, trainer: Trainer, params: Params, points: Points) -> "Linearisation":
        """At the start of training, where α = 0."""
        everywhere = jnp.concatenate([points.train, points.test])
        size, dtype = len(points.train), points.train.dtype
        logits = logits_of(trainer.network, params, everywhere)
        ntk = _ntk(trainer.network, params, everywhere, points.train)
        return cls(
            likelihood=trainer.likelihood,
            ridge=jnp.asarray(trainer.ridge, dtype),
            step_size=jnp.asarray(trainer.step_size, dtype),
            targets=points.targets,
            train_initial=logits[:, :size],
            test_initial=logits[:, size:],
            train_ntk=ntk[:, :size],
            test_ntk=ntk[:, size:],
            alpha=jnp.zeros_like(logits[:, :size]),
        )

    @eqx.filter_jit
    def advance(self, num_steps: Int[Array, ""]) -> "Linearisation":
        """After that many more steps of gradient descent."""
        size = self.targets.size
        # One matrix a seed, (n C, n C): the loop below is a matrix–vector product a step.
        gram = jnp.moveaxis(self.train_ntk, 3, 2).reshape(-1, size, size)
        residual = jax.vmap(self.likelihood.residual, in_axes=(None, 0))

        def step(_: object, alpha: Array) -> Array:
            moved = jnp.einsum("kij,kj->ki", gram, alpha.reshape(-1, size)).reshape(alpha.shape)
            slope = self.ridge * alpha - residual(self.targets, self.train_initial + moved)
            return alpha - self.step_size * slope

        alpha = jax.lax.fori_loop(0, num_steps, step, self.alpha)
        return eqx.tree_at(lambda tree: tree.alpha, self, alpha)

    @property
    def train_logits(self) -> Float[Array, "seeds n classes"]:
        """f_lin at the training points."""
        return self.train_initial + jnp.einsum("kijcd,kjd->kic", self.train_ntk, self.alpha)

    @property
    def test_logits(self) -> Float[Array, "seeds m classes"]:
        """f_lin at the test points."""
        return self.test_initial + jnp.einsum("kijcd,kjd->kic", self.test_ntk, self.alpha)


def follow(trainer: Trainer, params: Params, points: Points, *, steps: Sequence[int]) -> Trajectory:
    """Train K networks and their linearisations, and measure both at the given steps.

    Args:
        trainer: plain full-batch gradient descent.
        params: θ0 of every network, stacked along a leading axis of length K.
        points: to train and to measure at.
        steps: increasing; see `recorded_steps`.

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
    start = Snapshot.take(trainer.network, params, points)
    linearised = Linearisation.build(trainer, params, points)
    state = trainer.start(params, points.targets)
    rows, done = [], 0
    for step in steps:
        state = trainer.advance(state, points.train, points.targets, step - done)
        linearised = linearised.advance(jnp.asarray(step - done))  # an array: compiled once
        done = step
        now = Snapshot.take(trainer.network, state.params, points)
        rows.append(_compare(points, start, now, linearised))
    columns = {
        name: np.stack([np.asarray(row[name], float) for row in rows], 1) for name in rows[0]
    }
    step_numbers = np.array(steps)
    time = float(np.asarray(trainer.step_size)) * step_numbers
    return Trajectory(step=step_numbers, time=time, **columns)


class Snapshot(eqx.Module):
    """K networks at one time: parameters, logits at the points, NTK at the probes."""

    params: Params
    train: Float[Array, "seeds n classes"]
    test: Float[Array, "seeds m classes"]
    train_ntk: Float[Array, "seeds p p classes classes"]
    test_ntk: Float[Array, "seeds q q classes classes"]

    @classmethod
    def take(cls, network: Network, params: Params, points: Points) -> "Snapshot":
        logits = logits_of(network, params, jnp.concatenate([points.train, points.test]))
        # One kernel of all probes, though its block of training against test points is not used:
        # compiling is most of what a small kernel costs.
        ntk = _ntk(network, params, points.probes, points.probes)
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
def _ntk(
    network: Network, params: Params, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]
) -> Blocks:
    # One seed after another: the memory of one kernel, not of K.
    return jax.lax.map(lambda theta: EmpiricalNTK(network, theta).full(x1, x2), params)


@eqx.filter_jit
def _compare(
    points: Points, start: Snapshot, now: Snapshot, linearised: Linearisation
) -> dict[str, Float[Array, " seeds"]]:
    """One number per seed for each series of `Trajectory`."""
    likelihood = linearised.likelihood
    distance = _norm(jax.tree.map(jnp.subtract, now.params, start.params))
    log_density = jax.vmap(likelihood.log_density, in_axes=(None, 0))(points.targets, now.train)
    series = {
        "drift_train": _norm(now.train_ntk - start.train_ntk) / _norm(start.train_ntk),
        "drift_test": _norm(now.test_ntk - start.test_ntk) / _norm(start.test_ntk),
        "distance": distance,
        "relative_distance": distance / _norm(start.params),
        "loss": linearised.ridge / 2 * distance**2 - jnp.sum(log_density, axis=1),
        "largest_logit": largest(likelihood.project(now.train), axis=(1, 2)),
    }
    both = {
        "train": (now.train, linearised.train_logits),
        "test": (now.test, linearised.test_logits),
    }
    for where, (network, linear) in both.items():
        gap = likelihood.project(network - linear)
        variation = _total_variation(likelihood, network, linear)
        series |= {
            f"gap_{where}": jnp.sqrt(jnp.mean(gap**2, axis=(1, 2))),
            f"worst_gap_{where}": largest(gap, axis=(1, 2)),
            f"variation_{where}": jnp.mean(variation, axis=1),
            f"worst_variation_{where}": largest(variation, axis=1),
        }
    return series


def _total_variation(likelihood: Likelihood, a: Stack, b: Stack) -> Float[Array, "seeds n"]:
    assert isinstance(likelihood, ClassLikelihood)  # Points.build took no other
    apart = likelihood.probabilities(a) - likelihood.probabilities(b)
    return jnp.sum(jnp.abs(apart), axis=-1) / 2


def _norm(stacked: Params) -> Float[Array, " seeds"]:
    """√Σ of squares over all leaves, of each seed."""
    squares = jax.vmap(lambda leaf: jnp.sum(leaf**2))
    return jnp.sqrt(sum(squares(leaf) for leaf in jax.tree.leaves(stacked)))
