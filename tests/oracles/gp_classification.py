"""GP classification on dense nC × nC matrices, with numpy and scipy only: independent answers.

(n, C) arrays are flattened point by point, so a kernel shared by the logits is kron(P, I_C).
Nothing here imports ntkbayes or JAX.
"""

from dataclasses import dataclass

import numpy as np
from scipy import integrate, linalg, optimize, special, stats


def spread(gram, size):
    """P ⊗ I_C."""
    return np.kron(np.asarray(gram), np.eye(size))


# --- likelihoods ---------------------------------------------------------------------------------


class Softmax:
    """One logit a class."""

    def log_density(self, targets, f):
        return np.sum(targets * special.log_softmax(f, axis=1))

    def residual(self, targets, f):
        return targets - special.softmax(f, axis=1)

    def curvature(self, targets, f):
        return linalg.block_diag(*[np.diag(p) - np.outer(p, p) for p in special.softmax(f, axis=1)])


class Logistic:
    """One logit for the second of two classes."""

    def log_density(self, targets, f):
        return np.sum(targets * special.log_expit(f) + (1 - targets) * special.log_expit(-f))

    def residual(self, targets, f):
        return targets - special.expit(f)

    def curvature(self, targets, f):
        return np.diag((special.expit(f) * special.expit(-f)).ravel())


@dataclass
class Gaussian:
    """Real targets with noise of standard deviation `std`."""

    std: float = 1.0

    def log_density(self, targets, f):
        normaliser = np.log(2 * np.pi * self.std**2)
        return -0.5 * np.sum((targets - f) ** 2 / self.std**2 + normaliser)

    def residual(self, targets, f):
        return (targets - f) / self.std**2

    def curvature(self, targets, f):
        return np.eye(f.size) / self.std**2


class Counts:
    """Counts of rate exp(f)."""

    def log_density(self, targets, f):
        return np.sum(stats.poisson.logpmf(targets, np.exp(f)))

    def residual(self, targets, f):
        return targets - np.exp(f)

    def curvature(self, targets, f):
        return np.diag(np.exp(f).ravel())


@dataclass
class CumulativeLogit:
    """Ordered classes by their index, P(y ≤ k) = σ(cuts[k] − f). Derivatives by those of p itself,
    all in logarithms, on the side where both ends are in the lower tail."""

    cuts: tuple

    def _ends(self, targets, f):
        """Ends of the class, mirrored where its middle is in the upper tail, and the mirror's sign."""
        edges = np.concatenate([[-np.inf], self.cuts, [np.inf]])
        index = targets.astype(int)
        above, below = edges[index + 1] - f, edges[index] - f
        sign = np.where(above + below > 0, -1.0, 1.0)
        return np.where(sign < 0, -below, above), np.where(sign < 0, -above, below), sign

    def _log_probability(self, above, below):
        high, low = special.log_expit(above), special.log_expit(below)
        return high + np.log1p(-np.exp(low - high))

    def log_density(self, targets, f):
        above, below, _ = self._ends(targets, f)
        return np.sum(self._log_probability(above, below))

    def _slopes(self, x, log_probability):
        """σ'(x) / p and σ''(x) / p."""
        first = np.exp(special.log_expit(x) + special.log_expit(-x) - log_probability)
        return first, first * (1 - 2 * special.expit(x))

    def residual(self, targets, f):
        above, below, sign = self._ends(targets, f)
        log_probability = self._log_probability(above, below)
        return sign * (
            self._slopes(below, log_probability)[0] - self._slopes(above, log_probability)[0]
        )

    def curvature(self, targets, f):
        above, below, _ = self._ends(targets, f)
        log_probability = self._log_probability(above, below)
        (one, two), (three, four) = (self._slopes(x, log_probability) for x in (below, above))
        return np.diag(((three - one) ** 2 - (four - two)).ravel())


# --- ridge > 0 -----------------------------------------------------------------------------------


def map_weights(likelihood, prior_gram, targets, initial):
    """a with f = f0 + P a and a = r(f): scipy's trust region, then Newton's last digits."""
    targets, initial = np.asarray(targets), np.asarray(initial)
    size = targets.shape[1]
    dense = spread(prior_gram, size)

    def logits(a):
        return initial + (dense @ a).reshape(initial.shape)

    def loss(a):
        return 0.5 * a @ dense @ a - likelihood.log_density(targets, logits(a))

    def gradient(a):
        return dense @ (a - likelihood.residual(targets, logits(a)).ravel())

    def hessian(a):
        return dense + dense @ likelihood.curvature(targets, logits(a)) @ dense

    start = np.zeros(targets.size)
    found = optimize.minimize(
        loss, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-6}
    )
    a = found.x
    for _ in range(8):
        wrong = a - likelihood.residual(targets, logits(a)).ravel()
        a = a - np.linalg.solve(
            np.eye(a.size) + likelihood.curvature(targets, logits(a)) @ dense, wrong
        )
    return a.reshape(targets.shape)


