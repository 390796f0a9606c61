"""Activation functions and their Gaussian moments ("dual activations").

An analytic kernel needs two moments of an activation φ: E[φ(u) φ(v)] and E[φ'(u) φ'(v)] for centred
jointly Gaussian (u, v), as functions of their covariance. They drive the NNGP and NTK recursions
(Jacot et al. 2018; Lee et al. 2018).

The moments of ReLU are functions of the angle between u and v. Near u = v an angle computed from the
covariance loses half of its digits, as the square root of a cancelling difference. So a pair is stored
as numbers that do not cancel (`GaussianPair`), and moments are exact to round-off at x = x' and for
collinear inputs. So are their gradients: each partial derivative is small there by itself, and none
has to cancel against another that the compiler may have rounded differently.
"""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.display import Configured
from ntkbayes.errors import ConfigurationError, UnknownNameError

Field = Float[Array, "..."]


def safe_sqrt(x: Field) -> Field:
    """√x with gradient 0, not infinity, at x = 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def safe_hypot(x: Field, y: Field) -> Field:
    """√(x² + y²) with gradient 0 at the origin, where JAX's own is ½ or NaN, by its version."""
    is_zero = (x == 0) & (y == 0)
    return jnp.where(is_zero, 0.0, jnp.hypot(jnp.where(is_zero, 1.0, x), y))


class GaussianPair(NamedTuple):
    """Centred jointly Gaussian (u, v).

    The fields broadcast against each other: (n1, 1), (1, n2) and (n1, n2) for a Gram matrix, all (n,)
    for a diagonal.

    Attributes:
        std1, std2: the standard deviations.
        contrast: (std1 − std2) / (std1 + std2), and 0 if both are 0.
        opened: std1 std2 − Cov, which is 0 for v = u.
        closed: std1 std2 + Cov, which is 0 for v = −u.
    """

    std1: Field
    std2: Field
    contrast: Field
    opened: Field
    closed: Field

    @classmethod
    def of_angle(cls, std1: Field, std2: Field, angle: Field) -> "GaussianPair":
        """The pair with Cov = std1 std2 cos(angle)."""
        twice = 2 * std1 * std2
        opened, closed = twice * jnp.sin(angle / 2) ** 2, twice * jnp.cos(angle / 2) ** 2
        return cls(std1, std2, contrast(std1, std2), opened, closed)

    @classmethod
    def alike(cls, std: Field) -> "GaussianPair":
        """The pair (u, u)."""
        zeros = jnp.zeros_like(std)
        return cls(std, std, zeros, zeros, 2 * std**2)

    @property
    def covariance(self) -> Field:
        return (self.closed - self.opened) / 2

    @property
    def determinant(self) -> Field:
        """Var u Var v − Cov²."""
        return self.opened * self.closed

    @property
    def cosine(self) -> Field:
        """The correlation of u and v; 0 if u or v is 0."""
        twice = self.closed + self.opened
        return 2 * self.covariance / jnp.where(twice > 0, twice, 1.0)

    @property
    def angle(self) -> Field:
        """The angle whose cosine is the correlation."""
        undefined = (self.opened <= 0) & (self.closed <= 0)
        opened, closed = (jnp.where(undefined, 1.0, x) for x in (self.opened, self.closed))
        return 2 * jnp.arctan2(safe_sqrt(opened), safe_sqrt(closed))

    def scale(self, factor: Field | float) -> "GaussianPair":
        """The pair (factor · u, factor · v)."""
        square = factor**2
        return GaussianPair(
            factor * self.std1,
            factor * self.std2,
            self.contrast,
            square * self.opened,
            square * self.closed,
        )

    def __add__(self, other: "GaussianPair") -> "GaussianPair":  # type: ignore[override]
        """The sum with an independent pair: covariances add.

        The product of the norms exceeds the sum of the products by a term ≥ 0 (Lagrange's identity)
        that vanishes where the contrasts are equal.
        """
        norm1 = safe_hypot(self.std1, other.std1)
        norm2 = safe_hypot(self.std2, other.std2)
        mine, theirs = (self.std1 + self.std2) / 2, (other.std1 + other.std2) / 2
        cross = 2 * mine * theirs * (self.contrast - other.contrast)  # std1 std2' − std2 std1'
        total = norm1 * norm2 + self.std1 * self.std2 + other.std1 * other.std2
        excess = cross**2 / jnp.where(total > 0, total, 1.0)
        square = mine**2 + theirs**2 + excess / 2  # ((norm1 + norm2) / 2)²
        square = jnp.where(square > 0, square, 1.0)
        contrast = self.contrast * (mine**2 / square) + other.contrast * (theirs**2 / square)
        opened = excess + self.opened + other.opened
        return GaussianPair(norm1, norm2, contrast, opened, excess + self.closed + other.closed)


