"""Settings of every test: float64, no rank promotion, shapes checked at run time."""

import os
import warnings

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The array core is checked against its jaxtyping annotations while the tests run.
from jaxtyping import install_import_hook

CHECKED = [
    "ntkbayes.activations",
    "ntkbayes.bridges.equinox",
    "ntkbayes.bridges.flax",
    "ntkbayes.comparison",
    "ntkbayes.datasets",
    "ntkbayes.kernels",
    "ntkbayes.laws",
    "ntkbayes.lazy",
    "ntkbayes.likelihood",
    "ntkbayes.linalg",
    "ntkbayes.networks",
    "ntkbayes.predictive",
    "ntkbayes.paths",
    "ntkbayes.prior",
    "ntkbayes.training",
]
install_import_hook(CHECKED, "beartype.beartype")

with warnings.catch_warnings():
    # Third parties warn about themselves at import; the tests' own filter is "error".
    warnings.simplefilter("ignore")