def undamped_newton(likelihood, prior_gram, targets, initial, iterations):
    """Residual max |a − r(f)| of every iterate of Newton's method with full steps from a = 0."""
    dense = spread(prior_gram, targets.shape[1])
    a, residuals = np.zeros(targets.size), []
    for _ in range(iterations):
        f = initial + (dense @ a).reshape(initial.shape)
        wrong = a - likelihood.residual(targets, f).ravel()
        residuals.append(np.abs(wrong).max())
        a = a - np.linalg.solve(np.eye(a.size) + likelihood.curvature(targets, f) @ dense, wrong)
    return np.array(residuals)


@dataclass
class Gauss:
    """A Gaussian over the (m, C) logits of m inputs; covariance (mC, mC)."""

    mean: np.ndarray
    covariance: np.ndarray

    @property
    def variance(self):
        return np.diag(self.covariance).reshape(self.mean.shape)


def blocks(covariance, size):
    """The C × C covariance of each input, (m, C, C)."""
    count = covariance.shape[0] // size
    four = covariance.reshape(count, size, count, size)
    return np.stack([four[i, :, i, :] for i in range(count)])


def laplace(likelihood, prior_gram, cross, new_gram, targets, initial, new_mean):
    """Laplace posterior at new inputs and its log evidence.

    prior_gram (n, n), cross (n, m) and new_gram (m, m): the prior GP's covariance.
    """
    size = targets.shape[1]
    dense, k, own = spread(prior_gram, size), spread(cross, size), spread(new_gram, size)
    a = map_weights(likelihood, prior_gram, targets, initial)
    f = initial + (dense @ a.ravel()).reshape(a.shape)
    w = likelihood.curvature(targets, f)
    whole = np.eye(a.size) + w @ dense
    covariance = own - k.T @ np.linalg.solve(whole, w) @ k
    evidence = (
        likelihood.log_density(targets, f)
        - 0.5 * a.ravel() @ dense @ a.ravel()
        - 0.5 * np.linalg.slogdet(whole)[1]
    )
    mean = new_mean + (k.T @ a.ravel()).reshape(-1, size)
    return Gauss(mean, (covariance + covariance.T) / 2), evidence


@dataclass
class Kernels:
    """NNGP and NTK: at X, between X and x, at x."""

    nngp: tuple
    ntk: tuple

    @classmethod
    def of(cls, prior, train, new):
        grams = [prior.gram(train), prior.cross(train, new), prior.gram(new)]
        return cls(tuple(np.array(g.nngp) for g in grams), tuple(np.array(g.ntk) for g in grams))


def first_order(likelihood, kernels, targets, initial, new_mean, ridge):
    """(4) of THEORY 5: δf(x) = δf0(x) − P(x, X) W (I + P W)⁻¹ δf0(X)."""
    size = targets.shape[1]
    gram = kernels.ntk[0] / ridge
    dense, k = spread(gram, size), spread(kernels.ntk[1] / ridge, size)
    a = map_weights(likelihood, gram, targets, initial)
    w = likelihood.curvature(targets, initial + (dense @ a.ravel()).reshape(a.shape))
    response = -k.T @ w @ np.linalg.inv(np.eye(a.size) + dense @ w)
    mean = new_mean + (k.T @ a.ravel()).reshape(-1, size)
    return Gauss(mean, _pushed(response, kernels.nngp, size))


def _pushed(response, nngp, size):
    """Covariance of g(x) + response g(X)."""
    on, cross, new = (spread(part, size) for part in nngp)
    both = response @ cross
    return new + both + both.T + response @ on @ response.T


# --- ridge = 0 -----------------------------------------------------------------------------------


def ridgeless_weights(ntk, targets, initial):
    """(3) of THEORY 3 for softmax, with B = I_n ⊗ 1_C on dense matrices: α, (n, C)."""
    count, size = targets.shape
    inverse = np.linalg.inv(spread(ntk, size))
    b = np.kron(np.eye(count), np.ones((size, 1)))
    gap = (initial - np.log(targets)).ravel()
    c = np.linalg.solve(b.T @ inverse @ b, b.T @ inverse @ gap)
    return (inverse @ (b @ c - gap)).reshape(targets.shape)


