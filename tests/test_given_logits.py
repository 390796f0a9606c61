"""Ensembles that were trained elsewhere, given by their logits or by their parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.likelihood import Normal

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((12, 2))
LABELS = np.arange(12) % 3
TEST = nb.Dataset(X, LABELS)
LOGITS = np.random.default_rng(1).standard_normal((5, 12, 3))
PRIOR = nb.NTKPrior(nb.networks.mlp(), ridge=1.0)


def test_scores_are_those_of_the_mean_probabilities():
    given = nb.Predictions.of(LOGITS, TEST, key=KEY)
    mean = softmax(LOGITS, axis=2).mean(axis=0)
    np.testing.assert_allclose(given.probabilities, mean, atol=1e-12)
    np.testing.assert_allclose(
        given.pointwise_elpd, np.log(mean[np.arange(12), LABELS]), atol=1e-12
    )
    np.testing.assert_allclose(given.variance, LOGITS.var(axis=0), atol=1e-12)


def test_a_dataset_and_its_targets_alone_say_the_same_but_for_where_the_points_are():
    one = nb.Predictions.of(LOGITS, TEST, key=KEY)
    other = nb.Predictions.of(LOGITS, LABELS, key=KEY)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    np.testing.assert_array_equal(one.label_draws, other.label_draws)
    assert one.points is not None
    assert other.points is None
    assert other.features is None


def test_given_logits_stand_in_a_comparison():
    law = nb.MAP().fit(PRIOR, TEST)
    given = nb.Predictions.of(LOGITS, TEST, key=KEY)
    comparison = nb.compare({"MAP": law, "theirs": given}, TEST, key=KEY)
    assert comparison.predictions["theirs"].kind.name == "given ensemble"
    nll = -given.pointwise_elpd.mean()
    assert comparison.scores["theirs"]["nll"].value == pytest.approx(nll)


def test_one_model_has_no_members():
    given = nb.Predictions.of(LOGITS[0], TEST, key=KEY)
    np.testing.assert_allclose(given.probabilities, softmax(LOGITS[0], axis=1), atol=1e-12)
    assert len(given.logits) == 1


def test_real_targets_are_scored_by_the_mixture_of_the_members():
    targets = np.linspace(-1, 1, 12)
    means = LOGITS[:, :, :1]
    given = nb.Predictions.of(means, targets, key=KEY, likelihood=Normal(0.5))
    mixture = norm.pdf(targets, means[:, :, 0], 0.5).mean(axis=0)
    np.testing.assert_allclose(given.pointwise_elpd, np.log(mixture), atol=1e-10)


def test_a_member_with_nan_is_named_and_the_others_are_kept():
    broken = LOGITS.copy()
    broken[3, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="members 3 have .* left out: 4 of 5 are kept"):
        given = nb.Predictions.of(broken, TEST, key=KEY)
    np.testing.assert_array_equal(given.logits, LOGITS[[0, 1, 2, 4]])


@pytest.mark.parametrize(
    ("logits", "error", "match"),
    [
        (LOGITS[:, :11], ConfigurationError, r"12 points and 3 outputs, .* got \(5, 11, 3\)"),
        (LOGITS[..., :2], ConfigurationError, r"got \(5, 12, 2\)"),
        (LOGITS[:0], ConfigurationError, r"got \(0, 12, 3\)"),
        (LOGITS * np.nan, DataError, "every member contain NaN"),
    ],
)
def test_logits_that_do_not_fit_are_refused(logits, error, match):
    with pytest.raises(error, match=match):
        nb.Predictions.of(logits, TEST, key=KEY)


# --- by parameters -------------------------------------------------------------------------------

NETWORK = nb.networks.mlp(depth=1, width=6, num_outputs=3)
MEMBERS = [NETWORK.init(key, jnp.asarray(X)) for key in jax.random.split(KEY, 4)]


@pytest.mark.parametrize(
    "prior", [PRIOR, nb.linearise(NETWORK, MEMBERS[0], ridge=1.0)], ids=["mean 0", "own mean"]
)
def test_the_law_of_given_networks_is_that_of_their_functions_whatever_the_prior(prior):
    law = nb.FiniteEnsemble.of(NETWORK, MEMBERS).fit(prior, TEST)
    new = X[:5] + 0.3
    logits = np.stack([np.asarray(NETWORK.apply(params, jnp.asarray(new))) for params in MEMBERS])
    np.testing.assert_allclose(law.sample(KEY, new), logits, atol=1e-12)
    np.testing.assert_allclose(law.mean(new), logits.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(law.variance(new), logits.var(axis=0, ddof=1), atol=1e-12)


def test_a_network_with_nan_is_named_and_the_others_are_kept():
    broken = [jax.tree.map(lambda leaf: leaf * np.nan, MEMBERS[0]), *MEMBERS[1:]]
    with pytest.warns(UserWarning, match="members 0 have parameters .* 3 of 4 are kept"):
        method = nb.FiniteEnsemble.of(NETWORK, broken)
    assert method.fit(PRIOR, TEST).info.num_networks == 3


def test_networks_of_other_shapes_or_too_few_are_refused():
    wider = nb.networks.mlp(depth=1, width=7, num_outputs=3).init(KEY, jnp.asarray(X))
    with pytest.raises(ConfigurationError, match=r"members\[1\].* should be of shape"):
        nb.FiniteEnsemble.of(NETWORK, [MEMBERS[0], wider])
    with pytest.raises(ConfigurationError, match="two networks at least; 1 of the 1 given"):
        nb.FiniteEnsemble.of(NETWORK, MEMBERS[:1])
    two = nb.Dataset(X, LABELS > 0)
    with pytest.raises(ConfigurationError, match="have 3 outputs, but the likelihood takes 1"):
        nb.FiniteEnsemble.of(NETWORK, MEMBERS).fit(PRIOR, two)
