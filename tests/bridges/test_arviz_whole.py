"""One tree of a law has all that ArviZ looks at: chains, priors, likelihoods, held-out points."""

import contextlib
import datetime
import keyword
import warnings

import jax
import matplotlib
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from oracles import gp_classification as oracle
from scipy import stats

import ntkbayes as nb
from ntkbayes.bridges.arviz import from_datatree, law_to_datatree, to_datatree
from ntkbayes.errors import ConfigurationError, ConvergenceWarning
from ntkbayes.laws.wrappers.before_data import before_data
from ntkbayes.predictions import predict

matplotlib.use("Agg")

import arviz as az
import matplotlib.pyplot as plt

RIDGE = 0.5
PRIOR = nb.NTKPrior(
    nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5), ridge=RIDGE
)
KEY = jax.random.key(0)
POINTS, OTHERS, DRAWS = 24, 10, 200
CHAINS = {
    "num_samples": DRAWS // 2,
    "num_warmup": 100,
    "num_chains": 2,
}  # compiled by test_arviz.py
HYPERPRIORS = {"ridge": dist.LogNormal(-1.0, 0.8), "mean": dist.Normal(0.0, 1.0)}
METHODS = {
    "MAP": nb.MAP(),
    "random init": nb.RandomInit(num_inits=DRAWS),
    "Laplace": nb.Laplace(),
    "importance": nb.ImportanceCorrected(nb.Laplace(), num_draws=2000, num_resampled=DRAWS),
    "NUTS": nb.NUTS(**CHAINS),
    "split HMC": nb.SplitHMC(**CHAINS),
    "full Bayes": nb.FullBayes(HYPERPRIORS, **CHAINS),
}
WITH_CHAINS = ("NUTS", "split HMC", "full Bayes")
every_law = pytest.mark.parametrize("name", METHODS)
every_chain = pytest.mark.parametrize("name", WITH_CHAINS)
# ArviZ's own advice on leave-one-out by importance sampling, expected of some of these laws.
pareto_k = pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto:UserWarning")
all_alike = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


def data_of(seed, count, first_row):
    features, labels = oracle.blobs(seed, count, 2)
    rows = [f"patient {first_row + i}" for i in range(count)]
    frame = pd.DataFrame(features, columns=["dose", "age"], index=rows)
    return nb.Dataset(frame, np.array(["mild", "severe"])[labels], class_names=("mild", "severe"))


TRAIN, TEST = data_of(7, POINTS, 0), data_of(8, OTHERS, POINTS)


