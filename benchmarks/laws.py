"""What a law costs: breast_cancer, 400 training points, one logit.

Times are ratios to one Cholesky factorisation of the 400 × 400 kernel, measured in the same run,
and exclude compilation (the second of two calls counts) unless stated. NUTS runs once.

    python benchmarks/laws.py [--quick]
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import ntkbayes as nb
from ntkbayes.errors import DataWarning
from ntkbayes.laws import Problem


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """The median of repeated calls, after one uncounted."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 draws everywhere, to try it out")
    quick = parser.parse_args().quick
    draws = 100 if quick else 1000
    warnings.simplefilter("ignore", DataWarning)

    key = jax.random.key(0)
    data = nb.datasets.load("breast_cancer")
    train, _ = data.split(key, test_share=1 - 400 / data.num_points)
    prior = nb.NTKPrior(nb.networks.mlp(depth=2, weight_std=1.5, bias_std=0.1), ridge=0.1)
    problem: Any = Problem.build(prior, train, None)
    size = train.num_points

    factor = jax.jit(jnp.linalg.cholesky)
    matrix = problem.prior_gram.dense() + 1e-8 * jnp.eye(size)
    unit = seconds(lambda: factor(matrix), 50)
    print(f"n = {size}, one logit, {draws} draws; one Cholesky: {1e3 * unit:.2f} ms\n")

    kernel = seconds(lambda: prior.gram(problem.features))
    times = {"NTK and NNGP Gram": kernel}
    info: dict[str, Any] = {}
    methods: dict[str, nb.laws.Method] = {
        "MAP": nb.MAP(),
        "Laplace": nb.Laplace(),
        "first order": nb.FirstOrder(),
        f"random init ({draws})": nb.RandomInit(num_inits=draws),
    }
    for name, method in methods.items():

        def solve(method: nb.laws.Method = method, name: str = name) -> object:
            law = method.solve(problem, key)
            info[name] = law.info
            return law.alpha

        times[name] = seconds(solve)
    begin = time.perf_counter()
    nuts: Any = nb.NUTS(num_samples=draws, num_chains=4).solve(problem, key)
    times[f"NUTS (4 × {draws}), with compilation"] = time.perf_counter() - begin

    print(f"{'given the Grams':<40}{'seconds':>10}{'Choleskys':>12}{'MAP solves':>12}")
    for name, took in times.items():
        print(f"{name:<40}{took:>10.4f}{took / unit:>12.1f}{took / times['MAP']:>12.1f}")

    random_init = info[f"random init ({draws})"]
    law: Any = nb.RandomInit(num_inits=draws).solve(problem, key)
    alpha = law.alpha
    initial = law.g.values
    logits = problem.mean[None] + initial + problem.gram.ntk @ alpha
    residual = jax.vmap(lambda f: problem.likelihood.residual(problem.targets, f))(logits)
    worst = float(jnp.max(jnp.abs(alpha - residual / 0.1)))
    print(f"\nrandom init: worst residual {random_init.worst_residual:.1e} in probability,")
    print(f"  ‖α − (Y − σ(f*))/ridge‖∞ = {worst:.1e} over {draws} draws (aim: 1e-6),")
    print(
        f"  {random_init.mean_iterations:.1f} steps per draw, {random_init.max_iterations} at most,"
    )
    ratio = times[f"random init ({draws})"] / times["MAP"]
    print(f"  {ratio:.1f} MAP solves for {draws} predictors (aim: 30 for 1000)")
    print(
        f"NUTS: {nuts.info.num_divergences} divergences, R-hat at most {nuts.info.max_rhat:.3f}, "
        f"{nuts.info.mean_steps:.1f} steps per draw,"
    )
    effective = nuts.info.min_bulk_ess / times[f"NUTS (4 × {draws}), with compilation"]
    print(f"  {effective:.0f} effective draws per second for the worst logit")


if __name__ == "__main__":
    main()
