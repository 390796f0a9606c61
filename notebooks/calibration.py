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
# # Calibration on four data sets
#
# Of all points for which a law says 80 percent, are 80 percent right? Five answers on four data
# sets, with the same network and the same ridge, nothing tuned.
#
# [Benchmarks](../benchmarks.md) has the same on five splits, with more points and longer chains. This
# is one split with short chains, so read the intervals along with the numbers.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import warnings

import jax

jax.config.update("jax_enable_x64", True)

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.app.baselines import logistic_regression
from ntkbayes.errors import ConvergenceWarning, DataWarning
from ntkbayes.scores import calibration

keys = iter(jax.random.split(jax.random.key(0), 40))  # one for each use
warnings.simplefilter("ignore", DataWarning)  # some pixels of the digits never change
warnings.simplefilter("ignore", ConvergenceWarning)  # R-hat is printed instead

# %% [markdown]
# Train on a hundred points of each; hold out 50 others of the two small sets, and 400 of the two
# large ones.

# %%
splits = {}
for name, size in {"wine": 50, "iris": 50, "breast_cancer": 400, "digits": 400}.items():
    data = nb.datasets.load(name).subset(next(keys), 100 + size)
    splits[name] = data.split(next(keys), test_share=size / (100 + size))

network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)
prior = nb.NTKPrior(network, ridge=0.1)
methods = {
    "MAP": nb.MAP(),
    "random init": nb.RandomInit(num_inits=200),
    "Laplace": nb.Laplace(),
    "NUTS": nb.NUTS(num_samples=150, num_warmup=150, num_chains=2),
}

comparisons = {}
for name, (train, test) in splits.items():
    laws = {title: method.fit(prior, train, key=next(keys)) for title, method in methods.items()}
    chains = laws["NUTS"].info
    print(f"{name}: {chains.num_divergences} divergences, R-hat up to {chains.max_rhat:.3f}")
    laws["logistic regression"] = logistic_regression(train, test, key=next(keys))
    comparisons[name] = nb.compare(laws, test, key=next(keys), num_draws=200)

# %% [markdown]
# ## Reliability
#
# How often the predicted class was right, against how sure the law was. Above the diagonal a law
# is right more often than it says: under-confident. Bands are 90% intervals, grey bars the share of
# points with that confidence.

# %%
with matplotlib.rc_context(figures.STYLE):
    figure, grid = plt.subplots(
        4, 5, figsize=(10, 7.6), layout="constrained", sharex=True, sharey=True
    )
    for row, (name, comparison) in zip(grid, comparisons.items(), strict=True):
        for panel, (law, colour) in zip(row, figures.colours(comparison).items(), strict=True):
            p = comparison.predictions[law]
            curve = calibration.reliability_curve(p.probabilities, p.targets)
            heights = 0.22 * curve.count / curve.count.max()
            panel.bar(curve.confidence, heights, width=0.03, color="#dcdcdc", linewidth=0)
            panel.plot([0, 1], [0, 1], color=figures.FAINT, linewidth=1, dashes=(4, 3))
            style = {"color": colour, "linewidth": 4, "alpha": 0.28}
            panel.vlines(curve.confidence, curve.lower, curve.upper, **style)
            panel.plot(curve.confidence, curve.frequency, "o", color=colour, markersize=4)
            panel.set(xlim=(0.05, 1.03), ylim=(-0.03, 1.05))
            panel.grid(visible=True, linewidth=0.6)
        row[0].set_ylabel(f"{name}\nFrequency correct")
    for panel, law in zip(grid[0], comparison.predictions, strict=True):
        panel.set_title(law, loc="left")
    for panel in grid[-1]:
        panel.set_xlabel("Mean confidence")
    plt.show()

# %% [markdown]
# The bottom row is the clearest. On the digits Laplace never says more than a half and is nearly
# always right. NUTS, the posterior that Laplace approximates, is under-confident too, but
# much less. The point estimate, and the ensemble around it, are closer to the diagonal.
#
# ## Scores
#
# Negative log likelihood, in nats per point:


# %%
def table(score):
    rows = {
        name: {
            law: float(np.mean(score(p.probabilities, p.targets)))
            for law, p in comparison.predictions.items()
        }
        for name, comparison in comparisons.items()
    }
    return pd.DataFrame(rows).round(3)


table(calibration.negative_log_likelihood)

# %% [markdown]
# and calibration error (ECE, 15 bins):

# %%
table(calibration.top_label_ece)

# %% [markdown]
# ## Who is over-confident, who under-confident
#
# Calibration error has no sign. Mean confidence minus accuracy has one: negative is under-confident.
# Intervals are 90 percent bootstrap intervals over test points.


# %%
def confidence_less_accuracy(probabilities, targets):
    return probabilities.max(axis=1) - calibration.correctness(probabilities, targets)


excess = calibration.Mean(confidence_less_accuracy)
with matplotlib.rc_context(figures.STYLE):
    figure, panels = plt.subplots(1, 4, figsize=(10, 2.7), layout="constrained", sharey=True)
    for panel, (name, comparison) in zip(panels, comparisons.items(), strict=True):
        for row, (law, colour) in enumerate(figures.colours(comparison).items()):
            p = comparison.predictions[law]
            gap = calibration.bootstrap(excess, p.probabilities, p.targets, seed=0)
            panel.hlines(row, gap.lower, gap.upper, color=colour, linewidth=2.4, alpha=0.4)
            panel.plot(gap.value, row, "o", color=colour, markersize=5.5)
        panel.axvline(0, color=figures.FAINT, linewidth=1, dashes=(4, 3), zorder=0)
        panel.set_title(name, loc="left")
        panel.set_xlim(-0.8, 0.15)
        panel.grid(axis="x", linewidth=0.6)
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel("Confidence less accuracy")
    panels[0].set_yticks(range(len(comparison.predictions)), list(comparison.predictions))
    panels[0].set_ylim(len(comparison.predictions) - 0.5, -0.5)
    plt.show()

# %% [markdown]
# - No law is over-confident beyond its interval. NUTS, the posterior, is under-confident on all
#   four, most on ten classes: at this ridge the prior is wide.
# - Laplace overstates it on all four.
# - The random-init law is where the MAP is. It has hardly any spread of its own, so its good
#   calibration is the MAP's.
#
# Another ridge gives another picture: [From prior to conclusion](workflow.py) chooses one, and
# [Which law should I use?](../which-law.md) sums up.
