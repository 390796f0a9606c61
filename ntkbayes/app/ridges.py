"""The ridge of a study: its rule by the words of the command line, and what is kept of the choice."""

from collections.abc import Mapping

from ntkbayes import ranges
from ntkbayes.errors import ConfigurationError, StorageError
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range
from ntkbayes.selection import (
    GivenRidge,
    RidgeByCrossValidation,
    RidgeByEvidence,
    RidgeChoice,
    RidgeRule,
)
from ntkbayes.storage import RunFolder

RULES: dict[str, type[RidgeRule]] = {
    rule.name: rule for rule in (RidgeByEvidence, RidgeByCrossValidation)
}
_FILE = "ridge.json"


def ridge_of(word: str) -> float | RidgeRule:
    """A number, or the rule of that name.

    Raises:
        ConfigurationError: it is neither, or the number is negative or not finite.
    """
    if word in RULES:
        return RULES[word]()
    try:
        ridge = float(word)
    except ValueError:
        raise ConfigurationError(
            f"--ridge takes {', '.join(RULES)} or a number of at least 0; got {word!r}"
        ) from None
    return float(ranges.real("the ridge", ridge, Range.NOT_NEGATIVE_FINITE))


def with_ridge(prior: NTKPrior, ridge: float | RidgeRule) -> tuple[NTKPrior, RidgeRule]:
    """The prior and the rule of a study with this ridge."""
    if isinstance(ridge, RidgeRule):
        return prior, ridge
    return prior.with_ridge(ridge), GivenRidge()


def told(rule: RidgeRule, choice: RidgeChoice) -> dict[str, object]:
    """A choice as plain data."""
    scores = {f"{ridge:g}": score for ridge, score in choice.scores.items()}
    return {"value": choice.ridge, "rule": rule.name, "reason": choice.reason, "scores": scores}


def sentence(settings: Mapping[str, object]) -> str:
    """The ridge of a comparison's settings, and how it was chosen; "" if they do not tell."""
    record = settings.get("ridge")
    if not isinstance(record, Mapping) or not {"value", "reason"} <= set(record):
        return ""
    return f"Ridge {record['value']:.6g}, {record['reason']}."


def record(into: RunFolder, rule: RidgeRule, choice: RidgeChoice) -> None:
    """Keep a choice, so that a resumed run does not choose again."""
    into.record(_FILE, told(rule, choice))


def recorded(in_folder: RunFolder) -> RidgeChoice | None:
    """The choice of the study that claimed the folder; None if there is none yet.

    Raises:
        StorageError: the file is broken.
    """
    kept = in_folder.recorded(_FILE)
    if kept is None:
        return None
    try:
        scores = {float(ridge): float(score) for ridge, score in kept["scores"].items()}  # type: ignore[attr-defined]
        ridge = float(ranges.real("the ridge", kept["value"], Range.NOT_NEGATIVE_FINITE))
        return RidgeChoice(ridge, str(kept["reason"]), scores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = in_folder.path / _FILE
        raise StorageError(f"{path} holds no ridge ({error}); delete it and run again") from error
