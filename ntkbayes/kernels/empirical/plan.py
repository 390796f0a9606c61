"""How an empirical NTK is computed: a contraction per parameter, and blocks within a memory bound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var, jaxprs_in_params

from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels.empirical.contractions import (
    Contraction,
    Form,
    Gradients,
    Grams,
    Jacobian,
    Size,
    choices,
)
from ntkbayes.kernels.empirical.structure import Layer, Structure
from ntkbayes.networks.programs import Atom, aval


@dataclass(frozen=True)
class Step:
    """How the share of one layer or loose leaf is computed.

    Attributes:
        parameters: names of the leaves, as paths into the parameters.
        how: the contraction, in words.
        operations: its additions and multiplications, without the passes through the network.
        bytes_held: after the passes through the network, for the points held at one time.
        bytes_of_scratch: temporary arrays while one block is contracted.
    """

    parameters: tuple[str, ...]
    how: str
    operations: int
    bytes_held: int
    bytes_of_scratch: int


@dataclass(frozen=True)
class Plan:
    """How one form of an empirical NTK is computed; `str(plan)` is a table.

    Attributes:
        form: "full", "class_diagonal", "traced" or "diagonal".
        steps: one per layer or loose leaf.
        unused: names of parameters without influence on the logits.
        num_rows, num_columns: points of x1 and of x2.
        rows, columns: points of x1 and of x2 in one block of the result.
        chunk: points that go through the network at one time.
        at_once: whether there is a single block, and each layer's gradients are formed only for its own
            contraction.
        holds_all: whether the signals of all points are held, rather than recomputed per block.
        num_bytes: predicted peak of temporaries and inputs, excluding the result.
        max_bytes: its bound.
    """

    form: str
    steps: tuple[Step, ...]
    unused: tuple[str, ...]
    num_rows: int
    num_columns: int
    rows: int
    columns: int
    chunk: int
    at_once: bool
    holds_all: bool
    num_bytes: int
    max_bytes: int

    def __str__(self) -> str:
        head = ("parameters", "way", "operations", "held", "scratch")
        table = [head]
        for step in self.steps:
            numbers = _operations(step.operations), _bytes(step.bytes_held)
            scratch = _bytes(step.bytes_of_scratch)
            table.append((" ".join(step.parameters), step.how, *numbers, scratch))
        table += [(name, "no influence", "0", "0 B", "0 B") for name in self.unused]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        held = "signals of all points held" if self.holds_all else "signals recomputed per block"
        return "\n".join(
            [
                f"{self.form} NTK of {self.num_rows} × {self.num_columns} points "
                f"in blocks of {self.rows} × {self.columns}, {held}, "
                f"{self.chunk} points at a time through the network",
                *lines,
                f"at most {_bytes(self.num_bytes)} besides the result (bound "
                f"{_bytes(self.max_bytes)})",
            ]
        )


def _operations(number: int) -> str:
    return f"{number:.2g}" if number >= 1000 else str(number)


def _bytes(number: int) -> str:
    power = min(3, max(0, int(math.log(max(number, 1), 1024))))
    return f"{number / 1024**power:.{min(power, 1)}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"


# --- choosing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """Bytes of temporaries: `fixed` + `each` per point."""

    fixed: int
    each: int

    def at(self, num_points: int) -> int:
        return self.fixed + num_points * self.each


@dataclass(frozen=True)
class Task:
    """What to compute: a form between n1 and n2 points, or of n1 points with themselves."""

    form: Form
    num_rows: int
    num_columns: int
    symmetric: bool
    num_classes: int
    itemsize: int

    @property
    def size(self) -> Size:
        if self.form.points == "i":
            points = pairs = self.num_rows
        else:
            points = self.num_rows + (0 if self.symmetric else self.num_columns)
            pairs = self.num_rows * self.num_columns
        return Size(self.form, points, pairs, self.num_classes, self.itemsize)


def choose(structure: Structure, leaf_sizes: Sequence[int], task: Task) -> tuple[Contraction, ...]:
    """The cheapest contraction for each layer and loose leaf."""

    def cheapest(layer: Layer) -> Contraction:
        return min(choices(layer), key=lambda way: way.cost(task.size))

    layers = [cheapest(layer) for layer in structure.layers]
    return (*layers, *(Jacobian(leaf, leaf_sizes[leaf]) for leaf in structure.loose))


def leaves_of(contraction: Contraction) -> tuple[int, ...]:
    if isinstance(contraction, Jacobian):
        return (contraction.leaf,)
    assert isinstance(contraction, Grams | Gradients)
    return contraction.layer.leaves


def make_plan(
    task: Task,
    contractions: Sequence[Contraction],
    *,
    passes: Linear,
    at_once: int | None,
    names: Sequence[str],
    num_bytes_given: int,
    max_bytes: int,
) -> Plan:
    """The plan with the largest blocks within the memory bound.

    Args:
        passes: memory of the passes through the network, including what is kept of their points.
        at_once: memory of the computation in one block, layer by layer; None if it does not apply.
        names: of the leaves.
        num_bytes_given: bytes of the inputs.
        max_bytes: bound on temporaries plus inputs.

    Raises:
        ConfigurationError: one point against one other needs more than `max_bytes`.
    """
    classes, itemsize = task.num_classes, task.itemsize
    needs = _Needs(
        held=itemsize * sum(way.kept(classes) for way in contractions),
        scratch=itemsize * sum(way.scratch(task.form, classes) for way in contractions),
        passes=passes,
        at_once=at_once,
    )
    blocks = _choose_blocks(task, needs, max_bytes - num_bytes_given)
    if blocks is None:
        smallest = _Blocks(1, 1, 1, False, False).num_bytes(task, needs) + num_bytes_given
        raise ConfigurationError(
            f"max_bytes is {max_bytes}, but the {task.form.name} NTK of a single pair of points "
            f"needs {smallest} bytes; raise max_bytes, or use EmpiricalNTK.product"
        )
    num_held, pairs = blocks.points_held(task), blocks.pairs(task)

    def step(way: Contraction) -> Step:
        held, scratch = num_held * way.kept(classes), pairs * way.scratch(task.form, classes)
        if blocks.at_once and way.waits(classes):
            held, scratch = num_held * way.tapped(classes), scratch + held
        return Step(
            parameters=tuple(names[leaf] for leaf in leaves_of(way)),
            how=way.how,
            operations=way.operations(task.size),
            bytes_held=itemsize * held,
            bytes_of_scratch=itemsize * scratch,
        )

    used = {leaf for way in contractions for leaf in leaves_of(way)}
    return Plan(
        form=task.form.name,
        steps=tuple(map(step, contractions)),
        unused=tuple(name for i, name in enumerate(names) if i not in used),
        num_rows=task.num_rows,
        num_columns=task.num_columns,
        rows=blocks.rows,
        columns=blocks.columns,
        chunk=blocks.chunk,
        at_once=blocks.at_once,
        holds_all=blocks.holds_all,
        num_bytes=num_bytes_given + blocks.num_bytes(task, needs),
        max_bytes=max_bytes,
    )


@dataclass(frozen=True)
class _Needs:
    """Bytes: held per point, scratch per pair, and `passes` and `at_once` as for `make_plan`."""

    held: int
    scratch: int
    passes: Linear
    at_once: int | None


@dataclass(frozen=True)
class _Blocks:
    rows: int
    columns: int
    chunk: int
    at_once: bool
    holds_all: bool

    def points_held(self, task: Task) -> int:
        if task.form.points == "i":
            return self.rows
        whole = (self.rows, self.columns) == (task.num_rows, task.num_columns)
        block = self.rows + self.columns
        if not self.holds_all:
            return block
        return task.size.num_points + (0 if whole else block)

    def pairs(self, task: Task) -> int:
        return self.rows if task.form.points == "i" else self.rows * self.columns

    def num_bytes(self, task: Task, needs: _Needs) -> int:
        """Peak bytes. Passes and contractions alternate, so the larger of the two counts."""
        if self.at_once:
            assert needs.at_once is not None
            return needs.at_once
        passing, contracting = needs.passes.at(self.chunk), self.pairs(task) * needs.scratch
        return self.points_held(task) * needs.held + max(passing, contracting)


_FEW = 8  # points: below this, recomputing signals beats smaller blocks
_SYMMETRIC_PARTS = 4  # blocks of rows: more would save less in products than they cost in passes
_WIDE = 32  # points of a block's columns: below this, products are slow


def _choose_blocks(task: Task, needs: _Needs, available: int) -> _Blocks | None:
    """The blocks, of those that fit into the available memory, with the fewest passes through the
    network, then the largest; None if none fit."""

    def fits(blocks: _Blocks) -> bool:
        return blocks.num_bytes(task, needs) <= available

    longest = max(task.num_rows, task.num_columns)

    def chunked(rows: int, columns: int, holds_all: bool, least: int) -> _Blocks | None:
        through = longest if holds_all else max(rows, columns)
        sizes = (-(-through // pieces) for pieces in _doubling(through))
        chunks = (size for size in sizes if size >= min(least, through))
        blocks = (_Blocks(rows, columns, chunk, False, holds_all) for chunk in chunks)
        return next(filter(fits, blocks), None)

    def held(least: int) -> _Blocks | None:
        for parts in _doubling(longest):
            rows, columns = -(-task.num_rows // parts), -(-task.num_columns // parts)
            if min(rows, columns) < min(least, task.num_rows, task.num_columns):
                break
            if blocks := chunked(rows, columns, True, least):
                return blocks
        return None

    def recomputed(least: int) -> _Blocks | None:
        """The points of a block's columns pass once per block of rows. Rows of a symmetric form have
        several blocks, which skip what is left of the diagonal."""
        fewest = _SYMMETRIC_PARTS if task.symmetric else 1
        for row_parts in _doubling(task.num_rows):
            if row_parts < min(fewest, task.num_rows):
                continue
            for column_parts in _doubling(task.num_columns):
                rows, columns = -(-task.num_rows // row_parts), -(-task.num_columns // column_parts)
                if columns < min(least, task.num_columns):
                    break
                if blocks := chunked(rows, columns, False, min(least, _FEW)):
                    return blocks
        return None

    if task.form.points == "i":
        sizes = (-(-task.num_rows // parts) for parts in _doubling(task.num_rows))
        blocks = (_Blocks(size, size, size, False, False) for size in sizes)
        return next(filter(fits, blocks), None)
    whole = _Blocks(task.num_rows, task.num_columns, longest, at_once=True, holds_all=True)
    if needs.at_once is not None and fits(whole):
        return whole
    return held(_FEW) or recomputed(_WIDE) or recomputed(1) or held(1)


def _doubling(end: int) -> list[int]:
    """1, 2, 4, … up to `end`, inclusive."""
    return [2**k for k in range(end.bit_length()) if 2**k < end] + [end]


# --- work and memory of a program ----------------------------------------------------------------


def operations(program: ClosedJaxpr) -> int:
    """Additions and multiplications of a program's products; of a loop without a length, in one turn."""
    return _operations_of(program.jaxpr)


