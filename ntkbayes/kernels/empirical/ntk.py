"""The empirical NTK Θ(x, x') = J(x; θ) J(x'; θ)ᵀ of any network at given parameters.

The Jacobian is formed only where the network has no structure to exploit: the share of a linear layer
follows from its inputs and the signals back-propagated to its output. Layers are detected in the traced
network (`structure`), and each uses the cheaper of two contractions (`contractions`). They run one layer
after the other if memory holds all points, else in blocks of points within a memory bound (`plan`). All
other parameters use explicit derivatives, so the result is exact for every network.

Cf. Novak, Sohl-Dickstein & Schoenholz, "Fast finite width neural tangent kernel" (2022), who exploit
structure within layers; this module exploits it between positions.

Shapes: n points, C logits.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntkbayes.errors import UnknownNameError
from ntkbayes.kernels.empirical.contractions import (
    CLASS_DIAGONAL,
    DIAGONAL,
    FULL,
    TRACED,
    Contraction,
    Form,
    Kept,
    Tapped,
)
from ntkbayes.kernels.empirical.plan import Linear, Plan, Task, choose, make_plan, peak_bytes
from ntkbayes.kernels.empirical.structure import Structure, find_structure
from ntkbayes.linalg import Portable, frugal_jit
from ntkbayes.networks import Network, Params, require_sound
from ntkbayes.networks.programs import aval, channels_last

Features = Array | np.ndarray

_WORTH_HALVING = 16  # points: with fewer, three small products take as long as a whole one


class EmpiricalNTK(Portable, eqx.Module):
    """Θ(x, x') = J(x; θ) J(x'; θ)ᵀ, a C × C block per pair of points.

    All forms have the precision of parameters and features, and work under `jax.jit` and under
    `jax.vmap` over the parameters. x2 = None stands for x2 = x1.

    Attributes:
        network, params: what is differentiated, and where.
        max_bytes: bound on temporary arrays plus inputs, excluding the result (per member where
            parameters are vmapped). Less memory may cost more passes through the network.

    Raises:
        ConfigurationError: a single pair of points needs more than `max_bytes`; or network,
            parameters and features do not fit together (`require_sound`; not under `jax.jit`).
        PrecisionError: the network computes in less than their precision.
    """

    network: Network
    params: Params
    max_bytes: int = eqx.field(static=True, default=2**30)

    def full(
        self, x1: Features, x2: Features | None = None
    ) -> Float[Array, "n1 n2 classes classes"]:
        """Θ: entry [i, j, c, d] is ⟨∂f_c(x1_i)/∂θ, ∂f_d(x2_j)/∂θ⟩."""
        return _full(self, *self._points(x1, x2))

    def matrix(self, x1: Features, x2: Features | None = None) -> Float[Array, "rows columns"]:
        """Θ as a matrix, rows and columns ordered by point, then output; in half of the memory that
        `full` and a transpose would take."""
        return _matrix(self, *self._points(x1, x2))

    def class_diagonal(
        self, x1: Features, x2: Features | None = None
    ) -> Float[Array, "n1 n2 classes"]:
        """Θ of each logit with itself: entry [i, j, c] is entry [i, j, c, c] of `full`."""
        return self._evaluate(CLASS_DIAGONAL, x1, x2)

    def traced(self, x1: Features, x2: Features | None = None) -> Float[Array, "n1 n2"]:
        """The mean of `class_diagonal` over classes: the Θ_s with Θ_s ⊗ I_C nearest to Θ."""
        return self._evaluate(TRACED, x1, x2)

    def diagonal(self, x: Features) -> Float[Array, "n classes classes"]:
        """Θ(x, x) of each point."""
        return self._evaluate(DIAGONAL, x, None)

    def product(
        self, x1: Features, x2: Features, v: Float[Array, "n2 classes"]
    ) -> Float[Array, "n1 classes"]:
        """Θ(x1, x2) v = J(x1) J(x2)ᵀ v: one backward pass at x2 and one forward pass at x1.

        All points at once: `max_bytes` does not apply.
        """
        return _product(self, self._sound(x1), self._sound(x2), v)

    def plan(self, x1: Features, x2: Features | None = None, *, form: str = "full") -> Plan:
        """How each parameter's share is computed, with operations and bytes; evaluates nothing.

        Args:
            form: "full", "class_diagonal", "traced" or "diagonal".

        Raises:
            UnknownNameError: the form is unknown.
        """
        forms = {known.name: known for known in (FULL, CLASS_DIAGONAL, TRACED, DIAGONAL)}
        if form not in forms:
            raise UnknownNameError("form", form, list(forms))
        second = None if x2 is None else self._sound(x2)
        return _Computation(self, forms[form], self._sound(x1), second).plan

    def is_readout(self, x: Features) -> bool:
        """Whether the parameters are those of the readout alone, so that Θ(x, x') is a multiple of I."""
        return _structure(self, jnp.asarray(x)).is_readout

    def _evaluate(self, form: Form, x1: Features, x2: Features | None) -> Array:
        return _run(self, form, *self._points(x1, x2))

    def _points(self, x1: Features, x2: Features | None) -> tuple[Array, Array | None]:
        return self._sound(x1), None if x2 is None else self._sound(x2)

    def _sound(self, x: Features) -> Array:
        """The features as an array, checked against network and parameters unless traced by JAX."""
        points = jnp.asarray(x)
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((self, points))):
            require_sound(self.network, self.params, points)
        return points


