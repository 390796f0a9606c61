"""Data from arrays, folders of images and OpenML."""

import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ntkbayes as nb
from ntkbayes.app.cli import main
from ntkbayes.app.new_rows import predict_rows
from ntkbayes.datasets import read_images, read_openml, read_rows, read_table
from ntkbayes.datasets.images import Size
from ntkbayes.errors import ConfigurationError, DataError, NTKBayesError, StorageError

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(12, 3))
LABELS = np.array(["u", "v", "w"] * 4)


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arrays",
    [
        {"X": POINTS, "y": LABELS},
        {"X": POINTS, "y": LABELS[:, None], "about": np.array("made up")},
        {"points": POINTS, "y": LABELS},
        {"features": POINTS.reshape(12, 1, 3), "y": LABELS.astype(object).astype(str)},
    ],
)
def test_arrays_are_read_by_their_names(tmp_path, arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    data = read_table(tmp_path / "mine.npz", target="y")
    np.testing.assert_array_equal(data.features, POINTS)
    assert (data.name, data.feature_names) == ("mine", ("x0", "x1", "x2"))
    assert [data.class_names[k] for k in data.labels] == LABELS.tolist()


def test_a_matrix_has_its_labels_in_a_column(tmp_path):
    codes = np.arange(12) % 3
    np.save(tmp_path / "mine.npy", np.column_stack([POINTS, codes]))
    data = read_table(tmp_path / "mine.npy", target="x3")
    np.testing.assert_array_equal(data.features, POINTS)
    assert data.class_names == (0, 1, 2)  # not 0.0, 1.0, 2.0
    np.testing.assert_array_equal(data.labels, codes)


def test_records_have_columns(tmp_path):
    records = np.empty(12, dtype=[("a", float), ("kind", "U1"), ("b", float)])
    records["a"], records["kind"], records["b"] = POINTS[:, 0], LABELS, POINTS[:, 1]
    np.save(tmp_path / "mine.npy", records)
    data = read_table(tmp_path / "mine.npy", target="kind")
    assert (data.feature_names, data.class_names) == (("a", "b"), ("u", "v", "w"))
    np.testing.assert_array_equal(data.features, POINTS[:, :2])


def test_missing_values_and_codes_of_arrays_are_those_of_tables(tmp_path):
    points = np.column_stack([POINTS[:, 0], np.arange(12) % 2])
    points[4, 0] = np.nan
    np.savez(tmp_path / "mine.npz", X=points, y=LABELS)
    with pytest.raises(DataError, match=r"missing, in the column\(s\) 'x0' \(1\).*--impute"):
        read_table(tmp_path / "mine.npz", target="y")
    data = read_table(tmp_path / "mine.npz", target="y", impute="mean", categorical="x1")
    assert data.feature_names == ("x0", "x1=0", "x1=1")
    assert data.features[4, 0] == pytest.approx(np.nanmean(points[:, 0]))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": POINTS}, "no column 'y'; its columns are"),
        ({"X": POINTS, "y": LABELS[:5]}, "5 labels in 'y', but 12 points in 'X'"),
        ({"X": POINTS, "y": np.eye(3)[np.arange(12) % 3]}, r"array\.argmax\(axis=1\)"),
        ({"X": POINTS[:, 0], "y": LABELS}, r"reshape\(-1, 1\)"),
        (
            {"x_train": POINTS, "x_test": POINTS, "y": LABELS},
            "x_train .12, 3., x_test .* besides labels",
        ),
        (
            {"X": POINTS.astype(str), "y": LABELS},
            r"3 problems(.*\n.*numbers kept as text: convert them){3}",
        ),
        ({"X": POINTS.astype(object), "y": LABELS}, "it holds Python objects; save numbers"),
    ],
)
def test_arrays_that_are_no_table_are_told(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(NTKBayesError, match=message):
        read_table(tmp_path / "mine.npz", target="y")


@pytest.mark.parametrize("name", ["mine.npy", "mine.npz"])
def test_broken_files_of_arrays_are_told(tmp_path, name):
    with pytest.raises(StorageError, match="there is no file"):
        read_table(tmp_path / name, target="y")
    (tmp_path / name).write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(StorageError, match=rf"cannot read .*{name} as"):
        read_table(tmp_path / name, target="y")


# --- images ---------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """Six grey images of 3 × 2 pixels in two sub-folders, and what they hold."""
    values = RNG.integers(0, 256, size=(6, 2, 3), dtype=np.uint8)
    for j, image in enumerate(values):
        folder = tmp_path / "photos" / ("cat", "dog")[j % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{j}.png")
    (tmp_path / "photos" / "cat" / ".DS_Store").write_text("hidden")
    return tmp_path / "photos", values


def test_folders_are_classes_and_pixels_run_from_0_to_1(photos):
    folder, values = photos
    data = read_images(folder)
    assert (data.name, data.class_names) == ("photos", ("cat", "dog"))
    np.testing.assert_array_equal(data.labels, [0, 0, 0, 1, 1, 1])
    order = [0, 2, 4, 1, 3, 5]
    np.testing.assert_array_equal(data.features, values[order].reshape(6, -1) / 255)


def test_pixels_are_called_by_their_place_and_images_by_their_file(photos):
    data = read_images(photos[0])
    assert data.feature_names[:4] == ("pixel 0,0", "pixel 0,1", "pixel 0,2", "pixel 1,0")
    files = ("cat/0.png", "cat/2.png", "cat/4.png", "dog/1.png", "dog/3.png", "dog/5.png")
    assert [*data.row_names] == [str(Path(file)) for file in files]
    for size in (Size(2, 3, False), Size(1, 1, True), Size(12, 11, True)):
        assert Size.of(size.names) == size
    assert Size.of(("x0", "x1")) is None
    assert Size.of(("pixel 0,1", "pixel 0,0")) is None


def test_pixels_share_a_scale_that_no_split_changes(photos):
    data = read_images(photos[0])
    for part in (*data.split(jax.random.key(0)), *data.folds(jax.random.key(0), 3)[0]):
        assert part.scaling is None
        assert {*part.features.ravel()} <= {*data.features.ravel()}
    assert data.standardised() is data


def test_pixels_of_sixteen_bits_run_from_0_to_1_and_photographs_are_upright(photos):
    folder, _ = photos
    deep = np.arange(6, dtype=np.uint16).reshape(2, 3) * 13107
    Image.fromarray(deep).save(folder / "dog" / "deep.png")
    lying = Image.fromarray(np.array([[0, 255], [51, 102], [153, 204]], dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    lying.save(folder / "dog" / "lying.png", exif=exif)
    features = read_images(folder).features
    np.testing.assert_allclose(features[-2], [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(features[-1], [0.6, 0.2, 0, 0.8, 0.4, 1])
    Image.fromarray(np.ones((2, 3), dtype=np.float32)).save(folder / "dog" / "real.tif")
    with pytest.raises(StorageError, match=r"its pixels have no largest value; save them with 8"):
        read_images(folder)


def test_new_images_are_as_those_trained_on(photos, tmp_path):
    folder, values = photos
    grey = read_images(folder)
    red = np.zeros((2, 3, 3), dtype=np.uint8)
    Image.fromarray(red).save(folder / "dog" / "red.png")
    coloured = read_images(folder)
    (tmp_path / "new").mkdir()
    Image.fromarray(values[0]).save(tmp_path / "new" / "1.png")
    same = read_rows(tmp_path / "new", coloured.columns).features.reshape(2, 3, 3)
    np.testing.assert_array_equal(same, np.repeat(values[0, ..., None], 3, axis=2) / 255)
    one = read_rows(tmp_path / "new", grey.columns).features[0]
    np.testing.assert_array_equal(same[..., 0].ravel(), one)
    message = r"have 3 × 2 pixels in colours, and those trained on 3 × 2 pixels in grey"
    with pytest.raises(DataError, match=message):
        read_images(folder, like=grey)
    with pytest.raises(DataError, match=message):
        read_rows(folder, grey.columns)
    table = nb.Dataset(POINTS, LABELS, feature_names=("a", "b", "c"))
    with pytest.raises(DataError, match=r"new holds images, and the model was trained on .* 'a'"):
        read_rows(tmp_path / "new", table.columns)


def test_one_coloured_image_makes_all_coloured(photos):
    folder, values = photos
    red = np.zeros((2, 3, 3), dtype=np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(folder / "dog" / "red.png")
    features = read_images(folder).features.reshape(7, 2, 3, 3)
    np.testing.assert_array_equal(features[-1], red / 255)
    np.testing.assert_array_equal(features[0], np.repeat(values[0, ..., None], 3, axis=2) / 255)


def test_folders_that_hold_no_classes_of_images_are_told(photos):
    folder, _ = photos
    with pytest.raises(StorageError, match="there is no folder"):
        read_images(folder / "birds")
    with pytest.raises(DataError, match=r"has 0 sub-folder\(s\); images are in one for each class"):
        read_images(folder / "cat")
    (folder / "emu").mkdir()
    with pytest.raises(DataError, match="has no images in 'emu'"):
        read_images(folder)
    (folder / "emu" / "notes.txt").write_text("none yet")
    with pytest.raises(StorageError, match=r"cannot read .*notes\.txt as an image.*; remove it"):
        read_images(folder)
    Image.new("L", (5, 5)).save(folder / "emu" / "notes.txt", format="png")
    with pytest.raises(DataError, match=r"most have 3 × 2 pixels, but emu/notes\.txt has 5 × 5"):
        read_images(folder)


def test_test_images_have_the_classes_of_the_training_images(photos, tmp_path):
    folder, _ = photos
    data = read_images(folder)
    for name in ("cat", "emu"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("L", (3, 2)).save(tmp_path / "test" / name / "1.png")
    with pytest.raises(DataError, match="unseen label 'emu'"):
        read_images(tmp_path / "test", like=data)


# --- OpenML ---------------------------------------------------------------------------------------


def stub(monkeypatch, answer):
    def fetch(*, data_id, as_frame, parser):
        assert (data_id, as_frame) == (61, True)
        return answer()

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)


def flowers(targets=("kind",)):
    frame = pd.DataFrame(
        {"size": POINTS[:, 0], "hue": LABELS, "kind": pd.Categorical(["x", "y"] * 6)}
    )
    frame["hue"] = frame["hue"].astype("category")
    return SimpleNamespace(frame=frame, target_names=list(targets), details={"name": "flowers"})


def test_a_data_set_of_openml_is_a_table(monkeypatch):
    stub(monkeypatch, flowers)
    data = read_openml(61)
    assert (data.name, data.class_names) == ("flowers", ("x", "y"))
    assert data.feature_names == ("size", "hue=u", "hue=v", "hue=w")
    assert read_openml(61, target="hue", drop="kind").class_names == ("u", "v", "w")


def test_a_data_set_of_openml_without_one_target_needs_its_name(monkeypatch):
    stub(monkeypatch, lambda: flowers(()))
    with pytest.raises(DataError, match="has no column of labels; name one with --target"):
        read_openml(61)


def test_without_a_network_it_is_said_what_helps(monkeypatch):
    def offline():
        raise URLError("Name or service not known")

    stub(monkeypatch, offline)
    with pytest.raises(
        StorageError, match=r"61 cannot be fetched: .*not known.*the network, or.*CSV"
    ):
        read_openml(61)
    with pytest.raises(ConfigurationError, match="from 1; got 0"):
        read_openml(0)


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def ntkbayes(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ntkbayes", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return (code, *capsys.readouterr())

    return run


QUICK = ("--depth", "1", "--laws", "map", "--no-baselines", "--ridge", "1", "--quiet")


def test_arrays_go_from_file_to_report_and_new_ones_are_predicted(ntkbayes):
    np.savez("mine.npz", X=POINTS, y=LABELS)
    np.savez("test.npz", X=POINTS[:6] + 0.1, y=LABELS[:6])
    code, _, err = ntkbayes("compare", "--data", "mine.npz", "--test", "test.npz", *QUICK)
    assert code == 0, err
    np.save("new.npy", POINTS[:6] + 0.1)
    new, test = predict_rows("runs/mine", "new.npy"), predict_rows("runs/mine", "test.npz")
    np.testing.assert_array_equal(new.probabilities, test.probabilities)
    expected = nb.load("runs/mine").predictions["MAP"].probabilities
    np.testing.assert_allclose(new.probabilities, expected)
    np.save("other.npy", POINTS[:, :2])
    with pytest.raises(DataError, match="the column 'x2' is missing"):
        predict_rows("runs/mine", "other.npy")


def test_images_go_from_folder_to_report_and_new_ones_are_predicted(ntkbayes, photos):
    code, _, err = ntkbayes("compare", "--data", "photos", *QUICK)
    assert code == 0, err
    law = nb.load_law(next(Path("runs/photos/laws").glob("*.law")))
    assert law.problem.columns.scaling is None  # pixels share a scale
    found = predict_rows("runs/photos", "photos")
    assert found.names[0] == str(Path("cat/0.png"))
    points = read_images("photos").features
    np.testing.assert_allclose(found.probabilities, law.predict_proba(points))
    Path("large").mkdir()
    Image.new("L", (4, 4)).save("large/1.png")
    with pytest.raises(DataError, match=r"have 4 × 4 pixels in grey, and those trained on 3 × 2"):
        predict_rows("runs/photos", "large")
    Path("none").mkdir()
    with pytest.raises(DataError, match="none has no images"):
        read_rows("none", law.problem.columns)
    with pytest.raises(StorageError, match=r"0\.png is a single image; give the folder"):
        read_rows("photos/cat/0.png", law.problem.columns)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("openml:61",), "error: OpenML's data set 61 cannot be fetched: "),
        (("openml:iris",), "error: OpenML's data sets go by number, such as openml:61"),
        (
            ("photos", "--impute", "mean"),
            "--impute mean is for files, and photos knows its columns",
        ),
        (("photos/cat/0.png",), "error: photos/cat/0.png is a single image; give the folder"),
        (("mine.npy",), "error: name the column of the labels in mine.npy with --target"),
        (("none.npz",), "error: there is no file none.npz"),
    ],
)
def test_sources_that_cannot_be_read_are_told(words, message, ntkbayes, photos, monkeypatch):
    def offline():
        raise URLError("Name or service not known")

    stub(monkeypatch, offline)
    np.save("mine.npy", POINTS)
    code, _, err = ntkbayes("compare", "--data", *words, *QUICK)
    assert code == 1
    assert message in err


def test_openml_goes_from_number_to_report(ntkbayes, monkeypatch):
    stub(monkeypatch, flowers)
    code, out, err = ntkbayes("compare", "--data", "openml:61", *QUICK)
    assert code == 0, err
    assert out == f"report: {Path('runs/openml-61/report.html')}\n"
    table = nb.load("runs/openml-61").settings["table"]
    assert table == "Categories, one-hot: 'hue' (u, v, w)."
    assert jax.config.jax_enable_x64
