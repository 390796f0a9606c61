"""`import ntkbayes` is quick, and leaves the process as it was."""

import json
import resource
import subprocess
import sys
from importlib.metadata import version

import ntkbayes

HEAVY = {
    "arviz",
    "diffrax",
    "gpjax",
    "matplotlib",
    "neural_tangents",
    "numpyro",
    "pandas",
    "sklearn",
    "xarray",
}
LOOK = """
import json, sys
import jax
before = dict(jax.config.values)
import ntkbayes
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "changed": [k for k, v in before.items() if jax.config.values.get(k) != v],
}))
"""


def seconds_of(code: str) -> float:
    """CPU time of a fresh interpreter. Time on the wall would fail on a machine busy with others."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_import_is_light_and_leaves_jax_as_it_was():
    done = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert HEAVY & set(found["modules"]) == set()
    assert found["changed"] == []
    assert done.stderr == ""


def test_import_takes_little_longer_than_jax():
    # Alternating, so that a machine that slows down meanwhile slows down both; the minimum of each,
    # since whatever else runs can only add.
    runs = [(seconds_of("import jax"), seconds_of("import ntkbayes")) for _ in range(3)]
    jax_alone, with_ntkbayes = (min(times) for times in zip(*runs, strict=True))
    # Half a second where JAX itself takes 1.5 s; a busier or slower machine is slower at both.
    assert with_ntkbayes < jax_alone + 0.5 * max(1.0, jax_alone / 1.5)


def test_version_is_that_of_the_installed_package():
    assert ntkbayes.__version__ == version("ntkbayes")
