"""Cholesky factors of Gram matrices, and GP conditioning."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ntkbayes.errors import NotPositiveDefiniteError
from ntkbayes.linalg import halves
from ntkbayes.linalg.arrays import Square
from ntkbayes.linalg.blocks import Block, FormedBlock
from ntkbayes.linalg.devices import everywhere, num_shares
from ntkbayes.linalg.frugal import frugal_jit
from ntkbayes.linalg.norms import nan_is_an_answer
from ntkbayes.linalg.sharded import ShardedTriangle


class CholeskyFactor(eqx.Module):
    """gram + jitter · I = lower lowerᵀ, for a shared or a coupled Gram matrix."""

    jitter: eqx.AbstractVar[Float[Array, ""]]

    @property
    @abc.abstractmethod
    def lower(self) -> Square:
        """The factor as a matrix."""

    @abc.abstractmethod
    def colour(self, z: Float[Array, "*draws n classes"]) -> Float[Array, "*draws n classes"]:
        """lower z: from white noise to draws of the logits."""

    @abc.abstractmethod
    def whiten(self, rhs: Float[Array, "rows m"]) -> Float[Array, "rows m"]:
        """lower⁻¹ rhs."""


class HalvedFactor(CholeskyFactor):
    """On one device, by halves. Blocks on its diagonal are triangular, not inverted: with only jitter on
    the diagonal they are too ill-conditioned."""

    half: halves.Corners
    jitter: Float[Array, ""]

    @property
    def lower(self) -> Square:
        return _unpacked(self.half)

    def colour(self, z: Float[Array, "*draws n classes"]) -> Float[Array, "*draws n classes"]:
        return _coloured(self.half, z)

    def whiten(self, rhs: Float[Array, "rows m"]) -> Float[Array, "rows m"]:
        return _whitened(self.half, rhs)


_unpacked = jax.jit(halves.lower_triangle)
_whitened = jax.jit(halves.solve)


@jax.jit
def _coloured(
    half: halves.Corners, z: Float[Array, "*draws n classes"]
) -> Float[Array, "*draws n classes"]:
    size = halves.num_rows(half)
    columns = jnp.moveaxis(_columns(z, size), -2, 0)
    coloured = halves.multiply(half, columns.reshape(size, -1)).reshape(columns.shape)
    return jnp.moveaxis(coloured, 0, -2).reshape(z.shape)


def _columns(
    z: Float[Array, "*draws n classes"], num_rows: int
) -> Float[Array, "*draws rows columns"]:
    """Logits as columns with `num_rows` rows: one row per point, or per point and output."""
    return z.reshape(*z.shape[:-2], num_rows, -1)


class ShardedFactor(CholeskyFactor):
    """With rows spread over devices."""

    triangle: ShardedTriangle
    jitter: Float[Array, ""]

    @property
    def lower(self) -> Square:
        return self.triangle.lower

    def colour(self, z: Float[Array, "*draws n classes"]) -> Float[Array, "*draws n classes"]:
        columns = _columns(z, len(self.lower))
        return everywhere(jnp.einsum("mn,...nc->...mc", self.lower, columns)).reshape(z.shape)

    def whiten(self, rhs: Float[Array, "rows m"]) -> Float[Array, "rows m"]:
        return _solve(self.triangle, rhs)


_solve = eqx.filter_jit(lambda triangle, rhs: everywhere(triangle.solve(rhs)))


def cholesky(gram: Square, *, what: str = "the Gram matrix") -> CholeskyFactor:
    """The factor of a positive semi-definite matrix.

    Jitter starts at round-off, 10 n ε times the mean diagonal (about 1e-12), so that duplicated points
    work. It grows tenfold while the factorisation fails, up to 1e-8. Under a JAX trace, a factor that
    does not exist is NaN.

    Raises:
        NotPositiveDefiniteError: the matrix has a negative eigenvalue beyond that, or is not finite.
    """
    if isinstance(gram, jax.core.Tracer):
        return _traced(gram)
    size = gram.shape[0]
    scale = float(_mean_diagonal(gram)) if size else 1.0
    if not np.isfinite(scale) or scale < 0:
        raise NotPositiveDefiniteError(f"{what} has a mean diagonal of {scale}")
    scale = scale or 1.0
    relative = _first_jitter(gram)
    is_spread = num_shares() > 1 and size % num_shares() == 0
    while True:
        jitter = jnp.asarray(relative * scale, gram.dtype)
        attempt = _attempt_spread if is_spread else _attempt
        with nan_is_an_answer():
            factor, is_finite = attempt(gram, jitter)
        if bool(is_finite):
            if isinstance(factor, ShardedTriangle):
                return ShardedFactor(triangle=factor, jitter=jitter)
            return HalvedFactor(half=factor, jitter=jitter)
        relative *= 10
        if relative > _MAX_JITTER:
            break
    if not bool(_is_finite(gram)):
        raise NotPositiveDefiniteError(f"{what} contains NaN or infinity")
    smallest = float(jnp.linalg.eigvalsh(gram)[0])
    raise NotPositiveDefiniteError(
        f"{what} is not positive definite: its smallest eigenvalue is {smallest:.3g}, its mean "
        f"diagonal {scale:.3g}. Check that the kernel is symmetric and positive definite"
    )


_MAX_JITTER = 1e-8


def _first_jitter(gram: Square) -> float:
    return 10 * gram.shape[0] * float(np.finfo(gram.dtype).eps)


def _traced(gram: Square) -> HalvedFactor:
    """The same jitter ladder as one program."""
    scale = _mean_diagonal(gram)
    scale = jnp.where(scale == 0, 1.0, scale)

    def climb(state: tuple) -> tuple:
        relative, _, _ = state
        return 10 * relative, *_attempt(gram, 10 * relative * scale)

    def failed(state: tuple) -> Bool[Array, ""]:
        relative, _, is_finite = state
        return ~is_finite & (10 * relative <= _MAX_JITTER)

    first = jnp.asarray(_first_jitter(gram), gram.dtype)
    state = (first, *_attempt(gram, first * scale))
    relative, half, is_finite = jax.lax.while_loop(failed, climb, state)
    half = jax.tree.map(lambda block: jnp.where(is_finite, block, jnp.nan), half)
    return HalvedFactor(half=half, jitter=relative * scale)


_mean_diagonal = jax.jit(lambda gram: jnp.mean(jnp.diagonal(gram)))


@jax.jit
def _is_finite(matrix: Square | halves.Lower | ShardedTriangle) -> Bool[Array, ""]:
    """Whether all blocks are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(block)) for block in jax.tree.leaves(matrix)]))


