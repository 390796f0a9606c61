"""The study of the lazy regime: regimes × widths × seeds on one data set, restartable run by run.

folder/
  study.json                   settings: whose folder this is
  runs/REGIME-widthWIDTH.npz   a Trajectory
  lazy.csv, lazy.json          see LazyResult.save
  lazy.png, lazy.svg           see lazy.plots
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np

from ntkbayes import datasets, networks, ranges
from ntkbayes.datasets import Dataset
from ntkbayes.description import describe
from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, DivergenceError, KernelScaleWarning
from ntkbayes.lazy import plots
from ntkbayes.lazy.measure import (
    follow,
    initialise,
    kernel_scale,
    recorded_steps,
    stable_step,
)
from ntkbayes.lazy.result import LazyResult, TrajectoryFolder
from ntkbayes.lazy.setting import Setting
from ntkbayes.lazy.trajectory import Trajectory
from ntkbayes.lazy.verdict import KERNEL_EXPONENT, PowerLaw, Regime
from ntkbayes.likelihood import Likelihood, Ordinal
from ntkbayes.networks import Network, Params
from ntkbayes.ranges import Range
from ntkbayes.selection.likelihood_rules import LikelihoodRule, OrdinalAtFrequencies
from ntkbayes.storage import Announce, circumstances, digest_of_data, versions
from ntkbayes.training.networks import Anchor, Trainer

Family = Callable[[int, int], Network]
"""(width, number of outputs) -> Network."""


def four_regimes(
    *, ridge: float = 0.1, smoothing: float = 0.2, anchor: str = Anchor.INIT, shifted: bool = False
) -> tuple[Regime, ...]:
    """{ridge, no ridge} × {targets as given, smoothed}.

    Args:
        ridge, smoothing, anchor, shifted: see `Regime`.

    Raises:
        ConfigurationError: ridge or smoothing is outside its range, or 0: there would be two.
        UnknownNameError: there is no such anchor.
    """
    if smoothing == 0:
        raise ConfigurationError(_against_none("smoothing", smoothing))
    two = two_regimes(ridge=ridge, anchor=anchor, shifted=shifted)
    return tuple(replace(regime, smoothing=s) for regime in two for s in (0.0, smoothing))


def two_regimes(
    *, ridge: float = 0.1, anchor: str = Anchor.INIT, shifted: bool = False
) -> tuple[Regime, ...]:
    """{ridge, no ridge}, for targets that cannot be smoothed: numbers, counts, ordered classes.

    Arguments and errors are those of `four_regimes`.
    """
    if ridge == 0:
        raise ConfigurationError(_against_none("ridge", ridge))
    return Regime(ridge, 0.0, anchor, shifted), Regime(0.0, 0.0, shifted=shifted)


def _against_none(name: str, value: float) -> str:
    return f"the study sets a {name} against none: give a {name} > 0; got {value!r}"


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
        regimes: by default `four_regimes` for classes, `two_regimes` for other targets.
        num_seeds: networks of each width, each from its own initialisation.
        num_steps: full-batch gradient steps.
        likelihood: by default one logit for two classes, softmax for more, and for real targets Normal
            with noise that maximises the evidence; or another rule of `ntkbayes.selection`.
        mean: added to every network's logits, a number or one per logit; a rule chooses it if it is 0.
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
    regimes: tuple[Regime, ...] | None = None
    num_seeds: int = 3
    num_steps: int = 12_000
    likelihood: Likelihood | LikelihoodRule | None = None
    mean: float | tuple[float, ...] = 0.0
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
        if self.regimes is not None and not self.regimes:
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

        Warns:
            KernelScaleWarning: the NTK at initialisation depends on the width, so that one ridge is
                another prior at each.
        """
        subset_key, split_key, probe_key, init_key = jax.random.split(jax.random.key(self.seed), 4)
        data = datasets.load(self.data) if isinstance(self.data, str) else self.data
        if self.max_points < data.num_points:
            data = data.subset(subset_key, self.max_points)
        train, test = data.split(split_key, test_share=self.test_share)
        widths, regimes = sorted(set(self.widths)), self._regimes_for(data)
        ridge = max(regime.ridge for regime in regimes)

        def widest(num_outputs: int) -> Network:
            return self.family(widths[-1], num_outputs)

        setting = Setting.of(self.likelihood, self.mean, train, widest, init_key, ridge=ridge)
        likelihood = setting.likelihood
        points = {
            amount: setting.points(
                train.smooth(amount) if amount else train,
                test,
                num_probes=self.num_probes,
                key=probe_key,
            )
            for amount in {regime.smoothing for regime in regimes}
        }
        for regime in regimes:
            points[regime.smoothing].have_end(likelihood, regime.ridge)  # an error if nobody knows
        any_points = next(iter(points.values()))
        family = {w: self.family(w, any_points.targets.shape[1]) for w in widths}
        settings = self._settings(data, setting, regimes, family)
        with TrajectoryFolder(folder) as into:
            into.claim(settings)
            into.finish(files)

            def start(width: int) -> Params:
                key = jax.random.fold_in(init_key, width)
                return initialise(family[width], any_points, key, self.num_seeds)

            pulled = max(regimes, key=lambda regime: regime.ridge)
            with announce("step size"):
                step_sizes = [
                    stable_step(network, start(width), any_points, likelihood, pulled)
                    for width, network in family.items()
                ]
            step_size = min(step_sizes)
            with announce("NTK at initialisation"):
                scales = [kernel_scale(family[w], start(w), any_points) for w in widths]
                kernel = PowerLaw.fit(np.array(widths, float), np.stack(scales))
            _warn_of_scale(kernel, ridge)
            trajectories: dict[Regime, dict[int, Trajectory]] = {regime: {} for regime in regimes}
            for regime in regimes:
                for width, network in family.items():
                    what = f"{regime}, width {width}"
                    if into.has(regime, width):
                        with announce(f"{what}, already trained"):
                            trajectories[regime][width] = into.load(regime, width)
                        continue
                    trainer = Trainer(
                        network,
                        likelihood,
                        ridge=regime.ridge,
                        step_size=step_size,
                        anchor=regime.anchor,
                    )
                    with announce(what), _naming(what):
                        trajectory = follow(
                            trainer,
                            start(width),
                            points[regime.smoothing],
                            steps=recorded_steps(self.num_steps),
                            shifted=regime.shifted,
                        )
                        into.save(regime, width, trajectory)
                    trajectories[regime][width] = trajectory
            with announce("figure"):
                about = {
                    "command": command,
                    "step size": step_size,
                    "NTK at initialisation": str(kernel),
                    "versions": versions(),
                }
                result = LazyResult(trajectories, settings={**settings, **about})
                result.save(into.path)
                plots.write(result, into.path)
        return result

    def _regimes_for(self, data: Dataset) -> tuple[Regime, ...]:
        if self.regimes is not None:
            return self.regimes
        ordered = isinstance(self.likelihood, Ordinal | OrdinalAtFrequencies)
        return two_regimes() if data.class_names is None or ordered else four_regimes()

    def _settings(
        self,
        data: Dataset,
        setting: Setting,
        regimes: tuple[Regime, ...],
        family: dict[int, Network],
    ) -> dict[str, object]:
        return {
            "study": "lazy regime",
            "data": data.name,
            "data digest": digest_of_data(data),
            "points": data.num_points,
            "networks": {str(width): describe(network) for width, network in family.items()},
            "likelihood": describe(setting.likelihood),
            "mean": describe(setting.mean),
            "regimes": [describe(regime) for regime in regimes],
            "seeds": self.num_seeds,
            "steps": self.num_steps,
            "probes": self.num_probes,
            "test share": self.test_share,
            "seed": self.seed,
            **circumstances(),
        }


def _warn_of_scale(kernel: PowerLaw, ridge: float) -> None:
    """Say so if the NTK at initialisation depends on the width, beyond what seeds differ by."""
    is_chance = np.isfinite(kernel.lower) and kernel.lower <= 0 <= kernel.upper
    if abs(kernel.exponent) <= KERNEL_EXPONENT or is_chance:
        return
    consequence = (
        f"the ridge {ridge:g} is another prior GP(m, Θ/ridge) at each width; it would have to be "
        f"proportional to width^{kernel.exponent:.2g} to be the same"
        if ridge
        else "the same training time takes networks of different widths to different ends"
    )
    warnings.warn(
        f"the NTK at initialisation goes as {kernel}: {consequence}. In the NTK parameterisation "
        "it does not depend on the width: weights of variance one, divided by √fan-in in the network",
        KernelScaleWarning,
        stacklevel=3,
    )


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say which run it was that diverged."""
    try:
        yield
    except DivergenceError as error:
        error.args = (f"{what}: {error}",)
        raise
