"""Predictions out of a DataTree."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ntkbayes.bridges.arviz.schema import LAYOUT, SCHEMA, likelihood_of, written_by_later
from ntkbayes.errors import NewerFormatError, StorageError
from ntkbayes.laws import Kind, Sampling
from ntkbayes.laws.trace import Trace
from ntkbayes.likelihood import Bernoulli, Categorical, Normal, Ordinal, Poisson
from ntkbayes.predictions import ClassPredictions, NumberPredictions, Predictions
from ntkbayes.scores.distributions import Normals, PoissonMixture

if TYPE_CHECKING:
    import xarray as xr


def from_datatree(tree: "xr.DataTree") -> Predictions:
    """The predictions that a DataTree was made from: of the training points, if it has both.

    Raises:
        NewerFormatError: a later version of ntkbayes made it.
        StorageError: the tree was not made by `to_datatree`, its arrays do not fit each other, or its
            likelihood is unknown.
    """
    schema_of(tree)
    try:
        predictions = _read(tree)
        _require_consistent(predictions)
    except StorageError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"not a whole DataTree of predictions: {error}") from error
    return predictions


def _read(tree: "xr.DataTree") -> Predictions:
    attributes = tree.attrs
    held_out = bool(attributes["held_out"])
    draws, labels, constant = ("posterior", "posterior_predictive", "constant_data")
    if held_out and schema_of(tree) > 3:
        draws, labels, constant = ("predictions", "predictions", "predictions_constant_data")

    def read(group: str, name: str) -> np.ndarray:
        values = np.asarray(tree.children[group].dataset[name].values)
        if values.ndim != len(LAYOUT[group][name]):
            raise ValueError(f"{group}/{name} has {values.ndim} dimensions")
        return values

    def outputs(group: str, name: str) -> np.ndarray:
        """With an axis for the outputs, even if there is one."""
        values = np.asarray(tree.children[group].dataset[name].values)
        missing = values.ndim - len(LAYOUT[group][name])
        if missing not in (0, 1):
            raise ValueError(f"{group}/{name} has {values.ndim} dimensions")
        return values if missing else values[..., None]

    def per_draw(group: str) -> dict[str, np.ndarray]:
        if group not in tree.children:
            return {}
        known = tree.children[group].dataset.data_vars
        return {str(n): _flat(v.values) for n, v in known.items() if n not in LAYOUT[group]}

    def holds(group: str, name: str) -> bool:
        return group in tree.children and name in tree.children[group].dataset

    has_logits = holds(draws, "logits")
    features = read(constant, "features") if holds(constant, "features") else None
    stats = per_draw("sample_stats")
    if "diverging" in stats:  # netCDF has no truth values
        stats["diverging"] = stats["diverging"].astype(bool)
    is_of_numbers = attributes.get("targets", "classes") == "numbers"
    likelihood = likelihood_of(attributes["likelihood"]) if "likelihood" in attributes else None
    fitting = (Normal, Poisson) if is_of_numbers else (Bernoulli, Categorical, Ordinal)
    if likelihood is not None and not isinstance(likelihood, fitting):
        raise ValueError(f"{type(likelihood).__name__} and the targets do not fit each other")
    shared: dict[str, Any] = {
        "name": str(attributes["law"]),
        "logits": _flat(read(draws, "logits")) if has_logits else None,
        "mean": read(constant, "logit_mean") if has_logits else None,
        "variance": read(constant, "logit_variance") if has_logits else None,
        "kind": _kind(attributes),
        "held_out": held_out,
        "is_posterior": bool(attributes.get("is_posterior", 0)),  # absent in earlier versions
        "leave_one_out": read(constant, "leave_one_out")
        if holds(constant, "leave_one_out")
        else None,
        "seconds": float(attributes["seconds"]),
        "compile_seconds": float(
            attributes.get("compile_seconds", 0)
        ),  # absent in earlier versions
        "info": {name: float(value) for name, value in json.loads(attributes["info"]).items()},
        "likelihood": likelihood,
        "points": str(attributes["points"]) if "points" in attributes else None,
        "trace": Trace(stats, per_draw("log_prior"), per_draw("posterior")),
        "features": features,
        "feature_names": ()
        if features is None
        else tuple(_names(read(constant, "feature")).tolist()),
        "row_names": _names(read(constant, "obs_id")) if holds(constant, "obs_id") else None,
    }
    if is_of_numbers:
        drawn = outputs(labels, "y")
        moments = [outputs(constant, f"predictive_{part}") for part in ("mean", "spread", "noise")]
        kept = not held_out and holds("log_likelihood", "y")
        return NumberPredictions(
            targets=outputs(constant if held_out else "observed_data", "y"),
            target_draws=_flat(drawn),
            num_chains=len(drawn),
            log_densities=read(constant, "log_density"),
            log_likelihood=_flat(read("log_likelihood", "y")) if kept else None,
            given=_given(str(attributes["given"]), *moments) if "given" in attributes else None,
            **shared,
        )
    return ClassPredictions(
        targets=read(constant, "targets"),
        class_names=tuple(json.loads(attributes["class_names"])),
        point_probabilities=None if has_logits else read(constant, "probabilities"),
        label_draws=_flat(read(labels, "y")),
        num_chains=len(read(labels, "y")),
        **shared,
    )


def _given(
    name: str, mean: np.ndarray, spread: np.ndarray, noise: np.ndarray
) -> Normals | PoissonMixture:
    """The distributions of a baseline, by the name of their class."""
    if name == Normals.__name__:
        return Normals(mean, spread, noise)
    if name == PoissonMixture.__name__:
        return PoissonMixture(mean[None])
    raise ValueError(f"distributions {name!r:.40} are unknown")


def _flat(values: np.ndarray) -> np.ndarray:
    """(chains, samples, ...) as (draws, ...)."""
    return values.reshape(-1, *values.shape[2:])


def _names(values: np.ndarray) -> np.ndarray:
    """Whole numbers, or text, however it was stored."""
    return values if values.dtype.kind in "iu" else np.asarray([str(name) for name in values])


def _kind(attributes: Mapping[Any, Any]) -> Kind:
    if "kind" in attributes:
        return Kind.from_plain(json.loads(attributes["kind"]))
    unknown = "a law of an earlier version of ntkbayes, which did not record its kind."
    return Kind(str(attributes["law"]), Sampling(attributes["sampling"]), unknown)


def schema_of(tree: "xr.DataTree") -> int:
    """The number of the schema.

    Raises:
        NewerFormatError: a later version of ntkbayes made the tree.
        StorageError: the tree is not one of ours.
    """
    schema = str(tree.attrs.get("schema"))
    name, _, number = schema.partition(" ")
    if name != "ntkbayes" or not number.isdecimal() or len(number) > 6 or int(number) < 1:
        raise StorageError(f"not a DataTree of predictions by ntkbayes: its schema is {schema!r}")
    if int(number) > SCHEMA:
        raise NewerFormatError(written_by_later(str(tree.attrs.get("version"))))
    return int(number)


def _require_consistent(p: Predictions) -> None:
    """Raises ValueError if parts of the predictions do not fit each other."""
    n, draws = len(p.targets), p.num_target_draws
    own = _of_numbers(p) if isinstance(p, NumberPredictions) else _of_classes(p)
    sound = {
        "leave_one_out": p.leave_one_out is None or p.leave_one_out.shape == (n,),
        "features": p.features is None or p.features.shape == (n, len(p.feature_names)),
        "obs_id": p.row_names is None or p.row_names.shape == (n,),
        "sample_stats, log_prior or hyper-parameters": p.trace.fits(draws),
        **own,
    }
    if p.logits is not None and p.mean is not None and p.variance is not None:
        outputs = p.logits.shape[2]
        sound["logits"] = p.logits.shape == (draws, n, outputs) and p.logits.dtype.kind == "f"
        sound["logit_mean"] = p.mean.shape == p.variance.shape == (n, outputs)
    if wrong := [name for name, holds in sound.items() if not holds]:
        raise ValueError(f"{wrong[0]} do not fit the rest, or are out of range")


def _of_classes(p: Predictions) -> dict[str, bool]:
    """Whether the parts that only classes have are sound, by name."""
    assert isinstance(p, ClassPredictions)
    (n, k), (draws, points) = p.targets.shape, p.label_draws.shape
    sound = {
        "targets": n > 0 and _are_probabilities(p.targets, 1e-6),
        "class_names": len(p.class_names) in (0, k),
        "y": points == n
        and draws > 0
        and p.label_draws.dtype.kind in "iu"
        and p.label_draws.min() >= 0
        and p.label_draws.max() < k,
    }
    if p.point_probabilities is not None:
        given = p.point_probabilities
        sound["probabilities"] = given.shape == (n, k) and _are_probabilities(given, np.inf)
    if p.logits is not None:
        sound["likelihood"] = (p.logits.shape[2], k) == {
            Categorical: (k, k),
            Bernoulli: (1, 2),
            Ordinal: (1, getattr(p.likelihood, "num_classes", None)),
        }.get(type(p.likelihood))  # type: ignore[arg-type]
    return sound


def _of_numbers(p: NumberPredictions) -> dict[str, bool]:
    """The same of numbers."""
    n, m = p.targets.shape
    is_known = p.likelihood is None or (
        p.logits is not None
        and (isinstance(p.likelihood, Normal) or (isinstance(p.likelihood, Poisson) and m == 1))
        and p.logits.shape[2] == m
    )
    return {
        "y": n > 0 and m > 0 and p.target_draws.shape[1:] == (n, m) and len(p.target_draws) > 0,
        "targets": bool(np.isfinite(p.targets).all() and np.isfinite(p.target_draws).all()),
        "log_density": p.log_densities.shape == (n,),
        "log_likelihood": p.log_likelihood is None
        or p.log_likelihood.shape == (len(p.target_draws), n),
        "likelihood": is_known,
        "predictive_mean": p.given is None or p.given.mean.shape == (n, m),
        "predictive_noise": p.given is None or _is_spread(p.given),
    }


def _is_spread(given: Normals | PoissonMixture) -> bool:
    """Whether variances are none below 0, and fit the means."""
    is_positive = bool((given.variance > 0).all() and (given.spread >= 0).all())
    return is_positive and given.spread.shape == given.noise.shape == given.mean.shape


def _are_probabilities(values: np.ndarray, tolerance: float) -> bool:
    """Whether rows are non-negative, finite, and sum to 1 within a tolerance."""
    errors = np.abs(values.sum(axis=1) - 1)
    return bool(values.min(initial=0.0) >= 0 and np.all(errors < tolerance))
