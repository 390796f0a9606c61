"""Prior to conclusion: hyper-parameters inferred and every law fitted, on four data sets.

    python benchmarks/workflow.py [--data wine iris] [--splits 5] [--slow-splits 5] [--out FILE.csv]

On each split the ridge is chosen twice, by the log evidence and by cross-validated NLL of the MAP. All
laws use the first, "MAP, CV" the second. Prints a table of scores and of distances to the posterior
(NUTS, on digits split HMC), mean and standard error over splits, and whether the best law is worse than
logistic regression, by paired bootstrap.

What takes minutes per split (Markov chains, and on digits mean field and scikit-learn's classifier) runs
only on the first --slow-splits of them. Splits already in FILE.csv are not run again.
"""

import argparse
import time
import warnings
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np
import pandas as pd
from score_tables import markdown, number

import ntkbayes as nb
from ntkbayes.app.baselines import gaussian_process_classifier, logistic_regression
from ntkbayes.comparison import key_of
from ntkbayes.errors import ConvergenceError, ConvergenceWarning, DataWarning, GridEdgeWarning
from ntkbayes.priors.hyperparameters import with_values

DATA = ("wine", "iris", "breast_cancer", "digits")
RIDGES = tuple(float(r) for r in np.logspace(-4, 1, 6))
COLUMNS = ("accuracy", "nll", "brier", "ece", "smooth_ece", "tv", "variance_ratio", "energy")
DISTANCES = ("tv", "variance_ratio", "energy")
NETWORK = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)


def split(name: str, seed: int) -> tuple[nb.Dataset, nb.Dataset]:
    """Train and test: a quarter held out, but 500 and 1000 points of digits.

    Pixels share one unit, so that digits keep their columns' own scales.
    """
    key = jax.random.key(seed)
    data = nb.datasets.load(name)
    if name != "digits":
        return data.split(key, test_share=0.25)
    data = data.subset(jax.random.fold_in(key, 1), 1500)
    one_unit = nb.Dataset(
        data.features / 4.0, data.targets, class_names=data.class_names, name=name
    )
    return one_unit.split(key, test_share=1000 / 1500, standardise=False)


def methods_of(name: str, slow: bool) -> dict[str, nb.laws.Method]:
    """The laws for a data set, with or without those that take minutes."""
    methods: dict[str, nb.laws.Method] = {
        "MAP": nb.MAP(),
        "MAP, tempered": nb.TemperatureScaled(nb.MAP()),
        "random init": nb.RandomInit(num_inits=500),
        "perturbed init": nb.PerturbedInit(num_inits=500),
        "Laplace": nb.Laplace(),
        "Dirichlet GP": nb.DirichletGP(),
    }
    if slow or name != "digits":
        methods["mean field"] = nb.MeanField(tolerance=1e-4)
    if name != "digits":
        methods["variational"] = nb.Variational(tolerance=1e-5)
    if name == "breast_cancer":
        methods["EP"] = nb.ExpectationPropagation()
    if slow and name == "digits":
        methods["split HMC"] = nb.SplitHMC(num_samples=500, num_warmup=200)
    elif slow:
        methods["NUTS"] = nb.NUTS(num_samples=500, num_warmup=250)
    return methods


