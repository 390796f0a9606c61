"""The kernel of a network whose inputs are rows of a table, reshaped."""

from jaxtyping import Array, Float

from ntkbayes.kernels.base import Kernel, KernelPair, analytic_kernel
from ntkbayes.networks import Reshaped


class ReshapedKernel(Kernel):
    """Both kernels of `networks.reshaped(network, shape)`: the network's own, of the reshaped rows."""

    kernel: Kernel
    network: Reshaped

    @property
    def compiled(self) -> bool:  # type: ignore[override]
        return self.kernel.compiled

    @property
    def is_covariance(self) -> bool:  # type: ignore[override]
        return self.kernel.is_covariance

    def traced(self) -> "ReshapedKernel":
        return ReshapedKernel(self.kernel.traced(), self.network)

    def cross(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> KernelPair:
        first = self.network.reshape(x1)
        # A Gram stays one: kernels treat the inputs of both sides being the same array apart.
        return self.kernel.cross(first, first if x1 is x2 else self.network.reshape(x2))

    def diagonal(self, x: Float[Array, "n d"]) -> KernelPair:
        return self.kernel.diagonal(self.network.reshape(x))


@analytic_kernel.register
def _(network: Reshaped) -> ReshapedKernel:
    return ReshapedKernel(analytic_kernel(network.network), network)
