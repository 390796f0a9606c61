"""ArviZ: predictions as an xarray DataTree and back, without loss (except that class names other than
strings and numbers come back as text).

    tree = to_datatree(predict(law, test, key=key, name="NUTS"))
    az.summary(tree, var_names=["logits"]); az.plot_ppc_pava(tree)
    tree = to_datatree(predict(law, train, key=key, name="NUTS", held_out=False)); az.loo(tree)

Groups follow the InferenceData schema: posterior (logits), posterior_predictive (label draws y),
observed_data (labels y), constant_data (targets, probabilities) and, where `az.loo` applies,
log_likelihood (y). Points are the dimension `obs_id`, classes `class`, by name. Logits without a class
of their own, as for two or for ordered classes, are `logit`. Independent draws have a chain axis of
length 1, and the attribute `sampling` of each group says so: their R-hat, which compares chains, is NaN.
`likelihood` holds the likelihood's name and fields; without it, in a tree of an earlier version, the
number of logits decides.

`az.loo` reweights draws from the posterior to remove one training point's likelihood. So log_likelihood
exists only for NUTS, SplitHMC and FullBayes, at exactly the points and targets they were fitted to;
elsewhere `az.loo` says that it is missing. For a Gaussian posterior (Laplace, …) constant_data has
`leave_one_out`, from `ntkbayes.leave_one_out`. At held-out points (see `held_out`) the ELPD is
`Predictions.pointwise_elpd`. With soft targets the log likelihood of a draw is Σ_c y_c log p_c, and
az.loo averages its exponential over draws; everywhere else the ELPD is minus the cross-entropy of the
mean prediction.

Save the tree as netCDF, `tree.to_netcdf(path, engine="h5netcdf")`, or, with the package zarr, as Zarr,
`tree.to_zarr(path, consolidated=False)`; `xr.open_datatree` reads both. The leave-one-out probability
integral transform of each label is

    pit = az.loo_pit(tree)
    az.plot_ecdf_pit(xr.DataTree.from_dict({"/pit": pit}), group="pit", sample_dims=["obs_id"])

az.summary warns about the effective sample size if all draws are equal. For more than two classes use
az.plot_ppc_pava(tree, data_type="categorical").
"""

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ntkbayes.errors import ConfigurationError, NewerFormatError, NTKBayesError, StorageError
from ntkbayes.files import to_json
from ntkbayes.laws import Kind, Sampling
from ntkbayes.likelihood import Bernoulli, Categorical, ClassLikelihood, Ordinal
from ntkbayes.predictions import Predictions
from ntkbayes.predictions.predictions import require_predictions

if TYPE_CHECKING:
    import xarray as xr

SCHEMA = 3
"""Schema 1 lacks the digest that shows whether a file is whole (see `storage`), and schema 2 the kind of
law; both are still read."""

LAYOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "posterior": {"logits": ("chain", "draw", "obs_id", "output")},
    "posterior_predictive": {"y": ("chain", "draw", "obs_id")},
    "constant_data": {
        "targets": ("obs_id", "class"),
        "probabilities": ("obs_id", "class"),
        "logit_mean": ("obs_id", "output"),
        "logit_variance": ("obs_id", "output"),
        "leave_one_out": ("obs_id",),
    },
}
"""What `from_datatree` reads: dimensions by group and variable, `output` being `class` or `logit`."""

ATTRIBUTES = (
    "schema",
    "version",
    "law",
    "kind",
    "sampling",
    "held_out",
    "is_posterior",
    "points",
    "seconds",
    "compile_seconds",
    "info",
    "class_names",
    "likelihood",
)

_LIKELIHOODS = {kind.__name__: kind for kind in (Bernoulli, Categorical, Ordinal)}


