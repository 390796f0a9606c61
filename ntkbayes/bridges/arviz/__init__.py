"""ArviZ: a law, or its predictions, as an xarray DataTree; and predictions back, without loss (except
that class names other than strings and numbers come back as text).

    tree = law_to_datatree(law, train, test, key=key)
    az.summary(tree); az.loo(tree); az.psense_summary(tree); az.plot_prior_posterior(tree)

    tree = to_datatree(predict(law, test, key=key, name="NUTS"))
    az.summary(tree, group="predictions")

Groups follow the InferenceData schema. At points that a law was fitted to:

    posterior             logits; of FullBayes also the hyper-parameters, by name
    posterior_predictive  y, a label per draw
    observed_data         y, the labels (of soft targets the likeliest)
    constant_data         features, targets, probabilities, logit_mean, logit_variance, leave_one_out
    log_likelihood        y                   } of draws of the posterior,
    log_prior             see laws.trace      } at just what it was fitted to
    sample_stats          of chains: lp, energy, diverging, n_steps, tree_depth, acceptance_rate, …
    prior, prior_predictive   as posterior and posterior_predictive, before the data

At held-out points predictions (logits, y) and predictions_constant_data (as constant_data, and y) take
the place of the first four, and observed_data has the held-out labels where there are no others.

Points are the dimension `obs_id`, with the row names of the data as coordinates; classes `class_`,
features `feature`, by name. Logits without a class of their own, as for two or for ordered classes, are
`logit`. Independent draws have a chain axis of length 1, and the attribute `sampling` of each group says
so: their R-hat, which compares chains, is NaN. `likelihood` holds the likelihood's name and fields;
without it, in a tree of an earlier version, the number of logits decides.

`az.loo` reweights draws from the posterior to remove one training point's likelihood, and `az.psense`
to change a power of likelihood or prior. So log_likelihood and log_prior exist only for NUTS, SplitHMC
and FullBayes, at exactly the points and targets they were fitted to; elsewhere ArviZ says that they are
missing. For a Gaussian posterior (Laplace, …) constant_data has `leave_one_out`, from
`ntkbayes.leave_one_out`. At held-out points the ELPD is `Predictions.pointwise_elpd`. With soft targets
the log likelihood of a draw is Σ_c y_c log p_c, and az.loo averages its exponential over draws;
everywhere else the ELPD is minus the cross-entropy of the mean prediction.

Save the tree as netCDF, `tree.to_netcdf(path)`, or, with the package zarr, as Zarr,
`tree.to_zarr(path, consolidated=False)`; `xr.open_datatree` reads both.
"""

from ntkbayes.bridges.arviz.reading import from_datatree
from ntkbayes.bridges.arviz.writing import law_to_datatree, to_datatree

__all__ = ["from_datatree", "law_to_datatree", "to_datatree"]
