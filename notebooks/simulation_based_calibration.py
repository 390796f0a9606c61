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
# # Does a law find the posterior that it claims?
#
# Calibration on a test set mixes two questions: is the *model* right about the data, and is the *law*
# right about the model? Simulation-based calibration asks only the second. It draws a function from
# the prior and labels from the function, fits the law to the labels, and ranks the truth among draws
# of the law. Over many simulations the ranks under the exact posterior are uniform, whatever the
# prior. A law that is too narrow finds truths at both ends, one that is too wide in the middle, and
# a biased one at one end.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import warnings

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np
import pandas as pd
from scipy.special import expit

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.checks import simulation_based_calibration
from ntkbayes.errors import ConvergenceWarning

rng = np.random.default_rng(2)
features = rng.standard_normal((20, 2))
classes_only = nb.Dataset(features, np.arange(20) % 2, class_names=(0, 1))  # labels are simulated
at = np.concatenate([features[:3], 1.5 * rng.standard_normal((3, 2))])

network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)
prior = nb.NTKPrior(network, ridge=0.1)
deviation = float(np.sqrt(np.mean(prior.diagonal(features).ntk / 0.1)))
print(f"20 points, two classes; sd of a logit a priori: {deviation:.1f}")

# %% [markdown]
# ## What theory expects
#
# - **NUTS** draws from the posterior: uniform ranks.
# - **Random init** has the covariance $A K A^\top$ to first order, where the posterior has about
#   $A P$. Where the data are informative $A$ is small, and $K$ is below $P = \Theta/\text{ridge}$ to
#   begin with ([theory, section 6](../theory.md#theory-6)): far too narrow, with truths outside all
#   draws.
# - **Perturbed init** has $A P$, to first order.
# - **Variational** is as close as a Gaussian can be, by a divergence that prefers too narrow a one.
# - **Laplace** has about the right width, in the wrong place. Take one point with label 1 and prior
#   $\mathcal{N}(0, v)$. Its posterior is $\mathcal{N}(f; 0, v)\,\sigma(f)$ up to a factor: it falls off
#   slowly on the label's side, where the likelihood is flat, and steeply on the other. At the mode
#   $\hat f$, with $p = \sigma(\hat f) > \tfrac12$, the third derivative of the log likelihood is
#   $p(1-p)(2p-1) > 0$. With Laplace's variance $S$ the mean therefore lies, to first order, beyond
#   the mode:
#
#   $$\hat f + \tfrac12 S^2\, p(1-p)(2p-1) \; > \; \hat f.$$
#
#   The wider the prior, the further the mass lies from the mode, and the less accurate first order is:


# %%
def one_point(variance):
    """Mode, Laplace's variance, corrected and exact mean of one logit of label 1."""
    f = np.linspace(-10, 10, 20001) * np.sqrt(variance)
    log_density = -(f**2) / (2 * variance) - np.logaddexp(0, -f)
    mass = np.exp(log_density - log_density.max())
    mean = mass @ f / mass.sum()
    mode = f[log_density.argmax()]
    p = expit(mode)
    spread = 1 / (1 / variance + p * (1 - p))
    return mode, np.sqrt(spread), mode + spread**2 * p * (1 - p) * (2 * p - 1) / 2, mean


columns = ["mode", "Laplace's sd", "mean, first order", "mean, exact"]
rows = {f"{variance:g}": one_point(variance) for variance in (0.5, 2, 10, 50)}
pd.DataFrame(rows, index=columns).T.rename_axis("prior variance").round(2)

# %% [markdown]
# So Laplace should be **less sure of the labels than the posterior**: its draws give them too low a
# joint likelihood, and the truth's rank in $\log p(y \mid f(X))$ should be too high. A single logit's
# ranks cannot be shifted, because the two classes are exchangeable a priori; they can show truths in
# both tails.
#
# ## The ranks

# %%
methods = {
    "NUTS": nb.NUTS(num_samples=100, num_warmup=150, num_chains=8),
    "Laplace": nb.Laplace(),
    "random init": nb.RandomInit(num_inits=99),
    "perturbed init": nb.PerturbedInit(num_inits=99),
    "variational": nb.Variational(tolerance=1e-4),
}
with warnings.catch_warnings():
    # 800 short draws: an R-hat above 1.05 now and then. More simulations are in the benchmark.
    warnings.simplefilter("ignore", ConvergenceWarning)
    ranks = {
        name: simulation_based_calibration(
            method, prior, classes_only, key=jax.random.key(2), num_simulations=250, at=at
        )
        for name, method in methods.items()
    }
figures.calibration_ranks(ranks)

# %%
tables = {name: of_law.table() for name, of_law in ranks.items()}
columns = ["logits outside", "spread of the logits", "shift of the log likelihood"]
rows = {
    name: (
        f"{int((~table['uniform'][:-1]).sum())} of {len(table) - 1}",
        f"{table['spread'][:-1].mean():.2f}",
        f"{table['shift'].iloc[-1]:+.3f} ± {table['shift_error'].iloc[-1]:.3f}",
    )
    for name, table in tables.items()
}
pd.DataFrame(rows, index=columns).T.rename_axis("law")

# %% [markdown]
# `spread` is 12 times the variance of the fractional ranks: 1 if they are uniform, 3 if all truths lie
# outside all draws.
#
# - **NUTS** stays in its band for every quantity.
# - **Laplace** is off as theory predicts, and in that direction: the shift of the joint log likelihood
#   is positive and many times its error. In its logits, over both labels together, this leaves truths in
#   both tails, slightly too often.
# - **Random init** is nowhere near: most truths lie outside all 99 draws, and the labels are mostly
#   likelier under the draws than under the truth. All draws are close to one fit.
# - **Perturbed init** is too wide: its truths lie in the middle.
# - **Variational** is slightly too narrow, and right about the labels.
#
# The [benchmarks](../benchmarks.md#does-a-law-find-the-posterior) have the same with 400 simulations,
# and for three classes.
