"""What the classifier and the regressor share."""

import pickle
from typing import Any, Self

import cloudpickle
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key
from numpy.random import RandomState
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ntkbayes.datasets import Scaling
from ntkbayes.datasets.validation import plain_array, require_squares
from ntkbayes.display import in_words
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws import MAP, Method
from ntkbayes.networks import MLP, mlp
from ntkbayes.networks.activations import Activation


class NTKEstimator(BaseEstimator):
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
        features = validate_data(self, unmasked(X), reset=False, dtype=np.float64)
        require_squares("X", features, self._names)
        return scaled(features, self.scaler_)

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


def unmasked(values: Any) -> Any:
    """Masked entries as missing values, which scikit-learn refuses; it ignores masks."""
    return plain_array("X", values) if isinstance(values, np.ma.MaskedArray) else values


def scaled(features: np.ndarray, scaler: StandardScaler | None) -> np.ndarray:
    return features if scaler is None else scaler.transform(features)


def keys(seed: int) -> Key[Array, "2"]:
    """One key for the fit, one for predictions."""
    return jax.random.split(jax.random.key(seed))


def seed_of(random_state: int | RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def refuse(name_of_class: str, unsupported: dict[str, Any]) -> None:
    """Raises ConfigurationError if anything was given but None: sample weights, most often."""
    for name in (name for name, value in unsupported.items() if value is not None):
        raise ConfigurationError(
            f"{name_of_class}.fit takes X and y, not {name}: training weights all points equally. For "
            "integer weights, repeat the points"
        )
