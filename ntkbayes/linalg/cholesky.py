"""Cholesky factors of Gram matrices, and conditioning by them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float

from ntkbayes.errors import NotPositiveDefiniteError, PrecisionError
from ntkbayes.linalg.blocks import Gram, apply
from ntkbayes.linalg.devices import everywhere, num_shares
from ntkbayes.linalg.sharded import ShardedTriangle


def require_float64() -> None:
    """Raises PrecisionError unless JAX is in float64."""
    if not jax.config.read("jax_enable_x64"):
        raise PrecisionError(
            "ntkbayes solves in float64, which JAX turns off by default; call "
            'jax.config.update("jax_enable_x64", True) before anything else uses JAX'
        )


class CholeskyFactor(eqx.Module):
    """gram + jitter · I = lower lowerᵀ, of a Gram matrix shared by the outputs or coupling them."""

    lower: Gram
    jitter: float = eqx.field(static=True)

    def colour(self, z: Float[Array, "*draws n classes"]) -> Float[Array, "*draws n classes"]:
        """lower z: from white noise to draws of the logits."""
        return apply(self.lower, z)

    def whiten(self, rhs: Float[Array, "rows m"]) -> Float[Array, "rows m"]:
        """lower⁻¹ rhs."""
        return solve_triangular(self.lower, rhs, lower=True)


class ShardedFactor(CholeskyFactor):
    """The same with its rows spread over devices."""

    inverses: Float[Array, "blocks b b"]

    def whiten(self, rhs: Float[Array, "rows m"]) -> Float[Array, "rows m"]:
        return _solve(ShardedTriangle(self.lower, self.inverses), rhs)


_solve = eqx.filter_jit(lambda triangle, rhs: everywhere(triangle.solve(rhs)))


def cholesky(gram: Gram, *, what: str = "the Gram matrix") -> CholeskyFactor:
    """The factor of a positive semi-definite matrix.

    Jitter starts at round-off, 10 n ε times the mean diagonal (about 1e-12), so that duplicated
    points work, and grows tenfold as long as the factorisation fails, to 1e-8 at most.

    Raises:
        NotPositiveDefiniteError: the matrix has a negative eigenvalue beyond that, or is not finite.
    """
    size = gram.shape[0]
    scale = float(_mean_diagonal(gram)) if size else 1.0
    if not np.isfinite(scale) or scale < 0:
        raise NotPositiveDefiniteError(f"{what} has a mean diagonal of {scale}")
    scale = scale or 1.0
    relative = 10 * size * float(np.finfo(gram.dtype).eps)
    is_spread = num_shares() > 1 and size % num_shares() == 0
    while True:
        jitter = relative * scale
        lower, inverses, is_finite = _attempt(gram, jnp.asarray(jitter, gram.dtype), is_spread)
        if bool(is_finite):
            if inverses is not None:
                return ShardedFactor(lower, jitter, inverses)
            return CholeskyFactor(lower, jitter)
        relative *= 10
        if relative > 1e-8:
            break
    if not bool(_is_finite(gram)):
        raise NotPositiveDefiniteError(f"{what} contains NaN or infinity")
    smallest = float(jnp.linalg.eigvalsh(gram)[0])
    raise NotPositiveDefiniteError(
        f"{what} is not positive definite: its smallest eigenvalue is {smallest:.3g}, its mean "
        f"diagonal {scale:.3g}. Check that the kernel is symmetric and positive definite"
    )


_mean_diagonal = jax.jit(lambda gram: jnp.mean(jnp.diagonal(gram)))
_is_finite = jax.jit(lambda gram: jnp.all(jnp.isfinite(gram)))


@eqx.filter_jit
def _attempt(
    gram: Gram, jitter: Float[Array, ""], is_spread: bool
) -> tuple[Gram, Float[Array, "blocks b b"] | None, Bool[Array, ""]]:
    """Lower factor of gram + jitter · I, with the inverses of a spread one, and whether it is one."""
    if is_spread:
        found = ShardedTriangle.factor(gram, shift=jitter)
        lower, inverses = found.lower, found.inverses
    else:
        # As it is, LAPACK's factor: jitter makes the blocks too ill-conditioned to be inverted.
        matrix = gram + jitter * jnp.eye(gram.shape[0], dtype=gram.dtype)
        lower, inverses = jax.lax.linalg.cholesky(matrix, symmetrize_input=False), None
    return lower, inverses, jnp.all(jnp.isfinite(lower))


class Conditional(eqx.Module):
    """A centred GP path at new inputs, given its whitened values z at old ones: path = L z.

    At the new inputs it is N(projection z, root rootᵀ): exact conditioning (R&W 2.19). Rows and
    columns are points, or points and outputs, as in the blocks it is built from.
    """

    projection: Float[Array, "m n"]
    root: Float[Array, "m m"]

    def draw(
        self, whitened: Float[Array, "draws n classes"], noise: Float[Array, "draws m classes"]
    ) -> Float[Array, "draws m classes"]:
        """The path at the new inputs, for white noise there."""
        return _draw(self, whitened, noise)

    @classmethod
    def build(
        cls, factor: CholeskyFactor, cross: Float[Array, "n m"], gram: Float[Array, "m m"]
    ) -> "Conditional":
        """From the factor at the old inputs, the cross-covariance and the new inputs' Gram."""
        projection = factor.whiten(cross).T
        remainder = _remainder(projection, gram)
        return cls(projection, cholesky(remainder, what="the conditional covariance").lower)


@jax.jit
def _draw(
    conditional: Conditional,
    whitened: Float[Array, "draws n classes"],
    noise: Float[Array, "draws m classes"],
) -> Float[Array, "draws m classes"]:
    return apply(conditional.projection, whitened) + apply(conditional.root, noise)


@jax.jit
def _remainder(projection: Float[Array, "m n"], gram: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """What is left of the prior's covariance, and the round-off that the difference can have lost."""
    left = gram - projection @ projection.T
    lost = 1e-11 * jnp.mean(jnp.diagonal(gram))
    return (left + left.T) / 2 + lost * jnp.eye(gram.shape[0], dtype=gram.dtype)
