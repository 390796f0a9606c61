"""Predictive checks against binomial tails, and calibration of exact and inexact methods (oracle 11)."""

import arviz as az
import jax
import numpy as np
import pytest
from scipy import stats

import ntkbayes as nb
from ntkbayes.checks import (
    Ranks,
    class_frequencies,
    neighbour_agreement,
    predictive_check,
    simulation_based_calibration,
)
from ntkbayes.errors import ConfigurationError, ConvergenceError, ConvergenceWarning, DataError
from ntkbayes.laws.gaussian.prior_predictive import PriorPredictive
from ntkbayes.predictions import predictions_from_probabilities

KEY = jax.random.key(4)
PRIOR = nb.NTKPrior(
    nb.networks.mlp(depth=1, activation="relu", weight_std=1.5, bias_std=0.5), ridge=0.5, mean=0.3
)
FEATURES = np.random.default_rng(0).standard_normal((8, 2))
BINARY = nb.Dataset(FEATURES, np.arange(8) % 2, class_names=(0, 1))
REAL = nb.Dataset.real(FEATURES, np.zeros(8))
NEW = np.array([[0.0, 0.0], [2.0, -1.0]])

# --- the prior as a law ---------------------------------------------------------------------------


def test_the_prior_as_a_law_is_the_gaussian_process_of_the_ntk_over_the_ridge():
    law = PriorPredictive().fit(PRIOR, BINARY)
    inputs = np.concatenate([FEATURES[:2], NEW])
    gram = np.array(PRIOR.gram(inputs).ntk) / 0.5
    np.testing.assert_array_equal(law.mean(inputs), np.full((4, 1), 0.3))
    np.testing.assert_allclose(law.covariance(inputs)[:, 0, 0], np.diag(gram), rtol=1e-12)
    at_data = np.array(PRIOR.diagonal(FEATURES).ntk) / 0.5
    assert law.info.logit_std == pytest.approx(np.sqrt(at_data.mean()))
    draws = np.array(law.sample(KEY, inputs, 4000))[:, :, 0] - 0.3
    error = np.sqrt((gram**2 + np.outer(np.diag(gram), np.diag(gram))) / 4000)
    assert np.abs((draws.T @ draws / 4000 - gram) / error).max() < 4.5
    assert np.abs(draws.mean(axis=0) / np.sqrt(np.diag(gram) / 4000)).max() < 4.5


# --- predictive checks ----------------------------------------------------------------------------


@pytest.mark.parametrize("ones", [0, 4, 12])
def test_the_p_value_of_a_count_is_a_binomial_tail_with_half_of_the_tie(ones):
    labels = (np.arange(12) < ones).astype(int)
    data = nb.Dataset(np.arange(12.0)[:, None], labels, class_names=(0, 1))
    constant = np.tile([0.7, 0.3], (12, 1))
    found = predictions_from_probabilities("p", constant, data, key=KEY, num_draws=4000)
    check = predictive_check(found, np.sum)
    law = stats.binom(12, 0.3)
    exact = law.sf(ones) + law.pmf(ones) / 2
    assert check.observed == ones
    assert check.replicated.shape == (4000, 1)
    assert abs(check.p_value[0] - exact) < 4 * np.sqrt(max(exact * (1 - exact), 1e-5) / 4000)


def test_labels_that_no_smooth_law_would_give_are_found():
    features = np.sort(np.random.default_rng(1).standard_normal((40, 2)), axis=0)
    data = nb.Dataset(features, np.arange(40) % 2, class_names=(0, 1))  # neighbours disagree
    smooth = np.where(np.arange(40)[:, None] < 20, [0.95, 0.05], [0.05, 0.95])
    found = predictions_from_probabilities("smooth", smooth, data, key=KEY)
    assert predictive_check(found, neighbour_agreement(features)).p_value > 0.99
    frequencies = predictive_check(found, class_frequencies(2))
    np.testing.assert_array_equal(frequencies.observed, [0.5, 0.5])
    assert np.all(np.abs(frequencies.p_value - 0.5) < 0.1)


def test_named_statistics_are_as_counted_by_hand():
    labels = np.array([0, 2, 2, 0])
    np.testing.assert_array_equal(class_frequencies(4)(labels), [0.5, 0, 0.5, 0])
    line = np.array([[0.0], [1.0], [1.1], [3.0]])  # nearest: 1, 2, 1, 2
    assert neighbour_agreement(line)(labels) == 0.5


