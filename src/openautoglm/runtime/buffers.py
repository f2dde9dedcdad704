"""Where the values of a graph lie during a step, all in one arena, and where the threads must wait for each other.

A storage is a piece of the arena; values that are parts of others (split) or that overwrite an input (add, rotary) lie
in its columns. Two storages share bytes if no value of one is alive while a value of the other is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from openautoglm.core.errors import GraphError
from openautoglm.graph.ir import Graph, Node, Value

_LINE = 64
_IN_PLACE = frozenset({"add", "mul", "silu", "silu_mul", "rotary"})
"""Operators that work value by value, so that their output may take the place of an input."""


@dataclass(frozen=True)
class Place:
    """Where a value lies; `_native.Place` has the same fields.

    Attributes:
        space: ``arena``, ``codes`` (int8 with scales and sums, in the arena), ``logits``, or an input's name.
        wanted: it has a row for each wanted row, not for each row of the step.
        offset: bytes from the start of the arena; of logits values from the start of a row.
        stride: values from one row to the next.
        width: values of a row.
        group: of codes, values that share a scale; 0 for whole rows.
    """

    space: str
    wanted: bool = False
    offset: int = 0
    stride: int = 0
    width: int = 0
    group: int = 0


@dataclass
class _Storage:
    space: str
    wanted: bool
    width: int
    group: int
    bytes: int
    first: int
    last: int
    offset: int = 0
    values: list[Value] = field(default_factory=list)


@dataclass(frozen=True)
class _Part:
    """Columns of a storage."""

    storage: _Storage
    column: int
    width: int

    def overlaps(self, other: _Part) -> bool:
        """Whether bytes are shared, once storages have their offsets."""
        if self.storage is other.storage:
            return self.column < other.column + other.width and other.column < self.column + self.width
        return (self.storage.offset < other.storage.offset + other.storage.bytes
                and other.storage.offset < self.storage.offset + self.storage.bytes)


@dataclass(frozen=True)
class Buffers:
    """Places of values, and bytes of the arena.

    Attributes:
        barriers: for each node whether all threads must have come so far before it begins.
    """

    places: Mapping[Value, Place]
    barriers: list[bool]
    bytes: int


def assign(graph: Graph, max_rows: int, max_wanted: int) -> Buffers:
    """Give every value a place.

    Args:
        graph: its weights may be anything; its values are fp32 or, in pairs, codes and scales.
        max_rows, max_wanted: most token rows of a step, and most of them whose logits are asked for.

    Raises:
        GraphError: a value of another type, or the output is a part of another value.
    """
    planner = _Planner(graph, max_rows, max_wanted)
    for number, node in enumerate(graph.nodes):
        planner.visit(number, node)
    return planner.finish()


def codes_bytes(rows: int, width: int, group: int) -> int:
    """Bytes of `rows` rows of codes, their scales and their sums, as the extension counts them."""
    size = group or width
    groups = width // size
    return _line(rows * groups * (-(-size // 8) * 8)) + 2 * _line(rows * groups * 4)


class _Planner:
    def __init__(self, graph: Graph, max_rows: int, max_wanted: int) -> None:
        self.graph, self.max_rows, self.max_wanted = graph, max_rows, max_wanted
        self.parts: dict[Value, _Part] = {}
        self.storages: list[_Storage] = []
        self.last = {value: number for number, node in enumerate(graph.nodes)
                     for value in (*node.outputs, *node.inputs)}
        self.end = len(graph.nodes)
        self.last.update(dict.fromkeys(graph.outputs, self.end))

    def visit(self, number: int, node: Node) -> None:
        """Decide in which storage the outputs of a node lie."""
        if node.operator == "split":
            self._split(node)
        elif any(value.type.dtype == "int8" for value in node.outputs):
            self._codes(number, node)
        else:
            inherited = self._inherited(number, node)
            for place, value in enumerate(node.outputs):
                if place == 0 and inherited is not None:
                    self._put(value, inherited)
                else:
                    self._new(number, value, int(value.type.shape[1]))

    def finish(self) -> Buffers:
        """Place storages, the largest first, each as low as it fits among those that live at the same time."""
        placed: list[_Storage] = []
        for storage in sorted((one for one in self.storages if one.space != "logits"), key=lambda one: -one.bytes):
            alive = sorted((one for one in placed if one.first <= storage.last and storage.first <= one.last),
                           key=lambda one: one.offset)
            for other in alive:
                if other.offset < storage.offset + storage.bytes and storage.offset < other.offset + other.bytes:
                    storage.offset = other.offset + other.bytes
            placed.append(storage)
        total = max((one.offset + one.bytes for one in placed), default=0)
        for storage in self.storages:
            if storage.space == "logits":
                storage.offset = total  # behind the arena: it overlaps nothing
        places = {value: _place(part) for value, part in self.parts.items()}
        return Buffers(places, self._barriers(), total)

    def _split(self, node: Node) -> None:
        whole, column = self.parts[node.inputs[0]], 0
        for value in node.outputs:
            if value in self.graph.outputs:
                raise GraphError("a part of another value cannot be the output", where=value.name)
            width = int(value.type.shape[1])
            self._put(value, _Part(whole.storage, whole.column + column, width))
            column += width

    def _codes(self, number: int, node: Node) -> None:
        """Codes and the scales after them lie together; what comes before them is a value of its own."""
        *others, codes, scales = node.outputs
        for value in others:
            self._new(number, value, int(value.type.shape[1]))
        group = node.attributes.get("group")
        if codes.type.dtype != "int8" or not isinstance(group, int):
            raise GraphError(f"{node.operator} gives codes that the native target does not know",
                             where=node.output.name)
        part = self._new(number, codes, int(codes.type.shape[1]), group)
        self._put(scales, part)

    def _inherited(self, number: int, node: Node) -> _Part | None:
        """The columns of an input that the first output may overwrite."""
        output = node.output
        if node.operator not in _IN_PLACE or output in self.graph.outputs:
            return None
        for value in node.inputs:
            part = self.parts.get(value)
            if part is None or value.type.shape[0] != output.type.shape[0] or part.storage.space != "arena":
                continue
            mine = _Part(part.storage, part.column, int(output.type.shape[1]))
            others = (other for other in part.storage.values if other is not value and self.parts[other].overlaps(mine))
            if self.last[value] == number and all(self.last[other] < number for other in others):
                return mine
        return None

    def _new(self, number: int, value: Value, width: int, group: int | None = None) -> _Part:
        if value.type.dtype != ("fp32" if group is None else "int8"):
            raise GraphError(f"values of type {value.type} have no place on the native target", where=value.name)
        wanted = value.type.shape[0] == "wanted"
        rows = self.max_wanted if wanted else self.max_rows
        space = "codes" if group is not None else "logits" if value in self.graph.outputs else "arena"
        size = rows * width * 4 if group is None else codes_bytes(rows, width, group)
        storage = _Storage(space, wanted, width, group or 0, _line(size), number, number)
        self.storages.append(storage)
        return self._put(value, _Part(storage, 0, width))

    def _put(self, value: Value, part: _Part) -> _Part:
        self.parts[value] = part
        part.storage.values.append(value)
        part.storage.last = max(part.storage.last, self.last[value])
        return part

    def _barriers(self) -> list[bool]:
        """A node waits where it reads what others wrote since the last wait, or overwrites what they read or wrote."""
        barriers = []
        reads: list[_Part] = []
        writes: list[_Part] = []
        shared = False  # whether the work space that holds codes of linears is in use
        for node in self.graph.nodes:
            mine = [self.parts[value] for value in node.inputs if value in self.parts]
            made = [self.parts[value] for value in node.outputs]
            uses_shared = node.operator in ("linear", "quantised_linear")
            waits = (_meet(mine, writes) or _meet(made, writes) or _meet(made, reads) or (shared and uses_shared))
            waits = waits and node.operator != "split"
            if waits:
                reads, writes, shared = [], [], False
            barriers.append(waits)
            if node.operator != "split":
                reads += mine
                writes += made
                shared = shared or uses_shared
        return barriers


def _meet(some: list[_Part], others: list[_Part]) -> bool:
    return any(one.overlaps(other) for one in some for other in others)


def _place(part: _Part) -> Place:
    storage = part.storage
    if storage.space == "codes":
        return Place("codes", storage.wanted, storage.offset, 0, storage.width, storage.group)
    if storage.space == "logits":
        return Place("logits", storage.wanted, part.column, storage.width, part.width)
    return Place("arena", storage.wanted, storage.offset + 4 * part.column, storage.width, part.width)


def _line(size: int) -> int:
    return -(-size // _LINE) * _LINE
