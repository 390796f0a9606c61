"""Predictions: a law pushed through the likelihood at given inputs, on plain numpy arrays.

Class probabilities are Monte Carlo means over draws. For a Gaussian law three standard shortcuts
work from moments instead; `quadrature` is exact to round-off, `probit` is within 0.02, and
`mean_field` of three classes or more off by a few hundredths on average, up to 0.2 where logits vary
much. Likelihoods without classes have `log_predictive_density` and `replicates`.
"""

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.base import Draws, Inputs, Law
from ntkbayes.laws.gaussian.marginals import expectations
from ntkbayes.laws.gaussian.posterior import GaussianPosterior
from ntkbayes.laws.wrappers.held_out import (
    expected_log,
    left_out_score,
    log_densities,
    log_mean,
    log_score,
)
from ntkbayes.likelihood import Bernoulli, Categorical, ClassLikelihood
from ntkbayes.linalg import require_float64
from ntkbayes.scores import calibration

Probabilities = Float[np.ndarray, "n classes"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a law, or a baseline, says at given inputs: all that scores, figures and files need.

    What is computed from logits raises PrecisionError where JAX is not in float64.

    Attributes:
        name: of the law, as shown in tables.
        targets: (n, K), on the simplex.
        class_names: K names.
        logits: draws of the logit functions, jointly at all inputs, (S, n, C) with C = 1 for two
            classes with one logit. None for a baseline that has probabilities alone.
        mean, variance: exact (or, for sampled laws, draw-averaged) moments of each logit, (n, C).
        point_probabilities: (n, K), of a baseline without logits.
        label_draws: one label for each draw and point, (S, n): the posterior predictive.
        sampling: how the draws came about, see `Law.sampling`.
        num_chains: Markov chains among the draws.
        held_out: whether the points were not trained on.
        is_posterior: whether the logits are draws of the posterior given just these points and targets,
            up to Monte Carlo error: only then can a point be left out by weighing them (`az.loo`).
        leave_one_out: of a Gaussian posterior of just these points and targets, the log predictive
            density of each given all others (see `ntkbayes.leave_one_out`), in nats, (n,).
        seconds: time of the fit.
        info: diagnostics of the fit, name → number.
        likelihood: the one that the logits belong to. If it is not given, that of their width: one
            logit for two classes (Bernoulli), else softmax. None for a baseline.
        points: a digest of the features, by which `compare` knows other points; None if not known.
    """

    name: str
    targets: Probabilities
    class_names: tuple[Hashable, ...]
    logits: Float[np.ndarray, "draws n outputs"] | None
    mean: Float[np.ndarray, "n outputs"] | None
    variance: Float[np.ndarray, "n outputs"] | None
    point_probabilities: Probabilities | None
    label_draws: Int[np.ndarray, "draws n"]
    sampling: str
    num_chains: int = 1
    held_out: bool = True
    is_posterior: bool = False
    leave_one_out: Float[np.ndarray, " n"] | None = None
    seconds: float = 0.0
    info: Mapping[str, float] = field(default_factory=dict)
    likelihood: ClassLikelihood | None = None
    points: str | None = None

    def __post_init__(self) -> None:
        if self.likelihood is None and self.logits is not None:
            by_width = Bernoulli() if self.logits.shape[2] == 1 else Categorical()
            object.__setattr__(self, "likelihood", by_width)

    @cached_property
    def probability_draws(self) -> Float[np.ndarray, "draws n classes"]:
        """Class probabilities of each draw."""
        if self.logits is None:
            assert self.point_probabilities is not None
            return self.point_probabilities[None]
        assert self.likelihood is not None
        require_float64()
        return np.asarray(_probabilities(self.likelihood, jnp.asarray(self.logits)))

    @cached_property
    def probabilities(self) -> Probabilities:
        """Predictive class probabilities: the mean over draws."""
        mean = self.probability_draws.mean(axis=0)
        return mean / mean.sum(axis=1, keepdims=True)

    @cached_property
    def log_likelihood(self) -> Float[np.ndarray, "draws n"]:
        """log p(y_i | f_i) of each draw, in nats; of soft targets Σ_c y_c log p_c, by which they enter
        the posterior."""
        if self.logits is None:
            return np.asarray(expected_log(self.targets, self.log_probability_draws[0]))[None]
        assert self.likelihood is not None
        require_float64()
        targets = self.likelihood.encode_classes(jnp.asarray(self.targets))
        return np.asarray(log_densities(self.likelihood, targets, jnp.asarray(self.logits)))

    @cached_property
    def log_probability_draws(self) -> Float[np.ndarray, "draws n classes"]:
        """Their logarithms, accurate where a probability is too small for a float."""
        if self.logits is None:
            with np.errstate(divide="ignore"):
                return np.log(self.probability_draws)
        assert self.likelihood is not None
        require_float64()
        return np.asarray(_log_probabilities(self.likelihood, jnp.asarray(self.logits)))

    @cached_property
    def pointwise_elpd(self) -> Float[np.ndarray, " n"]:
        """log of the predictive density of each point, in nats: Σ_c y_c log p̄_c with p̄ the mean
        prediction. Minus its NLL, but accurate where a probability is too small for a float."""
        return np.asarray(expected_log(self.targets, log_mean(self.log_probability_draws)))

    @cached_property
    def uncertainty(self) -> calibration.Uncertainty:
        """Total, aleatoric and epistemic uncertainty of each point, in nats."""
        return calibration.uncertainty(self.probability_draws)

    @property
    def centred_logits(self) -> Float[np.ndarray, "draws n outputs"]:
        """Logits less their mean over classes: what softmax can see of them (C = 1: as they are)."""
        assert self.logits is not None
        assert self.likelihood is not None
        require_float64()
        return np.asarray(self.likelihood.project(jnp.asarray(self.logits)))


def predict(
    law: Law,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    name: str,
    num_draws: int | None = None,
    held_out: bool = True,
    seconds: float = 0.0,
) -> Predictions:
    """A law's predictions on data.

    Args:
        law: any law with a likelihood of classes.
        data: where to predict, with the targets to be scored against.
        key: same key, same draws.
        name: what tables call the law.
        num_draws: draws of the logit functions; all that are stored, or 1000, if None.
        held_out: whether the law was fitted without these points. If it was fitted to just these, with
            these targets, predictions know what leaving one of them out would do, where the law does.
        seconds: how long the fit took, for the record.

    Raises:
        ConfigurationError: the likelihood has no classes, the data have other classes, or in
            another order, than those trained on, or more draws are asked for than are held.
        DataError: the data have other columns or another scale than those trained on.
    """
    likelihood = _class_likelihood(law)
    _require_same_classes(law, data)
    likelihood.encode(data)
    draw_key, label_key = jax.random.split(key)
    logits = law.sample(draw_key, data, num_draws)
    labels = _labels(likelihood, label_key, logits)
    fitted = not held_out and _is_fitted_to(law, data)
    left_out = left_out_score(law) if fitted and isinstance(law, GaussianPosterior) else None
    return Predictions(
        name=name,
        targets=data.targets,
        class_names=data.class_names or (),
        logits=np.asarray(logits),
        mean=np.asarray(law.mean(data)),
        variance=np.asarray(law.variance(data)),
        point_probabilities=None,
        label_draws=np.asarray(labels),
        sampling=law.sampling,
        num_chains=law.num_chains,
        held_out=held_out,
        is_posterior=fitted and law.is_posterior,
        leave_one_out=None if left_out is None else np.asarray(left_out),
        seconds=seconds,
        info={k: float(v) for k, v in dataclasses.asdict(law.info).items()},
        likelihood=likelihood,
        points=digest_of(data),
    )


def digest_of(data: Dataset) -> str:
    """Tells points apart by their features."""
    return hashlib.sha256(data.features.tobytes()).hexdigest()[:16]


def predict_probabilities(
    law: Law, features: Inputs, *, key: PRNGKeyArray, num_draws: int | None = None
) -> Float[np.ndarray, "draws m classes"]:
    """Class probabilities of each draw of a law, at inputs without targets.

    Their mean over draws is the prediction, and `calibration.uncertainty` parts its entropy.

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
    likelihood = _class_likelihood(law)
    return np.asarray(_probabilities(likelihood, law.sample(key, features, num_draws)))


def marginal_probabilities(
    law: Law, features: Inputs, *, key: PRNGKeyArray, num_draws: int | None = None
) -> Float[np.ndarray, "draws m classes"]:
    """`predict_probabilities` at each input by itself, see `Law.sample_marginals`: for many inputs,
    and for predictions that do not depend on what else is predicted. Arguments and errors are the
    same."""
    likelihood = _class_likelihood(law)
    return np.asarray(_probabilities(likelihood, law.sample_marginals(key, features, num_draws)))


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
    _require_same_classes(law, data)
    likelihood = law.problem.likelihood
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
    draw_key, target_key = jax.random.split(key)
    logits = law.sample(draw_key, features, num_draws)
    targets = np.asarray(law.problem.likelihood.sample(target_key, logits))
    if not np.isfinite(targets).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(targets))[0])
        raise ConfigurationError(
            f"at the logit {float(logits[where]):.4g} targets are too large for float64; use a prior "
            "with smaller logits (a larger ridge), or inputs nearer to the data"
        )
    return targets