@frugal_jit
def _attempt(gram: Square, jitter: Float[Array, ""]) -> tuple[halves.Corners, Bool[Array, ""]]:
    """The factor of gram + jitter · I, and whether it is finite."""
    half = halves.factor(halves.lower_half(gram, shift=jitter), halves.Corner)
    return half, _is_finite(half)


@eqx.filter_jit
def _attempt_spread(
    gram: Square, jitter: Float[Array, ""]
) -> tuple[ShardedTriangle, Bool[Array, ""]]:
    """The same, spread over devices."""
    factor = ShardedTriangle.factor(gram, shift=jitter)
    return factor, _is_finite(factor)


class Conditional(eqx.Module):
    """A centred GP path at new inputs, given its whitened values z at old ones, where the path is L z.

    At the new inputs it is N(projection z, root rootᵀ): exact conditioning (R&W 2.19). Rows and columns
    are points, or (point, output) pairs, as in the blocks it is built from.
    """

    projection: FormedBlock
    root: FormedBlock

    def draw(
        self, whitened: Float[Array, "draws n classes"], noise: Float[Array, "draws m classes"]
    ) -> Float[Array, "draws m classes"]:
        """The path at the new inputs, from white noise there."""
        return _draw(self, whitened, noise)

    @classmethod
    def build(cls, factor: CholeskyFactor, cross: Block, gram: Block) -> "Conditional":
        """From the factor at the old inputs, the cross-covariance, and the Gram of the new inputs."""
        between, own = cross.formed(), gram.formed()
        projection = between.like(factor.whiten(between.matrix)).T
        remainder = _remainder(projection.matrix, own.matrix)
        return cls(
            projection, own.like(cholesky(remainder, what="the conditional covariance").lower)
        )


@jax.jit
def _draw(
    conditional: Conditional,
    whitened: Float[Array, "draws n classes"],
    noise: Float[Array, "draws m classes"],
) -> Float[Array, "draws m classes"]:
    return conditional.projection @ whitened + conditional.root @ noise


@jax.jit
def _remainder(projection: Float[Array, "m n"], gram: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The conditional covariance, plus the round-off that cancellation may have cost."""
    covariance = gram - projection @ projection.T
    round_off = 1e-11 * jnp.mean(jnp.diagonal(gram))
    return (covariance + covariance.T) / 2 + round_off * jnp.eye(len(gram), dtype=gram.dtype)
