"""How the laws are calibrated: wine, iris, breast_cancer, digits and noisy data sets, five splits each.

    python benchmarks/calibration.py [--data wine iris] [--ridge evidence | cv | NUMBER] [--splits 5]

Prints accuracy, NLL, Brier and ECE of every law and the baselines, mean and standard error over
splits; which laws lose to the base rate; and each law's distance from the posterior (NUTS). The gap is
mean confidence less accuracy: above 0 a law is over-confident.
"""

import argparse
import time
import warnings
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np
import pandas as pd
from noisy import NOISY
from score_tables import cell, markdown

import ntkbayes as nb
from ntkbayes.app.baselines import baselines
from ntkbayes.app.ridges import ridge_of
from ntkbayes.comparison import key_of
from ntkbayes.errors import DataWarning
from ntkbayes.selection import GivenRidge

DATA = ("wine", "iris", "breast_cancer", "digits", *NOISY)
COLUMNS = ("accuracy", "nll", "brier", "ece", "gap", "tv", "variance_ratio", "energy", "seconds")


def split(name: str, seed: int) -> tuple[nb.Dataset, nb.Dataset]:
    """Train and test: a quarter held out, but 500 and 1000 points of digits."""
    key = jax.random.key(seed)
    data = NOISY[name](seed) if name in NOISY else nb.datasets.load(name)
    if name == "digits":
        data = data.subset(jax.random.fold_in(key, 1), 1500)
        return data.split(key, test_share=1000 / 1500)
    return data.split(key, test_share=0.25)


def run(name: str, seed: int, with_nuts: bool, ridge: str) -> pd.DataFrame:
    train, test = split(name, seed)
    key = jax.random.key(1000 + seed)
    network, asked = nb.networks.mlp(depth=2, weight_std=1.5, bias_std=0.1), ridge_of(ridge)
    given = asked if isinstance(asked, float) else 1.0
    rule = GivenRidge() if isinstance(asked, float) else asked
    choice = rule.choose(nb.NTKPrior(network, ridge=given), train, key=key_of(key, "ridge"))
    prior = nb.NTKPrior(network, ridge=choice.ridge)
    print(f"  {name} {seed}: {choice}")
    samples = 150 if name == "digits" else 1000
    methods = {
        "MAP": nb.MAP(),
        "random init": nb.RandomInit(num_inits=1000),
        "first order": nb.FirstOrder(),
        "Laplace": nb.Laplace(),
        "variational": nb.Variational(),
        "NUTS": nb.NUTS(num_samples=samples, num_warmup=max(120, samples // 2), num_chains=4),
    }
    if name == "digits":  # too many logits for a full covariance
        del methods["variational"]
        methods = {"mean field": nb.MeanField(tolerance=1e-4), **methods}
    if not with_nuts:
        del methods["NUTS"]
    predictions = {}
    for law_name, method in methods.items():
        begin = time.perf_counter()
        law = method.fit(prior, train, key=key_of(key, law_name))
        took = time.perf_counter() - begin
        predictions[law_name] = nb.predict(
            law, test, key=key_of(key, law_name), name=law_name, seconds=took
        )
        print(f"  {name} {seed} {law_name}: {took:.1f} s {law.info}", flush=True)
    predictions |= baselines(train, test, key=key)
    comparison = nb.compare(predictions, test, key=key)
    table = comparison.table().reset_index()
    table["gap"] = [
        float(
            np.mean(
                p.probabilities.max(1)
                - p.targets[np.arange(len(p.targets)), p.probabilities.argmax(1)]
            )
        )
        for p in comparison.of_classes.values()
    ]  # mean confidence less accuracy: > 0 is over-confident
    if not with_nuts:  # distances are to the posterior, or unknown
        table[["tv", "variance_ratio", "energy"]] = np.nan
    return table.assign(data=name, seed=seed, ridge=choice.ridge)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--ridge", default="evidence", help="evidence, cv or a number")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write every row of every split to this CSV")
    parser.add_argument(
        "--nuts-splits", type=int, default=5, help="splits in which NUTS, the slowest, takes part"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)

    tables = []
    for name in arguments.data:
        for seed in range(arguments.splits):
            tables.append(run(name, seed, seed < arguments.nuts_splits, arguments.ridge))
            everything = pd.concat(tables)
            if arguments.out:
                everything.to_csv(arguments.out, index=False)
    show(everything)


def show(everything: pd.DataFrame) -> None:
    """Print one table per data set in Markdown, and which laws lose to the base rate."""
    order = list(dict.fromkeys(everything["law"]))
    for name in dict.fromkeys(everything["data"]):
        subset = everything[everything["data"] == name]
        rows, splits = subset.groupby("law")[list(COLUMNS)], subset["seed"].nunique()
        mean, error = rows.mean().loc[order], rows.sem().loc[order]
        ridges = ", ".join(f"{ridge:g}" for ridge in dict.fromkeys(subset["ridge"]))
        print(f"\n**{name}**, {splits} splits, ridge {ridges}:\n")
        print(markdown(mean, error, shown=COLUMNS[:-1]))
        nll = subset.pivot(index="seed", columns="law", values="nll")
        lost = []
        for law in order:
            excess = (nll[law] - nll["base rate"]).dropna()
            if excess.mean() > 2 * excess.sem():
                lost.append(f"{law} by {cell(excess.mean(), excess.sem())}")
        if lost:
            print(f"\nIn NLL these lose to the base rate: {', '.join(lost)}.")


if __name__ == "__main__":
    main()
