"""The likelihood's curvature W, and inverses of the prior covariance P curved by it."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from ntkbayes.errors import ConfigurationError
from ntkbayes.linalg.blocks import Block, Gram, Logits, Operator
from ntkbayes.linalg.cholesky import cholesky
from ntkbayes.linalg.devices import by_rows, everywhere, num_shares
from ntkbayes.linalg.halves import Half, lower_triangle, tabulated
from ntkbayes.linalg.norms import nan_is_an_answer
from ntkbayes.linalg.sharded import Triangle, triangle

Stack = Float[Array, "classes n m"]
Rows = Int[Array, " kept"]
Kept = Int[Array, "classes kept"]


class Curvature(eqx.Module):
    """W = −∂² log p / ∂f², block diagonal over the n points, each block positive semi-definite."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n, C)."""

    @abc.abstractmethod
    def matvec(self, v: Logits) -> Logits:
        """W v."""

    @abc.abstractmethod
    def root_matvec(self, v: Logits) -> Logits:
        """S v for a square root S Sᵀ = W."""

    @abc.abstractmethod
    def root_transpose_matvec(self, v: Logits) -> Logits:
        """Sᵀ v."""

    @abc.abstractmethod
    def inverse_quadratic(self, v: Logits) -> Float[Array, " n"]:
        """vᵢᵀ Wᵢ⁻¹ vᵢ at each point, for v in the range of W; infinite where W is 0 and v is not."""

    @property
    @abc.abstractmethod
    def matrix_diagonal(self) -> Logits:
        """The diagonal of W."""

    @property
    def blocks(self) -> Float[Array, "n classes classes"]:
        """W, point by point."""
        return self._columns(self.matvec)

    @property
    def root_blocks(self) -> Float[Array, "n classes classes"]:
        """S, point by point."""
        return self._columns(self.root_matvec)

    def _columns(self, product: Callable[[Logits], Logits]) -> Float[Array, "n classes classes"]:
        units = jnp.eye(self.shape[1], dtype=self.matrix_diagonal.dtype)
        return jax.vmap(lambda e: product(jnp.broadcast_to(e[None], self.shape)), out_axes=2)(units)


class StructuredCurvature(Curvature):
    """W = diag(D), or diag(D) − D Dᵀ / Σ D at each point if coupled.

    The coupled form is softmax's, with D the class probabilities, whose sum is 1 (R&W 3.38).

    Attributes:
        points: of each class, the only ones at which D can be other than zero, ascending, so that lower
            halves stay lower halves; None for all.
    """

    diagonal: Logits
    coupled: bool = eqx.field(static=True)
    points: Kept | None = None

    def pruned(self, num_kept: int) -> "StructuredCurvature":
        """W with D zero but at the points of each class where it is largest, and not below 1e-30,
        which float32 could lose.

        W less this is positive semi-definite: of softmax a point keeps the Schur complement of the
        classes that it loses, which is what W says of the others whatever the lost logits are.
        """
        _, points = jax.lax.top_k(self.diagonal.T, num_kept)
        points = jnp.sort(points, axis=1)
        is_kept = jax.vmap(lambda rows: jnp.zeros(len(self.diagonal), bool).at[rows].set(True))
        diagonal = jnp.where(is_kept(points).T & (self.diagonal > 1e-30), self.diagonal, 0.0)
        return StructuredCurvature(diagonal, self.coupled, points)

    @property
    def is_idle(self) -> Bool[Array, " n"]:
        """Whether D is zero at a point, which then says nothing."""
        return ~jnp.any(self.diagonal > 0, axis=1)

    @property
    def mass(self) -> Float[Array, " n"]:
        """Σ D at each point, and 1 where it is idle."""
        return jnp.where(self.is_idle, 1.0, jnp.sum(self.diagonal, axis=1))

    @property
    def shape(self) -> tuple[int, int]:
        num_points, num_outputs = self.diagonal.shape
        return num_points, num_outputs

    def matvec(self, v: Logits) -> Logits:
        product = self.diagonal * v
        if self.coupled:
            product -= self.diagonal * (
                jnp.sum(product, axis=1, keepdims=True) / self.mass[:, None]
            )
        return product

    def root_matvec(self, v: Logits) -> Logits:
        root = jnp.sqrt(self.diagonal)
        if not self.coupled:
            return root * v
        return root * v - self.diagonal * (
            jnp.sum(root * v, axis=1, keepdims=True) / self.mass[:, None]
        )

    def root_transpose_matvec(self, v: Logits) -> Logits:
        root = jnp.sqrt(self.diagonal)
        if not self.coupled:
            return root * v
        return root * (v - jnp.sum(self.diagonal * v, axis=1, keepdims=True) / self.mass[:, None])

    def inverse_quadratic(self, v: Logits) -> Float[Array, " n"]:
        """Σ v² / D: W (v / D) = v where the classes are coupled, too, as v sums to zero over them."""
        return jnp.sum(jnp.where(v == 0, 0.0, v**2 / self.diagonal), axis=1)

    @property
    def matrix_diagonal(self) -> Logits:
        if not self.coupled:
            return self.diagonal
        return self.diagonal * (1 - self.diagonal / self.mass[:, None])


