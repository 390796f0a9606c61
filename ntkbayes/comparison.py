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
from ntkbayes.display import Sheet, Summarised
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.laws import Law
from ntkbayes.laws.law import require_law
from ntkbayes.predictions import (
    ClassPredictions,
    NumberPredictions,
    Predictions,
    Surface,
    digest_of_points,
    predict,
)
from ntkbayes.scores import calibration, distances
from ntkbayes.scores.calibration import Interval, Statistic
from ntkbayes.scores.distances import Distance
from ntkbayes.scores.intervals import COLUMN, Over, meaning
from ntkbayes.scores.names import called

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
            **first.target_facts,
            "reference": self.reference,
        }
        shown = first.headline
        header = ("law", *(called(name).short_with_unit for name in shown), "fit (s)")
        rows = []
        for name, p in self.predictions.items():
            with jax.enable_x64(True), jax.ensure_compile_time_eval():
                statistics = p.statistics
                values = [float(statistics[each](None)) for each in shown]
            rows.append([name, *(f"{v:.3f}" for v in values), f"{p.seconds:.1f}"])
        return Sheet("comparison", facts, header, rows)

    @property
    def is_of_classes(self) -> bool:
        """Whether predictions are of classes rather than numbers."""
        return isinstance(next(iter(self.predictions.values())), ClassPredictions)

    @property
    def of_classes(self) -> Mapping[str, ClassPredictions]:
        """The predictions by law. Raises ConfigurationError if they are of numbers."""
        return self._of_kind(ClassPredictions, "classes, but this comparison is of numbers")

    @property
    def of_numbers(self) -> Mapping[str, NumberPredictions]:
        """The predictions by law. Raises ConfigurationError if they are of classes."""
        return self._of_kind(NumberPredictions, "numbers, but this comparison is of classes")

    def _of_kind[P: Predictions](self, kind: type[P], needed: str) -> Mapping[str, P]:
        found = {name: p for name, p in self.predictions.items() if isinstance(p, kind)}
        if len(found) < len(self.predictions):
            raise ConfigurationError(f"this needs predictions of {needed}")
        return found

    @cached_property
    def score_names(self) -> tuple[str, ...]:
        """The scores that some of the laws ask for, such as the ranked probability score."""
        every = (name for p in self.predictions.values() for name in p.reported)
        return tuple(dict.fromkeys(every))

    @cached_property
    def statistics(self) -> dict[str, dict[str, Statistic]]:
        """Every score by law and name, as a function of the weights of the test points."""
        return {
            law: {name: p.statistics[name] for name in self.score_names}
            for law, p in self.predictions.items()
        }

    @cached_property
    def scores(self) -> dict[str, dict[str, Interval]]:
        """Scores by law, with 90% bootstrap intervals over points: of classes
        `calibration.standard_scores`, of ordered ones also the ranked probability score, and of numbers
        `numbers.standard_scores`."""
        return {
            law: {
                name: calibration.interval_of(score, self.num_points, seed=self.seed)
                for name, score in statistics.items()
            }
            for law, statistics in self.statistics.items()
        }

    @property
    def num_points(self) -> int:
        """The number of test points."""
        return len(next(iter(self.predictions.values())).targets)

    def score_difference(self, name: str, against: str, score: str) -> Interval:
        """One score of a law less that of another, both on the same resamples of the test points, which
        are those of `scores`; a 90% interval. nan where both scores are infinite.

        Raises:
            UnknownNameError: there is no such law or score.
        """
        for law in (name, against):
            if law not in self.predictions:
                raise UnknownNameError("law", law, tuple(self.predictions))
        if score not in self.score_names:
            raise UnknownNameError("score", score, self.score_names)
        a, b = (self.statistics[law][score] for law in (name, against))
        return calibration.interval_of(
            calibration.difference(a, b), self.num_points, seed=self.seed
        )

    def score_differences(self, against: str) -> dict[str, dict[str, Interval]]:
        """`score_difference` of every other law to the law `against`, by law and score.

        Raises:
            UnknownNameError: `against` is none of the laws.
        """
        if against not in self.predictions:
            raise UnknownNameError("law", against, tuple(self.predictions))
        return {
            law: {score: self.score_difference(law, against, score) for score in self.score_names}
            for law in self.predictions
            if law != against
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
        """Mean total, aleatoric and epistemic uncertainty by law: of classes entropies in nats, of
        numbers variances in squared units of the target."""
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
        logits, the total variation alone, and of numbers none."""
        reference = self.predictions[self.reference]
        by_law: dict[str, dict[str, Distance]] = {}
        for name, predictions in self.predictions.items():
            row = {}
            if isinstance(predictions, ClassPredictions):
                assert isinstance(reference, ClassPredictions)
                row["tv"] = distances.total_variation(
                    predictions.probability_draws, reference.probability_draws
                )
            if predictions.logits is not None and reference.logits is not None:
                pair = (predictions.centred_logits, reference.centred_logits)
                row["variance_ratio"] = distances.variance_ratio(*pair)
                row["energy"] = distances.energy_coefficient(*pair)
            by_law[name] = row
        return by_law

    def table(self) -> "pd.DataFrame":
        """One row per law: every score with the ends of its interval, ELPD, uncertainties, distances
        with their errors, and the seconds of the fit, with those of them that were compilation. Its
        `attrs["interval"]` says what the intervals are: "90% over test points"."""
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
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("law")
        table.attrs[COLUMN] = meaning(Over.POINTS)
        return table


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
    """Raises ConfigurationError unless predictions are of these points and targets."""
    predictions.require_same_targets(test)
    if predictions.points not in (None, digest_of_points(test)):
        raise ConfigurationError(
            f"the predictions of {predictions.name!r} are not of these test points; predict at these"
        )


def key_of(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key that depends on the name alone, not on what else is compared."""
    digest = hashlib.sha256(name.encode()).digest()
    return jax.random.fold_in(key, np.uint32(int.from_bytes(digest[:4], "big")))
