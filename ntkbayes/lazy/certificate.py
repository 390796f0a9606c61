"""A certificate: whether the kernel view holds for one network, at its own width and ridge."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import Configured
from ntkbayes.lazy.measure import follow, initialise, recorded_steps, stable_step
from ntkbayes.lazy.setting import Setting
from ntkbayes.lazy.trajectory import Trajectory
from ntkbayes.lazy.verdict import STOPPED, Regime
from ntkbayes.likelihood import Likelihood
from ntkbayes.networks import Network
from ntkbayes.ranges import Range
from ntkbayes.selection.likelihood_rules import LikelihoodRule
from ntkbayes.training.networks import Anchor, Trainer


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Configured):
    """Whether kernel laws may be trusted for a network; `print` it.

    Attributes:
        holds: whether training has stopped within the given steps, with no prediction further from the
            linearisation's than `tolerance`.
        tolerance: largest total variation at which the kernel view is said to hold.
        regime: ridge, smoothing, anchor, and whether networks are shifted.
        num_seeds: networks trained, each from its own initialisation.
        num_train, num_test: points at which network and linearisation are compared.
        training_time: t = η · steps.
        drift: ‖Θ_t − Θ_0‖ / ‖Θ_0‖ at the end, mean over seeds, the larger of training and test.
        peak_drift: the largest of any recorded time, likewise.
        drift_growth: of the drift over the last tenfold of training time.
        logit_growth: of the largest logit, likewise.
        variation_train: largest total variation between the predictions of a network and of its
            linearisation, over seeds and training points; see `Likelihood.total_variation`.
        variation_test: the same over test points.
        peak_variation: the largest of any recorded time, over training and test points.
        mean_variation_test: the mean over seeds and test points.
        trajectory: everything that was measured.
    """

    holds: bool
    tolerance: float
    regime: Regime
    num_seeds: int
    num_train: int
    num_test: int
    training_time: float
    drift: float
    peak_drift: float
    drift_growth: float
    logit_growth: float
    variation_train: float
    variation_test: float
    peak_variation: float
    mean_variation_test: float
    trajectory: Trajectory

    @property
    def stopped(self) -> bool:
        """Whether training has stopped (`verdict.STOPPED`)."""
        return max(self.drift_growth, self.logit_growth) <= STOPPED

    def __str__(self) -> str:
        worst = max(self.variation_train, self.variation_test)
        if self.holds:
            head = f"The kernel view holds within {worst:.2g} in probability"
        elif worst > self.tolerance:
            head = f"The kernel view does not hold: probabilities are off by up to {worst:.2g}"
        else:
            head = "The kernel view is not certified: training has not stopped"
        ended = (
            "has stopped"
            if self.stopped
            else "has not stopped; train longer (num_steps)"
            if self.trajectory.has_end
            else "has not stopped, and without ridge on such targets never will"
        )
        lines = [
            f"{head} ({self.regime}; tolerance {self.tolerance:g}).",
            f"  networks          {self.num_seeds}, trained to t = {self.training_time:.4g} "
            f"({self.trajectory.step[-1]} steps) on {self.num_train} points",
            f"  NTK drift         {self.drift:.3g} of its norm, {self.peak_drift:.3g} at its peak",
            "  network against its linearisation, total variation of predictions:",
            f"    training points {self.variation_train:.3g} at most",
            f"    test points     {self.variation_test:.3g} at most, "
            f"{self.mean_variation_test:.3g} on average over {self.num_test}",
            f"    at any time     {self.peak_variation:.3g} at most",
            f"  over the last tenfold of training time the drift grew {self.drift_growth:.3g} "
            f"times, the largest logit {self.logit_growth:.3g} times: training {ended}",
        ]
        if self.regime.anchor == Anchor.ZERO:
            lines.append(
                "  the ridge pulls towards zero: the weights shrink, and with them the kernel, however "
                "wide the network"
            )
        return "\n".join(lines)


def certify(
    network: Network,
    data: Dataset,
    *,
    ridge: float,
    key: PRNGKeyArray,
    smoothing: float = 0.0,
    anchor: str = Anchor.INIT,
    shifted: bool = False,
    likelihood: Likelihood | LikelihoodRule | None = None,
    mean: float | Sequence[float] = 0.0,
    num_seeds: int = 3,
    num_steps: int = 12_000,
    tolerance: float = 0.05,
    max_points: int = 40,
    num_probes: int = 32,
    test_share: float = 0.25,
) -> Certificate:
    """Train a network a few times, and say whether its kernel view may be trusted.

    Full-batch gradient descent on the loss of `Trainer` in float32, with the largest step that is
    stable by a margin, next to the linearisation that takes the same steps (THEORY 1, claims 1 to 4).

    Args:
        network: at its own width, with the outputs that the likelihood takes.
        data: it is split, standardised, and no more than `max_points` of it are used.
        ridge: weight of ½‖θ − θ0‖², or of ½‖θ‖², against the summed loss, ≥ 0.
        key: of the choice of points and of the initialisations.
        smoothing: of the training targets, see `Dataset.smooth`.
        anchor: where the ridge pulls: "init", to θ0, or "zero", which is weight decay.
        shifted: subtract each network's initial function.
        likelihood: by default one logit for two classes, softmax for more, and for real targets Normal
            with noise that maximises the evidence; or another rule of `ntkbayes.selection`.
        mean: added to the network's logits, a number or one per logit; a rule chooses it if it is 0.
        num_seeds: initialisations to train from.
        num_steps: gradient steps.
        tolerance: largest total variation between the predictions of the network and of the
            linearisation at which the kernel view is said to hold.
        max_points: training and test points together.
        num_probes: points of either set at which the drift of the NTK is measured.
        test_share: part of the points held out.

    Raises:
        ConfigurationError: a number is outside its range, or the network cannot be differentiated or
            has not as many outputs as the likelihood takes.
        DataError: the likelihood does not take such targets.
        DivergenceError: the loss became NaN or infinite.
    """
    num_seeds = ranges.whole("num_seeds", num_seeds)
    tolerance = ranges.real("tolerance", tolerance, Range.UNIT_WITHOUT_0)
    max_points = ranges.whole("max_points", max_points, at_least=2)
    regime = Regime(ridge, smoothing, anchor, shifted)
    steps = recorded_steps(num_steps)
    require_dataset("certify(network, data, ridge=ridge, key=key)", "data", data)
    subset_key, split_key, probe_key, init_key = jax.random.split(random_key(key), 4)
    if max_points < data.num_points:
        data = data.subset(subset_key, max_points)
    train, test = data.split(split_key, test_share=test_share)
    setting = Setting.of(likelihood, mean, train, lambda _: network, init_key, ridge=regime.ridge)
    points = setting.points(
        train.smooth(smoothing) if smoothing else train,
        test,
        num_probes=num_probes,
        key=probe_key,
    )
    params = initialise(network, points, init_key, num_seeds)
    step_size = stable_step(network, params, points, setting.likelihood, regime)
    trainer = Trainer(
        network, setting.likelihood, ridge=regime.ridge, step_size=step_size, anchor=regime.anchor
    )
    trajectory = follow(trainer, params, points, steps=steps, shifted=shifted)

    drift_growth = max(
        trajectory.growth(drift) for drift in (trajectory.drift_train, trajectory.drift_test)
    )
    logit_growth = trajectory.growth(trajectory.largest_logit)
    worst = float(trajectory.worst_variation[:, -1].max())
    drift = np.maximum(trajectory.drift_train, trajectory.drift_test)
    return Certificate(
        holds=worst <= tolerance and max(drift_growth, logit_growth) <= STOPPED,
        tolerance=tolerance,
        regime=regime,
        num_seeds=num_seeds,
        num_train=train.num_points,
        num_test=test.num_points,
        training_time=float(trajectory.time[-1]),
        drift=float(drift[:, -1].mean()),
        peak_drift=float(drift.max(axis=1).mean()),
        drift_growth=drift_growth,
        logit_growth=logit_growth,
        variation_train=float(trajectory.worst_variation_train[:, -1].max()),
        variation_test=float(trajectory.worst_variation_test[:, -1].max()),
        peak_variation=float(trajectory.worst_variation.max()),
        mean_variation_test=float(trajectory.variation_test[:, -1].mean()),
        trajectory=trajectory,
    )
