"""Gram matrices: the block of a kernel between a set of inputs and itself, and solvers with it.

How P and W are factored depends on whether P is shared by the outputs, couples them, or is known only by
its products. Each kind of Gram has its own solvers, so no caller asks for the kind.
"""

import abc
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int

from ntkbayes.errors import ConfigurationError
from ntkbayes.linalg.arrays import Covariances, Draws, Matrix, Square
from ntkbayes.linalg.blocks import (
    Block,
    CoupledBlock,
    FormedBlock,
    Number,
    SharedBlock,
    output_blocks,
)
from ntkbayes.linalg.cholesky import CholeskyFactor, cholesky
from ntkbayes.linalg.curvature import Curvature, StructuredCurvature
from ntkbayes.linalg.curved import CoupledInverse, CurvedInverse, SharedInverse
from ntkbayes.linalg.devices import num_shares
from ntkbayes.linalg.frugal import frugal_jit
from ntkbayes.linalg.interpolators import CoupledInterpolator, Interpolator, SharedInterpolator
from ntkbayes.linalg.iterative import IterativeInverse
from ntkbayes.linalg.norms import nan_is_an_answer
from ntkbayes.linalg.pairs import is_paired, shared_preconditioner
from ntkbayes.linalg.preconditioners import (
    CoupledPreconditioner,
    Preconditioner,
    SurrogatePreconditioner,
)


class Gram(Block):
    """A kernel between n inputs and themselves: positive semi-definite."""

    @property
    @abc.abstractmethod
    def variances(self) -> Float[Array, "n outputs"]:
        """The diagonal: (n, 1) if the outputs share it, else (n, C)."""

    @abc.abstractmethod
    def diagonal_blocks(self, num_outputs: int) -> Covariances:
        """The covariance of the outputs at each input, (n, C, C)."""

    @abc.abstractmethod
    def largest_eigenvalue(self) -> float:
        """The largest eigenvalue; for an operator, its surrogate's."""

    @abc.abstractmethod
    def require_formed(self, why: str) -> None:
        """Raises ConfigurationError if the Gram is known only by its products.

        Args:
            why: what needs the matrix, for the message.
        """

    @abc.abstractmethod
    def factor(self, what: str = "the Gram matrix", *, divisor: Number = 1.0) -> CholeskyFactor:
        """The Cholesky factor of the Gram/divisor, with jitter at round-off.

        Args:
            what: the matrix's name, for messages.

        Raises:
            NotPositiveDefiniteError: there is none.
            ConfigurationError: the Gram is known only by its products.
        """

    @abc.abstractmethod
    def curved(
        self, curvature: Curvature, *, ridge: Number = 1.0, dtype: DTypeLike | None = None
    ) -> CurvedInverse:
        """B = (P + W⁻¹)⁻¹ for P = Θ/ridge, with Θ this Gram; P of a coupled one is not formed.

        Args:
            dtype: of the factors, by default that of Θ.

        Raises:
            ConfigurationError: P is known only by its products, and W is not a `StructuredCurvature`.
        """

    @abc.abstractmethod
    def interpolator(self, *, is_flat: bool, num_outputs: int) -> Interpolator:
        """Q of training without ridge, α = Q (interpolant − f0).

        Args:
            is_flat: whether equal shifts of all logits of a point leave the likelihood unchanged.

        Raises:
            NotPositiveDefiniteError: the Gram is singular.
            ConfigurationError: the Gram is known only by its products.
        """

    @abc.abstractmethod
    def preconditioner(
        self,
        ridge: Float[Array, ""],
        curvature: Curvature,
        *,
        is_flat: bool,
        num_draws: int,
        dtype: DTypeLike,
    ) -> Preconditioner:
        """An approximation of (P⁻¹ + W)⁻¹ for P = Θ/ridge, with Θ this Gram.

        Args:
            num_draws: that share the preconditioner; many pay for a better one.
            dtype: of its factors.
        """


class FormedGram(FormedBlock, Gram):
    """A Gram known by its matrix."""

    @abc.abstractmethod
    def among(self, points: Int[np.ndarray, " k"]) -> "FormedGram":
        """The Gram of some of the inputs."""

    def largest_eigenvalue(self) -> float:
        return float(jnp.linalg.eigvalsh(self.matrix)[-1])

    def require_formed(self, why: str) -> None:
        pass

    def factor(self, what: str = "the Gram matrix", *, divisor: Number = 1.0) -> CholeskyFactor:
        return cholesky(self.matrix, divisor=divisor, what=what)

    def _given(self, ridge: Number, dtype: DTypeLike | None) -> tuple[Float[Array, ""], np.dtype]:
        """What `curved` was given, in one form, which is one program."""
        own = self.matrix.dtype
        return jnp.asarray(ridge, own), np.dtype(own if dtype is None else dtype)


