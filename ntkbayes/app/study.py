"""The main job: data in, a comparison of laws and a report out, restartable law by law."""

import dataclasses
import importlib.util
import platform
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import jax
from jaxtyping import PRNGKeyArray

from ntkbayes import datasets, ranges
from ntkbayes.app import report
from ntkbayes.app.baselines import BASELINES
from ntkbayes.comparison import Comparison, compare, key_of
from ntkbayes.datasets import Dataset
from ntkbayes.description import describe, digest, unidentified
from ntkbayes.errors import ConfigurationError, StorageError, StorageWarning, UnknownNameError
from ntkbayes.files import held, plain, read_json, require_file, to_json, write_text
from ntkbayes.laws import (
    MAP,
    NUTS,
    DirichletGP,
    ExpectationPropagation,
    FirstOrder,
    Laplace,
    Law,
    MeanField,
    Method,
    PerturbedInit,
    PrunedLaplace,
    RandomInit,
    SplitHMC,
    Variational,
)
from ntkbayes.laws.base import SampledLaw
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.linalg import require_float64
from ntkbayes.memory import Memory
from ntkbayes.predictions import predict, surface
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range
from ntkbayes.storage import comparisons as storage
from ntkbayes.storage.comparisons import Part

METHODS: dict[str, type[Method]] = {
    "map": MAP,
    "random-init": RandomInit,
    "first-order": FirstOrder,
    "laplace": Laplace,
    "pruned-laplace": PrunedLaplace,
    "nuts": NUTS,
    "split-hmc": SplitHMC,
    "perturbed-init": PerturbedInit,
    "variational": Variational,
    "mean-field": MeanField,
    "ep": ExpectationPropagation,
    "dirichlet": DirichletGP,
}
DEFAULT_LAWS = ("map", "random-init", "first-order", "laplace", "nuts")
Announce = Callable[[str], AbstractContextManager]


def default_methods(
    names: tuple[str, ...] = DEFAULT_LAWS, *, num_draws: int = 1000
) -> dict[str, Method]:
    """Methods by the name that tables show.

    Args:
        names: of laws, see `METHODS`.
        num_draws: initialisations of random-init and perturbed-init, draws a chain of NUTS and
            split-hmc. The others have formulas, and need not be told.

    Raises:
        UnknownNameError: there is no such law.
        ConfigurationError: no names, or fewer than 4 draws.
    """
    if not names:
        raise ConfigurationError(f"no laws to compare; choose from {', '.join(METHODS)}")
    num_draws = ranges.whole("the number of draws", num_draws, at_least=4)
    made: dict[str, Method] = {}
    for name in names:
        if name not in METHODS:
            raise UnknownNameError("law", name, tuple(METHODS))
        kind = METHODS[name]
        if issubclass(kind, RandomInit | PerturbedInit):
            made[kind.name] = kind(num_inits=num_draws)
        elif issubclass(kind, NUTS | SplitHMC):
            made[kind.name] = kind(num_samples=num_draws)
        else:
            made[kind.name] = kind()
    return made


