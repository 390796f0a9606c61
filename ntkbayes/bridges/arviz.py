"""ArviZ: predictions as an xarray DataTree and back, without loss (but class names other than
strings and numbers come back as text).

    tree = to_datatree(predict(law, test, key=key, name="NUTS"))
    az.summary(tree, var_names=["logits"]); az.plot_ppc_pava(tree)
    tree = to_datatree(predict(law, train, key=key, name="NUTS", held_out=False)); az.loo(tree)

Groups follow the InferenceData schema: posterior (logits), posterior_predictive (label draws y),
observed_data (labels y), constant_data (targets, probabilities) and, where it means leave-one-out to
weigh the draws by it, log_likelihood (y). Points are the
dimension `obs_id`, classes `class`, by name; logits that are not of one class each, the one of two
classes or of ordered ones, are `logit`. Independent draws have a chain axis of length 1 and say in the
attribute `sampling` of each group that they are no Markov chain: their R-hat, which compares chains, is
NaN. `likelihood` is its name and fields; a tree without it, of an earlier version, has the likelihood of
its logits' width.

`az.loo` weighs draws of the posterior so that a training point's likelihood is taken back. So there is
a log_likelihood for NUTS, SplitHMC and FullBayes at just the points and targets they were fitted to,
and for nothing else; elsewhere `az.loo` says that it is missing. Of a Gaussian posterior (Laplace, …)
constant_data has `leave_one_out`, by `ntkbayes.leave_one_out`. Of points that were not trained on, which
`held_out` says, the ELPD is `Predictions.pointwise_elpd`. With soft targets the log likelihood of a
draw is Σ_c y_c log p_c, and az.loo's ELPD is of exp of it, not minus the cross-entropy of the mean
prediction, as it is everywhere else.

The tree goes through netCDF, `tree.to_netcdf(path, engine="h5netcdf")`, and, with the package zarr,
through Zarr, `tree.to_zarr(path, consolidated=False)`; `xr.open_datatree` reads both. The probability
integral transform of each label, left out of the fit, is

    pit = az.loo_pit(tree)
    az.plot_ecdf_pit(xr.DataTree.from_dict({"/pit": pit}), group="pit", sample_dims=["obs_id"])

az.summary warns of the effective sample size of draws that are all alike. Of more than two classes
ask for az.plot_ppc_pava(tree, data_type="categorical").
"""

import dataclasses
import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from ntkbayes.errors import ConfigurationError, NTKBayesError, StorageError
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
        ConfigurationError: the draws cannot be divided among the chains.
    """
    import xarray as xr

    p = predictions
    chains = p.num_chains
    if len(p.label_draws) % chains:
        raise ConfigurationError(
            f"{len(p.label_draws)} draws of {chains} chains have no (chain, draw) axes; predict with a "
            f"num_draws that is a multiple of {chains}"
        )
    attributes = {
        "schema": SCHEMA,
        "law": p.name,
        "sampling": p.sampling,
        "held_out": int(p.held_out),
        "is_posterior": int(p.is_posterior),
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
    is_left_out = "leave_one_out" in tree.children["constant_data"].dataset
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
        is_posterior=bool(tree.attrs.get("is_posterior", 0)),  # not known of an earlier version's
        leave_one_out=read("constant_data", "leave_one_out") if is_left_out else None,
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
