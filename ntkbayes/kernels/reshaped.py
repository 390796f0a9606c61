"""The kernel of a network whose inputs are rows of a table, reshaped."""

from jaxtyping import Array, Float

from ntkbayes.kernels.base import Kernel, KernelPair, analytic_kernel
from ntkbayes.networks import Reshaped


class ReshapedKernel(Kernel):
    """Both kernels of `networks.reshaped(network, shape)`: the network's own at the reshaped rows."""

    kernel: Kernel
    network: Reshaped

    @property
    def is_covariance(self) -> bool:
        return self.kernel.is_covariance

    def traced(self) -> "ReshapedKernel":
        return ReshapedKernel(self.kernel.traced(), self.network)

    def num_outputs(self, x: Float[Array, "n d"]) -> int | None:
        return self.kernel.num_outputs(self.network.reshape(x))

    def couples(self, x: Float[Array, "n d"]) -> bool:
        return self.kernel.couples(self.network.reshape(x))

    def is_formed(self, num_rows: int) -> bool:
        return self.kernel.is_formed(num_rows)

    def entry_operations(self, x: Float[Array, "n d"]) -> float:
        return self.kernel.entry_operations(self.network.reshape(x))

    def product_operations(self, x: Float[Array, "n d"]) -> float:
        return self.kernel.product_operations(self.network.reshape(x))

    def scratch(self, x: Float[Array, "n d"]) -> float:
        return self.kernel.scratch(self.network.reshape(x))

    def cross(self, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"]) -> KernelPair:
        return self.kernel.cross(self.network.reshape(x1), self.network.reshape(x2))

    def gram(self, x: Float[Array, "n d"]) -> KernelPair:
        return self.kernel.gram(self.network.reshape(x))

    def diagonal(self, x: Float[Array, "n d"]) -> KernelPair:
        return self.kernel.diagonal(self.network.reshape(x))


@analytic_kernel.register
def _(network: Reshaped) -> ReshapedKernel:
    return ReshapedKernel(analytic_kernel(network.network), network)
