"""Out-of-distribution detection against counts over pairs and thresholds."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.scores import calibration
from ntkbayes.scores.detection import Separation, detect, separation, table


def draws(seed, n, concentration=1.0, num_draws=5, classes=3):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, concentration), (num_draws, n))


def naive_auroc(inside, outside):
    pairs = [(o > i) + (o == i) / 2 for i in inside for o in outside]
    return sum(pairs) / len(pairs)


def naive_fpr95(inside, outside):
    """Accept scores up to the smallest threshold that accepts 95% of the inside points."""
    enough = (t for t in sorted(inside) if 100 * sum(i <= t for i in inside) >= 95 * len(inside))
    threshold = next(enough)
    return sum(o <= threshold for o in outside) / len(outside)


SCORES = st.lists(st.integers(0, 8), min_size=1, max_size=40)


@given(SCORES, SCORES)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_separation_equals_counts_over_pairs_and_thresholds(inside, outside):
    found = separation(inside, outside)
    assert found.auroc == pytest.approx(naive_auroc(inside, outside), abs=1e-14)
    assert found.fpr95 == pytest.approx(naive_fpr95(inside, outside), abs=1e-14)


def test_separation_of_twenty_points_by_hand():
    inside = np.arange(20.0)  # 95% of them are at most 18
    found = separation(inside, [18.5, 17, 100, 100])
    assert found.auroc == pytest.approx((19 + 17.5 + 20 + 20) / 80)
    assert found.fpr95 == 0.25
    assert separation(inside, inside + 20) == Separation(auroc=1.0, fpr95=0.0)
    assert separation(inside, inside - 20) == Separation(auroc=0.0, fpr95=1.0)


def test_scores_of_a_law_are_its_uncertainties():
    inside, outside = draws(0, 30, 0.5), draws(1, 20, 2.0)
    found = detect(inside, outside)
    u, v = calibration.uncertainty(inside), calibration.uncertainty(outside)
    assert found.entropy == separation(u.total, v.total)
    assert found.mutual_information == separation(u.epistemic, v.epistemic)
    assert found.max_probability == separation(-inside.mean(0).max(1), -outside.mean(0).max(1))
    # The three scores are not one another's order.
    assert len({found.entropy, found.mutual_information, found.max_probability}) == 3


def test_a_law_that_is_sure_inside_and_torn_outside_is_perfect():
    inside = np.broadcast_to([0.9, 0.1], (4, 10, 2))
    outside = np.where(np.arange(4)[:, None, None] % 2 == 0, [0.95, 0.05], [0.05, 0.95])
    found = detect(inside, np.broadcast_to(outside, (4, 10, 2)))
    assert set(vars(found).values()) == {Separation(auroc=1.0, fpr95=0.0)}


def test_a_point_law_detects_nothing_by_mutual_information():
    found = detect(draws(0, 30, num_draws=1), draws(1, 20, 9.0, num_draws=1))
    assert found.mutual_information == Separation(auroc=0.5, fpr95=1.0)
    assert found.entropy.auroc > 0.7


def test_the_table_has_a_row_a_law_and_two_columns_a_score():
    laws = {"a": (draws(0, 9), draws(1, 8)), "b": (draws(2, 9), draws(3, 8))}
    found = table(laws)
    assert found.index.name == "law"
    assert list(found.index) == ["a", "b"]
    for name, pair in laws.items():
        for score, truth in vars(detect(*pair)).items():
            assert found.loc[name, f"{score}_auroc"] == truth.auroc
            assert found.loc[name, f"{score}_fpr95"] == truth.fpr95
    assert found.shape == (2, 6)


def test_bad_scores_are_refused():
    with pytest.raises(DataError, match=r"inside scores have shape \(0,\)"):
        separation([], [1.0])
    with pytest.raises(DataError, match=r"outside scores have shape \(1, 1\)"):
        separation([1.0], [[1.0]])
    with pytest.raises(DataError, match="outside score 1 is nan"):
        separation([1.0], [0.0, np.nan])
    with pytest.raises(DataError, match="inside draws have 3 classes, outside draws 2"):
        detect(draws(0, 4), draws(0, 4, classes=2))
    with pytest.raises(DataError, match="sums to"):
        detect(draws(0, 4), 2 * draws(0, 4))
    with pytest.raises(ConfigurationError, match="at least one law"):
        table({})


def test_detection_loads_nothing_heavy():
    heavy = ["sklearn", "matplotlib"]
    code = (
        "import sys, ntkbayes.scores.detection; "
        f"sys.exit(str([m for m in {heavy} if m in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == "[]"
