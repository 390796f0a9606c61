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
# # Cold posteriors
#
# Raise the likelihood to the power 1/T, and Bayes' posterior becomes a *tempered* one: warm for
# T > 1, cold for T < 1. Deep networks have been reported to predict better with cold posteriors
# ([Wenzel et al. 2020](https://arxiv.org/abs/2002.02405)). With the kernel of a wide network the
# question needs no Markov chains over weights: here are NLL and calibration error against T on three
# data sets, beside the law of training from random initialisations, which knows no temperature of
# its own. The ridge is the one that the evidence chooses at T = 1
# ([theory, section 9](../theory.md#theory-9)).
#
# This is not temperature *scaling*, which divides the logits of a fitted law and keeps the fit.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.likelihood import default_likelihood

keys = iter(jax.random.split(jax.random.key(1), 20))  # one for each use
network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)
temperatures = np.logspace(-2, 1, 7)

# %% [markdown]
# The posterior is approximated by `MeanField`, the nearest Gaussian with independent logits: within
# .03 of the posterior's probabilities on average, in a second. `nb.NUTS()` in its place gives the
# posterior itself.


# %%
def measured(law, test, key):
    """NLL and calibration error on held-out points."""
    scores = nb.predict(law, test, key=key, num_draws=300).statistics
    return {name: float(scores[name](None)) for name in ("nll", "ece")}


curves, lines, ridges = {}, {}, {}
for name, size in (("moons", 100), ("iris", 100), ("wine", 100)):
    data = nb.datasets.load(name).subset(jax.random.key(0), size)
    train, test = data.split(jax.random.key(0), test_share=0.5)
    prior = nb.NTKPrior(network, ridge=1.0)
    ridges[name] = nb.RidgeByEvidence().choose(prior, train, key=next(keys)).ridge
    prior = prior.with_ridge(ridges[name])
    likelihood = default_likelihood(train)
    cooled = [
        nb.MeanField().fit(prior, train, likelihood=likelihood.tempered(t)) for t in temperatures
    ]
    draw_key = next(keys)  # one for all temperatures, so that curves are smooth
    curves[name] = pd.DataFrame(
        [measured(law, test, jax.random.clone(draw_key)) for law in cooled], index=temperatures
    )
    ensemble = nb.RandomInit(num_inits=300).fit(prior, train, key=next(keys))
    lines[name] = measured(ensemble, test, next(keys))

# %%
scores = {"nll": "NLL (nats per point)", "ece": "Calibration error"}
with figures.own_style():
    figure, panels = plt.subplots(2, 3, figsize=(10, 5.4), sharex=True, layout="constrained")
    for column, (name, curve) in enumerate(curves.items()):
        for panel, (score, label) in zip(panels[:, column], scores.items(), strict=True):
            panel.plot(
                temperatures, curve[score], "o-", color="#1a1a1a", label="tempered posterior"
            )
            panel.axhline(lines[name][score], color="#0072B2", label="random init")
            panel.axvline(1.0, color="#8a8a8a", dashes=(4, 3), linewidth=1, label="Bayes, T = 1")
            panel.axvline(
                ridges[name], color="#8a8a8a", linewidth=1, linestyle=":", label="T = ridge"
            )
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.minorticks_off()
            panel.grid(visible=True, linewidth=0.6)
            if column == 0:
                panel.set_ylabel(label)
        panels[0, column].set_title(f"{name}, ridge {ridges[name]:.3g}", loc="left")
        panels[1, column].set_xlabel("Temperature")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
plt.show()

# %% [markdown]
# What temperature is best, and what it gains over Bayes and over the random-init law:

# %%
pd.DataFrame(
    {
        name: {
            "best T": curve["nll"].idxmin(),
            "NLL there": curve["nll"].min(),
            "NLL at T = 1": curve["nll"].loc[1.0],
            "NLL, random init": lines[name]["nll"],
        }
        for name, curve in curves.items()
    }
).T.round(3)

# %% [markdown]
# Read the table with its 50 test points in mind; where the best T is 0.01, it is the coldest tried. A
# cold posterior that predicts better says that the prior is too wide for these data or the likelihood
# too cautious about labels that are cleaner than a
# softmax expects, not that Bayes is wrong about the model it was given. To see how wide the
# random-init law of wine is in units of temperature, use `nb.match`:

# %%
nb.match(ensemble, nb.Laplace(), test, over="temperature at the mode", key=next(keys))
