"""Laws pushed through the likelihood at given inputs.

Class probabilities are Monte Carlo means over draws. Real targets and counts have a predictive
distribution each, in closed form where there is one.
"""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import few
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.laws.gaussian.marginals import log_marginal_density
from ntkbayes.laws.gaussian.posterior import SitePosterior
from ntkbayes.laws.kind import GIVEN, Sampling
from ntkbayes.laws.law import Inputs, Law, evenly_spaced, require_law
from ntkbayes.laws.trace import Trace
from ntkbayes.laws.wrappers.held_out import left_out_score, log_densities, log_score
from ntkbayes.likelihood import (
    Categorical,
    ClassLikelihood,
    Likelihood,
    Normal,
    Poisson,
    default_likelihood,
)
from ntkbayes.likelihood.log_concave import OwnClasses
from ntkbayes.linalg import Draws, split_key
from ntkbayes.predictions.class_predictions import (
    ClassPredictions,
    label_draws,
)
from ntkbayes.predictions.number_predictions import NumberPredictions, distributions_of
from ntkbayes.predictions.pointwise import class_probabilities
from ntkbayes.predictions.predictions import Predictions, digest_of_points
from ntkbayes.scores.distributions import Distributions


def predict(
    law: Law,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    name: str | None = None,
    num_draws: int | None = None,
    held_out: bool = True,
    seconds: float = 0.0,
    compile_seconds: float = 0.0,
) -> Predictions:
    """A law's predictions on data.

    Args:
        law: any law.
        data: where to predict, with the targets to be scored against.
        key: same key, same draws.
        name: what tables call the law; that of its kind if None.
        num_draws: draws of the logit functions; all that are stored, or 1000, if None.
        held_out: whether the law was fitted without these points. If it was fitted to just these, with
            these targets, predictions know what leaving one of them out would do, where the law does.
        seconds: how long the fit took, for the record.
        compile_seconds: how long of that JAX was compiling.

    Returns:
        `ClassPredictions` of classes, `NumberPredictions` of real targets and counts. Of classes under a
        `LogConcave` likelihood, logits are the log probabilities, which softmax takes back.

    Raises:
        ConfigurationError: the data have other classes, or in another order, than those trained on, or
            more draws are asked for than are held; or targets cannot be drawn, see `replicates`.
        DataError: the data have other columns or another scale than those trained on, or targets that
            the likelihood does not take.
        ArgumentError: law, data or key is something else, such as an array in place of the data.
    """
    _require("predict(law, data, key=key)", law, data)
    key = random_key(key)
    _require_same_classes(law, data)
    law.problem.likelihood.encode(data)
    draw_key, target_key = split_key(key)
    logits = law.sample(draw_key, data, _num_draws(law, num_draws))
    fitted = not held_out and _is_fitted_to(law, data)
    is_posterior = fitted and law.kind.is_posterior and law.problem.temperature == 1
    left_out = left_out_score(law) if fitted and isinstance(law, SitePosterior) else None
    mean, covariance = map(np.asarray, law.moments(data))
    shared: dict[str, Any] = {
        "name": law.kind.name if name is None else name,
        "logits": np.asarray(logits),
        "mean": mean,
        "variance": np.diagonal(covariance, axis1=1, axis2=2),
        "kind": law.kind,
        "num_chains": law.num_chains,
        "held_out": held_out,
        "is_posterior": is_posterior,
        "leave_one_out": None if left_out is None else np.asarray(left_out),
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "info": {k: float(v) for k, v in dataclasses.asdict(law.info).items()},
        "points": digest_of_points(data),
        "trace": _trace_of(law, len(logits), is_posterior),
        "features": data.features,
        "feature_names": data.feature_names,
        "row_names": data.row_names,
    }
    of = _of_numbers if law.problem.class_names is None else _of_classes
    return of(law, data, target_key, logits, shared)


def predictions_from_logits(
    logits: Any,
    targets: Any,
    *,
    key: PRNGKeyArray,
    name: str,
    likelihood: Likelihood | None = None,
) -> Predictions:
    """See `Predictions.of`."""
    key = random_key(key)
    data = targets if isinstance(targets, Dataset) else _unknown_points(targets, likelihood)
    likelihood = default_likelihood(data) if likelihood is None else likelihood.untempered
    encoded = likelihood.encode(data)
    draws = jax.device_put(_finite_members(logits, encoded.shape, type(likelihood).__name__))
    known: dict[str, Any] = {}
    if data is targets:
        known = {
            "points": digest_of_points(data),
            "features": data.features,
            "feature_names": data.feature_names,
            "row_names": data.row_names,
        }
    shared: dict[str, Any] = {
        "name": name,
        "logits": np.asarray(draws),
        "mean": np.asarray(draws.mean(axis=0)),
        "variance": np.asarray(draws.var(axis=0)),
        "kind": GIVEN,
        **known,
    }
    if isinstance(likelihood, ClassLikelihood):
        return _classes(likelihood, likelihood, data, key, draws, shared)
    density = log_score(likelihood, encoded, draws)
    return _numbers(likelihood, encoded, key, draws, np.asarray(density), shared)