def _operations_of(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = sum(map(_operations_of, jaxprs_in_params(equation.params)))
        total += equation.params.get("length", 1) * inner
        if equation.primitive.name in _PRODUCTS:
            total += 2 * aval(equation.outvars[0]).size * _terms(equation)
    return total


def _terms(product: JaxprEqn) -> int:
    """Terms in an entry of the result."""
    left, right = (aval(atom).shape for atom in product.invars)
    numbers = product.params["dimension_numbers"]
    if product.primitive.name == "dot_general":
        return math.prod(left[axis] for axis in numbers[0][0])
    return math.prod(right) // right[numbers.rhs_spec[0]]


_PRODUCTS = ("dot_general", "conv_general_dilated")  # XLA may copy operands into another order


def peak_bytes(program: ClosedJaxpr) -> int:
    """Peak memory of a program's values, excluding its arguments."""
    return _peak(program.jaxpr)


def _peak(jaxpr: Jaxpr) -> int:
    last_use: dict[Var, int] = {}
    for i, equation in enumerate(jaxpr.eqns):
        last_use |= {atom: i for atom in equation.invars if isinstance(atom, Var)}
        last_use |= {var: i for var in equation.outvars if var not in last_use}
    last_use |= {atom: len(jaxpr.eqns) for atom in jaxpr.outvars if isinstance(atom, Var)}
    ends: dict[int, list[Var]] = {}
    for var, i in last_use.items():
        ends.setdefault(i, []).append(var)

    made: set[Var] = set()
    live = peak = 0
    for i, equation in enumerate(jaxpr.eqns):
        inner = max(map(_peak, jaxprs_in_params(equation.params)), default=0)
        if equation.primitive.name in _PRODUCTS:
            inner = _copies(equation) * sum(_num_bytes(atom) for atom in equation.invars)
        made.update(equation.outvars)
        live += sum(_num_bytes(var) for var in equation.outvars)
        peak = max(peak, live + inner)
        live -= sum(_num_bytes(var) for var in ends.get(i, ()) if var in made)
    return peak


def _copies(product: JaxprEqn) -> int:
    """Copies of the operands: one, or two for batched matrix products."""
    dimensions = product.params["dimension_numbers"]
    return 2 if product.primitive.name == "dot_general" and dimensions[1][0] else 1


def _num_bytes(var: Atom) -> int:
    return aval(var).size * aval(var).dtype.itemsize
