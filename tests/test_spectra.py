"""Anatomy: variances along the eigenvectors of P, where they are known in closed form."""

import dataclasses

import jax
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.errors import ConfigurationError, RidgeError, UnknownNameError
from ntkbayes.likelihood import Normal
from ntkbayes.spectra import Anatomy

KEY = jax.random.key(6)
FEATURES, LABELS = oracle.blobs(5, 12, 3)
DATA = nb.Dataset(FEATURES, LABELS, class_names=range(3))
REAL = nb.Dataset.real(FEATURES, np.sin(FEATURES[:, :1]))
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0]])
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1, weight_std=1.5, bias_std=0.5), ridge=0.5)
SIZES = (1, 1, 2, 4, 4)


def grouped(values):
    return [part.mean() for part in np.split(values, np.cumsum(SIZES)[:-1])]


def test_a_normal_posterior_has_variance_lambda_s2_over_lambda_plus_s2():
    noise = 0.7
    law = nb.Laplace().fit(PRIOR, REAL, likelihood=Normal(noise))
    found = nb.anatomy({"posterior": law}, key=KEY)
    values = np.linalg.eigvalsh(np.asarray(law.problem.prior_gram.dense()))[::-1]
    assert found.sizes == SIZES
    np.testing.assert_allclose(found.eigenvalues, grouped(values), rtol=1e-10)
    expected = values * noise**2 / (values + noise**2)
    np.testing.assert_allclose(found.variances["posterior"], grouped(expected), rtol=1e-7)
    assert found.errors["posterior"] == (0.0,) * 5


def test_the_prior_has_the_eigenvalues_of_the_logits_that_softmax_sees():
    prior = nb.PriorPredictive().fit(PRIOR, DATA)
    found = nb.anatomy({"prior": prior}, key=KEY, num_draws=2000)
    error = np.asarray(found.errors["prior"])
    assert (error > 0).all()
    away = np.abs(np.asarray(found.variances["prior"]) - found.eigenvalues)
    np.testing.assert_array_less(away, 4 * error)


def test_draws_and_formula_of_one_law_agree():
    law = nb.Laplace().fit(PRIOR, DATA)
    drawn = nb.PerturbedInit(num_inits=500, spread=1e-3).fit(PRIOR, DATA, key=KEY)
    found = nb.anatomy({"drawn": drawn, "Laplace": law}, key=KEY)
    ratio, error = found.ratio("drawn")
    np.testing.assert_array_less(np.abs(1e6 * ratio - 1), 4e6 * error)
    assert found.reference == "Laplace"


def test_the_parts_at_the_training_points_add_up_to_the_variance():
    """φ_j(X) = v_j there, so that the mean of squares over X is 1/n each."""
    law = nb.Laplace().fit(PRIOR, REAL, likelihood=Normal(0.7))
    found = nb.anatomy({"posterior": law}, REAL, key=KEY)
    np.testing.assert_allclose(found.shares, np.asarray(SIZES) / 12, rtol=1e-6)
    total = found.table()["posterior_at_inputs"].sum()
    assert total == pytest.approx(float(np.mean(law.variance(REAL))), rel=1e-6)


def test_the_sentence_names_where_the_ensemble_is_too_narrow():
    values = {"narrow": (1.0, 0.5, 0.1, 0.05, 0.02), "posterior": (1.0,) * 5}
    errors = {"narrow": (0.05, 0.02, 0.01, 0.005, 0.001), "posterior": (0.0,) * 5}
    found = Anatomy((9.0, 4.0, 1.0, 0.7, 0.5), SIZES, values, errors, "posterior")
    told = found.sentence("narrow")
    assert (
        "narrowest along eigenvectors 9 to 12 of 12 (prior variance 0.5), with 0.02 ± 0.001" in told
    )
    assert "widest along eigenvector 1 of 12 (prior variance 9), with 1 ± 0.05" in told
    alike = dataclasses.replace(found, errors={**errors, "narrow": (2.0,) * 5})
    assert "within Monte Carlo error" in alike.sentence("narrow")
    again = Anatomy.from_plain(found.plain)
    assert again.sentence("narrow") == told
    figure = figures.anatomy(found)
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), values["narrow"])
    with pytest.raises(UnknownNameError):
        found.ratio("other")


def test_bad_anatomies_are_refused():
    law = nb.Laplace().fit(PRIOR, DATA)
    for laws, error, message in (
        ({}, ConfigurationError, "at least one law"),
        (
            {"a": nb.Laplace().fit(PRIOR.with_ridge(1.0), DATA), "b": law},
            ConfigurationError,
            "alike",
        ),
        (
            {"a": nb.Laplace().fit(PRIOR, DATA.take(np.arange(9))), "b": law},
            ConfigurationError,
            "alike",
        ),
    ):
        with pytest.raises(error, match=message):
            nb.anatomy(laws, key=KEY)
    with pytest.raises(UnknownNameError):
        nb.anatomy({"a": law}, key=KEY, reference="b")
    soft = nb.RandomInit(num_inits=5).fit(PRIOR.with_ridge(0.0), DATA.smooth(0.1), key=KEY)
    with pytest.raises(RidgeError, match="the anatomy"):
        nb.anatomy({"a": soft}, key=KEY)
