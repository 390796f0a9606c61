"""The library on one accelerator, in one command, as ratios against its own Cholesky and product.

    python benchmarks/gpu.py [--small] [--out gpu.json]

Needs JAX on the device, numpyro, equinox, optax and diffrax, and no ArviZ, pandas or scikit-learn. Under
eight minutes on a large GPU; `--small` tries everything on a CPU. Parts:

check    logits and evidence of small problems, against those of a CPU: an error if they differ
large    ten thousand points, ten classes, two ReLU layers: MAP, Laplace with variances at 1000 inputs,
         1000 random-init draws, with factors in float64 and in float32
network  a convolutional network of 60 thousand parameters, 1000 images, ten classes: MAP, Laplace and
         100 draws with its kernel formed, MAP by products
latency  a first and a second MAP of 100 points

Seconds are of a second call; those of the first, with compilation, stand beside them.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np

import ntkbayes as nb
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.networks.cnn import flatten

KEY = jax.random.key(0)
RIDGE = 0.1
PERCEPTRON = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)
CONVOLUTIONS = nb.networks.reshaped(
    nb.networks.cnn(channels=(32, 64), gather=flatten, num_outputs=10), (8, 8, 1)
)
EXPECTED = {  # on a CPU
    "MAP, largest logit": 7.268836806,
    "Laplace, evidence in nats": -59.594359260,
    "Laplace, mean variance": 119.070017384,
    "random init, mean square logit": 11.928759280,
    "real network, evidence in nats": -59.500077037,
}
AGREED = 1e-5  # relative: solves are within about that of the optimum

Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a fiftieth of the work")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    device = jax.devices()[0]
    about = {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    print(about, flush=True)
    tables: dict[str, Rows] = {"check": check()}
    tables["large"] = large(1000 if options.small else 10_000, 50 if options.small else 1000)
    tables["network"] = network(60 if options.small else 1000, 10 if options.small else 100)
    tables["latency"] = latency()
    options.out.write_text(json.dumps({**about, **tables}, indent=1))
    print(f"written to {options.out}")


def blobs(num_points: int, num_features: int, num_classes: int = 10) -> nb.Dataset:
    """Overlapping Gaussians, one per class."""
    rng = np.random.default_rng(num_points)
    labels = np.arange(num_points) % num_classes
    centres = np.random.default_rng(0).normal(size=(num_classes, num_features))
    features = centres[labels] + 1.5 * rng.normal(size=(num_points, num_features))
    return nb.Dataset(features, labels, class_names=range(num_classes))


def formed_up_to(rows: int) -> nb.NTKPrior:
    params = CONVOLUTIONS.init(KEY, jnp.zeros((2, 64)))
    return nb.NTKPrior(EmpiricalKernel(CONVOLUTIONS, params, max_rows=rows), ridge=RIDGE)


def check() -> Rows:
    """Numbers that every device must agree on."""
    table, images = blobs(60, 5, 3), blobs(20, 64)
    prior = nb.NTKPrior(PERCEPTRON, ridge=RIDGE)
    laplace = nb.Laplace().fit(prior, table)
    draws = nb.RandomInit(num_inits=50).fit(prior, table, key=KEY)
    real = nb.Laplace().fit(formed_up_to(10**6), images)
    found = {
        "MAP, largest logit": float(jnp.max(jnp.abs(laplace.mean(table.features)))),
        "Laplace, evidence in nats": float(laplace.info.log_evidence),
        "Laplace, mean variance": float(jnp.mean(laplace.variance(table.features))),
        "random init, mean square logit": float(jnp.mean(draws.sample(KEY, table.features) ** 2)),
        "real network, evidence in nats": float(real.info.log_evidence),
    }
    rows = []
    for what, value in found.items():
        off = abs(value / EXPECTED[what] - 1)
        print(f"check    {what:<32}{value:>14.8f}  off by {off:.0e}", flush=True)
        if not off < AGREED:
            raise SystemExit(f"{what} is {value!r} here, and {EXPECTED[what]!r} on a CPU")
        rows.append({"what": what, "value": value, "relative error": off})
    return rows


class Timed:
    """A table of seconds, and of multiples of the device's own Cholesky and product."""

    def __init__(self, part: str, rows: int, dtype: str):
        self.part, self.rows, self.dtype = part, Rows(), dtype
        root = jax.random.normal(KEY, (rows, rows), dtype)
        matrix = root @ root.T / rows + jnp.eye(rows, dtype=dtype)
        self.cholesky = self.add(f"one Cholesky of {rows} × {rows}", jnp.linalg.cholesky, matrix)
        self.product = self.add("one product", jnp.matmul, matrix, matrix)

    def add(self, what: str, work: Callable[..., Any], *given: Any) -> float:
        first, second = (once(work, *given) for _ in range(2))
        row: dict[str, Any] = {"what": what, "dtype": self.dtype, "first": first, "seconds": second}
        if self.rows:
            row["Choleskys"] = second / self.rows[0]["seconds"]
        self.rows.append(row)
        ratio = f"{row['Choleskys']:>9.1f} Choleskys" if len(self.rows) > 1 else ""
        told = f"{self.part:<9}{what:<38}{self.dtype:<9}{second:>9.3f} s, first {first:>7.2f} s"
        print(told + ratio, flush=True)
        return second


