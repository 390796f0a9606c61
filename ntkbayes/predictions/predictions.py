"""Predictions: class probabilities and their draws at given inputs, on plain NumPy arrays."""

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from ntkbayes.arguments import random_key, require
from ntkbayes.datasets import Dataset
from ntkbayes.display import Sheet, Summarised, count, few
from ntkbayes.laws.info import facts_of
from ntkbayes.laws.kind import BASELINE, Kind
from ntkbayes.laws.law import Law
from ntkbayes.laws.trace import Trace
from ntkbayes.laws.wrappers.held_out import expected_log, log_densities, log_mean
from ntkbayes.likelihood import Bernoulli, Categorical, ClassLikelihood
from ntkbayes.linalg import require_float64
from ntkbayes.scores import calibration

Probabilities = Float[np.ndarray, "n classes"]


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(Summarised):
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
        kind: what the law is.
        num_chains: Markov chains among the draws.
        held_out: whether the points were not trained on.
        is_posterior: whether the logits are draws of the posterior given just these points and targets,
            up to Monte Carlo error: only then can a point be left out by weighting them (`az.loo`).
        leave_one_out: of a Gaussian posterior of just these points and targets, the log predictive
            density of each given all others (see `ntkbayes.leave_one_out`), in nats, (n,).
        seconds: time of the fit.
        compile_seconds: of that, what JAX spent tracing and compiling: a second fit of this shape does
            without it.
        info: diagnostics of the fit, name → number.
        likelihood: the one that the logits belong to. If it is not given, that of their width: one
            logit for two classes (Bernoulli), else softmax. None for a baseline.
        points: a digest of the features, by which `compare` knows other points; None if not known.
        trace: what chains recorded with each draw.
        features: of the points, (n, d), as the data have them; None if not known.
        feature_names: d names.
        row_names: of the points, (n,), as `Dataset.row_names`; None if they are 0, 1, …
    """

    name: str
    targets: Probabilities
    class_names: tuple[Hashable, ...]
    logits: Float[np.ndarray, "draws n outputs"] | None
    mean: Float[np.ndarray, "n outputs"] | None
    variance: Float[np.ndarray, "n outputs"] | None
    point_probabilities: Probabilities | None
    label_draws: Int[np.ndarray, "draws n"]
    kind: Kind
    num_chains: int = 1
    held_out: bool = True
    is_posterior: bool = False
    leave_one_out: Float[np.ndarray, " n"] | None = None
    seconds: float = 0.0
    compile_seconds: float = 0.0
    info: Mapping[str, float] = field(default_factory=dict)
    likelihood: ClassLikelihood | None = None
    points: str | None = None
    trace: Trace = field(default_factory=Trace)
    features: Float[np.ndarray, "n d"] | None = None
    feature_names: tuple[str, ...] = ()
    row_names: Shaped[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        if self.row_names is not None:
            rows = np.asarray(self.row_names.tolist())  # text as wide as it has to be
            is_count = rows.dtype.kind == "i" and (rows == np.arange(len(rows))).all()
            object.__setattr__(self, "row_names", None if is_count else rows)
        if self.likelihood is None and self.logits is not None:
            by_width = Bernoulli() if self.logits.shape[2] == 1 else Categorical()
            object.__setattr__(self, "likelihood", by_width)

    @property
    def _sheet(self) -> Sheet:
        of = "held-out" if self.held_out else "training"
        facts = {
            "kind": self.kind.name,
            "points": f"{len(self.targets)}, {of}",
            "classes": f"{len(self.class_names)}: {few(self.class_names)}",
        }
        if self.logits is not None:
            chains = f", by {count(self.num_chains, 'Markov chain')}" * (self.num_chains > 1)
            facts["draws"] = f"{len(self.logits)}{chains}"
        facts |= facts_of(self.info)
        facts["fit"] = f"{self.seconds:.2g} s, {self.compile_seconds:.2g} s of it compiling"
        return Sheet(f"predictions: {self.name}", facts)

    @cached_property
    def probability_draws(self) -> Float[np.ndarray, "draws n classes"]:
        """Class probabilities of each draw."""
        if self.logits is None:
            assert self.point_probabilities is not None
            return self.point_probabilities[None]
        assert self.likelihood is not None
        require_float64()
        return np.asarray(class_probabilities(self.likelihood, jnp.asarray(self.logits)))

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
        return np.asarray(_projected(self.likelihood, jnp.asarray(self.logits)))


class_probabilities = eqx.filter_jit(lambda likelihood, logits: likelihood.probabilities(logits))
_projected = eqx.filter_jit(lambda likelihood, logits: likelihood.project(logits))
_log_probabilities = eqx.filter_jit(lambda likelihood, f: likelihood.log_probabilities(f))


def require_predictions(call: str, value: Any) -> None:
    """Raises ArgumentError unless the value is `Predictions`; see `arguments.require`."""

    def remedy(given: Any) -> str:
        if isinstance(given, Law):
            return "give nb.predict(law, data, key=key)"
        return (
            "give one law's, comparison.predictions[name]" if hasattr(given, "predictions") else ""
        )

    require(call, "predictions", value, Predictions, remedy)


def predictions_from_probabilities(
    name: str,
    probabilities: Probabilities,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    kind: Kind = BASELINE,
    num_draws: int = 1000,
    seconds: float = 0.0,
) -> Predictions:
    """Predictions of a model that gives probabilities alone, such as logistic regression."""
    labels = label_draws(random_key(key), probabilities[None], num_draws)
    return Predictions(
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


def digest_of_points(data: Dataset) -> str:
    """Tells points apart by their features."""
    return hashlib.sha256(data.features.tobytes()).hexdigest()[:16]
