"""What is written here against kept libraries that do the same: relplot, dcor, MAPIE and simuk."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

import ntkbayes as nb
from ntkbayes.checks.models import _ranks
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


def test_ranks_of_calibration_are_those_that_simuk_counts():
    import simuk

    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.5)
    data = nb.Dataset(RNG.normal(size=(3, 2)), [0, 1, 1], class_names=range(2))
    latent = nb.numpyro_prior(prior, data)

    def model(labels=None):
        logits = latent()[:, 0]
        numpyro.sample("labels", dist.Bernoulli(logits=logits).to_event(1), obs=labels)

    drawn = []

    def simulated(logits, seed, **_):
        chances = expit(np.asarray(logits)[:, 0])
        drawn.append((np.random.default_rng(seed).random(3) < chances).astype(float))
        return {"labels": drawn[-1]}

    theirs = simuk.SBC(
        NUTS(model),
        num_simulations=3,
        sample_kwargs={"num_warmup": 200, "num_samples": 500},
        seed=0,
        data_dir={"labels": data.targets[:, 1]},
        simulator=simulated,
        progress_bar=False,
    )
    with jax.numpy_rank_promotion("allow"):
        theirs.run_simulations()
    counted = theirs.simulations["prior_sbc"]["logits"].to_numpy()[0, :, :, 0]

    method = nb.NUTS(num_samples=500, num_warmup=200, num_chains=2)
    problem = method.problem(prior, data, None)
    for i, (labels, posterior) in enumerate(zip(drawn, theirs.posteriors, strict=True)):
        targets = jnp.asarray(labels[:, None])
        truth = jnp.asarray(theirs.ref_params["logits"][i])[None]

        def ranks(draws, targets=targets, truth=truth):
            found = _ranks(problem.likelihood, targets, truth, jnp.asarray(draws), slice(0, 3))
            return np.asarray(found)[:3]

        # Of the same draws the same ranks, and of our own those but for Monte Carlo error.
        np.testing.assert_array_equal(ranks(posterior["logits"].to_numpy()[0]), counted[i])
        law = method.solve(dataclasses.replace(problem, targets=targets), jax.random.key(i))
        own = ranks(law.sample(jax.random.key(9), data.features)) / 1000
        share = (own + counted[i] / 500) / 2
        error = np.sqrt(share * (1 - share) * (1 / 300 + 1 / 200)) + 0.01
        assert (np.abs(own - counted[i] / 500) < 4 * error).all()
