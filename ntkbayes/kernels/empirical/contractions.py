"""What each parameter adds to an empirical NTK, and at what cost.

Θ(x, x') is a sum over parameters of ⟨∂f_c/∂W, ∂f'_d/∂W⟩. For a layer (`structure`) with inputs a and
signals δ this is Σ_ts (a_t · a'_s)(δ_ct · δ'_ds), computed in one of two ways:

- `Grams`: the elementwise product of the Gram of the inputs and the Gram of the signals;
- `Gradients`: the gradients Σ_t a_t ⊗ δ_ct per point, then their inner products.

The first is cheaper with few positions and large weights, as in perceptrons, the second for
convolutions on large images. All other parameters use an explicit `Jacobian`.

Shapes: n points, C logits, G groups, T positions, K inputs, O outputs of a layer.
"""

import abc
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntkbayes.kernels.empirical.structure import Layer

# What the passes through the network yield for one parameter: a layer's operands and, last, the
# signals at its tap (C, ...); or the derivatives of the logits (C, ...) for a loose leaf.
Tapped = tuple[Array, ...]
# What a contraction computes from that, once per point.
Kept = tuple[Array, ...]

# Operations per byte from memory: about 5 to 12 on today's CPUs and GPUs. It matters only where the
# two ways are nearly equal.
_OPERATIONS_PER_BYTE = 8


@dataclass(frozen=True)
class Form:
    """Which entries of Θ to compute: einsum subscripts of points and logits, left and right."""

    name: str
    left: str
    right: str
    result: str

    def entries(self, num_classes: int) -> int:
        """Entries of the result per pair of points."""
        return num_classes ** (len(self.result) - len(self.points))

    def products(self, num_classes: int) -> int:
        """Pairs of logits multiplied per pair of points."""
        return num_classes ** len({self.left[1], self.right[1]})

    @property
    def points(self) -> str:
        return "i" if self.left[0] == self.right[0] else "ij"

    @property
    def spread(self) -> tuple[slice | None, ...]:
        """The index that makes values of pairs of points broadcast against entries."""
        return tuple(slice(None) if axis in self.points else None for axis in self.result)


# The order of entries of a matrix, so that no transpose follows a product.
FULL = Form("full", "ic", "jd", "icjd")
CLASS_DIAGONAL = Form("class_diagonal", "ic", "jc", "ijc")
TRACED = Form("traced", "ic", "jc", "ij")
DIAGONAL = Form("diagonal", "ic", "id", "icd")


@dataclass(frozen=True)
class Size:
    """The size of a task: points left and right, pairs of points, logits, bytes per number."""

    form: Form
    num_points: int
    num_pairs: int
    num_classes: int
    itemsize: int


class Contraction(abc.ABC):
    """One way to compute the share of one or two leaves in Θ. Sizes count floats, not bytes."""

    how: str

    @abc.abstractmethod
    def operations(self, size: Size) -> int:
        """Additions and multiplications, without those of the forward and backward passes."""

    @abc.abstractmethod
    def kept(self, num_classes: int) -> int:
        """Size of `Kept` per point."""

    @abc.abstractmethod
    def scratch(self, form: Form, num_classes: int) -> int:
        """Size of temporary arrays per pair of points."""

    @abc.abstractmethod
    def moved(self, size: Size) -> int:
        """Numbers written to memory and read again."""

    @abc.abstractmethod
    def tapped(self, num_classes: int) -> int:
        """Size of `Tapped` per point."""

    @abc.abstractmethod
    def keep(self, tapped: Tapped) -> Kept:
        """`Kept` from `Tapped`, for one point."""

    def waits(self, num_classes: int) -> bool:
        """Whether to hold `Tapped` until the contraction begins, as it takes no more than `Kept`."""
        return self.tapped(num_classes) <= self.kept(num_classes)

    @abc.abstractmethod
    def share(self, form: Form, left: Kept, right: Kept) -> Array:
        """What the leaves add to the form's entries between left and right points."""

    def cost(self, size: Size) -> int:
        """Operations, plus memory traffic in units of operations."""
        return self.operations(size) + _OPERATIONS_PER_BYTE * size.itemsize * self.moved(size)


class Explicit(Contraction):
    """Derivatives of every logit with respect to every parameter, and their inner products."""

    def scratch(self, form: Form, num_classes: int) -> int:
        return form.entries(num_classes)

    def moved(self, size: Size) -> int:
        entries = size.num_pairs * size.form.entries(size.num_classes)
        return 2 * size.num_points * self.kept(size.num_classes) + entries

    def share(self, form: Form, left: Kept, right: Kept) -> Array:
        return _inner_products(form, left[0], right[0])


@dataclass(frozen=True)
class Jacobian(Explicit):
    """Explicit derivatives of every logit, (n, C, size of the leaf)."""

    leaf: int
    leaf_size: int
    how = "explicit Jacobian"

    def operations(self, size: Size) -> int:
        return 2 * size.num_pairs * size.form.products(size.num_classes) * self.leaf_size

    def kept(self, num_classes: int) -> int:
        return num_classes * self.leaf_size

    def tapped(self, num_classes: int) -> int:
        return self.kept(num_classes)

    def keep(self, tapped: Tapped) -> Kept:
        """The derivatives of one point, (C, size of the leaf)."""
        (derivatives,) = tapped
        return (derivatives.reshape(derivatives.shape[0], -1),)