class BlockCurvature(Curvature):
    """W by its blocks, with S their symmetric roots.

    Where the blocks are not diagonal, B takes a matrix of size nC × nC.
    """

    full: Float[Array, "n classes classes"]

    @property
    def shape(self) -> tuple[int, int]:
        num_points, num_outputs, _ = self.full.shape
        return num_points, num_outputs

    def matvec(self, v: Logits) -> Logits:
        return jnp.einsum("icd,id->ic", self.full, v)

    def root_matvec(self, v: Logits) -> Logits:
        return jnp.einsum("icd,id->ic", self.root_blocks, v)

    def root_transpose_matvec(self, v: Logits) -> Logits:
        return self.root_matvec(v)

    def inverse_quadratic(self, v: Logits) -> Float[Array, " n"]:
        values, vectors = jnp.linalg.eigh(self.full)
        along = jnp.einsum("icd,ic->id", vectors, v)
        return jnp.sum(jnp.where(along == 0, 0.0, along**2 / jnp.maximum(values, 0.0)), axis=1)

    @property
    def matrix_diagonal(self) -> Logits:
        return jnp.diagonal(self.full, axis1=1, axis2=2)

    @property
    def blocks(self) -> Float[Array, "n classes classes"]:
        return self.full

    @property
    def root_blocks(self) -> Float[Array, "n classes classes"]:
        return symmetric_roots(self.full)


def symmetric_roots(
    blocks: Float[Array, "n classes classes"],
) -> Float[Array, "n classes classes"]:
    """R = Rᵀ with R R = block, for blocks that may be singular. Smooth in the blocks, where eigenvectors
    alone turn about as eigenvalues meet."""
    values, vectors = jnp.linalg.eigh(blocks)
    roots = jnp.sqrt(jnp.maximum(values, 0.0))  # round-off can leave small negative ones
    return jnp.einsum("ick,ik,idk->icd", vectors, roots, vectors)


class CurvedInverse(eqx.Module):
    """B = (P + W⁻¹)⁻¹, the operator behind every formula of Laplace and the first-order law.

    Finite where W is singular: (I + W P)⁻¹ = I − B P.

    Attributes:
        log_determinant: log det(I + W P); NaN if it is not known.
    """

    log_determinant: eqx.AbstractVar[Float[Array, ""]]

    @property
    def is_finite(self) -> Bool[Array, ""]:
        """Whether the factors exist: round-off can leave an I + Sᵀ P S that is not positive definite."""
        return jnp.isfinite(self.log_determinant)

    @abc.abstractmethod
    def matvec(self, v: Logits) -> Logits:
        """B v."""

    @abc.abstractmethod
    def quadratic(self, k: Float[Array, "rows columns"]) -> Float[Array, "m classes classes"]:
        """k_jᵀ B k_j for the columns k_j of a block that belong to one input (R&W algorithm 3.4)."""


@nan_is_an_answer()  # see `CurvedInverse.is_finite`
@eqx.filter_jit
def curved_inverse(
    gram: Block, curvature: Curvature, *, dtype: DTypeLike | None = None
) -> CurvedInverse:
    """B, by the way that suits the kinds of P and W.

    Args:
        dtype: of the factors where the outputs share P; by default that of P.

    Raises:
        ConfigurationError: P is an operator, and W has blocks of no known structure.
    """
    if isinstance(curvature, StructuredCurvature):
        if isinstance(gram, Operator):
            return IterativeInverse.build(gram, curvature)
        if gram.shape[0] == curvature.shape[0]:
            return SharedInverse.build(gram, curvature, dtype)
        return CoupledInverse.build(gram, curvature)
    if isinstance(gram, Operator):
        raise ConfigurationError(
            "a likelihood that couples its logits in a way of its own needs a kernel that can be "
            "formed: use fewer points, or a kernel with a larger max_rows"
        )
    num_points, num_outputs = curvature.shape
    if gram.shape[0] == num_points:
        gram = jnp.kron(gram, jnp.eye(num_outputs, dtype=gram.dtype))
    return CoupledInverse.build(gram, curvature)


