"""A program of the extension before its weights are bound: which weights each of its calls reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from openautoglm.runtime.packing import Item


@dataclass(frozen=True)
class Bound:
    """A weight, or some of its rows, that a program was told of: to be bound under its number.

    Attributes:
        item: the weight.
        number: of the packed weight or the tensor in the program.
        first: bytes of the item that come before what is bound; a packed matrix's header always does.
        bytes: that are bound.
        rows: of the matrix that are bound.
        taken: a packed matrix of which single rows are taken, as of a table.
    """

    item: Item
    number: int
    first: int
    bytes: int
    rows: int
    taken: bool = False


@dataclass
class Lowered:
    """A program of the extension whose weights are not bound yet.

    Attributes:
        items: its weights in the order in which they are used.
        calls: for each call of the program, the weights that it reads.
    """

    native: Any
    items: list[Item] = field(default_factory=list)
    calls: list[list[Bound]] = field(default_factory=list)

    def bounds(self) -> list[Bound]:
        """Everything that is to be bound."""
        return list(dict.fromkeys(bound for call in self.calls for bound in call))