def once(work: Callable[..., Any], *given: Any) -> float:
    begin = time.perf_counter()
    result = work(*given)
    jax.block_until_ready([v for v in jax.tree.leaves(result) if isinstance(v, jax.Array)])
    return time.perf_counter() - begin


def large(num_points: int, num_draws: int) -> Rows:
    prior, data = nb.NTKPrior(PERCEPTRON, ridge=RIDGE), blobs(num_points, 20)
    new = blobs(1000, 20).features
    problem = nb.MAP().problem(prior, data, None)
    rows = []
    for dtype in (np.dtype("float64"), np.dtype("float32")):
        table = Timed("large", num_points, dtype.name)
        table.add("Gram", lambda: nb.MAP().problem(prior, data, None))
        table.add("MAP", lambda d=dtype: nb.MAP(factor_dtype=d).solve(problem, None))
        laplace = nb.Laplace(factor_dtype=dtype)
        table.add("Laplace", lambda law=laplace: law.solve(problem, None))
        posterior = laplace.solve(problem, None)
        table.add("its variances at 1000 inputs", lambda law=posterior: law.variance(new))
        many = nb.RandomInit(num_inits=num_draws, factor_dtype=dtype)
        table.add(f"{num_draws} random-init draws", lambda law=many: law.solve(problem, KEY))
        rows += table.rows
    return rows


def network(num_points: int, num_draws: int) -> Rows:
    data = blobs(num_points, 64)
    whole, parts = (nb.MAP().problem(formed_up_to(k), data, None) for k in (10**6, 0))
    rows = []
    for dtype in (np.dtype("float64"), np.dtype("float32")):
        table = Timed("network", 10 * num_points, dtype.name)
        table.add("Gram", lambda: nb.MAP().problem(formed_up_to(10**6), data, None))
        table.add("MAP", lambda d=dtype: nb.MAP(factor_dtype=d).solve(whole, None))
        table.add("Laplace", lambda d=dtype: nb.Laplace(factor_dtype=d).solve(whole, None))
        many = nb.RandomInit(num_inits=num_draws, factor_dtype=dtype)
        table.add(f"{num_draws} random-init draws", lambda law=many: law.solve(whole, KEY))
        by_products = nb.MAP(factor_dtype=dtype, tolerance=1e-3)
        table.add("MAP by products, to 1e-3", lambda law=by_products: law.solve(parts, None))
        rows += table.rows
    return rows


def latency() -> Rows:
    prior, data = nb.NTKPrior(PERCEPTRON, ridge=0.2), blobs(100, 7, 3)
    table = Timed("latency", 100, "float64")
    table.add("MAP of 100 points", lambda: nb.MAP().fit(prior, data))
    return table.rows


if __name__ == "__main__":
    main()
