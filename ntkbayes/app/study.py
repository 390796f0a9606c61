"""The main job: data in, a comparison of laws and a report out, restartable law by law."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from jaxtyping import PRNGKeyArray
from threadpoolctl import threadpool_limits

from ntkbayes import datasets, ranges
from ntkbayes.app import budget, report, ridges
from ntkbayes.app.anatomies import anatomy_of
from ntkbayes.app.baselines import BASELINES, baselines_for, work_of_baselines
from ntkbayes.app.clock import clock
from ntkbayes.app.evaluation import evaluated
from ntkbayes.app.methods import default_methods
from ntkbayes.arguments import require
from ntkbayes.comparison import Comparison, compare, key_of
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset, require_same_classes
from ntkbayes.description import describe, digest
from ntkbayes.display import Configured, brief
from ntkbayes.errors import ConfigurationError
from ntkbayes.files import plain
from ntkbayes.laws import Method
from ntkbayes.laws.method import require_method
from ntkbayes.likelihood import Likelihood, Tempered, default_likelihood
from ntkbayes.linalg import require_float64
from ntkbayes.memory import Memory
from ntkbayes.predictions import Predictions
from ntkbayes.priors.prior import NTKPrior, require_prior
from ntkbayes.ranges import Range
from ntkbayes.selection import (
    GivenRidge,
    LikelihoodChoice,
    LikelihoodRule,
    NormalByEvidence,
    RidgeChoice,
    RidgeRule,
)
from ntkbayes.storage import (
    Announce,
    LawFolder,
    LawRecord,
    circumstances,
    configurations_in,
    digest_of_data,
    has_ended,
    keep_fit,
    summary_files,
    versions,
)
from ntkbayes.work import in_words


@dataclass(frozen=True, repr=False)
class Study(Configured):
    """Everything the main job needs to know.

    Attributes:
        data: a data set, or the name of one in `datasets.NAMES`.
        prior: network and ridge.
        likelihood: by default one logit for two classes, softmax for more, and of real targets a Normal
            one. A rule, such as `NormalByEvidence()`, which is the default of real targets, chooses its
            parameters, and the mean of a prior whose own is 0, from the training points alone.
        methods: by the name that tables show.
        smoothing: of the training targets, see `Dataset.smooth`.
        test: points to test on, with the columns and classes of the data. By default a share of the
            data is held out.
        test_share: that share; of no effect if there are test points.
        standardise: whether features are, each by its training points; not where they share a scale
            that means something, as pixels do.
        baselines: whether the base rate and scikit-learn's baselines take part.
        seed: of everything random.
        ridge: how it is chosen, from the training points alone; by default it is the prior's own.
            Another rule, such as `RidgeByEvidence()`, does without that.
        temperature: T, by which every fit divides the log likelihood: Bayesian laws are tempered
            posteriors, cold for T < 1 (THEORY 9). Predictions, scores and the choices of the ridge and
            of the likelihood's parameters are at T = 1.
        max_seconds: that the laws together may take, as predicted (`Method.work`; the choice of the
            ridge comes on top). The longest are left out until the others stay below, unless the folder
            has them already, and the report says so.

    Raises:
        ConfigurationError: the seed is negative, the temperature no positive number, the likelihood
            tempered already, a method has the name of a baseline, or the ridge is no rule.
    """

    data: Dataset | str
    prior: NTKPrior
    likelihood: Likelihood | LikelihoodRule | None = None
    methods: Mapping[str, Method] = field(default_factory=default_methods)
    smoothing: float = 0.0
    test_share: float = 0.25
    standardise: bool = True
    baselines: bool = True
    seed: int = 0
    ridge: RidgeRule = field(default_factory=GivenRidge)
    test: Dataset | None = None
    max_seconds: float = math.inf
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_prior(_CALL, "prior", self.prior)
        if not isinstance(self.data, str):
            require_dataset(_CALL, "data", self.data)
        if self.test is not None:
            require_dataset("Study(data=data, test=test, prior=prior)", "test", self.test)
        require(_CALL, "methods", self.methods, Mapping, _how_to_name)
        for name, method in self.methods.items():
            require_method(_CALL, f"methods[{name!r}]", method)
        object.__setattr__(self, "seed", ranges.seed(self.seed))
        for name, within in (("smoothing", Range.CLOSED_UNIT), ("test_share", Range.OPEN_UNIT)):
            share = ranges.real(name, getattr(self, name), within)
            object.__setattr__(self, name, float(share))
        temperature = float(ranges.real("the temperature", self.temperature, Range.POSITIVE_FINITE))
        object.__setattr__(self, "temperature", temperature)
        if isinstance(self.likelihood, Tempered):
            raise ConfigurationError(
                f"a study is tempered as a whole: give {brief(self.likelihood.untempered)} and "
                f"temperature={float(self.likelihood.temperature):g}"
            )
        ranges.real("max_seconds", self.max_seconds, Range.POSITIVE)
        if both := [name for name in self.methods if name in self._baselines]:
            raise ConfigurationError(
                f"{both[0]!r} is the name of a baseline; rename that law, or set baselines=False"
            )
        if not isinstance(self.ridge, RidgeRule):
            raise ConfigurationError(
                f"a study's ridge is a rule, such as RidgeByEvidence(), not {self.ridge!r}; a number "
                "goes into its prior, NTKPrior(network, ridge=0.1)"
            )

    def run(
        self,
        folder: str | Path,
        *,
        command: str = "",
        files: Mapping[str, str] = MappingProxyType({}),
        announce: Announce = lambda what: nullcontext(),
        progress: bool = False,
    ) -> Comparison:
        """Fit every law, compare them on held-out data and write the report.

        Each law is written as soon as it is fitted, and not fitted again if the folder has it. So the
        same folder takes fewer laws, more, or laws with other settings, as long as they share
        everything else: `identity`.

        Args:
            folder: for the files, see `storage`.
            command: that reproduces the study, for the report.
            files: texts for the folder besides, by name.
            announce: called with what is about to happen; its context lasts as long as that.
            progress: show progress bars for laws that draw.

        Raises:
            FolderInUseError: another run has the folder.
            StorageError: the folder cannot be written to, or its laws have another identity.
            NTKBayesError: the data or a law is at fault, see `Method.fit`.
        """
        require_float64()
        report.require_drawing()
        # The split has the seed's own key, so that `data.split` gives the same by hand; the rest have
        # keys made from it by name.
        key = jax.random.key(self.seed)
        fit_key, draw_key = key_of(key, "fits of the study"), key_of(key, "draws of the study")
        train, test = self.parts()
        shared = {
            "training points": train.num_points,
            "test points": test.num_points,
            "features": train.num_features,
            **self.identity(),
        }
        with _blas_threads(train.num_points), LawFolder(folder) as into:
            into.claim(shared)
            asked = self.laws()
            into.expect(asked)
            into.finish(files)
            left_out = self._left_out(train, test, into, announce)
            within = {name: law for name, law in self.methods.items() if name not in left_out}
            laws = {name: law for name, law in asked.items() if name not in left_out}
            into.expect(laws)
            if within:
                with announce(f"memory needed at the peak: {self._require_memory(within, train)}"):
                    pass
            fitted_to = train.smooth(self.smoothing) if self.smoothing else train
            chosen = self._likelihood(fitted_to)
            ridge_key = key_of(fit_key, "ridge of the prior")
            choice = self._choice(chosen, fitted_to, into, ridge_key, progress, announce)
            prior = chosen.prior.with_ridge(choice.ridge)
            settings = {
                **shared,
                "ridge": ridges.told(self.ridge, choice),
                "prior": describe(prior),
                "likelihood": describe(chosen.likelihood),
                "likelihood chosen": chosen.reason,
                "temperature": self.temperature,
                "laws": laws,
                **budget.told(left_out),
                "command": command,
                "versions": versions(),
            }
            if told := self.points.preparation_told:
                settings["table"] = told
            into.begin(settings, self.seed)
            records: dict[str, LawRecord] = {}
            for name, obtain in self._jobs(
                prior,
                chosen.likelihood.tempered(self.temperature),
                fitted_to,
                train,
                test,
                fit_key,
                draw_key,
                progress,
                into,
                announce,
            ):
                if name not in laws:
                    continue
                if into.has(name):
                    with announce(f"{name}, already fitted"):
                        records[name] = into.load(name)
                    continue
                with announce(name):
                    records[name] = obtain()
                    into.save(records[name])
            with announce("report"):
                comparison = compare(
                    {name: record.predictions for name, record in records.items()},
                    test,
                    key=draw_key,
                    seed=self.seed,
                    settings=plain(settings),
                )
                comparison = dataclasses.replace(
                    comparison,
                    training={n: r.training for n, r in records.items() if r.training is not None},
                    surfaces={n: r.surface for n, r in records.items() if r.surface is not None},
                )
                tempered = chosen.likelihood.tempered(self.temperature)
                if found := anatomy_of(comparison, prior, fitted_to, tempered):
                    with_anatomy = {**comparison.settings, "anatomy": found.plain}
                    comparison = dataclasses.replace(comparison, settings=with_anatomy)
                into.finish(summary_files(comparison, into.configurations))
                into.finish({"report.html": report.page(comparison, into.path)})
                into.end()
        return comparison

    def is_finished(self, folder: str | Path) -> bool:
        """Whether `run` has written its last file: the folder has the comparison of these laws.

        Raises:
            StorageError: a file there is broken.
        """
        folder = Path(folder)
        own = {name: digest(law) for name, law in self.laws().items()}
        left_out = budget.left_out_in(folder) if self.max_seconds < math.inf else {}
        kept = {name: digest for name, digest in own.items() if name not in left_out}
        return has_ended(folder) and configurations_in(folder) == kept

    @property
    def points(self) -> Dataset:
        """The data, loaded if they are a name."""
        return datasets.load(self.data) if isinstance(self.data, str) else self.data

    def parts(self) -> tuple[Dataset, Dataset]:
        """Training and test points, on one scale: `data.split(jax.random.key(seed))`, unless there are
        test points.

        Raises:
            ConfigurationError: the test points have other classes.
            DataError: they have other columns, or there are too few points to split.
        """
        data, test = self.points, self.test
        if test is None:
            key = jax.random.key(self.seed)
            return data.split(key, test_share=self.test_share, standardise=self.standardise)
        require_same_classes(data, test)
        train, test = data.made_ready(test, standardise=self.standardise)
        train.check_features(test)
        return train, test

    def identity(self) -> dict[str, object]:
        """What all laws share and the results depend on, as plain data; the rest is `laws`.

        Raises:
            UnknownNameError: there is no such data set.
        """
        data = self.points
        return {
            "data": data.name,
            "data digest": digest_of_data(data),
            "classes": [str(name) for name in data.class_names or ()],
            "prior": describe(self.prior),
            "ridge": describe(self.ridge),
            "likelihood": describe(self._asked_likelihood(data)),
            "smoothing": self.smoothing,
            "test share": self.test_share if self.test is None else None,
            "test data digest": None if self.test is None else digest_of_data(self.test),
            "standardise": self.standardise,
            "seed": self.seed,
            # Folders of studies that knew no temperature are continued at 1.
            **({} if self.temperature == 1 else {"temperature": self.temperature}),
            **circumstances(),
        }

    def laws(self) -> dict[str, object]:
        """The settings that are a law's own, as plain data, by name; the baselines too."""
        baselines = {name: {"type": "baseline"} for name in self._baselines}
        return {name: describe(method) for name, method in self.methods.items()} | baselines

    @property
    def _baselines(self) -> Mapping[str, Callable[..., Predictions]]:
        if not self.baselines:
            return {}
        if isinstance(self.data, str):  # the data sets that have names are of classes
            return BASELINES
        return baselines_for(self.data, self.likelihood)

    def _left_out(
        self, train: Dataset, test: Dataset, into: LawFolder, announce: Announce
    ) -> dict[str, float]:
        """The laws that would take too long, and their seconds."""
        if self.max_seconds == math.inf:
            return {}
        new = test.num_points
        works = {
            name: method.work(self.prior, train, num_new=new, likelihood=self._given_likelihood)
            for name, method in self.methods.items()
        }
        works |= work_of_baselines(train, self._baselines)
        needed = {name: work for name, work in works.items() if not into.has(name)}
        left_out = budget.beyond(needed, self.max_seconds)
        for name in left_out:
            with announce(f"{name} is left out: it would take {in_words(left_out[name])}"):
                pass
        return left_out

    def _require_memory(self, methods: Mapping[str, Method], train: Dataset) -> Memory:
        """What the greediest law needs. Raises InsufficientMemoryError if there is not as much."""
        needs = (
            method.memory(self.prior, train, likelihood=self._given_likelihood)
            for method in (*self.ridge.methods, *methods.values())
        )
        peak = max(needs, key=lambda memory: memory.total)
        peak.require()
        return peak

    @property
    def _given_likelihood(self) -> Likelihood | None:
        """Unless a rule is to choose its parameters, of which time and memory know nothing."""
        return None if isinstance(self.likelihood, LikelihoodRule) else self.likelihood

    def _asked_likelihood(self, data: Dataset) -> Likelihood | LikelihoodRule:
        if self.likelihood is not None:
            return self.likelihood
        return NormalByEvidence() if data.class_names is None else default_likelihood(data)

    def _likelihood(self, train: Dataset) -> LikelihoodChoice:
        """The likelihood, and the prior with the mean that goes with it."""
        asked = self._asked_likelihood(train)
        if isinstance(asked, LikelihoodRule):
            return asked.choose(self.prior, train, ridge=self.ridge)
        return LikelihoodChoice(asked, self.prior, "")

    def _choice(
        self,
        chosen: LikelihoodChoice,
        train: Dataset,
        into: LawFolder,
        key: PRNGKeyArray,
        progress: bool,
        announce: Announce,
    ) -> RidgeChoice:
        """The ridge: that of the folder, if one was chosen there already."""
        if not self.ridge.methods:
            return self.ridge.choose(chosen.prior, train, key=key)
        if (choice := ridges.recorded(into)) is not None:
            return choice
        with announce(f"ridge ({self.ridge.name})"):
            rule = _with_bar(self.ridge) if progress else self.ridge
            choice = rule.choose(chosen.prior, train, key=key, likelihood=chosen.likelihood)
        ridges.record(into, self.ridge, choice)
        return choice

    def _jobs(
        self,
        prior: NTKPrior,
        likelihood: Likelihood,
        fitted_to: Dataset,
        train: Dataset,
        test: Dataset,
        fit_key: PRNGKeyArray,
        draw_key: PRNGKeyArray,
        progress: bool,
        into: LawFolder,
        announce: Announce,
    ) -> Iterator[tuple[str, Callable[[], LawRecord]]]:
        def law_job(name: str, method: Method) -> LawRecord:
            with clock() as fit:
                key = key_of(fit_key, name)
                law = method.fit(prior, fitted_to, key=key, likelihood=likelihood)
                took, compiling = fit.seconds, fit.compile_seconds
            if why_not := keep_fit(law, into.path_of(name)):
                with announce(f"{name}, not kept for `ntkbayes predict`: {why_not}"):
                    pass
            return evaluated(law, name, fitted_to, test, draw_key, took, compiling)

        for name, method in self.methods.items():
            method = _with_bar(method) if progress else method
            yield name, lambda name=name, method=method: law_job(name, method)  # type: ignore[misc]
        for name, baseline in self._baselines.items():
            key = key_of(fit_key, name)
            yield name, lambda fit=baseline, key=key: LawRecord(fit(train, test, key=key))  # type: ignore[misc]


_FEW_POINTS = 500
"""Two threads of BLAS factor and solve matrices of so many rows no faster than one."""


def _blas_threads(num_points: int) -> threadpool_limits:
    """One thread of BLAS for few points: beside another process several wait for each other, and
    scikit-learn's classifier then takes a hundred times as long."""
    return threadpool_limits(1 if num_points <= _FEW_POINTS else None, user_api="blas")


def _with_bar[Thing: Method | RidgeRule](thing: Thing) -> Thing:
    """The same with its progress shown, where it has some."""
    if not hasattr(thing, "progress"):
        return thing
    return dataclasses.replace(thing, progress=True)  # type: ignore[call-arg]


_CALL = "Study(data=data, prior=prior, methods=methods)"


def _how_to_name(given: Any) -> str:
    return "name them, as in methods={'MAP': nb.MAP(), 'NUTS': nb.NUTS()}"
