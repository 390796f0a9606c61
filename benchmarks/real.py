"""The laws of real networks at their size, as ratios measured in one run.

    python benchmarks/real.py [formed] [products] [networks]
                              [--points 1000 1500 300] [--draws 100 16 100] [--new 300 300 300]

formed    a convolutional network of 71 thousand parameters, digits, its kernel formed: MAP, Laplace with
          variances at new images, random-init draws, the evidence with its gradient in the ridge,
          against one Cholesky of nC × nC by LAPACK
products  one of a million parameters, its kernel known by products J Jᵀ v: MAP to 1e-3 of the logits'
          spread, and draws, against one gradient of the training loss in float32; then Laplace's
          variances with its kernel formed, since that fits
networks  the lines of `formed` for a residual network with batch normalisation, a transformer (both of
          Flax) and a perceptron of Equinox

Each number option takes a value per part. Seconds are of a second call, but for the Gram, draws and
variances, which are called once. Peak memory is beyond what the process takes before the Gram, whose
matrix every law holds.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import flax.linen as linen
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from process_memory import forget_peak, held, peak

import ntkbayes as nb
from ntkbayes.bridges.equinox import from_equinox
from ntkbayes.bridges.flax import from_linen
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.networks import Network
from ntkbayes.selection.evidence import Evidence

KEY = jax.random.key(0)
RIDGE = 0.1


class Convolutional(linen.Module):
    """Two convolutions and two dense layers, on 8 × 8 images."""

    channels: tuple[int, int]
    hidden: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(-1, 8, 8, 1)
        x = linen.relu(linen.Conv(self.channels[0], (3, 3))(x))
        x = linen.relu(linen.Conv(self.channels[1], (3, 3), strides=2)(x))
        x = linen.relu(linen.Dense(self.hidden)(x.reshape(len(x), -1)))
        return linen.Dense(10)(x)


class Residual(linen.Module):
    """Two residual blocks with batch normalisation, on 8 × 8 images."""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        x = linen.Conv(16, (3, 3))(x.reshape(-1, 8, 8, 1))
        for _ in range(2):
            h = x
            for _ in range(2):
                h = linen.BatchNorm(use_running_average=not train)(h)
                h = linen.Conv(16, (3, 3))(linen.relu(h))
            x = x + h
        return linen.Dense(10)(jnp.mean(linen.relu(x), axis=(1, 2)))


class Transformer(linen.Module):
    """A block of attention over the rows of 8 × 8 images."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.Dense(32)(x.reshape(-1, 8, 8))
        x = x + self.param("place", linen.initializers.normal(0.1), (8, 32))
        h = linen.LayerNorm()(x)
        x = x + linen.MultiHeadDotProductAttention(num_heads=4)(h, h)
        x = x + linen.Dense(32)(linen.gelu(linen.Dense(64)(linen.LayerNorm()(x))))
        return linen.Dense(10)(jnp.mean(x, axis=1))


def perceptron(key: jax.Array) -> eqx.Module:
    return eqx.nn.MLP(64, 10, width_size=256, depth=2, key=key)


def evaluated(module: Residual, x: jax.Array) -> jax.Array:
    return module(x, train=False)


NETWORKS = {"formed": Convolutional((32, 64), 50), "products": Convolutional((32, 64), 920)}