@dataclass(frozen=True)
class Study:
    """Everything the main job needs to know.

    Attributes:
        data: a data set, or the name of one in `datasets.NAMES`.
        prior: network and ridge.
        likelihood: by default one logit for two classes, softmax for more.
        methods: by the name that tables show.
        smoothing: of the training targets, see `Dataset.smooth`.
        test_share: part of the data held out.
        standardise: whether features are, each by its training points; not where they share a scale
            that means something, as pixels do.
        baselines: whether scikit-learn's baselines take part.
        seed: of everything random.

    Raises:
        ConfigurationError: the seed is negative, or a method has the name of a baseline.
    """

    data: Dataset | str
    prior: NTKPrior
    likelihood: Likelihood | None = None
    methods: Mapping[str, Method] = field(default_factory=default_methods)
    smoothing: float = 0.0
    test_share: float = 0.25
    standardise: bool = True
    baselines: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", ranges.seed(self.seed))
        for name, within in (("smoothing", Range.CLOSED_UNIT), ("test_share", Range.OPEN_UNIT)):
            share = ranges.real(name, getattr(self, name), within)
            object.__setattr__(self, name, float(share))
        if self.baselines and (both := [name for name in self.methods if name in BASELINES]):
            raise ConfigurationError(
                f"{both[0]!r} is the name of a baseline; rename that law, or set baselines=False"
            )

    def run(
        self,
        folder: str | Path,
        *,
        command: str = "",
        announce: Announce = lambda what: nullcontext(),
        progress: bool = False,
    ) -> Comparison:
        """Fit every law, compare them on held-out data and write the report.

        Each law is written as soon as it is known, and not fitted again if the folder has it.

        Args:
            folder: for the files, see `storage` and `report`.
            command: that reproduces the study, for the report.
            announce: called with what is about to happen; its context lasts as long as that.
            progress: show progress bars for laws that draw.

        Raises:
            FolderInUseError: another run has the folder.
            StorageError: the folder cannot be written to, or holds another study.
            NTKBayesError: the data or a law is at fault, see `Method.fit`.
        """
        require_float64()
        report.require_drawing()
        folder = Path(folder)
        split_key, fit_key, draw_key = jax.random.split(jax.random.key(self.seed), 3)
        data = datasets.load(self.data) if isinstance(self.data, str) else self.data
        train, test = data.split(
            split_key, test_share=self.test_share, standardise=self.standardise
        )
        settings = {
            "training points": train.num_points,
            "test points": test.num_points,
            "features": train.num_features,
            **self.identity(),
        }
        storage.prepare_folder(folder)
        with held(folder):
            mark = claim(folder, settings, finished="laws/*.nc")
            if self.methods:
                with announce(f"memory needed at the peak: {self._require_memory(train)}"):
                    pass
            parts: dict[str, Part] = {}
            for name, obtain in self._jobs(train, test, fit_key, draw_key, progress):
                if storage.law_path(folder, name).exists():
                    with announce(f"{name}, already fitted"):
                        parts[name] = storage.load_law(folder, name, study=mark)
                    continue
                with announce(name):
                    parts[name] = obtain()
                    storage.save_law(folder, name, parts[name], study=mark)
            with announce("report"):
                comparison = compare(
                    {name: predictions for name, (predictions, _, _) in parts.items()},
                    test,
                    key=draw_key,
                    seed=self.seed,
                    settings=plain({**settings, "command": command, "versions": versions()}),
                )
                comparison = dataclasses.replace(
                    comparison,
                    training={name: train for name, (_, train, _) in parts.items() if train},
                    surfaces={name: plane for name, (_, _, plane) in parts.items() if plane},
                )
                storage.save_summary(comparison, folder)
                write_text(folder / "report.html", report.page(comparison, folder))
        return comparison

    def identity(self) -> dict[str, object]:
        """All that the results depend on, as plain data.

        Raises:
            UnknownNameError: there is no such data set.
        """
        data = datasets.load(self.data) if isinstance(self.data, str) else self.data
        return {
            "data": data.name,
            "data digest": digest_of(data),
            "classes": [str(name) for name in data.class_names or ()],
            "prior": describe(self.prior),
            "likelihood": describe(self.likelihood or default_likelihood(data)),
            "methods": {name: describe(method) for name, method in self.methods.items()},
            "smoothing": self.smoothing,
            "test share": self.test_share,
            "standardise": self.standardise,
            "baselines": self.baselines,
            "seed": self.seed,
            **circumstances(),
        }

    def _require_memory(self, train: Dataset) -> Memory:
        """What the greediest law needs. Raises InsufficientMemoryError if there is not as much."""
        needs = (
            method.memory(self.prior, train, likelihood=self.likelihood)
            for method in self.methods.values()
        )
        peak = max(needs, key=lambda memory: memory.total)
        peak.require()
        return peak

    def _jobs(
        self,
        train: Dataset,
        test: Dataset,
        fit_key: PRNGKeyArray,
        draw_key: PRNGKeyArray,
        progress: bool,
    ) -> Iterator[tuple[str, "Callable[[], Part]"]]:
        fitted_to = train.smooth(self.smoothing) if self.smoothing else train

        def law_job(name: str, method: Method) -> Part:
            begin = time.perf_counter()
            key = key_of(fit_key, name)
            law = method.fit(self.prior, fitted_to, key=key, likelihood=self.likelihood)
            return _evaluate(law, name, fitted_to, test, draw_key, time.perf_counter() - begin)

        for name, method in self.methods.items():
            if progress and hasattr(method, "progress"):
                method = dataclasses.replace(method, progress=True)  # type: ignore[call-arg]
            yield name, lambda name=name, method=method: law_job(name, method)  # type: ignore[misc]
        for name, baseline in BASELINES.items() if self.baselines else ():
            key = key_of(fit_key, name)
            yield name, lambda fit=baseline, key=key: (fit(train, test, key=key), None, None)  # type: ignore[misc]


