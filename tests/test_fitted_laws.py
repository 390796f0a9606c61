"""Fitted laws on disk. That every law comes back is in the contract."""

import io
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, NewerFormatError, StorageError

FEATURES, LABELS = oracle.blobs(3, 12, 3)
NAMES = ("a", "b", "ü")
DATA = nb.Dataset(FEATURES, [NAMES[label] for label in LABELS], class_names=NAMES)
NETWORK = nb.networks.mlp(depth=1)
KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def law():
    return nb.RandomInit(num_inits=3).fit(nb.NTKPrior(NETWORK, ridge=0.3), DATA, key=KEY)


@pytest.fixture
def file(law, tmp_path):
    nb.save_law(law, tmp_path / "mine.law")
    return tmp_path / "mine.law"


def rewritten(file, change):
    """The file with its description changed."""
    arrays = dict(np.load(file))
    described = json.loads(arrays["description"].tobytes())
    change(described)
    arrays["description"] = np.frombuffer(json.dumps(described).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    file.write_bytes(buffer.getvalue())
    return file


def test_another_process_draws_the_same(law, file):
    script = f"""
import jax; jax.config.update("jax_enable_x64", True)
import ntkbayes as nb, numpy as np, sys
law = nb.load_law({str(file)!r})
assert law.problem.class_names == ("a", "b", "ü") and law.kind.name == "random init"
np.save(sys.stdout.buffer, law.sample(jax.random.key(4), np.array([[0.5, -1.0]])))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    drawn = law.sample(KEY, np.array([[0.5, -1.0]]))
    np.testing.assert_array_equal(np.load(io.BytesIO(done.stdout)), drawn)


def test_without_float64_a_law_is_not_loaded(file):
    script = f"import ntkbayes as nb; nb.load_law({str(file)!r})"
    unset = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=unset, check=False
    )
    assert "PrecisionError" in done.stderr


def test_columns_and_scale_are_kept(tmp_path):
    wine, _ = nb.datasets.load("iris").split(KEY)
    law = nb.MAP().fit(nb.NTKPrior(NETWORK, ridge=0.3), wine)
    nb.save_law(law, tmp_path / "iris.law")
    again = nb.load_law(tmp_path / "iris.law")
    assert again.problem.columns.names == law.problem.columns.names
    np.testing.assert_array_equal(again.mean(wine), law.mean(wine))
    with pytest.raises(nb.errors.DataError):
        again.mean(FEATURES)


def test_what_cannot_be_written_down_is_named(law, tmp_path):
    prior = nb.NTKPrior(NETWORK, ridge=0.3, mean=lambda x: jnp.zeros((len(x), 3)))
    own = nb.MAP().fit(prior, DATA)
    with pytest.raises(
        ConfigurationError, match=r"test_fitted_laws:.*<lambda>.* fit the law again"
    ):
        nb.save_law(own, tmp_path / "own.law")
    assert not (tmp_path / "own.law").exists()
    for other in (nb.MAP(), DATA, None):
        with pytest.raises(ConfigurationError, match="takes a fitted law"):
            nb.save_law(other, tmp_path / "own.law")


def test_a_folder_that_is_not_there_is_named(law, tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        nb.save_law(law, tmp_path / "nowhere" / "mine.law")
    with pytest.raises(StorageError, match="there is no file"):
        nb.load_law(tmp_path / "mine.law")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(StorageError, match="cannot be read"):
        nb.load_law(file)


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(StorageError, match="holds no fitted law"):
        nb.load_law(tmp_path / "other.npz")
    np.savez(tmp_path / "text.npz", description=np.frombuffer(b"[" * 100_000, dtype=np.uint8))
    with pytest.raises(StorageError, match="holds no fitted law"):
        nb.load_law(tmp_path / "text.npz")


def test_a_law_of_a_later_version_says_so(file):
    with pytest.raises(NewerFormatError, match="upgrade"):
        nb.load_law(rewritten(file, lambda described: described.update(version=99)))


def test_a_law_with_other_fields_names_them(file):
    with pytest.raises(StorageError, match=r"SampledLaw has the fields .*colour"):
        nb.load_law(rewritten(file, lambda d: d["law"]["object"]["fields"].update(colour="red")))


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "ntkbayes.files:os.system",
        "ntkbayes.files:Path",
        "ntkbayes.nowhere:Law",
        "ntkbayes.laws.law:Nothing",
        "ntkbayes/../evil:Law",
    ],
)
def test_a_file_cannot_name_what_is_not_ours(file, name):
    with pytest.raises(StorageError, match="it names"):
        nb.load_law(rewritten(file, lambda d: d["law"]["object"].update({"class": name})))


@pytest.mark.parametrize("described", [3, None, [], {"object": 3}, {"jax": {}}, {"teapot": 1}, {}])
def test_a_description_of_no_law_is_refused(file, described):
    with pytest.raises(StorageError, match=r"cannot be read|holds a|holds no|it holds"):
        nb.load_law(rewritten(file, lambda d: d.update(law=described)))


def test_narrow_parameters_stay_narrow(tmp_path):
    law = nb.MAP().fit(nb.NTKPrior(NETWORK, ridge=0.3), DATA)
    narrow = jnp.asarray([1.5, -2.0], dtype=jnp.bfloat16)
    moved = jax.tree.map(lambda v: v, law)
    object.__setattr__(moved, "logits", narrow)
    nb.save_law(moved, tmp_path / "narrow.law")
    again = nb.load_law(tmp_path / "narrow.law").logits
    assert again.dtype == jnp.bfloat16
    np.testing.assert_array_equal(again.astype(float), [1.5, -2.0])
