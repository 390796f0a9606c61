"""What a study of the lazy regime found, and its files."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ntkbayes.display import Configured
from ntkbayes.errors import StorageError
from ntkbayes.files import load_arrays, save_arrays, to_json, write_text
from ntkbayes.lazy.trajectory import Trajectory
from ntkbayes.lazy.verdict import LAZY_EXPONENT, LEVEL, STOPPED, Regime, Verdict, judge
from ntkbayes.scores.intervals import COLUMN, Over, meaning
from ntkbayes.storage import RunFolder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class LazyResult(Configured):
    """Trajectories of every regime and width, and what they say.

    Attributes:
        trajectories: by regime, then by width.
        settings: of the study, plain data.
    """

    trajectories: Mapping[Regime, Mapping[int, Trajectory]]
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One per regime, in order."""
        return tuple(judge(regime, by_width) for regime, by_width in self.trajectories.items())

    def to_frame(self) -> "pd.DataFrame":
        """All trajectories: one row per regime, width, seed and time."""
        import pandas as pd

        frames = []
        for regime, by_width in self.trajectories.items():
            for width, trajectory in by_width.items():
                frame = trajectory.to_frame()
                frame.insert(0, "ridge", regime.ridge)
                frame.insert(1, "smoothing", regime.smoothing)
                frame.insert(2, "anchor", str(regime.anchor))
                frame.insert(3, "shifted", regime.shifted)
                frame.insert(4, "width", width)
                frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def table(self) -> "pd.DataFrame":
        """The verdicts: one row per regime, numbers as in `Verdict`, and what intervals are over."""
        import pandas as pd

        rows = []
        for v in self.verdicts:
            row: dict[str, object] = {"regime": str(v.regime), "verdict": str(v.finding)}
            laws = {
                "drift": v.drift,
                "peak drift": v.peak_drift,
                "gap": v.gap,
                "peak gap": v.peak_gap,
            }
            for name, law in laws.items():
                row[f"{name} exponent"] = law.exponent
                row |= {f"{name} exponent lower": law.lower, f"{name} exponent upper": law.upper}
            row |= {"drift growth": v.drift_growth, "logit growth": v.logit_growth}
            row |= {"trusted within": v.trusted_within, "peak within": v.peak_within}
            row[COLUMN] = meaning(Over.INITIALISATIONS, LEVEL)
            rows.append(row)
        return pd.DataFrame(rows).set_index("regime")

    def save(self, folder: Path) -> None:
        """Write lazy.csv (all trajectories) and lazy.json (settings, thresholds, verdicts).

        Raises:
            StorageError: the folder cannot be written to.
        """
        summary = {
            "settings": dict(self.settings),
            "thresholds": {
                "lazy exponent": LAZY_EXPONENT,
                "stopped": STOPPED,
                "level of intervals": LEVEL,
                "intervals are over": str(Over.INITIALISATIONS),
            },
            "verdicts": [dataclasses.asdict(v) | {"text": str(v)} for v in self.verdicts],
        }
        write_text(folder / "lazy.json", to_json(summary))
        write_text(folder / "lazy.csv", self.to_frame().to_csv(index=False))


class TrajectoryFolder(RunFolder):
    """A run folder whose results are trajectories, one per regime and width.

    Args:
        path: of the folder, made if need be.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__(path, results="runs/*.npz")

    def has(self, regime: Regime, width: int) -> bool:
        """Whether the folder holds that trajectory."""
        return self._file(regime, width).exists()

    def load(self, regime: Regime, width: int) -> Trajectory:
        """A trajectory that `save` wrote.

        Raises:
            StorageError: the file is broken, or not one of ours.
        """
        path = self._file(regime, width)
        names = [f.name for f in dataclasses.fields(Trajectory)]
        try:
            arrays = load_arrays(path)
            series = {name: arrays[name] for name in names if name != "has_end"}
            trajectory = Trajectory(has_end=bool(arrays["has_end"]), **series)
            _require_consistent(trajectory)
        except (StorageError, KeyError, ValueError) as error:
            raise StorageError(
                f"{path} is not a whole trajectory of this version of ntkbayes ({error}); delete it "
                "and run again"
            ) from error
        return trajectory

    def save(self, regime: Regime, width: int, trajectory: Trajectory) -> None:
        """Write one trajectory.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
        """
        arrays = {f.name: getattr(trajectory, f.name) for f in dataclasses.fields(trajectory)}
        save_arrays(self._file(regime, width), arrays)

    def _file(self, regime: Regime, width: int) -> Path:
        return self.path / "runs" / f"{regime.slug}-width{width}.npz"


def _require_consistent(trajectory: Trajectory) -> None:
    """Raises ValueError where the series do not fit each other."""
    times, seeds = len(np.atleast_1d(trajectory.step)), len(np.atleast_1d(trajectory.loss))
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("step", "time"), (times,))
    shapes |= dict.fromkeys(Trajectory.series_names(), (seeds, times))
    for name, expected in shapes.items():
        values = getattr(trajectory, name)
        if values.shape != expected or values.dtype.kind not in "fiu" or times < 1 or seeds < 1:
            raise ValueError(f"{name} has the shape {values.shape}, not {expected}")
