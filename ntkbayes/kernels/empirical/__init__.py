"""The empirical NTK of any network, without its Jacobian where structure allows."""

from ntkbayes.kernels.empirical.ntk import EmpiricalNTK

__all__ = ["EmpiricalNTK"]
