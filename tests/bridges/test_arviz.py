"""What ArviZ makes of every law, and that nothing is lost on the way there and back."""

import dataclasses
import itertools
import json
import warnings

import jax
import matplotlib
import numpy as np
import pytest
import xarray as xr
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.bridges.arviz import from_datatree, to_datatree
from ntkbayes.errors import ConfigurationError, ConvergenceWarning, StorageError
from ntkbayes.laws.trace import Trace
from ntkbayes.likelihood import Bernoulli, Ordinal
from ntkbayes.predictions import predict, predictions_from_probabilities

matplotlib.use("Agg")

import arviz as az
import matplotlib.pyplot as plt

PRIOR = nb.NTKPrior(
    nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5), ridge=0.5
)
KEY = jax.random.key(0)
POINTS, DRAWS = 24, 200
METHODS = {
    "MAP": nb.MAP(),
    "random init": nb.RandomInit(num_inits=DRAWS),
    "first order": nb.FirstOrder(),
    "Laplace": nb.Laplace(),
    "NUTS": nb.NUTS(num_samples=100, num_warmup=100, num_chains=2),
}
WITH_SPREAD = [name for name in METHODS if name != "MAP"]
KINDS = {"binary": ("mild", "severe"), "3 classes": ("a", "b", "c")}


def data_of(kind, *, seed=7):
    names = KINDS[kind]
    features, labels = oracle.blobs(seed, POINTS, len(names))
    return nb.Dataset(features, [names[label] for label in labels], class_names=names)


@pytest.fixture(scope="module")
def laws():
    fitted = {}
    with warnings.catch_warnings():  # 100 draws a chain: an R-hat above 1.05 now and then
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, kind in itertools.product(METHODS, KINDS):
            fitted[name, kind] = METHODS[name].fit(PRIOR, data_of(kind), key=KEY)
    return fitted


@pytest.fixture(scope="module")
def training(laws):
    """Predictions at the training points."""
    return {
        (name, kind): predict(
            law,
            data_of(kind),
            key=KEY,
            name=name,
            num_draws=DRAWS,
            held_out=False,
            seconds=0.25,
            compile_seconds=0.125,
        )
        for (name, kind), law in laws.items()
    }


@pytest.fixture(scope="module")
def trees(training):
    return {which: to_datatree(found) for which, found in training.items()}


@pytest.fixture(scope="module")
def baseline():
    given = np.random.default_rng(0).dirichlet(np.ones(3), POINTS)
    return predictions_from_probabilities("logistic", given, data_of("3 classes"), key=KEY)


EVERY = list(itertools.product(METHODS, KINDS))
SPREAD = [which for which in EVERY if which[0] in WITH_SPREAD]
every_law = pytest.mark.parametrize(("name", "kind"), EVERY, ids=map("-".join, EVERY))
every_spread = pytest.mark.parametrize(("name", "kind"), SPREAD, ids=map("-".join, SPREAD))
every_kind = pytest.mark.parametrize("kind", KINDS)
# ArviZ's own advice on leave-one-out by importance sampling, expected of some of these laws.
pareto_k = pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto:UserWarning")
all_alike = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


# --- ArviZ on every law --------------------------------------------------------------------------


@every_spread
def test_summary_has_the_moments_of_the_logits(training, trees, name, kind):
    found, tree = training[name, kind], trees[name, kind]
    table = az.summary(tree, var_names=["logits"], round_to="none")
    np.testing.assert_allclose(table["mean"], found.logits.mean(axis=0).ravel(), atol=1e-8)
    np.testing.assert_allclose(table["sd"], found.logits.std(axis=0, ddof=1).ravel(), atol=1e-8)
    assert np.all(az.ess(tree)["logits"] > 0)
    # R-hat compares chains, so that draws without chains have none.
    assert np.all(np.isfinite(az.rhat(tree)["logits"]) == (name == "NUTS"))


