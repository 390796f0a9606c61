"""ArviZ: predictions as an xarray DataTree and back, without loss (but class names other than
strings and numbers come back as text).

    tree = to_datatree(predict(law, test, key=key, name="Laplace"))
    az.summary(tree, var_names=["logits"]); az.loo(tree); az.plot_ppc_pava(tree)

Groups follow the InferenceData schema: posterior (logits), posterior_predictive (label draws y),
log_likelihood (y), observed_data (labels y), constant_data (targets, probabilities). Points are the
dimension `obs_id`, classes `class`, by name; logits that are not of one class each, the one of two
classes or of ordered ones, are `logit`. Independent draws have a chain axis of length 1 and say in the
attribute `sampling` of each group that they are no Markov chain: their R-hat, which compares chains, is
NaN. `held_out` says whether the points were trained on: leave-one-out (az.loo) is about points that
were; for points that were not, the ELPD is `Predictions.pointwise_elpd`. `likelihood` is its name and
fields; a tree without it, of an earlier version, has the likelihood of its logits' width.

The tree goes through netCDF, `tree.to_netcdf(path, engine="h5netcdf")`, and, with the package zarr,
through Zarr, `tree.to_zarr(path, consolidated=False)`; `xr.open_datatree` reads both. The probability
integral transform of each label, left out of the fit, is

    pit = az.loo_pit(tree)
    az.plot_ecdf_pit(xr.DataTree.from_dict({"/pit": pit}), group="pit", sample_dims=["obs_id"])

Importance sampling from a point is undefined: az.loo and az.compare refuse MAP and baselines, and
az.summary warns of the effective sample size of draws that are all alike. Of more than two classes
ask for az.plot_ppc_pava(tree, data_type="categorical").
"""

import dataclasses
import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from ntkbayes.errors import NTKBayesError, StorageError
from ntkbayes.likelihood import Bernoulli, Categorical, ClassLikelihood, Ordinal
from ntkbayes.predictive import Predictions

if TYPE_CHECKING:
    import xarray as xr

SCHEMA = "ntkbayes 1"
_LIKELIHOODS = {kind.__name__: kind for kind in (Bernoulli, Categorical, Ordinal)}


def to_datatree(predictions: Predictions) -> "xr.DataTree":
    """A DataTree on which everything in ArviZ works.

    Raises:
        StorageError: the likelihood is none of this library's, so that it could not be read back.
    """
    import xarray as xr

    p = predictions
    chains = p.num_chains
    attributes = {
        "schema": SCHEMA,
        "law": p.name,
        "sampling": p.sampling,
        "held_out": int(p.held_out),
        "seconds": p.seconds,
        "info": json.dumps(dict(p.info)),
        "class_names": json.dumps([_plain(name) for name in p.class_names]),
    }
    if p.points is not None:
        attributes["points"] = p.points

    if p.likelihood is not None:
        attributes["likelihood"] = _describe(p.likelihood)

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
    log_likelihood = np.broadcast_to(p.log_likelihood, (draws, len(p.targets)))
    constant = {
        "targets": (("obs_id", "class"), p.targets),
        "probabilities": (
            ("obs_id", "class"),
            p.probabilities if p.point_probabilities is None else p.point_probabilities,
        ),
    }
    groups = {
        "posterior_predictive": xr.Dataset({"y": (points, by_chain(p.label_draws))}, coords),
        "log_likelihood": xr.Dataset({"y": (points, by_chain(log_likelihood))}, coords),
        "observed_data": xr.Dataset(
            {"y": (("obs_id",), p.targets.argmax(axis=1))}, {"obs_id": coords["obs_id"]}
        ),
    }
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
        group.attrs.update({"sampling": p.sampling, "law": p.name, **library})
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs.update(attributes)
    return tree


def from_datatree(tree: "xr.DataTree") -> Predictions:
    """The predictions that a DataTree was made from.

    Raises:
        StorageError: the tree was not made by `to_datatree`, or its likelihood is not known here.
    """
    found = tree.attrs.get("schema")
    if found != SCHEMA:
        raise StorageError(
            f"not a DataTree of predictions of this version of ntkbayes: its schema is {found!r}, "
            f"not {SCHEMA!r}"
        )

    def read(group: str, name: str) -> np.ndarray:
        return np.asarray(tree.children[group].dataset[name].values)

    def flat(group: str, name: str) -> np.ndarray:
        values = read(group, name)
        return values.reshape(-1, *values.shape[2:])

    has_logits = "posterior" in tree.children
    return Predictions(
        name=tree.attrs["law"],
        targets=read("constant_data", "targets"),
        class_names=tuple(json.loads(tree.attrs["class_names"])),
        logits=flat("posterior", "logits") if has_logits else None,
        mean=read("constant_data", "logit_mean") if has_logits else None,
        variance=read("constant_data", "logit_variance") if has_logits else None,
        point_probabilities=None if has_logits else read("constant_data", "probabilities"),
        label_draws=flat("posterior_predictive", "y"),
        sampling=tree.attrs["sampling"],
        num_chains=tree.children["posterior_predictive"].sizes["chain"],
        held_out=bool(tree.attrs["held_out"]),
        seconds=float(tree.attrs["seconds"]),
        info=json.loads(tree.attrs["info"]),
        likelihood=_likelihood(tree.attrs["likelihood"]) if "likelihood" in tree.attrs else None,
        points=tree.attrs.get("points"),
    )


def _describe(likelihood: ClassLikelihood) -> str:
    """The name and fields of a likelihood, as JSON."""
    name = type(likelihood).__name__
    if _LIKELIHOODS.get(name) is not type(likelihood):
        raise StorageError(
            f"predictions under the likelihood {name} cannot be kept in a DataTree, only those under "
            f"{', '.join(_LIKELIHOODS)}"
        )
    fields = dataclasses.fields(likelihood)
    return json.dumps(
        {"name": name, **{f.name: np.asarray(getattr(likelihood, f.name)).tolist() for f in fields}}
    )


def _likelihood(described: str) -> ClassLikelihood:
    """The likelihood that `_describe` wrote."""
    try:
        fields = json.loads(described)
        return _LIKELIHOODS[fields.pop("name")](**fields)
    except (ValueError, TypeError, KeyError, AttributeError, NTKBayesError) as error:
        raise StorageError(
            f"the DataTree's likelihood {described!r} is none of {', '.join(_LIKELIHOODS)}"
        ) from error


def _plain(name: object) -> object:
    """A class name as JSON can hold it."""
    return name if isinstance(name, str | int | float | bool) else str(name)
