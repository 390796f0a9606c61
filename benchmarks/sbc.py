"""Simulation-based calibration of the laws: which of them find the posterior that they claim?

    python benchmarks/sbc.py [--simulations 400] [--workers 2] [--figure FILE.png] [--out FILE.csv]

Two problems of 20 points, with two and three classes. f* and the labels are drawn from the prior,
each law is fitted to the labels, and the truth is ranked among 99 of its draws: logits at three
training inputs and at three new ones, and the joint log likelihood. Prints, for every quantity, the
shift of the mean rank, the spread 12 Var (above 1: too narrow, below 1: too wide), and the ECDFs that
leave the 95% band.
"""

import argparse
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np
import pandas as pd

import ntkbayes as nb
from ntkbayes.checks import Ranks, simulation_based_calibration

METHODS = {
    "NUTS": nb.NUTS(num_samples=100, num_warmup=150, num_chains=8),
    "Laplace": nb.Laplace(),
    "perturbed init": nb.PerturbedInit(num_inits=99),
    "variational": nb.Variational(tolerance=1e-4),
    "random init": nb.RandomInit(num_inits=99),
}
RIDGE = 0.1
NUM_POINTS = 20


def problem(num_classes: int) -> tuple[nb.NTKPrior, nb.Dataset, np.ndarray]:
    """Prior, data whose labels only define the classes, and the inputs at which logits are ranked."""
    rng = np.random.default_rng(num_classes)
    features = rng.standard_normal((NUM_POINTS, 2))
    labels = np.arange(NUM_POINTS) % num_classes
    prior = nb.NTKPrior(nb.networks.mlp(depth=2, weight_std=1.5, bias_std=0.1), ridge=RIDGE)
    at = np.concatenate([features[:3], 1.5 * rng.standard_normal((3, 2))])
    return prior, nb.Dataset(features, labels, class_names=range(num_classes)), at


def run(num_classes: int, law: str, simulations: int, workers: int) -> Ranks:
    prior, data, at = problem(num_classes)
    begin = time.perf_counter()
    ranks = simulation_based_calibration(
        METHODS[law],
        prior,
        data,
        key=jax.random.key(num_classes),
        num_simulations=simulations,
        at=at,
        num_workers=workers,
        progress=True,
    )
    print(f"\n{law}, {num_classes} classes: {time.perf_counter() - begin:.1f} s", flush=True)
    return ranks


def show(table: pd.DataFrame) -> None:
    outside = list(table.index[~table["uniform"]])
    print(f"outside the 95% band: {', '.join(outside) or 'none'}")
    columns = ["shift", "shift_error", "spread", "spread_error"]
    print(table[columns].to_string(float_format="{:.3f}".format), flush=True)


def summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per law: its logits together, and the joint log likelihood."""
    rows = {}
    for name, table in tables.items():
        logits, joint = table.iloc[:-1], table.iloc[-1]
        rows[name] = {
            "outside": f"{int((~table['uniform']).sum())} of {len(table)}",
            "spread of logits": f"{logits['spread'].mean():.2f}",
            "largest shift of a logit": f"{logits['shift'].abs().max():.3f}",
            "shift of log likelihood": f"{joint['shift']:+.3f}",
            "±": f"{joint['shift_error']:.3f}",
        }
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--laws", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--figure", type=Path, help="write ECDF difference plots to this file")
    parser.add_argument("--out", type=Path, help="write the table of every quantity to this CSV")
    arguments = parser.parse_args()

    print(f"{arguments.simulations} simulations, n = {NUM_POINTS}, ridge {RIDGE}")
    ranks, tables = {}, {}
    for classes in arguments.classes:
        for law in arguments.laws:
            name = f"{law}, {classes} classes"
            ranks[name] = run(classes, law, arguments.simulations, arguments.workers)
            tables[name] = ranks[name].table()
            show(tables[name])
            if arguments.out:
                pd.concat(tables, names=["law"]).to_csv(arguments.out)
    print(f"\n{summary(tables).to_string()}")
    if arguments.figure:
        from ntkbayes import figures

        figures.calibration_ranks(ranks).savefig(arguments.figure, dpi=150)


if __name__ == "__main__":
    main()
