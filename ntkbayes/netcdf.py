"""netCDF as bytes, and a DataTree from a file that may be anything: only what is asked for is read.

The HDF5 library reads all that a file declares, follows its links, and ends the process when a disk
fills beneath it. So trees are written in memory, and arrays are read one by one, once they are known to
lie in the file whole.
"""

import io
import sys
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ntkbayes.errors import StorageError

if TYPE_CHECKING:
    import h5py
    import xarray as xr

Layout = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Dimensions by group and variable. Groups are paths below the root."""


def to_bytes(tree: "xr.DataTree") -> bytes:
    """A DataTree as a netCDF file.

    Raises:
        StorageError: netCDF cannot hold a name or value in it, such as a text with a NUL.
    """
    buffer = io.BytesIO()
    # With a Dask client, xarray would lock the buffer, by name, for the whole cluster.
    dask = sys.modules.get("dask")
    try:
        with dask.config.set(scheduler="threads") if dask else nullcontext():
            tree.to_netcdf(buffer, engine="h5netcdf")
    except (ValueError, TypeError) as error:
        raise StorageError(f"{error}; netCDF holds no such name or value") from error
    return buffer.getvalue()


def read(path: Path, layout: Layout, attributes: Collection[str]) -> "xr.DataTree":
    """Those variables of a netCDF file that a layout names, of the groups that are there; nothing else.

    Args:
        path: of the file.
        layout: what may be there.
        attributes: those wanted, of the root and of the groups of the layout.

    Raises:
        StorageError: there is no such file; it is not netCDF; an array is not of numbers, does not lie
            in the file, or does not fit the other arrays of its group.
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
                    arrays = {
                        variable: (dimensions, _array(group, variable, size))
                        for variable, dimensions in variables.items()
                        if variable in group
                    }
                    told = _attributes(group, attributes)
                    groups[name] = xr.Dataset(arrays, attrs=told)
            return xr.DataTree.from_dict(groups)
    except Exception as error:  # h5py has no class of its own for a broken file, but many
        raise StorageError(f"{path} is not a readable netCDF file ({error})") from error


def _group(root: "h5py.Group", name: str) -> "h5py.Group | None":
    """The group of that path, if it is there and every step to it is within the file."""
    import h5py

    group = root
    for step in name.strip("/").split("/"):
        if step not in group:
            return None
        group = _linked(group, step)
        if not isinstance(group, h5py.Group):
            raise ValueError(f"{name} is no group")
    return group


def _linked(group: "h5py.Group", name: str) -> Any:
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link to elsewhere")
    return group[name]


def _array(group: "h5py.Group", name: str, size: int) -> np.ndarray:
    """An array of numbers, once it is known to be no larger than the file."""
    import h5py

    array = _linked(group, name)
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} is no array of numbers")
    if array.is_virtual or array.external:
        raise ValueError(f"{name} lies in another file")
    if array.nbytes > size or array.id.get_storage_size() < array.nbytes:
        raise ValueError(f"{name} is said to have {array.nbytes} bytes, in a file of {size}")
    return np.asarray(array[()])


def _attributes(group: "h5py.Group", names: Collection[str]) -> dict[str, object]:
    import h5py

    values: dict[str, object] = {}
    for name in names:
        if name in group.attrs:
            value = group.attrs[name]
            if isinstance(value, np.ndarray | np.generic) and value.size == 1:
                value = value.item()
            values[name] = "" if isinstance(value, h5py.Empty) else value
    return values
