"""The cost of thousands of draws and of ten thousand points, as ratios measured in one run.

    python benchmarks/scale.py [draws] [peer] [large] [growth] [--points 10000] [--dtype float64 float32]

draws   digits, 500 points, 1000 random-init draws, against one exact Newton solve and against the matrix
        products alone
peer    MAP against scikit-learn's one-vs-rest classifier with the same fixed kernel, 1000 points
large   10,000 points, 10 classes: MAP, Laplace with variances at 1000 inputs, full and pruned, 100
        random-init draws, against one n × n Cholesky by JAX and one product; peak memory of each, in
        its own process, against the prediction
growth  exponents of time and memory in points, classes and draws, on four sizes each

Beyond the 1797 digits there are, points are drawn with replacement and blurred by noise. Seconds are
of a second call, without compilation; `large` also prints those of the first.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
from process_memory import forget_peak, held, peak

import ntkbayes as nb
from ntkbayes.laws import Problem
from ntkbayes.memory import in_words
from ntkbayes.training.newton import Newton

PRIOR = nb.NTKPrior(
    nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1), ridge=0.1
)
KEY = jax.random.key(0)
NUM_TEST = 1000


def digits(num_points: int, num_classes: int = 10) -> nb.Dataset:
    """Images in units of 4 grey levels, as in `workflow`."""
    data = nb.datasets.load("digits")
    rng = np.random.default_rng(num_points)
    usable = np.flatnonzero(data.labels < num_classes)
    rows = rng.choice(usable, num_points, replace=num_points > len(usable))
    features = data.features[rows] / 4
    if num_points > len(usable):
        features = features + 0.25 * rng.standard_normal(features.shape)
    return nb.Dataset(features, data.labels[rows], class_names=range(num_classes))


def once(work: Callable[[], Any]) -> float:
    """Seconds of a call."""
    begin = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - begin


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The median of some calls, after a first."""
    once(work)
    return float(np.median([once(work) for _ in range(repeats)]))


