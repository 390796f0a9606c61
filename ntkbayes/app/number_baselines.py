"""The baselines of tables of numbers: the base rate, and models of scikit-learn."""

import time
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.laws.kind import BASE_RATE_OF_NUMBERS, BASELINE_OF_NUMBERS
from ntkbayes.predictions import NumberPredictions, predictions_from_distributions
from ntkbayes.scores.distributions import Normals, PoissonMixture


def gaussian_base_rate(train: Dataset, test: Dataset, *, key: PRNGKeyArray) -> NumberPredictions:
    """The Gaussian with the mean and the variance of the training targets, at every test point."""
    mean, variance = (
        np.broadcast_to(moment, test.targets.shape)
        for moment in (train.targets.mean(axis=0), train.targets.var(axis=0, ddof=1))
    )
    told = Normals(mean, np.zeros(mean.shape), variance)
    return predictions_from_distributions(
        "base rate", told, test, key=key, kind=BASE_RATE_OF_NUMBERS
    )


def linear_regression(train: Dataset, test: Dataset, *, key: PRNGKeyArray) -> NumberPredictions:
    """scikit-learn's BayesianRidge: linear, with strength and noise by its evidence, and the uncertainty
    of both weights and targets."""
    from sklearn.linear_model import BayesianRidge

    models = [BayesianRidge() for _ in train.targets.T]
    return _fitted("linear regression", models, train, test, key)


def gaussian_process_regressor(
    train: Dataset, test: Dataset, *, key: PRNGKeyArray
) -> NumberPredictions:
    """scikit-learn's GaussianProcessRegressor: an RBF kernel with a scale, and noise.

    Hyper-parameters by its own evidence maximisation on normalised targets; it starts at a length scale
    of √d, the typical distance of standardised points.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    length = float(np.sqrt(train.num_features))
    kernel = ConstantKernel(1.0) * RBF(length) + WhiteKernel(0.5)
    models = [
        GaussianProcessRegressor(kernel, normalize_y=True, random_state=0) for _ in train.targets.T
    ]
    return _fitted("sklearn GPR", models, train, test, key)


def poisson_base_rate(train: Dataset, test: Dataset, *, key: PRNGKeyArray) -> NumberPredictions:
    """The Poisson distribution with the mean of the training counts, at every test point."""
    rates = np.broadcast_to(train.targets.mean(axis=0), (1, *test.targets.shape))
    return predictions_from_distributions(
        "base rate", PoissonMixture(rates), test, key=key, kind=BASE_RATE_OF_NUMBERS
    )


def poisson_regression(train: Dataset, test: Dataset, *, key: PRNGKeyArray) -> NumberPredictions:
    """L2-regularised Poisson regression with scikit-learn's default strength, alpha = 1."""
    from sklearn.linear_model import PoissonRegressor

    begin = time.perf_counter()
    model = PoissonRegressor(max_iter=5000).fit(train.features, train.targets[:, 0])
    rates = np.maximum(model.predict(train.check_features(test)), np.finfo(float).tiny)
    return predictions_from_distributions(
        "Poisson regression",
        PoissonMixture(rates[None, :, None]),
        test,
        key=key,
        kind=BASELINE_OF_NUMBERS,
        seconds=time.perf_counter() - begin,
    )


def _fitted(
    name: str, models: list[Any], train: Dataset, test: Dataset, key: PRNGKeyArray
) -> NumberPredictions:
    """Gaussian predictions of one model per output, by `predict(X, return_std=True)`."""
    from sklearn.exceptions import ConvergenceWarning

    begin = time.perf_counter()
    features, columns = train.check_features(test), []
    with warnings.catch_warnings():
        # Hyper-parameters at a bound of their range are scikit-learn's business, and harmless here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for model, targets in zip(models, train.targets.T, strict=True):
            model.fit(train.features, targets)
            columns.append(model.predict(features, return_std=True))
    means, deviations = (np.column_stack(part) for part in zip(*columns, strict=True))
    told = Normals(means, np.zeros(means.shape), _positive(deviations) ** 2)
    return predictions_from_distributions(
        name,
        told,
        test,
        key=key,
        kind=BASELINE_OF_NUMBERS,
        seconds=time.perf_counter() - begin,
    )


def _positive(deviations: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """A model that is certain to round-off is taken to be certain to the square root of that."""
    return np.maximum(deviations, 1e-8 * float(np.abs(deviations).max() or 1.0))
