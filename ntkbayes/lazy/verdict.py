"""What measurements along training say about a regime: lazy, not lazy, or undecided.

All thresholds are here, and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from ntkbayes import ranges
from ntkbayes.errors import ConfigurationError
from ntkbayes.lazy.trajectory import Trajectory
from ntkbayes.ranges import Range
from ntkbayes.training.networks import Anchor, require_pull

LAZY_EXPONENT = -0.25
"""Drift falls with width if the whole interval of its exponent is below this. Theory says −1/2 at
least, no fall at all would be 0: halfway between."""
KERNEL_EXPONENT = 0.5
"""A family's NTK at initialisation depends on the width if its exponent is farther from 0 than this. It
is 0 in the NTK parameterisation, 1 in the standard one, −1 in the mean-field one."""
STOPPED = 1.1
"""Training has stopped if neither the drift nor the largest logit grew by more than this factor over
the last tenfold of training time."""
LEVEL = 0.95
"""Coverage of the intervals of exponents."""


@dataclass(frozen=True)
class Regime:
    """How the networks are trained.

    Attributes:
        ridge: weight of ½‖θ − θ0‖², ≥ 0.
        smoothing: of the labels, 0 to 1.
        anchor: where the ridge pulls: "init", to θ0, or "zero", which is weight decay, ½‖θ‖².
        shifted: whether each network's initial function is subtracted.

    Raises:
        ConfigurationError: a number is outside its range; or the anchor is zero, and there is no ridge.
        UnknownNameError: there is no such anchor.
    """

    ridge: float
    smoothing: float
    anchor: Anchor | str = Anchor.INIT
    shifted: bool = False

    def __post_init__(self) -> None:
        ridge = ranges.real("the ridge", self.ridge, Range.NOT_NEGATIVE_FINITE)
        smoothing = ranges.real("smoothing", self.smoothing, Range.CLOSED_UNIT)
        object.__setattr__(self, "ridge", float(ridge))
        object.__setattr__(self, "smoothing", float(smoothing))
        object.__setattr__(self, "anchor", Anchor.named(self.anchor))
        require_pull(self.ridge, self.anchor)

    def __str__(self) -> str:
        ridge = f"ridge {_shortest(self.ridge)}" if self.ridge else "no ridge"
        towards = " towards zero" if self.anchor == Anchor.ZERO else ""
        smoothing = f", smoothing {_shortest(self.smoothing)}" if self.smoothing else ""
        return f"{ridge}{towards}{smoothing}{', shifted' if self.shifted else ''}"

    @property
    def slug(self) -> str:
        """Its name in file names."""
        anchor = "-anchor0" if self.anchor == Anchor.ZERO else ""
        return (
            f"ridge{_shortest(self.ridge)}{anchor}-smoothing{_shortest(self.smoothing)}"
            f"{'-shifted' if self.shifted else ''}"
        )


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
    """What a verdict says.

    Attributes:
        LAZY: "lazy", the kernel stays constant the better the wider the network.
        NOT_LAZY: "not lazy", it does not.
        UNDECIDED: "undecided", the networks do not tell.
    """

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
        peak_drift: the largest drift at any recorded time, against width.
        peak_gap: the largest gap, likewise.
        width: the largest one, to which the following belong.
        drift_growth: of the drift at training probes over the last tenfold of training time.
        logit_growth: of the largest logit, likewise.
        trusted_within: largest total variation between the predictions of a network and of its
            linearisation, over seeds, training and test points, at the final time.
        peak_within: the same over all recorded times.
    """

    regime: Regime
    finding: Finding
    reason: str
    drift: PowerLaw
    gap: PowerLaw
    peak_drift: PowerLaw
    peak_gap: PowerLaw
    width: int
    drift_growth: float
    logit_growth: float
    trusted_within: float
    peak_within: float

    def __str__(self) -> str:
        return f"{self.regime}: {self.finding}: {self.reason}"


