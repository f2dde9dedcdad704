"""What the extension would be told of a program, written down: the edge program is told the same.

`lower_graph` makes the engine's programs by calls of the extension. Given this module's `RECORDER` in its place, it
makes the same calls, and they stay here as data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from openautoglm.core.errors import GraphError
from openautoglm.runtime.buffers import Place


@dataclass
class Call:
    """As `_native.Call`."""

    kind: str
    barrier: bool = True
    inputs: list[Place] = field(default_factory=list)
    outputs: list[Place] = field(default_factory=list)
    weight: int = -1
    tensor: int = -1
    table: int = -1
    eps: float = 0.0
    scale: float = 0.0
    head_dim: int = 0
    layer: int = 0

    def set_kernel(self, capsule: object) -> None:
        """A plug-in's kernel is a library of this machine, which a static program cannot take along.

        Raises:
            GraphError: always.
        """
        raise GraphError("the edge program cannot take the kernel of a plug-in along", where=self.kind,
                         remedy="export a model without operators of plug-ins")


@dataclass(frozen=True)
class Shape:
    """A packed weight or plain rows, as declared."""

    format: str
    rows: int
    columns: int
    group: int = 0
    symmetric: bool = True


@dataclass
class Recorded:
    """As `_native.Program`, until weights are bound."""

    max_rows: int
    arena_bytes: int
    weights: list[Shape] = field(default_factory=list)
    tensors: list[Shape] = field(default_factory=list)
    tables: list[tuple[float, int]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def declare_weight(self, format: str, rows: int, columns: int, group: int = 0, symmetric: bool = True) -> int:
        """A packed weight; returns its number."""
        self.weights.append(Shape(format, rows, columns, group, symmetric))
        return len(self.weights) - 1

    def declare_tensor(self, format: str, rows: int, columns: int) -> int:
        """Plain rows; returns their number."""
        self.tensors.append(Shape(format, rows, columns))
        return len(self.tensors) - 1

    def declare_table(self, theta: float, dims: int) -> int:
        """A rotary table; returns its number."""
        self.tables.append((theta, dims))
        return len(self.tables) - 1

    def add(self, call: Call) -> None:
        """Append a call."""
        self.calls.append(call)


def _program(team: Any, cache: Any, max_rows: int, max_wanted: int, max_positions: int, arena_bytes: int) -> Recorded:
    return Recorded(max_rows, arena_bytes)


RECORDER: Any = SimpleNamespace(Program=_program, Call=Call, Place=Place)
"""Stands for the extension in `lower_graph`."""