def test_soft_targets_and_statistics_that_are_not_finite_are_refused():
    half = np.full((8, 2), 0.5)
    soft = predictions_from_probabilities("p", half, BINARY.smooth(0.1), key=KEY, num_draws=5)
    with pytest.raises(ConfigurationError, match="the targets are probabilities"):
        predictive_check(soft, np.sum)
    hard = predictions_from_probabilities("p", half, BINARY, key=KEY, num_draws=5)
    with pytest.raises(ConfigurationError, match="of draw 0 is not finite"):
        predictive_check(hard, lambda y: 1.0 if np.array_equal(y, BINARY.labels) else np.nan)


def test_a_single_draw_is_refused_since_a_rank_among_one_says_nothing():
    point = nb.MAP().fit(PRIOR, BINARY)
    alone = nb.predict(point, BINARY, key=KEY, name="MAP")
    with pytest.raises(ConfigurationError, match=r"'MAP' has one draw .* num_draws=1000"):
        predictive_check(alone, np.sum)
    many = nb.predict(point, BINARY, key=KEY, name="MAP", num_draws=500)
    check = predictive_check(many, np.sum)
    p = many.probabilities[:, 1]
    error = np.sqrt(np.sum(p * (1 - p)) / 500)
    assert abs(check.replicated.mean() - p.sum()) < 4 * error


# --- ranks ----------------------------------------------------------------------------------------


def test_the_ecdf_of_uniform_ranks_stays_in_its_band_as_often_as_the_level_says():
    ranks = np.random.default_rng(2).integers(0, 10, size=(50, 1000))
    shares = [Ranks(ranks, 9, ("",) * 1000).uniform(level).mean() for level in (0.9, 0.99)]
    # The band itself is known from 2000 simulations; on 49 points coverage comes in small steps.
    np.testing.assert_allclose(shares, [0.9, 0.99], rtol=0, atol=0.03)


def test_randomised_ranks_fill_the_unit_interval_evenly():
    ranks = Ranks(np.tile(np.arange(10)[:, None], (100, 1)), 9, ("f",))
    pit = ranks.pit[:, 0]
    assert np.all((pit > 0) & (pit < 1))
    np.testing.assert_array_equal(np.bincount((10 * pit).astype(int)), np.full(10, 100))
    assert stats.kstest(pit, "uniform").pvalue > 0.01
    np.testing.assert_array_equal(pit, ranks.pit[:, 0])


def test_the_table_tells_shifted_narrow_and_wide_laws_apart():
    uniform = (np.arange(100) + 0.5) / 100
    shapes = (uniform**0.25, stats.beta(0.4, 0.4).ppf(uniform), stats.beta(3, 3).ppf(uniform))
    pit = np.column_stack([*shapes, uniform])
    names = ("low", "narrow", "wide", "exact")
    table = Ranks(np.floor(1000 * pit).astype(int), 999, names).table()
    assert list(table["uniform"]) == [False, False, False, True]
    np.testing.assert_allclose(table["shift"], [0.3, 0, 0, 0], atol=2e-3)
    # 12 Var of a Beta(a, a): 3 / (2 a + 1).
    np.testing.assert_allclose(table["spread"][1:], [3 / 1.8, 3 / 7, 1], atol=0.02)


def test_ranks_can_be_drawn_by_arviz():
    tree = Ranks(np.arange(60).reshape(30, 2) % 10, 9, ("f(x0)", "log likelihood")).to_datatree()
    assert dict(tree["prior_sbc"].sizes) == {"chain": 1, "draw": 30, "quantity": 2}
    plot = az.plot_ecdf_pit(tree, backend="none")
    assert list(plot.viz["ecdf_lines"]["pit"]["quantity"].values) == ["f(x0)", "log likelihood"]


# --- calibration of methods -----------------------------------------------------------------------


def calibrate(method, data, number, *, prior=PRIOR, **options):
    return simulation_based_calibration(
        method, prior, data, key=KEY, num_simulations=number, at=NEW, **options
    )


def test_nuts_is_calibrated():
    method = nb.NUTS(num_samples=100, num_warmup=80, num_chains=8)
    ranks = calibrate(method, BINARY, 60)
    assert ranks.names == ("f(x0)", "f(x1)", "log likelihood")
    assert ranks.ranks.min() >= 0
    assert ranks.ranks.max() <= 99
    assert ranks.uniform(0.999).all()


def test_the_random_init_law_is_narrower_than_the_posterior():
    table = calibrate(nb.RandomInit(num_inits=99), BINARY, 60).table(0.999)
    assert not table["uniform"].any()
    assert np.all(table["spread"] > 1 + 4 * table["spread_error"])


