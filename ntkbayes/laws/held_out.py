"""What a method says of points that it was not given."""

from collections.abc import Iterator

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.laws.base import Draws, Law, Method
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Logits
from ntkbayes.prior import NTKPrior
from ntkbayes.ranges import whole


def held_out_logits(
    method: Method,
    prior: NTKPrior,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    num_folds: int,
    likelihood: Likelihood,
) -> Iterator[tuple[Logits, Draws]]:
    """Encoded targets and drawn logits of each fold, under the law fitted to all others.

    Raises:
        ConfigurationError: there are fewer than 2 folds, or more than points.
        DataError: a class has one point, so that the law of the other folds would lack it.
    """
    fold_key, fit_key, draw_key = jax.random.split(key, 3)
    fold = folds(data, fold_key, num_folds)
    for k in range(num_folds):
        rest, held = data.take(fold != k), data.take(fold == k)
        law: Law = method.fit(
            prior, rest, key=jax.random.fold_in(fit_key, k), likelihood=likelihood
        )
        draws = law.sample(jax.random.fold_in(draw_key, k), held)
        yield likelihood.encode(held), draws


def folds(data: Dataset, key: PRNGKeyArray, num_folds: int) -> Int[np.ndarray, " n"]:
    """A fold for each point, at random, each class spread evenly over them. Raises as above."""
    num_folds = whole("num_folds", num_folds, at_least=2)
    if num_folds > data.num_points:
        raise ConfigurationError(
            f"{data.num_points} points can be divided into 2 to {data.num_points} folds; got {num_folds}"
        )
    order = np.asarray(jax.random.permutation(key, data.num_points))
    if data.class_names is not None:
        counts = np.bincount(data.labels, minlength=data.num_classes)
        if 1 in counts:
            lonely = data.class_names[int(np.flatnonzero(counts == 1)[0])]
            raise DataError(
                f"the class {lonely!r} has one point, which is in one fold, so that the others would be "
                "trained without the class; add points of it, or data.hold_out_classes([...])"
            )
        order = order[np.argsort(data.labels[order], kind="stable")]
    fold = np.empty(data.num_points, dtype=int)
    fold[order] = np.arange(data.num_points) % num_folds
    return fold


def log_mean_density(likelihood: Likelihood, targets: Logits, draws: Draws) -> Array:
    """log mean over draws of p(yᵢ | fᵢ), (n,)."""
    return log_mean(log_densities(likelihood, targets, draws))


@eqx.filter_jit
def log_densities(likelihood: Likelihood, targets: Logits, draws: Draws) -> Float[Array, "draws n"]:
    """log p(yᵢ | fᵢ) of each draw."""
    return jax.vmap(lambda f: likelihood.log_density(targets, f))(draws)


@jax.jit
def log_mean(log_values: Float[Array, "draws n"] | Float[np.ndarray, "draws n"]) -> Array:
    """log mean over draws of exp, (n,)."""
    return jax.nn.logsumexp(log_values, axis=0) - np.log(len(log_values))
