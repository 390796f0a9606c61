"""Trees of real targets and counts: groups, round trips, and ArviZ's own functions on them."""

import dataclasses

import jax
import numpy as np
import pytest

import ntkbayes as nb
from ntkbayes.app.number_baselines import gaussian_base_rate, poisson_base_rate
from ntkbayes.bridges.arviz import from_datatree, law_to_datatree, to_datatree
from ntkbayes.errors import StorageError
from ntkbayes.likelihood import LogConcave, Normal, Poisson
from ntkbayes.predictions import predict
from ntkbayes.storage.laws import LawRecord, read_law, to_bytes

KEY = jax.random.key(0)
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1, activation="erf", bias_std=0.3), ridge=0.5)
RNG = np.random.default_rng(1)
X, X_NEW = RNG.normal(size=(20, 2)), RNG.normal(size=(8, 2))
TRAIN = nb.Dataset.real(X, RNG.normal(size=20))
TEST = nb.Dataset.real(X_NEW, RNG.normal(size=8))
COUNTS = nb.Dataset.real(X_NEW, RNG.poisson(2.0, size=8))
TWO = nb.Dataset.real(X_NEW, RNG.normal(size=(8, 2)))
OWN = LogConcave(
    lambda y, f: -((y[0] - f[0]) ** 2),
    num_logits=1,
    examples=[[0.0]],
    draw=lambda key, f: f + jax.random.normal(key, f.shape) / np.sqrt(2),
)


@pytest.fixture(scope="module")
def law():
    return nb.Laplace().fit(PRIOR, TRAIN, likelihood=Normal(0.8))


@pytest.fixture(scope="module")
def every_kind(law):
    of_two = nb.Dataset.real(X, np.tile(TRAIN.targets, 2))
    return {
        "Gaussian": predict(law, TEST, key=KEY, num_draws=50),
        "own": predict(nb.MAP().fit(PRIOR, TRAIN, likelihood=OWN), TEST, key=KEY, num_draws=50),
        "two outputs": predict(
            nb.MAP().fit(PRIOR, of_two, likelihood=Normal(0.8)), TWO, key=KEY, num_draws=50
        ),
        "base rate": gaussian_base_rate(TRAIN, TEST, key=KEY),
        "counts": poisson_base_rate(COUNTS, COUNTS, key=KEY),
    }


KINDS = ("Gaussian", "own", "two outputs", "base rate", "counts")


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_come_back_from_a_tree_and_from_its_file(every_kind, kind, tmp_path):
    given = every_kind[kind]
    path = tmp_path / "law.nc"
    path.write_bytes(to_bytes(LawRecord(given)))
    for found in (from_datatree(to_datatree(given)), read_law(path, given.name)[0].predictions):
        assert type(found) is type(given)
        for name in ("targets", "target_draws", "log_densities", "logits", "mean", "variance"):
            np.testing.assert_array_equal(getattr(found, name), getattr(given, name), err_msg=name)
        assert type(found.distributions) is type(given.distributions)
        for name, score in given.statistics.items():
            assert found.statistics[name]() == score(), name
        assert found.likelihood == given.likelihood
        assert found.class_names is None


def test_held_out_points_have_their_own_groups(every_kind):
    tree = to_datatree(every_kind["Gaussian"])
    assert set(tree.children) == {"predictions", "predictions_constant_data", "observed_data"}
    assert tree["predictions/y"].dims == ("chain", "draw", "obs_id")
    constant = tree["predictions_constant_data"]
    np.testing.assert_array_equal(constant["y"], TEST.targets[:, 0])
    told = every_kind["Gaussian"].distributions
    np.testing.assert_array_equal(constant["predictive_mean"], told.mean[:, 0])
    np.testing.assert_array_equal(constant["predictive_noise"], told.noise[:, 0])
    assert to_datatree(every_kind["two outputs"])["predictions/y"].dims[-1] == "y_dim_0"


def test_a_law_has_prior_and_predictions_in_one_tree(law):
    tree = law_to_datatree(law, TRAIN, TEST, key=KEY, num_draws=50)
    assert {"prior", "prior_predictive", "posterior", "posterior_predictive"} <= set(tree.children)
    assert {"constant_data", "predictions", "observed_data"} <= set(tree.children)
    np.testing.assert_array_equal(tree["observed_data/y"], TRAIN.targets[:, 0])
    np.testing.assert_array_equal(tree["constant_data/leave_one_out"], nb.leave_one_out(law))
    before = np.asarray(tree["prior_predictive/y"])
    after = np.asarray(tree["posterior_predictive/y"])
    assert before.var() > after.var(axis=(0, 1)).mean()


def test_az_loo_of_draws_is_the_exact_leave_one_out():
    import arviz as az
    from scipy import stats

    # Under a Normal likelihood Laplace is the posterior itself.
    law = nb.Laplace().fit(PRIOR.with_ridge(10.0), TRAIN, likelihood=Normal(2.0))
    found = predict(law, TRAIN, key=KEY, held_out=False, num_draws=1000)
    density = stats.norm.logpdf(TRAIN.targets[None], found.logits, 2.0)[..., 0]
    drawn = dataclasses.replace(
        found, kind=nb.NUTS.kind, is_posterior=True, log_likelihood=density, leave_one_out=None
    )
    tree = to_datatree(drawn)
    np.testing.assert_array_equal(tree["log_likelihood/y"][0], density)
    loo = az.loo(tree, pointwise=True)
    exact = nb.leave_one_out(law)
    assert np.abs(np.asarray(loo.elpd_i) - exact).max() < 0.1
    assert abs(loo.elpd - exact.sum()) < 0.3
    assert np.array_equal(from_datatree(tree).log_likelihood, density)


def test_a_tree_whose_parts_do_not_fit_is_refused(every_kind):
    tree = to_datatree(every_kind["Gaussian"])
    tree.attrs["likelihood"] = '{"name": "Bernoulli"}'
    with pytest.raises(StorageError, match="Bernoulli and the targets do not fit"):
        from_datatree(tree)
    tree = to_datatree(every_kind["base rate"])
    tree.attrs["given"] = "Cauchys"
    with pytest.raises(StorageError, match="'Cauchys' are unknown"):
        from_datatree(tree)


def test_a_poisson_likelihood_is_kept():
    law = nb.MAP().fit(PRIOR, nb.Dataset.real(X, RNG.poisson(2.0, size=20)), likelihood=Poisson())
    found = from_datatree(to_datatree(predict(law, COUNTS, key=KEY, num_draws=50)))
    assert found.likelihood == Poisson()
    np.testing.assert_array_equal(found.distributions.rates, np.exp(found.logits))
