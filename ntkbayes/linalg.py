"""The only Cholesky factors, the only jitter, and the structured matrices of GP classification.

Shapes: n points, C outputs, S draws. P is an (n, n) Gram matrix shared by the outputs, so that the
prior covariance of the (n, C) logits is P ⊗ I_C; W is their (nC, nC) likelihood curvature, block
diagonal over points. No matrix of size nC × nC is ever formed: memory O(C n²), time O(C n³).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ntkbayes.errors import NotPositiveDefiniteError, PrecisionError

Gram = Float[Array, "n n"]
Logits = Float[Array, "n classes"]


def require_float64() -> None:
    """Raises PrecisionError unless JAX is in float64."""
    if not jax.config.read("jax_enable_x64"):
        raise PrecisionError(
            "ntkbayes solves in float64, which JAX turns off by default; call "
            'jax.config.update("jax_enable_x64", True) before anything else uses JAX'
        )


class CholeskyFactor(eqx.Module):
    """gram + jitter · I = lower lowerᵀ."""

    lower: Gram
    jitter: float = eqx.field(static=True)

    def solve(self, rhs: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return cho_solve((self.lower, True), rhs)

    def whiten(self, rhs: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """lower⁻¹ rhs."""
        return solve_triangular(self.lower, rhs, lower=True)


_raw_cholesky = jax.jit(jnp.linalg.cholesky)


def cholesky(gram: Gram, *, what: str = "the Gram matrix") -> CholeskyFactor:
    """The factor of a positive semi-definite matrix.

    Jitter starts at round-off, 10 n ε times the mean diagonal (about 1e-12), so that duplicated
    points work, and grows tenfold as long as the factorisation fails, to 1e-8 at most.

    Raises:
        NotPositiveDefiniteError: the matrix has a negative eigenvalue beyond that, or is not finite.
    """
    size = gram.shape[0]
    scale = float(jnp.mean(jnp.diagonal(gram))) if size else 1.0
    if not np.isfinite(scale) or scale < 0:
        raise NotPositiveDefiniteError(f"{what} has a mean diagonal of {scale}")
    scale = scale or 1.0
    relative = 10 * size * float(np.finfo(gram.dtype).eps)
    while True:
        jitter = relative * scale
        lower = _raw_cholesky(gram + jitter * jnp.eye(size, dtype=gram.dtype))
        if bool(jnp.all(jnp.isfinite(lower))):
            return CholeskyFactor(lower, jitter)
        relative *= 10
        if relative > 1e-8:
            break
    if not bool(jnp.all(jnp.isfinite(gram))):
        raise NotPositiveDefiniteError(f"{what} contains NaN or infinity")
    smallest = float(jnp.linalg.eigvalsh(gram)[0])
    raise NotPositiveDefiniteError(
        f"{what} is not positive definite: its smallest eigenvalue is {smallest:.3g}, its mean "
        f"diagonal {scale:.3g}. Check that the kernel is symmetric and positive definite"
    )


class Conditional(eqx.Module):
    """A centred GP path at new inputs, given its whitened values z at old ones: path = L z.

    At the new inputs it is N(projection z, root rootᵀ): exact conditioning (R&W 2.19).
    """

    projection: Float[Array, "m n"]
    root: Float[Array, "m m"]

    @classmethod
    def build(
        cls, factor: CholeskyFactor, cross: Float[Array, "n m"], gram: Float[Array, "m m"]
    ) -> "Conditional":
        """From the factor at the old inputs, the cross-covariance and the new inputs' Gram."""
        projection = factor.whiten(cross).T
        remainder = gram - projection @ projection.T
        remainder = _restore_positivity(remainder, jnp.diagonal(gram))
        return cls(projection, cholesky(remainder, what="the conditional covariance").lower)


def _restore_positivity(covariance: Gram, prior_variance: Float[Array, " n"]) -> Gram:
    """Add the round-off that a difference of two covariances can have lost."""
    size = covariance.shape[0]
    lost = 1e-11 * jnp.mean(prior_variance)
    return (covariance + covariance.T) / 2 + lost * jnp.eye(size, dtype=covariance.dtype)


