"""Leave-one-out from one fit against refitting: 40 points, two and three classes.

    python benchmarks/leave_one_out.py

Prints, for every Gaussian posterior, how far the log predictive density of a left-out point is from that
of a refit without it, in nats.
"""

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np
import pandas as pd

import ntkbayes as nb
from ntkbayes.laws.gaussian.marginals import log_marginal_density
from ntkbayes.likelihood import Likelihood

METHODS = {
    "Laplace": nb.Laplace(),
    "variational": nb.Variational(),
    "mean field": nb.MeanField(),
    "EP": nb.ExpectationPropagation(),
}
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1, weight_std=1.5, bias_std=0.5), ridge=0.5)
NUM_POINTS = 40


def data_of(num_classes: int) -> nb.Dataset:
    """Overlapping blobs around points of a circle."""
    rng = np.random.default_rng(7)
    labels = np.arange(NUM_POINTS) % num_classes
    angles = 2 * np.pi * labels / num_classes
    centres = 1.2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    features = centres + 0.8 * rng.standard_normal((NUM_POINTS, 2))
    return nb.Dataset(features, labels, class_names=range(num_classes))


def refitted(method: nb.laws.Method, data: nb.Dataset, likelihood: Likelihood) -> np.ndarray:
    """log p(yᵢ | all other points), by as many fits as points."""
    targets = likelihood.encode(data)
    log_densities = []
    for i in range(NUM_POINTS):
        law = method.fit(PRIOR, data.take(np.arange(NUM_POINTS) != i), likelihood=likelihood)
        x = data.features[i : i + 1]
        moments = law.mean(x), law.covariance(x)
        log_densities.append(
            float(log_marginal_density(likelihood, targets[i : i + 1], *moments)[0])
        )
    return np.array(log_densities)


def main() -> None:
    rows = []
    for num_classes in (2, 3):
        data = data_of(num_classes)
        for name, method in METHODS.items():
            # For one logit mean field is variational; for several there is no EP.
            if name == ("mean field" if num_classes == 2 else "EP"):
                continue
            law = method.fit(PRIOR, data)
            at_once = nb.leave_one_out(law)
            exact = refitted(method, data, law.problem.likelihood)
            errors = np.abs(at_once - exact)
            sums = at_once.sum() - exact.sum(), exact.sum()
            rows.append((num_classes, name, errors.max(), errors.mean(), *sums))
    columns = ["classes", "law", "max error", "mean error", "error of the sum", "sum"]
    print(pd.DataFrame(rows, columns=columns).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