@frugal_jit
def _run(ntk: EmpiricalNTK, form: Form, x1: Array, x2: Array | None) -> Array:
    return _Computation(ntk, form, x1, x2).run()


@frugal_jit
def _full(ntk: EmpiricalNTK, x1: Array, x2: Array | None) -> Array:
    return _Computation(ntk, FULL, x1, x2).run().transpose(0, 2, 1, 3)


@frugal_jit
def _matrix(ntk: EmpiricalNTK, x1: Array, x2: Array | None) -> Array:
    entries = _Computation(ntk, FULL, x1, x2).run()
    n1, size, n2, _ = entries.shape
    return entries.reshape(n1 * size, n2 * size)


@eqx.filter_jit
def _product(ntk: EmpiricalNTK, x1: Array, x2: Array, v: Array) -> Array:
    def at(x: Array) -> Callable[[Params], Array]:
        return lambda params: ntk.network.apply(params, x)

    logits, pull = jax.vjp(at(x2), ntk.params)
    (step,) = pull(v.astype(logits.dtype))
    return jax.jvp(at(x1), (ntk.params,), (step,))[1]


def _structure(ntk: EmpiricalNTK, x: Array) -> Structure:
    """Of the network at one point."""
    leaves, tree = jax.tree.flatten(ntk.params)

    def logits(leaves: list[Array], x: Array) -> Float[Array, " classes"]:
        return ntk.network.apply(jax.tree.unflatten(tree, leaves), x[None])[0]

    return find_structure(logits, [_like(jnp.asarray(leaf)) for leaf in leaves], _like_one(x))


