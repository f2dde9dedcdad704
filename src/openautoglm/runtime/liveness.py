"""When values of a graph are read for the last time, and how many bytes are alive at the worst moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from openautoglm.graph.ir import Graph, Node, Value


def last_reads(graph: Graph) -> list[list[Value]]:
    """For each node, the outputs of nodes that nobody reads after it (its own unread outputs too)."""
    kept = set(graph.outputs)
    dying: list[list[Value]] = []
    for node in reversed(graph.nodes):
        dead = [value for value in dict.fromkeys((*node.inputs, *node.outputs))
                if value.producer is not None and value not in kept]
        kept.update(dead)
        dying.append(dead)
    return dying[::-1]


def peak_bytes(graph: Graph, sizes: Mapping[str, int], value_bytes: Callable[[Value], int],
               scratch_bytes: Callable[[Node], int]) -> int:
    """Bytes at the worst moment of a step: values alive, and the work space of the node that runs.

    Args:
        sizes: of named dimensions (``rows``, ``wanted``).
        value_bytes: bytes of one element.
        scratch_bytes: work space of a node.
    """
    def size(value: Value) -> int:
        return math.prod(sizes[dim] if isinstance(dim, str) else dim for dim in value.type.shape) * value_bytes(value)

    alive = peak = 0
    for node, dead in zip(graph.nodes, last_reads(graph), strict=True):
        alive += sum(map(size, node.outputs))
        peak = max(peak, alive + scratch_bytes(node))
        alive -= sum(map(size, dead))
    return peak
