"""NNGP and NTK of fully connected networks at infinite width (Jacot et al. 2018; Lee et al. 2018).

For the pre-activations h of a layer, with K = E[h h'], K' = E[φ(h) φ(h')], K̇ = E[φ'(h) φ'(h')]:

    K ← weight_std² K' + bias_std²        Θ ← weight_std² K' + bias_std² + weight_std² K̇ Θ

A skip connection adds the previous K and Θ. Differentiable in weight_std, bias_std and slopes, with
finite gradients everywhere, including x = x' and collinear inputs.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.kernels.base import Kernel, KernelPair, analytic_kernel, in_blocks
from ntkbayes.networks import MLP
from ntkbayes.networks.activations import GaussianPair, contrast, safe_sqrt


class MLPKernel(Kernel):
    """Both kernels of an `MLP`. A Gram matrix costs O(n² (d + depth)) operations."""

    is_covariance: ClassVar[bool] = True
    network: MLP

    def cross(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> KernelPair:
        norm1, unit1 = _polar(x1)
        norm2, unit2 = _polar(x2)
        return self._propagate(_pair(norm1[:, None], norm2[None, :], *_chords(unit1, unit2)))

    def diagonal(self, x: Float[Array, "n d"]) -> KernelPair:
        norm, _ = _polar(x)
        return self._propagate(GaussianPair.alike(norm))

    def traced(self) -> "MLPKernel":
        return jax.tree.map(lambda v: jax.device_put(v) if isinstance(v, float) else v, self)

    def _propagate(self, pair: GaussianPair) -> KernelPair:
        """The recursion above, elementwise over pairs of inputs."""
        network = self.network
        weight_std = jnp.asarray(network.weight_std)
        std = safe_sqrt(jnp.square(network.bias_std)).reshape((1,) * pair.opened.ndim)
        bias = GaussianPair.alike(std)

        hidden = pair.scale(weight_std) + bias
        ntk = hidden.covariance
        for layer in range(network.depth):
            activated, slope = network.activation.moments(hidden)
            dense = activated.scale(weight_std) + bias
            dense_ntk = dense.covariance + weight_std**2 * slope * ntk
            is_skipped = network.skip and layer < network.depth - 1
            hidden = hidden + dense if is_skipped else dense
            ntk = ntk + dense_ntk if is_skipped else dense_ntk
        return KernelPair(hidden.covariance, ntk)


def _polar(x: Float[Array, "n d"]) -> tuple[Float[Array, " n"], Float[Array, "n d"]]:
    """‖x‖ / √d and x / ‖x‖ (0 at the origin)."""
    norm = safe_sqrt(jnp.sum(x**2, axis=1))
    unit = x / jnp.where(norm > 0, norm, 1.0)[:, None]
    return norm / jnp.sqrt(x.shape[1]), unit


def _pair(
    std1: Float[Array, "n1 1"],
    std2: Float[Array, "1 n2"],
    apart: Float[Array, "n1 n2"],
    along: Float[Array, "n1 n2"],
) -> GaussianPair:
    """The pair with these standard deviations, from ‖u − v‖² and ‖u + v‖² of the unit vectors."""
    half = std1 * std2 / 2
    return GaussianPair(std1, std2, contrast(std1, std2), half * apart, half * along)


def _chords(
    u: Float[Array, "n1 d"], v: Float[Array, "n2 d"]
) -> tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]]:
    """‖u − v‖² and ‖u + v‖² between unit vectors, to round-off.

    A tile comes from one matrix product u · v, unless some vectors in it are nearly parallel, where
    1 − |u · v| loses digits: then from differences and sums (Kahan), with d elementwise operations per
    pair. Zero vectors count as orthogonal to all others.
    """

    def tile(
        u: Float[Array, "rows d"], v: Float[Array, "columns d"]
    ) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
        cos = u @ v.T
        return jax.lax.cond(
            jnp.max(jnp.abs(cos)) > _NEARLY_PARALLEL,
            lambda: _squared_distances(u, v),
            lambda: (2 - 2 * cos, 2 + 2 * cos),
        )

    def row(u: Float[Array, "rows d"]) -> tuple[Array, Array]:
        apart, along = in_blocks(lambda v: tile(v, u), v, _TILE)
        return apart.T, along.T

    return in_blocks(row, u, _TILE)


_TILE = 256
_NEARLY_PARALLEL = 0.98  # cosine: an angle of 0.2, where the difference loses a factor of 50


def _squared_distances(
    u: Float[Array, "rows d"], v: Float[Array, "columns d"]
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """‖u − v‖² and ‖u + v‖², by differences and sums."""

    def add(
        sums: tuple[Array, Array], entries: tuple[Float[Array, " rows"], Float[Array, " columns"]]
    ) -> tuple[tuple[Array, Array], None]:
        apart, along = sums
        u, v = entries[0][:, None], entries[1][None, :]
        return (apart + (u - v) ** 2, along + (u + v) ** 2), None

    zeros = jnp.zeros((len(u), len(v)), dtype=u.dtype)
    return jax.lax.scan(add, (zeros, zeros), (u.T, v.T))[0]


analytic_kernel.register(MLP, MLPKernel)