def run(name: str, seed: int, slow: bool) -> pd.DataFrame:
    train, test = split(name, seed)
    key = jax.random.key(1000 + seed)
    begin = time.perf_counter()
    start = nb.NTKPrior(NETWORK, ridge=0.1)
    chosen = nb.maximise_evidence(start, train, over=("ridge",))
    by_folds = nb.scan(
        {ridge: with_values(start, {"ridge": ridge}) for ridge in RIDGES},
        train,
        score=lambda prior, data: -nb.cross_validated_nll(nb.MAP(), prior, data, key=key),
    )
    print(
        f"  {name} {seed}: ridge {float(chosen.prior.ridge):.3g} by evidence {chosen.log_evidence:.1f} "
        f"in {len(chosen.path)} evaluations, {by_folds.best:g} by cross-validated NLL "
        f"{-by_folds.scores[by_folds.best]:.3f}; {time.perf_counter() - begin:.0f} s",
        flush=True,
    )
    jobs = {law: (method, chosen.prior) for law, method in methods_of(name, slow).items()}
    jobs["MAP, CV"] = (nb.MAP(), by_folds.prior)
    predictions = {}
    for law_name, (method, prior) in jobs.items():
        begin = time.perf_counter()
        try:
            law = method.fit(prior, train, key=key_of(key, law_name))
        except ConvergenceError as error:
            print(f"  {name} {seed} {law_name}: {error}", flush=True)
            continue
        seconds = time.perf_counter() - begin
        predictions[law_name] = nb.predict(
            law, test, key=key_of(key, law_name), name=law_name, seconds=seconds
        )
        print(f"  {name} {seed} {law_name}: {seconds:.1f} s {law.info}", flush=True)
    baselines = [logistic_regression]
    if slow or name != "digits":
        baselines.append(gaussian_process_classifier)
    for baseline in baselines:
        prediction = baseline(train, test, key=key)
        predictions[prediction.name] = prediction
    comparison = nb.compare(predictions, test, key=key)
    table = comparison.table().reset_index()
    differences = comparison.score_differences("logistic regression")
    for end in ("value", "lower", "upper"):
        table[f"against_lr_{end}"] = [
            getattr(differences[law]["nll"], end) if law in differences else 0.0
            for law in table["law"]
        ]
    if not slow:  # distances are to the posterior, or unknown
        table[list(DISTANCES)] = np.nan
    return table.assign(data=name, seed=seed)


def show(everything: pd.DataFrame) -> None:
    """Print one table per data set in Markdown, and the best law against logistic regression."""
    order = list(dict.fromkeys(everything["law"]))
    for name in dict.fromkeys(everything["data"]):
        subset = everything[everything["data"] == name]
        rows = subset.groupby("law")[list(COLUMNS)]
        mean = rows.mean().reindex([law for law in order if law in rows.groups])
        error = rows.sem().loc[mean.index]
        splits = subset["seed"].nunique(), subset.loc[subset["energy"].notna(), "seed"].nunique()
        print(f"\n**{name}**, {splits[0]} splits, distances over {splits[1]}:\n")
        print(markdown(mean, error, shown=COLUMNS))
        ours = mean.drop(index=["logistic regression", "sklearn GPC"], errors="ignore")
        best = ours["nll"].idxmin()
        against = subset[subset["law"] == best]
        columns = [f"against_lr_{end}" for end in ("value", "lower", "upper")]
        values = against[columns].map(lambda value: number(value, signed=True)).to_numpy()
        differences = ", ".join(f"{value} ({lower} to {upper})" for value, lower, upper in values)
        what = "less logistic regression on each split, NLL (90% over test points)"
        print(f"\n{best} {what}: {differences}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument(
        "--slow-splits", type=int, default=5, help="splits that include what takes minutes"
    )
    parser.add_argument("--out", type=Path, help="keep every row of every split in this CSV")
    arguments = parser.parse_args()
    for kind in (DataWarning, GridEdgeWarning, ConvergenceWarning):
        warnings.simplefilter("ignore", kind)

    everything = pd.DataFrame({"data": [], "seed": []})
    if arguments.out and arguments.out.exists():
        everything = pd.read_csv(arguments.out)
    for name in arguments.data:
        for seed in range(arguments.splits):
            if ((everything["data"] == name) & (everything["seed"] == seed)).any():
                continue
            table = run(name, seed, seed < arguments.slow_splits)
            everything = table if everything.empty else pd.concat([everything, table])
            if arguments.out:
                everything.to_csv(arguments.out, index=False)
    show(everything[everything["data"].isin(arguments.data)])


if __name__ == "__main__":
    main()
