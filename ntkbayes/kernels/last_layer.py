"""The kernel of a network whose readout alone is trained."""

from jaxtyping import Array, Float

from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels.base import Kernel, KernelPair, analytic_kernel


class LastLayerKernel(Kernel):
    """K as NNGP and as NTK: the conjugate kernel (Daniely et al. 2016; Fan & Wang 2020).

    Training only the readout has the NNGP kernel K as its NTK. With ridge 1 the Bayesian prior is the
    NNGP itself, GP(mean, K); other ridges give the last-layer baseline.
    """

    kernel: Kernel

    @property
    def is_covariance(self) -> bool:
        return self.kernel.is_covariance

    def traced(self) -> "LastLayerKernel":
        return LastLayerKernel(self.kernel.traced())

    def cross(self, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]) -> KernelPair:
        return _twice(self.kernel.cross(x1, x2))

    def gram(self, x: Float[Array, "n ..."]) -> KernelPair:
        return _twice(self.kernel.gram(x))

    def diagonal(self, x: Float[Array, "n ..."]) -> KernelPair:
        return _twice(self.kernel.diagonal(x))


def last_layer(network: object) -> LastLayerKernel:
    """The kernel of training only the readout of a network, or of the network behind a kernel.

    Raises:
        ConfigurationError: its NNGP kernel is unknown.
    """
    return LastLayerKernel(network if isinstance(network, Kernel) else analytic_kernel(network))


def _twice(pair: KernelPair) -> KernelPair:
    if pair.nngp is None:
        raise ConfigurationError(
            "the last-layer kernel is the covariance K of initial functions, which is unknown for a "
            "finite network; use the network's kernel at infinite width"
        )
    return KernelPair(pair.nngp, pair.nngp)
