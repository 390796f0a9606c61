"""Model files: Python that defines a `study`, such as those in models/."""

import importlib.util
import traceback
from pathlib import Path

from ntkbayes.app.study import Study
from ntkbayes.errors import ConfigurationError
from ntkbayes.files import require_file


def from_file(path: str | Path) -> Study:
    """The `study` that a model file defines, such as those in `models/`.

    Raises:
        StorageError: there is no such file.
        ConfigurationError: it is not a Python file, fails, or defines no `study`.
    """
    path = Path(path)
    require_file(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigurationError(_where_it_failed(path, error)) from error
    study = getattr(module, "study", None)
    if not isinstance(study, Study):
        raise ConfigurationError(
            f"{path} must define `study = nb.Study(...)`, but "
            + (
                "defines no study"
                if study is None
                else f"its study is of type {type(study).__name__}"
            )
        )
    return study


def _where_it_failed(path: Path, error: Exception) -> str:
    """The last line of the model file that took part in an error, and the error."""
    if isinstance(error, SyntaxError):
        return f"{path}, line {error.lineno} is not Python: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.absolute()]
    where = f", line {lines[-1]}" if lines else ""
    return f"{path}{where} failed: {type(error).__name__}: {error}"
