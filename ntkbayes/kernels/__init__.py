"""Kernels: how initialisation spreads a network's function (NNGP) and how training moves it (NTK)."""

from ntkbayes.kernels.analytic import MLPKernel
from ntkbayes.kernels.base import FunctionKernel, Kernel, KernelPair, analytic_kernel

__all__ = ["FunctionKernel", "Kernel", "KernelPair", "MLPKernel", "analytic_kernel"]
