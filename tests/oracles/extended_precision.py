"""Trained predictors in extended precision: plain Newton's method with mpmath, on a given Gram.

No code is shared with the package. Shapes: n points, C logits; matrices are (nC, nC), points first.
"""

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


def trained(likelihood, gram, targets, initial, start, max_iterations=60):
    """f and a with f = f0 + P a and a = r(f), from weights near them.

    Args:
        gram: P, (n, n) where the outputs share it, or (nC, nC); of NumPy or mpmath.
        targets, initial, start: Y, f0 and the first a, (n, C).

    Returns:
        f and a as lists of mpmath numbers, and log det(I + W P).
    """
    with mpmath.workdps(DIGITS):
        n, size = np.shape(targets)
        p = gram if isinstance(gram, mpmath.matrix) else mpmath.matrix(gram.tolist())
        if p.rows == n and size > 1:
            p = mpmath.matrix(np.kron(np.reshape(list(p), (n, n)), np.eye(size)).tolist())
        f0 = mpmath.matrix(np.ravel(initial).tolist())
        a = mpmath.matrix(np.ravel(start).tolist())
        y = [[mpmath.mpf(v) for v in row] for row in targets]

        def state(a):
            f = f0 + p * a
            wrong, system = a.copy(), p.copy()
            for i in range(n):
                rows = range(i * size, (i + 1) * size)
                r, block = likelihood.residual_and_curvature(y[i], [f[k] for k in rows])
                for c, k in enumerate(rows):
                    wrong[k] = a[k] - r[c]
                    for j in range(n * size):
                        system[k, j] = sum(block[c][d] * p[i * size + d, j] for d in range(size))
                        system[k, j] += k == j
            return f, wrong, system

        for _ in range(max_iterations):
            f, wrong, system = state(a)
            step = mpmath.lu_solve(system, -wrong)
            moved = p * step
            t, before = mpmath.mpf(1), mpmath.norm(wrong)
            while mpmath.norm(state(a + t * step)[1]) > before and t > 1e-3:
                t /= 2
            a = a + t * step
            if max(abs(v) for v in moved) <= mpmath.mpf(10) ** (-30) * (1 + max(abs(v) for v in f)):
                f, _, system = state(a)
                log_determinant = mpmath.log(mpmath.det(system))
                return (
                    np.reshape(list(f), (n, size)),
                    np.reshape(list(a), (n, size)),
                    log_determinant,
                )
        raise AssertionError("the oracle did not converge")


def laplace_evidence(likelihood, targets, initial, f, a, log_determinant):
    """R&W 3.44."""
    with mpmath.workdps(DIGITS):
        density = sum(
            likelihood.log_density([mpmath.mpf(v) for v in y], list(row))
            for y, row in zip(targets, f, strict=True)
        )
        moved = f - np.vectorize(mpmath.mpf, otypes=[object])(initial)
        return density - np.sum(a * moved) / 2 - log_determinant / 2
