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
# # Labels from several annotators
#
# People who label data disagree, and how often they do is information. Votes give each point
# a *soft* target, a probability for every class. Cross-entropy takes soft targets directly, and
# if none of them is 0 you can train the network without a ridge: then the law over random
# initialisations is exactly Gaussian ([theory, section 3](../theory.md#theory-3)).
#
# Here we know the truth: 40 points on a line, seven annotators, each of whom says "1" with a
# probability that depends on x.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import jax

jax.config.update("jax_enable_x64", True)

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import expit

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.errors import RidgeError
from ntkbayes.predictions import predict_probabilities

rng = np.random.default_rng(3)


def truth(x):
    """P(an annotator says 1)."""
    return expit(2.5 * np.sin(2.2 * x) + 0.5 * x)


x = np.linspace(-2, 2, 40)[:, None]
votes = rng.binomial(7, truth(x[:, 0]))
counts = np.column_stack([7 - votes, votes])

# %% [markdown]
# ## Three sets of targets from the same votes
#
# - *majority*: one-hot, as in most pipelines;
# - *shares*: the share of the votes;
# - *shares + ½*: half a vote added to each class (the Krichevsky–Trofimov estimator), so that no
#   probability is 0 where all seven agree. Only these can be trained without a ridge.

# %%
targets = {
    "majority": nb.Dataset(x, (votes > 3).astype(int)),
    "shares": nb.Dataset.from_counts(x, counts),
    "shares + ½": nb.Dataset.from_counts(x, counts + 0.5),
}
unanimous = int(np.isin(votes, (0, 7)).sum())
print(f"all seven agree about {unanimous} of 40 points: their shares are 0 or 1")

network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.5)
try:
    nb.RandomInit().fit(nb.NTKPrior(network, ridge=0.0), targets["shares"], key=jax.random.key(0))
except RidgeError as error:
    print("RidgeError:", error)

# %% [markdown]
# ## Without a ridge: sampled law against formula
#
# `RandomInit` draws a thousand initial functions and trains each. `FirstOrder` has the mean and
# covariance in closed form, and at a ridge of 0 it is exact. The two must agree
# within Monte Carlo error. (Over as many inputs as here, expect the largest difference to be
# about three standard errors.)

# %%
ridgeless = nb.NTKPrior(network, ridge=0.0)
exact = nb.FirstOrder().fit(ridgeless, targets["shares + ½"])
sampled = nb.RandomInit(num_inits=1000).fit(ridgeless, targets["shares + ½"], key=jax.random.key(1))

grid = np.sort(np.concatenate([np.linspace(-2.6, 2.6, 131), x[:, 0]]))[:, None]
draws = np.asarray(sampled.sample(jax.random.key(2), grid))[:, :, 0]
mean, variance = np.asarray(exact.mean(grid))[:, 0], np.asarray(exact.variance(grid))[:, 0]
error = np.sqrt(variance / len(draws))
spread = variance > 1e-6 * variance.max()  # at the points themselves nothing varies
z_mean = (draws.mean(axis=0) - mean)[spread] / error[spread]
ratio = draws.var(axis=0, ddof=1)[spread] / variance[spread]
print(f"exactly Gaussian: {exact.info.exact}")
print(f"means: {np.abs(z_mean).max():.2f} standard errors apart at most")
print(
    f"variances: ratio {ratio.min():.3f} to {ratio.max():.3f}, standard error {(2 / 1000) ** 0.5:.3f}"
)

# %% [markdown]
# ## What each learns
#
# The same network with the three targets, and with a ridge where the targets need one.

# %%
LAWS = {
    "majority, ridge 0.1": ("majority", 0.1),
    "shares, ridge 0.1": ("shares", 0.1),
    "shares, ridge 1": ("shares", 1.0),
    "shares + ½, no ridge": ("shares + ½", 0.0),
}
probabilities = {
    name: predict_probabilities(
        nb.RandomInit(num_inits=500).fit(
            nb.NTKPrior(network, ridge=ridge), targets[kind], key=fit_key
        ),
        grid,
        key=draw_key,
    )[:, :, 1]
    for (name, (kind, ridge)), (fit_key, draw_key) in zip(
        LAWS.items(), jax.random.split(jax.random.key(3), (len(LAWS), 2)), strict=True
    )
}

# %%
with matplotlib.rc_context(figures.STYLE):
    figure, panels = plt.subplots(
        2, 2, figsize=(9.5, 5.4), layout="constrained", sharex=True, sharey=True
    )
    for panel, (name, draws), colour in zip(
        panels.ravel(), probabilities.items(), figures.LAW_COLOURS, strict=False
    ):
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        panel.fill_between(
            grid[:, 0],
            low,
            high,
            color=colour,
            alpha=0.3,
            linewidth=0,
            label="90% of initialisations",
        )
        panel.plot(grid[:, 0], draws.mean(axis=0), color=colour, label="mean")
        panel.plot(grid[:, 0], truth(grid[:, 0]), color="#8a8a8a", dashes=(4, 3), label="truth")
        panel.plot(
            x[:, 0],
            targets[LAWS[name][0]].targets[:, 1],
            "o",
            color="#333333",
            markersize=3,
            label="targets",
        )
        panel.set_title(name, loc="left")
        panel.grid(visible=True, linewidth=0.6)
    for panel in panels[1]:
        panel.set_xlabel("x")
    for panel in panels[:, 0]:
        panel.set_ylabel("Probability of 1")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    plt.show()

# %% [markdown]
# Without a ridge the network goes through every target, and so fits the sampling noise of seven votes
# along with the rest. With a ridge it smooths, and with too large a ridge, too much. Majority votes
# discard how close the vote was, and the network becomes sure where the annotators are not.

# %%
inside = np.abs(grid[:, 0]) <= 2
p = truth(grid[inside, 0])
rows = {}
for name, draws in probabilities.items():
    q = draws.mean(axis=0)[inside]
    low, high = np.quantile(draws[:, inside], [0.05, 0.95], axis=0)
    rows[name] = {
        "KL to the truth": np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))),
        "mean |error|": np.abs(q - p).mean(),
        "truth in the band": np.mean((low <= p) & (p <= high)),
    }
pd.DataFrame.from_dict(rows, orient="index").round(3)

# %% [markdown]
# The Kullback–Leibler divergence is in nats, averaged over the line. Remember the last
# column: the 90 percent band of initialisations covers the truth far less than 90 percent of the time.
# Another initialisation, given the same votes, would have learnt nearly the same; other *votes*
# would not. For what the votes leave open use a law meant for it, [`PerturbedInit` or
# `NUTS`](../which-law.md).
#
# A last caution: `from_counts` keeps shares, not the number of votes. A point with seven votes
# weighs as much as one with three.
