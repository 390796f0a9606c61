"""The commands and their options as a page, for the site."""

from typing import Any

import typer

from ntkbayes.app.cli import commands, lazy, new_rows  # noqa: F401
from ntkbayes.app.cli.application import app

_COLUMNS = 96


def page() -> str:
    """The help of every command, in Markdown, as `--help` prints it on a wide terminal."""
    group: Any = typer.main.get_command(app)
    parts = [_help("ntkbayes", group)]
    parts += [_help(f"ntkbayes {name}", command) for name, command in group.commands.items()]
    return "\n".join(parts)


def _help(path: str, command: Any) -> str:
    context = command.make_context(
        path, [], resilient_parsing=True, terminal_width=_COLUMNS, max_content_width=_COLUMNS
    )
    return f"## {path}\n\n```text\n{command.get_help(context)}\n```\n"
