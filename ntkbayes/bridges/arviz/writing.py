"""Predictions, or a law with all that ArviZ can look at, as a DataTree."""

import abc
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ntkbayes.bridges.arviz.schema import SCHEMA, likelihood_text
from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError
from ntkbayes.files import to_json
from ntkbayes.laws import Law
from ntkbayes.laws.wrappers.before_data import before_data, has_prior
from ntkbayes.predictions import ClassPredictions, NumberPredictions, Predictions, predict
from ntkbayes.predictions.predictions import require_predictions

if TYPE_CHECKING:
    import xarray as xr

_VERSION = version("ntkbayes")

Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]


def law_to_datatree(
    law: Law,
    train: Dataset,
    test: Dataset | None = None,
    *,
    key: PRNGKeyArray,
    name: str | None = None,
    num_draws: int | None = None,
) -> "xr.DataTree":
    """All that ArviZ can look at, in one DataTree: the law before and after the data at the points that
    it was fitted to, what its chains recorded, and its predictions at others.

    With ridge = 0 there is no proper prior, and that of hyper-parameters from a NumPyro model around
    the law's own is not known: then there are no groups of the prior.

    Args:
        law: any law.
        train: what it was fitted to.
        test: points that it was not fitted to, for the groups of predictions; none if None.
        key: same key, same tree.
        name: what ArviZ calls the law; that of its kind if None.
        num_draws: as for `predict`; as many are drawn before the data.

    Raises:
        ConfigurationError, DataError: as `predict` and `before_data` do.
    """
    name = law.kind.name if name is None else name
    train_key, test_key, law_key, prior_key = jax.random.split(key, 4)
    fitted = predict(law, train, key=train_key, name=name, num_draws=num_draws, held_out=False)
    others = None
    if test is not None:
        others = predict(law, test, key=test_key, name=name, num_draws=num_draws)
    if not has_prior(law):
        return to_datatree(fitted, held_out=others)
    num_fitted = fitted.num_target_draws
    count = law.default_draws if num_fitted == 1 else num_fitted
    prior = predict(
        before_data(law, key=law_key, num_draws=count),
        train,
        key=prior_key,
        name="prior",
        num_draws=count,
    )
    return to_datatree(fitted, prior=prior, held_out=others)


def to_datatree(
    predictions: Predictions,
    *,
    prior: Predictions | None = None,
    held_out: Predictions | None = None,
) -> "xr.DataTree":
    """A DataTree on which everything in ArviZ works.

    Args:
        predictions: of a law or a baseline. `from_datatree` gives them back, and not what follows.
        prior: of the law before data at the same points, for the groups prior and prior_predictive.
        held_out: of the same law at held-out points, for the groups of predictions, where
            `predictions` are of training points.

    Raises:
        StorageError: the likelihood is not one of this library's, so it could not be read back.
        ConfigurationError: the draws do not divide evenly among the chains, or `prior` or `held_out` do
            not go with the rest.
    """
    import xarray as xr

    require_predictions("to_datatree(predictions)", predictions)
    _require_fitting(predictions, prior, held_out)
    groups = _groups(predictions)
    if prior is not None:
        drawn = _part_of(prior)
        groups["prior"] = drawn.dataset({**drawn.logits, **drawn.hyperparameters})
        groups["prior_predictive"] = drawn.dataset(drawn.targets)
    if held_out is not None:
        theirs = _groups(held_out)
        groups |= {n: theirs[n] for n in ("predictions", "predictions_constant_data")}
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs.update(_library() | _attributes(predictions))
    return tree


def _groups(p: Predictions) -> dict[str, "xr.Dataset"]:
    """Datasets by group. Held-out points have groups of their own, where `az.loo` does not look."""
    part = _part_of(p)
    if p.held_out:
        variables = {
            "posterior": part.hyperparameters,
            "predictions": {**part.logits, **part.targets},
            "predictions_constant_data": {**part.constant, "y": part.observed},
        }
    else:
        variables = {
            "posterior": {**part.hyperparameters, **part.logits},
            "posterior_predictive": part.targets,
            "constant_data": part.constant,
        }
    variables["observed_data"] = {"y": part.observed}
    variables["sample_stats"] = part.per_draw(p.trace.sample_stats)
    if p.is_posterior and not p.held_out:
        assert p.log_likelihood is not None
        variables["log_likelihood"] = {"y": part.by_point(p.log_likelihood)}
        variables["log_prior"] = part.per_draw(p.trace.log_prior)
    return {name: part.dataset(given) for name, given in variables.items() if given}


