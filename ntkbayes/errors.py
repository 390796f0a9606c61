"""Every error and warning of ntkbayes, one class per cause.

Messages name the offending value and say what to do about it.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class NTKBayesError(Exception):
    """Base of all errors raised on purpose by ntkbayes."""


class DataError(NTKBayesError, ValueError):
    """Features or targets that no model can be trained on."""


class UnknownNameError(NTKBayesError, ValueError):
    """A data set, law, activation, likelihood or score that does not exist.

    Args:
        kind: of thing, in words.
        name: that was given.
        known: names that exist, for the message.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]):
        self._parts = (kind, name, tuple(known))
        names = list(map(str, self._parts[2]))
        shown = ", ".join(names[:_SHOWN])
        shown += f", … ({len(names)} in all)" if len(names) > _SHOWN else ""
        super().__init__(f"unknown {kind} {name!r}; known are: {shown}{did_you_mean(name, names)}")

    def __reduce__(self) -> tuple:
        return type(self), self._parts


_SHOWN = 30  # names in a message


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """For the end of a message: the known name that is most like the unknown one; empty if none is.
    Capitals, hyphens, underscores and spaces do not count."""
    plain: dict[str, str] = {}
    for each in known:
        plain.setdefault(_letters(each), each)
    close = difflib.get_close_matches(_letters(str(name)), plain, n=1, cutoff=0.7)
    return f"; did you mean {plain[close[0]]!r}?" if close else ""


def _letters(name: str) -> str:
    return name.casefold().translate(dict.fromkeys(map(ord, "-_ ")))


class Problems:
    """What is wrong with a table, found one by one and told at once.

    Args:
        where: the table, for the message.
    """

    def __init__(self, where: str):
        self._where = where
        self._found: list[str] = []

    def add(self, problem: str) -> None:
        self._found.append(problem)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a DataError, rather than raise it."""
        try:
            yield
        except DataError as error:
            self.add(str(error))

    def refuse(self, besides: Iterable[str] = ()) -> None:
        """Raises DataError, with all of them and what is worth knowing besides, if there are any."""
        also = "".join(f"\n  besides: {each}" for each in besides)
        if len(self._found) == 1:
            raise DataError(f"{self._where}: {self._found[0]}{also}")
        if self._found:
            lines = "\n".join(f"  {each}" for each in self._found)
            raise DataError(f"{self._where} has {len(self._found)} problems:\n{lines}{also}")


class ConfigurationError(NTKBayesError, ValueError):
    """A setting outside its range, or settings that contradict each other."""


class ArgumentError(NTKBayesError, TypeError):
    """An argument of another kind than the function takes: two of them swapped, a class in place of an
    object, a number in place of a key."""


class RidgeError(ConfigurationError):
    """A ridge for which the trained predictor does not exist (THEORY 1, claim 3)."""


class PrecisionError(NTKBayesError, RuntimeError):
    """JAX would silently turn float64 into float32."""


class NotPositiveDefiniteError(NTKBayesError, ArithmeticError):
    """A Gram matrix with a negative eigenvalue beyond round-off."""


class ConvergenceError(NTKBayesError, ArithmeticError):
    """An iteration that stopped before its residual was small enough."""


class SearchError(ConvergenceError):
    """A search over hyper-parameters that found no maximum. `best` is the best point so far."""

    def __init__(self, message: str, *, best: object = None):
        super().__init__(message)
        self.best = best


class DivergenceError(NTKBayesError, ArithmeticError):
    """Training whose loss became NaN or infinite, at `step`. `state` is the last finite one."""

    def __init__(self, message: str, *, step: int = 0, state: object = None):
        super().__init__(message)
        self.step = step
        self.state = state


class InsufficientMemoryError(NTKBayesError, MemoryError):
    """A fit that would need more memory than is free."""


class StorageError(NTKBayesError, OSError):
    """A file or folder that cannot be read or written, or does not hold what it should."""


class NewerFormatError(StorageError):
    """A file that a later version of ntkbayes wrote."""


class FolderInUseError(StorageError):
    """A folder that another run is writing to."""


class MissingDependencyError(NTKBayesError, ImportError):
    """An optional package that is not installed."""


class DataWarning(UserWarning):
    """Usable data that are probably not what the user meant."""


class ConvergenceWarning(UserWarning):
    """Markov chains that have not converged, by their diagnostics."""


class StorageWarning(UserWarning):
    """A folder that can be used, but without the usual safeguards."""


class CacheWarning(UserWarning):
    """Compiled programs that cannot be kept, or read: they are compiled again, to the same results."""


class GridEdgeWarning(UserWarning):
    """A best value at the edge of the searched grid."""


class FailedTrialWarning(UserWarning):
    """A candidate that could not be scored, and is passed over."""


class KernelScaleWarning(UserWarning):
    """Networks whose NTK depends on their width, so that one ridge is another prior at each width."""