class _Computation:
    """One form of Θ between given points: structure, plan and run, within one JAX trace."""

    def __init__(self, ntk: EmpiricalNTK, form: Form, x1: Array, x2: Array | None):
        paths = jax.tree_util.tree_leaves_with_path(ntk.params)
        names = [jax.tree_util.keystr(path) or "θ" for path, _ in paths]
        self.leaves = [jnp.asarray(leaf) for _, leaf in paths]
        self.x1, self.x2 = x1, x1 if x2 is None else x2
        self.symmetric = x2 is None
        self.form = form
        self.structure = _structure(ntk, x1)
        point = _like_one(x1)
        (output,) = self.structure.program.out_avals
        self.num_classes, self.dtype = output.shape[0], output.dtype
        task = Task(
            form=form,
            num_rows=len(self.x1),
            num_columns=len(self.x2),
            symmetric=self.symmetric,
            num_classes=self.num_classes,
            itemsize=self.dtype.itemsize,
        )
        self.ways: tuple[Contraction, ...] = choose(
            self.structure, [leaf.size for leaf in self.leaves], task
        )
        given = [*self.leaves, self.x1] if self.symmetric else [*self.leaves, self.x1, self.x2]
        self.plan = make_plan(
            task,
            self.ways,
            passes=self._linear(self.keep_each, point),
            at_once=self._measure_at_once(),
            names=names,
            num_bytes_given=sum(v.nbytes for v in given),
            max_bytes=ntk.max_bytes,
        )

    # --- through the network ---

    def find(self, x: Array) -> list[Tapped]:
        """`Tapped` at one point, per contraction: one forward and C backward passes."""
        structure, leaves = self.structure, self.leaves

        def tapped(
            deltas: list[Array], loose: list[Array]
        ) -> tuple[Array, list[tuple[Array, ...]]]:
            merged = list(leaves)
            for leaf, value in zip(structure.loose, loose, strict=True):
                merged[leaf] = value
            return structure.tapped(merged, x, deltas)

        zeros = [jnp.zeros(aval(v.tap).shape, aval(v.tap).dtype) for v in structure.layers]
        _, pull, operands = jax.vjp(
            tapped, zeros, [leaves[leaf] for leaf in structure.loose], has_aux=True
        )
        deltas, jacobians = jax.vmap(pull)(jnp.eye(self.num_classes, dtype=self.dtype))
        layers = [(*inputs, delta) for inputs, delta in zip(operands, deltas, strict=True)]
        return layers + [(jacobian,) for jacobian in jacobians]

    def keep_each(self, points: Array) -> list[Kept]:
        """`Kept` of points that go through the network together, per contraction."""

        def keep(x: Array) -> list[Kept]:
            return [way.keep(one) for way, one in zip(self.ways, self.find(x), strict=True)]

        return channels_last(jax.vmap(keep))(points)

    def keep_all(self, points: Array) -> list[Kept]:
        """The same for many points, in chunks."""
        return _in_chunks(self.keep_each, points, self.plan.chunk)

    def hold(self, points: Array) -> list[Tapped | Kept]:
        """`Tapped` or `Kept`, whichever is smaller."""

        def smaller(x: Array) -> list[Tapped | Kept]:
            return [
                one if way.waits(self.num_classes) else way.keep(one)
                for way, one in zip(self.ways, self.find(x), strict=True)
            ]

        return channels_last(jax.vmap(smaller))(points)

    # --- all at once ---

    def run_at_once(self, x1: Array, x2: Array) -> Array:
        """Θ in one block of 2 × 2 quarters; in the symmetric case, three and a transpose.

        Each contraction starts only when the previous one has ended, so that at most one layer's
        gradients are in memory.
        """
        left = self.hold(x1)
        right = left if self.symmetric else self.hold(x2)
        quarters = [(0, 0), (0, 1), (1, 1)] if self.symmetric else [(0, 0), (0, 1), (1, 0), (1, 1)]
        done: list[Array] = []
        for k, way in enumerate(self.ways):
            rows = self.keep_halves(way, left[k], done)
            columns = rows if self.symmetric else self.keep_halves(way, right[k], done)
            shares = [way.share(self.form, rows[i], columns[j]) for i, j in quarters]
            done = [a + b for a, b in zip(done, shares, strict=True)] if done else shares
        block = dict(zip(quarters, map(self._normalised, done), strict=True))
        if self.symmetric:
            block[1, 0] = self._mirrored(block[0, 1])
        columns_axis = self.form.result.index("j")
        halves = [jnp.concatenate([block[i, 0], block[i, 1]], axis=columns_axis) for i in (0, 1)]
        return jnp.concatenate(halves, axis=0)

    def keep_halves(
        self, way: Contraction, held: Tapped | Kept, after: list[Array]
    ) -> tuple[Kept, Kept]:
        """What a contraction needs of the first and the last points, computed after `after`."""
        half = len(held[0]) // 2
        # XLA drops barriers before it orders operations, but has to wait for the start of a slice.
        # That is 0 and `half` in any case: slices clamp the offset that NaN in a total would add.
        wait = sum((jnp.isnan(total.ravel()[0]).astype(jnp.int32) for total in after), jnp.int32(0))
        first = _slice(held, -wait, half)
        last = _slice(held, half + wait, len(held[0]) - half)
        if way.waits(self.num_classes):
            first, last = jax.vmap(way.keep)(first), jax.vmap(way.keep)(last)
        return first, last

    def _measure_at_once(self) -> int | None:
        """Bytes of temporaries of `run_at_once`; None where it would gain little."""
        few = min(len(self.x1), len(self.x2)) < _WORTH_HALVING
        if few or self.form.points == "i" or not self.ways:
            return None
        x1, x2 = _like(self.x1), _like(self.x2)
        return peak_bytes(jax.make_jaxpr(self.run_at_once)(x1, x2))

    def _linear(self, function: Callable[[Array], object], point: jax.ShapeDtypeStruct) -> Linear:
        """Temporary memory of a function of points, from its programs for one and for two."""
        one, two = (peak_bytes(jax.make_jaxpr(function)(_like_many(point, n))) for n in (1, 2))
        return Linear(fixed=max(0, 2 * one - two), each=two - one)

    def _normalised(self, total: Array) -> Array:
        return total / self.num_classes if self.form is TRACED else total

    # --- blocks ---

    def contract(self, left: list[Kept], right: list[Kept]) -> Array:
        total: Array | float = 0.0
        for way, one, other in zip(self.ways, left, right, strict=True):
            total = total + way.share(self.form, one, other)
        return self._normalised(jnp.asarray(total))

    def run(self) -> Array:
        plan = self.plan
        if not self.ways:
            sizes = {"i": plan.num_rows, "j": plan.num_columns}
            shape = [sizes.get(axis, self.num_classes) for axis in self.form.result]
            return jnp.zeros(shape, self.dtype)
        if self.form.points == "i":
            return _in_chunks(self.contract_alone, self.x1, plan.rows)
        if plan.at_once:
            return self.run_at_once(self.x1, self.x2)
        if not plan.holds_all:
            return self.run_blocks(
                lambda first: self.keep_all(_slice(self.x1, first, plan.rows)),
                lambda first: self.keep_all(_slice(self.x2, first, plan.columns)),
            )
        right = self.keep_all(self.x2)
        left = right if self.symmetric else self.keep_all(self.x1)
        if (plan.rows, plan.columns) == (plan.num_rows, plan.num_columns):
            return self.contract(left, right)
        return self.run_blocks(
            lambda first: _slice(left, first, plan.rows),
            lambda first: _slice(right, first, plan.columns),
        )

    def contract_alone(self, points: Array) -> Array:
        kept = self.keep_each(points)
        return self.contract(kept, kept)

    def run_blocks(
        self, rows: Callable[[Array], list[Kept]], columns: Callable[[Array], list[Kept]]
    ) -> Array:
        """Block by block, with `Kept` of the rows and columns from a given point on.

        The last blocks overlap the ones before rather than being smaller. In the symmetric case, blocks
        below the diagonal are transposes of those above.
        """
        plan = self.plan
        last_row, last_column = plan.num_rows - plan.rows, plan.num_columns - plan.columns

        def row(k: Array, result: Array) -> Array:
            i = jnp.minimum(k * plan.rows, last_row)
            left = rows(i)

            def column(m: Array, result: Array) -> Array:
                j = jnp.minimum(m * plan.columns, last_column)
                block = self.contract(left, columns(j))
                if self.symmetric:
                    result = self._placed(result, self._mirrored(block), j, i)
                return self._placed(result, block, i, j)

            first = k * plan.rows // plan.columns if self.symmetric else 0
            return jax.lax.fori_loop(first, -(-plan.num_columns // plan.columns), column, result)

        sizes = {"i": plan.num_rows, "j": plan.num_columns}
        shape = [sizes.get(axis, self.num_classes) for axis in self.form.result]
        empty = jnp.zeros(shape, self.dtype)
        return jax.lax.fori_loop(0, -(-plan.num_rows // plan.rows), row, empty)

    def _placed(self, result: Array, block: Array, i: Array, j: Array) -> Array:
        """The result with a block from point i of x1 and j of x2 on."""
        first = {"i": i, "j": j}
        starts = [first.get(axis, 0) for axis in self.form.result]
        return jax.lax.dynamic_update_slice(result, block, starts)

    def _mirrored(self, block: Array) -> Array:
        """Θ(x', x) from Θ(x, x')."""
        left, right, axes = self.form.left, self.form.right, self.form.result
        turned = axes.translate(str.maketrans(left + right, right + left))
        return jnp.transpose(block, [axes.index(axis) for axis in turned])


def _slice[Tree](tree: Tree, first: Array, size: int) -> Tree:
    """`size` points from `first` on, with `first` clamped into range."""
    return jax.tree.map(
        lambda v: jax.lax.dynamic_slice_in_dim(v, first, size, allow_negative_indices=False), tree
    )


def _in_chunks[Result](function: Callable[[Array], Result], x: Array, size: int) -> Result:
    """function(x), `size` points at a time; the last chunk may overlap the one before."""
    if size >= len(x):
        return function(x)

    def step(k: Array, result: Result) -> Result:
        first = jnp.minimum(k * size, len(x) - size)
        part = function(_slice(x, first, size))
        return jax.tree.map(
            lambda whole, piece: jax.lax.dynamic_update_slice_in_dim(whole, piece, first, 0),
            result,
            part,
        )

    shapes = jax.eval_shape(function, x[:size])
    empty = jax.tree.map(lambda like: jnp.zeros((len(x), *like.shape[1:]), like.dtype), shapes)
    return jax.lax.fori_loop(0, -(-len(x) // size), step, empty)


def _like(value: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(value.shape, value.dtype)


def _like_one(points: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(points.shape[1:], points.dtype)


def _like_many(point: jax.ShapeDtypeStruct, number: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((number, *point.shape), point.dtype)
