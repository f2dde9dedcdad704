"""The order in which nodes can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from openautoglm.core.errors import GraphError
from openautoglm.graph.ir import Node


def in_running_order(nodes: Sequence[Node]) -> list[Node]:
    """Move nodes up to before their first reader, and leave the others where they are.

    Raises:
        GraphError: nodes wait for each other.
    """
    ordered: list[Node] = []
    state: dict[Node, bool] = dict.fromkeys(nodes, False)  # placed or not; a node outside has been dropped
    for first in nodes:
        path, on_path = [first], {first}
        while path:
            node = path[-1]
            waits_for = next((maker for maker in _makers(node) if not state.get(maker, True)), None)
            if state[node] or waits_for is None:
                if not state[node]:
                    state[node] = True
                    ordered.append(node)
                on_path.discard(path.pop())
            elif waits_for in on_path:
                raise GraphError("its inputs wait for its own output", where=node.output.name,
                                 remedy="do not replace values that are needed to make the replacement")
            else:
                path.append(waits_for)
                on_path.add(waits_for)
    return ordered


def _makers(node: Node) -> Iterable[Node]:
    return (value.producer for value in node.inputs if value.producer is not None)
