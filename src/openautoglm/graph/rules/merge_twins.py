"""Do the same thing once: nodes of one operator with the same inputs and attributes become one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from openautoglm.graph.ir import Graph, Node
from openautoglm.graph.operators import operator_of
from openautoglm.graph.rewrite import RewriteGraph


def _merge(graph: Graph) -> Iterator[str]:
    first: dict[Hashable, Node] = {}
    merged = False
    for node in graph.nodes:
        if operator_of(node.operator).effect:
            continue
        key = (node.operator, tuple(node.inputs), tuple(sorted(node.attributes.items())))
        twin = first.setdefault(key, node)
        if twin is not node:
            for old, new in zip(node.outputs, twin.outputs, strict=True):
                graph.replace(old, new)
            merged = True
            yield node.output.name
    if merged:
        graph.remove_dead()


merge_twins = RewriteGraph(_merge, "merge_twins")
