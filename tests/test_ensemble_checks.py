"""Tests of ensembles: p-values are uniform for samples of the law, and small for others."""

import dataclasses

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle
from scipy import stats

import ntkbayes as nb
from ntkbayes.checks import follows_law, over_widths
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.scores.distances import energy_coefficient, permuted_coefficients

KEY = jax.random.key(2)
FEATURES, LABELS = oracle.blobs(5, 12, 3)
DATA = nb.Dataset(FEATURES, LABELS, class_names=range(3))
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1, weight_std=1.5, bias_std=0.5), ridge=0.5)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0]])


@pytest.fixture(scope="module")
def law():
    return nb.FirstOrder().fit(PRIOR, DATA)


def test_p_values_of_samples_of_the_law_are_uniform(law):
    """400 ensembles of twelve; jittered within their steps, since they are multiples of 1/20."""
    drawn = np.asarray(law.sample(jax.random.key(7), NEW, 400 * 12)).reshape(400, 12, 3, 3)
    found = [
        follows_law(
            each, law, NEW, key=jax.random.fold_in(KEY, i), num_draws=40, num_permutations=19
        ).p_value
        for i, each in enumerate(drawn)
    ]
    assert set(np.round(20 * np.asarray(found), 9)) <= set(range(1, 21))
    jitter = np.random.default_rng(0).uniform(size=400) / 20
    assert stats.kstest(np.asarray(found) - jitter, "uniform").pvalue > 0.01
    assert abs(np.mean(np.asarray(found) <= 0.05) - 0.05) < 3 * (0.05 * 0.95 / 400) ** 0.5


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (1.0, 1.5)])
def test_an_ensemble_that_is_too_wide_or_elsewhere_is_rejected(law, scale, shift):
    drawn = np.asarray(law.sample(jax.random.key(8), NEW, 40))
    mean = np.asarray(law.mean(NEW))
    moved = mean + scale * (drawn - mean) + shift * np.array([1.0, 0.0, -1.0])
    test = follows_law(moved, law, NEW, key=KEY, num_draws=200)
    assert test.is_rejected
    assert test.p_value < 0.01
    assert test.coefficient.value > test.critical
    assert "is no sample of the law, at level 0.05" in repr(test)
    own = follows_law(drawn, law, NEW, key=KEY, num_draws=200)
    assert not own.is_rejected
    assert own.coefficient.value <= own.critical
    assert "may be a sample of the law" in repr(own)


def test_what_softmax_cannot_see_plays_no_part(law):
    drawn = np.asarray(law.sample(jax.random.key(8), NEW, 12))
    shifted = drawn + 100 * np.arange(12.0)[:, None, None]
    tests = [follows_law(each, law, NEW, key=KEY, num_draws=50) for each in (drawn, shifted)]
    assert tests[0].p_value == tests[1].p_value


def test_the_observed_division_has_the_energy_coefficient():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(12, 3, 2)), 0.5 + rng.normal(size=(30, 3, 2))
    observed, divided = permuted_coefficients(a, b, rng, 50)
    assert observed == pytest.approx(energy_coefficient(a, b).value, rel=1e-10)
    pooled = np.concatenate([a, b])
    again = np.random.default_rng(0)
    again.normal(size=(12, 3, 2)), again.normal(size=(30, 3, 2))
    chosen = np.zeros(42, bool)
    chosen[again.choice(42, 12, replace=False)] = True
    expected = energy_coefficient(pooled[chosen], pooled[~chosen]).value
    assert divided[0] == pytest.approx(expected, rel=1e-10)


def test_the_distance_to_the_law_falls_with_the_width(law):
    """Networks of width w stood in for by draws that are √(1 + 32/w) too wide."""
    mean, drawn = np.asarray(law.mean(NEW)), np.asarray(law.sample(jax.random.key(9), NEW, 240))
    ensembles = {
        width: mean + (1 + 64 / width) ** 0.5 * (part - mean)
        for width, part in zip((1024, 16, 128), np.split(drawn, 3), strict=True)
    }
    trend = over_widths(ensembles, law, NEW, key=KEY, num_draws=200)
    assert list(trend.tests) == [16, 128, 1024]
    assert trend.falls
    table = trend.table()
    assert list(table["rejected"])[::2] == [True, False]
    single = follows_law(ensembles[16], law, NEW, key=KEY, num_draws=200)
    assert trend.tests[16] == single
    assert "falls with the width" in repr(trend)
    alike = dict.fromkeys((16, 1024), ensembles[1024])
    flat = over_widths(alike, law, NEW, key=KEY, num_draws=200)
    assert abs(flat.slope) < 1e-12
    assert not flat.falls


def test_one_logit_may_come_without_an_axis():
    two = nb.Dataset(FEATURES, LABELS > 0, class_names=(False, True))
    law = nb.FirstOrder().fit(PRIOR, two)
    drawn = np.asarray(law.sample(KEY, NEW, 12))
    whole, flat = (
        follows_law(each, law, NEW, key=KEY, num_draws=30).p_value
        for each in (drawn, drawn[:, :, 0])
    )
    assert whole == flat


def test_bad_ensembles_are_refused(law):
    good = np.asarray(law.sample(KEY, NEW, 12))

    def refused(logits, message):
        with pytest.raises(DataError, match=message):
            follows_law(logits, law, NEW, key=KEY)

    refused(good[:9], "has 9 members, too few .* train 10 or more")
    refused(good[:, :2], r"shape \(12, 2, 3\), but the law has 3 logits at each of 3 inputs")
    refused(good[:, :, :1], r"give \(members, 3, 3\), at these inputs and in their order")
    refused(good[0], r"shape \(3, 3\)")
    refused("logits", "not an array of numbers")
    broken = good.copy()
    broken[4, 0, 0] = np.nan
    refused(broken, "the logits of member 4 are not finite")


def test_laws_without_independent_draws_are_refused(law):
    good = np.asarray(law.sample(KEY, NEW, 12))
    with pytest.raises(ConfigurationError, match="the law of MAP is one function"):
        follows_law(good, nb.MAP().fit(PRIOR, DATA), NEW, key=KEY)
    chains = nb.NUTS(num_samples=50, num_warmup=50, num_chains=2).kind
    with pytest.raises(ConfigurationError, match=r"draws of posterior depend on each other"):
        follows_law(good, dataclasses.replace(law, kind=chains), NEW, key=KEY)
    with pytest.raises(ConfigurationError, match="use 99 or more"):
        follows_law(good, law, NEW, key=KEY, num_permutations=50, level=0.01)
    with pytest.raises(ConfigurationError, match="takes two widths or more"):
        over_widths({64: good}, law, NEW, key=KEY)