def ridgeless_law(kernels, targets, initial, new_mean):
    """The exact Gaussian law over initial functions without ridge, softmax."""
    count, size = targets.shape
    inverse = np.linalg.inv(spread(kernels.ntk[0], size))
    b = np.kron(np.eye(count), np.ones((size, 1)))
    r = inverse - inverse @ b @ np.linalg.solve(b.T @ inverse @ b, b.T @ inverse)
    k = spread(kernels.ntk[1], size)
    mean = new_mean + (k.T @ r @ (np.log(targets) - initial).ravel()).reshape(-1, size)
    return Gauss(mean, _pushed(-k.T @ r, kernels.nngp, size))


# --- finite time ---------------------------------------------------------------------------------


def flow(likelihood, ntk, targets, initial, ridge, time):
    """Logits on the data after the gradient flow of THEORY 4, df/dt = Θ r(f) − ridge (f − f0)."""
    dense = spread(ntk, targets.shape[1])
    start = np.asarray(initial).ravel()

    def velocity(t, f):
        r = likelihood.residual(targets, f.reshape(targets.shape)).ravel()
        return dense @ r - ridge * (f - start)

    def jacobian(t, f):
        w = likelihood.curvature(targets, f.reshape(targets.shape))
        return -dense @ w - ridge * np.eye(start.size)

    solved = integrate.solve_ivp(
        velocity, (0, time), start, method="Radau", jac=jacobian, rtol=1e-10, atol=1e-12
    )
    return solved.y[:, -1].reshape(targets.shape)


# --- exact posteriors ----------------------------------------------------------------------------


def gp_regression(prior_gram, cross, new_gram, targets, mean, new_mean, noise_std):
    """Exact GP regression, outputs independent: posterior at new inputs and log evidence."""
    count, size = targets.shape
    noisy = prior_gram + noise_std**2 * np.eye(count)
    weights = np.linalg.solve(noisy, targets - mean)
    covariance = new_gram - cross.T @ np.linalg.solve(noisy, cross)
    evidence = -0.5 * (
        np.sum((targets - mean) * weights)
        + size * (np.linalg.slogdet(noisy)[1] + count * np.log(2 * np.pi))
    )
    return Gauss(new_mean + cross.T @ weights, spread(covariance, size)), evidence


def one_point_posterior(likelihood, prior_variance, targets, mean, order=100):
    """Mean (C,), covariance (C, C) and log evidence of the posterior of one point's logits, by
    Gauss–Hermite quadrature in C dimensions under the prior N(mean, prior_variance I)."""
    size = targets.shape[1]
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(*[nodes] * size, indexing="ij"), axis=-1).reshape(-1, size)
    mass = np.prod(
        np.stack(np.meshgrid(*[weights] * size, indexing="ij"), axis=-1).reshape(-1, size), axis=1
    )
    f = np.asarray(mean) + np.sqrt(prior_variance) * grid
    if isinstance(likelihood, Softmax):
        density = np.exp(special.log_softmax(f, axis=1) @ targets[0])
    else:
        density = np.exp([likelihood.log_density(targets, row[None]) for row in f])
    evidence = mass @ density
    posterior = mass * density / evidence
    centre = posterior @ f
    covariance = (f - centre).T @ ((f - centre) * posterior[:, None])
    return centre, covariance, np.log(evidence)


# --- data and Monte Carlo ------------------------------------------------------------------------


def blobs(seed, count, classes, spread_=0.8):
    """Overlapping two-dimensional Gaussian blobs: features (n, 2), labels (n,), all classes present."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    angle = 2 * np.pi * labels / classes
    centres = 1.2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return centres + spread_ * rng.standard_normal((count, 2)), labels


def covariance_errors(draws, law):
    """z-scores of the sample covariance of draws (S, m, C) against a Gauss, entry by entry."""
    flat = np.asarray(draws).reshape(len(draws), -1)
    cov = law.covariance
    expected = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / (len(flat) - 1))
    return (np.cov(flat.T).reshape(cov.shape) - cov) / expected


def mean_errors(draws, law):
    """z-scores of the sample mean of draws (S, m, C) against a Gauss."""
    draws = np.asarray(draws)
    return (draws.mean(axis=0) - law.mean) / np.sqrt(law.variance / len(draws))
