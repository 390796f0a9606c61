"""Any law of real targets as a scikit-learn regressor."""

from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Float
from numpy.random import RandomState
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from ntkbayes.bridges.sklearn.estimator import NTKEstimator, keys, refuse, scaled, seed_of, unmasked
from ntkbayes.datasets import Dataset
from ntkbayes.laws import Laplace, Law, Method
from ntkbayes.likelihood import Normal
from ntkbayes.networks.activations import Activation
from ntkbayes.predictions import marginal_distributions
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.scores import numbers
from ntkbayes.scores.distributions import Distributions
from ntkbayes.selection import GivenRidge, NormalByEvidence, RidgeByEvidence


class NTKRegressor(RegressorMixin, NTKEstimator):
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
        refuse(type(self).__name__, unsupported)
        method = self._method
        features, targets = validate_data(
            self, unmasked(X), unmasked(y), dtype=np.float64, y_numeric=True, ensure_min_samples=2
        )
        scaler, scaling = self._scaling(features)
        seed = seed_of(self.random_state)
        with jax.enable_x64(True):
            data = Dataset.real(
                scaled(features, scaler), targets, feature_names=self._names, scaling=scaling
            )
            fit_key = keys(seed)[0]
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
                self.law_, features, key=keys(self._seed)[1], num_draws=self.num_draws
            )
