"""Kernels: how initialisation spreads a network's function (NNGP) and how training moves it (NTK)."""

from ntkbayes.kernels.analytic import MLPKernel
from ntkbayes.kernels.base import FunctionKernel, Functions, Kernel, KernelPair, analytic_kernel
from ntkbayes.kernels.empirical import EmpiricalNTK
from ntkbayes.kernels.finite import EmpiricalKernel

__all__ = [
    "EmpiricalKernel",
    "EmpiricalNTK",
    "FunctionKernel",
    "Functions",
    "Kernel",
    "KernelPair",
    "MLPKernel",
    "analytic_kernel",
]
