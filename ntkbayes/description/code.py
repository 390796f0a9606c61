"""The names that Python code uses and imports."""

import dis
from collections.abc import Iterator
from types import CodeType


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and those nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def imported_names(code: CodeType) -> set[str]:
    """Modules that code imports at run time."""
    instructions = (i for part in _codes(code) for i in dis.get_instructions(part))
    return {i.argval for i in instructions if i.opname == "IMPORT_NAME" and i.argval}


def global_names(code: CodeType) -> Iterator[tuple[str, ...]]:
    """The global names that code uses, each with the chain of attributes looked up on it."""
    for part in _codes(code):
        path: list[str] = []
        for instruction in dis.get_instructions(part):
            if path and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                path.append(instruction.argval)
            elif instruction.opname not in ("CACHE", "PUSH_NULL", "EXTENDED_ARG"):
                if path:
                    yield tuple(path)
                is_global = instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
                path = [instruction.argval] if is_global else []
