"""Predictions of classes: their probabilities and draws of labels."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.special import logsumexp

from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.display import few
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.kind import BASELINE, Kind
from ntkbayes.laws.wrappers.held_out import expected_log, log_densities
from ntkbayes.likelihood import Bernoulli, Categorical, ClassLikelihood, Ordinal
from ntkbayes.linalg import require_float64
from ntkbayes.predictions.pointwise import class_probabilities, log_probabilities
from ntkbayes.predictions.predictions import Predictions, digest_of_points
from ntkbayes.scores import calibration
from ntkbayes.scores.calibration import Statistic

Probabilities = Float[np.ndarray, "n classes"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClassPredictions(Predictions):
    """What a law, or a baseline, says of classes at given inputs.

    Attributes:
        targets: (n, K), on the simplex.
        class_names: K names.
        point_probabilities: (n, K), of a baseline without logits.
        label_draws: one label for each draw and point, (S, n): the posterior predictive.
        likelihood: the one that the logits belong to. If it is not given, that of their width: one
            logit for two classes (Bernoulli), else softmax. None for a baseline.
    """

    headline: ClassVar[tuple[str, ...]] = ("accuracy", "nll", "brier", "ece")

    class_names: tuple[Hashable, ...]
    point_probabilities: Probabilities | None
    label_draws: Int[np.ndarray, "draws n"]
    likelihood: ClassLikelihood | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.likelihood is None and self.logits is not None:
            by_width = Bernoulli() if self.logits.shape[2] == 1 else Categorical()
            object.__setattr__(self, "likelihood", by_width)

    @property
    def target_facts(self) -> dict[str, str]:
        return {"classes": f"{len(self.class_names)}: {few(self.class_names)}"}

    @property
    def num_target_draws(self) -> int:
        return len(self.label_draws)

    @cached_property
    def probability_draws(self) -> Float[np.ndarray, "draws n classes"]:
        """Class probabilities of each draw."""
        if self.logits is None:
            assert self.point_probabilities is not None
            return self.point_probabilities[None]
        assert self.likelihood is not None
        require_float64()
        return class_probabilities(self.likelihood, self.logits)

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
        targets = self.likelihood.encode_classes(jax.device_put(self.targets))
        return np.asarray(log_densities(self.likelihood, targets, jax.device_put(self.logits)))

    @cached_property
    def log_probability_draws(self) -> Float[np.ndarray, "draws n classes"]:
        """Logarithms of `probability_draws`, accurate where a probability is too small for a float."""
        if self.logits is None:
            with np.errstate(divide="ignore"):
                return np.log(self.probability_draws)
        assert self.likelihood is not None
        require_float64()
        return log_probabilities(self.likelihood, self.logits)

    @cached_property
    def pointwise_elpd(self) -> Float[np.ndarray, " n"]:
        """log of the predictive density of each point, in nats: Σ_c y_c log p̄_c with p̄ the mean
        prediction. Minus its NLL, but accurate where a probability is too small for a float."""
        draws = self.log_probability_draws
        log_means = logsumexp(draws, axis=0) - np.log(len(draws))
        return np.asarray(expected_log(self.targets, log_means))

    @cached_property
    def uncertainty(self) -> calibration.Uncertainty:
        """Total, aleatoric and epistemic uncertainty of each point, in nats."""
        return calibration.uncertainty(self.probability_draws)

    @property
    def statistics(self) -> Mapping[str, Statistic]:
        known = {
            **calibration.standard_scores(),
            "rps": calibration.Mean(calibration.ranked_probability_score),
        }
        return {
            name: partial(_scored, score, self.probabilities, self.targets)
            for name, score in known.items()
        }

    @property
    def reported(self) -> tuple[str, ...]:
        """Scores that tables show: the ranked probability score only of ordered classes."""
        is_ordered = isinstance(self.likelihood, Ordinal)
        return (*calibration.standard_scores(), *("rps",) * is_ordered)

    def require_same_targets(self, test: Dataset) -> None:
        who = f"the predictions of {self.name!r}"
        classes = [str(name) for name in test.class_names or ()]
        if [str(name) for name in self.class_names] != classes:
            raise ConfigurationError(
                f"{who} are of the classes {list(self.class_names)}, the test data have "
                f"{list(test.class_names or ())}; predict with the same class_names"
            )
        if not np.array_equal(self.targets, test.targets):
            raise ConfigurationError(f"{who} are not of these test points; predict at these")


def _scored(
    score: calibration.Score,
    probabilities: Probabilities,
    targets: Probabilities,
    weights: Float[np.ndarray, "..."] | None = None,
) -> calibration.Value:
    return score(probabilities, targets, weights=weights)


def predictions_from_probabilities(
    name: str,
    probabilities: Probabilities,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    kind: Kind = BASELINE,
    num_draws: int = 1000,
    seconds: float = 0.0,
) -> ClassPredictions:
    """Predictions of a model that gives probabilities alone, such as logistic regression.

    Args:
        name: of the model, as shown in tables.
        probabilities: of the classes at each point, (n, C).
        data: the points, with their classes.
        key: of the draws of labels.
        kind: what the model is.
        num_draws: of the labels, per point.
        seconds: that the fit took.
    """
    labels = label_draws(random_key(key), probabilities[None], num_draws)
    return ClassPredictions(
        name=name,
        targets=data.targets,
        class_names=data.class_names or (),
        logits=None,
        mean=None,
        variance=None,
        point_probabilities=probabilities,
        label_draws=labels,
        kind=kind,
        seconds=seconds,
        points=digest_of_points(data),
        features=data.features,
        feature_names=data.feature_names,
        row_names=data.row_names,
    )


def label_draws(
    key: PRNGKeyArray, probabilities: Float[Array | np.ndarray, "_ n classes"], num_draws: int
) -> Int[np.ndarray, "{num_draws} n"]:
    """One label per draw and point, from the probabilities of each draw, or of all.

    By inversion, in NumPy: there is nothing here for a compiler to gain.
    """
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    cumulative = np.cumsum(np.asarray(probabilities), axis=2)
    uniform = generator.random((num_draws, cumulative.shape[1], 1))
    return np.sum(cumulative[..., :-1] <= uniform * cumulative[..., -1:], axis=2)
