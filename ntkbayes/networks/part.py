"""Some parameters of a network, with the rest frozen."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.errors import UnknownNameError
from ntkbayes.networks.base import Network, Params


class PartialNetwork(Network):
    """A network as a function of some of its parameters, {path: array}; see `part`.

    Attributes:
        frozen: all parameters, of which those that are not chosen are used.
        chosen: the paths of those that are.
    """

    network: Network
    frozen: Params
    chosen: tuple[str, ...] = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, features: Float[Array, "n ..."]) -> Params:
        return self.of(self.network.init(key, features))

    def apply(self, params: Params, features: Float[Array, "n ..."]) -> Float[Array, "n outputs"]:
        leaves, structure = jax.tree.flatten(self.frozen)
        merged = [
            params.get(path, leaf) for path, leaf in zip(_paths(self.frozen), leaves, strict=True)
        ]
        # In one precision, that of what is differentiated.
        dtype = jax.tree.leaves(params)[0].dtype
        merged = [
            leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
            for leaf in map(jnp.asarray, merged)
        ]
        return self.network.apply(jax.tree.unflatten(structure, merged), features)

    def of(self, params: Params) -> Params:
        """The chosen ones of all parameters."""
        leaves = dict(zip(_paths(params), jax.tree.leaves(params), strict=True))
        return {path: leaves[path] for path in self.chosen}


def part(network: Network, params: Params, over: str | Sequence[str]) -> PartialNetwork:
    """The network as a function of the parameters that `over` names, the others frozen at `params`.

    Args:
        over: paths of parameters, such as "Dense_1/kernel", or of all below one,
            "Dense_1", or patterns, "*/bias".

    Raises:
        UnknownNameError: a path or pattern matches no parameter.
    """
    paths = _paths(params)
    patterns = (over,) if isinstance(over, str) else tuple(over)
    for pattern in patterns or ("",):
        if not any(_matches(path, pattern) for path in paths):
            raise UnknownNameError("parameter", pattern, paths)
    chosen = tuple(p for p in paths if any(_matches(p, pattern) for pattern in patterns))
    return PartialNetwork(network, params, chosen)


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or path.startswith(f"{pattern}/")


def _paths(params: Params) -> list[str]:
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
