"""The study of the lazy regime: regimes × widths × seeds on one data set, restartable run by run.

folder/
  study.json                   settings: whose folder this is
  runs/REGIME-widthWIDTH.npz   a `Trajectory`
  lazy.csv, lazy.json          see `LazyResult.save`
  lazy.png, lazy.svg           see `lazy.plots`
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import jax

from ntkbayes import datasets, networks, ranges
from ntkbayes.datasets import Dataset
from ntkbayes.description import describe
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, DivergenceError
from ntkbayes.lazy import plots
from ntkbayes.lazy.measure import (
    Points,
    Trajectory,
    follow,
    initialise,
    recorded_steps,
    require_fitting,
)
from ntkbayes.lazy.result import LazyResult, TrajectoryFolder
from ntkbayes.lazy.verdict import Regime
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.networks import Network, Params
from ntkbayes.ranges import Range
from ntkbayes.storage import Announce, circumstances, digest_of_data, versions
from ntkbayes.training.networks import Trainer, stable_step_size

Family = Callable[[int, int], Network]
"""(width, number of outputs) -> Network."""


def four_regimes(*, ridge: float = 0.1, smoothing: float = 0.2) -> tuple[Regime, ...]:
    """{ridge, no ridge} × {one-hot, smoothed targets}.

    Raises:
        ConfigurationError: ridge or smoothing is outside its range, or 0: there would be two.
    """
    for name, value in (("ridge", ridge), ("smoothing", smoothing)):
        if value == 0:
            raise ConfigurationError(
                f"the study sets a {name} against none: give a {name} > 0; got {value!r}"
            )
    return tuple(Regime(r, s) for r in (ridge, 0.0) for s in (0.0, smoothing))


def perceptrons(width: int, num_outputs: int) -> Network:
    """ReLU networks of two hidden layers."""
    return networks.mlp(depth=2, width=width, num_outputs=num_outputs)


@dataclass(frozen=True, repr=False)
class LazyStudy(Configured):
    """Everything the study needs to know.

    All widths and regimes take the same steps of the same size, so that training times are the
    same: the largest step that is stable, by a margin, at every width (`stable_step_size`).

    Attributes:
        data: a data set, or the name of one in `datasets.NAMES`.
        family: a network for a width and a number of outputs.
        widths: at least two.
        regimes: see `four_regimes`.
        num_seeds: networks of each width, each from its own initialisation.
        num_steps: full-batch gradient steps.
        likelihood: by default one logit for two classes, softmax for more.
        max_points: training and test points together.
        num_probes: points of either set at which the drift of the NTK is measured.
        test_share: part of the points held out.
        seed: of everything random.

    Raises:
        ConfigurationError: a number is outside its range, fewer than two widths, or no regimes.
    """

    data: Dataset | str
    family: Family = perceptrons
    widths: tuple[int, ...] = (64, 128, 256, 512)
    regimes: tuple[Regime, ...] = field(default_factory=four_regimes)
    num_seeds: int = 3
    num_steps: int = 12_000
    likelihood: Likelihood | None = None
    max_points: int = 40
    num_probes: int = 32
    test_share: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        widths = tuple(ranges.whole("widths", width) for width in self.widths)
        object.__setattr__(self, "widths", widths)
        if len(set(self.widths)) < 2:
            raise ConfigurationError(
                f"an exponent needs at least two different widths; got {list(self.widths)}"
            )
        if not self.regimes:
            raise ConfigurationError("there are no regimes to study; see four_regimes()")
        least = {"num_seeds": 1, "num_probes": 1, "max_points": 2, "num_steps": 10}
        for name, at_least in least.items():
            value = ranges.whole(name, getattr(self, name), at_least=at_least)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "seed", ranges.seed(self.seed))
        share = ranges.real("test_share", self.test_share, Range.OPEN_UNIT)
        object.__setattr__(self, "test_share", float(share))

    def run(
        self,
        folder: str | Path,
        *,
        command: str = "",
        files: Mapping[str, str] = MappingProxyType({}),
        announce: Announce = lambda what: nullcontext(),
    ) -> LazyResult:
        """Train, measure, judge and draw.

        Each regime and width is written as soon as it is known, and not trained again if the folder
        has it.

        Args:
            folder: for the files.
            command: that reproduces the study, for the record.
            files: texts for the folder besides, by name.
            announce: called with what is about to happen; its context lasts as long as that.

        Raises:
            FolderInUseError: another run has the folder.
            StorageError: the folder cannot be written to, or holds another study.
            DivergenceError: the loss became NaN or infinite; regime and width are named.
            NTKBayesError: the data or the network is at fault.
        """
        subset_key, split_key, probe_key, init_key = jax.random.split(jax.random.key(self.seed), 4)
        data = datasets.load(self.data) if isinstance(self.data, str) else self.data
        if self.max_points < data.num_points:
            data = data.subset(subset_key, self.max_points)
        train, test = data.split(split_key, test_share=self.test_share)
        likelihood = default_likelihood(data) if self.likelihood is None else self.likelihood
        points = {
            amount: Points.build(
                train.smooth(amount) if amount else train,
                test,
                likelihood,
                num_probes=self.num_probes,
                key=probe_key,
            )
            for amount in {regime.smoothing for regime in self.regimes}
        }
        any_points = next(iter(points.values()))
        family = {w: self.family(w, any_points.targets.shape[1]) for w in sorted(set(self.widths))}
        settings = self._settings(data, likelihood, family)
        with TrajectoryFolder(folder) as into:
            into.claim(settings)
            into.finish(files)

            def start(width: int) -> Params:
                key = jax.random.fold_in(init_key, width)
                return initialise(family[width], any_points, key, self.num_seeds)

            ridge, step_sizes = max(regime.ridge for regime in self.regimes), []
            with announce("step size"):
                for width, network in family.items():
                    params = start(width)
                    require_fitting(network, params, any_points)
                    step_sizes.append(
                        stable_step_size(network, params, any_points.train, likelihood, ridge)
                    )
            step_size = min(step_sizes)
            trajectories: dict[Regime, dict[int, Trajectory]] = {
                regime: {} for regime in self.regimes
            }
            for regime in self.regimes:
                for width, network in family.items():
                    what = f"{regime}, width {width}"
                    if into.has(regime, width):
                        with announce(f"{what}, already trained"):
                            trajectories[regime][width] = into.load(regime, width)
                        continue
                    trainer = Trainer(network, likelihood, ridge=regime.ridge, step_size=step_size)
                    with announce(what), _naming(what):
                        trajectory = follow(
                            trainer,
                            start(width),
                            points[regime.smoothing],
                            steps=recorded_steps(self.num_steps),
                        )
                        into.save(regime, width, trajectory)
                    trajectories[regime][width] = trajectory
            with announce("figure"):
                about = {"command": command, "step size": step_size, "versions": versions()}
                result = LazyResult(trajectories, settings={**settings, **about})
                result.save(into.path)
                plots.write(result, into.path)
        return result

    def _settings(
        self, data: Dataset, likelihood: Likelihood, family: dict[int, Network]
    ) -> dict[str, object]:
        return {
            "study": "lazy regime",
            "data": data.name,
            "data digest": digest_of_data(data),
            "points": data.num_points,
            "networks": {str(width): describe(network) for width, network in family.items()},
            "likelihood": describe(likelihood),
            "regimes": [describe(regime) for regime in self.regimes],
            "seeds": self.num_seeds,
            "steps": self.num_steps,
            "probes": self.num_probes,
            "test share": self.test_share,
            "seed": self.seed,
            **circumstances(),
        }


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say which run it was that diverged."""
    try:
        yield
    except DivergenceError as error:
        error.args = (f"{what}: {error}",)
        raise
