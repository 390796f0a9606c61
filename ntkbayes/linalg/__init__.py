"""The only Cholesky factors, the only jitter, and the structured matrices of GP classification.

Shapes: n points, C outputs, S draws. P is the prior covariance of the (n, C) logits and W their
(nC, nC) likelihood curvature, block diagonal over points. Where P = P_s ⊗ I_C no matrix of size
nC × nC is ever formed: memory O(C n²), time O(C n³).
"""

from ntkbayes.linalg.arrays import Covariances, Draws, Logits, Matrix, PerDraw, Square
from ntkbayes.linalg.blocks import (
    Block,
    CoupledBlock,
    FormedBlock,
    SharedBlock,
    output_blocks,
)
from ntkbayes.linalg.cholesky import CholeskyFactor, Conditional, cholesky, whitened_cross
from ntkbayes.linalg.curvature import (
    BlockCurvature,
    Curvature,
    StructuredCurvature,
    symmetric_roots,
)
from ntkbayes.linalg.curved import CoupledInverse, CurvedInverse, SharedInverse
from ntkbayes.linalg.devices import (
    by_rows,
    everywhere,
    num_shares,
    over_devices,
    row_by_row,
    summed_over_rows,
)
from ntkbayes.linalg.frugal import frugal_jit
from ntkbayes.linalg.grams import (
    CoupledGram,
    FormedGram,
    Gram,
    OperatorBlock,
    OperatorGram,
    SharedGram,
    block_of,
    gram_of,
)
from ntkbayes.linalg.halves import Half, matrix, tabulated
from ntkbayes.linalg.interpolators import CoupledInterpolator, Interpolator, SharedInterpolator
from ntkbayes.linalg.iterative import CurvedSystem, IterativeInverse
from ntkbayes.linalg.noise import categorical, split_key, uniform, white_noise
from ntkbayes.linalg.norms import inner, largest, nan_is_an_answer
from ntkbayes.linalg.pairs import PAIRS, CurvedPairs, PairedPreconditioner, is_paired
from ntkbayes.linalg.precision import (
    Portable,
    require_float64,
    require_float64_values,
    require_precision,
)
from ntkbayes.linalg.preconditioners import (
    CoupledPreconditioner,
    Preconditioner,
    SharedPreconditioner,
    SurrogatePreconditioner,
)
from ntkbayes.linalg.sharded import ShardedTriangle, Triangle, require_shares, triangle
from ntkbayes.linalg.triangular import BlockedTriangle, factor_dtype

__all__ = [
    "PAIRS",
    "Block",
    "BlockCurvature",
    "BlockedTriangle",
    "CholeskyFactor",
    "Conditional",
    "CoupledBlock",
    "CoupledGram",
    "CoupledInterpolator",
    "CoupledInverse",
    "CoupledPreconditioner",
    "Covariances",
    "Curvature",
    "CurvedInverse",
    "CurvedPairs",
    "CurvedSystem",
    "Draws",
    "FormedBlock",
    "FormedGram",
    "Gram",
    "Half",
    "Interpolator",
    "IterativeInverse",
    "Logits",
    "Matrix",
    "OperatorBlock",
    "OperatorGram",
    "PairedPreconditioner",
    "PerDraw",
    "Portable",
    "Preconditioner",
    "ShardedTriangle",
    "SharedBlock",
    "SharedGram",
    "SharedInterpolator",
    "SharedInverse",
    "SharedPreconditioner",
    "Square",
    "StructuredCurvature",
    "SurrogatePreconditioner",
    "Triangle",
    "block_of",
    "by_rows",
    "categorical",
    "cholesky",
    "everywhere",
    "factor_dtype",
    "frugal_jit",
    "gram_of",
    "inner",
    "is_paired",
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
    "split_key",
    "summed_over_rows",
    "symmetric_roots",
    "tabulated",
    "triangle",
    "uniform",
    "white_noise",
    "whitened_cross",
]
