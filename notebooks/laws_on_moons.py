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
# One network, one data set, four answers to the question *how sure may we be?*
#
# - **MAP**: the trained network, with nothing uncertain about the function;
# - **random init**: the network, trained from a thousand initialisations;
# - **Laplace**: a Gaussian in place of the posterior;
# - **NUTS**: the posterior itself, by Markov chains.
#
# All have the same Neural Tangent Kernel, ridge and data, so what differs is what they mean by
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
# The network has two hidden ReLU layers, of infinite width. Its prior holds both kernels: the NTK
# Θ, which with the ridge is the prior of Bayes, GP(0, Θ/ridge), and the NNGP kernel K, which is how
# wide functions are at initialisation. At the training points they differ a lot:

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
# Each is a distribution over *functions*, so it can be drawn over the whole plane.

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
# Above is the predicted class, below the part of its uncertainty that is due to not knowing the
# function. The boundary is nearly the same in all four columns. What differs is how sure they are
# away from it.
#
# - The random-init law knows nearly everything nearly everywhere. Its predictors were pulled by the
#   same data from initial functions that are narrow next to the prior, and they agree.
# - The posterior knows little far from the data: a function is only held where there are points.
# - Laplace sees that too, but is unsure among the data as well. The posterior of a classifier is
#   skewed, and its mode is far from most of its mass.
#
# ## In numbers

# %%
columns = ["accuracy", "nll", "ece", "epistemic_uncertainty", "variance_ratio", "tv"]
comparison.table()[columns].round(3)

# %% [markdown]
# `variance_ratio` is a law's logit variance over that of NUTS, `tv` the total variation between
# predicted class probabilities. The random-init law has less than a hundredth of the posterior's
# variance, and Laplace most of it; yet in its probabilities the random-init law is the nearer one.
# Variance of logits and calibration of probabilities are two things, and [neither implies the
# other](../which-law.md).

# %%
figures.reliability(comparison)
