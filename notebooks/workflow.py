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
# # From prior to conclusion
#
# One study from beginning to end: four digits that are hard to distinguish, 3, 5, 8 and 9, from
# eighty images. Is the prior sensible? Which ridge do the data prefer, and which network? Which law can
# we trust, and how do we know? What do we decide, and what do we do with an image that shows none of the
# four?

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
from ntkbayes import checks, figures
from ntkbayes.errors import ConvergenceWarning
from ntkbayes.predictions import predict_probabilities
from ntkbayes.scores import conformal, detection, selective

keys = iter(jax.random.split(jax.random.key(0), 40))  # one for each use
KNOWN = ("3", "5", "8", "9")

digits = nb.datasets.load("digits")
names = np.array([str(name) for name in digits.class_names])[digits.labels]
# Pixels share one unit, so one scale for all of them: from 0 to 4.
pixels = digits.features / 4.0
mine = np.isin(names, KNOWN)
study = nb.Dataset(pixels[mine], names[mine], class_names=KNOWN, name="3, 5, 8 or 9")
train, rest = study.split(next(keys), test_share=1 - 80 / study.num_points, standardise=False)
rest = rest.subset(next(keys), 600)
calibration, test = rest.split(next(keys), test_share=0.5, standardise=False)
print(train, calibration, test, sep="\n")

# %% [markdown]
# ## 1. Before the data: is the prior sensible?
#
# `PriorPredictive` is the law before any data. Draw replicated labels from it at the training inputs,
# and compare them with real ones, whose neighbours tend to agree.

# %%
network = nb.networks.mlp(depth=2, activation="relu", weight_std=1.5, bias_std=0.1)
agreement = checks.neighbour_agreement(train.features)

rows = {}
for ridge in (0.01, 0.1, 1.0, 10.0, 100.0):
    before = nb.PriorPredictive().fit(nb.NTKPrior(network, ridge=ridge), train)
    drawn = nb.predict(before, train, key=next(keys), name="prior", num_draws=400, held_out=False)
    check = checks.predictive_check(drawn, agreement)
    rows[ridge] = {
        "sd of a logit": before.info.logit_std,
        "neighbours that agree, prior": check.replicated.mean(),
        "observed": check.observed[0],
        "p-value": check.p_value[0],
    }
pd.DataFrame.from_dict(rows, orient="index").rename_axis("ridge").round(3)

# %% [markdown]
# These images' labels are smoother than the prior expects at any ridge. Ridges of 10 and more
# are ruled out: they make labels noise. The small ones are barely plausible.
#
# ## 2. Evidence: which ridge?
#
# The log evidence by Laplace's approximation, its maximum by exact gradients, and the curve around
# it. Cross-validation of the MAP answers another question: not which prior the data
# favour, but at which ridge the point estimate predicts best.

# %%
start = nb.NTKPrior(network, ridge=0.1)
best = nb.maximise_evidence(start, train, over=("ridge",))
ridges = np.geomspace(1e-4, 10, 6)
priors = {float(ridge): nb.NTKPrior(network, ridge=float(ridge)) for ridge in ridges}
evidence = nb.scan(priors, train)
folds_key = next(keys)
folds = nb.scan(
    priors,
    train,
    score=lambda prior, data: (
        -nb.cross_validated_nll(
            nb.MAP(),
            prior,
            data,
            key=jax.random.clone(folds_key),  # the same folds for every prior
        )
    ),
)
print(f"evidence {best.log_evidence:.1f} nats at ridge {float(best.prior.ridge):.3f}")
print(f"cross-validated NLL {-folds.scores[folds.best]:.3f} at ridge {folds.best:g}")