def _class_likelihood(law: Law) -> ClassLikelihood:
    likelihood = law.problem.likelihood
    if not isinstance(likelihood, ClassLikelihood):
        raise ConfigurationError(
            f"class probabilities need a likelihood of classes, not {type(likelihood).__name__}; "
            "log_predictive_density and replicates take any"
        )
    return likelihood


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


@eqx.filter_jit
def _labels(likelihood: ClassLikelihood, key: PRNGKeyArray, logits: Draws) -> Int[Array, "draws n"]:
    return jax.random.categorical(key, jnp.log(likelihood.probabilities(logits)), axis=-1)


_probabilities = eqx.filter_jit(lambda likelihood, logits: likelihood.probabilities(logits))
_log_probabilities = eqx.filter_jit(lambda likelihood, f: likelihood.log_probabilities(f))


def predictions_from_probabilities(
    name: str,
    probabilities: Probabilities,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    num_draws: int = 1000,
    seconds: float = 0.0,
) -> Predictions:
    """Predictions of a model that gives probabilities alone, such as logistic regression."""
    shape = (num_draws, len(probabilities))
    labels = jax.random.categorical(key, jnp.log(jnp.asarray(probabilities))[None], shape=shape)
    return Predictions(
        name=name,
        targets=data.targets,
        class_names=data.class_names or (),
        logits=None,
        mean=None,
        variance=None,
        point_probabilities=probabilities,
        label_draws=np.asarray(labels),
        sampling="point",
        seconds=seconds,
        points=digest_of(data),
    )


