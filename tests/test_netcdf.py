"""netCDF as bytes: what is written is what is read, here and by another library, or is refused."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr

from ntkbayes import netcdf
from ntkbayes.errors import StorageError


def read(tree: xr.DataTree, path, layout=None, attributes=(), texts=()) -> xr.DataTree:
    path.write_bytes(netcdf.to_bytes(tree))
    return netcdf.read(path, layout or {}, attributes, texts)


@pytest.mark.parametrize("text", ["", "nats", "Größe in 日", "a\nb", "x" * 200_000, "é" * 200_000])
def test_text_of_any_length_and_alphabet_comes_back(text, tmp_path):
    tree = xr.DataTree(xr.Dataset(attrs={"note": text}))
    assert read(tree, tmp_path / "a.nc", attributes=["note"]).attrs == {"note": text}


@pytest.mark.parametrize("number", [3, -2.5, np.float32(1.5), np.int64(7)], ids=repr)
def test_numbers_as_attributes_come_back(number, tmp_path):
    tree = xr.DataTree(xr.Dataset(attrs={"note": number}))
    assert read(tree, tmp_path / "a.nc", attributes=["note"]).attrs == {"note": number}


def test_arrays_names_and_groups_come_back_here_and_from_another_library(tmp_path):
    values = np.array([[1.0, np.nan, -np.inf], [np.pi, 5e-324, 1e308]])
    names = np.array(["a", "ä b", "日本"])
    part = xr.Dataset({"v": (("row", "name"), values), "k": ((), np.int64(2**62))}, {"name": names})
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"a": 1}), "/part/inner": part})
    layout = {"part/inner": {"v": ("row", "name"), "k": (), "name": ("name",)}}
    found = read(tree, tmp_path / "a.nc", layout, ["a"], ["name"])
    xr.testing.assert_identical(found["part/inner"].to_dataset(), part)
    with xr.open_datatree(tmp_path / "a.nc", engine="h5netcdf") as other:
        xr.testing.assert_identical(other["part/inner"].to_dataset().load(), part)
        assert other.attrs == {"a": 1}


@pytest.mark.parametrize("name", ["a\0b", " a", "a ", "-x", "x" * 300, ""], ids=repr)
def test_a_name_that_netcdf_does_not_know_is_refused(name):
    with pytest.raises(StorageError, match="netCDF cannot store a name or value: "):
        netcdf.to_bytes(xr.DataTree(xr.Dataset({name: 1.0})))


@pytest.mark.parametrize("value", ["end\0", "in\0side", "\ud800", True, 1j], ids=repr)
def test_an_attribute_that_would_change_is_refused(value):
    with pytest.raises(StorageError, match="netCDF cannot store a name or value: "):
        netcdf.to_bytes(xr.DataTree(xr.Dataset(attrs={"note": value})))


def test_threads_that_write_at_once_write_what_each_was_given(tmp_path):
    # The library itself crashes where two threads are in it.
    names = [f"v{i}" for i in range(20)]
    trees = [
        xr.DataTree.from_dict(
            {"/part": xr.Dataset({n: ("row", np.arange(50.0) + k) for n in names})}
        )
        for k in range(16)
    ]
    with ThreadPoolExecutor(8) as threads:
        files = list(threads.map(netcdf.to_bytes, trees))
    for k, (content, tree) in enumerate(zip(files, trees, strict=True)):
        path = tmp_path / f"{k}.nc"
        path.write_bytes(content)
        found = netcdf.read(path, {"part": dict.fromkeys(names, ("row",))}, [])
        xr.testing.assert_equal(found["part"].to_dataset(), tree["part"].to_dataset())
