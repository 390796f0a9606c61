"""The command line as a whole: its help, its version, what its exit codes mean."""

from typing import Annotated

import typer

from ntkbayes.app.compilation_cache import VARIABLE

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The Neural Tangent Kernel as a Bayesian object: compare laws of trained classifiers.",
    epilog=f"""Example: ntkbayes compare --data iris

Compiled programs are kept in the user's cache folder, ~/.cache/ntkbayes on Linux. {VARIABLE} names
another folder, or switches this off if it is "off"; so does --no-cache. JAX's own variables, such as
JAX_COMPILATION_CACHE_DIR, come first.

Exit codes: 0 done; 1 an error, which is told in one line, or in one for each problem of a table; or
studies of a sweep that failed; 2 a command or option that does not exist, or cannot have that value; 130
stopped by Ctrl-C.""",
)


def _show_version(asked: bool) -> None:
    if asked:
        from ntkbayes import __version__

        print(f"ntkbayes {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass
