"""What predictions of all kinds of target have in common, on plain NumPy arrays."""

import abc
import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float, PRNGKeyArray, Shaped

from ntkbayes.arguments import require
from ntkbayes.datasets import Dataset
from ntkbayes.display import Sheet, Summarised, count
from ntkbayes.laws.info import facts_of
from ntkbayes.laws.kind import Kind
from ntkbayes.laws.law import Law
from ntkbayes.laws.trace import Trace
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import require_float64
from ntkbayes.predictions.pointwise import projected
from ntkbayes.scores import calibration
from ntkbayes.scores.calibration import Statistic


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Predictions(Summarised, abc.ABC):
    """What a law, or a baseline, says at given inputs: all that scores, figures and files need.

    Of classes they are `ClassPredictions`, of real targets and counts `NumberPredictions`. What is
    computed from logits raises PrecisionError where JAX is not in float64.

    Attributes:
        name: of the law, as shown in tables.
        targets: what happened, (n, m): rows on the simplex, or numbers.
        logits: draws of the logit functions, jointly at all inputs, (S, n, C); None for a baseline.
        mean, variance: exact (or, for sampled laws, draw-averaged) moments of each logit, (n, C).
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
        points: a digest of the features, by which `compare` knows other points; None if not known.
        trace: what chains recorded with each draw.
        features: of the points, (n, d), as the data have them; None if not known.
        feature_names: d names.
        row_names: of the points, (n,), as `Dataset.row_names`; None if they are 0, 1, …
    """

    headline: ClassVar[tuple[str, ...]]
    """The scores that short tables show."""

    name: str
    targets: Float[np.ndarray, "n m"]
    logits: Float[np.ndarray, "draws n outputs"] | None
    mean: Float[np.ndarray, "n outputs"] | None
    variance: Float[np.ndarray, "n outputs"] | None
    kind: Kind
    num_chains: int = 1
    held_out: bool = True
    is_posterior: bool = False
    leave_one_out: Float[np.ndarray, " n"] | None = None
    seconds: float = 0.0
    compile_seconds: float = 0.0
    info: Mapping[str, float] = field(default_factory=dict)
    likelihood: Likelihood | None = None
    points: str | None = None
    trace: Trace = field(default_factory=Trace)
    features: Float[np.ndarray, "n d"] | None = None
    feature_names: tuple[str, ...] = ()
    row_names: Shaped[np.ndarray, " n"] | None = None

    if TYPE_CHECKING:  # at run time they would be the defaults of fields

        @property
        def class_names(self) -> tuple[Hashable, ...] | None:
            """Of classes; None of numbers."""

        @property
        def log_likelihood(self) -> Float[np.ndarray, "draws n"] | None:
            """log p(y_i | f_i) of each draw, in nats; None where it is not known."""

    @classmethod
    def of(
        cls,
        logits: Any,
        targets: Any,
        *,
        key: PRNGKeyArray,
        name: str = "given ensemble",
        likelihood: Likelihood | None = None,
    ) -> "Predictions":
        """Predictions of logits from elsewhere: an ensemble of any framework, in the same comparison.

        Args:
            logits: of each member, (S, n, C), or of one model, (n, C): anything that NumPy reads.
            targets: a `Dataset` of the n held-out points, whose names and rows are kept, or their
                targets as `Dataset` takes them.
            key: of the draws of targets; same key, same draws.
            name: what tables call them.
            likelihood: what the logits mean; by default as for `Method.fit`.

        Raises:
            ConfigurationError: the shape does not fit the targets, or the likelihood cannot draw.
            DataError: no member is finite. Where only some are not, a warning names them, and they are
                left out.
        """
        from ntkbayes.predictions.predict import predictions_from_logits  # it needs this class

        return predictions_from_logits(logits, targets, key=key, name=name, likelihood=likelihood)

    def __post_init__(self) -> None:
        if self.row_names is not None:
            rows = np.asarray(self.row_names.tolist())  # text as wide as it has to be
            is_count = rows.dtype.kind == "i" and (rows == np.arange(len(rows))).all()
            object.__setattr__(self, "row_names", None if is_count else rows)

    @property
    def _sheet(self) -> Sheet:
        of = "held-out" if self.held_out else "training"
        facts = {
            "kind": self.kind.name,
            "points": f"{len(self.targets)}, {of}",
            **self.target_facts,
        }
        if self.logits is not None:
            chains = f", by {count(self.num_chains, 'Markov chain')}" * (self.num_chains > 1)
            facts["draws"] = f"{len(self.logits)}{chains}"
        facts |= facts_of(self.info)
        facts["fit"] = f"{self.seconds:.2g} s, {self.compile_seconds:.2g} s of it compiling"
        return Sheet(f"predictions: {self.name}", facts)

    @property
    @abc.abstractmethod
    def target_facts(self) -> dict[str, str]:
        """What the targets are, in words, by what it is about."""

    @property
    @abc.abstractmethod
    def num_target_draws(self) -> int:
        """How many draws of the posterior predictive there are."""

    @property
    @abc.abstractmethod
    def pointwise_elpd(self) -> Float[np.ndarray, " n"]:
        """log of the predictive density of each point, in nats: minus its NLL."""

    @property
    @abc.abstractmethod
    def statistics(self) -> Mapping[str, Statistic]:
        """Every score of these predictions by name."""

    @property
    def reported(self) -> tuple[str, ...]:
        """The names of the scores that tables have."""
        return tuple(self.statistics)

    @property
    @abc.abstractmethod
    def uncertainty(self) -> calibration.Uncertainty:
        """Total, aleatoric and epistemic uncertainty of each point."""

    @abc.abstractmethod
    def require_same_targets(self, test: Dataset) -> None:
        """Raises ConfigurationError unless these are the targets of the data, of the same kind."""

    @cached_property
    def centred_logits(self) -> Float[np.ndarray, "draws n outputs"]:
        """Logits less their mean over classes, where softmax cannot see it; else as they are."""
        assert self.logits is not None
        if self.likelihood is None or not self.likelihood.is_flat:
            return self.logits
        require_float64()
        return projected(self.likelihood, self.logits)


def require_predictions(
    call: str, value: Any, kind: type[Predictions] = Predictions, remedy: str = ""
) -> None:
    """Raises ArgumentError unless the value is `Predictions` of the kind; see `arguments.require`."""

    def how(given: Any) -> str:
        if isinstance(given, Law):
            return "give nb.predict(law, data, key=key)"
        if isinstance(given, Predictions):
            return remedy
        return (
            "give one law's, comparison.predictions[name]" if hasattr(given, "predictions") else ""
        )

    require(call, "predictions", value, kind, how)


def digest_of_points(data: Dataset) -> str:
    """Tells points apart by their features."""
    return hashlib.sha256(data.features.tobytes()).hexdigest()[:16]