with matplotlib.rc_context(figures.STYLE | {"text.parse_math": True}):
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 2.9), layout="constrained", sharex=True)
    panels[0].plot(ridges, list(evidence.scores.values()), "o-", color=figures.LAW_COLOURS[0])
    panels[0].axvline(float(best.prior.ridge), color=figures.FAINT, dashes=(4, 3), linewidth=1)
    panels[0].set_title("Log evidence (nats)", loc="left")
    panels[1].plot(ridges, [-v for v in folds.scores.values()], "o-", color=figures.LAW_COLOURS[1])
    panels[1].set_title("Cross-validated NLL of the MAP (nats per point)", loc="left")
    for panel in panels:
        panel.set(xscale="log", xlabel="Ridge")
        panel.grid(visible=True, linewidth=0.6)
    plt.show()

# %% [markdown]
# The dashed line marks the maximum. The two disagree: the point estimate predicts best at a ridge
# fifty times smaller, where the evidence is eleven nats lower.
#
# ## 3. Fit, and check the fits
#
# R-hat and divergences say whether NUTS has converged. For a Gaussian approximation Pareto's
# k̂ says whether importance weights could correct it: above 0.7 they cannot.

# %%
prior = best.prior
laws = {
    "MAP": nb.MAP().fit(prior, train),
    "random init": nb.RandomInit(num_inits=400).fit(prior, train, key=next(keys)),
    "Laplace": nb.Laplace().fit(prior, train),
    "mean field": nb.MeanField(tolerance=1e-4).fit(prior, train),
    "NUTS": nb.NUTS(num_samples=400, num_warmup=200, num_chains=2).fit(
        prior, train, key=next(keys)
    ),
}
chains = laws["NUTS"].info
print(f"NUTS: {chains.num_divergences} divergences, R-hat {chains.max_rhat:.3f}")

with warnings.catch_warnings(record=True):
    warnings.simplefilter("always", ConvergenceWarning)
    for method in (nb.Laplace(), nb.MeanField(tolerance=1e-4)):
        corrected = nb.ImportanceCorrected(method).fit(prior, train, key=next(keys)).info
        print(
            f"{method.name}: Pareto k = {corrected.pareto_k:.2f}, "
            f"{corrected.effective_draws:.0f} effective of 10000 draws"
        )

# %% [markdown]
# Eighty points with four logits each are too many for importance weights: neither Gaussian can be
# corrected, and k̂ says so. That is no reason to discard the approximations, only to judge them
# against NUTS rather than on their own.
#
# ## 4. Which network?
#
# The mean of those weights would be the evidence, so it is not known from them either; and from draws of
# NUTS and of Laplace bridge sampling (`nb.bridge_evidence`) refuses, since they overlap too little.
# `nb.smc_evidence` takes a Gaussian only to begin with: particles go from there to the posterior in
# steps small enough to be weighted, and separate populations of them tell the error. So networks can be
# compared, each at the ridge that its own Laplace evidence chooses.

# %%
estimates, ridges_chosen = {}, {}
particle_keys = iter(jax.random.split(jax.random.key(1), 6))
for activation in ("relu", "erf"):
    for depth in (1, 2, 3):
        candidate = nb.networks.mlp(
            depth=depth, activation=activation, weight_std=1.5, bias_std=0.1
        )
        chosen = nb.maximise_evidence(nb.NTKPrior(candidate, ridge=0.1), train, over=("ridge",))
        law = nb.Laplace().fit(chosen.prior, train)
        estimates[activation, depth] = nb.smc_evidence(
            law, key=next(particle_keys), num_particles=50
        )
        ridges_chosen[activation, depth] = float(chosen.prior.ridge)

rows = {}
simplest = estimates["relu", 1]
for name, estimate in estimates.items():
    factor, error = estimate.log_bayes_factor(simplest)
    rows[name] = {
        "ridge": ridges_chosen[name],
        "log evidence": estimate.log_evidence,
        "its error": estimate.error,
        "log Bayes factor": factor,
        "error of the factor": error if name != ("relu", 1) else 0.0,
        "Laplace's evidence": estimate.approximate,
        "Laplace's factor": estimate.approximate - simplest.approximate,
    }
pd.DataFrame.from_dict(rows, orient="index").rename_axis(["activation", "depth"]).round(2)

