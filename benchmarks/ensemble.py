"""How the laws of real trained networks approach theirs at infinite width as they widen.

    python benchmarks/ensemble.py [--kinds plain perturbed] [--widths 16 32 64 256 1024]
                                  [--networks 128] [--depth 1] [--ridge 0.3]

Plain networks approach the random-init law, perturbed ones the perturbed-init law; narrow perturbed
ones do not come to rest at small ridges. Iris, 40 training points, three classes. Prints, for every
width, the energy distance between joint logit draws at 40 held-out points (0 for equal laws, 1 for
laws without overlap) with its Monte Carlo error, the ratio of logit variances and the time; for both
laws also their distance from the exact posterior (NUTS). Then the test of whether each ensemble is a
sample of the law at infinite width, with all its networks and with the first half of them, and the
trend over widths.
"""

import argparse
import itertools
import time
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np

import ntkbayes as nb
from ntkbayes.errors import ConvergenceError, DivergenceError
from ntkbayes.scores.distances import energy_coefficient, variance_ratio

CLASSES = 3
KINDS: dict[str, tuple[nb.Method, type]] = {
    "plain": (nb.RandomInit(num_inits=2000), nb.FiniteEnsemble),
    "perturbed": (nb.PerturbedInit(num_inits=2000), nb.PerturbedEnsemble),
}


def network(depth: int, width: int) -> nb.networks.MLP:
    return nb.networks.mlp(
        depth=depth, weight_std=1.5, bias_std=0.1, width=width, num_outputs=CLASSES
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=["plain"])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 256, 1024])
    parser.add_argument("--networks", type=int, default=128)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--ridge", type=float, default=0.3)
    options = parser.parse_args()

    key = jax.random.key(0)
    data = nb.datasets.load("iris").subset(key, 80)
    train, test = data.split(key, test_share=0.5)
    prior = nb.NTKPrior(network(options.depth, 1), ridge=options.ridge)

    nuts = nb.NUTS(num_samples=500, num_chains=4).fit(prior, train, key=key)
    posterior = np.asarray(nuts.sample(key, test.features))
    for kind in options.kinds:
        widen(kind, prior, train, test, posterior, options)


def widen(
    kind: str,
    prior: nb.NTKPrior,
    train: nb.Dataset,
    test: nb.Dataset,
    posterior: np.ndarray,
    options: argparse.Namespace,
) -> None:
    key = jax.random.key(0)
    limit, ensemble = KINDS[kind]
    law = limit.fit(prior, train, key=key)
    reference = np.asarray(law.sample(key, test.features))
    bayes = energy_coefficient(reference, posterior)
    print(f"\n{limit.name}, infinite width: {bayes.value:.3f} ± {bayes.error:.3f} from NUTS")
    print(
        f"{'width':>6}{'to ' + limit.name:>20}{'variance ratio':>18}{'to NUTS':>18}"
        f"{'at rest within':>16}{'steps':>8}{'seconds':>9}"
    )
    distances, ensembles = [], {}
    for width in options.widths:
        method = ensemble(network(options.depth, width), options.networks)
        begin = time.perf_counter()
        try:
            real = method.fit(prior, train, key=jax.random.key(1))
        except (ConvergenceError, DivergenceError) as error:
            print(f"{width:>6}    {str(error).split(':')[0]}")
            continue
        took = time.perf_counter() - begin
        info: Any = real.info
        trained = np.asarray(real.sample(key, test.features))
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
    if not distances:
        return
    falls = all(a.value > b.value for a, b in itertools.pairwise(distances))
    print(f"falls monotonically: {falls}")
    widest = distances[-1]
    for share in (1, 2):
        some = {w: logits[: options.networks // share] for w, logits in ensembles.items()}
        print(nb.checks.over_widths(some, law, test.features, key=jax.random.key(2)))
    print(f"within 2 Monte Carlo errors of zero at the largest: {widest.value < 2 * widest.error}")


if __name__ == "__main__":
    main()
