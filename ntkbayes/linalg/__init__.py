"""The only Cholesky factors, the only jitter, and the structured matrices of GP classification.

Shapes: n points, C outputs, S draws. P is the prior covariance of the (n, C) logits and W their
(nC, nC) likelihood curvature, block diagonal over points. Where P = P_s ⊗ I_C no matrix of size
nC × nC is ever formed: memory O(C n²), time O(C n³).
"""

from ntkbayes.linalg.blocks import (
    Block,
    Gram,
    Logits,
    Operator,
    apply,
    dense,
    every_output,
    output_blocks,
    variances,
)
from ntkbayes.linalg.cholesky import CholeskyFactor, Conditional, cholesky
from ntkbayes.linalg.curved import (
    BlockCurvature,
    CoupledInverse,
    Curvature,
    CurvedInverse,
    Interpolation,
    IterativeInverse,
    SharedInverse,
    StructuredCurvature,
    curved_inverse,
    interpolation,
    symmetric_roots,
)
from ntkbayes.linalg.devices import by_rows, everywhere, num_shares, over_devices, row_by_row
from ntkbayes.linalg.halves import Half, matrix, tabulated
from ntkbayes.linalg.norms import largest, nan_is_an_answer
from ntkbayes.linalg.precision import (
    Portable,
    require_float64,
    require_float64_values,
    require_precision,
)
from ntkbayes.linalg.sharded import ShardedTriangle, Triangle, require_shares, triangle
from ntkbayes.linalg.triangular import BlockedTriangle, factor_dtype

__all__ = [
    "Block",
    "BlockCurvature",
    "BlockedTriangle",
    "CholeskyFactor",
    "Conditional",
    "CoupledInverse",
    "Curvature",
    "CurvedInverse",
    "Gram",
    "Half",
    "Interpolation",
    "IterativeInverse",
    "Logits",
    "Operator",
    "Portable",
    "ShardedTriangle",
    "SharedInverse",
    "StructuredCurvature",
    "Triangle",
    "apply",
    "by_rows",
    "cholesky",
    "curved_inverse",
    "dense",
    "every_output",
    "everywhere",
    "factor_dtype",
    "interpolation",
    "largest",
    "matrix",
    "nan_is_an_answer",
    "num_shares",
    "output_blocks",
    "over_devices",
    "require_float64",
    "require_float64_values",
    "require_precision",
    "require_shares",
    "row_by_row",
    "symmetric_roots",
    "tabulated",
    "triangle",
    "variances",
]
