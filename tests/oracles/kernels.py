"""Kernels of fully connected networks by brute force: quadrature of expectations, exact decimals."""

import itertools
from decimal import Decimal, localcontext

import numpy as np
from oracles.quadrature import standard_normal
from scipy.integrate import quad


def plane_moments(function, derivative, std1, std2, angle, num_nodes=300):
    """E[φ(u) φ(v)] and E[φ'(u) φ'(v)] by the trapezoidal rule in the plane (smooth φ)."""
    nodes, weights = standard_normal(2, reach=9, num_nodes=num_nodes)
    z1, z2 = nodes.T
    u, v = std1 * z1, std2 * (np.cos(angle) * z1 + np.sin(angle) * z2)
    return (
        np.sum(weights * function(u) * function(v)),
        np.sum(weights * derivative(u) * derivative(v)),
    )


def leaky_moments(slope, std1, std2, angle):
    """The same for leaky ReLU: its radial integrals are 2 and 1, the rest is an integral over angles."""

    def phi(x):
        return x if x > 0 else slope * x

    def dphi(x):
        return 1.0 if x > 0 else slope

    ends = sorted({-np.pi, np.pi, *(np.mod(t + np.pi, 2 * np.pi) - np.pi for t in kinks(angle))})

    def over_angles(f):
        pieces = itertools.pairwise(ends)
        return sum(quad(f, a, b, epsabs=1e-12, epsrel=1e-12)[0] for a, b in pieces if b - a > 1e-9)

    second = over_angles(lambda t: phi(np.cos(t)) * phi(np.cos(t - angle))) / np.pi
    slopes = over_angles(lambda t: dphi(np.cos(t)) * dphi(np.cos(t - angle))) / (2 * np.pi)
    return std1 * std2 * second, slopes


def kinks(angle):
    return -np.pi / 2, np.pi / 2, angle - np.pi / 2, angle + np.pi / 2


def recursion(x1, x2, moments, *, depth, weight_std, bias_std, skip=False):
    """NNGP and NTK between two inputs, from moments(std1, std2, angle)."""

    def dense(covariance):
        return weight_std**2 * covariance + bias_std**2

    k11, k22, k12 = (dense(np.dot(a, b) / len(a)) for a, b in ((x1, x1), (x2, x2), (x1, x2)))
    ntk = k12
    for layer in range(depth):
        std1, std2 = np.sqrt(k11), np.sqrt(k22)
        angle = np.arccos(np.clip(k12 / (std1 * std2), -1, 1))
        second, slope = moments(std1, std2, angle)
        k11_new, k22_new = dense(moments(std1, std1, 0.0)[0]), dense(moments(std2, std2, 0.0)[0])
        k12_new = dense(second)
        ntk_new = k12_new + weight_std**2 * slope * ntk
        if skip and layer < depth - 1:
            k11, k22, k12, ntk = k11 + k11_new, k22 + k22_new, k12 + k12_new, ntk + ntk_new
        else:
            k11, k22, k12, ntk = k11_new, k22_new, k12_new, ntk_new
    return k12, ntk


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


def _angle(sine, cosine):
    """The angle in [0, π] whose sine and cosine are in the given ratio."""
    if cosine == 0:
        return PI / 2
    ratio, doublings = sine / abs(cosine), 6
    for _ in range(doublings):
        ratio /= 1 + (1 + ratio * ratio).sqrt()
    term, total = ratio, Decimal(0)
    for k in range(40):
        total += term / (2 * k + 1) if k % 2 == 0 else -term / (2 * k + 1)
        term *= ratio * ratio
    angle = total * 2**doublings
    return angle if cosine > 0 else PI - angle


def exact_leaky_kernels(x1, x2, *, slope, depth, weight_std, bias_std, skip=False):
    """NNGP and NTK of a leaky ReLU network in 70 digits (Cho & Saul 2009), rounded at the end."""
    with localcontext() as context:
        context.prec = 70
        x1, x2 = ([Decimal(float(v)) for v in x] for x in (x1, x2))
        weight, bias = Decimal(float(weight_std)) ** 2, Decimal(float(bias_std)) ** 2
        even = ((1 - Decimal(float(slope))) / 2) ** 2
        odd = ((1 + Decimal(float(slope))) / 2) ** 2

        def dense(covariance):
            return weight * covariance + bias

        k11, k22, k12 = (
            dense(sum(p * q for p, q in zip(a, b, strict=True)) / len(a))
            for a, b in ((x1, x1), (x2, x2), (x1, x2))
        )
        ntk = k12
        for layer in range(depth):
            norm = (k11 * k22).sqrt()
            cosine = k12 / norm if norm else Decimal(0)
            sine = max(1 - cosine * cosine, Decimal(0)).sqrt()
            angle = _angle(sine, cosine)
            absolute = 2 / PI * (sine + (PI / 2 - angle) * cosine)  # E|u v| / norm
            new11, new22 = dense((even + odd) * k11), dense((even + odd) * k22)
            new12 = dense(norm * (even * absolute + odd * cosine))
            new_ntk = new12 + weight * (odd + even * (1 - 2 * angle / PI)) * ntk
            if skip and layer < depth - 1:
                k11, k22, k12, ntk = k11 + new11, k22 + new22, k12 + new12, ntk + new_ntk
            else:
                k11, k22, k12, ntk = new11, new22, new12, new_ntk
        return float(k12), float(ntk)