class SharedInverse(CurvedInverse):
    """B = E − E R (Rᵀ E R)⁻¹ Rᵀ E for P = P_s ⊗ I_C, with R = 1 ⊗ I_n and, class by class,

        E_c = √D_c A_c⁻¹ √D_c,   A_c = I + √D_c P_s √D_c = L_c L_cᵀ

    (R&W 3.46–3.48); without the second term if the classes are not coupled.

    A_c takes n³/3 operations a class, and Rᵀ E R = Σ E_c another 2n³/3 where it is needed. What is kept
    are C + 1 lower halves of n × n, and n × n besides while they are made. Where D_c is zero A_c is the
    identity, and is left out: with k points a class, k³ operations and k × k for each.
    """

    log_determinant: Float[Array, ""]
    scales: Float[Array, "classes kept"]
    points: Kept | None
    factors: Triangle
    coupling: Triangle | None

    @classmethod
    def build(
        cls, gram: Gram, curvature: StructuredCurvature, dtype: DTypeLike | None = None
    ) -> "SharedInverse":
        scales, points = jnp.sqrt(curvature.diagonal.T), curvature.points
        if points is not None:
            scales = jnp.take_along_axis(scales, points, axis=1)

        def factor(scale: Float[Array, " kept"], rows: Rows | None) -> Triangle:
            return triangle(_within(gram, rows), scale=scale, shift=1.0, dtype=dtype)

        if not curvature.coupled:
            factors = jax.lax.map(lambda part: factor(*part), (scales, points))
            return cls(2 * factors.log_determinant, scales, points, factors, None)

        def local(scale: Float[Array, " kept"], rows: Rows | None) -> tuple[Gram | Half, Triangle]:
            found = factor(scale, rows)
            return _among(found.scaled_inverse(scale), rows, len(gram)), found

        def add(total: Gram | Half, part: tuple) -> tuple[Gram | Half, Triangle]:
            inverse, found = local(*part)
            return jax.tree.map(jnp.add, total, inverse), found

        like, _ = jax.eval_shape(local, *jax.tree.map(lambda part: part[0], (scales, points)))
        zero = jax.tree.map(lambda block: by_rows(jnp.zeros(block.shape, block.dtype)), like)
        total, factors = jax.lax.scan(add, zero, (scales, points))
        coupling = triangle(total, shift=curvature.is_idle.astype(gram.dtype))
        log_determinant = factors.log_determinant + coupling.log_determinant
        log_determinant = 2 * log_determinant - jnp.sum(jnp.log(curvature.mass))
        return cls(log_determinant, scales, points, factors, coupling)

    def matvec(self, v: Logits) -> Logits:
        return everywhere(self._apply(v.T[:, :, None])[:, :, 0].T)

    def quadratic(self, k: Float[Array, "n m"]) -> Float[Array, "m classes classes"]:
        half = self._half(jnp.broadcast_to(k[None], (len(self.scales), *k.shape)))
        blocks = jax.vmap(jnp.diag)(jnp.sum(half**2, axis=1).T)
        coupling = self.coupling
        if coupling is None:
            return everywhere(blocks)
        white = jax.lax.map(coupling.solve, self._rest(half, len(k)))
        return everywhere(blocks - jnp.einsum("cim,dim->mcd", white, white))

    def columns(self, k: Float[Array, "n m"]) -> Float[Array, "m classes n classes"]:
        """B (k_j ⊗ I) for each column: [j, c, i, d] is entry ((i, d), c)."""
        size = len(self.scales)
        unit = jnp.eye(size, dtype=k.dtype)
        found = self._apply(jnp.einsum("cd,im->dimc", unit, k).reshape(size, len(k), -1))
        return found.reshape(size, len(k), -1, size).transpose(2, 3, 1, 0)

    def _apply(self, v: Stack) -> Stack:
        """B v, for vectors that are columns, class by class."""
        size = v.shape[1]
        local = self._rest(self._half(v), size)
        coupling = self.coupling
        if coupling is None:
            return local
        shared = coupling.solve_transposed(coupling.solve(jnp.sum(local, axis=0)))
        return local - self._rest(self._half(jnp.broadcast_to(shared[None], v.shape)), size)

    def _half(self, v: Stack) -> Float[Array, "classes kept m"]:
        """L_c⁻¹ √D_c v."""

        def one(part: tuple) -> Float[Array, "kept m"]:
            factor, scale, rows, v = part
            return factor.solve(scale[:, None] * (v if rows is None else v[rows]))

        return jax.lax.map(one, (self.factors, self.scales, self.points, v))

    def _rest(self, half: Float[Array, "classes kept m"], size: int) -> Stack:
        """√D_c L_c⁻ᵀ of it, and so E_c v."""

        def one(part: tuple) -> Float[Array, "n m"]:
            factor, scale, rows, half = part
            found = scale[:, None] * factor.solve_transposed(half)
            return found if rows is None else jnp.zeros((size, found.shape[1])).at[rows].set(found)

        return jax.lax.map(one, (self.factors, self.scales, self.points, half))


