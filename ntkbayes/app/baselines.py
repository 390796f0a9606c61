"""The baselines of every table: the base rate, and two models of scikit-learn."""

import time
import warnings
from collections.abc import Callable, Collection, Mapping

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ntkbayes.app.number_baselines import (
    gaussian_base_rate,
    gaussian_process_regressor,
    linear_regression,
    poisson_base_rate,
    poisson_regression,
)
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_same_classes
from ntkbayes.laws.kind import BASE_RATE
from ntkbayes.likelihood import Likelihood, Poisson
from ntkbayes.predictions import Predictions, predictions_from_probabilities
from ntkbayes.selection import LikelihoodRule, PoissonAtMean
from ntkbayes.work import Work


def base_rate(train: Dataset, test: Dataset, *, key: PRNGKeyArray) -> Predictions:
    """The class frequencies of the training points at every test point; of soft targets, their mean."""
    require_same_classes(train, test)
    frequencies = np.broadcast_to(train.targets.mean(axis=0), test.targets.shape)
    return predictions_from_probabilities("base rate", frequencies, test, key=key, kind=BASE_RATE)


def logistic_regression(train: Dataset, test: Dataset, *, key: PRNGKeyArray) -> Predictions:
    """L2-regularised logistic regression with scikit-learn's default strength, C = 1."""
    from sklearn.linear_model import LogisticRegression

    return _baseline("logistic regression", LogisticRegression(max_iter=5000), train, test, key)


def gaussian_process_classifier(train: Dataset, test: Dataset, *, key: PRNGKeyArray) -> Predictions:
    """scikit-learn's GaussianProcessClassifier: Laplace, one class against the rest.

    RBF kernel with a scale, hyper-parameters by its own evidence maximisation; it starts at a length
    scale of √d, the typical distance of standardised points.
    """
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    kernel = ConstantKernel(1.0) * RBF(float(np.sqrt(train.num_features)))
    model = GaussianProcessClassifier(kernel, random_state=0)
    return _baseline("sklearn GPC", model, train, test, key)


BASELINES: dict[str, Callable[..., Predictions]] = {
    "base rate": base_rate,
    "logistic regression": logistic_regression,
    "sklearn GPC": gaussian_process_classifier,
}
"""Of classes."""
OF_REAL_TARGETS: dict[str, Callable[..., Predictions]] = {
    "base rate": gaussian_base_rate,
    "linear regression": linear_regression,
    "sklearn GPR": gaussian_process_regressor,
}
OF_COUNTS: dict[str, Callable[..., Predictions]] = {
    "base rate": poisson_base_rate,
    "Poisson regression": poisson_regression,
}


def baselines_for(
    data: Dataset, likelihood: Likelihood | LikelihoodRule | None
) -> Mapping[str, Callable[..., Predictions]]:
    """The baselines of data of this kind, by name."""
    if data.class_names is not None:
        return BASELINES
    is_of_counts = isinstance(likelihood, Poisson | PoissonAtMean)
    return OF_COUNTS if is_of_counts else OF_REAL_TARGETS


_CLASSIFIER_OPERATIONS = 165.0  # per n³ and class: 15 evidences, each of ten factors and a gradient
_REGRESSOR_OPERATIONS = 150.0  # per n³ and output: 60 evidences with their gradients


def work_of_baselines(train: Dataset, names: Collection[str]) -> dict[str, Work]:
    """The predicted work of the slow ones among these baselines."""
    num_points, columns = train.targets.shape
    fits = 1 if train.class_names is not None and columns == 2 else columns  # one against the rest
    kinds = {
        "sklearn GPC": (_CLASSIFIER_OPERATIONS, "classes"),
        "sklearn GPR": (_REGRESSOR_OPERATIONS, "outputs"),
    }
    return {
        name: Work(
            f"{name}, {num_points} points, {columns} {what}",
            {"evidences": operations * fits * num_points**3},
        )
        for name, (operations, what) in kinds.items()
        if name in names
    }


def _baseline(
    name: str, model: object, train: Dataset, test: Dataset, key: PRNGKeyArray
) -> Predictions:
    from sklearn.exceptions import ConvergenceWarning

    require_same_classes(train, test)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        # Hyper-parameters at a bound of their range are scikit-learn's business, and harmless here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train.features, train.labels)  # type: ignore[attr-defined]
        predicted = model.predict_proba(train.check_features(test))  # type: ignore[attr-defined]
    seconds = time.perf_counter() - begin
    probabilities = np.zeros(test.targets.shape)
    probabilities[:, model.classes_] = predicted  # type: ignore[attr-defined]
    return predictions_from_probabilities(name, probabilities, test, key=key, seconds=seconds)


def baselines(train: Dataset, test: Dataset, *, key: PRNGKeyArray) -> dict[str, Predictions]:
    """All baselines; scikit-learn's are trained on the most probable label of each training point."""
    keys = jax.random.split(key, len(BASELINES))
    return {
        name: fit(train, test, key=k)
        for (name, fit), k in zip(BASELINES.items(), keys, strict=True)
    }
