"""scikit-learn: any law of an NTK prior as a classifier or a regressor, for pipelines, grid searches and
calibration.

    model = make_pipeline(StandardScaler(), NTKClassifier(law=nb.Laplace(), ridge=1.0))
    model.fit(X, y).predict_proba(X_new)

    model = NTKRegressor(law=nb.Laplace()).fit(X, y)
    mean, std = model.predict(X_new, return_std=True)

Its methods compute in float64 under any JAX setting, only in their own thread, and leave the setting
unchanged. `law_`, the law itself, needs `jax.enable_x64` like everything else in ntkbayes.
"""

import pickle
from collections.abc import Iterator
from typing import Any, Self

import cloudpickle
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, Shaped
from numpy.random import RandomState
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ntkbayes.datasets import Dataset, Scaling
from ntkbayes.datasets.validation import plain_array, require_squares
from ntkbayes.display import in_words
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.laws import MAP, Laplace, Law, Method
from ntkbayes.likelihood import Normal
from ntkbayes.networks import MLP, mlp
from ntkbayes.networks.activations import Activation
from ntkbayes.predictions import marginal_distributions, marginal_probabilities
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.scores import calibration, numbers
from ntkbayes.scores.distributions import Distributions
from ntkbayes.selection import GivenRidge, NormalByEvidence, RidgeByEvidence

_INPUTS_AT_ONCE = 500


