"""What is written is read back; what fails leaves the old file; what is broken says so."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap

import h5py
import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ntkbayes as nb
from ntkbayes import datasets, files, storage
from ntkbayes.comparison import Comparison, compare
from ntkbayes.errors import NewerFormatError, PrecisionError, StorageError
from ntkbayes.laws.trace import Trace
from ntkbayes.likelihood import Ordinal
from ntkbayes.predictions import ClassPredictions, Predictions, Surface
from ntkbayes.storage import LawFolder, LawRecord


def predictions(
    name: str, test: datasets.Dataset, *, chains: int = 1, seed: int = 0
) -> Predictions:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(20, test.num_points, test.num_classes))
    return ClassPredictions(
        name=name,
        targets=test.targets,
        class_names=test.class_names,
        logits=logits,
        mean=logits.mean(axis=0),
        variance=logits.var(axis=0),
        point_probabilities=None,
        label_draws=rng.integers(test.num_classes, size=logits.shape[:2]),
        kind=(nb.NUTS if chains > 1 else nb.RandomInit).kind,
        num_chains=chains,
        seconds=0.25,
        info={"max_rhat": 1.01},
        trace=Trace(
            {"energy": rng.normal(size=20), "diverging": rng.uniform(size=20) < 0.5},
            hyperparameters={"ridge": rng.uniform(size=20), "length": rng.normal(size=(20, 2))},
        ),
        features=test.features,
        feature_names=test.feature_names,
        row_names=np.array([f"Blüte {row}" for row in test.row_names]),
    )


@pytest.fixture(scope="module")
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
    fitted = predictions("NUTS", train, chains=4, seed=4)
    training = {"NUTS": dataclasses.replace(fitted, held_out=False)}
    return Comparison(
        found.predictions, found.reference, found.seed, found.settings, training, {"a b": plane}
    )


@pytest.fixture(scope="module")
def _saved(comparison, tmp_path_factory):
    return storage.save(comparison, tmp_path_factory.mktemp("saved"))


@pytest.fixture
def saved(_saved, tmp_path):
    """A folder with the comparison, to be spoilt."""
    return shutil.copytree(_saved, tmp_path, dirs_exist_ok=True)


def files_in(folder) -> dict[str, bytes]:
    """Contents by path, of all but the lock."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_load_inverts_save(comparison, tmp_path):
    found = storage.load(storage.save(comparison, tmp_path / "deep" / "folder"))
    pd.testing.assert_frame_equal(found.table(), comparison.table())
    assert (found.reference, found.seed) == (comparison.reference, comparison.seed)
    assert dict(found.settings) == dict(comparison.settings)
    assert list(found.predictions) == list(comparison.predictions)
    assert found.predictions["NUTS"].info == {"max_rhat": 1.01}
    ours, theirs = found.training["NUTS"], comparison.training["NUTS"]
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    np.testing.assert_array_equal(ours.features, theirs.features)
    np.testing.assert_array_equal(ours.row_names, theirs.row_names)
    assert ours.feature_names == theirs.feature_names
    for part in ("sample_stats", "hyperparameters"):
        mine, given = (getattr(p.trace, part) for p in (ours, theirs))
        assert mine.keys() == given.keys()
        for name, values in given.items():
            assert mine[name].dtype == values.dtype
            np.testing.assert_array_equal(mine[name], values)
    for name, value in vars(comparison.surfaces["a b"]).items():
        np.testing.assert_array_equal(getattr(found.surfaces["a b"], name), value)


def test_the_likelihood_of_ordered_classes_is_kept(tmp_path):
    iris = datasets.load("iris")
    given = predictions("Laplace", iris)
    logits = given.logits[:, :, :1]
    moments = {"mean": logits.mean(axis=0), "variance": logits.var(axis=0)}
    ordinal = Ordinal([-0.5, 0.8])
    given = dataclasses.replace(given, logits=logits, **moments, likelihood=ordinal)
    with LawFolder(tmp_path) as folder:
        folder.save(LawRecord(given))
        found = folder.load("Laplace").predictions
    assert found.likelihood == ordinal
    np.testing.assert_array_equal(found.probabilities, given.probabilities)


def parts_in(folder) -> list:
    return list(folder.rglob("*.part"))


def test_saving_twice_is_saving_once(comparison, saved):
    table = (saved / "comparison.csv").read_bytes()
    storage.save(storage.load(saved), saved)
    assert (saved / "comparison.csv").read_bytes() == table
    assert parts_in(saved) == []


