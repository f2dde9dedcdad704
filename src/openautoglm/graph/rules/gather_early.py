"""Gather the wanted rows before work that is done row by row, not after it.

Only the last rows of prompts need logits. The gather climbs from the head over the last norm and the last feed-forward
up to the last attention, so all of these work on the wanted rows alone.
"""

from __future__ import annotations

from openautoglm.graph.ir import Graph, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import GatherRows, Operation
from openautoglm.graph.rewrite import ReplacePattern

_ROWS_FIRST = Operation("linear", "quantised_linear", "rms_norm", "unit_rms_norm", "norm_linear", "silu")
_ROWS_ALL = Operation("add", "mul", "silu_mul")


def _climb(match: Match, graph: Graph) -> Value:
    """Gather the inputs that have rows: all of an add's, the first of a linear's."""
    node, (numbers,) = match.node("work"), match.roots[0].inputs[1:]
    rows = len(node.inputs) if node.operator in _ROWS_ALL.operators else 1
    inputs = [_gathered(value, numbers, graph) for value in node.inputs[:rows]]
    return graph.apply(node.operator, *inputs, *node.inputs[rows:], name=match.outputs[0].name,
                       before=None, **node.attributes)


def _gathered(value: Value, numbers: Value, graph: Graph) -> Value:
    """The wanted rows of a value, gathered once."""
    for node in graph.users(value):
        if node.operator == "gather_rows" and node.inputs[1] is numbers:
            return node.output
    return graph.apply("gather_rows", value, numbers, name=f"{value.name}.wanted")


gather_early = ReplacePattern(
    pattern=Operation(*_ROWS_FIRST.operators, *_ROWS_ALL.operators)().as_("work") + GatherRows(),
    replacement=_climb, name="gather_early")
