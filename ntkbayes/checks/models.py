"""Checks of a model against data, and of a method against its own model."""

import dataclasses
import functools
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from tqdm.auto import tqdm

from ntkbayes import ranges
from ntkbayes.arguments import random_key
from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import (
    ConfigurationError,
    ConvergenceError,
    ConvergenceWarning,
    NotPositiveDefiniteError,
)
from ntkbayes.laws import Law, Method, Problem
from ntkbayes.laws.gaussian.prior_predictive import PriorLaw, PriorPredictive
from ntkbayes.laws.method import require_method
from ntkbayes.laws.problem import Inputs
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Logits
from ntkbayes.predictions import ClassPredictions, Predictions
from ntkbayes.predictions.predictions import require_predictions
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Labels = Int[np.ndarray, " n"]
Statistic = Callable[[Labels], float | Float[np.ndarray, " k"]]
"""One or k numbers from the labels of all points, given as class indices."""

# --- predictive checks ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class PredictiveCheck(Configured):
    """A statistic of the observed labels, and of replicated ones.

    Attributes:
        observed: (k,), with k = 1 for a statistic that is a number.
        replicated: one row per draw of the labels, (S, k).
    """

    observed: Float[np.ndarray, " k"]
    replicated: Float[np.ndarray, "draws k"]

    @property
    def p_value(self) -> Float[np.ndarray, " k"]:
        """P(replicated > observed) + ½ P(replicated = observed), (k,): near 0 or 1 where the law does
        not produce such labels. At training points it concentrates around ½ (Robins, van der Vaart &
        Ventura 2000), so held-out points give a sharper check."""
        above = (self.replicated > self.observed[None]).mean(axis=0)
        return above + (self.replicated == self.observed[None]).mean(axis=0) / 2


def predictive_check(predictions: Predictions, statistic: Statistic) -> PredictiveCheck:
    """Posterior predictive check (Gelman, Meng & Stern 1996); a prior predictive one for the law of
    `PriorPredictive`.

    Args:
        predictions: of a law or baseline; `label_draws` are its replicated labels, jointly at all
            points.
        statistic: of the labels at these points.

    Raises:
        ConfigurationError: the targets are not one-hot, the statistic is not finite, or there is only
            one draw.
    """
    require_predictions(
        "predictive_check(predictions, statistic)",
        predictions,
        ClassPredictions,
        "of numbers compare predictions.target_draws with predictions.targets",
    )
    assert isinstance(predictions, ClassPredictions)
    if len(predictions.label_draws) < 2:
        raise ConfigurationError(
            f"{predictions.name!r} has one draw of the labels, too few to rank against; for a point law "
            "ask for more: predict(..., num_draws=1000)"
        )
    if not np.isin(predictions.targets, (0, 1)).all():
        raise ConfigurationError(
            "a predictive check compares labels, but the targets are probabilities; give data with "
            "one label per point"
        )
    observed = np.atleast_1d(np.asarray(statistic(predictions.targets.argmax(axis=1)), dtype=float))
    replicated = np.array([np.atleast_1d(statistic(labels)) for labels in predictions.label_draws])
    broken = ~np.isfinite([observed, *replicated]).all(axis=1)
    if broken.any():
        which = "the observed labels" if broken[0] else f"draw {int(broken.argmax()) - 1}"
        raise ConfigurationError(
            f"the statistic of {which} is not finite; define it for all labels"
        )
    return PredictiveCheck(observed, replicated.astype(float))


def class_frequencies(num_classes: int) -> Statistic:
    """The share of each class among the labels, (K,)."""
    return lambda labels: np.bincount(labels, minlength=num_classes) / len(labels)


def neighbour_agreement(features: Float[np.ndarray, "n d"]) -> Statistic:
    """The share of points with the label of their nearest neighbour: how smooth the labels are.

    Args:
        features: of the points whose labels are given.
    """
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(features).kneighbors(return_distance=False)[:, 0]
    return lambda labels: float(np.mean(labels == labels[nearest]))


