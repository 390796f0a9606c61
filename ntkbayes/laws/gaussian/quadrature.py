"""Integrals over one variable, of many integrands at once, refined where they ask for it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_COARSE, _FINE = (np.polynomial.legendre.leggauss(size) for size in (10, 20))
_NUM_HALVED = 4  # panels of each integral at a time
_MAX_PANELS = 256
_TOLERANCE = 1e-12
_LARGEST_ERROR = (
    1e-7  # integrands that are themselves known to fewer digits end above the tolerance
)


class _Panels(NamedTuple):
    """Of each panel its ends, ∫ and ∫|·| by the fine rule, and how far off the coarse rule is."""

    left: Float[Array, "panels n"]
    right: Float[Array, "panels n"]
    value: Float[Array, "panels q n"]
    size: Float[Array, "panels q n"]
    apart: Float[Array, "panels q n"]


def integrate(
    integrand: Callable[[Float[Array, " n"]], Float[Array, "q n"]],
    edges: Float[Array, "edges n"],
) -> Float[Array, "q n"]:
    """∫ from the first edge to the last, of q functions for each of n points.

    By Gauss and Legendre's rules of 10 and 20 nodes on panels, which are those between the edges at
    first. Those where the two differ most are halved until all differences together are below 1e-12
    of ∫|·|, or there are 256; that of 20 nodes is taken, and NaN if they still differ by 1e-7. So a
    logistic step is seen under a Gaussian of any width.

    Args:
        integrand: one variable a point to q numbers a point.
        edges: ascending for each point.
    """

    def panels(left: Float[Array, "panels n"], right: Float[Array, "panels n"]) -> _Panels:
        def rule(nodes: np.ndarray, weights: np.ndarray) -> tuple[Array, Array]:
            middle, half = (left + right) / 2, (right - left) / 2
            points = middle[None] + nodes[:, None, None] * half[None]
            values = jax.vmap(jax.vmap(integrand))(points) * half[None, :, None]
            return jnp.tensordot(weights, values, 1), jnp.tensordot(weights, jnp.abs(values), 1)

        (coarse, _), (fine, size) = rule(*_COARSE), rule(*_FINE)
        return _Panels(left, right, fine, size, jnp.abs(fine - coarse))

    def errors(pieces: _Panels) -> Float[Array, "panels n"]:
        """Of each panel, as a part of the whole; of the worst of the q functions."""
        whole = jnp.maximum(jnp.sum(pieces.size, axis=0), jnp.finfo(edges.dtype).tiny)
        return jnp.max(pieces.apart / whole[None], axis=1)

    def goes_on(state: tuple[Array, _Panels]) -> Array:
        count, pieces = state
        is_rough = jnp.any(jnp.sum(errors(pieces), axis=0) > _TOLERANCE)
        return is_rough & (count + _NUM_HALVED <= _MAX_PANELS)

    def halve(state: tuple[Array, _Panels]) -> tuple[Array, _Panels]:
        count, pieces = state
        _, worst = jax.lax.top_k(errors(pieces).T, _NUM_HALVED)
        worst = worst.T
        left, right = (jnp.take_along_axis(ends, worst, axis=0) for ends in pieces[:2])
        middle = (left + right) / 2
        own = worst, jnp.arange(edges.shape[1])[None]

        def replaced(old: Array, first: Array, second: Array) -> Array:
            old = jnp.moveaxis(
                jnp.moveaxis(old, -1, 1).at[own].set(jnp.moveaxis(first, -1, 1)), 1, -1
            )
            return jax.lax.dynamic_update_slice_in_dim(old, second, count, 0)

        return count + _NUM_HALVED, jax.tree.map(
            replaced, pieces, panels(left, middle), panels(middle, right)
        )

    first = panels(edges[:-1], edges[1:])
    room = _MAX_PANELS - len(edges) + 1
    pieces = jax.tree.map(lambda x: jnp.pad(x, [(0, room)] + [(0, 0)] * (x.ndim - 1)), first)
    _, pieces = jax.lax.while_loop(goes_on, halve, (jnp.asarray(len(edges) - 1), pieces))
    is_known = jnp.sum(errors(pieces), axis=0) <= _LARGEST_ERROR
    return jnp.where(is_known[None], jnp.sum(pieces.value, axis=0), jnp.nan)