# --- the plane ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Surface:
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

    Raises:
        ConfigurationError: the data do not have two features, or the likelihood has no classes.
    """
    if train.num_features != 2 or not isinstance(law.problem.likelihood, ClassLikelihood):
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


# --- probabilities from moments ------------------------------------------------------------------


def quadrature(
    mean: Float[np.ndarray, " n"], variance: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """E[σ(f)] for f ~ N(mean, variance), to round-off, whatever the variance. One logit."""
    given = (
        jnp.asarray(mean, dtype=float)[:, None],
        jnp.asarray(variance, dtype=float)[:, None, None],
    )
    residual = _expectations(Bernoulli(), jnp.zeros_like(given[0]), *given).residual
    return -np.asarray(residual[:, 0])


_expectations = eqx.filter_jit(expectations)


def probit(
    mean: Float[np.ndarray, " n"], variance: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """E[σ(f)] ≈ σ(mean / √(1 + π variance / 8)) (MacKay 1992). One logit."""
    scaled = mean / np.sqrt(1 + np.pi / 8 * variance)
    return np.asarray(jax.nn.sigmoid(jnp.asarray(scaled)))


def mean_field(
    mean: Float[np.ndarray, "n classes"], covariance: Float[np.ndarray, "n classes classes"]
) -> Probabilities:
    """E[softmax(f)_c] ≈ 1 / Σ_d exp(−Δ_cd), Δ_cd = (m_c − m_d) / √(1 + π Var[f_c − f_d] / 8).

    Each pair of logits by MacKay's rule (Lu, Ie & Sha 2020, "mean-field 2"), then normalised.
    """
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    spread = variance[:, :, None] + variance[:, None, :] - 2 * covariance
    gaps = mean[:, :, None] - mean[:, None, :]
    gaps = gaps / np.sqrt(1 + np.pi / 8 * np.maximum(spread, 0.0))
    inverse = np.asarray(jax.scipy.special.logsumexp(-jnp.asarray(gaps), axis=2))
    return np.asarray(jax.nn.softmax(-jnp.asarray(inverse), axis=1))
