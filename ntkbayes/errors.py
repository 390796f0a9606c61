"""Every error and warning a user of ntkbayes can meet: one class a cause.

Messages name the value that is wrong and say what to do about it.
"""


class NTKBayesError(Exception):
    """Base of all errors raised on purpose by ntkbayes."""


class DataError(NTKBayesError, ValueError):
    """Features or targets that no model could be trained on."""


class UnknownNameError(NTKBayesError, ValueError):
    """A data set, law, activation, likelihood or score that does not exist."""

    def __init__(self, kind: str, name: object, known: list[str] | tuple[str, ...]):
        super().__init__(f"unknown {kind} {name!r}; known are: {', '.join(known)}")


class ConfigurationError(NTKBayesError, ValueError):
    """A setting outside its range, or settings that contradict each other."""


class RidgeError(ConfigurationError):
    """A ridge with which the trained predictor does not exist (THEORY 1, claim 3)."""


class PrecisionError(NTKBayesError, RuntimeError):
    """JAX would silently turn float64 into float32."""


class NotPositiveDefiniteError(NTKBayesError, ArithmeticError):
    """A Gram matrix with a negative eigenvalue beyond round-off."""


class ConvergenceError(NTKBayesError, ArithmeticError):
    """An iteration that stopped before its residual was small enough."""


class SearchError(ConvergenceError):
    """A search over hyper-parameters that ended before a maximum. `best` is the best that it found."""

    def __init__(self, message: str, *, best: object = None):
        super().__init__(message)
        self.best = best


class DivergenceError(NTKBayesError, ArithmeticError):
    """Training whose loss became NaN or infinite, at `step`. `state` is the last one that was sound."""

    def __init__(self, message: str, *, step: int = 0, state: object = None):
        super().__init__(message)
        self.step = step
        self.state = state


class InsufficientMemoryError(NTKBayesError, MemoryError):
    """A fit that would need more memory than there is."""


class StorageError(NTKBayesError, OSError):
    """A file or folder that cannot be read or written, or is not what it should be."""


class NewerFormatError(StorageError):
    """A file that a later version of ntkbayes wrote."""


class FolderInUseError(StorageError):
    """A folder that another run is writing to."""


class MissingDependencyError(NTKBayesError, ImportError):
    """An optional package that is not installed."""


class DataWarning(UserWarning):
    """Data that can be used, but probably not as the user meant."""


class ConvergenceWarning(UserWarning):
    """Markov chains whose diagnostics say that they have not reached their law."""


class StorageWarning(UserWarning):
    """A folder that can be used, but whose results cannot be guarded as usual."""


class GridEdgeWarning(UserWarning):
    """A best value at the edge of the grid that was searched."""


class FailedTrialWarning(UserWarning):
    """A candidate that could not be scored: the best is the best of the others."""