class Curvature(eqx.Module):
    """W = −∂² log p / ∂f², block diagonal over points, as diag(D), or diag(D) − D Dᵀ if coupled.

    The coupled form is softmax's, with D the class probabilities (R&W 3.38).
    """

    diagonal: Logits
    coupled: bool = eqx.field(static=True)

    def matvec(self, v: Logits) -> Logits:
        """W v."""
        product = self.diagonal * v
        if self.coupled:
            product -= self.diagonal * jnp.sum(product, axis=1, keepdims=True)
        return product

    def root_matvec(self, v: Logits) -> Logits:
        """S v for a square root S Sᵀ = W."""
        root = jnp.sqrt(self.diagonal)
        if not self.coupled:
            return root * v
        return root * v - self.diagonal * jnp.sum(root * v, axis=1, keepdims=True)

    @property
    def matrix_diagonal(self) -> Logits:
        """The diagonal of W."""
        return self.diagonal * (1 - self.diagonal) if self.coupled else self.diagonal


class CurvedInverse(eqx.Module):
    """B = (P ⊗ I + W⁻¹)⁻¹, the operator behind every formula of Laplace and the first-order law.

    With E_c = D_c^½ (I + D_c^½ P D_c^½)⁻¹ D_c^½ = V_cᵀ V_c for class c and M = Σ_c E_c,
    B = E − E R M⁻¹ Rᵀ E where R stacks C identities (R&W 3.46–3.48); without the second term if the
    classes are not coupled. Finite where W is singular: (I + W P)⁻¹ = I − B P.
    """

    roots: Float[Array, "classes n n"]
    coupling: Float[Array, "n n"] | None
    log_determinant: Float[Array, ""]

    @classmethod
    def build(cls, gram: Gram, curvature: Curvature) -> "CurvedInverse":
        def root(diagonal: Float[Array, " n"]) -> tuple[Gram, Float[Array, ""]]:
            scale = jnp.sqrt(diagonal)
            inner = scale[:, None] * gram * scale[None, :]
            lower = jnp.linalg.cholesky(inner + jnp.eye(len(scale), dtype=gram.dtype))
            return (
                solve_triangular(lower, jnp.diag(scale), lower=True),
                jnp.sum(jnp.log(jnp.diagonal(lower))),
            )

        roots, log_roots = jax.lax.map(root, curvature.diagonal.T)
        log_determinant = 2 * jnp.sum(log_roots)
        if not curvature.coupled:
            return cls(roots, None, log_determinant)
        total = jnp.einsum("cki,ckj->ij", roots, roots)
        lower = jnp.linalg.cholesky(total)
        return cls(roots, lower, log_determinant + 2 * jnp.sum(jnp.log(jnp.diagonal(lower))))

    def matvec(self, v: Logits) -> Logits:
        """B v."""
        local = self._local(v.T)
        if self.coupling is None:
            return local.T
        shared = cho_solve((self.coupling, True), jnp.sum(local, axis=0))
        return (local - self._local(jnp.broadcast_to(shared, v.T.shape))).T

    def quadratic(self, k: Float[Array, "n m"]) -> Float[Array, "m classes classes"]:
        """(k_j ⊗ I)ᵀ B (k_j ⊗ I) for each column k_j (R&W algorithm 3.4)."""
        half = self.roots @ k[None]
        diagonal = jnp.sum(half**2, axis=1)
        blocks = jax.vmap(jnp.diag)(diagonal.T)
        coupling = self.coupling
        if coupling is None:
            return blocks
        local = jnp.einsum("cki,ckm->cim", self.roots, half)
        white = jax.vmap(lambda u: solve_triangular(coupling, u, lower=True))(local)
        return blocks - jnp.einsum("cim,dim->mcd", white, white)

    def columns(self, k: Float[Array, "n m"]) -> Float[Array, "m classes n classes"]:
        """B (k_j ⊗ I) for each column: [j, c, i, d] is entry ((i, d), c)."""
        size = self.roots.shape[0]
        local = jnp.einsum("cki,ckm->cim", self.roots, self.roots @ k[None])
        blocks = jnp.einsum("cim,cd->mcid", local, jnp.eye(size, dtype=k.dtype))
        coupling = self.coupling
        if coupling is None:
            return blocks
        shared = jax.vmap(lambda u: cho_solve((coupling, True), u))(local)
        spread = jnp.einsum("dki,dkj,cjm->mcid", self.roots, self.roots, shared)
        return blocks - spread

    def _local(self, v: Float[Array, "classes n"]) -> Float[Array, "classes n"]:
        """E v."""
        return jnp.einsum("cki,ck->ci", self.roots, jnp.einsum("ckj,cj->ck", self.roots, v))