def _unknown_points(targets: Any, likelihood: Likelihood | None) -> Dataset:
    """Targets at unknown points: of classes, unless the likelihood is of numbers."""
    of_classes = likelihood is None or isinstance(likelihood, ClassLikelihood)
    features = np.arange(len(targets), dtype=float)[:, None]
    return Dataset(features, targets) if of_classes else Dataset.real(features, targets)


def _finite_members(
    logits: Any, shape: tuple[int, ...], likelihood: str
) -> Float[np.ndarray, "draws n outputs"]:
    """The members without NaN or infinity, (S, n, C)."""
    given = np.asarray(logits, dtype=float)
    members = given[None] if given.ndim == 2 else given
    if members.ndim != 3 or members.shape[1:] != shape or not len(members):
        raise ConfigurationError(
            f"logits must be of {shape[0]} points and {shape[1]} outputs, which {likelihood} takes of "
            f"these targets: (members, {shape[0]}, {shape[1]}), or without members; got {given.shape}"
        )
    is_finite = np.isfinite(members).all(axis=(1, 2))
    if not is_finite.any():
        raise DataError("the logits of every member contain NaN or infinity")
    if not is_finite.all():
        warnings.warn(
            f"members {few(np.flatnonzero(~is_finite))} have logits that are NaN or infinite, and are "
            f"left out: {is_finite.sum()} of {len(members)} are kept",
            UserWarning,
            stacklevel=4,
        )
    return members[is_finite]


def _num_draws(law: Law, asked: int | None) -> int | None:
    """Of a likelihood of one's own, draws of the targets are all there is: also of a point many."""
    likelihood = law.problem.likelihood.untempered
    is_own = law.problem.class_names is None and _with_formula(likelihood) is None
    is_point = law.kind.sampling is Sampling.POINT
    return law.default_draws if asked is None and is_own and is_point else asked


def _with_formula(likelihood: Likelihood) -> Normal | Poisson | None:
    """The likelihood if predictive distributions of numbers are known for it by a formula."""
    return likelihood if isinstance(likelihood, Normal | Poisson) else None


def _of_classes(
    law: Law, data: Dataset, key: PRNGKeyArray, logits: Draws, shared: dict[str, Any]
) -> ClassPredictions:
    own = law.problem.class_likelihood
    return _classes(own, law.problem.likelihood, data, key, logits, shared)


def _classes(
    likelihood: ClassLikelihood,
    fitted: Likelihood,
    data: Dataset,
    key: PRNGKeyArray,
    logits: Draws,
    shared: dict[str, Any],
) -> ClassPredictions:
    """Args:
    fitted: the likelihood with its temperature.
    """
    labels = label_draws(key, class_probabilities(likelihood, logits), len(logits))
    if isinstance(likelihood, OwnClasses):
        # Softmax takes log probabilities back, so that files need not hold the density, which is code.
        own = np.asarray(log_densities(likelihood, fitted.encode(data), logits))
        logits = likelihood.log_probabilities(logits)
        likelihood, drawn = Categorical(), np.asarray(logits)
        shared |= {"logits": drawn, "mean": drawn.mean(axis=0), "variance": drawn.var(axis=0)}
        # Of soft targets a density of one's own need not be Σ_c y_c log p_c, which is weighed there.
        same = log_densities(likelihood, likelihood.encode(data), logits)
        is_posterior = shared.get("is_posterior", False)
        shared["is_posterior"] = is_posterior and bool(np.allclose(own, same, atol=1e-6))
    return ClassPredictions(
        targets=data.targets,
        class_names=data.class_names or (),
        point_probabilities=None,
        label_draws=labels,
        likelihood=likelihood,
        **shared,
    )


def _of_numbers(
    law: Law, data: Dataset, key: PRNGKeyArray, logits: Draws, shared: dict[str, Any]
) -> NumberPredictions:
    likelihood = law.problem.likelihood.untempered
    targets = likelihood.encode(data)
    return _numbers(
        likelihood, targets, key, logits, np.asarray(_log_densities(law, data, logits)), shared
    )