@pytest.mark.parametrize("names", [("MAP", "map"), ("α", "β"), ("a b", "a-b"), ("NUL", "é")])
def test_laws_whose_names_are_alike_are_kept_apart(names, tmp_path):
    iris = datasets.load("iris")
    laws = {name: predictions(name, iris, seed=seed) for seed, name in enumerate(names)}
    with LawFolder(tmp_path) as folder:
        for law in laws.values():
            folder.save(LawRecord(law))
        for name, law in laws.items():
            np.testing.assert_array_equal(folder.load(name).predictions.logits, law.logits)


def test_a_law_in_the_place_of_another_is_refused(comparison, saved):
    first, second = (storage.law_path(saved, name) for name in comparison.predictions)
    first.write_bytes(second.read_bytes())
    with pytest.raises(StorageError, match=r"nuts-.*\.nc holds the law 'a b', not 'NUTS'"):
        storage.load(saved)


def test_laws_that_were_not_written_together_are_refused(saved):
    others = datasets.load("iris").take(np.arange(2, 150, 4))
    LawFolder(saved).save(LawRecord(predictions("NUTS", others, chains=4)))
    with pytest.raises(StorageError, match="were not written together"):
        storage.load(saved)
    as_first_version(saved)  # which had no digests: the points tell
    with pytest.raises(StorageError, match=r"'NUTS' and 'a b' in .* are of different test points"):
        storage.load(saved)


def as_schema_3(tree: xr.DataTree) -> xr.DataTree:
    """What the format before held: held-out points where training points are, and no features."""
    parts = {"/": tree, "training": tree.get("training")}
    found = {}
    for name, node in parts.items():
        if node is None:
            continue
        held_out = "predictions" in node.children
        groups = {
            "posterior": ("predictions" if held_out else "posterior", ["logits"]),
            "posterior_predictive": ("predictions" if held_out else "posterior_predictive", ["y"]),
            "constant_data": (
                f"{'predictions_' if held_out else ''}constant_data",
                ["targets", "probabilities", "logit_mean", "logit_variance"],
            ),
        }
        found[name] = xr.Dataset(attrs=node.attrs | {"schema": "ntkbayes 3"})
        for group, (source, variables) in groups.items():
            kept = node[source].to_dataset()[variables].drop_vars("class_", errors="ignore")
            rows = {"obs_id": np.arange(kept.sizes["obs_id"])}
            found[f"{name}/{group}".replace("//", "/")] = kept.assign_coords(rows)
    if "surface" in tree.children:
        found["surface"] = tree["surface"].to_dataset()
    older = xr.DataTree.from_dict(found)
    return older.map_over_datasets(
        lambda part: part.rename_dims({"class_": "class"} if "class_" in part.dims else {})
    )


def as_first_version(folder) -> None:
    """Make of a folder what the first version would have written."""
    summary = json.loads((folder / "comparison.json").read_text())
    del summary["schema"], summary["digests"], summary["version"]
    (folder / "comparison.json").write_text(json.dumps({**summary, "settings": {"a": np.inf}}))
    for name in summary["laws"]:
        path = storage.law_path(folder, name)
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            whole = as_schema_3(tree.load())
        for mark in ("digest", "study", "version"):
            del whole.attrs[mark]
        for node in (whole, *(part for part in (whole.get("training"),) if part is not None)):
            node.attrs |= {"schema": "ntkbayes 1", "info": '{"max_rhat": Infinity}'}
        whole.to_netcdf(folder / "laws" / f"{name.replace(' ', '-').lower()}.nc", engine="h5netcdf")
        path.unlink()


def test_a_table_says_what_its_intervals_are_over_and_one_from_before_is_read(comparison, tmp_path):
    settings = {"training points": 7, "test points": 3}
    folder = storage.save(dataclasses.replace(comparison, settings=settings), tmp_path)
    path = folder / "comparison.csv"
    table = pd.read_csv(path, index_col="law")
    assert set(table.pop("interval")) == {"90% over test points"}
    found = storage.read_record(folder)
    assert found.rows.keys() == comparison.predictions.keys()
    assert all(row.keys() == set(table.columns) for row in found.rows.values())
    table.to_csv(path)
    assert repr(storage.read_record(folder)) == repr(found)  # nan is not nan


def test_folders_of_the_first_version_are_read(comparison, saved):
    as_first_version(saved)
    found = storage.load(saved)
    pd.testing.assert_frame_equal(found.table(), comparison.table())
    assert found.predictions["NUTS"].info == {"max_rhat": np.inf}
    assert dict(found.settings) == {"a": np.inf}
    for name, law in comparison.predictions.items():
        np.testing.assert_array_equal(found.predictions[name].logits, law.logits)


