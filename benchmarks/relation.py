"""How distributions of trained networks relate to Bayes, in three tables per data set.

    python benchmarks/relation.py [--data wine iris breast_cancer digits] [--points 300] [--ridge 1]
                                  [--parts bayes networks layers]

bayes     The random-init law at infinite width: at which temperature the Laplace posterior of the same
          mode is as wide, which gradient noise, in units of W, it lacks, and its variance over
          Laplace's along the eigenvectors of the kernel.
networks  Real networks of one hidden layer, plain and perturbed, beside their laws: the energy
          coefficient of joint logits at the held-out points to the exact posterior (NUTS), the ratio of
          logit variances, and the temperature at which Laplace is as wide. Fails if perturbed networks
          are more than a fifth as far as plain ones of the same width.
layers    One trained network: the posterior of its last layer beside that of all its weights, both
          linearised at the trained parameters, by Laplace and by NUTS, each at the ridge of the
          training and at its own ridge of most evidence.

Errors and intervals are Monte Carlo errors; an interval is of 95%.
"""

import argparse
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np

import ntkbayes as nb
from ntkbayes.errors import SearchError
from ntkbayes.scores.distances import energy_coefficient, variance_ratio

WIDTHS = (64, 256, 1024)
NUM_NETWORKS = 64
PERTURBED_WIDTH = 512


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["wine", "iris", "breast_cancer", "digits"]
    parts = {"bayes": bayes, "networks": networks, "layers": layers}
    parser.add_argument("--data", nargs="+", default=names)
    parser.add_argument("--points", type=int, default=300, help="at most, training and test")
    parser.add_argument("--ridge", type=float, default=1.0)
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    options = parser.parse_args()
    failed = []
    for name in options.data:
        key = jax.random.key(0)
        data = nb.datasets.load(name)
        train, test = data.subset(key, min(options.points, data.num_points)).split(key)
        for part in options.parts:
            begin = time.perf_counter()
            print(f"\n{name}, {part}: {train.num_points} training points, ridge {options.ridge:g}")
            holds = parts[part](train, test, options.ridge)
            print(f"  {time.perf_counter() - begin:.0f} seconds", flush=True)
            if not holds:
                failed.append(name)
    raise SystemExit(f"perturbed networks are too far on {failed}" if failed else 0)


def bayes(train: nb.Dataset, test: nb.Dataset, ridge: float) -> bool:
    """The random-init law of two ReLU layers."""
    key = jax.random.key(1)
    network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)
    prior = nb.NTKPrior(network, ridge=ridge)
    new = test.take(np.arange(20))
    ensemble = nb.RandomInit(num_inits=500)
    law, laplace = ensemble.fit(prior, train, key=key), nb.Laplace().fit(prior, train)
    print(f"  temperature at the mode: {temperature(law, laplace, new)}")
    try:
        found = nb.match(ensemble, laplace, new, over="gradient noise", key=key, num_values=5)
        print(f"  gradient noise: {found.value:.3g} ({found.lower:.3g} to {found.upper:.3g})")
    except SearchError as error:
        print(f"  gradient noise: {error}")
    print(nb.anatomy({"random init": law, "Laplace": laplace}, key=key))
    return True


