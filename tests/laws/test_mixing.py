"""Diagnostics of Markov chains are ArviZ's, of the worst quantity, and none where there is none."""

import warnings

import numpy as np
import pytest
from arviz_stats.base import array_stats

from ntkbayes.errors import ConvergenceWarning
from ntkbayes.laws.chains.mixing import judged

AXES = {"chain_axis": 0, "draw_axis": 1}


def diagnosed(draws, num_divergences=0):
    return judged([draws], num_divergences=num_divergences, remedy="Do this", stacklevel=1)


def chains(*shape, memory=0.0, seed=0):
    """Autoregressive draws (chains, samples, quantities) of unit variance."""
    draws = np.random.default_rng(seed).standard_normal(shape)
    for t in range(1, shape[1]):
        draws[:, t] = memory * draws[:, t - 1] + np.sqrt(1 - np.square(memory)) * draws[:, t]
    return draws


@pytest.mark.filterwarnings("ignore::ntkbayes.errors.ConvergenceWarning")
@pytest.mark.parametrize("samples", [10, 101, 500])
@pytest.mark.parametrize("highest", [0.0, 0.5, 0.97])
def test_diagnostics_are_arvizs_of_the_worst_of_many_quantities(samples, highest):
    memory = np.random.default_rng(1).uniform(0, highest, 60)
    draws = chains(4, samples, 60, memory=memory)
    draws[:, :, 7] = np.round(draws[:, :, 7])  # ties
    found = diagnosed(draws)
    bulk = array_stats.ess(draws, method="bulk", **AXES)
    tail = array_stats.ess(draws, method="tail", prob=(0.05, 0.95), **AXES)
    assert found == {
        "max_rhat": array_stats.rhat(draws, **AXES).max(),
        "min_bulk_ess": bulk.min(),
        "min_tail_ess": tail.min(),
    }


def test_a_chain_three_times_as_wide_is_seen():
    draws = chains(4, 1000, 3)
    draws[0, :, 1] *= 3
    with pytest.warns(
        ConvergenceWarning, match=r"have not converged: R-hat is up to 1\.1\d\d\. Do this"
    ):
        found = diagnosed(draws)
    assert 1.1 < found["max_rhat"] < 1.2
    assert found["min_tail_ess"] < 400 < found["min_bulk_ess"]


def test_good_chains_do_not_warn_and_divergences_do():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagnosed(chains(4, 500, 5))
    assert found["max_rhat"] < 1.02
    with pytest.warns(ConvergenceWarning, match="not converged: 3 transitions diverged"):
        diagnosed(chains(4, 500, 5), num_divergences=3)


@pytest.mark.parametrize(
    ("draws", "why"),
    [
        (chains(1, 100, 2), "there is one chain"),
        (chains(4, 9, 2), "a chain has 9 draws"),
        (np.repeat(chains(4, 1, 2), 50, axis=1), "a quantity that no chain has moved"),
        (np.ones((4, 50, 2)), "a quantity that no chain has moved"),
        (np.where(np.arange(50)[:, None] == 3, np.nan, chains(4, 50, 2)), "not finite"),
        (np.where(np.arange(50)[:, None] == 3, np.inf, chains(4, 50, 2)), "not finite"),
    ],
    ids=["one chain", "short chains", "still chains", "one place", "nan", "infinite"],
)
def test_what_is_not_known_is_no_number_and_the_warning_says_why(draws, why):
    with pytest.warns(ConvergenceWarning, match=f"is not known, since .*{why}.* Do this"):
        found = diagnosed(draws)
    assert np.isnan(list(found.values())).all()


def test_what_the_prior_determines_is_not_diagnosed():
    draws = chains(4, 100, 3)
    fixed = np.concatenate([draws, np.full((4, 100, 2), 0.3)], axis=2)
    assert diagnosed(fixed) == diagnosed(draws)
