"""`import ntkbayes` is quick, and leaves the process as it was."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

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
ntkbayes.MAP
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "changed": [k for k, v in before.items() if jax.config.values.get(k) != v],
}))
"""


TIME = """
import time
begin = time.process_time()
import jax
middle = time.process_time()
import ntkbayes
ntkbayes.MAP
print(middle - begin, time.process_time() - middle)
"""


def import_times(environment: dict[str, str]) -> tuple[float, float]:
    """CPU seconds of importing JAX, and then ntkbayes, in a fresh interpreter. Time on the wall would
    fail on a machine busy with others."""
    done = subprocess.run(
        [sys.executable, "-c", TIME], check=True, capture_output=True, text=True, env=environment
    )
    jax_alone, ntkbayes_after = map(float, done.stdout.split())
    return jax_alone, ntkbayes_after


def test_import_is_light_and_leaves_jax_as_it_was():
    done = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert HEAVY & set(found["modules"]) == set()
    assert found["changed"] == []
    assert done.stderr == ""


def test_import_takes_little_longer_than_jax(tmp_path):
    # Both as every import after the first, from bytecode: where Python may write none, JAX's was made
    # with .venv, and ours would be compiled again at each import. The minimum of each, since whatever
    # else runs can only add. Half a second; on a machine so slow that JAX takes longer, what JAX takes.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    import_times(environment)  # writes the bytecode
    jax_alone, ntkbayes_after = (
        min(times) for times in zip(*(import_times(environment) for _ in range(5)), strict=True)
    )
    assert ntkbayes_after < max(0.5, jax_alone)


def test_public_names_are_there_when_asked_for():
    look = (
        "import sys, ntkbayes; assert 'jax' not in sys.modules; from ntkbayes import *; "
        "assert {*ntkbayes.__all__} <= {*dir(ntkbayes), *globals()}; print(Study, MAP)"
    )
    done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(
        "<class 'ntkbayes.app.study.Study'> <class 'ntkbayes.laws.point.MAP'>"
    )
    with pytest.raises(AttributeError, match=r"has no attribute 'MAPP'; did you mean 'MAP'\?"):
        _ = ntkbayes.MAPP


def test_dir_is_what_is_public_and_nothing_else():
    assert dir(ntkbayes) == sorted([*ntkbayes.__all__, "__version__"])
    assert all(getattr(ntkbayes, name) is not None for name in dir(ntkbayes))


def test_version_is_that_of_the_installed_package():
    assert ntkbayes.__version__ == version("ntkbayes")
