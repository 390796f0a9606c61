"""Any law of classes as a scikit-learn classifier."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, Shaped
from numpy.random import RandomState
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from ntkbayes.bridges.sklearn.estimator import NTKEstimator, keys, refuse, scaled, seed_of, unmasked
from ntkbayes.datasets import Dataset
from ntkbayes.errors import DataError
from ntkbayes.laws import Law, Method
from ntkbayes.networks.activations import Activation
from ntkbayes.predictions import marginal_probabilities
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.scores import calibration

_INPUTS_AT_ONCE = 500


class NTKClassifier(ClassifierMixin, NTKEstimator):
    """The law of a fully connected network of infinite width, as a scikit-learn classifier.

    Probabilities are the law's mean class probabilities at each input. They do not depend on other
    inputs, and repeated calls agree.

    Args:
        law: the method whose law to use; None is `MAP()`, the trained network itself: one solve, no
            draws. `RandomInit()`, `Laplace()`, `NUTS()` and the others also give uncertainty.
        depth, activation, weight_std, bias_std, skip: of the network, see `networks.mlp`.
        ridge: weight of ½‖θ − θ0‖² against the loss summed over points, ≥ 0.
        smoothing: share of each training target that is spread evenly over the classes, in [0, 1].
            With a ridge of 0 it must be positive.
        standardise: give every feature mean 0 and standard deviation 1 on the training points. Does
            not change features that a pipeline has standardised already.
        num_draws: draws of the law at prediction; None for all that it holds, or 1000.
        random_state: a number n gives `jax.random.key(n)`; a `RandomState`, or None for NumPy's
            global one, draws n.

    Attributes:
        law_: the `Law`, for inputs transformed by `scaler_`.
        classes_: labels, sorted.
        scaler_: the `StandardScaler`, or None.
        n_features_in_, feature_names_in_: of the training features; names if a data frame has them.
    """

    def __init__(
        self,
        *,
        law: Method | None = None,
        depth: int = 2,
        activation: str | Activation = "relu",
        weight_std: float = 1.5,
        bias_std: float = 0.1,
        skip: bool = False,
        ridge: float = 0.1,
        smoothing: float = 0.0,
        standardise: bool = True,
        num_draws: int | None = None,
        random_state: int | RandomState | None = None,
    ):
        self.law = law
        self.depth = depth
        self.activation = activation
        self.weight_std = weight_std
        self.bias_std = bias_std
        self.skip = skip
        self.ridge = ridge
        self.smoothing = smoothing
        self.standardise = standardise
        self.num_draws = num_draws
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, **unsupported: Any) -> "NTKClassifier":
        """Fit the law.

        Args:
            X: features (n, d), finite numbers.
            y: n labels of two classes or more.
            unsupported: refused unless None, such as sample_weight=None.

        Raises:
            ConfigurationError: sample weights or anything else besides X and y is given, or a
                parameter is outside its range.
            DataError: there is only one class, or squares of the features overflow.
            ValueError: scikit-learn's own, for invalid features or labels.
            RidgeError, ConvergenceError, NotPositiveDefiniteError: as for `Method.fit`.
        """
        refuse(type(self).__name__, unsupported)
        method = self._method
        features, labels = validate_data(self, unmasked(X), unmasked(y), dtype=np.float64)
        check_classification_targets(labels)
        classes = np.unique(labels)
        if len(classes) < 2:
            raise DataError(
                f"y has one class, {classes[0]!r}, but NTKClassifier needs two; add points of another "
                "class, or stratify the folds"
            )
        scaler, scaling = self._scaling(features)
        seed = seed_of(self.random_state)
        with jax.enable_x64(True):
            prior = NTKPrior(self._network, ridge=self.ridge)
            data = Dataset(
                scaled(features, scaler),
                labels,
                class_names=classes,
                feature_names=self._names,
                scaling=scaling,
            )
            law: Law = method.fit(prior, data.smooth(self.smoothing), key=keys(seed)[0])
        self.classes_, self.scaler_, self._seed, self.law_ = classes, scaler, seed, law
        return self

    def predict_proba(self, X: ArrayLike) -> Float[np.ndarray, "m classes"]:
        """Class probabilities, columns as in `classes_`: the mean over the law's draws.

        Raises:
            NotFittedError: `fit` has not been called.
            ValueError: X differs in features from the training data, or is not finite.
        """
        features = self._features(X)
        with jax.enable_x64(True):
            key = keys(self._seed)[1]
            probabilities = self.law_.predict_proba(features, key=key, num_draws=self.num_draws)
            return np.asarray(probabilities)

    def predict(self, X: ArrayLike) -> Shaped[np.ndarray, " m"]:
        """The most probable class of each input. Raises as `predict_proba` does."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def uncertainty(self, X: ArrayLike) -> calibration.Uncertainty:
        """Total, aleatoric and epistemic uncertainty of each input, in nats; the epistemic one of MAP is
        0. Raises as `predict_proba` does."""
        parts = [calibration.uncertainty(draws) for draws in self._draws(X)]
        names = ("total", "aleatoric", "epistemic")
        return calibration.Uncertainty(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in names)
        )

    def _draws(self, X: ArrayLike) -> Iterator[Float[np.ndarray, "draws m classes"]]:
        """The law's class probabilities, some inputs at a time."""
        features = self._features(X)
        for start in range(0, len(features), _INPUTS_AT_ONCE):
            part = features[start : start + _INPUTS_AT_ONCE]
            with jax.enable_x64(True):
                key = keys(self._seed)[1]
                draws = marginal_probabilities(self.law_, part, key=key, num_draws=self.num_draws)
            yield draws
