"""Laws side by side on the same held-out data."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes.arguments import random_key, require
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import Sheet, Summarised, few
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.laws import Law
from ntkbayes.laws.law import require_law
from ntkbayes.predictions import Predictions, Surface, digest_of_points, predict
from ntkbayes.scores import calibration, distances
from ntkbayes.scores.calibration import Interval
from ntkbayes.scores.distances import Distance

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Elpd:
    """Expected log predictive density, summed over the test points, and its standard error over
    points, in nats. Minus the number of points times the NLL. Higher is better."""

    value: float
    error: float


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Summarised):
    """Several predictions of the same points, one of them the reference for distances.

    Attributes:
        predictions: by name, in the order of the table.
        reference: the law that distances are measured to.
        seed: of the bootstrap over test points.
        settings: how it came about, for the record.
        training: predictions at the training points, by law, for leave-one-out; may be empty.
        surfaces: probabilities over the plane, by law, if the data have two features.
    """

    predictions: Mapping[str, Predictions]
    reference: str
    seed: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, Predictions] = field(default_factory=dict)
    surfaces: Mapping[str, Surface] = field(default_factory=dict)

    @property
    def _sheet(self) -> Sheet:
        first = next(iter(self.predictions.values()))
        facts = {
            "test points": str(len(first.targets)),
            "classes": f"{len(first.class_names)}: {few(first.class_names)}",
            "reference": self.reference,
        }
        header = ("law", "accuracy", "NLL (nats)", "Brier", "ECE", "fit (s)")
        scores = calibration.standard_scores()
        rows = []
        for name, p in self.predictions.items():
            with jax.enable_x64(True), jax.ensure_compile_time_eval():
                probabilities = p.probabilities
            values = (
                scores[each](probabilities, p.targets)
                for each in ("accuracy", "nll", "brier", "ece")
            )
            rows.append([name, *(f"{float(v):.3f}" for v in values), f"{p.seconds:.1f}"])
        return Sheet("comparison", facts, header, rows)

    @cached_property
    def scores(self) -> dict[str, dict[str, Interval]]:
        """Scores by law: see `calibration.standard_scores`; 90% bootstrap intervals over points."""
        return {
            name: calibration.scores(p.probabilities, p.targets, seed=self.seed)
            for name, p in self.predictions.items()
        }

    def score_differences(self, against: str) -> dict[str, dict[str, Interval]]:
        """Scores of every other law less those of the law `against`, by law and score.

        Both on the same resamples of the test points (see `calibration.paired_difference`), which
        are those of `scores`; 90% intervals. nan where both scores are infinite.

        Raises:
            UnknownNameError: `against` is none of the laws.
        """
        if against not in self.predictions:
            raise UnknownNameError("law", against, tuple(self.predictions))
        other = self.predictions[against].probabilities
        return {
            name: {
                title: calibration.paired_difference(
                    score, p.probabilities, other, p.targets, seed=self.seed
                )
                for title, score in calibration.standard_scores().items()
            }
            for name, p in self.predictions.items()
            if name != against
        }

    @cached_property
    def elpd(self) -> dict[str, Elpd]:
        """Expected log predictive density by law."""
        by_law = {}
        for name, predictions in self.predictions.items():
            by_law[name] = sum_over_points(predictions.pointwise_elpd)
        return by_law

    @cached_property
    def elpd_difference(self) -> dict[str, Elpd]:
        """ELPD less the reference's, with the standard error of the pointwise differences."""
        reference = self.predictions[self.reference].pointwise_elpd
        return {
            name: sum_over_points(_difference(p.pointwise_elpd, reference))
            for name, p in self.predictions.items()
        }

    @cached_property
    def uncertainty(self) -> dict[str, dict[str, float]]:
        """Mean total, aleatoric and epistemic uncertainty by law, in nats."""
        return {
            name: {
                part: float(np.mean(getattr(p.uncertainty, part)))
                for part in ("total", "aleatoric", "epistemic")
            }
            for name, p in self.predictions.items()
        }

    @cached_property
    def distances(self) -> dict[str, dict[str, Distance]]:
        """Distances of each law to the reference: see `distances`. Of baselines, which have no
        logits, the total variation alone."""
        reference = self.predictions[self.reference]
        by_law: dict[str, dict[str, Distance]] = {}
        for name, predictions in self.predictions.items():
            row = {
                "tv": distances.total_variation(
                    predictions.probability_draws, reference.probability_draws
                )
            }
            if predictions.logits is not None and reference.logits is not None:
                pair = (predictions.centred_logits, reference.centred_logits)
                row["variance_ratio"] = distances.variance_ratio(*pair)
                row["energy"] = distances.energy_coefficient(*pair)
            by_law[name] = row
        return by_law

    def table(self) -> "pd.DataFrame":
        """One row per law: every score with the ends of its interval, ELPD, uncertainties, distances
        with their errors, and the seconds of the fit, with those of them that were compilation."""
        import pandas as pd

        rows = {}
        for name, predictions in self.predictions.items():
            row: dict[str, float] = {}
            for score, interval in self.scores[name].items():
                row[score] = interval.value
                row[f"{score}_lower"], row[f"{score}_upper"] = interval.lower, interval.upper
            for what, elpd in (("elpd", self.elpd), ("elpd_difference", self.elpd_difference)):
                row[what], row[f"{what}_error"] = elpd[name].value, elpd[name].error
            row |= {f"{part}_uncertainty": v for part, v in self.uncertainty[name].items()}
            for what, distance in self.distances[name].items():
                row[what], row[f"{what}_error"] = distance.value, distance.error
            row["seconds"] = predictions.seconds
            row["compile_seconds"] = predictions.compile_seconds
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("law")


