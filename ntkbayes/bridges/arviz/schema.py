"""How predictions are laid out in a DataTree."""

import dataclasses
import json
from importlib.metadata import version

import numpy as np

from ntkbayes.errors import NTKBayesError, StorageError
from ntkbayes.likelihood import (
    Bernoulli,
    Categorical,
    Likelihood,
    Normal,
    Ordinal,
    Poisson,
)
from ntkbayes.netcdf import OTHERS, Layout

SCHEMA = 4
"""Schema 1 lacks the digest that shows whether a file is whole (see `storage`), schema 2 the kind of
law, and schema 3 calls the dimension `class_` `class`, keeps held-out points where training points are,
and knows nothing of features, names of rows or chains. All are still read."""

_CONSTANT = {
    "y": ("obs_id",),
    "targets": ("obs_id", "class_"),
    "predictive_mean": ("obs_id",),
    "predictive_spread": ("obs_id",),
    "predictive_noise": ("obs_id",),
    "log_density": ("obs_id",),
    "probabilities": ("obs_id", "class_"),
    "logit_mean": ("obs_id", "output"),
    "logit_variance": ("obs_id", "output"),
    "leave_one_out": ("obs_id",),
    "features": ("obs_id", "feature"),
    "obs_id": ("obs_id",),
    "feature": ("feature",),
}
_DRAWS = ("chain", "draw")
_LOGITS, _LABELS = (*_DRAWS, "obs_id", "output"), (*_DRAWS, "obs_id")

LAYOUT: Layout = {
    "posterior": {"logits": _LOGITS, OTHERS: _DRAWS},
    "posterior_predictive": {"y": _LABELS},
    "observed_data": {"y": ("obs_id",)},
    "log_likelihood": {"y": _LABELS},
    "constant_data": _CONSTANT,
    "predictions": {"logits": _LOGITS, "y": _LABELS},
    "predictions_constant_data": _CONSTANT,
    "sample_stats": {OTHERS: _DRAWS},
    "log_prior": {OTHERS: _DRAWS},
}
"""What `from_datatree` reads: dimensions by group and variable, `output` being `class_` or `logit`."""

TEXTS = ("obs_id", "feature")
"""Variables that may hold text."""

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
    "targets",
    "given",
)

_LIKELIHOODS = {kind.__name__: kind for kind in (Bernoulli, Categorical, Ordinal, Normal, Poisson)}


def written_by_later(other: str) -> str:
    """The message for a file or tree that a later version wrote."""
    return (
        f"written by ntkbayes {other:.20}, in a format that this version, {version('ntkbayes')}, does "
        "not know; read it with that version or a later one"
    )


def likelihood_text(likelihood: Likelihood) -> str:
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


def likelihood_of(text: str) -> Likelihood:
    """The likelihood that `likelihood_text` wrote."""
    try:
        fields = json.loads(text)
        return _LIKELIHOODS[fields.pop("name")](**fields)
    except (ValueError, TypeError, KeyError, AttributeError, NTKBayesError) as error:
        raise StorageError(
            f"the DataTree's likelihood {text!r} is none of {', '.join(_LIKELIHOODS)}"
        ) from error