class SharedGram(SharedBlock, FormedGram):
    """matrix ⊗ I_C: O(n²) memory for any number of outputs."""

    def among(self, points: Int[np.ndarray, " k"]) -> "SharedGram":
        return SharedGram(self.matrix[points][:, points])

    @property
    def variances(self) -> Float[Array, "n 1"]:
        return jnp.diagonal(self.matrix)[:, None]

    def diagonal_blocks(self, num_outputs: int) -> Covariances:
        return output_blocks(jnp.diagonal(self.matrix), num_outputs)

    def curved(
        self, curvature: Curvature, *, ridge: Number = 1.0, dtype: DTypeLike | None = None
    ) -> CurvedInverse:
        given = self._given(ridge, dtype)
        if isinstance(curvature, StructuredCurvature):
            return _shared_inverse(self.matrix, curvature, *given)
        return _coupled_inverse(self.every_output(curvature.shape[1]), curvature, *given)

    def interpolator(self, *, is_flat: bool, num_outputs: int) -> SharedInterpolator:
        return SharedInterpolator(self.factor(_NTK).lower, is_flat, num_outputs)

    def preconditioner(
        self,
        ridge: Float[Array, ""],
        curvature: Curvature,
        *,
        is_flat: bool,
        num_draws: int,
        dtype: DTypeLike,
    ) -> Preconditioner:
        num_points, num_outputs = curvature.shape
        has_pairs = is_paired(num_points, num_draws, num_outputs)
        return shared_preconditioner(self.matrix, ridge, curvature, is_flat, has_pairs, dtype)


class CoupledGram(CoupledBlock, FormedGram):
    """A Gram that couples the outputs, as its (nC, nC) matrix."""

    def among(self, points: Int[np.ndarray, " k"]) -> "CoupledGram":
        rows = (self.num_outputs * points[:, None] + np.arange(self.num_outputs)).ravel()
        return CoupledGram(self.matrix[rows][:, rows], self.num_outputs)

    @property
    def variances(self) -> Float[Array, "n classes"]:
        return jnp.diagonal(self.matrix).reshape(-1, self.num_outputs)

    def diagonal_blocks(self, num_outputs: int) -> Covariances:
        size = len(self.matrix) // num_outputs
        blocks = self.matrix.reshape(size, num_outputs, size, num_outputs)
        return jnp.einsum("icid->icd", blocks)

    def curved(
        self, curvature: Curvature, *, ridge: Number = 1.0, dtype: DTypeLike | None = None
    ) -> CurvedInverse:
        given = self._given(ridge, dtype)
        return _coupled_inverse(self.matrix, curvature, *given)

    def interpolator(self, *, is_flat: bool, num_outputs: int) -> CoupledInterpolator:
        return CoupledInterpolator.build(self.factor(_NTK), is_flat, num_outputs)

    def preconditioner(
        self,
        ridge: Float[Array, ""],
        curvature: Curvature,
        *,
        is_flat: bool,
        num_draws: int,
        dtype: DTypeLike,
    ) -> Preconditioner:
        return CoupledPreconditioner.build(self, ridge, curvature, dtype=dtype)


class OperatorBlock(Block):
    """A coupled block too large to be formed."""

    couples: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """C."""

    @abc.abstractmethod
    def gram(self) -> Gram:
        """The Gram of the inputs on the left, for a block whose inputs on the right are the same."""

    @abc.abstractmethod
    def products(self, v: Draws) -> Float[Array, "draws m classes"]:
        """block · v, for the logits of many functions."""

    def __matmul__(self, v: Float[Array, "*draws n classes"]) -> Float[Array, "*draws m classes"]:
        moved = self.products(v.reshape(-1, *v.shape[-2:]))
        return moved.reshape(*v.shape[:-2], *moved.shape[-2:])

    def every_output(self, num_outputs: int) -> Matrix:
        return self.dense()

    def formed(self) -> CoupledBlock:
        return CoupledBlock(self.dense(), self.num_outputs)