def to_datatree(predictions: Predictions) -> "xr.DataTree":
    """A DataTree on which everything in ArviZ works.

    Raises:
        StorageError: the likelihood is not one of this library's, so it could not be read back.
        ConfigurationError: the draws do not divide evenly among the chains.
    """
    import xarray as xr

    require_predictions("to_datatree(predictions)", predictions)
    p = predictions
    chains = p.num_chains
    if len(p.label_draws) % chains:
        raise ConfigurationError(
            f"{len(p.label_draws)} draws of {chains} chains have no (chain, draw) axes; predict with a "
            f"num_draws that is a multiple of {chains}"
        )
    attributes = {
        "schema": f"ntkbayes {SCHEMA}",
        "version": version("ntkbayes"),
        "law": p.name,
        "kind": to_json(p.kind.plain),
        "sampling": str(p.kind.sampling),
        "held_out": int(p.held_out),
        "is_posterior": int(p.is_posterior),
        "seconds": p.seconds,
        "compile_seconds": p.compile_seconds,
        "info": to_json(p.info),
        "class_names": json.dumps([_plain(name) for name in p.class_names]),
    }
    if p.points is not None:
        attributes["points"] = p.points

    if p.likelihood is not None:
        attributes["likelihood"] = likelihood_text(p.likelihood)

    def by_chain(values: np.ndarray) -> np.ndarray:
        return values.reshape(chains, len(values) // chains, *values.shape[1:])

    library = {"inference_library": "ntkbayes", "inference_library_version": version("ntkbayes")}
    draws = len(p.label_draws)
    coords = {
        "chain": np.arange(chains),
        "draw": np.arange(draws // chains),
        "obs_id": np.arange(len(p.targets)),
    }
    points = ("chain", "draw", "obs_id")
    classes = {"obs_id": coords["obs_id"], "class": [str(name) for name in p.class_names]}
    constant: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "targets": (("obs_id", "class"), p.targets),
        "probabilities": (
            ("obs_id", "class"),
            p.probabilities if p.point_probabilities is None else p.point_probabilities,
        ),
    }
    groups = {
        "posterior_predictive": xr.Dataset({"y": (points, by_chain(p.label_draws))}, coords),
        "observed_data": xr.Dataset(
            {"y": (("obs_id",), p.targets.argmax(axis=1))}, {"obs_id": coords["obs_id"]}
        ),
    }
    if p.is_posterior:
        groups["log_likelihood"] = xr.Dataset({"y": (points, by_chain(p.log_likelihood))}, coords)
    if p.leave_one_out is not None:
        constant["leave_one_out"] = (("obs_id",), p.leave_one_out)
    if p.logits is not None and p.mean is not None and p.variance is not None:
        size = p.logits.shape[2]
        of_classes = size == len(p.class_names)
        axis = {"class": classes["class"]} if of_classes else {"logit": np.arange(size)}
        (dim,) = axis
        groups["posterior"] = xr.Dataset(
            {"logits": ((*points, dim), by_chain(p.logits))}, {**coords, **axis}
        )
        constant["logit_mean"] = (("obs_id", dim), p.mean)
        constant["logit_variance"] = (("obs_id", dim), p.variance)
    groups["constant_data"] = xr.Dataset(constant, classes)
    for group in groups.values():
        group.attrs.update({"sampling": str(p.kind.sampling), "law": p.name, **library})
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs.update(attributes)
    return tree


def from_datatree(tree: "xr.DataTree") -> Predictions:
    """The predictions that a DataTree was made from.

    Raises:
        NewerFormatError: a later version of ntkbayes made it.
        StorageError: the tree was not made by `to_datatree`, its arrays do not fit each other, or its
            likelihood is unknown.
    """
    _require_known_schema(tree)
    try:
        predictions = _read(tree)
        _require_consistent(predictions)
    except StorageError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"not a whole DataTree of predictions: {error}") from error
    return predictions


def _read(tree: "xr.DataTree") -> Predictions:
    def read(group: str, name: str) -> np.ndarray:
        values = np.asarray(tree.children[group].dataset[name].values)
        if values.ndim != len(LAYOUT[group][name]):
            raise ValueError(f"{group}/{name} has {values.ndim} dimensions")
        return values

    def flat(group: str, name: str) -> np.ndarray:
        values = read(group, name)
        return values.reshape(-1, *values.shape[2:])

    attributes = tree.attrs
    info = json.loads(attributes["info"])
    has_logits = "posterior" in tree.children
    is_left_out = "leave_one_out" in tree.children["constant_data"].dataset
    return Predictions(
        name=str(attributes["law"]),
        targets=read("constant_data", "targets"),
        class_names=tuple(json.loads(attributes["class_names"])),
        logits=flat("posterior", "logits") if has_logits else None,
        mean=read("constant_data", "logit_mean") if has_logits else None,
        variance=read("constant_data", "logit_variance") if has_logits else None,
        point_probabilities=None if has_logits else read("constant_data", "probabilities"),
        label_draws=flat("posterior_predictive", "y"),
        kind=_kind(attributes),
        num_chains=len(read("posterior_predictive", "y")),
        held_out=bool(attributes["held_out"]),
        is_posterior=bool(attributes.get("is_posterior", 0)),  # absent in earlier versions
        leave_one_out=read("constant_data", "leave_one_out") if is_left_out else None,
        seconds=float(attributes["seconds"]),
        compile_seconds=float(attributes.get("compile_seconds", 0)),  # absent in earlier versions
        info={name: float(value) for name, value in info.items()},
        likelihood=_likelihood(attributes["likelihood"]) if "likelihood" in attributes else None,
        points=str(attributes["points"]) if "points" in attributes else None,
    )


