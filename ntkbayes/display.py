"""How objects show themselves: in a few lines of text, and as a small table in notebooks.

Nothing is computed for it: arrays are shown by their shapes, so that whatever JAX is tracing can be
shown too.
"""

import abc
import dataclasses
import enum
import html
import numbers
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import jax
import numpy as np

_WIDTH = 88
_MOST_LINES = 14  # of text
_MOST_ROWS = 50  # of a table in a notebook
_LONGEST_TEXT = 60
_DEEPEST = 4


class Sheet(NamedTuple):
    """What is worth knowing of an object.

    Attributes:
        title: what it is.
        rows: one fact each, by what it is about.
        header, table: a table below the facts; empty for none.
    """

    title: str
    rows: Mapping[str, str]
    header: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()

    @property
    def text(self) -> str:
        width = max(map(len, self.rows), default=0)
        lines = [self.title]
        for name, fact in self.rows.items():
            first = f"  {name:<{width}}  "
            lines += textwrap.wrap(
                fact, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first)
            ) or [first.rstrip()]
        shown = self.table[: max(1, _MOST_LINES - len(lines) - 1)]
        lines += _aligned(self.header, shown)
        return "\n".join(lines + ["  …"] * (len(shown) < len(self.table)))

    @property
    def html(self) -> str:
        """With all that users have named escaped."""
        facts = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(fact)}</td></tr>'
            for name, fact in self.rows.items()
        )
        parts = [
            f"<strong>{html.escape(self.title)}</strong>",
            f"<table>{facts}</table>" * bool(facts),
        ]
        if self.header:
            rows = [_html_row("th", self.header)]
            rows += [_html_row("td", row) for row in self.table[:_MOST_ROWS]]
            parts.append(f"<table>{''.join(rows)}</table>{'…' * (len(self.table) > _MOST_ROWS)}")
        return f"<div>{''.join(parts)}</div>"


class Summarised(abc.ABC):
    """An object that shows itself by a `Sheet`."""

    @property
    def _title(self) -> str:
        """What it is called within another object."""
        return f"<{type(self).__name__}>"

    @property
    @abc.abstractmethod
    def _sheet(self) -> Sheet:
        """What it shows."""

    def __repr__(self) -> str:
        return self._sheet.text

    def _repr_html_(self) -> str:
        return self._sheet.html


class Configured:
    """A dataclass that shows itself by the call that makes it, with arrays by their shapes."""

    def __repr__(self) -> str:
        lines = textwrap.wrap(brief(self), _WIDTH, subsequent_indent="    ", break_long_words=False)
        return "\n".join(lines[:_MOST_LINES] + ["    …"] * (len(lines) > _MOST_LINES))

    def _repr_html_(self) -> str:
        return Sheet(
            type(self).__name__, {k: brief(v) for k, v in (_fields(self) or {}).items()}
        ).html


def brief(value: Any, depth: int = 0) -> str:
    """A value in one line: numbers and names as they are, arrays by shape, objects by their fields."""
    if isinstance(value, Summarised):
        return value._title
    if isinstance(value, enum.Enum):
        return str(value.value)
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_TEXT else value[: _LONGEST_TEXT - 1] + "…")
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return number(value) if np.shape(value) == () else _array(value)
    if isinstance(value, np.dtype):
        return str(value)
    if isinstance(value, type) or hasattr(value, "__name__"):  # a class, a function
        return str(value.__name__)
    if isinstance(value, list | tuple | Mapping) and not hasattr(value, "_fields"):
        return _container(value, depth)
    fields = _fields(value)
    if fields is None or depth > _DEEPEST:
        return f"{type(value).__name__}(…)" if fields else f"<{type(value).__name__}>"
    inside = ", ".join(f"{name}={brief(each, depth + 1)}" for name, each in fields.items())
    return f"{type(value).__name__}({inside})"


