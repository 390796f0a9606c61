"""The empirical NTK against neural-tangents and against forming the Jacobian: time and memory.

    python benchmarks/empirical_ntk.py [--case perceptron ...]

Same process, same inputs, float32, full (n, n, C, C) form. Peers are `empirical_ntk_fn` of
neural-tangents, in its two implementations that run on today's JAX and with and without
`vmap_axes=0`, and `jax.jacrev` followed by a product. All are compiled before the clock starts.
Memory is XLA's count of temporaries and output. Stops if values differ by more than 1e-4 relative
to their norm.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
from jax import Array

from ntkbayes.bridges import neural_tangents
from ntkbayes.kernels import EmpiricalNTK
from ntkbayes.networks import Network, mlp

TOLERANCE = 1e-4
ROUNDS = 5
PATIENCE = 0.5  # seconds: what takes longer is timed once


class Function(Network):
    """A plain function of parameters and features."""

    function: Callable[[Any, Array], Array] = eqx.field(static=True)

    def init(self, key: Array, features: Array) -> Any:
        raise NotImplementedError

    def apply(self, params: Any, features: Array) -> Array:
        return self.function(params, features)


@dataclass(frozen=True)
class Case:
    network: Network
    params: Any
    features: Array


# --- networks ------------------------------------------------------------------------------------


def weights(*shapes: tuple[int, ...]) -> list[Array]:
    keys = jax.random.split(jax.random.key(1), len(shapes))
    return [
        jax.random.normal(key, shape, jnp.float32) / math.sqrt(math.prod(shape[:-1]))
        for key, shape in zip(keys, shapes, strict=True)
    ]


def points(*shape: int) -> Array:
    return jax.random.normal(jax.random.key(0), shape, jnp.float32)


def convolve(x: Array, weight: Array, bias: Array) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=numbers)
    return y + bias


def perceptron() -> Case:
    network, x = mlp(depth=3, width=512, num_outputs=10), points(100, 64)
    return Case(network, network.init(jax.random.key(1), x), x)


def conv_flatten() -> Case:
    def apply(p: list[Array], x: Array) -> Array:
        h = jax.nn.relu(convolve(jax.nn.relu(convolve(x, p[0], p[1])), p[2], p[3]))
        return h.reshape(len(x), -1) @ p[4]

    shapes = ((3, 3, 3, 16), (16,), (3, 3, 16, 16), (16,), (8 * 8 * 16, 10))
    return Case(Function(apply), weights(*shapes), points(24, 8, 8, 3))


def conv_pooling() -> Case:
    def apply(p: list[Array], x: Array) -> Array:
        h = jax.nn.relu(convolve(jax.nn.relu(convolve(x, p[0], p[1])), p[2], p[3]))
        return jnp.mean(h, (1, 2)) @ p[4]

    shapes = ((3, 3, 3, 16), (16,), (3, 3, 16, 32), (32,), (32, 10))
    return Case(Function(apply), weights(*shapes), points(24, 12, 12, 3))


def residual() -> Case:
    def apply(p: list[Array], x: Array) -> Array:
        h = convolve(x, p[0], p[1])
        h = h + convolve(jax.nn.relu(h), p[2], p[3])
        h = jax.lax.reduce_window(h, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        h = h + convolve(jax.nn.relu(h), p[4], p[5])
        return jnp.mean(jax.nn.relu(h), (1, 2)) @ p[6]

    shapes = ((3, 3, 3, 24), (24,), (3, 3, 24, 24), (24,), (3, 3, 24, 24), (24,), (24, 10))
    return Case(Function(apply), weights(*shapes), points(24, 8, 8, 3))


def attention() -> Case:
    def apply(p: list[Array], x: Array) -> Array:
        query, key, value = ((x @ w).reshape(*x.shape[:2], 4, 16) for w in p[:3])
        weight = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", query, key) / 4)
        mixed = jnp.einsum("nhts,nshd->nthd", weight, value).reshape(x.shape)
        h = x + mixed @ p[3]
        h = h + jax.nn.gelu(h @ p[4]) @ p[5]
        return jnp.mean(h, 1) @ p[6]

    square = (64, 64)
    shapes = (square, square, square, square, (64, 128), (128, 64), (64, 10))
    return Case(Function(apply), weights(*shapes), points(24, 16, 64))


def equinox_mlp() -> Case:
    model = eqx.nn.MLP(32, 10, 256, 2, key=jax.random.key(1), dtype=jnp.float32)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def apply(params: Any, x: Array) -> Array:
        return jax.vmap(eqx.combine(params, static))(x)

    return Case(Function(apply), params, points(48, 32))


def flax_cnn() -> Case:
    class CNN(linen.Module):
        @linen.compact
        def __call__(self, x: Array) -> Array:
            x = linen.relu(linen.Conv(16, (3, 3))(x))
            x = linen.LayerNorm()(linen.avg_pool(x, (2, 2), (2, 2)))
            x = linen.relu(linen.Conv(32, (3, 3))(x))
            x = linen.relu(linen.Dense(64)(x.reshape(len(x), -1)))
            return linen.Dense(10)(x)

    x = points(24, 8, 8, 3)
    return Case(Function(CNN().apply), CNN().init(jax.random.key(1), x), x)


CASES = {
    "perceptron": perceptron,
    "conv, flatten": conv_flatten,
    "conv, pooling": conv_pooling,
    "residual": residual,
    "attention": attention,
    "Equinox MLP": equinox_mlp,
    "Flax CNN": flax_cnn,
}


# --- peers ---------------------------------------------------------------------------------------


def jacobian_product(case: Case) -> Callable[[Any, Array], Array]:
    def full(params: Any, x: Array) -> Array:
        jacobian = jax.jacrev(lambda params: case.network.apply(params, x))(params)
        flat = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jacobian)]
        products = (jnp.einsum("icp,jdp->ijcd", leaf, leaf) for leaf in flat)
        return reduce(jnp.add, products)

    return full


def contenders(case: Case) -> dict[str, Callable[[Any, Array], Array]]:
    network = case.network
    nt = neural_tangents.load()
    ways: dict[str, Callable[[Any, Array], Array]] = {
        "ntkbayes": lambda params, x: EmpiricalNTK(network, params).full(x),
        "Jacobian, product": jacobian_product(case),
    }
    for number, vmap_axes in itertools.product((1, 2), (None, 0)):
        kernel = nt.empirical_ntk_fn(
            network.apply, trace_axes=(), vmap_axes=vmap_axes, implementation=number
        )
        name = f"neural-tangents {number}" + (", vmap" if vmap_axes == 0 else "")
        ways[name] = partial(_of_parameters, kernel)
    return ways


def _of_parameters(kernel: Callable[..., Array], params: Any, x: Array) -> Array:
    return kernel(x, None, params)


# --- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    seconds: float
    num_bytes: int
    values: Array


def measure(ways: dict[str, Callable[[Any, Array], Array]], case: Case) -> dict[str, Measured]:
    """All ways in turn, five rounds, so that whatever else the machine does is shared fairly."""
    compiled = {
        name: jax.jit(way).lower(case.params, case.features).compile() for name, way in ways.items()
    }
    seconds = dict.fromkeys(ways, float("inf"))
    values: dict[str, Array] = {}
    for _ in range(ROUNDS):
        for name, program in compiled.items():
            if seconds[name] < PATIENCE or name not in values:
                begin = time.perf_counter()
                values[name] = program(case.params, case.features).block_until_ready()
                seconds[name] = min(seconds[name], time.perf_counter() - begin)
    memory: dict[str, Any] = {name: program.memory_analysis() for name, program in compiled.items()}
    sizes = {m: a.temp_size_in_bytes + a.output_size_in_bytes for m, a in memory.items()}
    return {name: Measured(seconds[name], sizes[name], values[name]) for name in ways}


def run(name: str) -> None:
    case = CASES[name]()
    plan = EmpiricalNTK(case.network, case.params).plan(case.features)
    print(f"\n{name}\n{plan}\n")
    print(f"{'':<26}{'seconds':>10}{'ratio':>8}{'MiB':>9}{'ratio':>8}")
    results = measure(contenders(case), case)
    ours = results["ntkbayes"]
    for contender, result in results.items():
        gap = jnp.linalg.norm(result.values - ours.values) / jnp.linalg.norm(ours.values)
        assert gap < TOLERANCE, f"{contender} differs by {gap:.2g}"
        print(
            f"{contender:<26}{result.seconds:>10.4f}{result.seconds / ours.seconds:>8.1f}"
            f"{result.num_bytes / 2**20:>9.1f}{result.num_bytes / ours.num_bytes:>8.2f}"
        )
    peers = [result for contender, result in results.items() if contender != "ntkbayes"]
    faster = min(peer.seconds for peer in peers) / ours.seconds
    smaller = min(peer.num_bytes for peer in peers) / ours.num_bytes
    print(f"than the best peer: {faster:.1f} times faster, {smaller:.2f} times smaller", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    for name in parser.parse_args().case:
        run(name)


if __name__ == "__main__":
    main()
