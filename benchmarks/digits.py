"""Laws of one real network on digits, on corrupted digits, and on images that are no digits.

    python benchmarks/digits.py [--points 1000] [--new 200] [--splits 5] [--networks 16]
                                [--export FOLDER]

A convolutional network of 71 thousand parameters is trained 16 times. Of the first one, linearised at
its trained parameters: the MAP, and the Laplace posterior over all weights and over the last layer, at
the ridge of the training, of most evidence and of cross-validation; beside them the deep ensemble, and
the random-init and perturbed-init laws of the network linearised where it starts. Scores are means over
splits with their standard errors; AUROC is that of the entropy between test images and images with
shuffled pixels. A corrupted image has one of three corruptions.
`--export` writes each split's images, for `benchmarks/peers/laplace_torch.py`, and its scores: a run
that was interrupted goes on at the first split without.
"""

import argparse
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import pandas as pd
from real import NETWORKS

import ntkbayes as nb
from ntkbayes.bridges.flax import from_linen
from ntkbayes.files import save_arrays
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.scores.detection import separation

RIDGE = 0.1
CORRUPTIONS = ("gaussian_noise", "rotation", "occlusion")
SEVERITY = 3
# Of each Laplace posterior: the part of the network, and the ridges that cross-validation tries.
PARTS = {
    "all weights": (None, (0.1, 1.0, 10.0, 100.0, 1000.0)),
    "last layer": ("Dense_1", (1.0, 10.0, 100.0, 1e3, 1e4)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("points", 1000), ("new", 200), ("splits", 5), ("networks", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--export", type=Path)
    options = parser.parse_args()
    tables = []
    for split in range(options.splits):
        scored = options.export and options.export / f"split{split}.csv"
        if scored and scored.exists():
            tables.append(pd.read_csv(scored, index_col=0))
            continue
        sets = images(split, options.points, options.new)
        if options.export:
            options.export.mkdir(parents=True, exist_ok=True)
            arrays = {f"{name}_x": data.features for name, data in sets.items()}
            arrays |= {f"{name}_y": data.labels for name, data in sets.items()}
            save_arrays(options.export / f"split{split}.npz", arrays)
        tables.append(scores(laws(sets["train"], split, options.networks), sets))
        if scored:
            tables[-1].to_csv(scored)
        told(f"means over {len(tables)} of {options.splits} splits\n{summary(tables)}")


def images(split: int, num_points: int, num_new: int) -> dict[str, nb.Dataset]:
    """Training, test, corrupted and shuffled images, with pixels from −1 to 1."""
    raw = nb.datasets.load("digits")
    rng = np.random.default_rng(split)
    order = rng.permutation(raw.num_points)
    train, test = raw.take(order[:num_points]), raw.take(order[num_points : num_points + num_new])
    ways = [
        nb.datasets.corrupt(test, name, SEVERITY, jax.random.key(split)) for name in CORRUPTIONS
    ]
    corrupted = np.choose(np.arange(num_new)[:, None] % len(ways), [way.features for way in ways])
    shuffled = rng.permuted(test.features, axis=1)
    features = {"test": test.features, "corrupted": corrupted, "shuffled": shuffled}
    sets = {name: (x, test.labels) for name, x in features.items()}
    sets["train"] = train.features, train.labels
    return {
        name: nb.Dataset(x / 8 - 1, labels, class_names=range(10))
        for name, (x, labels) in sets.items()
    }


def laws(train: nb.Dataset, split: int, num_networks: int) -> dict[str, nb.Law]:
    network = from_linen(NETWORKS["formed"], jnp.zeros((2, 64)))
    fit_key, key = jax.random.split(jax.random.key(split))
    method = nb.DeepEnsemble(network, num_networks)
    start = nb.NTKPrior(
        EmpiricalKernel(network, network.init(key, jnp.zeros((2, 64)))), ridge=RIDGE
    )
    told(f"split {split}, the ensemble")
    ensemble = method.fit(start, train, key=fit_key)
    members = ensemble.params
    first = jax.tree.map(lambda leaf: leaf[0], members)
    init_key = jax.random.split(jax.random.clone(fit_key), 3)[1]
    anchor = network.init(jax.random.split(init_key, num_networks)[0], jnp.zeros((2, 64)))
    found: dict[str, nb.Law] = {"deep ensemble": ensemble}
    for name, (over, ridges) in PARTS.items():
        prior = nb.linearise(network, first, ridge=RIDGE, anchor=anchor, over=over)
        told(f"split {split}, {name}")
        if over is None:
            found["MAP"] = nb.MAP().fit(prior, train)
        found[f"Laplace, {name}"] = nb.Laplace().fit(prior, train)
        rules: dict[str, nb.RidgeRule] = {
            "evidence": nb.RidgeByEvidence(),
            "cv": nb.RidgeByCrossValidation(nb.Laplace(), ridges, num_folds=2),
        }
        for rule_name, rule in rules.items():
            chosen = rule.choose(prior, train, key=key)
            told(f"  ridge by {rule_name}: {chosen.ridge:.3g}")
            found[f"Laplace, {name}, {rule_name}"] = nb.Laplace().fit(
                prior.with_ridge(chosen.ridge), train
            )
    told(f"split {split}, laws over initialisations")
    found["random init"] = nb.RandomInit(num_inits=100).fit(start, train, key=fit_key)
    found["perturbed init"] = nb.PerturbedInit(num_inits=100).fit(start, train, key=fit_key)
    return found


def scores(found: dict[str, nb.Law], sets: dict[str, nb.Dataset]) -> pd.DataFrame:
    """NLL, Brier and ECE on test and corrupted images, AUROC against shuffled ones."""
    key, parts, entropies = jax.random.key(0), [], {}
    for where in ("test", "corrupted", "shuffled"):
        told(f"  predictions, {where}")
        predictions = {name: nb.predict(law, sets[where], key=key) for name, law in found.items()}
        for name, one in predictions.items():
            assert isinstance(one, nb.ClassPredictions)
            p = np.asarray(one.probabilities)
            entropies[name, where] = -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=1)
        if where != "shuffled":
            table = nb.compare(predictions, sets[where], key=key).table()[["nll", "brier", "ece"]]
            parts.append(table.add_suffix(f", {where}"))
    auroc = {
        name: separation(entropies[name, "test"], entropies[name, "shuffled"]).auroc
        for name in found
    }
    return pd.concat([*parts, pd.Series(auroc, name="AUROC")], axis=1)


def summary(tables: list[pd.DataFrame]) -> str:
    together = pd.concat(tables, keys=range(len(tables)))
    mean = together.groupby(level=1, sort=False).mean()
    error = together.groupby(level=1, sort=False).sem()
    cells = mean.map("{:.3f}".format)
    if len(tables) > 1:
        cells = cells + error.map(" ± {:.3f}".format)
    return cells.to_string()


def told(what: str) -> None:
    print(f"{time.strftime('%X')}  {what}", flush=True)


if __name__ == "__main__":
    main()
