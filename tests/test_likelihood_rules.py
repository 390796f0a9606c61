"""A likelihood gets its parameters from the training points: a law without features is the base rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.likelihood import Normal, Ordinal, Poisson
from ntkbayes.selection.likelihood_rules import RULES

KEY = jax.random.key(0)
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1, activation="erf", bias_std=0.3), ridge=0.7)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2))
Y = 40 + 3 * np.sin(2 * X[:, 0]) + RNG.normal(size=30)
DATA = nb.Dataset.real(X, Y)
GIVEN, EVIDENCE = nb.GivenRidge(), nb.RidgeByEvidence()


def log_evidence(noise, ridge):
    gram, mean = np.asarray(PRIOR.gram(X).ntk) / ridge, np.full((30, 1), Y.mean())
    return oracle.gp_regression(gram, gram, gram, DATA.targets, mean, mean, noise)[1]


def test_noise_and_ridge_maximise_the_evidence_together():
    chosen = nb.NormalByEvidence().choose(PRIOR, DATA, ridge=EVIDENCE)
    found = EVIDENCE.choose(chosen.prior, DATA, key=KEY, likelihood=chosen.likelihood)
    noise = float(chosen.likelihood.noise_std)
    best = log_evidence(noise, found.ridge)
    for factor in (0.9, 1.1):
        assert log_evidence(noise * factor, found.ridge) < best
        assert log_evidence(noise, found.ridge * factor) < best + 1e-4
        assert log_evidence(noise * factor, found.ridge / factor**2) < best
    assert 0.5 < noise < 2
    np.testing.assert_allclose(chosen.prior.mean, Y.mean(), rtol=1e-5)
    assert "maximises the evidence" in chosen.reason


def test_at_a_given_ridge_the_noise_maximises_the_evidence_there():
    noise = float(nb.NormalByEvidence().choose(PRIOR, DATA, ridge=GIVEN).likelihood.noise_std)
    best = log_evidence(noise, 0.7)
    assert max(log_evidence(noise * 0.95, 0.7), log_evidence(noise * 1.05, 0.7)) < best


def test_the_unit_of_the_targets_does_not_matter():
    large = nb.Dataset.real(X, 1e6 * Y)
    found = []
    for data in (DATA, large):
        chosen = nb.NormalByEvidence().choose(PRIOR, data, ridge=EVIDENCE)
        ridge = EVIDENCE.choose(chosen.prior, data, key=KEY, likelihood=chosen.likelihood).ridge
        found.append((float(chosen.likelihood.noise_std), ridge, float(chosen.prior.mean)))
    np.testing.assert_allclose(np.array(found[1]) * [1e-6, 1e12, 1e-6], found[0], rtol=0.02)


def test_outputs_share_the_noise():
    both = nb.Dataset.real(X, np.column_stack([Y, Y + 7]))
    chosen = nb.NormalByEvidence().choose(PRIOR, both, ridge=GIVEN)
    alone = nb.NormalByEvidence().choose(PRIOR, DATA, ridge=GIVEN)
    assert chosen.likelihood == alone.likelihood
    np.testing.assert_allclose(chosen.prior.mean, [Y.mean(), Y.mean() + 7], rtol=1e-5)


def test_a_mean_of_the_users_stays():
    prior = nb.NTKPrior(PRIOR.kernel, ridge=0.7, mean=35.0)
    chosen = nb.NormalByEvidence().choose(prior, DATA, ridge=GIVEN)
    assert chosen.prior is prior


def test_counts_have_their_mean_rate():
    counts = np.arange(30) % 4
    chosen = nb.PoissonAtMean().choose(PRIOR, nb.Dataset.real(X, counts), ridge=GIVEN)
    np.testing.assert_allclose(np.exp(chosen.prior.mean), counts.mean(), rtol=1e-5)
    assert chosen.likelihood == Poisson()


def test_a_logit_of_0_has_the_frequencies_of_ordered_classes():
    grades = np.repeat([1, 2, 3], [5, 15, 10])
    data = nb.Dataset(X, grades, class_names=(1, 2, 3, 4))
    chosen = nb.OrdinalAtFrequencies().choose(PRIOR, data, ridge=GIVEN)
    assert isinstance(chosen.likelihood, Ordinal)
    expected = (np.array([5, 15, 10, 0]) + 0.5) / 32
    found = chosen.likelihood.probabilities(jnp.zeros((1, 1)))[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("rule", "targets", "message"),
    [
        ("normal", np.full(30, 3.0), "all 30 targets of the training points are 3"),
        ("poisson", np.zeros(30), "all 30 targets of the training points are 0"),
        ("poisson", Y, "counts must be non-negative integers; point 0 has"),
        ("poisson", -np.arange(30.0), "counts must be non-negative integers; point 1 has -1"),
        ("ordinal", Y, "takes ordered classes, but the targets are numbers"),
    ],
)
def test_targets_of_another_kind_are_refused(rule, targets, message):
    with pytest.raises(DataError, match=message):
        RULES[rule]().choose(PRIOR, nb.Dataset.real(X, targets), ridge=GIVEN)


@pytest.mark.parametrize(("rule", "needs"), [("normal", "real targets"), ("poisson", "counts")])
def test_classes_are_refused(rule, needs):
    with pytest.raises(DataError, match=f"takes {needs}; make them with Dataset.real"):
        RULES[rule]().choose(PRIOR, nb.Dataset(X, np.arange(30) % 2), ridge=GIVEN)


def test_a_ridge_of_0_has_no_evidence_to_choose_the_noise_by():
    with pytest.raises(ConfigurationError, match=r"Normal\(noise_std=1.0\)"):
        nb.NormalByEvidence().choose(PRIOR.with_ridge(0.0), DATA, ridge=GIVEN)


def test_the_scale_of_a_logit_is_the_noise_of_real_targets():
    assert Normal(3.0).scale == 3.0
    assert Poisson().scale == 1.0
