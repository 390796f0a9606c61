"""Operations of the solves, by purpose, in those of a large matrix product.

`Method.work` adds them up; see `work.Work` for how far they can be trusted. Counts are those of the
algorithms; numbers of steps are what real data took.
"""

from typing import NamedTuple

from ntkbayes.training import linearised

_READ = 16.0  # of an entry of a matrix that a product with few columns reads from memory
_NUMBER = 4000.0  # of a logit of a draw: normal deviates, exponentials, scores
_EXACT_STEPS = 10  # of Newton's method
_STEPS = 100  # of conjugate gradients from scratch, with two preconditioners
_COUPLED_STEPS = 40  # the same, of outputs that Θ couples
_PRODUCTS = 60  # that training takes where Θ is known by them
_SOLVE = 25  # products for a column of B
_DRAW_STEPS = 22  # of a draw, from the centre
PREDICTED_DRAWS = 1000  # of a Gaussian law


class Size(NamedTuple):
    """Of a problem and of what is to be predicted.

    Attributes:
        rows: of Θ(X, X).
        num_outputs: C, or 1 where Θ couples the outputs.
        num_new: rows of Θ at the new points.
        couples: whether Θ couples the outputs.
        entry: operations of an entry of the kernels.
        by_products: of a product of Θ(X, X) with one function where Θ is not formed; else 0.
    """

    rows: int
    num_outputs: int
    num_new: int
    couples: bool
    entry: float = 0.0
    by_products: float = 0.0

    def product(self, columns: int) -> float:
        """Of Θ(X, X) times a matrix of as many columns per output."""
        if self.by_products:
            return columns * self.by_products
        return self.rows**2 * max(2.0 * columns * self.num_outputs, _READ)


def kernels(size: Size) -> float:
    """K and Θ, and their cross terms with the new points."""
    return size.entry * size.rows * (size.rows / 2 + size.num_new)


def inverse(size: Size) -> float:
    """B = (P + W⁻¹)⁻¹: n³/3 of each factor, and 2n³/3 of each inverse among coupled classes; twice
    that, as they run at half the speed of products. Of a coupled Θ, one factor; of one known by
    products, those of its surrogate, which are as nothing beside its products."""
    if size.by_products:
        return 0.0
    if size.couples:
        return 2 * size.rows**3 / 3
    return 2 * size.rows**3 * (size.num_outputs + 1 / 3)


def training(size: Size) -> float:
    """`linearised.train`, of one predictor."""
    if size.by_products:
        return _PRODUCTS * size.product(1)
    if size.rows <= linearised.EXACT_ROWS:
        return _EXACT_STEPS * inverse(size)
    if size.couples:  # two factors in float32
        return inverse(size) + _COUPLED_STEPS * 2 * size.product(1)
    return 2 * 2 * size.rows**3 / 3 + _STEPS * 2 * size.product(1)


def many_trainings(size: Size, num_draws: int) -> dict[str, float]:
    """Draws of initial functions, each trained: two products per step and the likelihood's own work."""
    points = size.rows * size.num_outputs * num_draws
    if size.by_products:
        return {"training": training(size), "draws": _PRODUCTS * size.product(num_draws)}
    steps = _DRAW_STEPS * (2 * size.product(num_draws) + _NUMBER * points / 10)
    return {"training": training(size), "factors": 2 * inverse(size), "draws": steps}


def drawn_predictions(size: Size, num_draws: int) -> float:
    """Logits of as many draws at the training points and at the new ones."""
    rows = size.rows + size.num_new
    if size.by_products:
        return size.product(num_draws) * rows / size.rows
    conditioned = 2 * (size.num_new**3 / 3 + size.rows * size.num_new * rows)
    each = 4 * size.rows * rows * size.num_outputs + _NUMBER * rows * size.num_outputs
    return conditioned + num_draws * each


def chain(size: Size, num_chains: int, num_draws: int, num_steps: float, products: float) -> float:
    """Chains side by side: what a step takes besides its products is as much again.

    Args:
        num_steps: per draw.
        products: with matrices of Θ's size, of one chain's logits, per step.
    """
    points = size.rows * size.num_outputs * num_chains
    step = 2 * products * size.product(num_chains) + _NUMBER * points / 10
    return num_draws * num_steps * step


def gaussian_predictions(size: Size, solves: float) -> dict[str, float]:
    """Draws of a Gaussian law, and its variances.

    Args:
        solves: triangular solves with a factor of Θ's size per point and output.
    """
    rows, outputs = size.rows + size.num_new, size.num_outputs
    draws = drawn_predictions(size, PREDICTED_DRAWS)
    if size.by_products:
        responses = _SOLVE * size.product(PREDICTED_DRAWS)
        return {"predictions": draws + responses, "variances": _SOLVE * size.product(rows)}
    responses = 2 * PREDICTED_DRAWS * (4 * outputs + 2) * size.rows**2
    return {"predictions": draws + responses, "variances": rows * outputs * solves * size.rows**2}
