"""Trained predictors in extended precision: plain Newton's method with mpmath, on a given Gram.

No code is shared with the package. Shapes: n points, C logits; matrices are (nC, nC), points first.
"""

from decimal import Decimal, localcontext

import mpmath
import numpy as np

DIGITS = 60


class Softmax:
    def residual_and_curvature(self, y, f):
        shifted = [mpmath.exp(v - max(f)) for v in f]
        p = [v / sum(shifted) for v in shifted]
        blocks = [[p[c] * ((c == d) - p[d]) for d in range(len(f))] for c in range(len(f))]
        return [a - b for a, b in zip(y, p, strict=True)], blocks

    def log_density(self, y, f):
        return sum(y[c] * f[c] for c in range(len(f))) - mpmath.log(sum(mpmath.exp(v) for v in f))


class Logistic:
    def residual_and_curvature(self, y, f):
        p = 1 / (1 + mpmath.exp(-f[0]))
        return [y[0] - p], [[p * (1 - p)]]

    def log_density(self, y, f):
        return y[0] * f[0] - mpmath.log(1 + mpmath.exp(f[0]))


class Gaussian:
    def __init__(self, noise_std):
        self.variance = mpmath.mpf(noise_std) ** 2

    def residual_and_curvature(self, y, f):
        size = range(len(f))
        blocks = [[(c == d) / self.variance for d in size] for c in size]
        return [(a - b) / self.variance for a, b in zip(y, f, strict=True)], blocks


class Count:
    def residual_and_curvature(self, y, f):
        rate = mpmath.exp(f[0])
        return [y[0] - rate], [[rate]]


to_mp = np.vectorize(mpmath.mpf, otypes=[object])
to_decimal = np.vectorize(lambda v: Decimal(mpmath.nstr(v, DIGITS)), otypes=[object])
from_decimal = np.vectorize(lambda v: mpmath.mpf(str(v)), otypes=[object])


def solve(system, right):
    """The solution of a linear system, and its log determinant: elimination with pivots, in decimals,
    whose arithmetic is compiled."""
    with localcontext(prec=DIGITS):
        a, x, log_determinant = to_decimal(system), to_decimal(right), Decimal(0)
        for k in range(len(a)):
            pivot = k + int(np.argmax(np.abs(a[k:, k])))
            for rows in (a, x):
                rows[[k, pivot]] = rows[[pivot, k]]
            log_determinant += abs(a[k, k]).ln()
            factors = a[k + 1 :, k] / a[k, k]
            a[k + 1 :, k:] -= np.outer(factors, a[k, k:])
            x[k + 1 :] -= factors * x[k]
        for k in reversed(range(len(a))):
            x[k] = (x[k] - a[k, k + 1 :] @ x[k + 1 :]) / a[k, k]
        return from_decimal(x), mpmath.mpf(str(log_determinant))


def trained(likelihood, gram, targets, initial, start, max_iterations=60):
    """f and a with f = f0 + P a and a = r(f), from weights near them.

    Args:
        gram: P, (n, n) where the outputs share it, or (nC, nC); of floats or mpmath's numbers.
        targets, initial, start: Y, f0 and the first a, (n, C).

    Returns:
        f and a as arrays of mpmath's numbers, and log det(I + W P).
    """
    with mpmath.workdps(DIGITS):
        n, size = np.shape(targets)
        y, f0, a = (to_mp(np.asarray(v)) for v in (targets, initial, start))
        gram = gram.tolist() if isinstance(gram, mpmath.matrix) else gram
        shared = to_mp(np.array(gram, dtype=object))
        p = np.kron(shared, np.eye(size, dtype=int)) if len(shared) == n else shared
        rows = p.reshape(n, size, n * size)

        def at(a):
            """f, a − r(f), and the blocks of W."""
            f = f0 + (p @ a.ravel()).reshape(n, size)
            pairs = [likelihood.residual_and_curvature(*each) for each in zip(y, f, strict=True)]
            r, blocks = (np.array(part, dtype=object) for part in zip(*pairs, strict=True))
            return f, a - r, blocks

        f, wrong, blocks = at(a)
        for _ in range(max_iterations):
            curved = [block @ each for block, each in zip(blocks, rows, strict=True)]
            system = np.concatenate(curved) + np.eye(n * size, dtype=int)
            step, log_determinant = solve(system, -wrong.ravel())
            if np.abs(p @ step).max() <= mpmath.mpf(10) ** (-30) * (1 + np.abs(f).max()):
                return f, a, log_determinant
            t, before, step = mpmath.mpf(1), np.abs(wrong).max(), step.reshape(n, size)
            f, wrong, blocks = at(a + step)
            while np.abs(wrong).max() > before and t > 1e-3:
                t /= 2
                f, wrong, blocks = at(a + t * step)
            a = a + t * step
        raise AssertionError("the oracle did not converge")


def laplace_evidence(likelihood, targets, initial, f, a, log_determinant):
    """R&W 3.44."""
    with mpmath.workdps(DIGITS):
        density = sum(
            likelihood.log_density([mpmath.mpf(v) for v in y], list(row))
            for y, row in zip(targets, f, strict=True)
        )
        moved = f - to_mp(initial)
        return density - np.sum(a * moved) / 2 - log_determinant / 2
