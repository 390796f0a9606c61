"""What a law says of points that it was not given, and how that is scored.

There is one score, the logarithmic one (Good 1952): log of the predictive density of what happened. Of
classes it is Σ_c y_c log p̄_c with p̄ the mean prediction: minus the cross-entropy, and for a label the
log of its probability. The NLL is minus its mean over points, the ELPD its sum. It is not the log of
the mean of exp(Σ_c y_c log p_c), by which soft targets enter the posterior.
"""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.datasets.strata import deal
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.kernels import KernelPair
from ntkbayes.laws.gaussian.marginals import log_marginal_density, log_marginal_probabilities
from ntkbayes.laws.gaussian.posterior import SitePosterior
from ntkbayes.laws.law import Draws, Law
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.likelihood import ClassLikelihood, Likelihood
from ntkbayes.linalg import Logits, split_key
from ntkbayes.ranges import whole


def held_out_logits(
    method: Method, problem: Problem, key: PRNGKeyArray, num_folds: int
) -> Iterator[tuple[Logits, Draws]]:
    """Encoded targets and drawn logits of each fold, under the law fitted to all others.

    Raises:
        ConfigurationError: there are fewer than 2 folds, or more than points.
        DataError: a class has one point, so that the law of the other folds would lack it.
    """
    fold, fit_key, draw_key = _dealt(problem, key, num_folds)
    for k in range(num_folds):
        law: Law = method.solve(problem.take(fold != k), jax.random.fold_in(fit_key, k))
        held = problem.features[fold == k]
        yield problem.targets[fold == k], law.sample(jax.random.fold_in(draw_key, k), held)


def blocks_of_folds(problem: Problem, key: PRNGKeyArray, num_folds: int) -> list[KernelPair]:
    """What `held_out_logits` evaluates of a network's kernel: while it is held, that of further ridges
    finds it. Nothing of a kernel that is compiled, which takes less time than a fit."""
    prior, x = problem.prior, problem.features
    if prior.kernel.compiled:
        return []
    fold, _, _ = _dealt(problem, key, num_folds)
    crosses = [prior.cross(x[fold == k], x[fold != k]) for k in range(num_folds)]
    return [*crosses, *(prior.gram(x[fold == k]) for k in range(num_folds))]


def _dealt(
    problem: Problem, key: PRNGKeyArray, num_folds: int
) -> tuple[Int[np.ndarray, " n"], PRNGKeyArray, PRNGKeyArray]:
    """A fold for each point, and keys for the fits and the draws."""
    fold_key, fit_key, draw_key = split_key(key, 3)
    return folds(problem, fold_key, num_folds), fit_key, draw_key


def folds(problem: Problem, key: PRNGKeyArray, num_folds: int) -> Int[np.ndarray, " n"]:
    """A fold for each point, at random, each class spread evenly over them. Raises as above."""
    num_folds, num_points = whole("num_folds", num_folds, at_least=2), len(problem.targets)
    if num_folds > num_points:
        raise ConfigurationError(
            f"{num_points} points can be divided into 2 to {num_points} folds; got {num_folds}"
        )
    labels = np.zeros(num_points, dtype=int)
    likelihood, names = problem.likelihood.untempered, problem.class_names
    if names is not None and isinstance(likelihood, ClassLikelihood):
        labels = np.asarray(jnp.argmax(likelihood.decode(problem.targets), axis=1))
        counts = np.bincount(labels, minlength=len(names))
        if 1 in counts:
            lonely = names[int(np.flatnonzero(counts == 1)[0])]
            raise DataError(
                f"the class {lonely!r} has one point, which is in one fold, so that the others would be "
                "trained without the class; add points of it, or data.hold_out_classes([...])"
            )
    return deal(key, labels, num_folds)


@eqx.filter_jit
def log_score(likelihood: Likelihood, targets: Logits, draws: Draws) -> Float[Array, " n"]:
    """Logarithmic score of the mean prediction over draws, in nats, under the untempered likelihood."""
    likelihood = likelihood.untempered
    if not isinstance(likelihood, ClassLikelihood):
        return log_mean(log_densities(likelihood, targets, draws))
    return expected_log(likelihood.decode(targets), log_mean(likelihood.log_probabilities(draws)))


def left_out_score(law: SitePosterior) -> Float[Array, " n"]:
    """Logarithmic score of each training point, its own site removed, in nats."""
    likelihood, targets = law.problem.likelihood.untempered, law.problem.targets
    mean, covariance = law.leave_one_out()
    if not isinstance(likelihood, ClassLikelihood):
        return jnp.asarray(log_marginal_density(likelihood, targets, mean, covariance))
    log_probabilities = log_marginal_probabilities(likelihood, mean, covariance)
    return expected_log(likelihood.decode(targets), log_probabilities)


@jax.jit
def expected_log(
    targets: Float[Array | np.ndarray, "n labels"],
    log_probabilities: Float[Array | np.ndarray, "n labels"],
) -> Float[Array, " n"]:
    """Σ_c y_c log p_c, with 0 log 0 = 0."""
    return jnp.sum(jnp.where(targets > 0, targets * log_probabilities, 0.0), axis=1)


@eqx.filter_jit
def log_densities(likelihood: Likelihood, targets: Logits, draws: Draws) -> Float[Array, "draws n"]:
    """log p(yᵢ | fᵢ) of each draw."""
    return jax.vmap(lambda f: likelihood.log_density(targets, f))(draws)


@jax.jit
def log_mean(log_values: Float[Array | np.ndarray, "draws ..."]) -> Float[Array, "..."]:
    """log mean over draws of exp."""
    return jax.nn.logsumexp(log_values, axis=0) - np.log(len(log_values))