@contextlib.contextmanager
def short_chains():
    """100 draws a chain: an R-hat above 1.05 now and then, and a Pareto k above 0.7."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.fixture(scope="module")
def laws():
    with short_chains():
        return {name: method.fit(PRIOR, TRAIN, key=KEY) for name, method in METHODS.items()}


@pytest.fixture(scope="module")
def trees(laws):
    return {
        name: law_to_datatree(law, TRAIN, TEST, key=KEY, name=name, num_draws=draws_of(name))
        for name, law in laws.items()
    }


def draws_of(name):
    return None if name == "MAP" else DRAWS


def per_draw(tree, group, name):
    values = tree[group][name].values
    return values.reshape(-1, *values.shape[2:])


# --- what chains record --------------------------------------------------------------------------


@every_chain
def test_statistics_of_chains_have_arvizs_names_and_the_fits_own_values(laws, trees, name):
    stats, info = trees[name]["sample_stats"].dataset, laws[name].info
    names = {"lp", "energy", "diverging", "n_steps", "acceptance_rate", "step_size"}
    assert set(stats.data_vars) == names | (set() if name == "split HMC" else {"tree_depth"})
    assert all(values.dims == ("chain", "draw") for values in stats.values())
    assert stats["diverging"].dtype == bool
    assert int(stats["diverging"].sum()) == info.num_divergences
    assert float(stats["n_steps"].mean()) == pytest.approx(info.mean_steps)
    assert float(stats["acceptance_rate"].mean()) == pytest.approx(info.mean_accept)
    if name != "split HMC":
        # A tree of depth d has 2^(d - 1) to 2^d - 1 leapfrog steps.
        depth, steps = stats["tree_depth"], stats["n_steps"]
        assert np.all((2 ** (depth - 1) <= steps) & (steps < 2**depth))


@pytest.mark.parametrize("name", ["Laplace", "random init", "MAP", "importance"])
def test_draws_without_chains_have_no_statistics(trees, name):
    assert "sample_stats" not in trees[name].children
    assert "log_prior" not in trees[name].children


@every_chain
def test_the_density_that_chains_move_on_is_prior_times_likelihood(trees, name):
    tree = trees[name]
    found = per_draw(tree, "sample_stats", "lp")
    expected = sum(per_draw(tree, "log_prior", part) for part in tree["log_prior"].data_vars)
    expected = expected + per_draw(tree, "log_likelihood", "y").sum(axis=1)
    if name == "full Bayes":  # NumPyro moves on the logarithm of the ridge, and in coordinates
        ridge = per_draw(tree, "posterior", "ridge")
        expected = expected + np.log(ridge) + log_volumes(ridge)
    differences = found - expected
    # Predictions at training points are conditioned on their values there, with the kernel's jitter.
    np.testing.assert_allclose(differences, differences[0], atol=5e-3)


def log_volumes(ridges):
    """log |∂z/∂ξ| of the coordinates that the sites make: −½ log det(I + W Θ/ridge)."""
    sites = np.asarray(nb.numpyro_model(PRIOR, TRAIN, hyperpriors=HYPERPRIORS).coordinates.weights)
    weighted = sites[:, None] * np.asarray(PRIOR.gram(TRAIN.features).ntk)
    return np.array(
        [-np.linalg.slogdet(np.eye(POINTS) + weighted / ridge)[1] / 2 for ridge in ridges]
    )


@every_chain
def test_what_energy_exceeds_the_potential_by_is_kinetic(trees, name):
    kinetic = per_draw(trees[name], "sample_stats", "energy") + per_draw(
        trees[name], "sample_stats", "lp"
    )
    dimension = POINTS + (2 if name == "full Bayes" else 0)
    assert kinetic.min() > 0
    # Half a chi squared variable of that dimension; its draws are nearly independent.
    error = np.sqrt(dimension / 2 / DRAWS)
    assert abs(kinetic.mean() - dimension / 2) < 5 * error


@pytest.mark.parametrize("name", ["NUTS", "split HMC"])
def test_the_log_prior_of_logits_is_that_of_the_gaussian_process(laws, trees, name):
    gram = np.asarray(PRIOR.gram(TRAIN.features).ntk) / RIDGE
    logits = np.asarray(laws[name].g.values)[:, :, 0]
    expected = stats.multivariate_normal(np.zeros(POINTS), gram).logpdf(logits)
    found = per_draw(trees[name], "log_prior", "logits")
    # Up to the determinant, which no power of the prior for the function changes.
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-5, atol=1e-5)


def test_the_log_prior_of_hyperparameters_is_their_hyperpriors(laws, trees):
    for name, hyperprior in HYPERPRIORS.items():
        values = per_draw(trees["full Bayes"], "posterior", name)
        np.testing.assert_array_equal(values, laws["full Bayes"].values[name])
        found = per_draw(trees["full Bayes"], "log_prior", name)
        np.testing.assert_allclose(found, hyperprior.log_prob(values))


# --- ArviZ on every law --------------------------------------------------------------------------


def few(name):
    """Variables of a small figure, and where."""
    if name == "full Bayes":
        return {"var_names": ["ridge", "mean"]}
    return {"var_names": ["logits"], "coords": {"obs_id": ["patient 0", "patient 5"]}}


@all_alike
@every_law
def test_summary_trace_and_prior_of_every_law(trees, name):
    tree = trees[name]
    table = az.summary(tree, var_names=["logits"], round_to="none")
    assert len(table) == POINTS
    assert len(az.summary(tree, group="predictions", var_names=["logits"])) == OTHERS
    assert az.plot_trace(tree, **few(name)).viz["trace"] is not None
    drawn = az.plot_prior_posterior(tree, **few(name)).viz
    assert set(drawn["dist"].data_vars) == set(few(name)["var_names"])
    plt.close("all")


@every_law
def test_energy_is_plotted_for_chains_and_missing_elsewhere(trees, name):
    if name not in WITH_CHAINS:
        with pytest.raises(KeyError, match="sample_stats"):
            az.plot_energy(trees[name])
        return
    energy = per_draw(trees[name], "sample_stats", "energy").reshape(2, -1)
    expected = np.square(np.diff(energy)).mean(axis=1) / energy.var(axis=1)
    np.testing.assert_allclose(az.bfmi(trees[name])["energy"], expected, rtol=0.02)
    assert az.plot_energy(trees[name]).viz["dist"] is not None
    plt.close("all")


@every_law
def test_power_scaling_takes_draws_of_the_posterior(trees, name):
    if name not in WITH_CHAINS:
        with pytest.raises(TypeError, match="log prior not found"):
            az.psense(trees[name])
        return
    variables = few(name)["var_names"]
    for group in ("prior", "likelihood"):
        found = az.psense(trees[name], group=group, **few(name))
        assert all(np.all(found[variable] > 0) for variable in variables)


def test_a_power_of_the_prior_is_a_multiple_of_the_ridge(laws, trees):
    power = 1.25
    scaled = nb.NTKPrior(PRIOR.kernel, ridge=power * RIDGE)
    with short_chains():
        truth = nb.NUTS(**CHAINS).fit(scaled, TRAIN, key=KEY)
    log_prior = trees["NUTS"]["log_prior"]["logits"]
    weights = np.exp(log_prior.azstats.power_scale_lw(alpha=power, dim=["chain", "draw"]))
    logits = trees["NUTS"]["posterior"]["logits"]
    found = (weights * logits).sum(["chain", "draw"]).values / weights.sum().item()
    drawn = np.asarray(truth.sample(KEY, TRAIN))
    effective = weights.sum().item() ** 2 / np.square(weights).sum().item()
    error = drawn.std(axis=0) * np.sqrt(1 / effective + 1 / DRAWS)
    assert np.all(np.abs(found - drawn.mean(axis=0)) < 4 * error)
    plain = logits.mean(["chain", "draw"]).values  # which is further off
    assert (
        np.square((found - drawn.mean(axis=0)) / error).mean()
        < 0.5 * np.square((plain - drawn.mean(axis=0)) / error).mean()
    )


@pareto_k
@every_law
def test_leave_one_out_is_of_training_points_by_draws_of_the_posterior(trees, name):
    if name not in WITH_CHAINS:
        with pytest.raises(TypeError, match="log likelihood not found"):
            az.loo(trees[name])
        return
    found = az.loo(trees[name], pointwise=True)
    assert (found.n_data_points, found.n_samples) == (POINTS, DRAWS)
    assert list(found.elpd_i["obs_id"].values) == list(TRAIN.row_names)
    assert found.elpd < from_datatree(trees[name]).pointwise_elpd.sum()
    pit = az.loo_pit(trees[name])["y"]
    assert np.all((pit > 0) & (pit < 1))


@pareto_k
def test_stacking_compares_the_posteriors(trees):
    table = az.compare({name: trees[name] for name in WITH_CHAINS}, method="stacking")
    assert table["weight"].sum() == pytest.approx(1.0)
    # Both samplers have the same target.
    assert abs(table["elpd"]["NUTS"] - table["elpd"]["split HMC"]) < 1.0


# --- points, in and out of the training data -----------------------------------------------------


@every_law
def test_held_out_points_have_groups_of_their_own(laws, trees, name):
    alone = to_datatree(predict(laws[name], TEST, key=KEY, name=name))
    assert not {"log_likelihood", "posterior_predictive", "constant_data"} & set(alone.children)
    with pytest.raises(TypeError, match="log likelihood not found"):
        az.loo(alone)
    for tree in (alone, trees[name]):
        assert dict(tree["predictions"].sizes)["obs_id"] == OTHERS
        constant = tree["predictions_constant_data"]
        np.testing.assert_array_equal(constant["features"], TEST.features)
        np.testing.assert_array_equal(constant["y"], TEST.labels)
    assert dict(trees[name]["posterior"].sizes)["obs_id"] == POINTS
    az.plot_ppc_pava(alone, group="predictions", data_type="binary")
    plt.close("all")


def test_rows_features_and_classes_are_chosen_by_name(trees):
    constant = trees["NUTS"]["constant_data"].dataset
    row = constant.sel(obs_id="patient 3", feature="age")
    assert float(row["features"]) == TRAIN.features[3, 1]
    assert float(row["targets"].sel(class_="severe")) == TRAIN.targets[3, 1]
    logits = trees["NUTS"]["posterior"].dataset["logits"].sel(obs_id="patient 3", logit=0)
    assert logits.dims == ("chain", "draw")
    for group in trees["NUTS"].children.values():
        assert all(str(d).isidentifier() and not keyword.iskeyword(str(d)) for d in group.dims)


def test_repeated_row_names_do_no_harm(laws):
    twice = TRAIN.take(np.r_[0 : POINTS - 1, 0])
    tree = to_datatree(predict(laws["NUTS"], twice, key=KEY, name="NUTS", held_out=False))
    assert len(tree["posterior"].dataset.sel(obs_id="patient 0")["obs_id"]) == 2
    np.testing.assert_array_equal(from_datatree(tree).row_names, twice.row_names)


def test_trees_say_who_made_them_and_when(trees):
    for part in (trees["NUTS"], *trees["NUTS"].children.values()):
        made = datetime.datetime.fromisoformat(part.attrs["created_at"])
        assert abs((datetime.datetime.now(datetime.UTC) - made).total_seconds()) < 3600
        assert part.attrs["creation_library"] == part.attrs["inference_library"] == "ntkbayes"
        assert part.attrs["creation_library_version"] == nb.__version__
        assert part.attrs["creation_library_language"] == "Python"


# --- before the data -----------------------------------------------------------------------------


@every_law
def test_the_prior_group_is_the_prior(trees, name):
    prior = per_draw(trees[name], "prior", "logits")[:, :, 0]
    assert set(trees[name]["prior"].data_vars) == set(trees[name]["posterior"].data_vars)
    for group in ("prior", "prior_predictive"):
        assert trees[name][group].attrs["law"] == "prior"
        assert trees[name][group].attrs["sampling"] != "Markov chains"
    labels = per_draw(trees[name], "prior_predictive", "y")
    assert labels.shape == (len(prior), POINTS)
    assert abs(labels.mean() - 0.5) < 0.1  # which class is which is a toss-up
    variance = np.diag(np.asarray(PRIOR.gram(TRAIN.features).ntk)) / RIDGE
    if name != "full Bayes":
        ratio = prior.var(axis=0, ddof=1) / variance
        assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / len(prior)))
        return
    ridge, mean = (per_draw(trees[name], "prior", part) for part in ("ridge", "mean"))
    assert stats.kstest(np.log(ridge), stats.norm(-1.0, 0.8).cdf).pvalue > 0.01
    assert stats.kstest(mean, stats.norm(0.0, 1.0).cdf).pvalue > 0.01
    # Each draw is of its own ridge and mean.
    scaled = (prior - mean[:, None]) / np.sqrt(variance * RIDGE / ridge[:, None])
    assert np.all(np.abs(scaled.var(axis=0) - 1) < 5 * np.sqrt(2 / len(prior)))


def test_without_a_ridge_there_is_no_prior():
    ridgeless = nb.NTKPrior(PRIOR.kernel, ridge=0.0)
    smoothed = TRAIN.smooth(0.2)
    law = nb.RandomInit(num_inits=DRAWS).fit(ridgeless, smoothed, key=KEY)
    tree = law_to_datatree(law, smoothed, key=KEY)
    assert "posterior" in tree.children
    assert not {"prior", "prior_predictive", "predictions"} & set(tree.children)


def test_parts_that_do_not_go_together_are_refused(laws):
    fitted = predict(laws["Laplace"], TRAIN, key=KEY, name="Laplace", held_out=False)
    others = predict(laws["Laplace"], TEST, key=KEY, name="Laplace")
    prior = before_data(laws["Laplace"], key=KEY)
    with pytest.raises(ConfigurationError, match=r"'prior' is at other points than 'Laplace'"):
        to_datatree(fitted, prior=predict(prior, TEST, key=KEY, name="prior"))
    with pytest.raises(ConfigurationError, match="give the latter first"):
        to_datatree(others, held_out=others)
    with pytest.raises(ConfigurationError, match="give the latter first"):
        to_datatree(fitted, held_out=fitted)


# --- files ---------------------------------------------------------------------------------------


@pareto_k
@pytest.mark.parametrize("kind", ["netCDF", "Zarr"])
@pytest.mark.parametrize("name", ["MAP", "Laplace", "NUTS", "full Bayes"])
def test_whole_trees_pass_through_files(trees, name, kind, tmp_path):
    tree, path = trees[name], tmp_path / "law"
    if kind == "netCDF":
        tree.to_netcdf(path)
        found = xr.open_datatree(path).load()
    else:
        tree.to_zarr(path, consolidated=False)
        found = xr.open_datatree(path, engine="zarr", consolidated=False).load()
    xr.testing.assert_equal(found, tree)
    assert list(found["constant_data"]["obs_id"].values) == list(TRAIN.row_names)
    read = from_datatree(found)
    np.testing.assert_array_equal(read.logits, from_datatree(tree).logits)
    assert tuple(read.feature_names) == ("dose", "age")
    found.close()
    if name in WITH_CHAINS:
        assert az.loo(found).elpd == az.loo(tree).elpd
