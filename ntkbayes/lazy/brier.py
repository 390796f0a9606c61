"""A loss that is not convex in the logits: for real networks in the laboratory, without a law."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from ntkbayes.errors import ConfigurationError
from ntkbayes.likelihood import Categorical, PerPoint
from ntkbayes.linalg import Curvature, Logits


class Brier(Categorical):
    """Training by the Brier score Σ_c (σ(f)_c − y_c)², which plays the part of −log p(y | f).

    Two logits far apart on the wrong side have no slope, so the loss is not convex, the trained
    linearised network need not be unique, and exp(−loss) is no likelihood: it has no law. `certify` and
    `LazyStudy` take it, and no method does.
    """

    is_log_concave: ClassVar[bool] = False

    def log_density(self, targets: Logits, logits: Logits) -> PerPoint:
        return -jnp.sum((jax.nn.softmax(logits, axis=1) - targets) ** 2, axis=1)

    def residual(self, targets: Logits, logits: Logits) -> Logits:
        p = jax.nn.softmax(logits, axis=1)
        away = 2 * (targets - p)
        return p * (away - jnp.sum(p * away, axis=1, keepdims=True))

    def curvature(self, targets: Logits, logits: Logits) -> Curvature:
        raise ConfigurationError("the Brier score has no positive curvature to speak of")

    @property
    def curvature_bound(self) -> float:
        return 0.617  # of the size of the Hessian's eigenvalues, two classes and a hard target
