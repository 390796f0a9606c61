"""What measurements along training say about a regime: lazy, not lazy, or undecided.

All thresholds are here, and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from ntkbayes import ranges
from ntkbayes.errors import ConfigurationError
from ntkbayes.lazy.measure import Trajectory
from ntkbayes.ranges import Range

LAZY_EXPONENT = -0.25
"""Drift falls with width if the whole interval of its exponent is below this. Theory says −1/2 at
least, no fall at all would be 0: halfway between."""
STOPPED = 1.1
"""Training has stopped if neither the drift nor the largest logit grew by more than this factor over
the last tenfold of training time."""
LEVEL = 0.95
"""Coverage of the intervals of exponents."""


@dataclass(frozen=True)
class Regime:
    """How the networks are trained: a ridge ≥ 0, and label smoothing of the targets, 0 to 1.

    Raises:
        ConfigurationError: a number is outside its range.
    """

    ridge: float
    smoothing: float

    def __post_init__(self) -> None:
        ridge = ranges.real("the ridge", self.ridge, Range.NOT_NEGATIVE_FINITE)
        smoothing = ranges.real("smoothing", self.smoothing, Range.CLOSED_UNIT)
        object.__setattr__(self, "ridge", float(ridge))
        object.__setattr__(self, "smoothing", float(smoothing))

    def __str__(self) -> str:
        ridge = f"ridge {_shortest(self.ridge)}" if self.ridge else "no ridge"
        smoothing = f"smoothing {_shortest(self.smoothing)}" if self.smoothing else "one-hot"
        return f"{ridge}, {smoothing}"

    @property
    def slug(self) -> str:
        """Its name in file names."""
        return f"ridge{_shortest(self.ridge)}-smoothing{_shortest(self.smoothing)}"

    @property
    def can_stop(self) -> bool:
        """Whether training ever ends: not without ridge on one-hot targets (THEORY 1, claim 3)."""
        return self.ridge > 0 or self.smoothing > 0


def _shortest(number: float) -> str:
    """The shortest text that is this number and no other."""
    return repr(float(number)).removesuffix(".0")


@dataclass(frozen=True)
class PowerLaw:
    """values ≈ factor · width^exponent, by least squares of log values on log widths.

    Attributes:
        exponent: the slope.
        lower, upper: ends of its `LEVEL` interval by Student's t, with one value a seed and width
            taken as independent; infinite for two values.
        factor: of the fitted line.
    """

    exponent: float
    lower: float
    upper: float
    factor: float

    @classmethod
    def fit(
        cls, widths: Float[np.ndarray, "widths"], values: Float[np.ndarray, "widths seeds"]
    ) -> "PowerLaw":
        """From one value a width and seed.

        Raises:
            ConfigurationError: fewer than two different widths, or a value that is not positive.
        """
        from scipy import stats

        if len(set(widths.tolist())) < 2:
            raise ConfigurationError(
                f"an exponent needs at least two different widths; got {widths.tolist()}"
            )
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ConfigurationError(
                "an exponent needs positive, finite values; got a smallest of "
                f"{np.min(values):g} and a largest of {np.max(values):g}"
            )
        x = np.repeat(np.log(widths), values.shape[1])
        fit = stats.linregress(x, np.log(values).ravel())
        freedom = x.size - 2
        reach = stats.t.ppf((1 + LEVEL) / 2, freedom) * fit.stderr if freedom else np.inf
        return cls(
            exponent=float(fit.slope),
            lower=float(fit.slope - reach),
            upper=float(fit.slope + reach),
            factor=float(np.exp(fit.intercept)),
        )

    def __call__(self, widths: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
        """The fitted line."""
        return self.factor * widths**self.exponent

    def __str__(self) -> str:
        return f"width^{self.exponent:.2f} [{self.lower:.2f}, {self.upper:.2f}]"


class Finding(StrEnum):
    """What a verdict says."""

    LAZY = "lazy"
    NOT_LAZY = "not lazy"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Verdict:
    """Whether one regime is lazy, and the numbers that say so.

    Attributes:
        regime: how the networks were trained.
        finding: lazy, not lazy or undecided.
        reason: one sentence in plain words.
        drift: of the NTK at training probes at the final time, against width.
        gap: RMS gap to the linearisation at test points at the final time, against width.
        width: the largest one, to which the following belong.
        drift_growth: of the drift at training probes over the last tenfold of training time.
        logit_growth: of the largest logit, likewise.
        trusted_within: largest total variation between the class probabilities of a network and of
            its linearisation, over seeds, training and test points, at the final time.
    """

    regime: Regime
    finding: Finding
    reason: str
    drift: PowerLaw
    gap: PowerLaw
    width: int
    drift_growth: float
    logit_growth: float
    trusted_within: float

    def __str__(self) -> str:
        return f"{self.regime}: {self.finding}: {self.reason}"


def judge(regime: Regime, trajectories: Mapping[int, Trajectory]) -> Verdict:
    """The verdict on one regime, from its trajectories by width.

    * lazy: the drift falls with width (`LAZY_EXPONENT`), and training has stopped (`STOPPED`);
    * not lazy: drift and largest logit still grow where no ridge and no smoothing ever stops them,
      or training has stopped and the drift does not fall with width;
    * undecided: anything else.

    Raises:
        ConfigurationError: fewer than two widths.
    """
    widths = np.array(sorted(trajectories))
    final = {
        name: np.stack([getattr(trajectories[w], name)[:, -1] for w in widths])
        for name in ("drift_train", "gap_test")
    }
    drift = PowerLaw.fit(widths.astype(float), final["drift_train"])
    gap = PowerLaw.fit(widths.astype(float), final["gap_test"])
    widest = trajectories[int(widths[-1])]
    drift_growth = widest.growth(widest.drift_train)
    logit_growth = widest.growth(widest.largest_logit)
    within = float(widest.worst_variation[:, -1].max())

    falls, flat = drift.upper < LAZY_EXPONENT, drift.lower >= LAZY_EXPONENT
    stopped = drift_growth <= STOPPED and logit_growth <= STOPPED
    growing = drift_growth > STOPPED and logit_growth > STOPPED
    growth = (
        f"over the last tenfold of training time the drift grew {drift_growth:.2f} times and the "
        f"largest logit {logit_growth:.2f} times"
    )
    if not regime.can_stop and growing:
        gained = _gained_a_decade(widest)
        finding, reason = (
            Finding.NOT_LAZY,
            (
                f"drift and logits are still growing, as log t: {growth}, by {gained:.1f}; there is "
                "neither a ridge nor smoothing to stop them"
            ),
        )
    elif stopped and falls and regime.can_stop:
        finding, reason = (
            Finding.LAZY,
            (
                f"drift falls as {drift}; kernel laws can be trusted within {within:.2g} in probability "
                f"at width {widths[-1]}"
            ),
        )
    elif stopped and flat:
        finding, reason = Finding.NOT_LAZY, f"drift does not fall with width: {drift}"
    elif not regime.can_stop:
        finding, reason = (
            Finding.UNDECIDED,
            (
                f"without ridge and smoothing logits grow without end, but here {growth}; train longer "
                "to see it"
            ),
        )
    elif not stopped:
        finding, reason = (
            Finding.UNDECIDED,
            (
                f"drift has gone as {drift} so far, but training has not ended: {growth}; train longer"
            ),
        )
    else:
        finding, reason = (
            Finding.UNDECIDED,
            (
                f"the exponent of the drift is not known well enough: {drift}; take more seeds or widths"
            ),
        )
    return Verdict(
        regime=regime,
        finding=finding,
        reason=reason,
        drift=drift,
        gap=gap,
        width=int(widths[-1]),
        drift_growth=drift_growth,
        logit_growth=logit_growth,
        trusted_within=within,
    )


def _gained_a_decade(trajectory: Trajectory) -> float:
    """What the largest logit gained over the last tenfold of training time, mean over seeds."""
    logit = trajectory.largest_logit.mean(axis=0)
    tenth = np.interp(np.log(trajectory.time[-1] / 10), np.log(trajectory.time), logit)
    return float(logit[-1] - tenth)