def test_laplace_is_less_sure_of_the_labels_than_the_posterior():
    # The posterior is skewed towards the labels and its mode lies short of its mass, so that Laplace's
    # draws give the labels too low a joint likelihood: the truth's ranks in it are high. By .10 at the
    # ridge of 0.5, .21 at 0.1 and .37 at 0.02: the wider the prior, the further.
    wide = nb.NTKPrior(PRIOR.kernel, ridge=0.1, mean=0.3)
    table = calibrate(nb.Laplace(), BINARY, 60, prior=wide).table(0.999).loc["log likelihood"]
    assert not table["uniform"]
    assert table["shift"] > 4 * table["shift_error"]


def test_laplace_of_real_targets_is_exact_and_calibrated_for_every_quantity():
    ranks = calibrate(nb.Laplace(), REAL, 100, likelihood=nb.likelihood.Normal(0.5))
    table = ranks.table(0.999)
    assert table["uniform"].all()
    assert np.all(np.abs(table["shift"]) < 4 * table["shift_error"])
    assert np.all(np.abs(table["spread"] - 1) < 4 * table["spread_error"])


def test_softmax_ranks_centred_logits_of_each_class_at_the_first_inputs():
    data = nb.Dataset(FEATURES, np.arange(8) % 3, class_names=range(3))
    ranks = simulation_based_calibration(
        nb.Laplace(), PRIOR, data, key=KEY, num_simulations=2, num_draws=9
    )
    names = [f"f(x{j})[{c}]" for j in range(3) for c in range(3)]
    assert ranks.names == (*names, "log likelihood")
    # Centred logits sum to zero: the truth is not below, nor above, all three of a draw's.
    assert np.all(ranks.ranks[:, :9].reshape(2, 3, 3).min(axis=2) < 9)


def test_ranks_do_not_depend_on_the_number_of_workers():
    options = {"likelihood": nb.likelihood.Normal(0.5), "num_draws": 49}
    # The law of the prior, as it compiles next to nothing: each process compiles for itself.
    one, two = (calibrate(PriorPredictive(), REAL, 6, num_workers=w, **options) for w in (1, 2))
    np.testing.assert_array_equal(one.ranks, two.ranks)
    assert one.ranks.std() > 0


# --- failures -------------------------------------------------------------------------------------


class Failing(nb.laws.Method):
    """Fails in the way it is told to."""

    name, kind = "failing", nb.Laplace.kind
    error: BaseException

    def solve(self, problem, key):
        raise self.error


class Warning_(nb.laws.Method):
    """Laplace, with a complaint."""

    name, kind = "warning", nb.Laplace.kind

    def solve(self, problem, key):
        import warnings

        warnings.warn("the chains creep", ConvergenceWarning, stacklevel=2)
        return nb.Laplace().solve(problem)


def test_a_fit_that_fails_is_named():
    message = r"simulation 0, with key jax\.random\.fold_in\(key, 0\), failed: did not get there"
    with pytest.raises(ConvergenceError, match=message):
        calibrate(Failing(ConvergenceError("did not get there")), BINARY, 3)


def test_an_interrupted_calibration_says_how_far_it_came():
    with pytest.raises(KeyboardInterrupt) as stopped:
        calibrate(Failing(KeyboardInterrupt()), BINARY, 3)
    assert stopped.value.__notes__ == ["failing: calibration was stopped after 0 of 3 simulations"]


def test_chains_that_have_not_converged_are_counted():
    message = "2 of 2 simulations warned; the first, number 0: the chains creep"
    with pytest.warns(ConvergenceWarning, match=message):
        calibrate(Warning_(), BINARY, 2)


def test_settings_outside_their_range_are_refused():
    for number in ({"num_draws": 0}, {"num_workers": 0}):
        with pytest.raises(ConfigurationError, match="must be at least 1; got 0"):
            calibrate(nb.Laplace(), BINARY, 3, **number)
    with pytest.raises(ConfigurationError, match="holds 50 draws, 99 were asked for"):
        calibrate(nb.RandomInit(num_inits=50), BINARY, 2)
    with pytest.raises(DataError, match="trained on 2 features, got 1"):
        simulation_based_calibration(
            nb.Laplace(), PRIOR, BINARY, key=KEY, num_simulations=2, at=NEW[:, :1]
        )
    with pytest.raises(ConfigurationError, match=r"must lie in \(0, 1\)"):
        Ranks(np.zeros((5, 1), int), 9, ("f",)).uniform(1.0)
