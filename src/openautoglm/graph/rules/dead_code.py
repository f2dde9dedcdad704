"""Let go what nobody reads."""

from __future__ import annotations

from openautoglm.graph.ir import Graph
from openautoglm.graph.rewrite import RewriteGraph


def _remove(graph: Graph) -> list[str]:
    before = [node.output.name for node in graph.nodes] + list(graph.weights)
    graph.remove_dead()
    kept = {value.name for value in graph.values()}
    return [name for name in before if name not in kept]


dead_code = RewriteGraph(_remove, "dead_code")
