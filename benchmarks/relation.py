"""How the random-init law relates to Bayes: effective temperature, gradient noise it lacks, anatomy.

    python benchmarks/relation.py [--data wine iris breast_cancer digits] [--points 300] [--inits 500]
                                  [--ridge 0.1]

Two ReLU layers, at most so many points of each data set, three quarters of them for training. Prints,
for each, at which temperature the Laplace posterior of the same mode is as wide as the random-init law
at 20 held-out points, the gradient noise in units of W that would make it as wide as Laplace, and the
law's variance over Laplace's along the eigenvectors of the kernel. Intervals are of 95%, for the Monte
Carlo error.
"""

import argparse
import time

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np

import ntkbayes as nb
from ntkbayes.errors import SearchError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["wine", "iris", "breast_cancer", "digits"]
    parser.add_argument("--data", nargs="+", default=names)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--inits", type=int, default=500)
    parser.add_argument("--ridge", type=float, default=0.1)
    options = parser.parse_args()
    network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)
    prior = nb.NTKPrior(network, ridge=options.ridge)
    for name in options.data:
        begin = time.perf_counter()
        study(name, prior, options.points, options.inits)
        print(f"  {time.perf_counter() - begin:.0f} seconds\n", flush=True)


def study(name: str, prior: nb.NTKPrior, num_points: int, num_inits: int) -> None:
    key = jax.random.key(0)
    data = nb.datasets.load(name)
    train, test = data.subset(key, min(num_points, data.num_points)).split(key)
    new = test.take(np.arange(20))
    ensemble = nb.RandomInit(num_inits=num_inits)
    law, laplace = ensemble.fit(prior, train, key=key), nb.Laplace().fit(prior, train)
    print(f"{name}: {train.num_points} training points, ridge {float(prior.ridge):g}")
    turned: dict[str, nb.Law | nb.Method] = {
        "temperature at the mode": law,
        "gradient noise": ensemble,
    }
    for over, given in turned.items():
        try:
            found = nb.match(given, laplace, new, over=over, key=key, num_values=5)
            print(
                f"  {over}: {found.value:.3g} ({found.lower:.3g} to {found.upper:.3g})", flush=True
            )
        except SearchError as error:
            print(f"  {over}: {error}", flush=True)
    print(nb.anatomy({"random init": law, "Laplace": laplace}, key=key))


if __name__ == "__main__":
    main()