def _numbers(
    likelihood: Likelihood,
    targets: Array,
    key: PRNGKeyArray,
    logits: Draws,
    density: Float[np.ndarray, " n"],
    shared: dict[str, Any],
) -> NumberPredictions:
    """Args:
    density: log predictive density of each point.
    """
    log_likelihood = None
    if shared.get("is_posterior"):
        log_likelihood = np.asarray(log_densities(likelihood, targets, logits))
    return NumberPredictions(
        targets=np.asarray(targets),
        target_draws=_drawn_targets(likelihood, key, logits),
        log_densities=density,
        log_likelihood=log_likelihood,
        likelihood=_with_formula(likelihood),
        **shared,
    )


def _log_densities(law: Law, data: Dataset, logits: Draws) -> Float[Array, " n"]:
    """Log predictive density of each point: by quadrature where its logits are Gaussian."""
    likelihood = law.problem.likelihood.untempered
    targets = likelihood.encode(data)
    if law.kind.sampling is not Sampling.GAUSSIAN:
        return log_score(likelihood, targets, logits)
    mean, covariance = law.moments(data)
    # A point that training reproduces has a variance of round-off, with which there is no quadrature.
    is_certain = jnp.max(jnp.abs(covariance), axis=(1, 2)) < 1e-14
    safe = jnp.where(is_certain[:, None, None], jnp.eye(mean.shape[1])[None], covariance)
    marginal = log_marginal_density(likelihood, targets, mean, safe)
    return jnp.where(is_certain, likelihood.log_density(targets, mean), marginal)


def predict_probabilities(
    law: Law, features: Inputs, *, key: PRNGKeyArray, num_draws: int | None = None
) -> Float[np.ndarray, "draws m classes"]:
    """Class probabilities of each draw of a law, at inputs without targets.

    Their mean over draws is the prediction, and `calibration.uncertainty` decomposes its entropy.

    Args:
        law: any law with a likelihood of classes.
        features: inputs, (m, d): a data set, a data frame with the columns of the training data in any
            order, or an array on the scale of the training features.
        key: same key, same draws.
        num_draws: draws of the logit functions; all that are stored, or 1000, if None.

    Raises:
        ConfigurationError: the likelihood has no classes, or more draws are asked for than are held.
        DataError: the features have other columns or another scale than those trained on, or are not
            finite.
    """
    require_law("predict_probabilities(law, features, key=key)", "law", law)
    likelihood = law.problem.class_likelihood
    return class_probabilities(likelihood, law.sample(key, features, num_draws))


def marginal_probabilities(
    law: Law, features: Inputs, *, key: PRNGKeyArray, num_draws: int | None = None
) -> Float[np.ndarray, "draws m classes"]:
    """`predict_probabilities` at each input by itself, see `Law.sample_marginals`: for many inputs,
    and for predictions that do not depend on what else is predicted. Arguments and errors are the
    same."""
    require_law("marginal_probabilities(law, features, key=key)", "law", law)
    likelihood = law.problem.class_likelihood
    return class_probabilities(likelihood, law.sample_marginals(key, features, num_draws))


def marginal_distributions(
    law: Law, features: Inputs, *, key: PRNGKeyArray, num_draws: int | None = None
) -> Distributions:
    """The predictive distribution of the target of each input by itself, for real targets and counts,
    as `NumberPredictions.distributions` has it. It depends on no other input.

    Args:
        law, features, key, num_draws: as for `marginal_probabilities`, with a law of numbers.

    Raises:
        ConfigurationError: the law is of classes, its likelihood cannot draw, or more draws are asked
            for than are held.
        DataError: as for `predict_probabilities`.
    """
    require_law("marginal_distributions(law, features, key=key)", "law", law)
    likelihood = law.problem.likelihood.untempered
    if law.problem.class_names is not None:
        raise ConfigurationError(
            "the law is of classes, whose distributions are probabilities: use predict_probabilities"
        )
    known = _with_formula(likelihood)
    is_exact = law.kind.sampling in (Sampling.POINT, Sampling.GAUSSIAN)
    if isinstance(known, Normal) and is_exact:
        mean, variance = np.asarray(law.mean(features)), np.asarray(law.variance(features))
        return distributions_of(known, law.kind, None, mean, variance, None)
    draw_key, target_key = split_key(random_key(key))
    logits = law.sample_marginals(draw_key, features, _num_draws(law, num_draws))
    drawn = None if known is not None else _drawn_marginals(likelihood, target_key, logits)
    return distributions_of(known, law.kind, np.asarray(logits), None, None, drawn)