def seconds_and_peak(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds and peak memory (MiB, results included) of a second call."""
    once(work)
    before = held()
    forget_peak()
    return once(work), (peak() - before) / 2**20


def arrays(law: Any) -> list[jax.Array]:
    return [v for v in jax.tree.leaves(vars(law)) if isinstance(v, jax.Array)]


def solved(method: nb.laws.Method, problem: Problem) -> Callable[[], list[jax.Array]]:
    return lambda: arrays(method.solve(problem, KEY))


def draws() -> None:
    problem = Problem.build(PRIOR, digits(500), None)
    n, num_outputs = problem.targets.shape
    exact = seconds(lambda: Newton().optimum(problem.objective, problem.mean))
    method = nb.RandomInit(num_inits=1000)
    all_draws = seconds(solved(method, problem), 1)
    info: Any = method.solve(problem, KEY).info

    stack = jnp.ones((num_outputs, n, n))
    columns = jnp.ones((num_outputs, n, 1000))
    product = seconds(lambda: jax.lax.batch_matmul(stack, columns))
    products = 2 * product * info.mean_iterations  # a step takes two
    print(f"\ndigits, n = {n}, C = {num_outputs}, {method.num_inits} random-init draws")
    print(f"  one exact-Newton MAP {exact:.3f} s; all draws {all_draws:.2f} s")
    print(f"  {all_draws / exact:.1f} MAP solves for all (aim: 15)")
    print(f"  worst residual {info.worst_residual:.1e} (aim: 1e-6)")
    print(
        f"  {info.mean_iterations:.1f} steps per draw, {info.max_iterations} at most; their products: "
        f"{products:.2f} s; the draws take {all_draws / products:.1f} times that"
    )


def peer() -> None:
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import Kernel

    data = digits(1000)
    problem = Problem.build(PRIOR, data, None)
    gram = np.asarray(problem.prior_gram)

    class Fixed(Kernel):
        """The precomputed Gram matrix of the training points."""

        def __init__(self) -> None:  # scikit-learn reads its signature
            pass

        def __call__(self, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
            return gram.copy()

        def diag(self, x: np.ndarray) -> np.ndarray:
            return np.diag(gram).copy()

        def is_stationary(self) -> bool:
            return False

    classifier = GaussianProcessClassifier(Fixed(), optimizer=None)
    ours = seconds(solved(nb.MAP(), problem))
    theirs = seconds(lambda: classifier.fit(data.features, data.labels) and None, 1)
    print("\nMAP, n = 1000, C = 10, the same fixed Gram matrix")
    print(f"  ntkbayes, joint softmax {ours:.2f} s; scikit-learn, one-vs-rest {theirs:.2f} s")
    print(f"  {theirs / ours:.1f} times faster (aim: 3)")


# The reference is timed repeatedly, because the machine's speed drifts within a run.
JOBS = (
    *("Gram", "Cholesky", "product", "MAP", "Laplace"),
    *("Cholesky", "pruned Laplace", "random init", "Cholesky"),
)


def solved_and_recorded(
    method: nb.laws.Method, problem: Problem, test: np.ndarray, record: dict[str, Any]
) -> list[jax.Array]:
    law = method.solve(problem, KEY)
    record["info"] = str(law.info)
    if method.name.endswith("Laplace"):
        record["variance"] = np.asarray(law.variance(test)).tolist()
    return arrays(law)


def job(name: str, num_points: int, dtype: str) -> None:
    """Run one job, and print its figures as JSON on the last line of standard output."""
    data = digits(num_points + NUM_TEST)
    train = data.take(np.arange(num_points))
    test = data.features[num_points:]
    precision = jnp.dtype(dtype)
    methods: dict[str, nb.laws.Method] = {
        "MAP": nb.MAP(factor_dtype=precision),
        "Laplace": nb.Laplace(factor_dtype=precision),
        "pruned Laplace": nb.PrunedLaplace(factor_dtype=precision),
        "random init": nb.RandomInit(num_inits=100, tolerance=1e-4, factor_dtype=precision),
    }
    method = methods.get(name)
    before = peak()
    record: dict[str, Any] = {}
    work: Callable[[], Any]
    work = build = partial(Problem.build, PRIOR, train, None)
    if method is not None:
        problem = build()
        jax.block_until_ready(problem.gram)
        record["predicted"] = method.memory(PRIOR, train).total
        work = partial(solved_and_recorded, method, problem, test, record)
    elif name != "Gram":
        gram = build().prior_gram.dense()
        matrix = (gram + jnp.eye(num_points)).astype(dtype)
        jax.block_until_ready(matrix)  # or forming it would count in the reference's time
        work = partial(jnp.linalg.cholesky if name == "Cholesky" else lambda m: m @ m, matrix)
    record["first"] = once(work)
    # before a second call, which reuses what this one left
    record["peak"] = peak() - before
    record["seconds"] = once(work)
    print(json.dumps(record))


def large(num_points: int, dtypes: list[str]) -> None:
    matrix = 8 * num_points**2
    print(f"\nn = {num_points}, C = 10; a matrix n × n in float64 is {in_words(matrix)}")
    aims = {"MAP": (5, 5), "Laplace": (20, 14), "pruned Laplace": (20, 14), "random init": (30, 5)}
    variances = {}
    for dtype in dtypes:
        records: dict[str, dict[str, Any]] = {}
        choleskys = []
        for name in JOBS:
            command = [sys.executable, __file__, "--job", name, "--points", str(num_points)]
            done = subprocess.run(
                [*command, "--dtype", dtype], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr}")
            records[name] = record = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name}, {dtype}: {record['first']:.1f} s, then {record['seconds']:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            if name == "Cholesky":
                choleskys.append(record["seconds"])
            if "variance" in record:
                variances[name, dtype] = np.array(record["variance"])
        records["Cholesky"]["seconds"] = cholesky = float(np.median(choleskys))
        print(f"factors in {dtype}; Choleskys took {', '.join(f'{s:.1f}' for s in choleskys)} s")
        print(f"  {'':14s}{'first, s':>9s}{'seconds':>9s}{'Choleskys':>11s}{'aim':>5s}", end="")
        print(f"{'products':>10s}", end="")
        print(f"{'peak, n×n':>11s}{'aim':>5s}{'predicted':>11s}")
        for name, record in records.items():
            line = f"  {name:14s}{record['first']:9.1f}{record['seconds']:9.1f}"
            if name in aims:
                line += f"{record['seconds'] / cholesky:11.1f}{aims[name][0]:5d}"
                line += f"{record['seconds'] / records['product']['seconds']:10.1f}"
                line += f"{record['peak'] / matrix:11.1f}{aims[name][1]:5d}"
                line += f"{record['predicted'] / matrix:11.1f}  {record['info']}"
            print(line, flush=True)
    exact = variances["Laplace", dtypes[0]]
    print(f"variances against those of Laplace with factors in {dtypes[0]}")
    for (name, dtype), variance in variances.items():
        error = np.abs(variance / exact - 1)
        print(
            f"  {name}, {dtype}: off by {error.max():.1e} at most, {np.median(error):.1e} in the median"
        )


def growth() -> None:
    def row(what: str, sizes: list[int], works: list[Callable[[], Any]], *theory: str) -> None:
        measured = np.array([seconds_and_peak(work) for work in works]).T
        for unit, values, expected in zip(("s", "MiB"), measured, theory, strict=True):
            exponent = np.polyfit(np.log(sizes), np.log(values), 1)[0]
            by_size = ", ".join(f"{size}: {v:.3g}" for size, v in zip(sizes, values, strict=True))
            print(f"  {what:30s}{unit:>4s} {exponent:5.2f}   {expected:28s} {by_size}", flush=True)

    print("\nexponents of time and of memory beyond K and Θ, fitted on four sizes")
    points = [500, 1000, 2000, 4000]
    problems = {n: Problem.build(PRIOR, digits(n), None) for n in points}
    features = [problems[n].features for n in points]
    row("Gram, points", points, [partial(PRIOR.gram, x) for x in features], "2", "2")
    for name, method, theory in (
        ("MAP, points", nb.MAP(), "2 (products) to 3 (factors)"),
        ("Laplace, points", nb.Laplace(), "3"),
        ("20 random-init draws, points", nb.RandomInit(num_inits=20), "2 to 3"),
    ):
        row(name, points, [solved(method, problems[n]) for n in points], theory, "2")
    classes = [3, 5, 7, 10]
    few = [Problem.build(PRIOR, digits(1500, c), None) for c in classes]
    row("MAP, classes", classes, [solved(nb.MAP(), p) for p in few], "0 to 1", "0")
    row("Laplace, classes", classes, [solved(nb.Laplace(), p) for p in few], "1", "0 to 1")
    counts = [125, 250, 500, 1000]
    drawn = [solved(nb.RandomInit(num_inits=s), problems[500]) for s in counts]
    row("random init, draws (n = 500)", counts, drawn, "1", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sections = {"draws": draws, "peer": peer, "growth": growth}
    parser.add_argument("sections", nargs="*", help="all, if none is given")
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--dtype", nargs="+", default=["float64", "float32"])
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        job(asked.job, asked.points, asked.dtype[0])
        return
    for name in asked.sections or ("draws", "peer", "large", "growth"):
        if name == "large":
            large(asked.points, asked.dtype)
        else:
            sections[name]()


if __name__ == "__main__":
    main()
