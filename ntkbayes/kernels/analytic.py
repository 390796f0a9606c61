"""NNGP and NTK of fully connected networks at infinite width (Jacot et al. 2018; Lee et al. 2018).

For h the pre-activations of one layer, with K = E[h h'] and K' = E[φ(h) φ(h')], K̇ = E[φ'(h) φ'(h')]:

    K ← weight_std² K' + bias_std²        Θ ← weight_std² K' + bias_std² + weight_std² K̇ Θ

and a skip connection adds the previous K and Θ. Differentiable in weight_std, bias_std and slopes;
finite gradients everywhere, x = x' and collinear inputs included.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.activations import GaussianPair, safe_sqrt
from ntkbayes.kernels.base import Kernel, KernelPair, analytic_kernel
from ntkbayes.networks import MLP


class MLPKernel(Kernel):
    """Both kernels of an `MLP`. A Gram matrix costs O(n² (d + depth)) operations."""

    network: MLP

    def cross(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> KernelPair:
        norm1, unit1 = _polar(x1)
        norm2, unit2 = _polar(x2)
        # Kahan's angle between vectors: accurate at 0 and at π, where arccos(u · v) is not.
        apart = jnp.sum((unit1[:, None, :] - unit2[None, :, :]) ** 2, axis=-1)
        along = jnp.sum((unit1[:, None, :] + unit2[None, :, :]) ** 2, axis=-1)
        angle = 2 * jnp.arctan2(safe_sqrt(apart), safe_sqrt(along))
        return self._propagate(GaussianPair(norm1[:, None], norm2[None, :], angle))

    def diagonal(self, x: Float[Array, "n d"]) -> KernelPair:
        norm, _ = _polar(x)
        return self._propagate(GaussianPair(norm, norm, jnp.zeros_like(norm)))

    def _propagate(self, pair: GaussianPair) -> KernelPair:
        """The recursion above, from the inputs' geometry, elementwise over pairs of inputs."""
        network = self.network
        weight_std = jnp.asarray(network.weight_std)
        std = jnp.abs(jnp.asarray(network.bias_std)).reshape((1,) * pair.angle.ndim)
        bias = GaussianPair(std, std, jnp.zeros_like(std))

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


analytic_kernel.register(MLP, MLPKernel)