class _Part[P: Predictions](abc.ABC):
    """The variables of some predictions, each with its dimensions."""

    def __init__(self, p: P):
        self.p, draws, chains = p, p.num_target_draws, p.num_chains
        if draws % chains:
            raise ConfigurationError(
                f"{draws} draws of {chains} chains have no (chain, draw) axes; predict with a "
                f"num_draws that is a multiple of {chains}"
            )
        self.coords: dict[str, np.ndarray | list[str]] = {
            "chain": np.arange(chains),
            "draw": np.arange(draws // chains),
            "obs_id": np.arange(len(p.targets)) if p.row_names is None else p.row_names,
        }
        if p.features is not None:
            self.coords["feature"] = list(p.feature_names) or np.arange(p.features.shape[1])
        if p.logits is not None:
            self.coords["logit"] = np.arange(p.logits.shape[2])

    output = "logit"

    @property
    @abc.abstractmethod
    def targets(self) -> Variables:
        """Draws of the targets."""

    @property
    @abc.abstractmethod
    def observed(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The targets that were observed."""

    @property
    @abc.abstractmethod
    def own_constants(self) -> Variables:
        """What else is known of each point under the likelihood."""

    def dataset(self, variables: Variables) -> "xr.Dataset":
        import xarray as xr

        sizes = {n: s for dims, v in variables.values() for n, s in zip(dims, v.shape, strict=True)}
        coords = {n: self.coords.get(n, np.arange(s)) for n, s in sizes.items()}
        whose = {"sampling": str(self.p.kind.sampling), "law": self.p.name}
        return xr.Dataset(variables, coords, attrs=_library() | whose)

    def by_chain(self, values: np.ndarray) -> np.ndarray:
        chains = self.p.num_chains
        return values.reshape(chains, len(values) // chains, *values.shape[1:])

    def by_point(self, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        return ("chain", "draw", "obs_id"), self.by_chain(values)

    def per_draw(self, known: Mapping[str, np.ndarray]) -> Variables:
        """Further dimensions are called NAME_dim_0, …, as ArviZ does."""
        return {
            name: (
                ("chain", "draw", *(f"{name}_dim_{i}" for i in range(values.ndim - 1))),
                self.by_chain(values),
            )
            for name, values in known.items()
        }

    @property
    def logits(self) -> Variables:
        if self.p.logits is None:
            return {}
        return {"logits": (("chain", "draw", "obs_id", self.output), self.by_chain(self.p.logits))}

    @property
    def hyperparameters(self) -> Variables:
        return self.per_draw(self.p.trace.hyperparameters)

    @property
    def constant(self) -> Variables:
        p, variables = self.p, self.own_constants
        if p.leave_one_out is not None:
            variables["leave_one_out"] = (("obs_id",), p.leave_one_out)
        if p.mean is not None and p.variance is not None:
            variables["logit_mean"] = (("obs_id", self.output), p.mean)
            variables["logit_variance"] = (("obs_id", self.output), p.variance)
        if p.features is not None:
            variables["features"] = (("obs_id", "feature"), p.features)
        return variables


class _ClassPart(_Part[ClassPredictions]):
    def __init__(self, p: ClassPredictions):
        super().__init__(p)
        num_classes = p.targets.shape[1]
        self.coords["class_"] = [str(name) for name in p.class_names] or np.arange(num_classes)
        if p.logits is not None and p.logits.shape[2] == num_classes:
            self.output = "class_"

    @property
    def targets(self) -> Variables:
        return {"y": self.by_point(self.p.label_draws)}

    @property
    def observed(self) -> tuple[tuple[str, ...], np.ndarray]:
        return ("obs_id",), self.p.targets.argmax(axis=1)

    @property
    def own_constants(self) -> Variables:
        p, by_class = self.p, ("obs_id", "class_")
        given = p.probabilities if p.point_probabilities is None else p.point_probabilities
        return {"targets": (by_class, p.targets), "probabilities": (by_class, given)}


class _NumberPart(_Part[NumberPredictions]):
    """One number per point has no axis of its own; of several it is NAME_dim_0, as ArviZ calls it."""

    def of_outputs(self, name: str, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        if values.shape[1] == 1:
            return ("obs_id",), values[:, 0]
        return ("obs_id", f"{name}_dim_0"), values

    @property
    def targets(self) -> Variables:
        drawn = self.by_chain(self.p.target_draws)
        if drawn.shape[-1] == 1:
            return {"y": (("chain", "draw", "obs_id"), drawn[..., 0])}
        return {"y": (("chain", "draw", "obs_id", "y_dim_0"), drawn)}

    @property
    def observed(self) -> tuple[tuple[str, ...], np.ndarray]:
        return self.of_outputs("y", self.p.targets)

    @property
    def own_constants(self) -> Variables:
        told = self.p.distributions
        moments = {
            "predictive_mean": told.mean,
            "predictive_spread": told.spread,
            "predictive_noise": told.noise,
        }
        variables = {name: self.of_outputs(name, values) for name, values in moments.items()}
        return {**variables, "log_density": (("obs_id",), self.p.log_densities)}


def _part_of(p: Predictions) -> _Part:
    return _NumberPart(p) if isinstance(p, NumberPredictions) else _ClassPart(_of_classes(p))


def _of_classes(p: Predictions) -> ClassPredictions:
    assert isinstance(p, ClassPredictions)
    return p


def _require_fitting(
    predictions: Predictions, prior: Predictions | None, held_out: Predictions | None
) -> None:
    """Raises ConfigurationError if the parts do not go together."""
    if prior is not None and (prior.points, prior.targets.shape) != (
        predictions.points,
        predictions.targets.shape,
    ):
        raise ConfigurationError(
            f"{prior.name!r} is at other points than {predictions.name!r}; predict both on the same data"
        )
    if held_out is not None and (predictions.held_out or not held_out.held_out):
        raise ConfigurationError(
            "predictions at held-out points are added to those at training points: give the latter "
            "first, by predict(law, train, held_out=False), and held_out=predict(law, test)"
        )
    if held_out is not None:
        theirs, own = (getattr(p, "class_names", None) for p in (held_out, predictions))
        if theirs != own:
            raise ConfigurationError(
                f"the held-out points have the classes {theirs}, the training points {own}; predict "
                "both by one law"
            )


def _attributes(p: Predictions) -> dict[str, str | int | float]:
    attributes: dict[str, str | int | float] = {
        "schema": f"ntkbayes {SCHEMA}",
        "version": _VERSION,
        "law": p.name,
        "kind": to_json(p.kind.plain),
        "sampling": str(p.kind.sampling),
        "held_out": int(p.held_out),
        "is_posterior": int(p.is_posterior),
        "seconds": p.seconds,
        "compile_seconds": p.compile_seconds,
        "info": to_json(p.info),
    }
    if isinstance(p, ClassPredictions):
        attributes["class_names"] = json.dumps([_plain(name) for name in p.class_names])
    if isinstance(p, NumberPredictions):
        attributes["targets"] = "numbers"
        if p.given is not None:
            attributes["given"] = type(p.given).__name__
    if p.points is not None:
        attributes["points"] = p.points
    if p.likelihood is not None:
        attributes["likelihood"] = likelihood_text(p.likelihood)
    return attributes


def _library() -> dict[str, str]:
    """Who made the tree and when, in the InferenceData schema's words."""
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "ntkbayes",
        "creation_library_version": _VERSION,
        "creation_library_language": "Python",
        "inference_library": "ntkbayes",
        "inference_library_version": _VERSION,
    }


def _plain(name: object) -> object:
    """A class name in a form that JSON can hold."""
    return name if isinstance(name, str | int | float | bool) else str(name)
