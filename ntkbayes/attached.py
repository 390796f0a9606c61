"""Values computed once for an object, and dropped with it.

Kernels, blocks and laws are immutable trees: an attribute that is no field would change the tree, and so
recompile. What belongs to one of them is found by its identity instead.
"""

import weakref
from collections.abc import Hashable


class Attached[T]:
    """Values by owner and name."""

    def __init__(self) -> None:
        self._values: dict[int, dict[Hashable, T]] = {}

    def of(self, owner: object) -> dict[Hashable, T]:
        """Those of one object, which exist as long as it does."""
        if id(owner) not in self._values:
            self._values[id(owner)] = {}
            weakref.finalize(owner, self._values.pop, id(owner)).atexit = False
        return self._values[id(owner)]
