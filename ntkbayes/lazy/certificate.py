"""A certificate: whether the kernel view holds for one network, at its own width and ridge."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import Configured
from ntkbayes.lazy.measure import (
    Points,
    Trajectory,
    follow,
    initialise,
    recorded_steps,
    require_fitting,
)
from ntkbayes.lazy.verdict import STOPPED, Regime
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.networks import Network
from ntkbayes.ranges import Range
from ntkbayes.training.networks import Trainer, stable_step_size


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Configured):
    """Whether kernel laws may be trusted for a network; `print` it.

    Attributes:
        holds: whether training has stopped within the given steps, with no class probability
            further from the linearisation's than `tolerance`.
        tolerance: largest total variation at which the kernel view is said to hold.
        regime: ridge and smoothing.
        num_seeds: networks trained, each from its own initialisation.
        num_train, num_test: points at which network and linearisation are compared.
        training_time: t = η · steps.
        drift: ‖Θ_t − Θ_0‖ / ‖Θ_0‖ at the end, mean over seeds, the larger of training and test.
        drift_growth: of the drift over the last tenfold of training time.
        logit_growth: of the largest logit, likewise.
        variation_train: largest total variation between the class probabilities of a network and of
            its linearisation, over seeds and training points.
        variation_test: the same over test points.
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
    drift_growth: float
    logit_growth: float
    variation_train: float
    variation_test: float
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
            if self.regime.can_stop
            else "has not stopped, and without ridge on one-hot targets never will"
        )
        return "\n".join(
            (
                f"{head} ({self.regime}; tolerance {self.tolerance:g}).",
                f"  networks          {self.num_seeds}, trained to t = {self.training_time:.4g} "
                f"({self.trajectory.step[-1]} steps) on {self.num_train} points",
                f"  NTK drift         {self.drift:.3g} of its norm",
                "  network against its linearisation, total variation of class probabilities:",
                f"    training points {self.variation_train:.3g} at most",
                f"    test points     {self.variation_test:.3g} at most, "
                f"{self.mean_variation_test:.3g} on average over {self.num_test}",
                f"  over the last tenfold of training time the drift grew {self.drift_growth:.3g} "
                f"times, the largest logit {self.logit_growth:.3g} times: training {ended}",
            )
        )


def certify(
    network: Network,
    data: Dataset,
    *,
    ridge: float,
    key: PRNGKeyArray,
    smoothing: float = 0.0,
    likelihood: Likelihood | None = None,
    num_seeds: int = 3,
    num_steps: int = 12_000,
    tolerance: float = 0.05,
    max_points: int = 40,
    num_probes: int = 32,
    test_share: float = 0.25,
) -> Certificate:
    """Train a network a few times, and say whether its kernel view may be trusted.

    Full-batch gradient descent on the loss (1) in float32, with the largest step that is stable by
    a margin, next to the linearisation that takes the same steps (THEORY 1, claims 1 to 4).

    Args:
        network: at its own width, with the outputs that the likelihood takes.
        data: it is split, standardised, and no more than `max_points` of it are used.
        ridge: weight of ½‖θ − θ0‖² against the summed loss, ≥ 0.
        key: of the choice of points and of the initialisations.
        smoothing: of the training targets, see `Dataset.smooth`.
        likelihood: by default one logit for two classes, softmax for more.
        num_seeds: initialisations to train from.
        num_steps: gradient steps.
        tolerance: largest total variation between the class probabilities of the network and of the
            linearisation at which the kernel view is said to hold.
        max_points: training and test points together.
        num_probes: points of either set at which the drift of the NTK is measured.
        test_share: part of the points held out.

    Raises:
        ConfigurationError: a number is outside its range, the data have no classes, or the network
            cannot be differentiated or has not as many outputs as the likelihood takes.
        DivergenceError: the loss became NaN or infinite.
    """
    num_seeds = ranges.whole("num_seeds", num_seeds)
    tolerance = ranges.real("tolerance", tolerance, Range.UNIT_WITHOUT_0)
    max_points = ranges.whole("max_points", max_points, at_least=2)
    regime, steps = Regime(ridge, smoothing), recorded_steps(num_steps)
    require_dataset("certify(network, data, ridge=ridge, key=key)", "data", data)
    subset_key, split_key, probe_key, init_key = jax.random.split(random_key(key), 4)
    if max_points < data.num_points:
        data = data.subset(subset_key, max_points)
    train, test = data.split(split_key, test_share=test_share)
    likelihood = default_likelihood(data) if likelihood is None else likelihood
    points = Points.build(
        train.smooth(smoothing) if smoothing else train,
        test,
        likelihood,
        num_probes=num_probes,
        key=probe_key,
    )
    params = initialise(network, points, init_key, num_seeds)
    require_fitting(network, params, points)
    step_size = stable_step_size(network, params, points.train, likelihood, ridge)
    trainer = Trainer(network, likelihood, ridge=ridge, step_size=step_size)
    trajectory = follow(trainer, params, points, steps=steps)

    drift_growth = max(
        trajectory.growth(drift) for drift in (trajectory.drift_train, trajectory.drift_test)
    )
    logit_growth = trajectory.growth(trajectory.largest_logit)
    worst = float(trajectory.worst_variation[:, -1].max())
    return Certificate(
        holds=worst <= tolerance and max(drift_growth, logit_growth) <= STOPPED,
        tolerance=tolerance,
        regime=regime,
        num_seeds=num_seeds,
        num_train=train.num_points,
        num_test=test.num_points,
        training_time=float(trajectory.time[-1]),
        drift=float(np.maximum(trajectory.drift_train, trajectory.drift_test)[:, -1].mean()),
        drift_growth=drift_growth,
        logit_growth=logit_growth,
        variation_train=float(trajectory.worst_variation_train[:, -1].max()),
        variation_test=float(trajectory.worst_variation_test[:, -1].max()),
        mean_variation_test=float(trajectory.variation_test[:, -1].mean()),
        trajectory=trajectory,
    )
