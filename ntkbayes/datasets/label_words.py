"""Labels from the words and numbers that stand for them in tables."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ntkbayes.datasets import class_targets, validation
from ntkbayes.datasets.cells import TRUTH
from ntkbayes.errors import DataError
from ntkbayes.table_files import number


def labels_of_texts(texts: list[str]) -> list[Hashable]:
    """Labels as the values that they stand for; empty fields are missing."""
    words = [text for text in dict.fromkeys(texts) if text.strip()]
    numbers = {word: value for word in words if (value := number(word)) is not None}
    numbers = {word: value for word, value in numbers.items() if math.isfinite(value)}
    others = [word for word in words if word not in numbers]
    missing = [w for w in others if w.strip().casefold() in validation.WORDS_FOR_MISSING]
    if numbers and missing == others != []:
        raise DataError(
            f"the label {missing[0]!r} is among numbers; drop such rows if it stands for a missing "
            "value, or give the class another name"
        )
    if not others:
        class_targets.require_few_fractions(list(numbers.values()))
    meaning = _meaning(words)
    return [meaning[text] if text.strip() else None for text in texts]


def labels_of_array(values: np.ndarray, names: tuple[Hashable, ...] | None) -> Any:
    """Labels, whole numbers as such however they are kept; those among the names of classes by how they
    are written."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == values.round()).all():
        values = values.astype(np.int64)
    if names is not None:
        known = {str(each): each for each in names}
        values = np.array([*(known.get(str(v), v) for v in values.tolist()), None], object)[:-1]
    refuse_lookalikes(values.tolist())
    return values


def labels_among(names: Iterable[Hashable], texts: list[str]) -> list[Hashable]:
    """Labels as those of the names of classes that are written so; others as they are."""
    meaning = {str(name): name for name in names}
    return [meaning.get(text, text) if text.strip() else None for text in texts]


def _meaning(words: Sequence[str]) -> Mapping[str, Hashable]:
    """The value of each label: the text itself, unless all survive conversion and back."""
    for read in (integer, {"True": True, "False": False}.get, _integer_or_float):
        values = {word: read(word) for word in words}
        if None not in values.values() and len(set(values.values())) == len(words):
            return values
    return {word: word for word in words}


def integer(word: str) -> int | None:
    try:
        return int(word) if str(int(word)) == word else None
    except ValueError:
        return None


def _integer_or_float(word: str) -> int | float | None:
    value = number(word)
    if value is not None and math.isfinite(value) and repr(value) == word:
        return value
    return integer(word)


def refuse_lookalikes(labels: Iterable[Any]) -> None:
    """Refuse labels that read the same, or differ only in the spelling of booleans."""
    seen: dict[str, str] = {}
    for label in dict.fromkeys(each for each in labels if isinstance(each, str)):
        word = validation.as_read(label)
        other = seen.setdefault(str(TRUTH.get(word, word)), label)
        if other != label:
            raise DataError(
                f"the labels {other!a} and {label!a} look alike; write them the same way if they are "
                "one class, or rename one"
            )
