"""Configuration files, in TOML: the options of a command by their names, such as `test-share = 0.25`.

Values mean what they mean on the command line, paths too, and an option on the command line goes
before one in the file.
"""

import json
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import typer

from ntkbayes.errors import ConfigurationError, StorageError, did_you_mean

NAME = "options.toml"
"""What the file is called that every run writes into its folder."""

_OF_PRINTING = ("config", "quiet", "as_json", "help")


def read(path: Path, context: Any, parameters: Collection[Any]) -> dict[str, Any]:
    """The options in a file, by the names of the parameters.

    Raises:
        StorageError: there is no such file, or it is not TOML.
        ConfigurationError: a key is no option of the command, or has a value that the option does not
            take; file and key are named.
    """
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"cannot read the configuration file {path}: {reason}") from error
    known = {_key(each): each for each in parameters if each.name not in ("config", "help")}
    found = {}
    for key, value in values.items():
        if key.replace("_", "-") not in known:
            raise ConfigurationError(
                f"{path} has the key {key!r}, which is no option of {context.command_path}; its "
                f"options are {', '.join(known)}{did_you_mean(key, known)}"
            )
        parameter = known[key.replace("_", "-")]
        if parameter.name in found:
            raise ConfigurationError(f"{path} has {key!r} twice, in two spellings; keep one")
        try:
            words = _words(parameter, value)
            parameter.process_value(context, words)
        except (ValueError, typer.BadParameter) as error:
            told = getattr(error, "message", str(error))
            raise ConfigurationError(f"in {path}, {key} = {value!r}: {told}") from error
        found[parameter.name] = words
    return found


def written(context: Any, *, leave_out: Collection[str] = ()) -> str:
    """The options of a command as they are used, defaults too, as a configuration file.

    Args:
        leave_out: names of options that this run does not use, and would refuse to be given.
    """
    lines = [f"# {context.command_path} --config {NAME}"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name)
        if parameter.name in (*_OF_PRINTING, *leave_out) or value is None or value == ():
            continue
        lines.append(f"{_key(parameter)} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _key(parameter: Any) -> str:
    """The name of an option without its dashes."""
    return max(parameter.opts, key=len).lstrip("-")


def _words(parameter: Any, value: Any) -> Any:
    """A value as the command line would hold it. Raises ValueError for one of another type."""
    if isinstance(value, list) and parameter.multiple:
        return [_word(each) for each in value]
    if isinstance(value, list):  # names between commas
        return ",".join(_word(each) for each in value)
    if getattr(parameter, "is_flag", False) or isinstance(value, bool):
        if not (getattr(parameter, "is_flag", False) and isinstance(value, bool)):
            raise ValueError("true and false are for options that are switched on and off")
        return value
    return [_word(value)] if parameter.multiple else _word(value)


def _word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a text or a number")
    return str(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's strings are TOML's, but for one character.
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