def _difference(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """a − b, with −∞ less −∞ undefined, without a warning."""
    both_infinite = np.isinf(a) & np.isinf(b)
    return np.where(both_infinite, np.nan, a - np.where(both_infinite, 0.0, b))


def sum_over_points(terms: Float[np.ndarray, " n"]) -> Elpd:
    """ELPD of log predictive densities of points."""
    if len(terms) < 2 or not np.all(np.isfinite(terms)):
        return Elpd(float(terms.sum()), np.nan)
    spread = terms.std(ddof=1)
    return Elpd(float(terms.sum()), float(np.sqrt(len(terms)) * spread))


def compare(
    laws: Mapping[str, Law | Predictions],
    test: Dataset,
    *,
    key: PRNGKeyArray,
    reference: str | None = None,
    num_draws: int | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Comparison:
    """Put laws side by side.

    Args:
        laws: by the name that tables show; laws, or predictions of the same test points.
        test: held-out data.
        key: of the draws. Each law's draws depend on the key and on its own name alone.
        reference: whose distance to measure; by default the last law drawn by Markov chains, the
            exact posterior, or else the first.
        num_draws: draws per law.
        seed: of the bootstrap over test points.
        settings: kept with the comparison.
        progress: called with each name before its turn.

    Raises:
        ConfigurationError: no laws, or predictions of other points.
        ArgumentError: laws without names, methods in place of laws, or anything else of another kind.
        UnknownNameError: the reference is none of the laws.
    """
    require(_CALL, "laws", laws, Mapping, _how_to_name)
    require_dataset(_CALL, "test", test)
    key = random_key(key)
    if not laws:
        raise ConfigurationError("compare() needs at least one law")
    for name, law in laws.items():
        if not isinstance(law, Predictions):
            require_law(_CALL, f"laws[{name!r}]", law)
    predictions = {}
    for name, law in laws.items():
        progress(name)
        predictions[name] = (
            dataclasses.replace(law, name=name)
            if isinstance(law, Predictions)
            else predict(law, test, key=key_of(key, name), name=name, num_draws=num_draws)
        )
        _require_same_points(predictions[name], test)
    reference = default_reference(predictions) if reference is None else reference
    if reference not in predictions:
        raise UnknownNameError("law", reference, tuple(predictions))
    return Comparison(predictions, reference, seed, dict(settings or {}))


def default_reference(predictions: Mapping[str, Predictions]) -> str:
    """The last law drawn by Markov chains, the exact posterior, or else the first."""
    exact = [name for name, p in predictions.items() if p.kind.is_posterior]
    return exact[-1] if exact else next(iter(predictions))


_CALL = "compare(laws, test, key=key)"


def _how_to_name(given: Any) -> str:
    """What to do about laws without names."""
    laws = given if isinstance(given, list | tuple) else [given]
    if not all(isinstance(law, Law | Predictions) for law in laws):
        return ""
    kinds = ", ".join(f"{law.kind.name!r}: law" for law in laws[:2])
    return f"name the laws, as in compare({{{kinds}}}, test, key=key)"


def _require_same_points(predictions: Predictions, test: Dataset) -> None:
    """Raises ConfigurationError unless predictions are of these points, and of the same classes."""
    who = f"the predictions of {predictions.name!r}"
    classes = [str(name) for name in test.class_names or ()]
    if [str(name) for name in predictions.class_names] != classes:
        raise ConfigurationError(
            f"{who} are of the classes {list(predictions.class_names)}, the test data have "
            f"{list(test.class_names or ())}; predict with the same class_names"
        )
    is_other = predictions.points not in (None, digest_of_points(test))
    if is_other or not np.array_equal(predictions.targets, test.targets):
        raise ConfigurationError(f"{who} are not of these test points; predict at these")


def key_of(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key that depends on the name alone, not on what else is compared."""
    digest = hashlib.sha256(name.encode()).digest()
    return jax.random.fold_in(key, int.from_bytes(digest[:4], "big"))
