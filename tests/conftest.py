"""Settings of every test: float64, no rank promotion, shapes checked at run time."""

import gc
import os
import re
import warnings
from importlib.metadata import requires, version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Before NumPy is imported. The threads of OpenBLAS wait for each other: beside another worker, factors
# of many small matrices take seven to twenty times as long with two as with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["NTKBAYES_CACHE_DIR"] = "off"  # the user's own; tests that want a cache have their own
# Most of the tests' time is compilation of programs that run once: without the compiler's
# optimisations it takes half as long.
UNOPTIMISED = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if version("jaxlib") < "0.11":  # later ones do not know it, and end the process
    UNOPTIMISED.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*UNOPTIMISED, os.environ.get("XLA_FLAGS", "")])

gc.set_threshold(100_000)  # tracing makes many objects and little garbage
import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

import pytest
from hypothesis import settings

settings.register_profile("suite", max_examples=50, derandomize=True)
settings.load_profile("suite")
settings.register_profile("nightly", max_examples=5000)  # for `make fuzz`

# The array core is checked against its jaxtyping annotations while the tests run.
from jaxtyping import install_import_hook

CHECKED = [
    "ntkbayes.networks.activations",
    "ntkbayes.bridges.equinox",
    "ntkbayes.bridges.flax",
    "ntkbayes.checks",
    "ntkbayes.comparison",
    "ntkbayes.scores.conformal",
    "ntkbayes.datasets",
    "ntkbayes.scores.detection",
    "ntkbayes.selection",
    "ntkbayes.priors.hyperparameters",
    "ntkbayes.kernels",
    "ntkbayes.laws",
    "ntkbayes.lazy",
    "ntkbayes.likelihood",
    "ntkbayes.linalg",
    "ntkbayes.matching",
    "ntkbayes.networks",
    "ntkbayes.predictions",
    "ntkbayes.priors.paths",
    "ntkbayes.priors.prior",
    "ntkbayes.scores.selective",
    "ntkbayes.spectra",
    "ntkbayes.training",
]
install_import_hook(CHECKED, "beartype.beartype")

with warnings.catch_warnings():
    # Third parties warn about themselves at import, and the tests' own filter is "error". An import of
    # NumPyro that a warning ends half-way, within a `try` of GPJax's, leaves a package without parts.
    warnings.simplefilter("ignore")
    import numpyro  # noqa: F401


def pytest_report_header():
    """The versions tested with."""
    needed = (line for line in requires("ntkbayes") if "extra ==" not in line)
    names = ["jaxlib", *(re.match(r"[\w-]+", line)[0] for line in needed)]
    return "with " + ", ".join(f"{name} {version(name)}" for name in sorted(names))


SLOW = Path(__file__).with_name("slow.txt")


def pytest_collection_modifyitems(items):
    """Mark the tests that take half of the suite's time; `make test-slow` runs them."""
    slow = set(SLOW.read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in slow:
            item.add_marker("slow")


MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _release_compiled_programs():
    """Each compiled program holds a few of the process's memory maps; Linux allows 65530, and the
    compiler crashes beyond them. Where they cannot be counted, all go after each module."""
    yield
    if not MAPS.exists() or MAPS.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()


@pytest.fixture
def programs(caplog):
    """Of some work: what JAX logs of each program that it compiles."""

    def compiled(work):
        caplog.clear()
        with jax.log_compiles():
            work()
        return [r.message for r in caplog.records if "Finished XLA compilation" in r.message]

    return compiled
