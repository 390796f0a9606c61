"""Traced programs: nested calls inlined, and convolutions in the layout that loops need."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

Atom = Var | Literal
Rule = Callable[[JaxprEqn, Sequence[Any]], Any]

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr"}


def aval(atom: Atom) -> Any:
    """The abstract value: `shape`, `size` and `dtype`."""
    return atom.aval


def bind(equation: JaxprEqn, values: Sequence[Any]) -> Any:
    """The results of an equation."""
    return equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))


def write(values: dict[Var, Any], equation: JaxprEqn, results: Any) -> None:
    """Keep the results of an equation among the values of variables."""
    results = results if equation.primitive.multiple_results else [results]
    values |= dict(zip(equation.outvars, results, strict=True))


def inlined(program: ClosedJaxpr) -> ClosedJaxpr:
    """The program with nested calls inlined."""
    avals = [jax.ShapeDtypeStruct(aval(v).shape, aval(v).dtype) for v in program.jaxpr.invars]
    return jax.make_jaxpr(lambda *xs: _run(program.jaxpr, program.consts, xs, bind))(*avals)


def channels_last[**P, Result](function: Callable[P, Result]) -> Callable[P, Result]:
    """The same function of arrays, its convolutions with channels as the last axis.

    XLA compiles those that are derivatives with respect to weights for other layouts. On CPUs, in the
    body of a loop, they are some ten times slower (https://github.com/jax-ml/jax/issues/12868).
    """

    def rearranged(*args: P.args, **kwargs: P.kwargs) -> Result:
        program, result = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
        leaves = jax.tree.leaves((args, kwargs))
        values = _run(program.jaxpr, program.consts, leaves, _bind_channels_last)
        return jax.tree.unflatten(jax.tree.structure(result), values)

    return rearranged


def _run(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], rule: Rule) -> list[Any]:
    """The results of a program, its calls inlined, and those of its equations by a rule."""
    values: dict[Var, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        body = equation.params.get(_CALLS.get(equation.primitive.name, ""))
        if body is None:
            write(values, equation, rule(equation, operands))
        elif isinstance(body, ClosedJaxpr):
            write(values, equation, _run(body.jaxpr, body.consts, operands, rule))
        else:
            write(values, equation, _run(body, (), operands, rule))
    return [read(atom) for atom in jaxpr.outvars]


def _bind_channels_last(equation: JaxprEqn, values: Sequence[Any]) -> Any:
    if equation.primitive is not lax.conv_general_dilated_p:
        return bind(equation, values)
    left, right, out = equation.params["dimension_numbers"]
    batch, channel, *space = left
    outputs, inputs, *window = right
    last = len(left) - 1
    places = tuple(range(1, last))
    layout = lax.ConvDimensionNumbers(
        (0, last, *places), (last, last - 1, *range(last - 1)), (0, last, *places)
    )
    result = lax.conv_general_dilated_p.bind(
        values[0].transpose(batch, *space, channel),
        values[1].transpose(*window, inputs, outputs),
        **{**equation.params, "dimension_numbers": layout},
    )
    axes = (out[0], *out[2:], out[1])  # of the result, where each axis belongs
    return result.transpose([axes.index(axis) for axis in range(len(axes))])
