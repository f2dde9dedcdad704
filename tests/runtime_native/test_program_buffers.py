"""Places of values: nothing that is alive is overwritten, and threads wait wherever one needs what another wrote."""

from __future__ import annotations

from typing import Any

import pytest
from runtime_models import tiny_spec

from openautoglm.core.errors import GraphError
from openautoglm.graph.build import build
from openautoglm.graph.ir import Graph, Node, Value
from openautoglm.graph.recipe import Quantisation
from openautoglm.graph.rewrite import rewrite
from openautoglm.graph.rules.registry import rules_for
from openautoglm.runtime.buffers import Buffers, Place, assign, codes_bytes

ROWS, WANTED = 7, 3
GRAPHS = [(None, True), (None, False), (Quantisation(), True), (Quantisation(format="int4", group=0), True)]


def graph_of(family: Any, recipe: Quantisation | None, ruled: bool) -> Graph:
    graph = build(tiny_spec(family=family, hidden_size=64, ffn_size=96))
    rewrite(graph, rules_for("native", recipe) if ruled else ())
    return graph


def cells(place: Place) -> set[tuple[str, int]]:
    """The bytes of a value, each group of four once."""
    rows = WANTED if place.wanted else ROWS
    if place.space == "codes":
        start = place.offset // 4
        return {("arena", cell) for cell in range(start, start + codes_bytes(rows, place.width, place.group) // 4)}
    if place.space == "logits":
        return {("logits", row * place.stride + place.offset + column) for row in range(rows)
                for column in range(place.width)}
    return {("arena", place.offset // 4 + row * place.stride + column) for row in range(rows)
            for column in range(place.width)}


@pytest.mark.parametrize("family", ["glm", "glm4"])
@pytest.mark.parametrize(("recipe", "ruled"), GRAPHS)
def test_what_is_read_is_what_was_written(family: Any, recipe: Quantisation | None, ruled: bool) -> None:
    graph = graph_of(family, recipe, ruled)
    buffers = assign(graph, ROWS, WANTED)
    holder: dict[tuple[str, int], set[Value]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            for cell in cells(buffers.places[value]) if value in buffers.places else ():
                assert value in holder[cell], f"{node.output.name} reads {value.name}, which was overwritten"
        for value in node.outputs:
            for cell in cells(buffers.places[value]):
                kept = {other for other in holder.get(cell, ()) if _together(node, buffers.places[value], other)}
                holder[cell] = {value, *kept}
                space, number = cell
                assert space == "logits" or 0 <= number < buffers.bytes // 4


def _together(node: Node, place: Place, other: Value) -> bool:
    """Whether a value may lie where another lies: a part in its whole, scales with their codes."""
    return other in node.inputs if node.operator == "split" else place.space == "codes" and other in node.outputs


@pytest.mark.parametrize("family", ["glm", "glm4"])
@pytest.mark.parametrize(("recipe", "ruled"), GRAPHS)
def test_nodes_that_touch_the_same_bytes_have_a_wait_between_them(family: Any, recipe: Quantisation | None,
                                                                  ruled: bool) -> None:
    graph = graph_of(family, recipe, ruled)
    buffers = assign(graph, ROWS, WANTED)
    reads: set[tuple[str, int]] = set()
    writes: set[tuple[str, int]] = set()
    waits = 0
    for node, barrier in zip(graph.nodes, buffers.barriers, strict=True):
        if node.operator == "split":
            continue
        if barrier:
            reads, writes, waits = set(), set(), waits + 1
        mine, made = touched(buffers, node.inputs), touched(buffers, node.outputs)
        assert not mine & writes, f"{node.output.name} reads what others are writing"
        assert not made & (reads | writes), f"{node.output.name} overwrites what others use"
        reads |= mine
        writes |= made
    assert waits < len(graph.nodes)  # the turns of queries and keys need none between them


def touched(buffers: Buffers, values: list[Value]) -> set[tuple[str, int]]:
    """The bytes of some values."""
    return {cell for value in values if value in buffers.places for cell in cells(buffers.places[value])}


def test_places_are_used_again() -> None:
    spec = tiny_spec(layers=6)
    graph = build(spec)
    rewrite(graph, rules_for("native"))
    few = build(tiny_spec(layers=2))
    rewrite(few, rules_for("native"))
    assert assign(graph, ROWS, WANTED).bytes == assign(few, ROWS, WANTED).bytes


def test_the_output_cannot_be_a_part() -> None:
    graph = graph_of("glm", None, False)
    (logits,) = graph.outputs
    graph.outputs = [graph.node("split", logits, sizes=(90, 6)).outputs[0]]
    with pytest.raises(GraphError, match="a part of another value cannot be the output"):
        assign(graph, ROWS, WANTED)