# Of `LawRecord(predictions("law", few), predictions("law", few))`, by the version that wrote schema 3.
DIGEST_OF_SCHEMA_3 = "1a8b4ecc76fe9a00fd2293e13208bb4d367a99583735e9250c31b62b45783f53"


def test_a_law_of_the_format_before_is_read_and_its_digest_checked(tmp_path):
    few = datasets.load("iris").take(np.arange(0, 150, 30))
    with LawFolder(tmp_path) as folder:
        folder.save(LawRecord(predictions("law", few), predictions("law", few)))
        path = storage.law_path(tmp_path, "law")
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            older = as_schema_3(tree.load())
        older.attrs["digest"] = DIGEST_OF_SCHEMA_3
        older.to_netcdf(path, engine="h5netcdf")
        found = folder.load("law")
        for part in (found.predictions, found.training):
            np.testing.assert_array_equal(part.logits, predictions("law", few).logits)
            assert part.features is None
        older["posterior"]["logits"][0, 0, 0, 0] += 1e-9
        older.to_netcdf(path, engine="h5netcdf")
        with pytest.raises(StorageError, match="has other contents than were written"):
            folder.load("law")


def test_a_folder_keeps_features_that_are_small(tmp_path):
    few = datasets.load("iris").take(np.arange(0, 150, 30))
    given = predictions("law", few)
    wide = np.zeros((few.num_points, 2**17 // few.num_points + 1))
    large = dataclasses.replace(
        given, features=wide, feature_names=tuple(f"x{j}" for j in range(wide.shape[1]))
    )
    with LawFolder(tmp_path) as folder:
        for law, kept in ((given, few.features), (large, None)):
            folder.save(LawRecord(law))
            np.testing.assert_equal(folder.load("law").predictions.features, kept)


def test_numbers_that_are_not_finite_are_kept_in_strict_json(comparison, tmp_path):
    odd = dataclasses.replace(
        comparison.predictions["NUTS"], info={"a": np.inf, "b": -np.inf, "c": np.nan}
    )
    given = dataclasses.replace(
        comparison,
        predictions={**comparison.predictions, "NUTS": odd},
        settings={"step": np.inf, "width": np.float64(2.0)},
    )
    found = storage.load(storage.save(given, tmp_path))
    assert str(found.predictions["NUTS"].info) == "{'a': inf, 'b': -inf, 'c': nan}"
    assert dict(found.settings) == {"step": "Infinity", "width": 2.0}
    text = (tmp_path / "comparison.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_name_that_netcdf_cannot_hold_is_refused_and_nothing_is_written(comparison, saved):
    before = files_in(saved)
    laws = {**comparison.predictions, "a\0b": comparison.predictions["NUTS"]}
    with pytest.raises(StorageError, match=r"the law 'a\\x00b' cannot be kept"):
        storage.save(Comparison(laws, "NUTS"), saved)
    assert files_in(saved) == before


# A limit of the system, as a quota or `ulimit -f` sets it, in a process of its own: HDF5 ends the one
# in which it cannot write. Files of less than 4096 bytes can be written, so that some are.
FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from ntkbayes import storage
    from ntkbayes.comparison import Comparison
    from ntkbayes.errors import StorageError
    from ntkbayes.files import save_arrays, write_text
    from ntkbayes.laws.kind import BASELINE
    from ntkbayes.predictions import ClassPredictions

    def law(name, seed):
        p = np.random.default_rng(seed).dirichlet(np.ones(2), size=50)
        labels, targets = np.zeros((40, 50), dtype=int), np.eye(2)[np.arange(50) % 2]
        return ClassPredictions(
            name=name, targets=targets, class_names=("x", "y"), logits=None, mean=None,
            variance=None, point_probabilities=p, label_draws=labels, kind=BASELINE,
        )

    def comparison(seed):
        laws = {name: law(name, seed) for name in ("one", "two")}
        return Comparison(laws, "one", settings={"seed": seed})

    folder = Path(sys.argv[1])
    storage.save(comparison(0), folder)
    write_text(folder / "report.html", "whole")
    save_arrays(folder / "a.npz", {"x": np.zeros(10)})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for write in (
        lambda: storage.save(comparison(1), folder),
        lambda: storage.LawFolder(folder).save(storage.LawRecord(law("one", 1))),
        lambda: write_text(folder / "report.html", 10_000 * "-"),
        lambda: save_arrays(folder / "a.npz", {"x": np.zeros(1000)}),
        lambda: storage.save(comparison(1), folder / "new"),
    ):
        try:
            write()
        except StorageError as error:
            assert "File too large" in str(error), error
        else:
            raise AssertionError("there was space")
    assert {path: path.read_bytes() for path in before} == before
    assert [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"] == [
        path for path in before if path.suffix != ".lock"
    ]
    assert storage.load(folder).settings == {"seed": 0}
    print("still here")
"""


def test_a_full_disk_is_told_and_costs_nothing_that_was_there(tmp_path):
    script = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    options = {"env": {**os.environ, "JAX_ENABLE_X64": "1"}, "capture_output": True, "text": True}
    done = subprocess.run(script, **options, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


# Permission bits do not bind root, as which tests may run: a folder below a file is refused to all.
def test_unwritable_folder_is_named(comparison, tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write to the output folder .*file\.txt/x"):
        storage.save(comparison, file / "x")
    with pytest.raises(StorageError, match=r"could not write .*file\.txt/x"):
        files.write_text(file / "x", "text")
    assert file.read_text() == "in the way"


@pytest.mark.parametrize("kind", ["random bytes", "empty", "truncated"])
def test_broken_law_file_is_named_with_the_remedy(kind, saved):
    path = storage.law_path(saved, "NUTS")
    content = {
        "random bytes": np.random.default_rng(0).bytes(1000),
        "empty": b"",
        "truncated": path.read_bytes()[: path.stat().st_size // 2],
    }[kind]
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"nuts-.*\.nc.*delete it and run again"):
        storage.load(saved)


def test_missing_law_file_is_named(saved):
    storage.law_path(saved, "NUTS").unlink()
    with pytest.raises(StorageError, match=r"no file .*nuts-.*\.nc"):
        storage.load(saved)


# --- hostile files --------------------------------------------------------------------------------


def test_netcdf_of_something_else_is_refused(tmp_path):
    path = storage.law_path(tmp_path, "weather")
    path.parent.mkdir()
    xr.Dataset({"rain": ("day", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(
        StorageError, match=r"weather-.*\.nc is not a whole law: .*schema is 'None'"
    ):
        LawFolder(tmp_path).load("weather")


def huge(root: h5py.File) -> None:
    del root["predictions/logits"]
    root["predictions"].create_dataset("logits", (10**6, 10**6, 38, 3), "f8", chunks=(1, 1, 1, 1))


def huge_and_whole(root: h5py.File) -> None:
    del root["predictions_constant_data/targets"]
    root["predictions_constant_data"].create_dataset("targets", (10**5, 10**5), "f8")


def packed(root: h5py.File) -> None:
    del root["predictions/logits"]
    zeros = np.zeros((4, 500, 38, 3))
    root["predictions"].create_dataset("logits", data=zeros, compression="gzip")


def elsewhere(root: h5py.File) -> None:
    del root["predictions/logits"]
    root["predictions/logits"] = h5py.ExternalLink("/etc/other.nc", "/x")


def outside(root: h5py.File) -> None:
    del root["predictions/logits"]
    where = [("/dev/zero", 0, h5py.h5f.UNLIMITED)]
    root["predictions"].create_dataset("logits", (4, 5, 38, 3), "f8", external=where)


def cycle(root: h5py.File) -> None:
    root["training"]["training"] = root["training"]
    root["loop"] = root["/"]
    del root["predictions"]
    root["predictions"] = root["/"]


def words(root: h5py.File) -> None:
    del root["predictions_constant_data/targets"]
    root["predictions_constant_data"]["targets"] = np.array([b"a", b"b"])


def other_shape(root: h5py.File) -> None:
    del root["predictions_constant_data/logit_mean"]
    root["predictions_constant_data"]["logit_mean"] = np.zeros((37, 3))


def one_axis(root: h5py.File) -> None:
    del root["predictions/logits"]
    root["predictions"]["logits"] = np.zeros(20 * 38 * 3)


def no_classes(root: h5py.File) -> None:
    root.attrs["class_names"] = "null"


def deep(root: h5py.File) -> None:
    root.attrs["info"] = "[" * 100_000 + "]" * 100_000


def empty(root: h5py.File) -> None:
    root.attrs["law"] = h5py.Empty("f")


def negative(root: h5py.File) -> None:
    root["predictions/y"][...] = -1


def changed(root: h5py.File) -> None:
    root["predictions/logits"][0, 0, 0, 0] += 1e-9


def moved(root: h5py.File) -> None:
    targets = root["training/constant_data/targets"]
    targets[...] = np.roll(targets[...], 1, axis=0)


def unmarked(root: h5py.File) -> None:
    del root.attrs["digest"]


HOSTILE = {
    huge: "claims",
    huge_and_whole: "claims",
    packed: "claims",
    elsewhere: "logits is a link",
    outside: "logits is stored in another file",
    cycle: "",
    words: "targets is not an array of numbers",
    other_shape: "conflicting sizes",
    one_axis: "",
    no_classes: "",
    deep: "",
    empty: "",
    negative: "y do not fit the rest, or are out of range",
    changed: "has other contents than were written",
    moved: "has other contents than were written",
    unmarked: "has other contents than were written",
}


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)
def test_hostile_law_is_refused_with_the_reason(spoil, saved):
    path = storage.law_path(saved, "NUTS")
    with h5py.File(path, "r+") as root:
        spoil(root)
    with pytest.raises(StorageError, match=rf"nuts-.*\.nc .*{HOSTILE[spoil]}"):
        storage.load(saved)


def test_a_law_of_a_later_version_says_what_to_do(comparison, saved):
    path = storage.law_path(saved, "NUTS")
    with h5py.File(path, "r+") as root:
        root.attrs["schema"], root.attrs["version"] = "ntkbayes 99", "7.1"
    message = (
        r"nuts-.*\.nc was written by ntkbayes 7\.1, .*read it with that version or a later one$"
    )
    with pytest.raises(NewerFormatError, match=message):
        storage.load(saved)
    summary = json.loads((saved / "comparison.json").read_text())
    (saved / "comparison.json").write_text(json.dumps({**summary, "schema": 99, "version": "7.1"}))
    with pytest.raises(NewerFormatError, match=r"comparison\.json was written by ntkbayes 7\.1"):
        storage.load(saved)


@pytest.fixture(scope="module")
def law_bytes(tmp_path_factory) -> bytes:
    """The file of a small law."""
    folder = tmp_path_factory.mktemp("law")
    LawFolder(folder).prepare()
    few = datasets.load("iris").take(np.arange(0, 150, 30))
    LawFolder(folder).save(LawRecord(predictions("law", few), predictions("law", few)))
    return storage.law_path(folder, "law").read_bytes()


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_law_whose_file_was_changed_is_refused_or_as_it_was(law_bytes, tmp_path_factory, data):
    place = st.integers(0, len(law_bytes) - 1)
    changes = data.draw(st.dictionaries(place, st.integers(0, 255), min_size=1, max_size=8))
    content = bytearray(law_bytes)
    for position, value in changes.items():
        content[position] = value
    end = data.draw(st.just(len(content)) | place)
    folder = tmp_path_factory.getbasetemp() / "changed"
    LawFolder(folder).prepare()
    storage.law_path(folder, "law").write_bytes(content[:end])
    few = datasets.load("iris").take(np.arange(0, 150, 30))
    try:
        found = LawFolder(folder).load("law").predictions
    except StorageError:
        return
    np.testing.assert_array_equal(found.logits, predictions("law", few).logits)
    np.testing.assert_array_equal(found.targets, few.targets)
    assert found.class_names == few.class_names


def test_law_file_without_a_part_is_named_with_the_remedy(saved):
    with h5py.File(storage.law_path(saved, "NUTS"), "r+") as root:
        del root["predictions"]
    with pytest.raises(StorageError, match=r"nuts-.*\.nc.*delete it and run again"):
        LawFolder(saved).load("NUTS")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": None}, "its settings are None"),
        ({"settings": [1]}, r"its settings are \[1\]"),
        ({"seed": "0"}, "its seed is '0'"),
        ({"seed": -1}, "its seed is -1"),
        ({"laws": ["NUTS", "NUTS"]}, "one twice"),
        ({"laws": []}, "no laws"),
        ({"laws": [["NUTS"]]}, "no list of names"),
        ({"laws": "NUTS"}, "no list of names"),
        ({"reference": ["NUTS"]}, "is none of the laws"),
        ({"digests": {}}, "contents of its laws"),
    ],
)
def test_summary_that_is_none_is_refused(change, message, comparison, saved):
    path = saved / "comparison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        StorageError, match=rf"comparison\.json .*{message}.*delete it and run again"
    ):
        storage.load(saved)


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
def test_broken_summary_is_named_with_the_remedy(content, comparison, saved):
    (saved / "comparison.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"comparison\.json.*delete it and run again"):
        storage.load(saved)


def test_folder_without_a_comparison_says_how_to_make_one(tmp_path):
    with pytest.raises(StorageError, match=r"holds no finished comparison.*ntkbayes compare"):
        storage.load(tmp_path)


def test_loading_takes_float64(saved):
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="jax_enable_x64"):
        storage.load(saved)
