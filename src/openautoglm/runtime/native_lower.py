"""From a graph to the flat list of calls that the extension runs: operators by their kinds, values at their places."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from openautoglm.core.errors import GraphError
from openautoglm.graph.ir import Graph, Node, Value
from openautoglm.graph.sources import Quantised
from openautoglm.runtime.buffers import Buffers, Place, assign
from openautoglm.runtime.kernels import kernel_of
from openautoglm.runtime.lowered import Bound, Lowered
from openautoglm.runtime.packing import HEADER_BYTES, PANEL, Item, packed_item, products, rows_item, tied_item
from openautoglm.runtime.program import Plan
from openautoglm.runtime.tensors import Checkpoint
from openautoglm.runtime.weights import BITS

_STEP_INPUTS = ("ids", "positions", "wanted")


def lower_graph(graph: Graph, plan: Plan, checkpoint: Checkpoint | None, native: ModuleType, team: Any, cache: Any, *,
                most_bytes: int = 0, beside: Sequence[Item] = ()) -> Lowered:
    """Make a program of a graph.

    Args:
        checkpoint: where types of tables are looked up; None: they are as the plan says.
        native, team, cache: the extension, its threads and its cache.
        most_bytes: matrices larger than that are multiplied by in several calls; 0: each in one.
        beside: weights that another program holds already.

    Raises:
        GraphError: an operator that the native target does not know, and for which no kernel is registered.
    """
    expand(graph)
    return _Lowering(graph, plan, checkpoint, native, team, cache, most_bytes, beside).run()


def expand(graph: Graph) -> None:
    """Replace operators that are two here: a norm and the linear that reads it."""
    for node in [node for node in graph.nodes if node.operator == "norm_linear"]:
        x, norm, *rest = node.inputs
        normed = graph.apply("rms_norm", x, norm, name=f"{node.output.name}.normed", before=node, **node.attributes)
        product = graph.apply("linear", normed, *rest, name=node.output.name, before=node)
        graph.replace(node.output, product)
        graph.nodes.remove(node)


class _Lowering:
    def __init__(self, graph: Graph, plan: Plan, checkpoint: Checkpoint | None, native: Any, team: Any, cache: Any,
                 most_bytes: int, beside: Sequence[Item]) -> None:
        self.graph, self.plan, self.checkpoint, self.native = graph, plan, checkpoint, native
        self.buffers: Buffers = assign(graph, plan.max_rows, plan.max_wanted)
        self.most_bytes, self.beside = most_bytes, beside
        self.program = native.Program(team, cache, plan.max_rows, plan.max_wanted, plan.spec.max_positions,
                                      self.buffers.bytes)
        self.lowered = Lowered(self.program)
        self.rows: dict[tuple[Value, bool], Bound] = {}
        self.packed: dict[tuple[Value, Value | None], list[Bound]] = {}
        self.tables: dict[tuple[float, int], int] = {}
        self.items: dict[str, Item] = {}

    def run(self) -> Lowered:
        for node, barrier in zip(self.graph.nodes, self.buffers.barriers, strict=True):
            make = _KINDS.get(node.operator, _plugin)
            for number, (call, bound) in enumerate(make(self, node)):
                call.barrier = barrier and number == 0
                try:
                    self.program.add(call)
                except ValueError as error:
                    raise GraphError(str(error), where=node.output.name) from error
                self.lowered.calls.append(bound)
        return self.lowered

    def call(self, kind: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> Any:
        """A call of a kind between values."""
        call = self.native.Call(kind)
        call.inputs = [self.place(value) for value in inputs]
        call.outputs = [self.place(value) for value in outputs]
        return call

    def place(self, value: Value) -> Any:
        """The extension's place of a value, which is an input of the step or has a place in the arena."""
        found = self.buffers.places.get(value)
        if found is None and value in self.graph.inputs and value.name in _STEP_INPUTS:
            found = Place(value.name, value.name == "wanted")
        if found is None:
            raise GraphError("cannot be read by an operator of the native target", where=value.name)
        return self.native_place(found)

    def native_place(self, place: Place) -> Any:
        return self.native.Place(place.space, place.wanted, place.offset, place.stride, place.width, place.group)

    def rows_of(self, value: Value, *, exact: bool) -> Bound:
        """Plain rows, declared at their first use."""
        known = self.rows.get((value, exact))
        if known is None:
            item = rows_item(value, self.checkpoint, self.plan, exact=exact)
            number = self.program.declare_tensor(item.format, item.rows, item.columns)
            known = self.rows[value, exact] = Bound(self._item(item), number, 0, item.bytes, item.rows)
        return known

    def table_of(self, table: Value) -> Bound:
        """What rows of a table are taken of: its own packed codes, a packed head that holds it, or plain rows."""
        if isinstance(table.source, Quantised) and table.source.format in BITS:
            return self._taken(packed_item(table, None, self.plan))
        return self.head_of(table) or self.rows_of(table, exact=False)

    def head_of(self, table: Value) -> Bound | None:
        """The packed head that holds what a table holds, for rows to be taken of it; None: there is none."""
        rows = rows_item(table, self.checkpoint, self.plan, exact=False)
        item = tied_item([*self.beside, *products(self.graph, self.plan)], rows)
        return None if item is None else self._taken(item)

    def _taken(self, item: Item) -> Bound:
        """A packed matrix of which single rows are taken."""
        number = self.program.declare_weight(item.format, item.rows, item.columns, item.group, item.symmetric)
        return Bound(self._item(item), number, HEADER_BYTES, item.bytes - HEADER_BYTES, item.rows, taken=True)

    def packed_of(self, weight: Value, bias: Value | None) -> list[Bound]:
        """A packed matrix, declared at its first use: in one piece, or in several of at most `most_bytes`."""
        known = self.packed.get((weight, bias))
        if known is None:
            item = self._item(packed_item(weight, bias, self.plan))
            panels = -(-item.rows // PANEL)
            each = (item.bytes - HEADER_BYTES) // panels
            step = max(1, self.most_bytes // each) if self.most_bytes else panels
            known = self.packed[weight, bias] = []
            for first in range(0, panels, step):
                count = min(step, panels - first)
                rows = min(item.rows - first * PANEL, count * PANEL)
                number = self.program.declare_weight(item.format, rows, item.columns, item.group, item.symmetric)
                known.append(Bound(item, number, HEADER_BYTES + first * each, count * each, rows))
        return known

    def table(self, theta: float, dims: int) -> int:
        if (theta, dims) not in self.tables:
            self.tables[theta, dims] = self.program.declare_table(theta, dims)
        return self.tables[theta, dims]

    def _item(self, item: Item) -> Item:
        """Each form of a weight once."""
        known = self.items.setdefault(item.digest, item)
        if known is item:
            self.lowered.items.append(item)
        return known


Made = list[tuple[Any, list[Bound]]]


def _embedding(lowering: _Lowering, node: Node) -> Made:
    call = lowering.call("embedding", node.inputs[:1], node.outputs)
    table = lowering.table_of(node.inputs[1])
    call.weight, call.tensor = (table.number, -1) if table.taken else (-1, table.number)
    return [(call, [table])]


def _value(kind: str) -> Callable[[_Lowering, Node], Made]:
    """Operators whose inputs and outputs are all values."""
    return lambda lowering, node: [(lowering.call(kind, node.inputs, _codes_once(node)), [])]


def _norm(kind: str, inputs: int) -> Callable[[_Lowering, Node], Made]:
    """Norms: so many values, then the weight (if any)."""
    def make(lowering: _Lowering, node: Node) -> Made:
        call = lowering.call(kind, node.inputs[:inputs], _codes_once(node))
        call.eps = float(node.attributes["eps"])  # type: ignore[arg-type]
        bound = [lowering.rows_of(weight, exact=True) for weight in node.inputs[inputs:]]
        if bound:
            call.tensor = bound[0].number
        return [(call, bound)]

    return make


def _linear(kind: str, before: int) -> Callable[[_Lowering, Node], Made]:
    """Products: one value (of codes and scales only the codes), the weight, perhaps a bias; a call for each piece."""
    def make(lowering: _Lowering, node: Node) -> Made:
        weight, *rest = node.inputs[before:]
        bias = rest[0] if rest else None
        made, width = [], 0
        place = lowering.buffers.places[node.output]
        for bound in lowering.packed_of(weight, bias):
            shift = width if place.space == "logits" else 4 * width
            call = lowering.call(kind, node.inputs[:1], [])
            call.outputs = [lowering.native_place(replace(place, offset=place.offset + shift, width=bound.rows))]
            call.weight = bound.number
            made.append((call, [bound]))
            width += bound.rows
        return made

    return make


def _silu_mul(kind: str) -> Callable[[_Lowering, Node], Made]:
    """gate and up, or both in one value, gate first."""
    def make(lowering: _Lowering, node: Node) -> Made:
        call = lowering.call(kind, node.inputs, _codes_once(node))
        if len(node.inputs) == 1:
            whole = lowering.buffers.places[node.inputs[0]]
            half = whole.width // 2
            call.inputs = [lowering.native_place(replace(whole, offset=whole.offset + 4 * column, width=half))
                           for column in (0, half)]
        return [(call, [])]

    return make


def _rotary(lowering: _Lowering, node: Node) -> Made:
    call = lowering.call("rotary", node.inputs, node.outputs)
    facts: Any = node.attributes
    call.head_dim = facts["head_dim"]
    call.table = lowering.table(float(facts["theta"]), facts["rotary_dims"])
    return [(call, [])]


def _attention(lowering: _Lowering, node: Node) -> Made:
    call = lowering.call("attention", node.inputs[:3], node.outputs)
    facts: Any = node.attributes
    call.layer, call.head_dim, call.scale = facts["layer"], facts["head_dim"], 1 / math.sqrt(facts["head_dim"])
    return [(call, [])]


def _plugin(lowering: _Lowering, node: Node) -> Made:
    """An operator of a plug-in, by its C kernel."""
    call = lowering.call("plugin", [], node.outputs)
    call.set_kernel(kernel_of(node.operator, "native"))
    numbers = {name: float(value) for name, value in node.attributes.items() if isinstance(value, int | float)}
    call.names, call.values = list(numbers), list(numbers.values())
    bound, places = [], []
    for value in node.inputs:
        if value.source is None:
            places.append(lowering.place(value))
            continue
        rows = lowering.rows_of(value, exact=True)
        bound.append(rows)
        places.append(lowering.native.Place("tensor", offset=rows.number))
    call.inputs = places
    return [(call, bound)]


def _codes_once(node: Node) -> list[Value]:
    """Outputs, of codes and scales only the codes: their place holds both."""
    codes = [place for place, value in enumerate(node.outputs) if value.type.dtype == "int8"]
    return node.outputs[:codes[0] + 1] if codes else node.outputs


_KINDS: dict[str, Callable[[_Lowering, Node], Made]] = {
    "embedding": _embedding,
    "split": lambda lowering, node: [],
    "gather_rows": _value("gather_rows"),
    "add": _value("add"),
    "mul": _value("mul"),
    "silu": _value("silu"),
    "silu_mul": _silu_mul("silu_mul"),
    "silu_mul_quantise": _silu_mul("silu_mul_quantise"),
    "quantise_rows": _value("quantise_rows"),
    "rms_norm": _norm("rms_norm", 1),
    "unit_rms_norm": _norm("rms_norm", 1),
    "rms_norm_quantise": _norm("rms_norm_quantise", 1),
    "add_rms_norm": _norm("add_rms_norm", 2),
    "add_rms_norm_quantise": _norm("add_rms_norm_quantise", 2),
    "linear": _linear("linear", 1),
    "quantised_linear": _linear("linear", 1),
    "quantised_rows_linear": _linear("quantised_rows_linear", 2),
    "rotary": _rotary,
    "paged_attention": _attention,
}
