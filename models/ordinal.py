"""Ordered classes: diabetes, 442 patients, ten measurements, progression after a year in four grades.

Copy this file, change what you need, then

    ntkbayes compare --model models/ordinal.py
"""

import numpy as np
from sklearn.datasets import load_diabetes

import ntkbayes as nb

patients = load_diabetes()
GRADES = ("slow", "moderate", "fast", "very fast")  # class_names give the order
grade = np.digitize(patients.target, np.quantile(patients.target, [0.25, 0.5, 0.75]))
data = nb.Dataset(
    patients.data,
    [GRADES[g] for g in grade],
    class_names=GRADES,
    feature_names=patients.feature_names,
    name="diabetes, four grades",
)

network = nb.networks.mlp(depth=2, activation="erf", weight_std=1.5, bias_std=0.3)

# One logit f for all grades, P(grade ≤ k) = σ(c_k − f): the cutpoints c_k and the spread of f, which is
# √(Θ/ridge), are in the same units. A larger ridge keeps f within the middle cutpoints.
likelihood = nb.likelihood.Ordinal(cutpoints=(-1.5, 0.0, 1.5))
prior = nb.NTKPrior(network, ridge=3.0)

methods = {
    "MAP": nb.MAP(),
    "random init": nb.RandomInit(num_inits=1000),
    "Laplace": nb.Laplace(),
    "NUTS": nb.NUTS(num_samples=500, num_chains=4),
}

# The baselines ignore the order: they show what it is worth.
study = nb.Study(
    data=data, prior=prior, likelihood=likelihood, methods=methods, test_share=0.3, seed=0
)
