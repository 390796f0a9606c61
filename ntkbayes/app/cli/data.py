"""The data of a command: built in, or from files, as its options say."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from ntkbayes.app.cli import terminal
from ntkbayes.app.cli.options import given
from ntkbayes.errors import ConfigurationError

if TYPE_CHECKING:
    from ntkbayes.datasets import Dataset


class TableOptions(NamedTuple):
    """What is said of the columns of files."""

    target: str | None
    drop: Sequence[str] = ()
    categorical: Sequence[str] = ()
    impute: str | None = None
    missing: Sequence[str] = ()

    @classmethod
    def of(cls, context: typer.Context) -> "TableOptions":
        """Those of a command."""
        target, drop, categorical, impute, missing = (context.params[name] for name in cls._fields)
        return cls(target, drop or (), categorical or (), impute, missing or ())

    def require(self, file: str) -> str:
        """The column of the labels. Raises ConfigurationError if it is not named."""
        if self.target is None:
            raise ConfigurationError(f"name the column of the labels in {file} with --target")
        return self.target

    def refuse_for(self, names: Sequence[str]) -> None:
        """Raises ConfigurationError if something is said, but there are no files."""
        for name, value in self._asdict().items():
            if value:
                shown = value if isinstance(value, str) else " ".join(value)
                what = "its labels" if name == "target" else "its columns"
                raise ConfigurationError(
                    f"--{name} {shown} is for files, and {', '.join(names)} knows {what}; leave it out"
                )


def require_tables(data: Sequence[str], options: TableOptions, test: Path | None = None) -> None:
    """Raises an error unless all that are files by their looks are tables with the columns that are
    named, and test points come with a table of training points."""
    from ntkbayes import table_files

    if test is not None and not any(
        _looks_like_a_path(each) or os.path.lexists(each) for each in data
    ):
        raise ConfigurationError(
            f"--test {test} goes with a file of training points, --data FILE; of {', '.join(data)} a "
            "share is held out, see --test-share"
        )
    for file in filter(_looks_like_a_path, data):
        others = (*options.drop, *options.categorical)
        table_files.require_columns(Path(file), options.require(file), others)
    if test is not None:
        table_files.require_columns(test, options.require(str(test)))


def load_test(
    file: Path | None, options: TableOptions, train: "Dataset", context: typer.Context
) -> "Dataset | None":
    """Test points from a file like that of the training points; None if there is no file.

    Raises:
        ConfigurationError: a share of the data was to be held out besides.
    """
    from ntkbayes import datasets

    if file is None:
        return None
    if given(context, "test_share"):
        raise ConfigurationError(
            f"--test {file} has the test points, so that no share of the data is held out; leave out "
            "--test-share"
        )
    return datasets.read_table(file, target=options.require(str(file)), like=train)


def load_data(data: Sequence[str], options: TableOptions) -> "list[Dataset]":
    """Data sets, by name or from files whose labels are in the column `target`; what is done to the
    columns of files is told."""
    from ntkbayes import datasets

    files = [
        each
        for each in data
        if each not in datasets.NAMES and (_looks_like_a_path(each) or os.path.lexists(each))
    ]
    if files:
        options.require(files[0])
    named = [each for each in data if each not in files]
    points = []
    for each in data:
        if each in named:
            points.append(datasets.load(each))
            continue
        points.append(
            datasets.read_table(
                each,
                target=options.require(each),
                drop=options.drop,
                categorical=options.categorical,
                impute=options.impute,
                missing=options.missing,
            )
        )
        if told := points[-1].preparation_told:
            terminal.tell(f"{each}: {told}")
    if not files:
        options.refuse_for(named)
    return points


def _looks_like_a_path(data: str) -> bool:
    """Whether the word can be no name of a data set."""
    return bool(Path(data).suffix or len(Path(data).parts) > 1)
