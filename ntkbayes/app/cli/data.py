"""The data of a command: built in, or from files, as its options say."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from ntkbayes.app.cli import terminal
from ntkbayes.app.cli.options import DATA_NAMES, LIKELIHOOD_NAMES, given
from ntkbayes.errors import ConfigurationError, UnknownNameError

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
    others = (*options.drop, *options.categorical)
    for file in filter(_looks_like_a_path, data):
        table_files.require_no_image(Path(file))
        if _is_table(file):
            table_files.require_columns(Path(file), options.require(file), others)
    if test is not None and _is_table(str(test)):
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
    if _is_image_folder(str(file)):
        return datasets.read_images(file, like=train)
    target = options.target or _ARRAY if _is_array(str(file)) else options.require(str(file))
    return datasets.read_table(file, target=target, like=train)


def load_data(
    data: Sequence[str], options: TableOptions, *, targets: str = "classes"
) -> "list[Dataset]":
    """Data sets, by name or number, or from files; what is done to the columns of tables is told.

    Args:
        targets: of tables, as for `read_table`.
    """
    from ntkbayes import datasets

    named = [
        each
        for each in data
        if each in datasets.NAMES
        or not (_looks_like_a_path(each) or os.path.lexists(each) or _is_openml(each))
    ]
    folders = [each for each in data if each not in named and _is_image_folder(each)]
    points = []
    for each in data:
        if each in named:
            points.append(datasets.load(each))
        elif each in folders:
            points.append(datasets.read_images(each))
        else:
            points.append(_load_table(each, options, targets))
        if told := points[-1].preparation_told:
            terminal.tell(f"{each}: {told}")
    if len(named) + len(folders) == len(data):
        options.refuse_for([*named, *folders])
    return points


def _load_table(source: str, options: TableOptions, targets: str) -> "Dataset":
    from ntkbayes import datasets

    if _is_openml(source):
        number = source.partition(":")[2]
        if not number.isdecimal():
            raise ConfigurationError(
                f"OpenML's data sets go by number, such as openml:61; got {source!r}"
            )
        return datasets.read_openml(
            int(number),
            target=options.target,
            drop=options.drop,
            categorical=options.categorical,
            impute=options.impute,
            missing=options.missing,
        )
    return datasets.read_table(
        source,
        target=options.target or _ARRAY if _is_array(source) else options.require(source),
        drop=options.drop,
        categorical=options.categorical,
        impute=options.impute,
        missing=options.missing,
        targets=targets,
    )


def folder_name(data: str) -> str:
    """What the folder of their results is called: as the file, the folder, or the data set."""
    path = Path(data).absolute()
    return (path.name if path.is_dir() else path.stem).replace(":", "-")


_ARRAY = "y"
"""What the labels of a file of arrays are called, unless it is told."""


_FILES = (".csv", ".tsv", ".parquet", ".pq", ".npz", ".npy")


def _is_image_folder(data: str) -> bool:
    """Whether data are a folder, and not by its name a file that turned out to be one."""
    return os.path.isdir(data) and Path(data).suffix.lower() not in _FILES


def _is_array(file: str) -> bool:
    return Path(file).suffix.lower() == ".npz"


def _is_table(file: str) -> bool:
    """Whether a file is known by its column names: arrays and folders are not."""
    return Path(file).suffix.lower() not in (".npz", ".npy") and not _is_image_folder(file)


def _is_openml(data: str) -> bool:
    return data.startswith("openml:")


def require_likelihood(likelihood: str | None, data: str) -> str:
    """What targets a likelihood takes, by its name: classes, or numbers.

    Raises:
        UnknownNameError: there is no such likelihood.
        ConfigurationError: it goes with files, and the data are built in.
    """
    if likelihood is None:
        return "classes"
    if likelihood not in LIKELIHOOD_NAMES:
        raise UnknownNameError("likelihood", likelihood, LIKELIHOOD_NAMES)
    is_table = data not in DATA_NAMES and not _is_openml(data) and not _is_image_folder(data)
    if not is_table:
        raise ConfigurationError(
            f"--likelihood {likelihood} goes with a file, --data FILE; {data} has classes: leave it out"
        )
    return "classes" if likelihood == "ordinal" else "numbers"


def targets_of(data: "Dataset | str") -> str:
    """What targets data have, as `require_likelihood` names them; those that are built in, classes."""
    return "classes" if isinstance(data, str) or data.class_names is not None else "numbers"


def require_order(points: "Dataset", likelihood: str | None) -> None:
    """Raises ConfigurationError for classes whose order is not known, if they are to be ordered ones."""
    from ntkbayes.display import few

    names = points.class_names or ()
    is_known = all(isinstance(n, int | float) and not isinstance(n, bool) for n in names)
    if likelihood == "ordinal" and not is_known and list(names) == sorted(map(str, names)):
        raise ConfigurationError(
            f"--likelihood ordinal needs the order of the classes, and {few(map(repr, names))} are "
            "words: write them as numbers, 1, 2, 3, or give a Parquet file with an ordered category"
        )


def _looks_like_a_path(data: str) -> bool:
    """Whether the word can be no name of a data set."""
    return not _is_openml(data) and bool(Path(data).suffix or len(Path(data).parts) > 1)
