"""Peak memory of the solves, by purpose, in float64 matrices of the size of Θ(X, X).

`Method.memory` adds them up. K and Θ themselves are not included.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ntkbayes.kernels.jacobian import PASS_BYTES
from ntkbayes.linalg import PAIRS, is_paired, num_shares
from ntkbayes.memory import NUMBER
from ntkbayes.training import linearised, subspace
from ntkbayes.training.operations import Size


def training_matrices(size: Size, factor_dtype: DTypeLike = jnp.float64) -> dict[str, float]:
    """Matrices at the peak of `linearised.train`."""
    if size.couples or size.rows <= linearised.EXACT_ROWS:
        return inverse_matrices(size, factor_dtype if size.couples else jnp.float64)
    return {"two factors": np.dtype(factor_dtype).itemsize / NUMBER, "workspace": 1.5}


def inverse_matrices(
    size: Size, factor_dtype: DTypeLike = jnp.float64, *, kept: float = 1.0
) -> dict[str, float]:
    """Matrices of B = (P + W⁻¹)⁻¹: P itself, one half per class and one for their coupling, and the
    workspace of the build. With a share `kept` of the points per class, a half is kept² of one.

    Of outputs that Θ couples there is one factor, and no P.
    """
    narrow = np.dtype(factor_dtype).itemsize / NUMBER
    if size.couples:
        return {"factor": narrow / 2, "workspace": 0.75}
    factors = narrow * (size.num_outputs * kept**2 + 1) / 2
    workspace = max(1.5, kept * (3 + 2 * narrow))  # at least as much as training
    return {"P": 1.0, "factors": factors, "workspace": workspace}


def many_draws_matrices(size: Size, num_draws: int, factor_dtype: DTypeLike) -> dict[str, float]:
    """Matrices at the peak of drawing many initial functions and training them."""
    if size.couples:
        return inverse_matrices(size, factor_dtype)
    kept = 1.0 if num_shares() > 1 else 0.5  # spread factors are not stored as halves
    factor = kept * np.dtype(factor_dtype).itemsize / NUMBER
    capacitance = PAIRS**2 / 4 if is_paired(size.rows, num_draws, size.num_outputs) else 0.0
    workspace = 1.75 if size.num_outputs > 1 else 3.0
    return {
        "factor of the draws": kept,
        "preconditioner": factor + capacitance,
        "workspace": workspace,
    }


def by_products(
    num_points: int, num_outputs: int, num_trained: int, scratch: float
) -> dict[str, float]:
    """Bytes at the peak of training by products, with few columns of other inputs.

    Args:
        scratch: temporary bytes while the surrogate is evaluated; a pass of products takes them later.
    """
    functions = min(num_trained, subspace.BLOCK)
    logits = NUMBER * num_points * num_outputs
    return {
        "surrogate and its factors": 5.0 * NUMBER * num_points**2,
        "directions": 2.0 * logits * max(128, _DIRECTIONS * functions),
        "passes through the network": max(scratch, 2.0 * PASS_BYTES),
        "draws": 10.0 * logits * num_trained,
    }


_DIRECTIONS = 64  # per function, with room for more