def contrast(std1: Field, std2: Field) -> Field:
    """(std1 − std2) / (std1 + std2), and 0 if both are 0."""
    total = std1 + std2
    return (std1 - std2) / jnp.where(total > 0, total, 1.0)


@jax.custom_jvp
def _beyond_round_off(difference: Field, product: Field) -> Field:
    """A difference of two terms of size `product`, set to 0 where it is mere round-off.

    The derivative is that of the difference everywhere: through the threshold, round-off would choose
    between 0 and 1.
    """
    return jnp.where(difference > 32 * jnp.finfo(product.dtype).eps * product, difference, 0.0)


@_beyond_round_off.defjvp
def _pass_on(primals: tuple[Field, Field], tangents: tuple[Field, Field]) -> tuple[Field, Field]:
    return _beyond_round_off(*primals), tangents[0]


class Activation(Configured, eqx.Module):
    """φ, elementwise, with its Gaussian moments."""

    @abc.abstractmethod
    def __call__(self, x: Field) -> Field:
        """φ(x)."""

    @abc.abstractmethod
    def moments(self, pair: GaussianPair) -> tuple[GaussianPair, Field]:
        """E[φ(u) φ(v)], as the pair with that covariance, and E[φ'(u) φ'(v)]."""


class _SmoothActivation(Activation):
    """An activation whose moments are smooth functions of the covariance."""

    @abc.abstractmethod
    def expectation(self, pair: GaussianPair) -> Field:
        """E[φ(u) φ(v)]."""

    @abc.abstractmethod
    def derivative_expectation(self, pair: GaussianPair) -> Field:
        """E[φ'(u) φ'(v)], which is ∂E[φ(u) φ(v)]/∂covariance (Price's theorem)."""

    def moments(self, pair: GaussianPair) -> tuple[GaussianPair, Field]:
        std1, std2 = (
            safe_sqrt(self.expectation(GaussianPair.alike(std))) for std in (pair.std1, pair.std2)
        )
        covered = _of_covariance(std1, std2, self.expectation(pair))
        return covered, self.derivative_expectation(pair)


def _of_covariance(std1: Field, std2: Field, covariance: Field) -> GaussianPair:
    """The pair with this covariance. Cancellation is harmless: the moments are smooth in it."""
    product = std1 * std2
    opened, closed = (
        _beyond_round_off(x, product) for x in (product - covariance, product + covariance)
    )
    return GaussianPair(std1, std2, contrast(std1, std2), opened, closed)


class Identity(Activation):
    """φ(x) = x: a deep linear network."""

    def __call__(self, x: Field) -> Field:
        return x

    def moments(self, pair: GaussianPair) -> tuple[GaussianPair, Field]:
        return pair, jnp.ones_like(pair.opened)


