"""(P + W⁻¹)⁻¹ for a P known by its products: conjugate gradients, many columns side by side."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ntkbayes.linalg.arrays import Covariances, Draws, Logits, Square
from ntkbayes.linalg.blocks import Block, SharedBlock
from ntkbayes.linalg.curvature import Curvature, StructuredCurvature
from ntkbayes.linalg.curved import CurvedInverse, SharedInverse

PerColumn = Float[Array, "draws 1 1"]


class Iterated(NamedTuple):
    """What conjugate gradients on A u = right found.

    Attributes:
        u: the solutions.
        image: P S u of each.
        num_products: of P with all columns.
    """

    u: Draws
    image: Draws
    num_products: Int[Array, ""]


class Probes(NamedTuple):
    """Random z ~ N(0, M), with M = I + Sᵀ P_s S the preconditioner of A, and what each says of A.

    Attributes:
        is_solved: whether the products sufficed.
        log_determinants: unbiased estimates of log det A; NaN where they did not.
        u: A⁻¹ z.
        image: P S u.
        y: M⁻¹ z.
        y_image: P S y.
    """

    is_solved: Bool[Array, " draws"]
    log_determinants: Float[Array, " draws"]
    u: Draws
    image: Draws
    y: Draws
    y_image: Draws


class CurvedSystem(eqx.Module):
    """A, with its preconditioner.

    Attributes:
        gram: P.
        surrogate: P_s, (n, n).
        inverse: B_s = (P_s ⊗ I + W⁻¹)⁻¹.
        curvature: W.
        is_stacked: whether each column has its own W and B_s, stacked.
    """

    gram: Block
    surrogate: Square
    inverse: SharedInverse
    curvature: Curvature
    is_stacked: bool = eqx.field(static=True)

    def roots(self, u: Draws) -> Draws:
        """S u."""
        return self._each(lambda curvature, v: curvature.root_matvec(v), self.curvature, u)

    def transposed_roots(self, u: Draws) -> Draws:
        """Sᵀ u."""
        return self._each(
            lambda curvature, v: curvature.root_transpose_matvec(v), self.curvature, u
        )

    def apply(self, u: Draws) -> tuple[Draws, Draws]:
        """A u, and P S u."""
        image = self.gram @ self.roots(u)
        return u + self.transposed_roots(image), image

    def precondition(self, u: Draws) -> Draws:
        """(I + Sᵀ P_s S)⁻¹ u."""
        surrogate = SharedBlock(self.surrogate)
        moved = surrogate @ self.roots(u)
        inner = self._each(lambda inverse, v: inverse.matvec(v), self.inverse, moved)
        return u - self.transposed_roots(moved - surrogate @ inner)

    def iterate(self, right: Draws, enough: PerColumn, max_products: int) -> Iterated:
        """Conjugate gradients on A u = right from 0, until ‖right − A u‖ is within `enough` ‖right‖."""

        def unfinished(state: tuple) -> Array:
            *_, active, count = state
            return jnp.any(active) & (count < max_products)

        def update(state: tuple) -> tuple:
            u, image, r, p, energy, active, count = state
            product, moved = self.apply(p)
            step = jnp.where(active, energy / inner(p, product), 0.0)
            u, image, r = u + step * p, image + step * moved, r - step * product
            z = self.precondition(r)
            new = inner(r, z)
            p = jnp.where(active, z + new / jnp.where(active, energy, 1.0) * p, p)
            active = active & (squares(r) > within) & (new > 0)
            return u, image, r, p, jnp.where(active, new, energy), active, count + 1

        within = enough**2 * squares(right)
        z = self.precondition(right)
        energy = inner(right, z)
        active = (squares(right) > within) & (energy > 0)
        nothing = jnp.zeros_like(right)
        state = (nothing, nothing, right, z, energy, active, jnp.asarray(0))
        u, image, *_, count = jax.lax.while_loop(unfinished, update, state)
        return Iterated(u, image, count)

    def probe(self, white: tuple[Draws, Draws], within: float, max_products: int) -> Probes:
        """Conjugate gradients on A u = z for random z, and with them estimates of log det A.

        With N rows log det M + N εᵀ log(M^-½ A M^-½) ε / ‖ε‖² is unbiased, ε ~ N(0, I). The quadratic
        form is by Lanczos quadrature, whose tridiagonal matrix has the coefficients of preconditioned
        conjugate gradients from z = M^½ ε ~ N(0, M) (Gardner et al. 2018).

        Args:
            white: two arrays of N(0, 1) numbers, from which z = w₁ + Sᵀ P_s^½ w₂.
            within: of ‖M^-½ r‖ in ‖ε‖ at the end, in which the error of the quadrature is quadratic,
                that of u linear.
            max_products: beyond which the estimates are NaN.
        """
        values, vectors = jnp.linalg.eigh(self.surrogate)
        half = SharedBlock(vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :])
        r = white[0] + self.transposed_roots(half @ white[1])
        y = self.precondition(r)
        begin, first = y, inner(r, y)
        count, none = len(r), jnp.zeros((len(r), max_products))

        def unfinished(state: tuple) -> Array:
            *_, active, k = state
            return jnp.any(active) & (k < max_products)

        def update(state: tuple) -> tuple:
            u, image, y_image, r, y, p, energy, carried, diagonal, beside, active, k = state
            product, moved = self.apply(p)
            step = jnp.where(active, energy / inner(p, product), 1.0)
            u, image, r = (
                jnp.where(active, v + step * w, v)
                for v, w in ((u, p), (image, moved), (r, -product))
            )
            y_image = jnp.where(k == 0, moved, y_image)
            y = self.precondition(r)
            new = inner(r, y)
            still = active & (new > within**2 * first)
            entry = jnp.where(active, 1 / step + carried, 1.0)
            ratio = jnp.where(still, new / energy, 0.0)
            diagonal = diagonal.at[:, k].set(entry[:, 0, 0])
            beside = beside.at[:, k].set((jnp.sqrt(ratio) / step)[:, 0, 0])
            energy = jnp.where(still, new, 1.0)
            p, carried = y + ratio * p, ratio / step
            return u, image, y_image, r, y, p, energy, carried, diagonal, beside, still, k + 1

        zero = jnp.zeros_like(r)
        solved, found = (zero, zero, zero), (none + 1, none)
        start = (*solved, r, y, y, first, jnp.zeros_like(first), *found, first > 0, 0)
        end = jax.lax.while_loop(unfinished, update, start)
        (u, image, y_image), (diagonal, beside, active, _) = end[:3], end[-4:]
        below = jax.vmap(lambda v: jnp.diag(v, -1))(beside[:, :-1])
        tridiagonals = jax.vmap(jnp.diag)(diagonal) + below + below.transpose(0, 2, 1)
        nodes, vectors = jnp.linalg.eigh(tridiagonals)
        mean = jnp.sum(vectors[:, 0] ** 2 * jnp.log(nodes), axis=1)
        estimates = self.inverse.log_determinant + r[0].size * mean
        is_solved = ~active.reshape(count)
        estimates = jnp.where(is_solved, estimates, jnp.nan)
        return Probes(is_solved, estimates, u, image, begin, y_image)

    def slopes(self, probes: Probes, change: Curvature) -> Float[Array, " draws"]:
        """An unbiased estimate from each probe of the derivative of log det A along dP = −P and a dW:
        that is P's with respect to the log of the ridge.

        uᵀ dA y averages to tr A⁻¹ dA, as yᵀ dM y does to tr M⁻¹ dM, which is known: their difference
        is random only as far as A is not M.

        Args:
            change: dW.
        """
        _, _, u, image, y, y_image = probes
        curvature = self.curvature

        def change_of_roots(v: Logits) -> Logits:
            return jax.jvp(lambda w: w.root_matvec(v), (curvature,), (change,))[1]

        def log_determinant(scale: Float[Array, ""], curvature: Curvature) -> Float[Array, ""]:
            assert isinstance(curvature, StructuredCurvature)
            return SharedInverse.build(self.surrogate / scale, curvature).log_determinant

        du, dy, roots = jax.vmap(change_of_roots)(u), jax.vmap(change_of_roots)(y), self.roots(y)
        moved = SharedBlock(self.surrogate) @ roots
        of_a = inner(du, y_image) + inner(image, dy - roots)
        of_m = inner(moved, 2 * dy - roots)
        one = jnp.ones((), self.surrogate.dtype)
        known = jax.jvp(log_determinant, (one, curvature), (one, change))[1]
        return known + (of_a - of_m)[:, 0, 0]

    def _each[Part](
        self, function: Callable[[Part, Logits], Logits], part: Part, v: Draws
    ) -> Draws:
        return jax.vmap(function, in_axes=(0 if self.is_stacked else None, 0))(part, v)


def inner(u: Draws, v: Draws) -> PerColumn:
    """⟨u, v⟩ of each column."""
    return jnp.sum(u * v, axis=(1, 2), keepdims=True)


def squares(u: Draws) -> PerColumn:
    """‖u‖² of each column."""
    return inner(u, u)


class IterativeInverse(CurvedInverse):
    """B = S A⁻¹ Sᵀ for a P known by its products. NaN where the iteration does not converge.

    Attributes:
        gram: P, for exact residuals; that of `system` may have lower precision.
    """

    log_determinant: Float[Array, ""]
    gram: Block
    system: CurvedSystem

    @classmethod
    def build(
        cls, gram: Block, fast: Block, surrogate: Square, curvature: StructuredCurvature
    ) -> "IterativeInverse":
        """Args:
        fast: P, for iterations.
        """
        inverse = SharedInverse.build(surrogate, curvature)
        system = CurvedSystem(fast, surrogate, inverse, curvature, is_stacked=False)
        return cls(jnp.full((), jnp.nan, dtype=surrogate.dtype), gram, system)

    @property
    def is_finite(self) -> bool:
        return self.system.inverse.is_finite

    def matvec(self, v: Logits) -> Logits:
        return self.products(v[None])[0]

    def products(self, v: Draws) -> Draws:
        right = self.system.transposed_roots(v)
        solved, left = self._solved(right, _SOLVED)
        is_solved = squares(left) <= _ACCEPTED**2 * squares(right)
        return jnp.where(is_solved, self.system.roots(solved), jnp.nan)

    def quadratic(self, k: Block) -> Covariances:
        """With y = Sᵀ k, u ≈ A⁻¹ y and r = y − A u, yᵀ A⁻¹ y is uᵀ y + rᵀ u up to rᵀ A⁻¹ r ≤ ‖r‖², since
        A ≥ I: an error that is quadratic in the residual."""
        n, size = self.system.curvature.shape
        right = self.system.transposed_roots(k.every_output(size).T.reshape(-1, n, size))
        solved, left = self._solved(right, _QUADRATIC)
        is_solved = squares(left) <= (_SLACK * _QUADRATIC) ** 2 * squares(right)
        u, rest = (v.reshape(-1, size, n * size) for v in (solved, right + left))
        products = jnp.einsum("jpx,jqx->jpq", u, rest)
        blocks = (products + products.transpose(0, 2, 1)) / 2
        return jnp.where(is_solved.reshape(-1, size, 1), blocks, jnp.nan)

    def _solved(self, right: Draws, goal: float) -> tuple[Draws, Draws]:
        """u and r = right − A u, with ‖r‖ within `goal` ‖right‖. In rounds, each on what the last one
        left, since products of lower precision have few digits."""
        exact = eqx.tree_at(lambda system: system.gram, self.system, self.gram)
        enough = goal**2 * squares(right)

        def unfinished(state: tuple) -> Array:
            _, left, before, count = state
            falls = squares(left) < 0.25 * before
            return jnp.any((squares(left) > enough) & falls) & (count < _ROUNDS)

        def update(state: tuple) -> tuple:
            solved, left, _, count = state
            within = jnp.maximum(jnp.sqrt(enough / squares(left)) / 2, _REACH)
            solved = solved + self.system.iterate(left, within, _MAX_PRODUCTS).u
            product, _ = exact.apply(solved)
            return solved, right - product, squares(left), count + 1

        endless = jnp.full((len(right), 1, 1), jnp.inf, right.dtype)
        state = (jnp.zeros_like(right), right, endless, 0)
        solved, left, _, _ = jax.lax.while_loop(unfinished, update, state)
        return solved, left


_SOLVED = 1e-10  # of ‖r‖ in ‖right‖
_ACCEPTED = 1e-6
_QUADRATIC = 3e-5  # the same, where errors are quadratic in r
_SLACK = 10.0
_REACH = 1e-4  # in a round: what products in single precision allow
_ROUNDS = 10
_MAX_PRODUCTS = 1000  # of a round
