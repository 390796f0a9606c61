"""What is written is read back; what fails leaves the old file; what is broken says so."""

import dataclasses
import errno
import json

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from ntkbayes import datasets, storage
from ntkbayes.comparison import Comparison, compare
from ntkbayes.errors import PrecisionError, StorageError
from ntkbayes.likelihood import Ordinal
from ntkbayes.predictive import Predictions, Surface


def predictions(
    name: str, test: datasets.Dataset, *, chains: int = 1, seed: int = 0
) -> Predictions:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(20, test.num_points, test.num_classes))
    return Predictions(
        name=name,
        targets=test.targets,
        class_names=test.class_names,
        logits=logits,
        mean=logits.mean(axis=0),
        variance=logits.var(axis=0),
        point_probabilities=None,
        label_draws=rng.integers(test.num_classes, size=logits.shape[:2]),
        sampling="Markov chains" if chains > 1 else "independent initialisations",
        num_chains=chains,
        seconds=0.25,
        info={"max_rhat": 1.01},
    )


@pytest.fixture
def comparison() -> Comparison:
    iris = datasets.load("iris")
    train, test = iris.take(np.arange(0, 150, 4)), iris.take(np.arange(1, 150, 4))
    found = compare(
        {"NUTS": predictions("NUTS", test, chains=4), "a b": predictions("a b", test, seed=1)},
        test,
        key=jax.random.key(0),
        seed=3,
        settings={"data": "iris", "classes": ["x", "y"]},
    )
    rng = np.random.default_rng(2)
    plane = Surface(
        x=np.arange(3.0),
        y=np.arange(2.0),
        probabilities=rng.dirichlet(np.ones(3), size=(2, 3)),
        epistemic=rng.uniform(size=(2, 3)),
        features=rng.normal(size=(5, 2)),
        labels=np.arange(5) % 3,
    )
    training = {"NUTS": predictions("NUTS", train, chains=4, seed=4)}
    return Comparison(
        found.predictions, found.reference, found.seed, found.settings, training, {"a b": plane}
    )


def fail_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: xr.DataTree, path: object, **_: object) -> None:
        path.write_bytes(b"half of a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", broken)


def parts_in(folder) -> list:
    return list(folder.rglob("*.part"))


def test_load_inverts_save(comparison, tmp_path):
    found = storage.load(storage.save(comparison, tmp_path / "deep" / "folder"))
    pd.testing.assert_frame_equal(found.table(), comparison.table())
    assert (found.reference, found.seed) == (comparison.reference, comparison.seed)
    assert dict(found.settings) == dict(comparison.settings)
    assert list(found.predictions) == list(comparison.predictions)
    assert found.predictions["NUTS"].info == {"max_rhat": 1.01}
    np.testing.assert_array_equal(found.training["NUTS"].logits, comparison.training["NUTS"].logits)
    for name, value in vars(comparison.surfaces["a b"]).items():
        np.testing.assert_array_equal(getattr(found.surfaces["a b"], name), value)


def test_the_likelihood_of_ordered_classes_is_kept(tmp_path):
    iris = datasets.load("iris")
    given = predictions("Laplace", iris)
    logits = given.logits[:, :, :1]
    moments = {"mean": logits.mean(axis=0), "variance": logits.var(axis=0)}
    ordinal = Ordinal([-0.5, 0.8])
    given = dataclasses.replace(given, logits=logits, **moments, likelihood=ordinal)
    storage.prepare_folder(tmp_path)
    storage.save_law(tmp_path, given)
    found, _, _ = storage.load_law(storage.law_path(tmp_path, "Laplace"))
    assert found.likelihood == ordinal
    np.testing.assert_array_equal(found.probabilities, given.probabilities)


def test_saving_twice_is_saving_once(comparison, tmp_path):
    storage.save(comparison, tmp_path)
    table = (tmp_path / "comparison.csv").read_bytes()
    storage.save(storage.load(tmp_path), tmp_path)
    assert (tmp_path / "comparison.csv").read_bytes() == table
    assert parts_in(tmp_path) == []


def test_failed_write_leaves_the_old_file(comparison, tmp_path, monkeypatch):
    storage.save(comparison, tmp_path)
    path = storage.law_path(tmp_path, "NUTS")
    before = path.read_bytes()
    fail_half_way(monkeypatch)
    with pytest.raises(StorageError, match=r"nuts\.nc.*No space left on device"):
        storage.save_law(tmp_path, comparison.predictions["NUTS"])
    assert path.read_bytes() == before
    assert parts_in(tmp_path) == []


def test_failed_first_write_leaves_no_file(comparison, tmp_path, monkeypatch):
    fail_half_way(monkeypatch)
    with pytest.raises(StorageError, match="No space left on device"):
        storage.save(comparison, tmp_path)
    assert list((tmp_path / "laws").iterdir()) == []


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    storage.write_text(path, "old")

    def stopped(part) -> None:
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(path, stopped)
    assert path.read_text() == "old"
    assert parts_in(tmp_path) == []


# Permission bits do not bind root, as which tests may run: a folder below a file is refused to all.
def test_unwritable_folder_is_named(comparison, tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write to the output folder .*file\.txt/x"):
        storage.save(comparison, file / "x")
    with pytest.raises(StorageError, match=r"could not write .*file\.txt/x"):
        storage.write_text(file / "x", "text")
    assert file.read_text() == "in the way"


@pytest.mark.parametrize("kind", ["random bytes", "empty", "truncated"])
def test_broken_law_file_is_named_with_the_remedy(kind, comparison, tmp_path):
    storage.save(comparison, tmp_path)
    path = storage.law_path(tmp_path, "NUTS")
    content = {
        "random bytes": np.random.default_rng(0).bytes(1000),
        "empty": b"",
        "truncated": path.read_bytes()[: path.stat().st_size // 2],
    }[kind]
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"nuts\.nc.*delete it and run again"):
        storage.load(tmp_path)


def test_missing_law_file_is_named(comparison, tmp_path):
    storage.save(comparison, tmp_path)
    storage.law_path(tmp_path, "NUTS").unlink()
    with pytest.raises(StorageError, match=r"no file .*nuts\.nc"):
        storage.load(tmp_path)


def test_netcdf_of_something_else_is_refused(tmp_path):
    path = tmp_path / "laws" / "weather.nc"
    storage.prepare_folder(tmp_path)
    xr.Dataset({"rain": ("day", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(StorageError, match=r"weather\.nc"):
        storage.load_law(path)


def test_law_file_without_a_part_is_named_with_the_remedy(comparison, tmp_path):
    path = storage.law_path(tmp_path, "NUTS")
    storage.save(comparison, tmp_path)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        whole = tree.load()
    del whole["posterior_predictive"]
    whole.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(StorageError, match=r"nuts\.nc.*delete it and run again"):
        storage.load_law(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        json.dumps({"laws": "NUTS", "reference": "N"}).encode(),
        json.dumps({"laws": ["NUTS"], "reference": "Laplace"}).encode(),
    ],
)
def test_broken_summary_is_named_with_the_remedy(content, comparison, tmp_path):
    storage.save(comparison, tmp_path)
    (tmp_path / "comparison.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"comparison\.json.*delete it and run again"):
        storage.load(tmp_path)


def test_folder_without_a_comparison_says_how_to_make_one(tmp_path):
    with pytest.raises(StorageError, match=r"holds no finished comparison.*ntkbayes compare"):
        storage.load(tmp_path)


def test_loading_takes_float64(comparison, tmp_path):
    storage.save(comparison, tmp_path)
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="jax_enable_x64"):
        storage.load(tmp_path)