def number(value: Any, unit: str = "") -> str:
    """A number with six digits and its unit; what is not known yet by its kind."""
    if isinstance(value, jax.Array | np.ndarray | np.generic) and np.shape(value) == ():
        if not _is_readable(value):
            return "traced" if isinstance(value, jax.core.Tracer) else _array(value)
        value = np.asarray(value).item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return brief(value)
    text = "unknown" if value != value else f"{value:.6g}"
    return f"{text} {unit}" if unit and value == value else text


def count(size: int, noun: str) -> str:
    """1 point, 2 points."""
    return f"{size} {noun}{'' if size == 1 else 's'}"


def few(names: Iterable[object], most: int = 8) -> str:
    """The first few names."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")


def in_words(value: Any) -> str:
    """What a value is, for a message: `an array of shape (3, 4)`, `the class MAP`."""
    if value is None or isinstance(value, numbers.Number | Decimal | np.generic | str | bytes):
        return repr(value)[: 2 * _LONGEST_TEXT]
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    if isinstance(value, np.ndarray | jax.Array):
        kind = "JAX key array" if _is_key(value) else "array"
        return f"{with_article(kind)} of shape {np.shape(value)}"
    if isinstance(value, list | tuple | set | Mapping) and not hasattr(value, "_fields"):
        return f"{with_article(kind)} of {len(value)}"
    if hasattr(value, "__name__"):
        is_module = kind == "module"
        return f"the {'module' if is_module else 'function'} {value.__name__}"
    shape = getattr(value, "shape", None)
    return (
        f"{with_article(kind)} of shape {shape}" if isinstance(shape, tuple) else with_article(kind)
    )


def with_article(noun: str) -> str:
    is_spelt_out = noun.startswith(("NTK", "MLP", "NNX"))
    return f"{'an' if is_spelt_out or noun[0] in 'aeioAEIO' else 'a'} {noun}"


def _fields(value: Any) -> dict[str, Any] | None:
    """The public fields of an object; None if it does not tell."""
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value)]
    elif hasattr(value, "arg_constraints"):  # a distribution of NumPyro
        names = list(value.arg_constraints)
    elif isinstance(value, tuple):  # with names
        names = list(getattr(value, "_fields", ()))
    else:
        return None
    return {n: getattr(value, n) for n in names if not n.startswith("_") and hasattr(value, n)}


def _container(value: Any, depth: int) -> str:
    leaves = [leaf for leaf in jax.tree.leaves(value) if np.ndim(leaf) > 0]
    if leaves and all(isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves):
        return f"<{count(len(leaves), 'array')}, {sum(leaf.size for leaf in leaves)} numbers>"
    if depth <= _DEEPEST and len(value) <= 12:
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{k!r}: {brief(v, depth + 1)}" for k, v in value.items()) + "}"
        inside = ", ".join(brief(each, depth + 1) for each in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    return f"<{type(value).__name__} of {len(value)}>"


def _array(value: Any) -> str:
    kind = "keys" if _is_key(value) else str(value.dtype)
    return f"{kind}[{','.join(map(str, np.shape(value)))}]"


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def _is_readable(value: Any) -> bool:
    """Whether an array has numbers here and now."""
    if not isinstance(value, jax.Array):
        return True
    if isinstance(value, jax.core.Tracer) or _is_key(value):
        return False
    return value.is_fully_addressable and not value.is_deleted()


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their longest entry: the first to the left, numbers to the right."""
    if not header:
        return []
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        first, *others = (
            f"{cell:<{w}}" if j == 0 else f"{cell:>{w}}"
            for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(["", first, *others])[1:].rstrip())
    return [f" {line}" for line in lines]


def _html_row(tag: str, cells: Sequence[str]) -> str:
    aligned = (
        f'<{tag} style="text-align:{"right" if j else "left"}">{html.escape(cell)}</{tag}>'
        for j, cell in enumerate(cells)
    )
    return f"<tr>{''.join(aligned)}</tr>"