def networks(train: nb.Dataset, test: nb.Dataset, ridge: float) -> bool:
    """Ensembles of real networks, and the laws of them, beside NUTS."""

    def network(width: int) -> nb.networks.MLP:
        outputs = train.num_classes if train.num_classes > 2 else 1
        return nb.networks.mlp(depth=1, width=width, num_outputs=outputs)

    key, new = jax.random.key(2), test.take(np.arange(20))
    prior = nb.NTKPrior(network(PERTURBED_WIDTH), ridge=ridge)
    laplace = nb.Laplace().fit(prior, train)
    nuts = nb.NUTS(num_samples=500, num_chains=2).fit(prior, train, key=jax.random.key(3))
    posterior = np.asarray(nuts.sample(key, test.features))
    plain = {w: nb.FiniteEnsemble(network(w), NUM_NETWORKS) for w in (*WIDTHS, PERTURBED_WIDTH)}
    methods = {
        **{f"plain networks, width {width}": method for width, method in sorted(plain.items())},
        "random init": nb.RandomInit(num_inits=1000),
        f"perturbed networks, width {PERTURBED_WIDTH}": nb.PerturbedEnsemble(
            network(PERTURBED_WIDTH), NUM_NETWORKS
        ),
        "perturbed init": nb.PerturbedInit(num_inits=1000),
        "Laplace": nb.Laplace(),
    }
    print(f"  {'law':<32}{'to NUTS':>18}{'variance ratio':>18}  temperature at the mode")
    found = {}
    for name, method in methods.items():
        law = method.fit(prior, train, key=jax.random.key(4))
        draws = np.asarray(law.sample(key, test.features))
        far, ratio = energy_coefficient(draws, posterior), variance_ratio(draws, posterior)
        found[name] = far.value
        print(
            f"  {name:<32}{far.value:>9.4f} ± {far.error:.4f}{ratio.value:>10.3f} ± {ratio.error:.3f}"
            f"  {temperature(law, laplace, new)}",
            flush=True,
        )
    share = (
        found[f"perturbed networks, width {PERTURBED_WIDTH}"]
        / found[f"plain networks, width {PERTURBED_WIDTH}"]
    )
    print(f"  perturbed over plain networks: {share:.3f}")
    return share <= 0.2


def layers(train: nb.Dataset, test: nb.Dataset, ridge: float) -> bool:
    """The last layer of one trained network beside all of its weights."""
    outputs = train.num_classes if train.num_classes > 2 else 1
    network = nb.networks.mlp(depth=2, width=128, num_outputs=outputs)
    ensemble, key = nb.FiniteEnsemble(network, 2), jax.random.key(5)
    trained = ensemble.fit(nb.NTKPrior(network, ridge=ridge), train, key=key)
    params, initial = (
        jax.tree.map(lambda leaf: jnp.asarray(leaf[0], jnp.float64), stacked)
        for stacked in (
            trained.params,
            ensemble.initialise(trained.problem, jax.random.clone(key)),
        )
    )
    priors = {
        "all weights": nb.linearise(network, params, ridge=ridge, anchor=initial),
        "last layer": nb.linearise(
            network, params, ridge=ridge, anchor=initial, over=str(network.depth)
        ),
    }
    key = jax.random.key(6)
    exact = nb.NUTS(num_samples=500, num_chains=2).fit(
        priors["all weights"], train, key=jax.random.key(8)
    )
    posterior = np.asarray(exact.sample(key, test.features))
    laws: dict[str, nb.Law] = {}
    posteriors: tuple[nb.Method, ...] = (nb.Laplace(), nb.NUTS(num_samples=500, num_chains=2))
    for name, prior in priors.items():
        chosen = nb.RidgeByEvidence().choose(prior, train, key=key)
        for at in (ridge, chosen.ridge):
            for method in posteriors:
                law = method.fit(prior.with_ridge(at), train, key=key)
                laws[f"{name}, ridge {float(at):.3g}, {method.name}"] = law
    table = nb.compare(laws, test, key=key).table()
    print(
        f"  {'posterior':<40}{'NLL':>8}{'ECE':>8}{'to NUTS, all weights':>22}{'variance ratio':>18}"
    )
    for name, law in laws.items():
        draws = np.asarray(law.sample(key, test.features))
        far, ratio = energy_coefficient(draws, posterior), variance_ratio(draws, posterior)
        print(
            f"  {name:<40}{table.loc[name, 'nll']:>8.3f}{table.loc[name, 'ece']:>8.3f}"
            f"{far.value:>13.4f} ± {far.error:.4f}{ratio.value:>10.3f} ± {ratio.error:.3f}",
        )
    return True


def temperature(law: nb.Law, laplace: nb.Law, new: nb.Dataset) -> str:
    """Of the Laplace posterior of the same mode that is as wide, with its interval."""
    try:
        found = nb.match(
            law, laplace, new, over="temperature at the mode", key=jax.random.key(7), num_values=5
        )
    except SearchError as error:
        return str(error)
    return f"{found.value:.3g} ({found.lower:.3g} to {found.upper:.3g})"


if __name__ == "__main__":
    main()
