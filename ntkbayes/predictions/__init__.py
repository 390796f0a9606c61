"""Predictions: laws pushed through the likelihood, on plain NumPy arrays."""

from ntkbayes.predictions.class_predictions import ClassPredictions, predictions_from_probabilities
from ntkbayes.predictions.moments import mean_field, probit, quadrature
from ntkbayes.predictions.number_predictions import (
    NumberPredictions,
    predictions_from_distributions,
)
from ntkbayes.predictions.plane import Surface, surface
from ntkbayes.predictions.predict import (
    log_predictive_density,
    marginal_distributions,
    marginal_probabilities,
    predict,
    predict_probabilities,
    replicates,
)
from ntkbayes.predictions.predictions import Predictions, digest_of_points

__all__ = [
    "ClassPredictions",
    "NumberPredictions",
    "Predictions",
    "Surface",
    "digest_of_points",
    "log_predictive_density",
    "marginal_distributions",
    "marginal_probabilities",
    "mean_field",
    "predict",
    "predict_probabilities",
    "predictions_from_distributions",
    "predictions_from_probabilities",
    "probit",
    "quadrature",
    "replicates",
    "surface",
]
