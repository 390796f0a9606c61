"""What is written here against kept libraries that do the same: relplot, dcor and MAPIE."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from ntkbayes.scores import calibration, conformal, distances

RNG = np.random.default_rng(0)
CHANCES = RNG.dirichlet([1, 1, 1], 300)
LABELS = np.array([RNG.choice(3, p=p) for p in CHANCES])


def test_smooth_ece_is_that_of_relplot():
    import relplot

    confidence = CHANCES.max(axis=1)
    hit = (CHANCES.argmax(axis=1) == LABELS).astype(float)
    found = calibration.smooth_ece(CHANCES, np.eye(3)[LABELS])
    # It looks for the width to within its eps, 1e-3, by bisection.
    assert found == pytest.approx(relplot.smECE(confidence, hit), abs=1e-3)


def test_the_energy_coefficient_is_dcors_distance_over_its_cross_term():
    import dcor
    from scipy.spatial.distance import cdist

    a, b = RNG.normal(size=(80, 5, 2)), 0.3 + RNG.normal(size=(60, 5, 2))
    flat_a, flat_b = a.reshape(80, -1), b.reshape(60, -1)
    energy = dcor.energy_distance(
        flat_a, flat_b, estimation_stat=dcor.EstimationStatistic.U_STATISTIC
    )
    found = distances.energy_coefficient(a, b).value
    assert found == pytest.approx(energy / (2 * cdist(flat_a, flat_b).mean()), rel=1e-9)


class Known(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose inputs are its probabilities."""

    def __init__(self):
        self.classes_ = np.arange(3)

    def fit(self, X, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_threshold_sets_are_mapies_of_least_ambiguity(level):
    from mapie.classification import SplitConformalClassifier

    held, new = CHANCES[:200], CHANCES[200:]
    theirs = SplitConformalClassifier(Known(), confidence_level=level, conformity_score="lac")
    theirs.conformalize(held, LABELS[:200])
    _, members = theirs.predict_set(new)
    found = conformal.threshold_sets(held, LABELS[:200], new, level=level)
    np.testing.assert_array_equal(found.members, members[:, :, 0])
