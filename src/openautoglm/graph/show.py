"""A graph as text, in aligned columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from openautoglm.graph.ir import Graph, Value
from openautoglm.graph.rewrite import Application
from openautoglm.graph.sections import Row, Section, sections
from openautoglm.graph.sources import Quantised

_Line = tuple[str, str, str, str, str]
_HEAD = ("value", "type", "operator", "reads", "attributes")
_WIDEST = 56
"""Letters of a column beyond which it no longer widens the others' rows."""


def text(graph: Graph, *, fold: bool = True) -> str:
    """Return a graph as text, a line for each output of a node and, under the node, one for each weight it reads.

    Args:
        fold: show layers that repeat each other once.
    """
    shown = sections(graph, fold=fold)
    lines = [row for section in shown for row in _rows(section)]
    widths = [min(_WIDEST, max(len(cell) for cell in column)) for column in zip(_HEAD, *lines, strict=True)]
    body: list[str] = [_aligned(_HEAD, widths)]
    for section in shown:
        body += ["", *([section.title] if section.title else [])]
        body += [_aligned(row, widths) for row in _rows(section)]
    ends = [f"{kind:<8} " + ", ".join(f"{value.name} {value.type}" for value in values)
            for kind, values in (("inputs", graph.inputs), ("outputs", graph.outputs))]
    return "\n".join([*ends, summary(graph), "", *body])


def summary(graph: Graph) -> str:
    """One line: how many nodes, and how many values weights have, by format."""
    values: Counter[str] = Counter()
    for weight in graph.weights.values():
        values[_format(weight)] += math.prod(int(dim) for dim in weight.type.shape)
    forms = ", ".join(f"{count:,} {form}" for form, count in values.most_common())
    return f"{len(graph.nodes):,} nodes, {len(graph.weights):,} weights of {values.total():,} values: {forms}"


def counts(done: Iterable[Application]) -> str:
    """How often each rule was applied, a line each, the busiest first."""
    found = Counter(one.rule for one in done).most_common()
    width = max((len(rule) for rule, _ in found), default=0)
    return "\n".join(f"{rule:<{width}}  {count:>5}" for rule, count in found)


def _format(weight: Value) -> str:
    return weight.source.format if isinstance(weight.source, Quantised) else "as loaded"


def _rows(section: Section) -> Iterator[_Line]:
    for row in section.rows:
        yield from _lines(row)


def _lines(row: Row) -> Iterator[_Line]:
    yield row.outputs[0], row.types[0], row.operator, ", ".join(row.inputs), row.attributes
    for name, type in zip(row.outputs[1:], row.types[1:], strict=True):
        yield name, type, "", "", ""
    for weight in row.weights:
        made = "" if weight.source == weight.name else weight.source
        yield f"  {weight.name}", weight.shape, "  weight", made, weight.format


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
