"""Gram matrices spread over devices, by rows.

Within `over_devices` the rows of every Gram matrix and of its factors (see `sharded`) are divided among
the devices of a mesh. Logits and weights are replicated.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Array, Float, Shaped

AXIS = "rows"


@contextmanager
def over_devices(devices: Sequence[jax.Device] | None = None) -> Iterator[Mesh]:
    """A context that spreads Gram matrices and their factors over devices, by rows.

    For `MAP`, `RandomInit`, `PerturbedInit` and `Laplace`; results equal those of one device, to
    round-off. With several processes (`jax.distributed`) all must run the same program.

    Args:
        devices: by default, all that JAX sees.
    """
    devices = jax.devices() if devices is None else list(devices)
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    with jax.set_mesh(mesh):
        yield mesh


def num_shares() -> int:
    """The number of devices that rows are spread over: 1 outside `over_devices`."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(AXIS, 1)


def by_rows(block: Shaped[Array, "rows ..."]) -> Shaped[Array, "rows ..."]:
    """The block, with its rows spread over the devices if these divide them evenly."""
    shares = num_shares()
    if shares == 1 or block.shape[0] % shares:
        return block
    spec = PartitionSpec(AXIS, *[None] * (block.ndim - 1))
    return jax.lax.with_sharding_constraint(block, spec)


def row_by_row(
    function: Callable[[Float[Array, "rows ..."], Any], Any],
) -> Callable[[Float[Array, "rows ..."], Any], Any]:
    """A function whose result has one row per row of its first argument, with the rows computed and
    stored where they are spread."""

    def spread(x: Float[Array, "rows ..."], other: Any) -> Any:
        shares = num_shares()
        if shares == 1 or len(x) % shares:
            return function(x, other)
        specs = (PartitionSpec(AXIS), PartitionSpec())
        return jax.shard_map(
            function, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False
        )(x, other)

    return spread


def summed_over_rows(
    function: Callable[[Float[Array, "rows ..."], Float[Array, "draws rows classes"]], Any],
) -> Callable[[Float[Array, "rows ..."], Float[Array, "draws rows classes"]], Any]:
    """A function that is a sum over the points that its arguments belong to, with the terms of each
    share of them computed on its device; the sum is on every device."""

    def spread(x: Float[Array, "rows ..."], v: Float[Array, "draws rows classes"]) -> Any:
        shares = num_shares()
        if shares == 1 or len(x) % shares:
            return function(x, v)
        specs = (PartitionSpec(AXIS), PartitionSpec(None, AXIS))
        return jax.shard_map(
            lambda x, v: jax.lax.psum(function(x, v), AXIS),
            in_specs=specs,
            out_specs=PartitionSpec(),
            check_vma=False,
        )(x, v)

    return spread


def everywhere(values: Array) -> Array:
    """The values, replicated on every device."""
    if num_shares() == 1:
        return values
    return jax.lax.with_sharding_constraint(values, PartitionSpec())
