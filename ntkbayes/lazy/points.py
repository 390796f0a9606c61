"""The points of the laboratory.

Shapes: n training points, m test points, p probes, C logits.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError, RidgeError
from ntkbayes.likelihood import Likelihood


class Points(eqx.Module):
    """Training and test points in the precision of the training, and the probes among them.

    Attributes:
        train: features of the training points.
        targets: as the likelihood encodes them, (n, C).
        test: features of the test points.
        probes: points at which the drift is measured, training points first.
        mean: added to the logits of every network, (C,).
        num_train_probes: how many of them are training points.
    """

    train: Float[Array, "n ..."]
    targets: Float[Array, "n classes"]
    test: Float[Array, "m ..."]
    probes: Float[Array, "p ..."]
    mean: Float[Array, " classes"]
    num_train_probes: int = eqx.field(static=True)

    @classmethod
    def build(
        cls,
        train: Dataset,
        test: Dataset,
        likelihood: Likelihood,
        *,
        num_probes: int,
        key: PRNGKeyArray,
        mean: object = 0.0,
    ) -> "Points":
        """In float32, with at most `num_probes` random points of either set as probes.

        Raises:
            ConfigurationError: there are no probes, or the mean is no finite number per logit.
            DataError: the targets are not what the likelihood takes.
        """
        num_probes = ranges.whole("num_probes", num_probes)

        def single(values: np.ndarray | Array) -> Array:
            return jnp.asarray(values, dtype=jnp.float32)

        def some(features: np.ndarray, key: PRNGKeyArray) -> np.ndarray:
            order = np.asarray(jax.random.permutation(key, len(features)))
            return features[order[:num_probes]]

        train_key, test_key = jax.random.split(key)
        train_probes = some(train.features, train_key)
        targets = single(likelihood.encode(train))
        return cls(
            train=single(train.features),
            targets=targets,
            test=single(test.features),
            probes=single(np.concatenate([train_probes, some(test.features, test_key)])),
            mean=_mean(mean, targets.shape[1]),
            num_train_probes=len(train_probes),
        )

    def have_end(self, likelihood: Likelihood, ridge: float) -> bool:
        """Whether training ends: with a ridge, or where finite logits fit the targets (THEORY 1, claim
        3).

        Raises:
            ConfigurationError: nobody knows (`LogConcave` without a ridge).
        """
        if ridge > 0:
            return True
        try:
            likelihood.interpolant(self.targets.astype(jnp.float64))
        except RidgeError:
            return False
        return True


def _mean(given: object, num_outputs: int) -> Float[Array, " classes"]:
    values = np.asarray(given, dtype=float)
    if values.shape not in ((), (num_outputs,)) or not np.isfinite(values).all():
        raise ConfigurationError(
            f"the mean must be a finite number, or one for each of {num_outputs} logits; got {given!r}"
        )
    return jnp.broadcast_to(jnp.asarray(values, dtype=jnp.float32), (num_outputs,))
