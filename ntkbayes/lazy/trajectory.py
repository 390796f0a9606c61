"""What is measured along training, and kept.

Shapes: K seeds, T recorded times.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ntkbayes.display import Configured

if TYPE_CHECKING:
    import pandas as pd

Series = Float[np.ndarray, "seeds times"]


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Configured):
    """What was measured while the networks of one width trained.

    *Gap*: between the network and its linearisation trained from the same start by the same steps.
    Logits are in nats, or the unit of real targets; those of a softmax are taken less the mean of their
    point, which changes no probability. Total variations are between the distributions of a point's
    target under the two, in [0, 1]; see `Likelihood.total_variation`.

    Attributes:
        has_end: whether training ends at all: with a ridge, or where finite logits fit the targets.
        step: gradient steps taken.
        time: training time t = η · steps, in the units in which gradient flow is dθ/dt = −∇L.
        drift_train: ‖Θ_t − Θ_0‖ / ‖Θ_0‖ of the full empirical NTK at probes among the training
            points (Frobenius).
        drift_test: the same at probes among the test points.
        distance: ‖θ_t − θ_0‖.
        relative_distance: ‖θ_t − θ_0‖ / ‖θ_0‖.
        loss: with its ridge term, summed over the training points, in nats.
        largest_logit: largest |logit| at the training points.
        gap_train: root mean square over training points and logits of the gap.
        gap_test: the same at the test points.
        worst_gap_train: largest absolute gap at the training points.
        worst_gap_test: the same at the test points.
        variation_train: mean total variation at the training points.
        variation_test: the same at the test points.
        worst_variation_train: largest total variation at the training points.
        worst_variation_test: the same at the test points.
    """

    has_end: bool
    step: Int[np.ndarray, "times"]
    time: Float[np.ndarray, "times"]
    drift_train: Series
    drift_test: Series
    distance: Series
    relative_distance: Series
    loss: Series
    largest_logit: Series
    gap_train: Series
    gap_test: Series
    worst_gap_train: Series
    worst_gap_test: Series
    variation_train: Series
    variation_test: Series
    worst_variation_train: Series
    worst_variation_test: Series

    @classmethod
    def series_names(cls) -> tuple[str, ...]:
        """The attributes that have a value for every seed and time."""
        others = ("has_end", "step", "time")
        return tuple(f.name for f in dataclasses.fields(cls) if f.name not in others)

    @property
    def worst_variation(self) -> Series:
        """Largest total variation at training and test points."""
        return np.maximum(self.worst_variation_train, self.worst_variation_test)

    def growth(self, series: Series) -> float:
        """Ratio of a series at the final time to the same at a tenth of it.

        Of means over seeds; 1 once training has stopped, and if nothing ever moved.
        """
        tenth = int(np.argmin(np.abs(np.log(10 * self.step / self.step[-1]))))
        before, after = float(series[:, tenth].mean()), float(series[:, -1].mean())
        if before == 0:
            return 1.0 if after == 0 else float("inf")
        return after / before

    def to_frame(self) -> "pd.DataFrame":
        """One row per seed and time, one column per series."""
        import pandas as pd

        seeds, times = self.loss.shape
        columns = {"seed": np.repeat(np.arange(seeds), times)}
        columns |= {name: np.tile(getattr(self, name), seeds) for name in ("step", "time")}
        columns |= {name: getattr(self, name).ravel() for name in self.series_names()}
        return pd.DataFrame(columns)