def judge(regime: Regime, trajectories: Mapping[int, Trajectory]) -> Verdict:
    """The verdict on one regime, from its trajectories by width.

    "Constant during training" is about all times, so the drift is its peak.

    * lazy: the drift falls with width (`LAZY_EXPONENT`), and training has stopped (`STOPPED`);
    * not lazy: drift and largest logit still grow where nothing ever stops them; or the drift does not
      fall with width, which longer training cannot mend;
    * undecided: anything else.

    Raises:
        ConfigurationError: fewer than two widths.
    """
    widths = np.array(sorted(trajectories))

    def against_width(of: Callable[[Trajectory], np.ndarray]) -> PowerLaw:
        return PowerLaw.fit(widths.astype(float), np.stack([of(trajectories[w]) for w in widths]))

    drift = against_width(lambda t: t.drift_train[:, -1])
    gap = against_width(lambda t: t.gap_test[:, -1])
    peak_drift = against_width(lambda t: t.drift_train.max(axis=1))
    peak_gap = against_width(lambda t: t.gap_test.max(axis=1))
    widest = trajectories[int(widths[-1])]
    drift_growth = widest.growth(widest.drift_train)
    logit_growth = widest.growth(widest.largest_logit)
    within = float(widest.worst_variation[:, -1].max())

    falls, flat = peak_drift.upper < LAZY_EXPONENT, peak_drift.lower >= LAZY_EXPONENT
    stopped = drift_growth <= STOPPED and logit_growth <= STOPPED
    growing = drift_growth > STOPPED and logit_growth > STOPPED
    growth = (
        f"over the last tenfold of training time the drift grew {drift_growth:.2f} times and the "
        f"largest logit {logit_growth:.2f} times"
    )
    if not widest.has_end and growing:
        gained = _gained_a_decade(widest)
        finding, reason = (
            Finding.NOT_LAZY,
            (
                f"drift and logits are still growing, as log t: {growth}, by {gained:.1f}; there is no "
                "ridge to stop them, and no finite logits fit the targets"
            ),
        )
    elif stopped and falls and widest.has_end:
        finding, reason = (
            Finding.LAZY,
            (
                f"drift falls as {drift}, its peak as {peak_drift}; kernel laws can "
                f"be trusted within {within:.2g} in probability at width {widths[-1]}"
            ),
        )
    elif flat:
        finding, reason = Finding.NOT_LAZY, f"drift does not fall with width: {peak_drift}"
        if regime.anchor == Anchor.ZERO:
            reason += (
                "; the ridge pulls towards zero, not towards the initialisation, so weights and kernel "
                f"shrink at any width, and at width {widths[-1]} the largest logit ends at "
                f"{widest.largest_logit[:, -1].mean():.2g}"
            )
    elif not widest.has_end:
        finding, reason = (
            Finding.UNDECIDED,
            (
                "without a ridge, on targets that no finite logits fit, logits grow without end, but "
                f"here {growth}; train longer to see it"
            ),
        )
    elif not stopped:
        finding, reason = (
            Finding.UNDECIDED,
            (
                f"drift has gone as {peak_drift} so far, but training has not ended: {growth}; train "
                "longer"
            ),
        )
    else:
        finding, reason = (
            Finding.UNDECIDED,
            (
                f"the exponent of the drift is not known well enough: {peak_drift}; take more seeds or "
                "widths"
            ),
        )
    return Verdict(
        regime=regime,
        finding=finding,
        reason=reason,
        drift=drift,
        gap=gap,
        peak_drift=peak_drift,
        peak_gap=peak_gap,
        width=int(widths[-1]),
        drift_growth=drift_growth,
        logit_growth=logit_growth,
        trusted_within=within,
        peak_within=float(widest.worst_variation.max()),
    )


def _gained_a_decade(trajectory: Trajectory) -> float:
    """What the largest logit gained over the last tenfold of training time, mean over seeds."""
    logit = trajectory.largest_logit.mean(axis=0)
    tenth = np.interp(np.log(trajectory.time[-1] / 10), np.log(trajectory.time), logit)
    return float(logit[-1] - tenth)