class OperatorGram(OperatorBlock, Gram):
    """A Gram known by its products, solved by conjugate gradients preconditioned with its surrogate."""

    @property
    @abc.abstractmethod
    def surrogate(self) -> Square:
        """The (n, n) matrix M with M ⊗ I_C nearest to the Gram."""

    def fast(self, dtype: DTypeLike) -> "OperatorGram":
        """The same with products of lower precision, for steps whose errors are corrected.

        Args:
            dtype: float32 where the user asks for it; the network itself may be in float32 too.
        """
        return self

    def largest_eigenvalue(self) -> float:
        return float(jnp.linalg.eigvalsh(self.surrogate)[-1])

    def require_formed(self, why: str) -> None:
        raise _too_large(why)

    def factor(self, what: str = "the Gram matrix", *, divisor: Number = 1.0) -> CholeskyFactor:
        rows = len(self.surrogate) * self.num_outputs
        raise ConfigurationError(
            f"{what} has {rows} rows, more than the kernel's max_rows, and cannot be factored; use "
            "fewer points, or EmpiricalKernel(..., max_rows=...)"
        )

    def curved(
        self, curvature: Curvature, *, ridge: Number = 1.0, dtype: DTypeLike | None = None
    ) -> CurvedInverse:
        if not isinstance(curvature, StructuredCurvature):
            raise _too_large("the likelihood couples its logits in its own way")
        prior = self / ridge
        fast = prior.fast(dtype or jnp.float64)
        return _iterative_inverse(prior, fast, prior.surrogate, curvature)

    def interpolator(self, *, is_flat: bool, num_outputs: int) -> Interpolator:
        rows = len(self.surrogate) * num_outputs
        raise ConfigurationError(
            f"training without ridge factors Θ, which has {rows} rows: use a ridge > 0, fewer points, "
            "or a kernel with a larger max_rows"
        )

    def preconditioner(
        self,
        ridge: Float[Array, ""],
        curvature: Curvature,
        *,
        is_flat: bool,
        num_draws: int,
        dtype: DTypeLike,
    ) -> Preconditioner:
        surrogate = self.surrogate_preconditioner(ridge, curvature, is_flat=is_flat, dtype=dtype)
        return SurrogatePreconditioner(self / ridge, surrogate)

    def surrogate_preconditioner(
        self, ridge: Float[Array, ""], curvature: Curvature, *, is_flat: bool, dtype: DTypeLike
    ) -> Preconditioner:
        """That of the surrogate alone."""
        has_pairs = num_shares() == 1
        return shared_preconditioner(self.surrogate, ridge, curvature, is_flat, has_pairs, dtype)


_NTK = "the NTK Gram matrix"


def _too_large(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{why}, so the kernel must be formed: use fewer points, or a kernel with a larger max_rows"
    )


@nan_is_an_answer()  # see `is_finite`
@frugal_jit
def _shared_inverse(
    ntk: Square, curvature: StructuredCurvature, ridge: Float[Array, ""], dtype: DTypeLike
) -> SharedInverse:
    return SharedInverse.build(ntk / ridge, curvature, dtype)


_coupled_inverse = nan_is_an_answer()(frugal_jit(CoupledInverse.build))
_iterative_inverse = nan_is_an_answer()(frugal_jit(IterativeInverse.build))


# --- from a kernel's values ----------------------------------------------------------------------


def block_of(values: Array | Block, num_rows: int, num_columns: int) -> Block:
    """A kernel's values between two sets of inputs as a block.

    Args:
        values: a block, or its matrix; shared if it has one entry per pair of inputs.
        num_rows, num_columns: numbers of inputs.
    """
    if isinstance(values, Block):
        return values
    matrix: Matrix = jnp.asarray(values)
    if matrix.shape == (num_rows, num_columns):
        return SharedBlock(matrix)
    num_outputs = len(matrix) // num_rows if num_rows else matrix.shape[1] // num_columns
    return CoupledBlock(matrix, num_outputs)


def gram_of(values: Array | Block, num_points: int) -> Gram:
    """A kernel's values between inputs and themselves as a Gram."""
    match block_of(values, num_points, num_points):
        case Gram() as gram:
            return gram
        case SharedBlock(matrix=matrix):
            return SharedGram(matrix)
        case CoupledBlock(matrix=matrix, num_outputs=num_outputs):
            return CoupledGram(matrix, num_outputs)
        case OperatorBlock() as block:
            return block.gram()
    raise TypeError(f"a kernel's values are arrays or blocks, not {type(values).__name__}")
