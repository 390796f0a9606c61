"""How the law of real trained networks approaches the random-init law as their width grows.

    python benchmarks/ensemble.py [--widths 16 32 64 256 1024] [--networks 128] [--depth 1]

Iris, 40 training points, three classes, ridge 0.3. Prints, for every width, the energy distance between
joint logit draws at 40 held-out points (0 for equal laws, 1 for laws without overlap) with its
Monte Carlo error, the ratio of logit variances and the time; for both laws also their distance
from the exact posterior (NUTS). Then the test of whether each ensemble is a sample of the random-init
law, with all its networks and with the first half of them, and the trend over widths.
"""

import argparse
import itertools
import time
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np

import ntkbayes as nb
from ntkbayes.scores.distances import energy_coefficient, variance_ratio

RIDGE = 0.3
CLASSES = 3


def network(depth: int, width: int) -> nb.networks.MLP:
    return nb.networks.mlp(
        depth=depth, weight_std=1.5, bias_std=0.1, width=width, num_outputs=CLASSES
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 256, 1024])
    parser.add_argument("--networks", type=int, default=128)
    parser.add_argument("--depth", type=int, default=1)
    options = parser.parse_args()

    key = jax.random.key(0)
    data = nb.datasets.load("iris").subset(key, 80)
    train, test = data.split(key, test_share=0.5)
    prior = nb.NTKPrior(network(options.depth, 1), ridge=RIDGE)

    def draws(law: nb.laws.Law) -> np.ndarray:
        return np.asarray(law.sample(key, test.features))

    random_init = nb.RandomInit(num_inits=2000).fit(prior, train, key=key)
    reference = draws(random_init)
    posterior = draws(nb.NUTS(num_samples=500, num_chains=4).fit(prior, train, key=key))
    bayes = energy_coefficient(reference, posterior)
    print(f"random init, infinite width: {bayes.value:.3f} ± {bayes.error:.3f} from NUTS")
    print(
        f"{'width':>6}{'to random init':>20}{'variance ratio':>18}{'to NUTS':>18}"
        f"{'at rest within':>16}{'steps':>8}{'seconds':>9}"
    )
    distances, ensembles = [], {}
    for width in options.widths:
        method = nb.FiniteEnsemble(
            network=network(options.depth, width), num_networks=options.networks
        )
        begin = time.perf_counter()
        law = method.fit(prior, train, key=jax.random.key(1))
        took = time.perf_counter() - begin
        info: Any = law.info
        trained = draws(law)
        near, far = energy_coefficient(trained, reference), energy_coefficient(trained, posterior)
        ratio = variance_ratio(trained, reference)
        print(
            f"{width:>6}{near.value:>12.4f} ± {near.error:.4f}{ratio.value:>10.3f} ± {ratio.error:.3f}"
            f"{far.value:>11.3f} ± {far.error:.3f}{info.last_move:>16.3f}"
            f"{info.num_steps:>8}{took:>9.1f}",
            flush=True,
        )
        distances.append(near)
        ensembles[width] = trained
    falls = all(a.value > b.value for a, b in itertools.pairwise(distances))
    print(f"falls monotonically: {falls}")
    widest = distances[-1]
    for share in (1, 2):
        some = {w: logits[: options.networks // share] for w, logits in ensembles.items()}
        print(nb.checks.over_widths(some, random_init, test.features, key=jax.random.key(2)))
    print(f"within 2 Monte Carlo errors of zero at the largest: {widest.value < 2 * widest.error}")


if __name__ == "__main__":
    main()