def _kind(attributes: Mapping[Any, Any]) -> Kind:
    if "kind" in attributes:
        return Kind.from_plain(json.loads(attributes["kind"]))
    unknown = "a law of an earlier version of ntkbayes, which did not record its kind."
    return Kind(str(attributes["law"]), Sampling(attributes["sampling"]), unknown)


def _require_known_schema(tree: "xr.DataTree") -> None:
    schema = str(tree.attrs.get("schema"))
    name, _, number = schema.partition(" ")
    if name != "ntkbayes" or not number.isdecimal() or len(number) > 6 or int(number) < 1:
        raise StorageError(f"not a DataTree of predictions by ntkbayes: its schema is {schema!r}")
    if int(number) > SCHEMA:
        raise NewerFormatError(written_by_later(str(tree.attrs.get("version"))))


def written_by_later(other: str) -> str:
    """The message for a file or tree that a later version wrote."""
    return (
        f"written by ntkbayes {other:.20}, in a format that this version, {version('ntkbayes')}, does "
        "not know; read it with that version or a later one"
    )


def _require_consistent(p: Predictions) -> None:
    """Raises ValueError if parts of the predictions do not fit each other."""
    (n, k), (draws, points) = p.targets.shape, p.label_draws.shape
    sound = {
        "targets": n > 0 and _are_probabilities(p.targets, 1e-6),
        "class_names": len(p.class_names) in (0, k),
        "leave_one_out": p.leave_one_out is None or p.leave_one_out.shape == (n,),
        "y": points == n
        and draws > 0
        and p.label_draws.dtype.kind in "iu"
        and p.label_draws.min() >= 0
        and p.label_draws.max() < k,
    }
    if p.point_probabilities is not None:
        given = p.point_probabilities
        sound["probabilities"] = given.shape == (n, k) and _are_probabilities(given, np.inf)
    if p.logits is not None and p.mean is not None and p.variance is not None:
        outputs = p.logits.shape[2]
        sound["logits"] = p.logits.shape == (draws, n, outputs) and p.logits.dtype.kind == "f"
        sound["logit_mean"] = p.mean.shape == p.variance.shape == (n, outputs)
        sound["likelihood"] = (outputs, k) == {
            Categorical: (k, k),
            Bernoulli: (1, 2),
            Ordinal: (1, getattr(p.likelihood, "num_classes", None)),
        }.get(type(p.likelihood))  # type: ignore[arg-type]
    if wrong := [name for name, holds in sound.items() if not holds]:
        raise ValueError(f"{wrong[0]} do not fit the rest, or are out of range")


def _are_probabilities(values: np.ndarray, tolerance: float) -> bool:
    """Whether rows are non-negative, finite, and sum to 1 within a tolerance."""
    errors = np.abs(values.sum(axis=1) - 1)
    return bool(values.min(initial=0.0) >= 0 and np.all(errors < tolerance))


def likelihood_text(likelihood: ClassLikelihood) -> str:
    """The name and fields of a likelihood, as JSON."""
    name = type(likelihood).__name__
    if _LIKELIHOODS.get(name) is not type(likelihood):
        raise StorageError(
            f"predictions with the likelihood {name} cannot be stored in a DataTree, only those with "
            f"{', '.join(_LIKELIHOODS)}"
        )
    fields = dataclasses.fields(likelihood)
    return json.dumps(
        {"name": name, **{f.name: np.asarray(getattr(likelihood, f.name)).tolist() for f in fields}}
    )


def _likelihood(text: str) -> ClassLikelihood:
    """The likelihood that `likelihood_text` wrote."""
    try:
        fields = json.loads(text)
        return _LIKELIHOODS[fields.pop("name")](**fields)
    except (ValueError, TypeError, KeyError, AttributeError, NTKBayesError) as error:
        raise StorageError(
            f"the DataTree's likelihood {text!r} is none of {', '.join(_LIKELIHOODS)}"
        ) from error


def _plain(name: object) -> object:
    """A class name in a form that JSON can hold."""
    return name if isinstance(name, str | int | float | bool) else str(name)
