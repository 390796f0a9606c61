"""Samplers of the exact posterior against a plain NumPyro model: digits, 150 points, 10 classes.

    python benchmarks/samplers.py [--samples 300] [--warmup 300] [--rounds 3] [--points 150]

The hand-written model is z ~ N(0, I), f = L z, softmax, under NumPyro's NUTS with its defaults, 4 chains
vectorised. Effective draws are those of the logits minus their mean over classes, at the training points
("min" and "median" over these), and of their squared deviations ("min of squares"). Seconds are of a
second fit: they include warm-up and exclude compilation, which is printed separately; CPU seconds count
every core, and hardly any other work on the machine. All samplers run in every round, one after the
other; ratios are formed within a round.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from arviz_stats.base import array_stats
from numpyro.infer import MCMC
from numpyro.infer import NUTS as PlainNUTS

import ntkbayes as nb
from ntkbayes.laws import Problem
from ntkbayes.laws.chains.nuts import NUTS
from ntkbayes.laws.chains.split_hmc import SplitHMC

NETWORK = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)
CHAINS = 4


class Run(NamedTuple):
    """One fit: logits (chains, samples, n, C), integrator steps per draw, wall-clock seconds and
    CPU seconds of all cores."""

    logits: np.ndarray
    steps: float
    seconds: float
    cpu_seconds: float


class Stopwatch:
    """Wall-clock and CPU seconds since construction."""

    def __init__(self) -> None:
        self.begin = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        return time.perf_counter() - self.begin[0], time.process_time() - self.begin[1]


def digits(num_points: int) -> nb.Dataset:
    """Training points of digits, whose pixels share one unit (see `workflow`)."""
    data = nb.datasets.load("digits").subset(jax.random.key(0), num_points)
    return nb.Dataset(data.features / 4.0, data.targets, class_names=data.class_names)


def by_hand(problem: Problem, warmup: int, samples: int) -> Callable[[int], Run]:
    """The plain whitened model with NumPyro's defaults."""
    labels = jnp.argmax(problem.targets, axis=1)
    covariance = problem.prior_gram.dense()
    lower = jnp.linalg.cholesky(covariance + 1e-9 * jnp.eye(len(labels)) * covariance[0, 0])

    def model() -> None:
        shape = problem.targets.shape
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
        numpyro.sample("y", dist.Categorical(logits=lower @ z).to_event(1), obs=labels)

    chains = MCMC(
        PlainNUTS(model),
        num_warmup=warmup,
        num_samples=samples,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )

    def run(seed: int) -> Run:
        watch = Stopwatch()
        chains.run(jax.random.key(seed), extra_fields=("num_steps",))
        z = jax.block_until_ready(chains.get_samples(group_by_chain=True)["z"])
        seconds = watch.seconds()
        steps = float(chains.get_extra_fields()["num_steps"].mean())
        return Run(np.asarray(jnp.einsum("ij,ksjc->ksic", lower, z)), steps, *seconds)

    return run


def of_method(method: NUTS | SplitHMC, problem: Problem) -> Callable[[int], Run]:
    """A fit given the Grams."""

    def run(seed: int) -> Run:
        watch = Stopwatch()
        law: Any = method.solve(problem, jax.random.key(seed))
        values = np.asarray(law.g.values)
        seconds = watch.seconds()
        return Run(values.reshape(CHAINS, -1, *values.shape[1:]), law.info.mean_steps, *seconds)

    return run


def effective(run: Run) -> dict[str, float]:
    """Effective draws per second, and their ingredients."""
    seen = run.logits - run.logits.mean(axis=-1, keepdims=True)
    axes = {"chain_axis": 0, "draw_axis": 1}
    ess = array_stats.ess(seen, method="mean", **axes)
    squares = array_stats.ess((seen - seen.mean(axis=(0, 1))) ** 2, method="mean", **axes)
    return {
        "seconds": run.seconds,
        "CPU seconds": run.cpu_seconds,
        "steps per draw": run.steps,
        "max R-hat": float(array_stats.rhat(seen, **axes).max()),
        "min ESS": float(ess.min()),
        "min ESS / s": float(ess.min()) / run.seconds,
        "min ESS / CPU s": float(ess.min()) / run.cpu_seconds,
        "median ESS / s": float(np.median(ess)) / run.seconds,
        "min of squares / s": float(squares.min()) / run.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=150)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()

    problem = Problem.build(nb.NTKPrior(NETWORK, ridge=0.1), digits(asked.points), None)
    draws = {
        "num_samples": asked.samples,
        "num_warmup": asked.warmup,
        "num_chains": CHAINS,
    }
    runs = {
        "plain NumPyro": by_hand(problem, asked.warmup, asked.samples),
        "NUTS": of_method(NUTS(**draws), problem),
        "split HMC": of_method(SplitHMC(**draws), problem),
    }
    print(
        f"n = {asked.points}, C = {problem.num_outputs}, {CHAINS} chains, {asked.samples} draws each"
    )
    for name, run in runs.items():
        print(f"{name}: first fit {run(0).seconds:.1f} s, compilation included", flush=True)

    rounds = []
    for seed in range(1, asked.rounds + 1):
        rounds.append(pd.DataFrame({name: effective(run(seed)) for name, run in runs.items()}).T)
        print(f"\nround {seed}\n{rounds[-1].to_string(float_format='{:.3f}'.format)}", flush=True)
    ratios = np.stack([table / table.loc["plain NumPyro"] for table in rounds])
    rates = [column for column in rounds[0] if "/" in column]
    print("\nratio to plain NumPyro: median over rounds, and range")
    for i, name in enumerate(runs):
        for column in rates:
            ratio = ratios[:, i, rounds[0].columns.get_loc(column)]
            print(
                f"{name:<16}{column:<20}{np.median(ratio):8.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
            )


if __name__ == "__main__":
    main()
