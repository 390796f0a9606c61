"""Kernels of fully connected networks and Laplace's evidence in extended precision (mpmath).

Covariances and arccosines throughout, which with 60 digits to lose need no care. Gradients are central
differences. Nothing here imports ntkbayes or JAX.
"""

import mpmath as mp
import numpy as np
from oracles.extended_precision import DIGITS, Logistic, laplace_evidence, trained

STEP = mp.mpf(2) ** -50


def _leaky(slope):
    """Cho & Saul 2009."""
    even, odd = ((1 - mp.mpf(slope)) / 2) ** 2, ((1 + mp.mpf(slope)) / 2) ** 2

    def moments(k11, k22, k12):
        norm = mp.sqrt(k11 * k22)
        if norm == 0:
            return mp.mpf(0), odd
        cos = max(-1, min(1, k12 / norm))
        if abs(1 - abs(cos)) < mp.mpf(10) ** (5 - mp.mp.dps):  # alike or opposite, to round-off
            cos = mp.sign(cos)
        angle = mp.acos(cos)
        bent = 2 / mp.pi * (mp.sqrt(1 - cos**2) + (mp.pi / 2 - angle) * cos)
        return norm * (even * bent + odd * cos), odd + even * (1 - 2 * angle / mp.pi)

    return moments


def _erf(k11, k22, k12):
    """Williams 1997."""
    root = mp.sqrt((1 + 2 * k11) * (1 + 2 * k22) - 4 * k12**2)
    return 2 / mp.pi * mp.atan(2 * k12 / root), 4 / mp.pi / root


def _gelu(k11, k22, k12):
    """φ(x) = x Φ(x), by Stein's lemma, and Price's theorem with the derivative taken by hand."""
    det = (1 + k11) * (1 + k22) - k12**2
    both = mp.mpf(1) / 4 + mp.asin(k12 / mp.sqrt((1 + k11) * (1 + k22))) / (2 * mp.pi)
    density = 1 / (2 * mp.pi * mp.sqrt(det))
    short = 1 / (1 + k11) + 1 / (1 + k22)
    whole = k11 * k22 - k12**2 + k12**2 * short
    slope = both + density * (k12 + 2 * k12 * (short - 1) + whole * k12 / det)
    return k12 * both + density * whole, slope


def _identity(k11, k22, k12):
    return k12, mp.mpf(1)


def _sin(k11, k22, k12):
    damp = mp.exp(-(k11 + k22) / 2)
    return damp * mp.sinh(k12), damp * mp.cosh(k12)


MOMENTS = {
    "relu": _leaky(0),
    "leaky_relu": _leaky(mp.mpf(0.01)),
    "erf": _erf,
    "gelu": _gelu,
    "identity": _identity,
    "sin": _sin,
}
"""E[φ(u) φ(v)] and E[φ'(u) φ'(v)] of the covariances, for activations whose moments are closed forms."""


def ntk(features, *, activation, depth, weight_std, bias_std, skip=False):
    """Θ between all inputs, an mpmath matrix."""
    rows = [[mp.mpf(float(v)) for v in row] for row in np.asarray(features)]
    moments, weight, bias = MOMENTS[activation], mp.mpf(weight_std) ** 2, mp.mpf(bias_std) ** 2

    def dense(covariance):
        return weight * covariance + bias

    def variances(row):
        """Of the hidden layers and the output, at one input."""
        found = [dense(mp.fdot(row, row) / len(row))]
        for layer in range(depth):
            new = dense(moments(*[found[-1]] * 3)[0])
            found.append(found[-1] + new if skip and layer < depth - 1 else new)
        return found

    def entry(i, j):
        k12 = theta = dense(mp.fdot(rows[i], rows[j]) / len(rows[i]))
        for layer in range(depth):
            second, slope = moments(spread[i][layer], spread[j][layer], k12)
            new = dense(second)
            new_theta = new + weight * slope * theta
            is_skipped = skip and layer < depth - 1
            k12, theta = (k12 + new, theta + new_theta) if is_skipped else (new, new_theta)
        return theta

    spread = [variances(row) for row in rows]
    size = len(rows)
    gram = mp.matrix(size)
    for i in range(size):
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = entry(i, j)
    return gram


def log_evidence(gram, labels, ridge):
    """Laplace's log evidence of two classes under the logistic likelihood (R&W algorithm 3.1)."""
    targets = [[mp.mpf(int(label))] for label in labels]
    zero = [[mp.mpf(0)] for _ in labels]
    solution = trained(Logistic(), gram / mp.mpf(ridge), targets, zero, zero)
    return laplace_evidence(Logistic(), targets, zero, *solution)


def evidence_gradient(features, labels, *, ridge, over, **options):
    """Derivatives of the log evidence in some of weight_std, bias_std and ridge, floats by name."""
    with mp.workdps(DIGITS):
        scales = {name: mp.mpf(options[name]) for name in ("weight_std", "bias_std")}
        gram = ntk(features, **options)

        def at(name, step):
            if name == "ridge":
                return log_evidence(gram, labels, mp.mpf(ridge) + step)
            moved = ntk(features, **options | {name: scales[name] + step})
            return log_evidence(moved, labels, ridge)

        return {name: float((at(name, STEP) - at(name, -STEP)) / (2 * STEP)) for name in over}
