# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Laws on the moons
#
# One network, one data set, four answers to the question *how sure can we be?*
#
# - **MAP**: the trained network, with no uncertainty about the function;
# - **random init**: the network trained from a thousand initialisations;
# - **Laplace**: a Gaussian approximation to the posterior;
# - **NUTS**: the posterior itself, by Markov chains.
#
# All share the Neural Tangent Kernel, the ridge and the data; they differ in what they mean by
# "uncertain".

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import jax

jax.config.update("jax_enable_x64", True)

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.predictions import surface

train, test = nb.datasets.load("moons").split(jax.random.key(0), test_share=0.7)
print(train, test, sep="\n")

# %% [markdown]
# The network has two hidden ReLU layers of infinite width. Its prior holds both kernels: the NTK
# Θ, which with the ridge gives the Bayesian prior GP(0, Θ/ridge), and the NNGP kernel K, the
# covariance of functions at initialisation. At the training points they differ a lot:

# %%
network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.5)
prior = nb.NTKPrior(network, ridge=0.1)

kernels = prior.diagonal(train.features)
print(f"sd of a logit at initialisation, √K:        {float(kernels.nngp.mean()) ** 0.5:.2f}")
print(f"sd of a logit a priori for Bayes, √(Θ/ridge): {float(kernels.ntk.mean() / 0.1) ** 0.5:.2f}")

# %% [markdown]
# ## Four laws

# %%
laws = {
    "MAP": nb.MAP().fit(prior, train),
    "random init": nb.RandomInit(num_inits=1000).fit(prior, train, key=jax.random.key(1)),
    "Laplace": nb.Laplace().fit(prior, train),
    "NUTS": nb.NUTS(num_samples=250, num_warmup=250, num_chains=2).fit(
        prior, train, key=jax.random.key(2)
    ),
}
random_init, chains = laws["random init"].info, laws["NUTS"].info
print(f"random init: every draw solved to {random_init.worst_residual:.1e} in probability")
print(f"NUTS: {chains.num_divergences} divergences, R-hat {chains.max_rhat:.3f}")

# %% [markdown]
# Each is a distribution over *functions*, so we can draw it over the whole plane.

# %%
surfaces = {
    name: surface(law, train, key=jax.random.key(3), resolution=40, num_draws=200)
    for name, law in laws.items()
}
comparison = nb.Comparison(
    nb.compare(laws, test, key=jax.random.key(4)).predictions,
    reference="NUTS",
    surfaces=surfaces,
)
figures.surfaces(comparison)

# %% [markdown]
# Top: the predicted class. Bottom: the part of its uncertainty that comes from not knowing the
# function. The boundary is nearly the same in all four columns; they differ in how sure they are
# away from it.
#
# - The random-init law is sure nearly everywhere. The same data pulled its predictors from
#   initial functions whose spread is small compared with the prior's, and they agree.
# - The posterior is unsure far from the data, where nothing constrains the function.
# - Laplace sees that too, but is unsure among the data as well. A classifier's posterior is
#   skewed, and its mode is far from most of its mass.
#
# ## In numbers

# %%
columns = ["accuracy", "nll", "ece", "epistemic_uncertainty", "variance_ratio", "tv"]
comparison.table()[columns].round(3)

# %% [markdown]
# `variance_ratio` is a law's logit variance over that of NUTS, `tv` the total variation between
# predicted class probabilities. The random-init law has less than a hundredth of the posterior's
# variance, and Laplace most of it; yet in its probabilities the random-init law is the closer one.
# The variance of logits and the calibration of probabilities are two things, and [neither implies
# the other](../which-law.md).

# %%
figures.reliability(comparison)