@all_alike
@every_kind
def test_summary_of_a_point_has_no_spread(training, trees, kind):
    tree = trees["MAP", kind]
    table = az.summary(tree, var_names=["logits"], round_to="none")
    np.testing.assert_allclose(table["mean"], training["MAP", kind].mean.ravel(), atol=1e-8)
    np.testing.assert_allclose(table["sd"], 0, atol=1e-12)
    az.rhat(tree)
    az.ess(tree)


def test_independent_draws_look_independent_to_arviz(trees):
    for name in ("random init", "first order", "Laplace"):
        # 24 logits of 200 draws: each effective size is estimated roughly.
        assert np.median(az.ess(trees[name, "binary"])["logits"]) > 120


@pareto_k
@every_kind
def test_leave_one_out_of_the_posterior_runs_and_is_worse_than_the_fit(training, trees, kind):
    found = az.loo(trees["NUTS", kind], pointwise=True)
    assert found.n_data_points == POINTS
    assert found.n_samples == DRAWS
    assert found.elpd < training["NUTS", kind].pointwise_elpd.sum()


@every_law
def test_only_draws_of_the_posterior_are_weighed_to_leave_a_point_out(trees, name, kind):
    if name == "NUTS":
        assert "log_likelihood" in trees[name, kind].children
    else:
        with pytest.raises(TypeError, match="log likelihood not found"):
            az.loo(trees[name, kind])


@every_kind
def test_points_that_were_not_trained_on_have_no_log_likelihood(laws, kind):
    data = data_of(kind)
    others = data_of(kind, seed=8)
    smoothed = data.smooth(0.1)  # not the targets that the posterior is of
    fewer = data.take(np.arange(POINTS - 1))
    unasked = to_datatree(predict(laws["NUTS", kind], data, key=KEY, name="NUTS", num_draws=DRAWS))
    assert "log_likelihood" not in unasked.children
    for points in (others, smoothed, fewer):
        for name in ("NUTS", "Laplace"):
            found = predict(laws[name, kind], points, key=KEY, name=name, held_out=False)
            assert not found.is_posterior
            assert found.leave_one_out is None
            with pytest.raises(TypeError, match="log likelihood not found"):
                az.loo(to_datatree(found))


@every_kind
def test_leave_one_out_of_a_gaussian_posterior_is_its_own(laws, training, trees, kind):
    law = laws["Laplace", kind]
    np.testing.assert_array_equal(training["Laplace", kind].leave_one_out, nb.leave_one_out(law))
    found = trees["Laplace", kind]["constant_data"]["leave_one_out"]
    np.testing.assert_array_equal(found, nb.leave_one_out(law))
    assert training["NUTS", kind].leave_one_out is None
    assert training["first order", kind].leave_one_out is None  # Gaussian, and no posterior


def test_a_baseline_has_no_leave_one_out(baseline):
    with pytest.raises(TypeError, match="log likelihood not found"):
        az.loo(to_datatree(baseline))


def test_draws_that_do_not_divide_among_the_chains_are_refused(laws):
    found = predict(
        laws["NUTS", "binary"], data_of("binary"), key=KEY, name="NUTS", num_draws=DRAWS - 1
    )
    with pytest.raises(ConfigurationError, match=r"199 draws of 2 chains .* a multiple of 2"):
        to_datatree(found)


@pareto_k
@every_kind
def test_the_transform_of_labels_left_out_is_plotted_against_uniformity(trees, kind):
    pit = az.loo_pit(trees["NUTS", kind])
    assert np.all((pit["y"] > 0) & (pit["y"] < 1))
    tree = xr.DataTree.from_dict({"/pit": pit})
    plot = az.plot_ecdf_pit(tree, group="pit", sample_dims=["obs_id"], backend="none")
    assert plot.viz["ecdf_lines"]["y"].size == 1


@every_law
def test_calibration_plots_of_label_draws_run(trees, name, kind):
    data_type = "binary" if kind == "binary" else "categorical"
    az.plot_ppc_pava(trees[name, kind], data_type=data_type)
    plt.close("all")


