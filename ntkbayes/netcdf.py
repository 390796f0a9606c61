"""netCDF as bytes, and safe reading of netCDF files from anyone.

The HDF5 library reads whatever a file declares, follows its links, and kills the process when the disk
fills up. So trees are written in memory, and only requested arrays are read, each after a check that it
is stored in the file.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ntkbayes.errors import StorageError

if TYPE_CHECKING:
    import h5py
    import xarray as xr

Layout = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Dimensions by group and variable; further ones of an array are called NAME_dim_0, … Groups are paths
below the root."""

OTHERS = "*"
"""In a layout, all further arrays of numbers in a group that have at least these dimensions."""


def to_bytes(tree: "xr.DataTree") -> memoryview:
    """A DataTree as a netCDF file.

    Raises:
        StorageError: netCDF cannot store a name or value in it, such as text with NUL.
    """
    try:
        return _written(tree)
    except (ValueError, TypeError, RuntimeError) as error:
        raise StorageError(f"netCDF cannot store a name or value: {error}") from error


def _written(tree: "xr.DataTree") -> memoryview:
    import netCDF4
    from xarray.backends import NetCDF4DataStore
    from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK

    # Not by `DataTree.to_netcdf`, which imports Dask, and with a client of it locks the buffer, by name,
    # for the whole cluster. The lock is xarray's: the library crashes where two threads are in it.
    with NETCDF4_PYTHON_LOCK:
        file = netCDF4.Dataset("in memory", "w", memory=1)
        try:
            for node in tree.subtree:
                group = file if node is tree else file.createGroup(node.path)
                dataset = node.to_dataset(inherit=node is tree)
                _require_whole([*dataset.variables, *dataset.attrs.values()])
                dataset.dump_to_store(NetCDF4DataStore(group, lock=False), encoding=_texts(dataset))
        except BaseException:
            file.close()
            raise
        return file.close()


def _require_whole(given: Iterable[object]) -> None:
    """Raises ValueError for text that the netCDF library would cut."""
    for text in given:
        if isinstance(text, str) and "\0" in text:
            raise ValueError(f"{text!r:.100} contains the character NUL")


def _texts(dataset: "xr.Dataset") -> dict[str, dict[str, str]]:
    """Text as arrays of bytes, whose size `read` can see, for the variables that hold it."""
    held = dataset.variables.items()
    return {str(name): {"dtype": "S1"} for name, v in held if v.dtype.kind in "OUT"}


def read(
    path: Path, layout: Layout, attributes: Collection[str], texts: Collection[str] = ()
) -> "xr.DataTree":
    """Read the variables of a netCDF file that a layout names, as far as they exist, and nothing else.

    Args:
        layout: the variables to read.
        attributes: names of those to read, at the root and in the groups of the layout.
        texts: variables that may hold text, as `to_bytes` writes it, instead of numbers.

    Raises:
        StorageError: the file is missing or not netCDF; an array is not numeric, is stored elsewhere,
            or does not fit the other arrays of its group.
    """
    import h5py
    import xarray as xr

    if not path.is_file():
        raise StorageError(f"there is no file {path}")
    try:
        with path.open("rb") as file, h5py.File(file, "r") as root:
            size = path.stat().st_size
            groups = {"/": xr.Dataset(attrs=_attributes(root, attributes))}
            for name, variables in layout.items():
                group = _group(root, name)
                if group is not None:
                    arrays = {}
                    for variable, dimensions in _present(group, variables).items():
                        values = _array(group, variable, size, variable in texts)
                        extra = range(values.ndim - len(dimensions))
                        names = (*dimensions, *(f"{variable}_dim_{i}" for i in extra))
                        arrays[variable] = (names, values)
                    groups[name] = xr.Dataset(arrays, attrs=_attributes(group, attributes))
            return xr.DataTree.from_dict(groups)
    except Exception as error:  # h5py raises many classes for a broken file
        raise StorageError(f"{path} is not a readable netCDF file ({error})") from error


def _group(root: "h5py.Group", name: str) -> "h5py.Group | None":
    """The group at a path, or None if there is none. Raises ValueError for a link on the way."""
    import h5py

    group = root
    for step in name.strip("/").split("/"):
        if step not in group:
            return None
        group = _linked(group, step)
        if not isinstance(group, h5py.Group):
            raise ValueError(f"{name} is not a group")
    return group


def _linked(group: "h5py.Group", name: str) -> Any:
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link")
    return group[name]


def _present(
    group: "h5py.Group", variables: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The dimensions of those variables that a group has, `OTHERS` spelt out."""
    import h5py

    found = {name: dimensions for name, dimensions in variables.items() if name in group}
    if OTHERS not in variables:
        return found
    leading = variables[OTHERS]
    for name in group:
        array = _linked(group, name)
        is_array = isinstance(array, h5py.Dataset) and array.dtype.kind in "fiu"
        if name not in variables and is_array and array.ndim >= len(leading):
            found[name] = leading
    return found


def _array(group: "h5py.Group", name: str, size: int, may_be_text: bool) -> np.ndarray:
    """An array of numbers, or a row of texts, after a check that the file stores all of it."""
    import h5py

    array = _linked(group, name)
    is_text = may_be_text and array.dtype.kind == "S" and array.ndim == 2
    if not isinstance(array, h5py.Dataset) or not (is_text or array.dtype.kind in "fiu"):
        raise ValueError(f"{name} is not an array of numbers")
    if array.is_virtual or array.external:
        raise ValueError(f"{name} is stored in another file")
    if array.nbytes > size or array.id.get_storage_size() < array.nbytes:
        raise ValueError(f"{name} claims {array.nbytes} bytes, which the file does not store")
    values = np.asarray(array[()])
    return np.char.decode(values.view(f"S{values.shape[1]}")[:, 0], "utf-8") if is_text else values


def _attributes(group: "h5py.Group", names: Collection[str]) -> dict[str, object]:
    import h5py

    values: dict[str, object] = {}
    for name in names:
        if name in group.attrs:
            value = group.attrs[name]
            if isinstance(value, np.ndarray | np.generic) and value.size == 1:
                value = value.item()
            if isinstance(value, bytes):  # netCDF's characters
                value = value.decode()
            values[name] = "" if isinstance(value, h5py.Empty) else value
    return values
