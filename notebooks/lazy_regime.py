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
# # When can you trust the kernel view?
#
# Every law in this library describes a *linearised* network. A real network agrees with it only
# if training leaves its Neural Tangent Kernel unchanged: the lazy regime.
# [Theory](../theory.md#theory-1) says when that happens as the width grows, and
# [Six points on a circle](six_points.py) shows it. This notebook tests networks at their own
# width, and a whole ensemble.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
from itertools import pairwise

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt

import ntkbayes as nb
from ntkbayes.bridges.equinox import from_equinox
from ntkbayes.figures import LAW_COLOURS, STYLE

keys = iter(jax.random.split(jax.random.key(0), 20))  # one for each use
moons = nb.datasets.load("moons")

# %% [markdown]
# ## A network of your own
#
# Take an Equinox module. `from_equinox` takes the function that builds it; its arrays are the
# parameters.


# %%
def make(key):
    return eqx.nn.MLP(2, 1, width_size=64, depth=2, activation=jnp.tanh, key=key)


own = from_equinox(make)

# %% [markdown]
# `certify` trains it from a few initialisations, trains its linearisation by the same
# steps, and compares the two. The sizes here are small, for speed; the defaults are larger.

# %%
sizes = {"num_seeds": 2, "num_steps": 1000, "max_points": 24, "num_probes": 8}

certificates = {
    "Equinox, width 64": nb.lazy.certify(own, moons, ridge=0.5, key=next(keys), **sizes)
}
print(certificates["Equinox, width 64"])

# %% [markdown]
# No. Its kernel moved by several times its own norm, and its probabilities have little to do with
# the kernel machine's. That is no fault of the network, which may well classify better
# for having moved. It only means that the kernel at initialisation is the wrong kernel for it.
#
# The standard parameterisation is not the one of the theory: in it the weights of a layer are small
# and their steps large. In the NTK parameterisation weights are standard normal, and each
# layer divides by the square root of its fan-in. As a plain pair of functions:


# %%
def init(key, features, width=256):
    sizes = (features.shape[1], width, width, 1)
    keys = jax.random.split(key, 3)
    return [jax.random.normal(k, pair) for k, pair in zip(keys, pairwise(sizes), strict=True)]


def apply(params, features):
    first, second, readout = (1.5 * w / jnp.sqrt(w.shape[0]) for w in params)
    return jnp.tanh(jnp.tanh(features @ first) @ second) @ readout


wide = nb.networks.from_functions(init, apply)
certificates["NTK, width 256"] = nb.lazy.certify(wide, moons, ridge=0.5, key=next(keys), **sizes)
print(certificates["NTK, width 256"])

# %% [markdown]
# This one is lazy: the kernel moves by less than a tenth of its norm, then training stops, and at
# no point is a probability far from the linearisation's. To that accuracy you can trust its kernel
# laws.
#
# ## Without a ridge
#
# The same network, unconstrained, on one-hot targets. Now the loss has no minimum: the
# longer it trains, the further it moves.

# %%
certificates["NTK, width 256, no ridge"] = nb.lazy.certify(
    wide, moons, ridge=0.0, key=next(keys), **sizes
)
print(certificates["NTK, width 256, no ridge"])

# %% [markdown]
# `certificate.trajectory` holds everything measured on the way: a line per initialisation.

# %%
with matplotlib.rc_context(STYLE | {"text.parse_math": True}):
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    for colour, (name, certificate) in zip(LAW_COLOURS, certificates.items(), strict=False):
        seen = certificate.trajectory
        panels[0].plot(seen.time, seen.drift_train.T, color=colour)
        panels[1].plot(seen.time, seen.worst_variation.T, color=colour)
        panels[0].plot([], [], color=colour, label=name)
    panels[0].set(xscale="log", yscale="log", xlabel="Training time η · steps")
    panels[0].set_title("Drift of the NTK, of its norm", loc="left")
    panels[1].set(xscale="log", yscale="log", xlabel="Training time η · steps")
    panels[1].set_title("Gap to the linearisation in probability", loc="left")
    figure.legend(loc="outside lower center", ncols=3)
    plt.show()

# %% [markdown]
# ## A whole ensemble
#
# The random-init law is the distribution of an ensemble of infinitely wide networks.
# `FiniteEnsemble` trains real ones, and is a law like the others, so `compare` measures how far
# apart they are.

# %%
architecture = {"depth": 2, "activation": "relu", "weight_std": 1.5, "bias_std": 0.5}
prior = nb.NTKPrior(nb.networks.mlp(**architecture), ridge=0.5)
train, test = moons.split(next(keys), test_share=0.85)

laws = {
    f"width {width}": nb.FiniteEnsemble(
        network=nb.networks.mlp(**architecture, width=width), num_networks=24
    ).fit(prior, train, key=next(keys))
    for width in (16, 64, 256)
}
laws["random init"] = nb.RandomInit(num_inits=1000).fit(prior, train, key=next(keys))
laws["Laplace"] = nb.Laplace().fit(prior, train)

comparison = nb.compare(laws, test, key=next(keys), reference="random init")
comparison.table()[["nll", "variance_ratio", "energy", "energy_error", "tv"]].round(3)

# %% [markdown]
# `energy` is a distance between joint laws of logits: 0 if they are equal, at most 1. It falls as
# the networks get wider, and the spread of the ensemble falls to that of the random-init law.
# The distance from there to Laplace does not shrink: width makes an ensemble a kernel machine, but
# [not a posterior](../theory.md#theory-6).