def test_calibration_plots_of_a_baseline_run(baseline):
    az.plot_ppc_pava(to_datatree(baseline), group="predictions", data_type="categorical")
    plt.close("all")


# --- what the tree holds -------------------------------------------------------------------------


@every_law
def test_a_tree_says_how_its_draws_came_about(laws, trees, name, kind):
    tree = trees[name, kind]
    law = laws[name, kind]
    for group in (tree, *tree.children.values()):
        assert group.attrs["sampling"] == law.kind.sampling
        assert group.attrs["law"] == name
    chains = 2 if name == "NUTS" else 1
    assert (law.kind.sampling == "Markov chains") == (name == "NUTS")
    for group in ("posterior", "posterior_predictive"):
        assert dict(tree[group].sizes)["chain"] == chains
        assert dict(tree[group].sizes)["draw"] == DRAWS // chains
    assert tree.attrs["held_out"] == 0
    assert tree.attrs["seconds"] == 0.25
    assert tree.attrs["compile_seconds"] == 0.125
    assert json.loads(tree.attrs["info"]) == dataclasses.asdict(law.info)


@every_kind
def test_groups_hold_draws_labels_and_probabilities(training, trees, kind):
    found, tree = training["NUTS", kind], trees["NUTS", kind]
    # Chain after chain, as the law stores them.
    np.testing.assert_array_equal(tree["posterior"]["logits"][1], found.logits[100:])
    np.testing.assert_array_equal(tree["log_likelihood"]["y"][0], found.log_likelihood[:100])
    np.testing.assert_array_equal(tree["posterior_predictive"]["y"][1], found.label_draws[100:])
    np.testing.assert_array_equal(tree["observed_data"]["y"], data_of(kind).labels)
    constant = tree["constant_data"]
    np.testing.assert_array_equal(constant["targets"], found.targets)
    np.testing.assert_array_equal(constant["probabilities"], found.probabilities)
    assert tuple(constant["class_"].values) == KINDS[kind]


@every_law
def test_points_and_classes_are_named_dimensions(trees, name, kind):
    tree, classes = trees[name, kind], KINDS[kind]
    axis = "logit" if kind == "binary" else "class_"
    assert tree["posterior"]["logits"].dims == ("chain", "draw", "obs_id", axis)
    assert tree["constant_data"]["logit_mean"].dims == ("obs_id", axis)
    assert tree["constant_data"]["targets"].dims == ("obs_id", "class_")
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "obs_id")
    for group in tree.children.values():
        assert group.attrs["inference_library"] == "ntkbayes"
        for dim, labels in group.coords.items():
            named = {"class_": list(classes), "feature": ["x0", "x1"]}
            expected = named.get(dim, list(range(group.sizes[dim])))
            assert list(labels.values) == expected


def test_one_class_is_chosen_by_its_name(training, trees):
    chosen = trees["NUTS", "3 classes"]["posterior"]["logits"].sel(class_="b")
    np.testing.assert_array_equal(
        chosen.values.reshape(DRAWS, POINTS), training["NUTS", "3 classes"].logits[:, :, 1]
    )


# --- there and back ------------------------------------------------------------------------------


def assert_same(found, original):
    for field in dataclasses.fields(original):
        ours, theirs = getattr(found, field.name), getattr(original, field.name)
        if isinstance(theirs, Trace):
            for part in dataclasses.fields(theirs):
                known = getattr(theirs, part.name)
                assert getattr(ours, part.name).keys() == known.keys()
                for name, values in known.items():
                    assert getattr(ours, part.name)[name].dtype == values.dtype, name
                    np.testing.assert_array_equal(getattr(ours, part.name)[name], values)
        elif isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        else:
            assert ours == theirs, field.name


@every_law
def test_the_round_trip_is_exact(training, trees, name, kind):
    assert_same(from_datatree(trees[name, kind]), training[name, kind])