# %% [markdown]
# Of these networks the data favour the shallowest: each further layer costs three to five nats, and erf
# in place of ReLU six to nine. The errors are about a tenth of a nat: none of this is noise. Laplace
# orders all six alike. But its evidence is 2.7 to 4.2 nats too low, the more so the deeper the network
# and for erf, and so its factors are too large, by up to 1.5 nats. We go on with two layers: which
# network predicts best is another question, and all that follows asks it of laws, not of networks.
#
# ## 5. Could the labels have come from the law?
#
# Posterior predictive checks, on held-out points.

# %%
predictions = {
    name: nb.predict(law, test, key=next(keys), name=name, num_draws=400)
    for name, law in laws.items()
}
statistics = {
    "share of 8": lambda labels: float(np.mean(labels == 2)),
    "neighbours that agree": checks.neighbour_agreement(test.features),
}
pd.DataFrame(
    {
        title: {
            name: checks.predictive_check(p, statistic).p_value[0]
            for name, p in predictions.items()
        }
        for title, statistic in statistics.items()
    }
).round(3)

# %% [markdown]
# A p-value near 0 or 1 means that the law does not produce such labels. Each law gets the share of
# eights right, and each draws labels that are too rough: neighbours agree less often than
# in the data. That is what under-confidence looks like in data space, and at a ridge chosen by evidence
# all laws show it to some degree.
#
# ## 6. Side by side

# %%
comparison = nb.compare(predictions, test, key=next(keys), reference="NUTS")
comparison.table()[
    ["accuracy", "nll", "ece", "elpd_difference", "elpd_difference_error", "tv"]
].round(3)

# %%
figures.reliability(comparison)

# %% [markdown]
# `elpd_difference` is the log predictive density summed over the held-out points, minus that of
# NUTS. Laplace is far below it. The MAP, the random-init law and mean field are above, which does
# not make them the posterior: they are surer, and these digits are easier than this prior expects.
#
# ## 7. Decide
#
# **Prediction sets.** Split conformal sets, calibrated on the points set apart above, contain the
# true class nine times in ten, whatever a law's probabilities are worth. All they keep of a law
# is how it ranks classes and points.
#
# **Abstention.** Answer where the law is sure, and pass on the rest. `aurc` is the error averaged
# over all fractions answered.
#
# **Something else.** The other six digits are none of the four classes. Mutual information is
# uncertainty about the function, which should be large there; entropy adds the ambiguity of the
# image. 0.5 is chance.

# %%
outside = pixels[~mine][::3][:300]
rows = {}
for name, law in laws.items():
    inside_draws = predict_probabilities(law, test.features, key=next(keys))
    outside_draws = predict_probabilities(law, outside, key=next(keys))
    known = predict_probabilities(law, calibration.features, key=next(keys)).mean(axis=0)
    p = inside_draws.mean(axis=0)
    sets = conformal.adaptive_sets(known, calibration.labels, p, level=0.9, seed=0)
    seen = detection.detect(inside_draws, outside_draws)
    rows[name] = {
        "set coverage": sets.coverage(test.labels),
        "set size": sets.mean_size,
        "aurc": selective.risk_coverage(p, test.targets).aurc,
        "AUROC, entropy": seen.entropy.auroc,
        "AUROC, mutual information": seen.mutual_information.auroc,
    }
pd.DataFrame.from_dict(rows, orient="index").round(3)

# %% [markdown]
# ## 8. Conclusion
#
# - The evidence chooses a ridge at which every law is under-confident on these digits, the point
#   estimate least. For calibrated probabilities temper it, or take a smaller ridge: the
#   cross-validated NLL of the MAP is lowest at 0.01.
# - The data favour one layer of ReLU over two, and both over erf, by Bayes factors whose errors are
#   known.
# - Laplace is not the posterior here. Mean field is closer, and k̂ rightly vouches for neither.
# - All laws rank the points alike: abstention and conformal sets hardly distinguish them, and the
#   worst calibrated law has sets as good as any. Sets cover what they promise and more.
# - To detect images of something else use the mutual information of any law with spread: even the small
#   spread of the random-init law suffices. The point estimate has none.
