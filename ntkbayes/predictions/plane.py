"""A law's predictions over the plane, where data have two features."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws import Law
from ntkbayes.laws.law import require_law
from ntkbayes.predictions.predict import predict_probabilities
from ntkbayes.scores import calibration


@dataclass(frozen=True, eq=False, repr=False)
class Surface(Configured):
    """A law's predictions over a rectangle of two features, in the units of the features.

    Attributes:
        x, y: positions of the columns (w,) and rows (h,).
        probabilities: predictive class probabilities, (h, w, K).
        epistemic: mutual information between label and function, in nats, (h, w).
        features, labels: the training points, (n, 2) and (n,).
    """

    x: Float[np.ndarray, " w"]
    y: Float[np.ndarray, " h"]
    probabilities: Float[np.ndarray, "h w classes"]
    epistemic: Float[np.ndarray, "h w"]
    features: Float[np.ndarray, "n 2"]
    labels: Int[np.ndarray, " n"]


def surface(
    law: Law, train: Dataset, *, key: PRNGKeyArray, resolution: int = 60, num_draws: int = 500
) -> Surface:
    """A law over the plane, half a range beyond the training points on each side.

    Args:
        law: of classes.
        train: what it was fitted to.
        key: of its draws.
        resolution: points along each axis.
        num_draws: of the law, at each point.

    Raises:
        ConfigurationError: the data do not have two features, or the likelihood has no classes.
    """
    require_law("surface(law, train, key=key)", "law", law)
    require_dataset("surface(law, train, key=key)", "train", train)
    if train.num_features != 2 or law.problem.class_names is None:
        raise ConfigurationError(
            f"a surface needs two features and classes; the data have {train.num_features} features"
        )
    features = np.asarray(law.problem.read(train))
    low, high = features.min(axis=0), features.max(axis=0)
    margin = 0.5 * (high - low)
    x, y = (np.linspace(low[i] - margin[i], high[i] + margin[i], resolution) for i in (0, 1))
    rows = []
    for row in y:
        # The same key for each row: the same functions, so that the picture has no streaks.
        points = np.column_stack([x, np.full_like(x, row)])
        again = jax.random.clone(key)
        draws = predict_probabilities(law, points, key=again, num_draws=num_draws)
        mean = draws.mean(axis=0)
        epistemic = calibration.uncertainty(draws).epistemic
        rows.append((mean / mean.sum(axis=1, keepdims=True), epistemic))
    probabilities, epistemic = (np.stack(parts) for parts in zip(*rows, strict=True))
    return Surface(x, y, probabilities, epistemic, features, train.labels)
