"""Which laws a study leaves out because they would take too long."""

from collections.abc import Mapping
from pathlib import Path

from ntkbayes.display import few
from ntkbayes.errors import ConfigurationError
from ntkbayes.files import read_json
from ntkbayes.storage.laws import SUMMARY
from ntkbayes.work import Work, in_words


def beyond(works: Mapping[str, Work], max_seconds: float) -> dict[str, float]:
    """The laws to leave out, and how many seconds each was predicted to take: the longest, until the
    others together take at most `max_seconds`.

    Raises:
        ConfigurationError: none would be left.
    """
    seconds = {name: work.seconds for name, work in works.items()}
    left_out: dict[str, float] = {}
    for name in sorted(seconds, key=lambda name: seconds[name], reverse=True):
        if sum(seconds.values()) - sum(left_out.values()) <= max_seconds:
            break
        left_out[name] = seconds[name]
    if works and len(left_out) == len(works):
        least = min(seconds, key=lambda name: seconds[name])
        raise ConfigurationError(
            f"no law would end within {in_words(max_seconds).removeprefix('about ')}: {least} alone "
            f"takes {in_words(seconds[least])}. Allow more time, ask for laws by name, or use fewer "
            "points"
        )
    return left_out


def told(left_out: Mapping[str, float]) -> dict[str, object]:
    """The laws left out as plain data, for the settings of a comparison."""
    return {"left out": dict(left_out)} if left_out else {}


def left_out_of(settings: Mapping[str, object]) -> dict[str, float]:
    """The laws that a comparison's settings say were left out, and their seconds."""
    record = settings.get("left out")
    return dict(record) if isinstance(record, Mapping) else {}


def left_out_in(folder: Path) -> dict[str, float]:
    """The laws that the last run in a folder left out, and their seconds.

    Raises:
        StorageError: its comparison is broken.
    """
    path = folder / SUMMARY
    settings = read_json(path).get("settings") if path.is_file() else None
    return left_out_of(settings) if isinstance(settings, Mapping) else {}


def sentence(settings: Mapping[str, object]) -> str:
    """The laws that a comparison's settings say were left out; "" if none was."""
    left_out = left_out_of(settings)
    if not left_out:
        return ""
    laws = few([f"{name} ({in_words(seconds)})" for name, seconds in left_out.items()])
    return (
        f"Left out, as they would take too long here: {laws}. Name them with --laws, or raise the "
        "study's max_seconds, to have them all the same."
    )