@dataclass(frozen=True)
class Gradients(Explicit):
    """Gradients of every logit with respect to a layer's weight, (n, C, G O K)."""

    layer: Layer
    how = "per-point gradients"

    @property
    def _leaf_size(self) -> int:
        return self.layer.groups * self.layer.inputs * self.layer.outputs

    def operations(self, size: Size) -> int:
        gradients = size.num_points * size.num_classes * self.layer.positions
        products = size.num_pairs * size.form.products(size.num_classes)
        return 2 * (gradients + products) * self._leaf_size

    def kept(self, num_classes: int) -> int:
        return num_classes * self._leaf_size

    def tapped(self, num_classes: int) -> int:
        return self.layer.tapped(num_classes)

    def keep(self, tapped: Tapped) -> Kept:
        """The gradients of one point, (C, G O K)."""
        *operands, deltas = tapped
        signals = self.layer.signals(deltas)
        classes, groups, positions, outputs = signals.shape
        # Per group as (C O, T) × (T, K), so that the result needs no rearrangement.
        rows = signals.transpose(1, 0, 3, 2).reshape(groups, classes * outputs, positions)
        columns = self.layer.activations((*operands,))
        gradients = jax.lax.dot_general(rows, columns, (((2,), (1,)), ((0,), (0,))))
        apart = gradients.reshape(groups, classes, -1).transpose(1, 0, 2)
        return (apart.reshape(classes, -1),)


@dataclass(frozen=True)
class Grams(Contraction):
    """The elementwise product of the Gram of a layer's inputs and the Gram of its signals."""

    layer: Layer
    how = "input Gram ∘ signal Gram"

    @property
    def _meetings(self) -> int:
        """Pairs of positions that meet."""
        return self.layer.groups * self.layer.positions**2

    def operations(self, size: Size) -> int:
        classes = size.num_classes
        dots = self.layer.inputs + size.form.products(classes) * self.layer.outputs
        return 2 * size.num_pairs * self._meetings * (dots + size.form.entries(classes))

    def kept(self, num_classes: int) -> int:
        layer = self.layer
        return layer.groups * layer.positions * (layer.inputs + num_classes * layer.outputs)

    def scratch(self, form: Form, num_classes: int) -> int:
        grams = self.layer.groups * self.layer.positions * (1 + form.entries(num_classes))
        return grams + form.entries(num_classes)

    def moved(self, size: Size) -> int:
        entries = 1 + size.form.entries(size.num_classes)
        return 2 * size.num_pairs * self._meetings * entries + size.num_points * self.kept(
            size.num_classes
        )

    def tapped(self, num_classes: int) -> int:
        return self.layer.tapped(num_classes)

    def keep(self, tapped: Tapped) -> Kept:
        """Inputs and signals of one point, (G, T, K) and (C, G, T, O)."""
        *operands, deltas = tapped
        return self.layer.activations((*operands,)), self.layer.signals(deltas)

    def share(self, form: Form, left: Kept, right: Kept) -> Array:
        a, delta = left
        b, epsilon = right
        i, j = form.left[0], form.right[0]
        spread = (..., *form.spread)
        if self.layer.positions == self.layer.groups == 1:
            inputs = jnp.einsum(f"{i}k,{j}k->{form.points}", a[:, 0, 0], b[:, 0, 0])
            signals = _inner_products(form, delta[:, :, 0, 0], epsilon[:, :, 0, 0])
            return inputs[spread] * signals

        def meet(total: Array, at: Kept) -> tuple[Array, None]:
            """One position on the left against all on the right: T times less scratch."""
            a, delta = at
            inputs = jnp.einsum(f"{i}gk,{j}gsk->gs{form.points}", a, b)
            signals = jnp.einsum(f"{form.left}go,{form.right}gso->gs{form.result}", delta, epsilon)
            return total + jnp.sum(inputs[spread] * signals, axis=(0, 1)), None

        shape = [
            dict(zip(form.left + form.right, (*delta.shape[:2], *epsilon.shape[:2]), strict=True))[
                axis
            ]
            for axis in form.result
        ]
        start = jnp.zeros(shape, jnp.result_type(delta, epsilon))
        positions = jnp.moveaxis(a, 2, 0), jnp.moveaxis(delta, 3, 0)
        return jax.lax.scan(meet, start, positions)[0]


def choices(layer: Layer) -> tuple[Grams | Gradients, ...]:
    """The ways to compute the share of a layer."""
    return Grams(layer), Gradients(layer)


def _inner_products(
    form: Form, left: Float[Array, "n1 classes p"], right: Float[Array, "n2 classes p"]
) -> Array:
    # In two forms XLA would copy both sides, or the right one, to bring classes into its order.
    if form is TRACED:
        return left.reshape(len(left), -1) @ right.reshape(len(right), -1).T
    if form is CLASS_DIAGONAL:
        each = jax.lax.map(lambda c: left[:, c] @ right[:, c].T, jnp.arange(left.shape[1]))
        return jnp.moveaxis(each, 0, -1)
    return jnp.einsum(f"{form.left}p,{form.right}p->{form.result}", left, right)
