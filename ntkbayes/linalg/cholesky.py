"""Cholesky factors of Gram matrices, and GP conditioning."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ntkbayes.errors import NotPositiveDefiniteError
from ntkbayes.linalg import halves
from ntkbayes.linalg.arrays import Square
from ntkbayes.linalg.blocks import FormedBlock, Number
from ntkbayes.linalg.devices import everywhere, num_shares
from ntkbayes.linalg.frugal import frugal_jit
from ntkbayes.linalg.noise import white_noise
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


def cholesky(
    gram: Square, *, divisor: Number = 1.0, what: str = "the Gram matrix"
) -> CholeskyFactor:
    """The factor of a positive semi-definite matrix, gram/divisor.

    Jitter starts at round-off, 10 n ε times the mean diagonal (about 1e-12), so that duplicated points
    work. It grows tenfold while the factorisation fails, up to 1e-8. Under a JAX trace, a factor that
    does not exist is NaN.

    Raises:
        NotPositiveDefiniteError: the matrix has a negative eigenvalue beyond that, or is not finite.
    """
    divisor = jnp.asarray(divisor, gram.dtype)
    if isinstance(gram, jax.core.Tracer) or isinstance(divisor, jax.core.Tracer):
        return _traced(gram, divisor)
    relative = _first_jitter(gram)
    is_spread = num_shares() > 1 and len(gram) % num_shares() == 0
    attempt = _attempt_spread if is_spread else _attempt
    while True:
        with nan_is_an_answer():
            factor, jitter, is_finite = attempt(gram, divisor, jnp.asarray(relative, gram.dtype))
        if bool(is_finite):
            if isinstance(factor, ShardedTriangle):
                return ShardedFactor(triangle=factor, jitter=jitter)
            return HalvedFactor(half=factor, jitter=jitter)
        relative *= 10
        if relative > _MAX_JITTER:
            break
    gram = gram / divisor
    scale = float(_scale(gram))
    if not np.isfinite(scale) or scale < 0:
        raise NotPositiveDefiniteError(f"{what} has a mean diagonal of {scale}")
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


def _traced(gram: Square, divisor: Float[Array, ""]) -> HalvedFactor:
    """The same jitter ladder as one program."""

    def climb(state: tuple) -> tuple:
        relative, *_ = state
        return 10 * relative, *_attempt(gram, divisor, 10 * relative)

    def failed(state: tuple) -> Bool[Array, ""]:
        relative, *_, is_finite = state
        return ~is_finite & (10 * relative <= _MAX_JITTER)

    first = jnp.asarray(_first_jitter(gram), gram.dtype)
    begin = (first, *_attempt(gram, divisor, first))
    _, half, jitter, is_finite = jax.lax.while_loop(failed, climb, begin)
    half = jax.tree.map(lambda block: jnp.where(is_finite, block, jnp.nan), half)
    return HalvedFactor(half=half, jitter=jitter)


def _scale(gram: Square) -> Float[Array, ""]:
    """The mean diagonal, of which jitter is a part; 1 where that is 0."""
    mean = jnp.sum(jnp.diagonal(gram)) / max(len(gram), 1)
    return jnp.where(mean == 0, 1.0, mean)


@jax.jit
def _is_finite(matrix: Square | halves.Lower | ShardedTriangle) -> Bool[Array, ""]:
    """Whether all blocks are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(block)) for block in jax.tree.leaves(matrix)]))


@frugal_jit
def _attempt(
    gram: Square, divisor: Float[Array, ""], relative: Float[Array, ""]
) -> tuple[halves.Corners, Float[Array, ""], Bool[Array, ""]]:
    """The factor of gram/divisor + jitter · I, the jitter, and whether the factor is finite.

    Args:
        relative: the jitter as a part of the mean diagonal.
    """
    jitter = relative * _scale(gram) / divisor
    divided = halves.tabulated(len(gram), lambda rows, columns: gram[rows, columns] / divisor)
    half = halves.factor(halves.lower_half(divided, shift=jitter), halves.Corner)
    return half, jitter, _is_finite(half)


@eqx.filter_jit
def _attempt_spread(
    gram: Square, divisor: Float[Array, ""], relative: Float[Array, ""]
) -> tuple[ShardedTriangle, Float[Array, ""], Bool[Array, ""]]:
    """The same, spread over devices."""
    gram = gram / divisor
    jitter = relative * _scale(gram)
    factor = ShardedTriangle.factor(gram, shift=jitter)
    return factor, jitter, _is_finite(factor)


class Conditional(eqx.Module):
    """A centred GP path at new inputs, given its whitened values z at old ones, where the path is L z.

    At the new inputs it is N(projection z, root rootᵀ): exact conditioning (R&W 2.19). Rows and columns
    are points, or (point, output) pairs, as in the blocks it is built from.
    """

    projection: FormedBlock
    root: CholeskyFactor

    @eqx.filter_jit
    def draw(
        self, whitened: Float[Array, "draws n classes"], key: PRNGKeyArray
    ) -> Float[Array, "draws m classes"]:
        """The path at the new inputs."""
        mean = self.projection @ whitened
        return mean + self.root.colour(white_noise(key, mean.shape))

    @classmethod
    def build(
        cls, factor: CholeskyFactor, cross: FormedBlock, gram: FormedBlock, divisor: Number = 1.0
    ) -> "Conditional":
        """From the factor at the old inputs, the covariance cross/divisor between new ones and old, and
        gram/divisor between the new."""
        divisor = jnp.asarray(divisor, dtype=float)
        projection, left = _conditioned(factor, cross, gram, divisor)
        return cls(projection, cholesky(left, what="the conditional covariance"))


def whitened_cross(
    factor: CholeskyFactor, cross: FormedBlock, divisor: Float[Array, ""]
) -> FormedBlock:
    """L⁻¹ cov(X, x), for the covariance cross/divisor between inputs x and X, with L the factor at X."""
    between = (cross / divisor).T
    return between.like(factor.whiten(between.matrix))


@frugal_jit
def _conditioned(
    factor: CholeskyFactor, cross: FormedBlock, gram: FormedBlock, divisor: Float[Array, ""]
) -> tuple[FormedBlock, Square]:
    """The projection, and the covariance left, plus the round-off that cancellation may have cost."""
    projection = whitened_cross(factor, cross, divisor).T
    own = gram.matrix / divisor
    covariance = own - projection.matrix @ projection.matrix.T
    round_off = 1e-11 * jnp.mean(jnp.diagonal(own))
    covariance = (covariance + covariance.T) / 2
    return projection, covariance + round_off * jnp.eye(len(own), dtype=own.dtype)
