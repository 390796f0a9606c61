"""Soft labels from several annotators: iris, 150 flowers, each seen by five people who may err.

Copy this file, change what you need, then

    ntkbayes compare --model models/annotators.py
"""

import numpy as np

import ntkbayes as nb

# How many annotators chose each class, one row per flower: here simulated, by people who name the
# right species with the given probability and one of the others otherwise. Yours come from a table.
flowers = nb.datasets.load("iris")
random = np.random.default_rng(0)
votes = np.zeros((flowers.num_points, flowers.num_classes), dtype=int)
for accuracy in (0.95, 0.9, 0.85, 0.7, 0.6):
    is_right = random.uniform(size=flowers.num_points) < accuracy
    another = random.integers(1, flowers.num_classes, size=flowers.num_points)
    chosen = np.where(is_right, flowers.labels, flowers.labels + another) % flowers.num_classes
    votes[np.arange(flowers.num_points), chosen] += 1

# Each class's target is its share of a flower's votes: 0.6, 0.4, 0 instead of 1, 0, 0. Training
# minimises the cross-entropy to these. The number of votes is lost. With half a vote added to every
# class, votes + 0.5, no target is 0, and training ends without a ridge too: NTKPrior(network, ridge=0).
data = nb.Dataset.from_counts(
    flowers.features,
    votes,
    class_names=flowers.class_names,
    feature_names=flowers.feature_names,
    name="iris, five annotators",
)

network = nb.networks.mlp(depth=2, activation="erf", weight_std=1.5, bias_std=0.5)
prior = nb.NTKPrior(network, ridge=1.0)

methods = {
    "MAP": nb.MAP(),
    "random init": nb.RandomInit(num_inits=1000),
    "Laplace": nb.Laplace(),
    # The posterior given one label per flower, drawn from its target: soft targets carry less
    # information than votes counted one by one.
    "NUTS": nb.NUTS(num_samples=500, num_chains=4),
}

# Held-out targets are vote shares too: the lowest possible NLL is their entropy, not 0.
study = nb.Study(data=data, prior=prior, methods=methods, test_share=0.3, seed=0)