class _NTKEstimator(BaseEstimator):
    """What both estimators are: a law of a fully connected network of infinite width."""

    law: Method | None
    depth: int
    activation: str | Activation
    weight_std: float
    bias_std: float
    skip: bool
    standardise: bool
    num_draws: int | None
    random_state: int | RandomState | None

    def set_params(self, **params: Any) -> Self:
        """As scikit-learn's, with `law__num_inits=200` and the like for settings of the method.

        Raises:
            ConfigurationError: a setting of the method is asked for, but `law` is None, or a class.
            UnknownNameError: the method has no such setting.
            ValueError: scikit-learn's own, for other unknown parameters.
        """
        law = params.get("law", self.law)
        inner = [name for name in params if name.startswith("law__")]
        if inner and not isinstance(law, Method):
            raise ConfigurationError(
                f"{inner[0]} is a setting of a method, but law is {in_words(law)}: give law=, such as "
                f"{type(self).__name__}(law=nb.RandomInit())"
            )
        return super().set_params(**params)

    @property
    def _method(self) -> Method:
        method = MAP() if self.law is None else self.law
        if not isinstance(method, Method):
            raise ConfigurationError(
                "law must be a method, such as ntkbayes.Laplace(), or None for MAP(); got "
                f"{in_words(method)}"
            )
        return method

    @property
    def _network(self) -> MLP:
        return mlp(
            depth=self.depth,
            activation=self.activation,
            weight_std=self.weight_std,
            bias_std=self.bias_std,
            skip=self.skip,
        )

    def _scaling(self, features: np.ndarray) -> tuple[StandardScaler | None, Scaling | None]:
        """The scaler of the training features, if they are to be standardised, and as a `Scaling`."""
        require_squares("X", features, self._names)
        if not self.standardise:
            return None, None
        scaler = StandardScaler().fit(features)
        return scaler, Scaling(scaler.mean_, scaler.scale_, self._names)

    @property
    def _names(self) -> tuple[str, ...] | None:
        """Feature names, if a data frame had them."""
        return tuple(getattr(self, "feature_names_in_", ())) or None

    def _features(self, X: ArrayLike) -> Float[np.ndarray, "m d"]:
        """New inputs, on the scale of the law's."""
        check_is_fitted(self, "law_")
        features = validate_data(self, _unmasked(X), reset=False, dtype=np.float64)
        require_squares("X", features, self._names)
        return _scaled(features, self.scaler_)

    # A law may hold functions, which pickle alone cannot take.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "law_" in state:
            state["law_"] = cloudpickle.dumps(state["law_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "law_" in state:
            state = {**state, "law_": pickle.loads(state["law_"])}
        super().__setstate__(state)


class NTKClassifier(ClassifierMixin, _NTKEstimator):
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
        _refuse(type(self).__name__, unsupported)
        method = self._method
        features, labels = validate_data(self, _unmasked(X), _unmasked(y), dtype=np.float64)
        check_classification_targets(labels)
        classes = np.unique(labels)
        if len(classes) < 2:
            raise DataError(
                f"y has one class, {classes[0]!r}, but NTKClassifier needs two; add points of another "
                "class, or stratify the folds"
            )
        scaler, scaling = self._scaling(features)
        seed = _seed(self.random_state)
        with jax.enable_x64(True):
            prior = NTKPrior(self._network, ridge=self.ridge)
            data = Dataset(
                _scaled(features, scaler),
                labels,
                class_names=classes,
                feature_names=self._names,
                scaling=scaling,
            )
            law: Law = method.fit(prior, data.smooth(self.smoothing), key=_keys(seed)[0])
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
            key = _keys(self._seed)[1]
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
                key = _keys(self._seed)[1]
                draws = marginal_probabilities(self.law_, part, key=key, num_draws=self.num_draws)
            yield draws


class NTKRegressor(RegressorMixin, _NTKEstimator):
    """The law of a fully connected network of infinite width, as a scikit-learn regressor.

    Targets are the network's function plus Gaussian noise. Predictions do not depend on other inputs,
    and repeated calls agree. The prior's mean is that of the training targets.

    Args:
        law: the method whose law to use; None is `Laplace()`, which is exact for Gaussian noise: GP
            regression with the NTK. `MAP()` is the trained network itself, `RandomInit()` its spread
            over initialisations.
        depth, activation, weight_std, bias_std, skip: of the network, see `networks.mlp`.
        ridge: weight of ½‖θ − θ0‖² against the loss summed over points, > 0; None for the one that,
            with the noise, maximises the evidence of the training points.
        noise_std: standard deviation of the noise, in the unit of the target; None for the one that
            maximises the evidence.
        standardise: as for `NTKClassifier`. Targets need not be standardised.
        num_draws: draws of the law at prediction, for the laws that are known by draws; None for all
            that it holds.
        random_state: as for `NTKClassifier`.

    Attributes:
        law_: the `Law`, for inputs transformed by `scaler_`.
        ridge_, noise_std_: as given, or chosen.
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
        ridge: float | None = None,
        noise_std: float | None = None,
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
        self.noise_std = noise_std
        self.standardise = standardise
        self.num_draws = num_draws
        self.random_state = random_state

    @property
    def _method(self) -> Method:
        return Laplace() if self.law is None else super()._method

    def fit(self, X: ArrayLike, y: ArrayLike, **unsupported: Any) -> "NTKRegressor":
        """Fit the law.

        Args:
            X: features (n, d), finite numbers.
            y: n numbers.
            unsupported: refused unless None, such as sample_weight=None.

        Raises:
            ConfigurationError: sample weights or anything else besides X and y is given, or a
                parameter is outside its range.
            DataError: all targets are the same number, while noise or ridge is to be chosen; or squares
                of the features overflow.
            ValueError: scikit-learn's own, for invalid features or targets.
            SearchError: no ridge could be chosen.
            RidgeError, ConvergenceError, NotPositiveDefiniteError: as for `Method.fit`.
        """
        _refuse(type(self).__name__, unsupported)
        method = self._method
        features, targets = validate_data(
            self, _unmasked(X), _unmasked(y), dtype=np.float64, y_numeric=True, ensure_min_samples=2
        )
        scaler, scaling = self._scaling(features)
        seed = _seed(self.random_state)
        with jax.enable_x64(True):
            data = Dataset.real(
                _scaled(features, scaler), targets, feature_names=self._names, scaling=scaling
            )
            fit_key = _keys(seed)[0]
            prior, likelihood = self._model(data)
            law: Law = method.fit(prior, data, key=fit_key, likelihood=likelihood)
        self.scaler_, self._seed, self.law_ = scaler, seed, law
        self.ridge_, self.noise_std_ = float(prior.ridge), float(likelihood.noise_std)
        return self

    def _model(self, data: Dataset) -> tuple[NTKPrior, Normal]:
        """Prior and likelihood, with what is to be chosen by the evidence."""
        prior = NTKPrior(self._network, ridge=1.0 if self.ridge is None else self.ridge)
        if self.noise_std is not None:
            likelihood = Normal(self.noise_std)
            mean = float(np.mean(data.targets))
            prior = NTKPrior(prior.kernel, ridge=prior.ridge, mean=mean)
            if self.ridge is None:
                key = jax.random.key(0)  # of no effect: nothing is drawn
                choice = RidgeByEvidence().choose(prior, data, key=key, likelihood=likelihood)
                prior = prior.with_ridge(choice.ridge)
            return prior, likelihood
        rule = NormalByEvidence()
        if self.ridge is None:
            chosen = rule.with_ridge(prior, data)
        else:
            chosen = rule.choose(prior, data, ridge=GivenRidge())
        assert isinstance(chosen.likelihood, Normal)
        return chosen.prior, chosen.likelihood

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> Float[np.ndarray, " m"] | tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Predictive mean of each input; with `return_std`, as scikit-learn's Gaussian process has it,
        also the standard deviation of its target: of function and noise together.

        Raises:
            NotFittedError: `fit` has not been called.
            ValueError: X differs in features from the training data, or is not finite.
        """
        told = self._distributions(X)
        mean = told.mean[:, 0]
        return (mean, np.sqrt(told.variance[:, 0])) if return_std else mean

    def predict_interval(
        self, X: ArrayLike, level: float = 0.9
    ) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """The ends of the central predictive interval of the target of each input.

        Raises:
            ConfigurationError: the level is not in (0, 1).
            NotFittedError, ValueError: as `predict` does.
        """
        low, high = numbers.interval(self._distributions(X), level)
        return low[:, 0], high[:, 0]

    def _distributions(self, X: ArrayLike) -> Distributions:
        """The predictive distribution at each input."""
        features = self._features(X)
        with jax.enable_x64(True):
            return marginal_distributions(
                self.law_, features, key=_keys(self._seed)[1], num_draws=self.num_draws
            )


def _unmasked(values: Any) -> Any:
    """Masked entries as missing values, which scikit-learn refuses; it ignores masks."""
    return plain_array("X", values) if isinstance(values, np.ma.MaskedArray) else values


def _scaled(features: np.ndarray, scaler: StandardScaler | None) -> np.ndarray:
    return features if scaler is None else scaler.transform(features)


def _keys(seed: int) -> Key[Array, "2"]:
    """One key for the fit, one for predictions."""
    return jax.random.split(jax.random.key(seed))


def _seed(random_state: int | RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _refuse(name_of_class: str, unsupported: dict[str, Any]) -> None:
    """Raises ConfigurationError if anything was given but None: sample weights, most often."""
    for name in (name for name, value in unsupported.items() if value is not None):
        raise ConfigurationError(
            f"{name_of_class}.fit takes X and y, not {name}: training weights all points equally. For "
            "integer weights, repeat the points"
        )