@pytest.mark.parametrize("which", [("NUTS", "binary"), ("Laplace", "3 classes")], ids="-".join)
def test_the_round_trip_through_a_file_is_exact(training, trees, which, tmp_path):
    path = tmp_path / "law.nc"
    trees[which].to_netcdf(path)
    with xr.open_datatree(path) as tree:
        assert_same(from_datatree(tree), training[which])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("which", [("Laplace", "binary"), ("NUTS", "3 classes")], ids="-".join)
def test_the_round_trip_through_zarr_is_exact(training, trees, which, zarr_format, tmp_path):
    path = tmp_path / "law.zarr"
    trees[which].to_zarr(path, zarr_format=zarr_format, consolidated=False)
    with xr.open_datatree(path, engine="zarr", consolidated=False) as tree:
        assert_same(from_datatree(tree), training[which])
        table, original = (az.summary(t, var_names=["logits"]) for t in (tree, trees[which]))
        assert table.equals(original)


def test_the_round_trip_of_a_baseline_is_exact(baseline, tmp_path):
    tree = to_datatree(baseline)
    assert "posterior" not in tree.children
    assert_same(from_datatree(tree), baseline)
    tree.to_netcdf(tmp_path / "baseline.nc")
    with xr.open_datatree(tmp_path / "baseline.nc") as read:
        assert_same(from_datatree(read), baseline)


@pytest.fixture(scope="module")
def ordinal():
    data = data_of("3 classes")
    law = nb.Laplace().fit(PRIOR, data, likelihood=Ordinal([-0.5, 0.8]))
    return predict(law, data, key=KEY, name="Laplace", num_draws=DRAWS, held_out=False)


def test_ordered_classes_keep_their_likelihood(ordinal, tmp_path):
    tree = to_datatree(ordinal)
    assert json.loads(tree.attrs["likelihood"]) == {"name": "Ordinal", "cutpoints": [-0.5, 0.8]}
    tree.to_netcdf(tmp_path / "law.nc")
    with xr.open_datatree(tmp_path / "law.nc") as read:
        found = from_datatree(read)
    assert_same(found, ordinal)
    np.testing.assert_array_equal(found.probabilities, ordinal.probabilities)
    assert found.leave_one_out.sum() < ordinal.pointwise_elpd.sum()


@every_kind
def test_a_tree_of_an_earlier_version_has_the_likelihood_of_its_width(training, trees, kind):
    older = trees["Laplace", kind].copy()
    older.attrs = {k: v for k, v in older.attrs.items() if k != "likelihood"}
    assert_same(from_datatree(older), training["Laplace", kind])


@pytest.mark.parametrize(
    "described",
    ['{"name": "Gumbel"}', '{"name": "Ordinal"}', '{"name": "Ordinal", "cutpoints": []}', "["],
)
def test_a_tree_of_an_unknown_likelihood_is_refused(ordinal, described):
    tree = to_datatree(ordinal)
    tree.attrs["likelihood"] = described
    with pytest.raises(StorageError, match="none of Bernoulli, Categorical, Ordinal"):
        from_datatree(tree)


def test_a_likelihood_that_could_not_be_read_back_is_refused(training):
    class Own(Bernoulli):
        pass

    found = dataclasses.replace(training["Laplace", "binary"], likelihood=Own())
    with pytest.raises(StorageError, match="with the likelihood Own cannot be stored"):
        to_datatree(found)


def test_numbers_as_class_names_come_back_as_numbers(baseline):
    named = dataclasses.replace(baseline, class_names=(0, 1.5, True))
    found = from_datatree(to_datatree(named)).class_names
    assert found == (0, 1.5, True)
    assert [type(name) for name in found] == [int, float, bool]


def test_a_foreign_tree_is_refused(trees):
    with pytest.raises(StorageError, match="its schema is 'None'"):
        from_datatree(xr.DataTree.from_dict({"/posterior": xr.Dataset({"mu": ("draw", [1.0])})}))
    older = trees["MAP", "binary"].copy()
    older.attrs["schema"] = "ntkbayes 0"
    with pytest.raises(StorageError, match="its schema is 'ntkbayes 0'"):
        from_datatree(older)