# --- simulation-based calibration -----------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Ranks(Configured):
    """Ranks of the simulated truths among draws of the law fitted to the simulated data.

    Uniform on 0, 1, …, L if the method is exact. A ∪ shape: the law is too narrow. A ∩ shape: too
    wide. Mostly high ranks: the law's draws are too low; mostly low ranks: too high.

    Attributes:
        ranks: how many of the L draws are below the truth, (simulations, quantities).
        num_draws: L.
        names: of the quantities.
    """

    ranks: Int[np.ndarray, "simulations quantities"]
    num_draws: int
    names: tuple[str, ...]

    @property
    def pit(self) -> Float[np.ndarray, "simulations quantities"]:
        """(rank + U) / (L + 1) with U uniform from a fixed seed: exactly uniform on (0, 1) if the ranks
        are uniform."""
        noise = np.random.default_rng(0).uniform(size=self.ranks.shape)
        return (self.ranks + noise) / (self.num_draws + 1)

    def band(self, level: float = 0.95) -> "Band":
        """The simultaneous band: holds the whole ECDF of N uniform numbers with probability `level`
        (Säilynoja, Bürkner & Vehtari 2022)."""
        from arviz_stats.ecdf_utils import ecdf_pit

        level = ranges.real("the level of a band", level, Range.OPEN_UNIT)
        points, _, lower, upper = ecdf_pit(self.pit[:, 0], level, n_simulations=2000)
        return Band(points, lower, upper)

    def ecdf(self, points: Float[np.ndarray, " p"]) -> Float[np.ndarray, "p quantities"]:
        """The ECDF of `pit` at the points, for each quantity."""
        return (self.pit[None] <= points[:, None, None]).mean(axis=1)

    def uniform(self, level: float = 0.95) -> Bool[np.ndarray, " quantities"]:
        """Whether the ECDF of each quantity stays in the band: with probability `level` for an exact
        method."""
        band = self.band(level)
        ecdf = self.ecdf(band.points)
        inside = (band.lower[:, None] <= ecdf) & (ecdf <= band.upper[:, None])
        return inside.all(axis=0)

    def table(self, level: float = 0.95) -> "pd.DataFrame":
        """A row per quantity. shift: mean of pit − ½, ± its error under uniformity; spread: 12 Var(pit),
        above 1 for a law that is too narrow, below 1 for one too wide; uniform: see `uniform`."""
        import pandas as pd

        pit = self.pit
        columns = {
            "shift": pit.mean(axis=0) - 0.5,
            "shift_error": np.full(len(self.names), (12 * len(pit)) ** -0.5),
            "spread": 12 * pit.var(axis=0),
            "spread_error": np.full(len(self.names), (0.8 / len(pit)) ** 0.5),
            "uniform": self.uniform(level),
        }
        return pd.DataFrame(columns, index=pd.Index(self.names, name="quantity"))

    def to_datatree(self) -> "xr.DataTree":
        """`pit` as ArviZ's group prior_sbc, for `az.plot_ecdf_pit`."""
        import xarray as xr

        coords = {"chain": [0], "draw": np.arange(len(self.ranks)), "quantity": list(self.names)}
        values = {"pit": (("chain", "draw", "quantity"), self.pit[None])}
        return xr.DataTree.from_dict({"/prior_sbc": xr.Dataset(values, coords)})


@dataclass(frozen=True, eq=False, repr=False)
class Band(Configured):
    """Lower and upper end of an ECDF's band at the points, (p,)."""

    points: Float[np.ndarray, " p"]
    lower: Float[np.ndarray, " p"]
    upper: Float[np.ndarray, " p"]


def simulation_based_calibration(
    method: Method,
    prior: NTKPrior,
    data: Dataset,
    *,
    key: PRNGKeyArray,
    likelihood: Likelihood | None = None,
    num_simulations: int = 400,
    num_draws: int = 99,
    at: Inputs | None = None,
    num_workers: int = 1,
    progress: bool = False,
) -> Ranks:
    """Ranks of the truth in a method's law, over data simulated from its own model (Talts et al. 2018).

    Each simulation draws f* ~ GP(mean, Θ/ridge) and targets y ~ p(y | f*(X)), fits the method to them,
    and counts the draws below the truth: of the logits at some inputs (minus their mean over classes,
    for softmax), and of log p(y | f(X)), which detects errors that leave the ranks of logits uniform
    (Modrák et al. 2023).

    Args:
        method: any method but a point law's. Let Markov chains keep several times num_draws, which are
            thinned evenly: ranks among correlated draws are not uniform.
        prior: the model, with ridge > 0.
        data: X and the classes; the targets are replaced by simulated ones.
        key: simulation i uses jax.random.fold_in(key, i), for any number of workers.
        likelihood: as for `Method.fit`.
        num_simulations: N.
        num_draws: L, draws per law among which the truth is ranked.
        at: inputs whose logits are ranked, (m, d); the first three of X if None.
        num_workers: processes that share the simulations. Each compiles on its own.
        progress: show a progress bar.

    Raises:
        ConvergenceError, NotPositiveDefiniteError: a fit failed; the message says in which simulation.
        ConfigurationError: a number is outside its range, or a law holds fewer than num_draws.
        DataError: `at` does not fit the features.
        RidgeError: the ridge is 0.

    Warns:
        ConvergenceWarning: the chains of some simulations have not converged.
    """
    require_method("simulation_based_calibration(method, prior, data, key=key)", "method", method)
    key = random_key(key)
    num_simulations = ranges.whole("num_simulations", num_simulations, at_least=2)
    num_draws = ranges.whole("num_draws", num_draws)
    num_workers = ranges.whole("num_workers", num_workers)
    truths = PriorPredictive().fit(prior, data, likelihood=likelihood)
    inputs = None if at is None else truths.problem.read(at)
    simulation = _Simulation(method, truths, num_draws, inputs)
    title = f"{method.name}: calibration"
    outcomes: list[_Outcome] = []
    with tqdm(total=num_simulations, desc=title, disable=not progress) as bar:
        try:
            for outcome in _outcomes(simulation, key, num_simulations, num_workers):
                outcomes.append(outcome)
                bar.update(1)
        except KeyboardInterrupt as interrupt:
            done = len(outcomes)
            interrupt.add_note(f"{title} was stopped after {done} of {num_simulations} simulations")
            raise
    warned = [(i, outcome.warning) for i, outcome in enumerate(outcomes) if outcome.warning]
    if warned:
        warnings.warn(
            f"{len(warned)} of {num_simulations} simulations warned; the first, number {warned[0][0]}: "
            f"{warned[0][1]}",
            ConvergenceWarning,
            stacklevel=2,
        )
    return Ranks(np.stack([outcome.ranks for outcome in outcomes]), num_draws, simulation.names)


