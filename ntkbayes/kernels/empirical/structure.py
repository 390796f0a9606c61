"""Detection of linear layers in the traced computation of a network at one point.

A *layer* is a parameter W that enters once and linearly: y = a W, where a does not depend on W. A matrix
product or convolution has this form if its W is one leaf of the parameters up to rearranged entries and
a scalar factor. Its Jacobian needs no gradient with respect to W: ∂f_c/∂W = Σ_t a_t ⊗ δ_ct, with a_t the
layer's inputs and δ_ct = ∂f_c/∂y_t its back-propagated signals, one per position t of the T that share W
(pixels, tokens; T = 1 in a perceptron). A bias added to y is one more row of W with constant input.

All other leaves are *loose*: weights used twice or inside loops, scales of normalisations, embeddings,
and everything inside functions with a custom derivative rule.

Shapes: G groups (of a grouped convolution, or batch dimensions of W; mostly 1), T positions, K inputs
and O outputs of a layer, C logits.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array, Float

from ntkbayes.kernels.empirical.arrangement import arrange_inputs, arrange_signals
from ntkbayes.networks.programs import Atom, aval, bind, inlined, write

Scales = tuple[tuple[str, Atom], ...]  # multiplications and divisions by scalars


@dataclass(frozen=True)
class Layer:
    """One weight, with its bias if it has one.

    Attributes:
        weight, bias: leaves of the parameters.
        kind: "dense" or "conv".
        equation: the product of the weight and its inputs.
        side: which operand of the equation the weight is.
        tap: the layer's output, bias included, where the signals δ are taken.
        path: equations that rearrange the result of `equation` before the tap.
        scales, bias_scales: scalars that multiply weight and bias on their way to the tap.
        groups, positions, inputs, outputs: G, T, K (with the bias' row) and O.
    """

    weight: int
    bias: int | None
    kind: str
    equation: JaxprEqn
    side: int
    tap: Var
    path: tuple[JaxprEqn, ...]
    scales: Scales
    bias_scales: Scales
    groups: int
    positions: int
    inputs: int
    outputs: int

    @property
    def leaves(self) -> tuple[int, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def operands(self, read: Callable[[Atom], Any]) -> tuple[Array, ...]:
        """What multiplies the weight, in the program's own layout, and the bias; both scaled."""
        inputs = read(self.equation.invars[1 - self.side])
        if self.bias is None:
            return (_scale(inputs, self.scales, read),)
        one = _scale(jnp.ones((1, 1, 1), inputs.dtype), self.bias_scales, read)
        return _scale(inputs, self.scales, read), one

    def activations(self, operands: tuple[Array, ...]) -> Float[Array, "groups positions inputs"]:
        """The inputs a of the weight, and a constant one for the bias."""
        a = arrange_inputs(self.equation, operands[0], self.side)
        if self.bias is None:
            return a
        return jnp.concatenate([a, jnp.broadcast_to(operands[1], (*a.shape[:2], 1))], axis=2)

    def signals(
        self, deltas: Float[Array, "classes ..."]
    ) -> Float[Array, "classes groups positions outputs"]:
        """δ at the tap, with separate axes for positions and outputs."""
        (result,) = self.equation.outvars
        like = jax.ShapeDtypeStruct(aval(result).shape, deltas.dtype)
        back = jax.linear_transpose(lambda y: _follow(self.path, y), like)
        arrange = arrange_signals(self.equation, self.side)
        return jax.vmap(lambda delta: arrange(*back(delta)))(deltas)

    def tapped(self, num_classes: int) -> int:
        """Size of the operands and signals of one point."""
        operand = self.equation.invars[1 - self.side]
        constant = 0 if self.bias is None else 1
        return aval(operand).size + constant + num_classes * aval(self.tap).size


@dataclass(frozen=True)
class Structure:
    """A network at one point, as a list of equations, and the layers among them.

    Attributes:
        program: (*leaves, x) ↦ logits (C,), without nested calls.
        layers: the linear layers.
        loose: leaves outside of layers that influence the logits.
        is_readout: whether the logits are the outputs of one layer at one position, rearranged, times a
            scalar s and plus what has no parameters. Then Θ(x, x') = s s' ⟨a, a'⟩ I.
    """

    program: ClosedJaxpr
    layers: tuple[Layer, ...]
    loose: tuple[int, ...]
    is_readout: bool

    def tapped(
        self, leaves: Sequence[Array], x: Array, deltas: Sequence[Array]
    ) -> tuple[Float[Array, " classes"], list[tuple[Array, ...]]]:
        """The logits with `deltas` added at the taps, and the operands of each layer."""
        jaxpr = self.program.jaxpr
        values: dict[Var, Any] = dict(zip(jaxpr.constvars, self.program.consts, strict=True))
        values |= dict(zip(jaxpr.invars, [*leaves, x], strict=True))

        def read(atom: Atom) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            write(values, equation, bind(equation, [read(atom) for atom in equation.invars]))
            for layer, delta in zip(self.layers, deltas, strict=True):
                if layer.tap in equation.outvars:
                    values[layer.tap] += delta
        return read(jaxpr.outvars[0]), [layer.operands(read) for layer in self.layers]


def find_structure(
    function: Callable[[list[Array], Array], Float[Array, " classes"]],
    leaves: Sequence[jax.ShapeDtypeStruct],
    x: jax.ShapeDtypeStruct,
) -> Structure:
    """The layers of a function of parameters and one point."""
    program = inlined(jax.make_jaxpr(function)(list(leaves), x))
    graph = _Graph.build(program.jaxpr, len(leaves))
    layers: list[Layer] = []
    for equation in program.jaxpr.eqns:
        for side in (0, 1):
            layer = _layer_at(graph, equation, side)
            taken = {leaf for other in layers for leaf in other.leaves}
            if layer is not None and not taken.intersection(layer.leaves):
                layers.append(layer)
    in_layers = {leaf for layer in layers for leaf in layer.leaves}
    influence = graph.influence_of(program.jaxpr.outvars[0])
    loose = [i for i in range(len(leaves)) if influence >> i & 1 and i not in in_layers]
    is_readout = not loose and len(layers) == 1 and _reads_out(graph, layers[0], program.jaxpr)
    return Structure(program, tuple(layers), tuple(loose), is_readout)


@dataclass(frozen=True)
class _Graph:
    """Which equations make and use the values of a program, and which leaves influence them."""

    leaves: dict[Var, int]
    makers: dict[Var, JaxprEqn]
    uses: Counter[Var]
    users: dict[Var, JaxprEqn]
    influences: dict[Var, int]  # bit i: depends on leaf i

    @classmethod
    def build(cls, jaxpr: Jaxpr, num_leaves: int) -> "_Graph":
        leaves = {var: i for i, var in enumerate(jaxpr.invars[:num_leaves])}
        graph = cls(leaves, {}, Counter(), {}, {var: 1 << i for var, i in leaves.items()})
        for equation in jaxpr.eqns:
            influence = 0
            for atom in equation.invars:
                influence |= graph.influence_of(atom)
                if isinstance(atom, Var):
                    graph.uses[atom] += 1
                    graph.users[atom] = equation
            for var in equation.outvars:
                graph.makers[var] = equation
                graph.influences[var] = influence
        graph.uses.update(atom for atom in jaxpr.outvars if isinstance(atom, Var))
        return graph

    def influence_of(self, atom: Atom) -> int:
        return self.influences.get(atom, 0) if isinstance(atom, Var) else 0

    def split_scale(self, equation: JaxprEqn) -> tuple[Atom, Scales] | None:
        """(v, s) if the equation multiplies or divides v by a scalar s without parameters."""
        name = equation.primitive.name
        if name not in ("mul", "div"):
            return None
        left, right = equation.invars
        for rest, scale in ((left, right), (right, left))[: 1 if name == "div" else 2]:
            scale = self._unspread(scale)
            if aval(scale).size == 1 and not self.influence_of(scale) and self.influence_of(rest):
                return rest, ((name, scale),)
        return None

    def _unspread(self, atom: Atom) -> Atom:
        """The scalar that an array broadcasts, if it does; else the array."""
        maker = self.makers.get(atom) if isinstance(atom, Var) else None
        if maker is not None and maker.primitive.name == "broadcast_in_dim":
            source = maker.invars[0]
            return source if aval(source).size == 1 else atom
        return atom

    def origin(self, atom: Atom) -> tuple[int, Scales, list[JaxprEqn]] | None:
        """The leaf that `atom` broadcasts or rearranges, its scales, and the equations between.

        None if it is none, or if the leaf or a value on the way has another use.
        """
        scales: Scales = ()
        path: list[JaxprEqn] = []
        while isinstance(atom, Var) and self.uses[atom] == 1:
            if atom in self.leaves:
                return self.leaves[atom], scales, path[::-1]
            maker = self.makers.get(atom)
            if maker is None:
                return None
            split = self.split_scale(maker)
            if split is not None:
                atom, scales = split[0], scales + split[1]
            elif _rearranges(maker):
                atom = maker.invars[0]
                path.append(maker)
            else:
                return None
        return None


def _rearranges(equation: JaxprEqn) -> bool:
    """Whether every entry of the result is an entry of the argument."""
    if equation.primitive.name == "convert_element_type":
        kinds = aval(equation.invars[0]).dtype, aval(equation.outvars[0]).dtype
        return all(jnp.issubdtype(kind, jnp.floating) for kind in kinds)
    return equation.primitive.name in ("reshape", "transpose", "squeeze", "broadcast_in_dim")


def _scale(value: Array, scales: Scales, read: Callable[[Atom], Any]) -> Array:
    for name, atom in scales:
        number = jnp.reshape(read(atom), (1,) * value.ndim).astype(value.dtype)
        value = value * number if name == "mul" else value / number
    return value


# --- layers --------------------------------------------------------------------------------------


def _layer_at(graph: _Graph, equation: JaxprEqn, side: int) -> Layer | None:
    """The layer whose weight is operand `side` of the equation, if there is one."""
    name = equation.primitive.name
    is_conv = name == "conv_general_dilated"
    if is_conv and (side == 0 or equation.params["batch_group_count"] != 1):
        return None
    if not is_conv and name != "dot_general":
        return None
    operand, other = equation.invars[side], equation.invars[1 - side]
    origin = graph.origin(operand)
    if origin is None:
        return None
    weight, scales, path = origin
    repeats = any(aval(step.outvars[0]).size != aval(step.invars[0]).size for step in path)
    if repeats or graph.influence_of(other) >> weight & 1:
        return None

    inputs = jax.eval_shape(lambda a: arrange_inputs(equation, a, side), _like(aval(other)))
    groups, positions, num_inputs = inputs.shape
    (tap,) = equation.outvars
    outputs = aval(tap).size // (groups * positions)
    alone = Layer(
        weight=weight,
        bias=None,
        kind="conv" if is_conv else "dense",
        equation=equation,
        side=side,
        tap=tap,
        path=(),
        scales=scales,
        bias_scales=(),
        groups=groups,
        positions=positions,
        inputs=num_inputs,
        outputs=outputs,
    )
    return _with_bias(graph, alone) or alone


def _with_bias(graph: _Graph, layer: Layer) -> Layer | None:
    """The layer with the bias added to its output (perhaps scaled); None if there is none."""
    output, scales = layer.tap, layer.scales
    path: tuple[JaxprEqn, ...] = ()
    while graph.uses[output] == 1 and output in graph.users:
        user = graph.users[output]
        split = graph.split_scale(user)
        if split is not None and split[0] is output:
            output, scales = user.outvars[0], scales + split[1]
        elif _moves(user):
            output, path = user.outvars[0], (*path, user)
        elif user.primitive.name in ("add", "sub"):  # signs square away
            break
        else:
            return None
    else:
        return None

    left, right = user.invars
    origin = graph.origin(right if left is output else left)
    if origin is None or aval(user.outvars[0]).shape != aval(output).shape:
        return None
    bias, bias_scales, way = origin
    if graph.influence_of(layer.equation.invars[1 - layer.side]) >> bias & 1:
        return None
    biased = replace(
        layer,
        bias=bias,
        tap=user.outvars[0],
        path=path,
        scales=scales,
        bias_scales=bias_scales,
        inputs=layer.inputs + 1,
    )
    return biased if _is_one_row(biased, way) else None


def _reads_out(graph: _Graph, layer: Layer, program: Jaxpr) -> bool:
    """Whether the program returns the outputs of a layer at one position, each once, times a scalar and
    plus what has no parameters."""
    value: Var = layer.tap
    while graph.uses[value] == 1 and value in graph.users:
        user = graph.users[value]
        split = graph.split_scale(user)
        is_scaled = split is not None and split[0] is value
        is_shifted = user.primitive.name in ("add", "sub") and not any(
            graph.influence_of(other) for other in user.invars if other is not value
        )
        (result,) = user.outvars
        if not (
            is_scaled or _moves(user) or (is_shifted and aval(result).size == aval(value).size)
        ):
            return False
        value = result
    return value is program.outvars[0] and (layer.groups, layer.positions) == (1, 1)


def _is_one_row(layer: Layer, way: list[JaxprEqn]) -> bool:
    """Whether every position gets the same bias entries, one per output.

    Checked by sending indices through the same path (float32 is exact below 2²⁴).
    """
    start = aval(way[0].invars[0]) if way else aval(layer.tap)
    with jax.ensure_compile_time_eval():
        numbers = jnp.arange(start.size, dtype=jnp.float32).reshape(start.shape)
        spread = jnp.broadcast_to(_follow(way, numbers), aval(layer.tap).shape)
        rows = np.asarray(layer.signals(spread[None]))[0]
    once = np.unique(rows[:, 0]).size == rows[:, 0].size == start.size
    return bool(once and (rows == rows[:, :1]).all())


def _follow(path: Sequence[JaxprEqn], value: Array) -> Array:
    """The value after the rearrangements of a path, in its own precision."""
    for equation in path:
        if equation.primitive.name != "convert_element_type":
            value = bind(equation, [value])
    return value


def _moves(equation: JaxprEqn) -> bool:
    """Whether the result permutes the entries of the argument."""
    sizes = aval(equation.invars[0]).size if equation.invars else 0, aval(equation.outvars[0]).size
    is_conversion = equation.primitive.name == "convert_element_type"
    return sizes[0] == sizes[1] and _rearranges(equation) and not is_conversion


def _like(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)