def _within(gram: Gram, rows: Rows | None) -> Gram | Half:
    """The matrix of some of the points."""
    if rows is None:
        return gram
    return tabulated(len(rows), lambda i, j: gram[rows[i]][:, rows[j]])


def _among(inverse: Gram | Half, rows: Rows | None, size: int) -> Gram | Half:
    """The lower half of a matrix of some of the points among all, with zeros at the others."""
    if rows is None:
        return inverse
    assert num_shares() == 1  # matrices that are spread are not pruned
    lower = lower_triangle(inverse)
    is_kept = jnp.zeros(size, bool).at[rows].set(True)
    place = jnp.zeros(size, int).at[rows].set(jnp.arange(len(rows)))

    def entries(i: slice, j: slice) -> Float[Array, "i j"]:
        block = lower[place[i]][:, place[j]]
        return jnp.where(is_kept[i, None] & is_kept[None, j], block, 0.0)

    return tabulated(size, entries)


class CoupledInverse(CurvedInverse):
    """B = Vᵀ V for a dense P of nC × nC that couples the outputs, with V = L⁻¹ Sᵀ, S Sᵀ = W and
    L Lᵀ = I + Sᵀ P S. O((nC)³) operations."""

    log_determinant: Float[Array, ""]
    root: Float[Array, "rows rows"]
    num_outputs: int = eqx.field(static=True)

    @classmethod
    def build(cls, gram: Gram, curvature: Curvature) -> "CoupledInverse":
        blocks = curvature.root_blocks
        n, size, _ = blocks.shape
        inner = gram.reshape(n, size, n, size)
        inner = jnp.einsum("icp,icjd,jdq->ipjq", blocks, inner, blocks).reshape(gram.shape)
        lower = jnp.linalg.cholesky(inner + jnp.eye(n * size, dtype=gram.dtype))
        transposed = jnp.einsum("icp,ij->ipjc", blocks, jnp.eye(n, dtype=gram.dtype))
        root = solve_triangular(lower, transposed.reshape(gram.shape), lower=True)
        return cls(2 * jnp.sum(jnp.log(jnp.diagonal(lower))), root, size)

    def matvec(self, v: Logits) -> Logits:
        return (self.root.T @ (self.root @ v.reshape(-1))).reshape(v.shape)

    def quadratic(self, k: Float[Array, "rows columns"]) -> Float[Array, "m classes classes"]:
        if k.shape[0] != self.root.shape[0]:  # shared by the outputs, where W alone couples them
            k = jnp.kron(k, jnp.eye(self.num_outputs, dtype=k.dtype))
        half = (self.root @ k).reshape(self.root.shape[0], -1, self.num_outputs)
        return jnp.einsum("nmc,nmd->mcd", half, half)