class LeakyReLU(Activation):
    """φ(x) = max(x, slope · x) for slope in [0, 1]; slope 0 is ReLU.

    φ(x) = (1 + slope)/2 · x + (1 − slope)/2 · |x|, hence arc-cosine moments (Cho & Saul 2009).
    """

    slope: float = 0.0

    def __call__(self, x: Field) -> Field:
        return jnp.where(x > 0, x, self.slope * x)

    def moments(self, pair: GaussianPair) -> tuple[GaussianPair, Field]:
        angle = pair.angle
        even, odd = ((1 - self.slope) / 2) ** 2, ((1 + self.slope) / 2) ** 2
        second = even + odd  # E[φ(u)²] / Var u
        bent = pair.std1 * pair.std2 * 2 / jnp.pi * even / second * _sin_minus_angle_cos(angle)
        # Angles shrink: 0 ≤ bent ≤ opened / 2.
        turned = pair._replace(opened=pair.opened - bent, closed=pair.closed + bent)
        return turned.scale(jnp.sqrt(second)), odd + even * (1 - 2 * angle / jnp.pi)


def _sin_minus_angle_cos(angle: Field) -> Field:
    """sin θ − θ cos θ on [0, π], by series where the difference would cancel."""
    near = angle < 0.5
    small, large = jnp.where(near, angle, 0.25), jnp.where(near, 1.0, angle)
    terms = [(-1) ** (k + 1) * 2 * k / float(_factorial(2 * k + 1)) for k in range(9, 0, -1)]
    series = small**3 * jnp.polyval(jnp.asarray(terms, angle.dtype), small**2)
    return jnp.where(near, series, jnp.sin(large) - large * jnp.cos(large))


def _factorial(k: int) -> int:
    return int(np.prod(np.arange(1, k + 1, dtype=object)))


class Erf(_SmoothActivation):
    """φ(x) = erf(x), with Williams' arcsine moments (1997)."""

    def __call__(self, x: Field) -> Field:
        return jax.scipy.special.erf(x)

    def expectation(self, pair: GaussianPair) -> Field:
        root = jnp.sqrt(self._determinant(pair))
        return 2 / jnp.pi * jnp.arctan2(2 * pair.covariance, root)

    def derivative_expectation(self, pair: GaussianPair) -> Field:
        return 4 / jnp.pi / jnp.sqrt(self._determinant(pair))

    @staticmethod
    def _determinant(pair: GaussianPair) -> Field:
        """det(I + 2 Cov), in terms that are all positive."""
        return 1 + 2 * (pair.std1**2 + pair.std2**2) + 4 * pair.determinant


class GELU(_SmoothActivation):
    """φ(x) = x Φ(x) with the exact normal distribution function Φ (Hendrycks & Gimpel 2016).

    Moments by Stein's lemma from E[Φ(u) Φ(v)] = arccos(−r)/(2π) (cf. Tsuchida et al. 2021).
    """

    def __call__(self, x: Field) -> Field:
        return jax.nn.gelu(x, approximate=False)

    def expectation(self, pair: GaussianPair) -> Field:
        both, density, _, (inverse1, inverse2) = self._parts(pair)
        product = pair.determinant + pair.covariance**2 * (inverse1 + inverse2)
        return pair.covariance * both + density * product

    def derivative_expectation(self, pair: GaussianPair) -> Field:
        both, density, determinant, (inverse1, inverse2) = self._parts(pair)
        # `product` of `expectation` minus the determinant, expanded: it would cancel at large variances.
        short = 1 + inverse1 * (pair.std2**2 + pair.determinant)
        short += inverse2 * (pair.std1**2 + pair.determinant)
        skew = 2 * (inverse1 + inverse2) - short / determinant
        return both + pair.covariance * density * skew

    @staticmethod
    def _parts(pair: GaussianPair) -> tuple[Field, Field, Field, tuple[Field, Field]]:
        """E[Φ(u) Φ(v)], E[Φ'(u) Φ'(v)], det(I + Cov), and 1/(1 + Var u) and 1/(1 + Var v)."""
        var1, var2 = pair.std1**2, pair.std2**2
        determinant = 1 + var1 + var2 + pair.determinant
        both = jnp.arctan2(jnp.sqrt(determinant), -pair.covariance) / (2 * jnp.pi)
        density = 1 / (2 * jnp.pi * jnp.sqrt(determinant))
        return both, density, determinant, (1 / (1 + var1), 1 / (1 + var2))