@dataclass(frozen=True, eq=False)
class _Outcome:
    """Ranks of one simulation, and the warning of its fit (empty if none)."""

    ranks: Int[np.ndarray, " quantities"]
    warning: str


@dataclass(frozen=True, eq=False)
class _Simulation:
    """What all simulations share. `truths` is the law of f*, with the Gram of X."""

    method: Method
    truths: PriorLaw
    num_draws: int
    at: Float[Array, "m ..."] | None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the quantities ranked."""
        size = self.truths.problem.num_outputs
        points = range(len(self._inputs[self._ranked]))
        logits = [f"f(x{j})" if size == 1 else f"f(x{j})[{c}]" for j in points for c in range(size)]
        return (*logits, "log likelihood")

    @property
    def _inputs(self) -> Float[Array, "m ..."]:
        x = self.truths.problem.features
        return x if self.at is None else jnp.concatenate([x, self.at])

    @property
    def _ranked(self) -> slice:
        return slice(0, 3) if self.at is None else slice(len(self.truths.problem.features), None)

    def run(self, key: PRNGKeyArray) -> _Outcome:
        truth_key, target_key, fit_key, draw_key = jax.random.split(key, 4)
        problem = self.truths.problem
        truth = self.truths.sample(truth_key, self._inputs, 1)
        targets = problem.likelihood.sample(target_key, truth[0, : len(problem.targets)])
        law, warning = self._fit(dataclasses.replace(problem, targets=targets), fit_key)
        draws = law.sample(draw_key, self._inputs, self.num_draws)
        ranks = _ranks(problem.likelihood, targets, truth, draws, self._ranked)
        return _Outcome(np.asarray(ranks), warning)

    def _fit(self, problem: Problem, key: PRNGKeyArray) -> tuple[Law, str]:
        """The law and the text of its ConvergenceWarning; other warnings pass through."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            law = self.method.solve(problem, key)
        kept = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
        for w in caught:
            if not issubclass(w.category, ConvergenceWarning):
                warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
        return law, kept[0] if kept else ""


@eqx.filter_jit
def _ranks(
    likelihood: Likelihood,
    targets: Logits,
    truth: Float[Array, "1 m classes"],
    draws: Float[Array, "draws m classes"],
    ranked: slice,
) -> Int[Array, " quantities"]:
    """How many draws are below the truth, for each quantity."""

    def quantities(logits: Float[Array, "m classes"]) -> Float[Array, " quantities"]:
        density = jnp.sum(likelihood.log_density(targets, logits[: len(targets)]))
        return jnp.append(likelihood.project(logits)[ranked].reshape(-1), density)

    return jnp.sum(jax.vmap(quantities)(draws) < jax.vmap(quantities)(truth), axis=0)


def _outcomes(
    simulation: _Simulation, key: PRNGKeyArray, num_simulations: int, num_workers: int
) -> Iterator[_Outcome]:
    """Outcomes of all simulations, in order."""
    numbers = range(num_simulations)
    if num_workers == 1:
        yield from (_run_one(simulation, key, i) for i in numbers)
        return
    import cloudpickle
    from joblib import Parallel, delayed

    # As bytes: a process that is not in float64 yet would unpickle float64 arrays as float32.
    task = cloudpickle.dumps((simulation, str(jax.random.key_impl(key)), jax.random.key_data(key)))
    precise = jax.config.read("jax_enable_x64")
    run = Parallel(n_jobs=num_workers, backend="loky", return_as="generator")
    yield from run(delayed(_run_elsewhere)(precise, task, i) for i in numbers)


def _run_elsewhere(precise: bool, task: bytes, number: int) -> _Outcome:
    """One simulation in a joblib process, in the caller's precision."""
    jax.config.update("jax_enable_x64", precise)
    simulation, implementation, key_data = _unpacked(task)
    return _run_one(simulation, jax.random.wrap_key_data(key_data, impl=implementation), number)


_unpacked = functools.lru_cache(maxsize=1)(pickle.loads)


def _run_one(simulation: _Simulation, key: PRNGKeyArray, number: int) -> _Outcome:
    try:
        return simulation.run(jax.random.fold_in(key, number))
    except (ConvergenceError, NotPositiveDefiniteError) as error:
        where = f"simulation {number}, with key jax.random.fold_in(key, {number}), failed: "
        raise type(error)(where + str(error)) from error