class IterativeInverse(CurvedInverse):
    """B for a P known by its products: B = S (I + Sᵀ P S)⁻¹ Sᵀ by conjugate gradients.

    The preconditioner is the same inverse for the surrogate P_s ⊗ I of P, which a wide network's
    kernel approaches: (I + Sᵀ P_s S)⁻¹ = I − Sᵀ (P_s − P_s B_s P_s) S. NaN where the iteration does not
    converge.
    """

    log_determinant: Float[Array, ""]
    gram: Operator
    surrogate: Gram
    surrogate_inverse: SharedInverse
    curvature: StructuredCurvature

    @classmethod
    def build(cls, gram: Operator, curvature: StructuredCurvature) -> "IterativeInverse":
        surrogate = gram.surrogate
        inverse = SharedInverse.build(surrogate, curvature)
        unknown = jnp.full((), jnp.nan, dtype=surrogate.dtype)
        return cls(unknown, gram, surrogate, inverse, curvature)

    @property
    def is_finite(self) -> Bool[Array, ""]:
        return self.surrogate_inverse.is_finite

    def matvec(self, v: Logits) -> Logits:
        s, s_transposed = self.curvature.root_matvec, self.curvature.root_transpose_matvec

        def system(u: Logits) -> Logits:
            return u + s_transposed(self.gram.matvec(s(u)))

        def precondition(u: Logits) -> Logits:
            moved = self.surrogate @ s(u)
            moved = moved - self.surrogate @ self.surrogate_inverse.matvec(moved)
            return u - s_transposed(moved)

        right = s_transposed(v)
        solution, _ = jax.scipy.sparse.linalg.cg(
            system, right, tol=1e-10, maxiter=1000, M=precondition
        )
        left = jnp.linalg.norm(right - system(solution))
        is_solved = left <= 1e-6 * jnp.linalg.norm(right)
        return jnp.where(is_solved, s(solution), jnp.nan)

    def quadratic(self, k: Float[Array, "rows columns"]) -> Float[Array, "m classes classes"]:
        n, size = self.curvature.shape
        columns = k.reshape(n, size, -1, size)
        solved = jax.vmap(jax.vmap(self.matvec, 2, 2), 3, 3)(columns)
        return jnp.einsum("ncjp,ncjq->jpq", columns, solved)


# --- training without ridge -----------------------------------------------------------------------


class Interpolation(eqx.Module):
    """Q with α = Q (interpolant − f0): what B / ridge becomes as the ridge goes to 0 (THEORY 3).

    Q = Θ⁻¹ − Θ⁻¹ F (Fᵀ Θ⁻¹ F)⁻¹ Fᵀ Θ⁻¹, with F the directions in which the likelihood is flat, one
    a point: equal logits for softmax, none otherwise. For Θ = Θ_s ⊗ I_C it is Θ_s⁻¹ ⊗ (I − 1 1ᵀ/C).
    """

    lower: Gram
    flat: Float[Array, "n n"] | None
    is_flat: bool = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def matvec(self, v: Logits) -> Logits:
        """Q v."""
        if self.lower.shape[0] == v.shape[0]:
            return cho_solve((self.lower, True), v @ self._projection)
        solved = cho_solve((self.lower, True), v.reshape(-1)).reshape(v.shape)
        if self.flat is None:
            return solved
        shift = cho_solve((self.flat, True), jnp.sum(solved, axis=1))
        spread = jnp.broadcast_to(shift[:, None], v.shape).reshape(-1)
        return solved - cho_solve((self.lower, True), spread).reshape(v.shape)

    def columns(self, k: Float[Array, "n m"]) -> Float[Array, "m classes n classes"]:
        """Q (k_j ⊗ I) for each column of a block shared by the outputs."""
        return jnp.einsum("im,cd->mcid", cho_solve((self.lower, True), k), self._projection)

    @property
    def _projection(self) -> Float[Array, "classes classes"]:
        size = self.num_outputs
        return jnp.eye(size) - self.is_flat / size * jnp.ones((size, size))


def interpolation(ntk: Gram, *, is_flat: bool, num_outputs: int, num_points: int) -> Interpolation:
    """Q for the NTK of the training points, shared by the outputs or coupling them.

    Raises:
        NotPositiveDefiniteError: Θ is singular.
    """
    lower = cholesky(ntk, what="the NTK Gram matrix").lower
    flat = None
    if is_flat and ntk.shape[0] != num_points:
        ones = jnp.kron(jnp.eye(num_points, dtype=ntk.dtype), jnp.ones((num_outputs, 1)))
        half = solve_triangular(lower, ones, lower=True)
        flat = cholesky(half.T @ half, what="the NTK of the class means").lower
    return Interpolation(lower, flat, is_flat, num_outputs)