class Elementwise(Activation):
    """Any scalar function, with moments by Mehler's formula (1866): with h_k the normalised Hermite
    polynomials and ρ the correlation,

        E[φ(u) φ(v)] = Σ_k ρᵏ a_k(std1) a_k(std2),    a_k(std) = E[φ(std z) h_k(z)],  z ~ N(0, 1)

    and likewise for φ'. The a_k come from one-dimensional quadrature, so each pair of inputs costs
    num_terms multiplications instead of a two-dimensional quadrature, and the Gram matrix is positive
    semi-definite by construction. Exact for polynomials of degree < num_terms. Converges fast for
    functions analytic near the real line (tanh at std 2: 1e-7), slowly at kinks.
    """

    function: Callable[[Field], Field] = eqx.field(static=True)
    num_terms: int = eqx.field(static=True, default=128)

    def __call__(self, x: Field) -> Field:
        return self.function(x)

    def moments(self, pair: GaussianPair) -> tuple[GaussianPair, Field]:
        def derivative(x: Field) -> Field:
            return jax.jvp(self.function, (x,), (jnp.ones_like(x),))[1]

        nodes, projections = _hermite_projections(self.num_terms)

        def coefficients(function: Callable[[Field], Field], std: Field) -> Field:
            at = jnp.multiply.outer(std, jnp.asarray(nodes, std.dtype))
            return function(at) @ jnp.asarray(projections, std.dtype)

        cos = pair.cosine

        def series(a1: Field, a2: Field) -> Field:
            def horner(total: Field, terms: tuple[Field, Field]) -> tuple[Field, None]:
                return total * cos + terms[0] * terms[1], None

            powers = (jnp.moveaxis(a1, -1, 0), jnp.moveaxis(a2, -1, 0))
            shape = jnp.broadcast_shapes(cos.shape, a1.shape[:-1], a2.shape[:-1])
            zeros = jnp.zeros(shape, cos.dtype)
            return jax.lax.scan(horner, zeros, powers, reverse=True)[0]

        a1, a2 = (coefficients(self.function, std) for std in (pair.std1, pair.std2))
        std1, std2 = (safe_sqrt(jnp.sum(a**2, axis=-1)) for a in (a1, a2))
        slope = series(*(coefficients(derivative, std) for std in (pair.std1, pair.std2)))
        return _of_covariance(std1, std2, series(a1, a2)), slope


def _hermite_projections(num_terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes z (m,) and weights (m, num_terms) with Σ_z f(z) weights[z, k] = E[f(z) h_k(z)].

    Uses the trapezoidal rule, which converges faster than Gauss–Hermite for analytic functions under a
    Gaussian weight (Trefethen & Weideman 2014).
    """
    reach = 12 + np.sqrt(num_terms)
    nodes = np.linspace(-reach, reach, 40 * int(reach) + 1)
    density = np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi) * (nodes[1] - nodes[0])
    rows = [np.ones_like(nodes), nodes]
    for k in range(1, num_terms - 1):
        rows.append((nodes * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    return nodes, (np.stack(rows[:num_terms]) * density).T


_BY_NAME: dict[str, Activation] = {
    "relu": LeakyReLU(0.0),
    "leaky_relu": LeakyReLU(0.01),
    "erf": Erf(),
    "gelu": GELU(),
    "identity": Identity(),
    "tanh": Elementwise(jnp.tanh),
    "silu": Elementwise(jax.nn.silu),
    "sin": Elementwise(jnp.sin),
}
NAMES = tuple(_BY_NAME)
"""Names of activations, for `get` and wherever an activation is given."""


def get(activation: str | Activation | Callable[[Field], Field]) -> Activation:
    """The activation of a name, an `Activation` or any elementwise JAX function.

    Raises:
        UnknownNameError: the name is not in `NAMES`.
        ConfigurationError: it is none of the three.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in _BY_NAME:
            raise UnknownNameError("activation", activation, NAMES)
        return _BY_NAME[activation]
    if callable(activation):
        return Elementwise(activation)
    raise ConfigurationError(
        f"an activation is a name ({', '.join(NAMES)}), an Activation or a function of an array; "
        f"got {activation!r}"
    )