def log_predictive_density(
    law: Law, data: Dataset, *, key: PRNGKeyArray, num_draws: int | None = None
) -> Float[np.ndarray, " n"]:
    """log mean over draws of p(y_i | f_i), in nats: the log predictive density of each point, under
    any likelihood. For soft class targets Σ_c y_c log p̄_c with p̄ the mean prediction: minus the NLL.

    Args:
        law: any law.
        data: the points, with targets that the law's likelihood takes.
        key: same key, same draws.
        num_draws: draws of the logit functions; all that are stored, or 1000, if None.

    Raises:
        ConfigurationError: the data have other classes, or in another order, than those trained on,
            or more draws are asked for than are held.
        DataError: the likelihood does not take these targets, or the data have other columns or
            another scale than those trained on.
    """
    _require("log_predictive_density(law, data, key=key)", law, data)
    _require_same_classes(law, data)
    likelihood = law.problem.likelihood.untempered
    targets = likelihood.encode(data)
    logits = law.sample(key, data, num_draws)
    return np.asarray(log_score(likelihood, targets, logits))


def replicates(
    law: Law, features: Inputs, *, key: PRNGKeyArray, num_draws: int | None = None
) -> Float[np.ndarray, "draws m outputs"]:
    """Targets drawn from the posterior predictive, one set for each draw of the law, under any
    likelihood: what the data could have been, for predictive checks (Gelman, Meng & Stern 1996).

    Targets are as the likelihood encodes them: real numbers, counts, one-hot rows, the second class
    as 1, the index of an ordered class.

    Args:
        law, features, key, num_draws: as for `predict_probabilities`, with any likelihood.

    Raises:
        ConfigurationError: the likelihood cannot draw, or only numbers beyond float64, or more draws
            are asked for than are held.
        DataError: the features have other columns or another scale than those trained on, or are not
            finite.
    """
    require_law("replicates(law, features, key=key)", "law", law)
    draw_key, target_key = split_key(random_key(key))
    logits = law.sample(draw_key, features, num_draws)
    return _drawn_targets(law.problem.likelihood.untempered, target_key, logits)


def _drawn_targets(
    likelihood: Likelihood, key: PRNGKeyArray, logits: Draws
) -> Float[np.ndarray, "draws m outputs"]:
    """A target for each draw and point. Raises ConfigurationError as `replicates` does."""
    return _require_representable(np.asarray(likelihood.sample(key, logits)), logits)


def _drawn_marginals(
    likelihood: Likelihood, key: PRNGKeyArray, logits: Draws
) -> Float[np.ndarray, "draws m outputs"]:
    """The same with the same random numbers at each point, so that none depends on the others."""
    at_point = jax.vmap(lambda f: likelihood.sample(key, f[:, None])[:, 0], in_axes=1, out_axes=1)
    return _require_representable(np.asarray(at_point(logits)), logits)


def _require_representable(
    targets: Float[np.ndarray, "draws m outputs"], logits: Draws
) -> Float[np.ndarray, "draws m outputs"]:
    if not np.isfinite(targets).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(targets))[0])
        raise ConfigurationError(
            f"at the logit {float(logits[where]):.4g} targets are too large for float64; use a prior "
            "with smaller logits (a larger ridge), or inputs nearer to the data"
        )
    return targets


def _require(call: str, law: Law, data: Dataset) -> None:
    require_law(call, "law", law)
    remedy = "for inputs without targets use law.predict_proba(features, key=key)"
    require_dataset(call, "data", data, remedy=remedy)


def _trace_of(law: Law, num_draws: int, is_posterior: bool) -> Trace:
    """Of the draws that `Law.sample` gives; log priors only where they can be weighed against log
    likelihoods."""
    trace = law.trace
    if len(trace):
        trace = trace.chosen(evenly_spaced(num_draws, len(trace)))
    return trace if is_posterior else dataclasses.replace(trace, log_prior={})


def _is_fitted_to(law: Law, data: Dataset) -> bool:
    """Whether these points and targets are all that the law was fitted to, in its order."""
    problem = law.problem
    targets = problem.likelihood.encode(data)
    features = problem.read(data)
    return np.array_equal(features, problem.features) and np.array_equal(targets, problem.targets)


def _require_same_classes(law: Law, data: Dataset) -> None:
    if data.class_names is not None and data.class_names != law.problem.class_names:
        raise ConfigurationError(
            f"the law was trained on the classes {law.problem.class_names}, the data have "
            f"{data.class_names}; make both data sets with the same class_names"
        )
