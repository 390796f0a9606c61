"""Kernels: how initialisation spreads a network's function (NNGP) and how training moves it (NTK)."""

from ntkbayes.kernels import validity
from ntkbayes.kernels.analytic import MLPKernel
from ntkbayes.kernels.base import (
    DrawFunctions,
    FunctionKernel,
    Functions,
    Kernel,
    KernelPair,
    analytic_kernel,
    in_blocks,
)
from ntkbayes.kernels.empirical.ntk import EmpiricalNTK
from ntkbayes.kernels.finite_width import EmpiricalKernel
from ntkbayes.kernels.last_layer import LastLayerKernel, last_layer
from ntkbayes.kernels.reshaped import ReshapedKernel

__all__ = [
    "DrawFunctions",
    "EmpiricalKernel",
    "EmpiricalNTK",
    "FunctionKernel",
    "Functions",
    "Kernel",
    "KernelPair",
    "LastLayerKernel",
    "MLPKernel",
    "ReshapedKernel",
    "analytic_kernel",
    "in_blocks",
    "last_layer",
    "validity",
]