def digits(num_points: int, num_new: int) -> tuple[nb.Dataset, nb.Dataset]:
    data = nb.datasets.load("digits")
    order = np.random.default_rng(0).permutation(len(data.labels))
    parts = order[:num_points], order[num_points:][: max(num_new, 1)]
    train, new = (
        nb.Dataset(data.features[rows] / 8 - 1, data.labels[rows], class_names=range(10))
        for rows in parts
    )
    return train, new


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it returns."""
    begin = time.perf_counter()
    result = work()
    jax.block_until_ready(jax.tree.leaves(result))
    return time.perf_counter() - begin, result


def second(work: Callable[[], Any]) -> tuple[float, Any]:
    work()
    return timed(work)


def formed(num_points: int, num_draws: int, num_new: int) -> None:
    train, new = digits(num_points, num_new)
    told("formed", num_points)
    unit = cholesky(10 * num_points)
    network = from_linen(NETWORKS["formed"], jnp.zeros((2, 64)))
    laws("convolutional", network, train, new, num_draws, unit)


def networks(num_points: int, num_draws: int, num_new: int) -> None:
    train, new = digits(num_points, num_new)
    told("networks", num_points)
    unit = cholesky(10 * num_points)
    few = jnp.zeros((2, 64))
    made = {
        "residual, batch normalisation": from_linen(Residual(), few, call=evaluated),
        "transformer": from_linen(Transformer(), few),
        "Equinox perceptron": from_equinox(perceptron),
    }
    for name, network in made.items():
        laws(name, network, train, new, num_draws, unit)


def cholesky(rows: int) -> float:
    """Seconds of LAPACK's, in place, so that the peak is not its."""
    root = np.random.default_rng(0).standard_normal((rows, rows // 10))
    matrix = root @ root.T
    matrix[np.diag_indices(rows)] += 1
    given = {"lower": True, "check_finite": False, "overwrite_a": True}
    unit, _ = timed(lambda: scipy.linalg.cholesky(matrix.T, **given))
    print(f"one Cholesky of {rows} × {rows} takes {unit:.2f} s")
    return unit


def laws(
    name: str,
    network: Network,
    train: nb.Dataset,
    new: nb.Dataset,
    num_draws: int,
    unit: float,
) -> None:
    params = network.init(KEY, jnp.asarray(train.features[:2]))
    prior = nb.NTKPrior(EmpiricalKernel(network, params, max_rows=10**6), ridge=RIDGE)
    rows = train.targets.size
    before = held()
    forget_peak()
    print(f"{name}, {count(params)} parameters")

    def line(what: str, seconds: float, more: str = "") -> None:
        matrices = (peak() - before) / (8 * rows**2)
        print(
            f"  {what:<34}{seconds:8.1f} s{seconds / unit:8.1f} Choleskys"
            f"{matrices:8.1f} matrices at its peak  {more}",
            flush=True,
        )
        held()
        forget_peak()

    seconds, problem = timed(lambda: nb.MAP().problem(prior, train, None))
    line("Gram, compiled for it", seconds)
    seconds, law = second(lambda: nb.MAP().solve(problem, None))
    line("MAP", seconds, f"{law.info.num_iterations} steps, error {law.info.logit_error:.1e}")
    seconds, law = second(lambda: nb.Laplace().solve(problem, None))
    line("Laplace", seconds, f"log evidence {law.info.log_evidence:.2f} nats")
    seconds, _ = timed(lambda: law.variance(new.features))  # again, it would find their kernel
    line(f"its variances at {len(new.features)} images", seconds)
    del law
    seconds, law = timed(lambda: nb.RandomInit(num_inits=num_draws).solve(problem, KEY))
    line(f"{num_draws} random-init draws", seconds, f"{law.info.mean_iterations:.0f} steps")
    del law, problem
    evidence = Evidence.build(prior, train, None, ("ridge",))
    seconds, _ = second(lambda: evidence.value_and_gradient({"ridge": RIDGE}))
    line("evidence and its gradient", seconds)
    predicted = nb.Laplace().memory(prior, train).total
    seconds = nb.Laplace().work(prior, train).seconds
    print(
        f"  Laplace predicted {predicted / (8 * rows**2):.1f} matrices of {rows} × {rows}, and "
        f"{seconds:.0f} s with its Gram and predictions"
    )


def products(num_points: int, num_draws: int, num_new: int) -> None:
    held()
    forget_peak()
    train, new = digits(num_points, num_new)
    network = from_linen(NETWORKS["products"], jnp.zeros((2, 64)))
    params = network.init(KEY, jnp.asarray(train.features[:2]))
    prior = nb.NTKPrior(EmpiricalKernel(network, params, max_rows=0), ridge=RIDGE)
    features, targets = (jnp.asarray(v, jnp.float32) for v in (train.features, train.targets))

    @jax.jit
    def gradient(params: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            return -jnp.sum(targets * jax.nn.log_softmax(network.apply(params, features)))

        return jax.grad(loss)(params)

    unit, _ = second(lambda: gradient(params))
    told("products", num_points)
    print(f"convolutional, {count(params)} parameters")
    print(f"  one gradient of the training loss takes {unit:.2f} s")

    def line(what: str, seconds: float, more: str = "") -> None:
        print(f"  {what:<34}{seconds:8.1f} s{seconds / unit:8.0f} gradients  {more}", flush=True)

    seconds, problem = timed(lambda: nb.MAP().problem(prior, train, None))
    line("surrogate, compiled for it", seconds)
    method = nb.MAP(tolerance=1e-3)
    map_seconds, law = second(lambda: method.solve(problem, None))
    line(
        "MAP", map_seconds, f"{law.info.num_iterations} products, error {law.info.logit_error:.1e}"
    )
    if num_draws:
        draws = nb.RandomInit(num_inits=num_draws, tolerance=1e-3)
        seconds, law = timed(lambda: draws.solve(problem, KEY))
        line(f"{num_draws} random-init draws", seconds, f"{seconds / map_seconds:.1f} MAPs")
    total, work = method.memory(prior, train).total, method.work(prior, train)
    print(
        f"  peak memory: {peak() / 2**30:.1f} GiB with all of Python; "
        f"MAP predicted {total / 2**30:.1f} GiB and {work.seconds:.0f} s"
    )
    if num_new:
        laplace = nb.Laplace(tolerance=1e-3)
        formed = nb.NTKPrior(EmpiricalKernel(network, params, max_rows=10**6), ridge=RIDGE)
        seconds, law = timed(lambda: laplace.fit(formed, train))
        line("Laplace, its kernel formed", seconds, f"{seconds / map_seconds:.1f} MAPs")
        seconds, _ = timed(lambda: law.variance(new.features))
        line(f"variances at {num_new} images", seconds, f"{seconds / map_seconds:.1f} MAPs")
        total = laplace.memory(formed, train).total
        work = laplace.work(formed, train, num_new=num_new)
        print(
            f"  peak memory: {peak() / 2**30:.1f} GiB with all of Python; Laplace predicted "
            f"{total / 2**30:.1f} GiB and {work.seconds:.0f} s with its predictions"
        )


def count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def told(part: str, num_points: int) -> None:
    print(f"\n{part}: {num_points} points, 10 classes, ridge {RIDGE}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", choices=[[], "formed", "products", "networks"], default=[]
    )
    defaults = {"points": (1000, 1500, 300), "draws": (100, 16, 100), "new": (300, 300, 300)}
    for option, values in defaults.items():
        parser.add_argument(f"--{option}", nargs=3, type=int, default=values)
    options = parser.parse_args()
    for i, part in enumerate((formed, products, networks)):
        if not options.parts or part.__name__ in options.parts:
            part(options.points[i], options.draws[i], options.new[i])
