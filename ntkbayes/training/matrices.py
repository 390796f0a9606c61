"""How many float64 matrices of the size of Θ(X, X) the solves hold at their peaks, by what they are for.

`Method.memory` adds them up. K and Θ themselves are not among them.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ntkbayes.memory import NUMBER
from ntkbayes.training import linearised
from ntkbayes.training.preconditioner import is_paired


def training_matrices(
    rows: int, num_outputs: int, factor_dtype: DTypeLike = jnp.float64
) -> dict[str, float]:
    """Matrices at the peak of `linearised.train`."""
    if rows <= linearised.EXACT_POINTS:
        return inverse_matrices(num_outputs)
    return {"two factors": np.dtype(factor_dtype).itemsize / NUMBER, "workspace": 1.5}


def inverse_matrices(num_outputs: int, factor_dtype: DTypeLike = jnp.float64) -> dict[str, float]:
    """Matrices of B = (P + W⁻¹)⁻¹: P itself, a half a class and one for their coupling, and what they
    are made of."""
    narrow = np.dtype(factor_dtype).itemsize / NUMBER
    return {"P": 1.0, "factors": narrow * (num_outputs + 1) / 2, "workspace": 3 + 2 * narrow}


def many_draws_matrices(
    rows: int, num_outputs: int, num_draws: int, factor_dtype: DTypeLike
) -> dict[str, float]:
    """Matrices at the peak of drawing many initial functions and training them."""
    narrow = np.dtype(factor_dtype).itemsize / NUMBER
    factors = narrow * (num_outputs if is_paired(rows, num_draws) else 1) / 2
    return {"factor of the draws": 1.0, "preconditioner": factors, "workspace": 3.0}
