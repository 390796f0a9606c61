"""What results depend on besides the settings of a study, as plain data for the record."""

import platform
from importlib.metadata import version

import jax

from ntkbayes.datasets import Dataset
from ntkbayes.description import describe, digest

_NUMERICAL = ("ntkbayes", "jax", "jaxlib", "numpyro", "diffrax", "numpy", "scipy", "scikit-learn")


def circumstances() -> dict[str, object]:
    """What numbers depend on besides the settings: versions, precision, and how JAX draws."""
    told = versions()
    return {
        "random numbers": random_switches(),
        "precision": str(jax.numpy.result_type(float)),
        "versions": {name: told[name] for name in _NUMERICAL},
    }


def random_switches() -> dict[str, object]:
    """JAX's switches that random numbers depend on besides the seed."""
    names = ("jax_threefry_partitionable", "jax_random_seed_offset")
    implementation = str(jax.random.key_impl(jax.random.key(0)))
    switches = {name: getattr(jax.config, name) for name in names}
    return {"jax_default_prng_impl": implementation, **switches}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that took part."""
    names = (*_NUMERICAL, "equinox", "arviz")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def digest_of_data(data: Dataset) -> str:
    """Tells data sets apart by their contents, whatever they and their rows are called."""
    names = ("name", "row_names")
    return digest({k: v for k, v in describe(data).items() if k not in names})
