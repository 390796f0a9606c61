"""Binary classification: breast_cancer, 569 points, 30 features, two classes.

Copy this file, change what you need, then

    ntkbayes compare --model models/binary.py
"""

import ntkbayes as nb

# The network at infinite width: two hidden ReLU layers, x ↦ weight_std · W x / √fan_in + bias_std · b
# in each. Its NTK says how training moves the function, its NNGP kernel how initialisation spreads it.
network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)

# Before training: functions f0 ~ GP(0, K) for the network, GP(0, Θ/ridge) for Bayes. A larger ridge
# keeps the trained network closer to its initialisation, and the posterior closer to certainty of 1/2.
# The study chooses it: how noisy the labels are matters more to it than anything known beforehand.
prior = nb.NTKPrior(network, ridge=1.0)
ridge = nb.RidgeByEvidence()  # or nb.RidgeByCrossValidation(); nb.GivenRidge() for the number above

# One logit, for the second class. Training minimises the cross-entropy, summed over the points, plus
# ridge/2 · ‖θ − θ0‖².
likelihood = nb.likelihood.Bernoulli()

# The laws to compare, by the name that the report shows.
methods = {
    "MAP": nb.MAP(),  # the trained network with its initial function subtracted: a point
    "random init": nb.RandomInit(num_inits=1000),  # 1000 initialisations, each trained to the end
    "first order": nb.FirstOrder(),  # the same law, linearised in f0: a Gaussian in closed form
    "Laplace": nb.Laplace(),  # a Gaussian approximation around the MAP
    "NUTS": nb.NUTS(num_samples=1000, num_chains=4),  # the posterior itself, by Markov chains
}

study = nb.Study(
    data="breast_cancer",  # or nb.datasets.read_table("my.csv", target="diagnosis")
    prior=prior,
    ridge=ridge,
    likelihood=likelihood,
    methods=methods,
    test_share=0.3,
    seed=0,
)