def _evaluate(
    law: Law, name: str, train: Dataset, test: Dataset, draw_key: PRNGKeyArray, seconds: float
) -> Part:
    key = key_of(draw_key, name)
    test_key, train_key, plane_key = jax.random.split(key, 3)
    plane = None
    if train.num_features == 2:
        draws = min(law.num_draws, 500) if isinstance(law, SampledLaw) else 500
        plane = surface(law, train, key=plane_key, num_draws=draws)
    return (
        predict(law, test, key=test_key, name=name, seconds=seconds),
        predict(law, train, key=train_key, name=name, held_out=False),
        plane,
    )


def claim(folder: Path, settings: Mapping[str, object], *, finished: str) -> str:
    """Make sure that the folder belongs to this study, so that no other's results are mixed in.

    Args:
        folder: of the study, held by this run.
        settings: that its results depend on, plain data.
        finished: a pattern of its results' files; a folder without any is anyone's.

    Returns: a mark of the study.

    Raises:
        StorageError: the folder holds another study, or one that cannot be told from another.
    """
    path, mark = folder / "study.json", digest(settings)
    lost = ", ".join(unidentified(settings))
    if not any(folder.glob(finished)):
        if lost:
            warnings.warn(
                f"a study with settings of type {lost}, whose contents cannot be told, is not gone on "
                "with if it is interrupted: give functions, modules or dataclasses instead",
                StorageWarning,
                stacklevel=3,
            )
        write_text(
            path, to_json(settings)
        )  # a study that failed before its first result has no claim
        return mark
    if not path.is_file():
        raise StorageError(
            f"{folder} holds {finished.partition('/')[0]} of which it is not known what study they "
            "belong to; choose another output folder"
        )
    if lost:
        raise StorageError(
            f"{folder} holds results, and it cannot be told whether they are of this study: settings "
            f"of type {lost} hide their contents; choose another output folder"
        )
    if differences := _differences(path, plain(settings)):
        raise StorageError(
            f"{folder} holds a study with other settings ({differences}); choose another output folder, "
            "or delete that one"
        )
    return mark


def digest_of(data: Dataset) -> str:
    """Tells data sets apart by their contents, whatever they are called."""
    return digest({k: v for k, v in describe(data).items() if k != "name"})


def _differences(path: Path, now: Mapping[str, object]) -> str:
    """In which settings a study differs from that in a file, in words; nothing if it does not."""
    try:
        before = read_json(path)
    except StorageError as error:
        return f"unreadable: {error}"
    if "versions" not in before:
        return "written by an earlier version of ntkbayes, which did not record what functions do"
    names = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
    return "differing in: " + ", ".join(names) if names else ""


_NUMERICAL = ("ntkbayes", "jax", "jaxlib", "numpyro", "diffrax", "numpy", "scipy", "scikit-learn")


def circumstances() -> dict[str, object]:
    """What numbers depend on besides the settings: versions, precision, and how JAX draws."""
    told = versions()
    return {
        "random numbers": generator(),
        "precision": str(jax.numpy.result_type(float)),
        "versions": {name: told[name] for name in _NUMERICAL},
    }


def generator() -> dict[str, object]:
    """JAX's switches that random numbers depend on besides the seed."""
    names = ("jax_threefry_partitionable", "jax_random_seed_offset")
    implementation = str(jax.random.key_impl(jax.random.key(0)))
    switches = {name: getattr(jax.config, name) for name in names}
    return {"jax_default_prng_impl": implementation, **switches}


def versions() -> dict[str, str]:
    """Versions of what took part, for the record."""
    names = (*_NUMERICAL, "equinox", "arviz")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


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
            f"{path} must define `study = ntkbayes.app.study.Study(...)`, but "
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
