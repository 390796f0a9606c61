"""Power-scaling of scores: weighted draws against exact fits, and fits against those by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logsumexp

import ntkbayes as nb
from ntkbayes import sensitivity
from ntkbayes.errors import ArgumentError, ConfigurationError, ConvergenceWarning
from ntkbayes.likelihood import Normal

KEY = jax.random.key(0)
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=2.0)
RNG = np.random.default_rng(3)
X, X_NEW = RNG.normal(size=(8, 2)), RNG.normal(size=(40, 2))
TRAIN, TEST = (nb.Dataset.real(x, np.sin(2 * x[:, 0]) + x[:, 1]) for x in (X, X_NEW))
CLASSES, NEW_CLASSES = (nb.Dataset(x, np.sum(x, axis=1) > 0) for x in (X, X_NEW))
CHAINS = nb.NUTS(num_samples=1000, num_warmup=200, num_chains=2)


def test_a_law_that_is_fitted_again_has_the_ridge_times_the_power():
    law = nb.Laplace().fit(PRIOR, TRAIN, likelihood=Normal(0.5))
    found = nb.score_sensitivity(law, TEST, key=KEY, method=nb.Laplace())
    assert np.isnan(found.pareto_k["logits"])
    assert np.isnan(found.errors["logits"]["nll"])
    priors = [PRIOR.with_ridge(2.0 * power) for power in (0.8, 1.25)]
    fits = [nb.Laplace().fit(prior, TRAIN, likelihood=Normal(0.5)) for prior in priors]
    low, high = (nb.predict(fit, TEST, key=KEY).statistics for fit in fits)
    for name in ("nll", "crps", "rmse"):
        moved = found.moved["logits"][name]
        assert moved.value == pytest.approx(high[name](None) - low[name](None))
        assert moved.lower < moved.value < moved.upper


def test_weighted_draws_have_the_power_of_quadrature():
    one, again = (nb.Dataset(X[[0] * n], [1] * n, class_names=[0, 1]) for n in (1, 2))
    prior = PRIOR.with_ridge(0.5)
    law = CHAINS.fit(prior, one, key=KEY)
    found = nb.score_sensitivity(law, again, key=KEY)
    assert [*found.moved] == ["logits", "likelihood"]
    assert all(found.reliable.values())
    nodes = np.linspace(-9, 9, 5000)
    masses = stats.norm.pdf(nodes)
    deviation = float(np.sqrt(np.asarray(prior.gram(X[:1]).ntk.dense())[0, 0] / 0.5))

    def nll(prior_power, power):
        chances = expit(deviation / np.sqrt(prior_power) * nodes)
        return -np.log(masses @ chances ** (1 + power) / (masses @ chances**power))

    truth = {"logits": nll(1.25, 1) - nll(0.8, 1), "likelihood": nll(1, 1.25) - nll(1, 0.8)}
    for name, moved in truth.items():
        error = found.errors[name]["nll"]
        assert abs(found.moved[name]["nll"].value - moved) < 4 * error
        assert 5 * error < abs(moved)
        assert 200 < found.effective_draws[name] < 2000


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (CLASSES, NEW_CLASSES, ("nll", "brier", "accuracy")),
        (TRAIN, TEST, ("nll", "crps", "rmse")),
    ],
    ids=["classes", "numbers"],
)
def test_the_error_of_what_moved_is_the_scatter_over_chains(train, test, names):
    likelihood = None if train is CLASSES else Normal(0.5)
    long = nb.NUTS(num_samples=4000, num_warmup=300, num_chains=1)
    with pytest.warns(ConvergenceWarning, match="there is one chain"):
        law = long.fit(PRIOR, train, key=KEY, likelihood=likelihood)
    moved, errors = [], []
    for part in np.split(np.arange(4000), 10):
        some = dataclasses.replace(
            law,
            g=law.g.chosen(jnp.asarray(part)),
            alpha=law.alpha[part],
            sample_stats={name: values[part] for name, values in law.sample_stats.items()},
        )
        found, _ = sensitivity._weighted(some, test, (0.8, 1.25), KEY)
        assert found.component == "logits"
        moved.append([found.high[name](None) - found.low[name](None) for name in names])
        errors.append([found.errors[name] for name in names])
    ratio = np.mean(errors, axis=0) / np.std(moved, axis=0, ddof=1)
    assert ((ratio > 0.45) & (ratio < 2.2)).all()  # a scatter of 10 is known to a quarter


def test_too_few_draws_are_not_weighted():
    law = nb.NUTS(num_samples=4, num_warmup=100, num_chains=1)
    with pytest.warns(ConvergenceWarning, match="there is one chain"):
        law = law.fit(PRIOR, CLASSES, key=KEY)
    with pytest.raises(ConfigurationError, match=r"4 draws are too few .* for 25 or more"):
        nb.score_sensitivity(law, NEW_CLASSES, key=KEY)


def test_numbers_under_equal_weights_stay_and_under_0_they_are_left_out():
    law = nb.RandomInit(40).fit(PRIOR, TRAIN, key=KEY, likelihood=Normal(0.5))
    whole = nb.predict(law, TEST, key=KEY)
    equal = sensitivity._statistics(whole, law, TEST, np.full(40, -np.log(40.0)))
    half = dataclasses.replace(
        whole, logits=whole.logits[:20], target_draws=whole.target_draws[:20]
    )
    first = np.where(np.arange(40) < 20, -np.log(20.0), -np.inf)
    some = sensitivity._statistics(whole, law, TEST, first)
    for name in ("crps", "rmse", "coverage_90"):
        assert equal[name](None) == pytest.approx(whole.statistics[name](None), rel=1e-9)
        assert some[name](None) == pytest.approx(half.statistics[name](None), rel=1e-9)
    assert equal["nll"](None) == pytest.approx(whole.statistics["nll"](None), rel=1e-9)
    terms = stats.norm.logpdf(TEST.targets[:, 0], half.logits[:, :, 0], 0.5)
    expected = -np.mean(logsumexp(terms, axis=0) - np.log(20))
    assert some["nll"](None) == pytest.approx(expected, rel=1e-9)


def test_of_classes_every_score_is_told_with_its_interval_and_what_cannot_be_believed():
    law = nb.Laplace().fit(PRIOR, CLASSES)
    found = nb.score_sensitivity(law, NEW_CLASSES, key=KEY, method=nb.Laplace(), powers=(0.5, 2.0))
    table = found.table()
    assert table.index.names == ["component", "score"]
    assert table.attrs["interval"] == "90% over test points"
    row = table.loc["logits", "nll"]
    assert row["share"] == pytest.approx(abs(row["moved"]) / ((row["upper"] - row["lower"]) / 2))
    assert "power-scaled scores" in repr(found)
    assert "not to be believed" not in repr(found)
    draws = nb.NUTS(num_samples=100, num_warmup=100).fit(PRIOR, CLASSES, key=KEY)
    weighted = nb.score_sensitivity(draws, NEW_CLASSES, key=KEY, powers=(0.2, 5.0))
    assert max(weighted.pareto_k.values()) > 0.7
    assert "not to be believed" in repr(weighted)
    table = weighted.table()
    assert table["moved_error"].loc["logits", "nll"] == weighted.errors["logits"]["nll"]
    for component, k in weighted.pareto_k.items():
        assert table["reliable"].loc[component].eq(k <= 1 - 1 / np.log10(400)).all()
        assert np.isnan(table["moved"].loc[component, "nll"]) == (k >= 1)
    hopeless = nb.score_sensitivity(draws, NEW_CLASSES, key=KEY, powers=(0.01, 100.0))
    assert hopeless.pareto_k["likelihood"] >= 1
    assert hopeless.effective_draws["likelihood"] < 10
    assert np.isnan(hopeless.moved["likelihood"]["nll"].value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"a law of kind 'Laplace' is fitted again: give its method"),
        ({"method": nb.Laplace(), "powers": (1.25, 0.8)}, "on both sides of 1; got 1.25 and 0.8"),
        ({"method": nb.Laplace(), "powers": (0.0, 2.0)}, "on both sides of 1; got 0 and 2"),
        ({"method": nb.Laplace(), "powers": (0.5, np.inf)}, "on both sides of 1; got 0.5 and inf"),
    ],
)
def test_what_cannot_be_scaled_is_told(settings, message):
    law = nb.Laplace().fit(PRIOR, CLASSES)
    with pytest.raises(ConfigurationError, match=message):
        nb.score_sensitivity(law, NEW_CLASSES, key=KEY, **settings)


def test_a_slip_is_told():
    with pytest.raises(ArgumentError, match="score_sensitivity"):
        nb.score_sensitivity(nb.Laplace(), NEW_CLASSES, key=KEY)
    with pytest.raises(ArgumentError, match="score_sensitivity"):
        nb.score_sensitivity(nb.MAP().fit(PRIOR, CLASSES), NEW_CLASSES, key=KEY, method=nb.Laplace)
