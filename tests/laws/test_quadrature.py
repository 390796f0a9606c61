"""Integrals over one logit against 25 decimals, whatever the width of the Gaussian."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from ntkbayes.laws.gaussian.marginals import expectations, log_marginal_density, tilted
from ntkbayes.laws.gaussian.quadrature import integrate
from ntkbayes.likelihood import Bernoulli, LogConcave, Ordinal, Poisson

CUTS = (-1.0, 0.5)
LIKELIHOODS = {"Bernoulli": Bernoulli(), "Poisson": Poisson(), "Ordinal": Ordinal(CUTS)}
# Targets, means in standard deviations, variances: soft and hard labels, small and large counts.
CASES = {
    "Bernoulli": [(1, -2.5, 1e2), (0.999, 0.7, 1e6), (1, 0, 1e8)],
    "Poisson": [(3, 0.5, 1e-6), (1e6, 0, 1e4), (0, -1, 1e8)],
    "Ordinal": [(1, 0.4, 1e2), (2, -1.5, 1e6)],
}
PAIRS = [(name, *case) for name, cases in CASES.items() for case in cases]
every_case = pytest.mark.parametrize(("name", "target", "shift", "variance"), PAIRS)


def log_sigmoid(x):
    return -mp.log1p(mp.exp(-x)) if x > 0 else x - mp.log1p(mp.exp(x))


def log_likelihood(name, y, f):
    if name == "Bernoulli":
        return y * log_sigmoid(f) + (1 - y) * log_sigmoid(-f)
    if name == "Poisson":
        return y * f - mp.exp(f) - mp.loggamma(y + 1)
    below = mp.mpf(0) if y == 0 else log_sigmoid(f - CUTS[int(y) - 1])
    above = mp.mpf(0) if y == 2 else log_sigmoid(CUTS[int(y)] - f)
    gap = mp.log1p(-mp.exp(CUTS[0] - CUTS[1])) if y == 1 else 0
    return below + above + gap


def end_of(condition, start, step):
    """Where going from start in growing steps, then in halves, a condition ends."""
    while condition(start + step):
        start, step = start + step, 2 * step
    for _ in range(30):
        step /= 2
        start = start + step if condition(start + step) else start
    return start + step


def moments(name, y, centre, variance):
    """log mass, mean and variance of the tilted density, in mpmath's decimals."""
    y, centre, variance = (mp.mpf(v) for v in (y, centre, variance))

    def log_density(f):
        return log_likelihood(name, y, f) - (f - centre) ** 2 / (2 * variance)

    low, high = centre - 1e13, centre + 1e13 if name != "Poisson" else mp.mpf(100)
    for _ in range(120):  # golden enough: the density is concave in logarithm
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (a, high) if log_density(a) < log_density(b) else (low, b)
    mode = (low + high) / 2
    top = log_density(mode)
    inside = lambda f: log_density(f) > top - 60  # noqa: E731
    left, right = (end_of(inside, mode, mp.mpf(sign) * 1e-4) for sign in (-1, 1))
    edges = [mode + (end - mode) * mp.mpf(k) / 4 for end in (left, right) for k in range(5)]
    edges += [sign * mp.mpf(3) ** k for k in range(-1, 12) for sign in (-1, 1)]
    edges = sorted({e for e in edges if left <= e <= right})
    density = functools.cache(lambda f: mp.exp(log_density(f) - top))
    rule = {"method": "gauss-legendre", "maxdegree": 4}
    total = [mp.quad(lambda f, k=k: density(f) * (f - mode) ** k, edges, **rule) for k in range(3)]
    shift = total[1] / total[0]
    log_mass = mp.log(total[0]) + top - mp.log(2 * mp.pi * variance) / 2
    return float(log_mass), float(mode + shift), float(total[2] / total[0] - shift**2)


@every_case
def test_moments_of_a_tilted_gaussian_are_exact_whatever_its_variance(
    name, target, shift, variance
):
    centre = shift * variance**0.5
    with mp.workdps(25):
        truth = moments(name, target, centre, variance)
    given = (jnp.full((1, 1), float(v)) for v in (target, centre, variance))
    log_mass, mean, spread = (float(part[0, 0]) for part in _tilted(LIKELIHOODS[name], *given))
    assert log_mass == pytest.approx(truth[0], rel=1e-14, abs=1e-8 if target == 1e6 else 5e-11)
    assert abs(mean - truth[1]) < (1e-7 if target == 1e6 else 1e-9) * truth[2] ** 0.5 + 1e-13 * abs(
        truth[1]
    )
    assert spread == pytest.approx(truth[2], rel=1e-7 if target == 1e6 else 1e-9)


