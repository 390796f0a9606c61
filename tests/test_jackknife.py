"""The jackknife over blocks of draws, against leaving the draws out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntkbayes.scores.jackknife import NUM_BLOCKS, means, ranges, variances


def without_each_block(statistic, draws):
    """A statistic of all draws, and of what is left without each block of them."""
    parts = np.array_split(np.arange(len(draws)), min(NUM_BLOCKS, len(draws)))
    left_out = [statistic(np.delete(draws, part, axis=0)) for part in parts if len(parts) > 1]
    return statistic(draws), np.array(left_out)


@given(st.integers(3, 90), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e3, -1e6]))
def test_statistics_without_a_block_are_those_of_the_other_draws(size, seed, mean):
    draws = mean + np.random.default_rng(seed).standard_normal((size, 2, 3))
    for found, statistic in (
        (means(draws), lambda kept: kept.mean(axis=0)),
        (variances(draws), lambda kept: kept.var(axis=0)),
        (variances(draws, ddof=1), lambda kept: kept.var(axis=0, ddof=1)),
        (ranges(draws), lambda kept: np.ptp(kept, axis=0) / max(1.0, np.max(np.abs(kept)))),
    ):
        whole, left_out = without_each_block(statistic, draws)
        tolerance = 1e-11 + 1e-15 * abs(mean) * size
        np.testing.assert_allclose(found.whole, whole, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(found.left_out, left_out, rtol=tolerance, atol=tolerance)
        variance = (len(left_out) - 1) * np.var(left_out, axis=0)
        np.testing.assert_allclose(found.variance, variance, rtol=1e-6, atol=1e-9)


def test_the_variance_of_a_mean_of_independent_draws_is_their_variance_over_their_number():
    draws = np.random.default_rng(0).standard_normal((4000, 300))
    found = means(draws).variance.mean()  # of 300 columns, each with 19 degrees of freedom
    assert found == pytest.approx(1 / 4000, rel=4 * np.sqrt(2 / (19 * 300)))


def test_a_block_that_varies_alone_is_no_part_of_the_variance_without_it():
    draws = np.zeros((40, 1))
    draws[:2, 0] = 1e6, -1e6
    found = variances(draws)
    np.testing.assert_allclose(found.whole, draws.var(axis=0))
    np.testing.assert_array_equal(found.left_out[0], [0.0])
    np.testing.assert_allclose(np.array(found.left_out[1:]), 2e12 / 38)


def test_a_single_draw_has_no_error():
    assert means(np.ones((1, 2))).variance.tolist() == [0.0, 0.0]
    assert variances(np.ones((1, 2))).whole.tolist() == [0.0, 0.0]
