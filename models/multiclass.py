"""Multi-class classification: wine, 178 points, 13 features, three classes.

Copy this file, change what you need, then

    ntkbayes compare --model models/multiclass.py
"""

import ntkbayes as nb

# Three hidden layers with skip connections, h ↦ h + Dense(φ(h)), and a smooth activation. Any
# elementwise JAX function is an activation too: activation=jax.numpy.tanh, by quadrature.
network = nb.networks.mlp(depth=3, activation="gelu", weight_std=1.3, bias_std=0.3, skip=True)

# The prior's mean is a number, one number per class, or a function of the features.
# The ridge is what the evidence of the training points prefers; see the end.
prior = nb.NTKPrior(network, ridge=1.0, mean=0.0)

# Softmax over one logit per class. Only differences of logits matter, so distances between laws
# compare logits minus their mean over classes.
likelihood = nb.likelihood.Categorical()

methods = {
    "MAP": nb.MAP(),
    "random init": nb.RandomInit(num_inits=1000),
    # An early-stopped network: gradient flow for a finite time instead of to the end.
    "random init, t = 10": nb.RandomInit(num_inits=100, training_time=10.0),
    "Laplace": nb.Laplace(),
    "NUTS": nb.NUTS(num_samples=500, num_chains=4),
}

study = nb.Study(
    data="wine",
    prior=prior,
    likelihood=likelihood,
    methods=methods,
    ridge=nb.RidgeByEvidence(),  # in place of the prior's 1.0, which nb.GivenRidge() would keep
    smoothing=0.0,  # 0.1 would train on targets of 0.93, 0.03, 0.03
    test_share=0.3,
    seed=0,
)