_tilted = jax.jit(tilted)


@pytest.mark.parametrize("variance", [1e-6, 1e2, 1e8])
def test_expectations_over_a_gaussian_are_exact_whatever_its_variance(variance):
    deviation = variance**0.5
    for mean in (0.3 * deviation, -1.2 * deviation):

        def average(function, m=mean):
            """E of a function of the logit whose only scale is 1, about 0."""
            s = mp.mpf(deviation)
            edges = [mp.mpf(sign) * mp.mpf(3) ** k for k in range(-1, 12) for sign in (-1, 1)]
            edges = [0, *((e - m) / s for e in edges), *range(-12, 13, 3)]
            edges = sorted({e for e in edges if -12 <= e <= 12})
            return float(
                mp.quad(
                    lambda z: function(m + s * z) * mp.npdf(z),
                    edges,
                    method="gauss-legendre",
                    maxdegree=4,
                )
            )

        with mp.workdps(25):
            density = average(log_sigmoid)
            residual = average(lambda f: mp.exp(log_sigmoid(-f)))
            curvature = average(lambda f: mp.exp(log_sigmoid(f) + log_sigmoid(-f)))
        given = jnp.ones((1, 1)), jnp.full((1, 1), mean), jnp.full((1, 1, 1), variance)
        found = _expectations(Bernoulli(), *given)
        assert float(found.log_density[0]) == pytest.approx(density, rel=1e-11)
        assert float(found.residual[0, 0]) == pytest.approx(residual, rel=1e-11)
        assert float(found.curvature[0, 0, 0]) == pytest.approx(curvature, rel=1e-11)


_expectations = jax.jit(expectations)


def _poisson_density(target, f):
    return target[0] * f[0] - jnp.exp(f[0]) - jax.scipy.special.gammaln(target[0] + 1)


def test_expectations_of_counts_in_closed_form_are_those_of_quadrature():
    by_quadrature = LogConcave(_poisson_density, num_logits=1, examples=[[0.0], [7.0]])
    targets, mean = jnp.array([[0.0], [7.0], [100.0]]), jnp.array([[-1.0], [2.0], [4.0]])
    covariance = jnp.array([4.0, 0.1, 1e-3])[:, None, None]
    found = (expectations(p, targets, mean, covariance) for p in (Poisson(), by_quadrature))
    for closed, numerical in zip(*found, strict=True):
        np.testing.assert_allclose(closed, numerical, rtol=1e-11)


def test_an_expectation_that_38_standard_deviations_do_not_hold_is_not_a_number():
    by_quadrature = LogConcave(_poisson_density, num_logits=1, examples=[[0.0]])
    wide = jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.full((1, 1, 1), 900.0)
    assert np.isnan(expectations(by_quadrature, *wide).log_density).all()


def test_a_step_narrower_than_the_first_panels_is_found():
    places = jnp.array([0.3, -0.7123])

    def step(f):
        return jnp.stack([jax.nn.sigmoid(1e6 * (f - places)), f**2])

    edges = jnp.broadcast_to(jnp.linspace(-1, 1, 5)[:, None], (5, 2))
    found = integrate(step, edges)
    np.testing.assert_allclose(found, [1 - places, jnp.full(2, 2 / 3)], rtol=1e-11)


def test_an_integral_that_is_not_found_is_not_a_number():
    edges = jnp.linspace(0.0, 1.0, 5)[:, None]
    rough = integrate(lambda f: jnp.sin(1e7 * f**2)[None], edges)
    assert np.isnan(rough).all()


def test_the_evidence_of_one_point_is_a_half_for_every_width_of_a_centred_prior():
    variances = 10.0 ** jnp.arange(-6, 9)
    ones, zeros = jnp.ones((15, 1)), jnp.zeros((15, 1))
    found = log_marginal_density(Bernoulli(), ones, zeros, variances[:, None, None])
    np.testing.assert_allclose(found, np.log(0.5), rtol=1e-10)
