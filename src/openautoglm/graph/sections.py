"""A graph as it is shown: rows in sections, one for each layer, and layers that repeat each other once.

Inside the section of a layer its own names go without ``model.layers.N.``; those of other layers say which: ``[2].x``,
or ``[N-1].x`` where the section stands for several layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from openautoglm.graph.ir import Attribute, Graph, Node, Value
from openautoglm.graph.sources import Concat, Quantised, Rows, Scaled, Source, Tensor

_LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Weight:
    """A weight as its reader shows it: name, shape, format (empty: that of the load), and what it is made of."""

    name: str
    shape: str
    format: str
    source: str


@dataclass(frozen=True)
class Row:
    """A node as it is shown; `inputs` without weights."""

    operator: str
    outputs: tuple[str, ...]
    types: tuple[str, ...]
    inputs: tuple[str, ...]
    attributes: str
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class Section:
    """Some rows: of no layer, of a layer, or of the layers `first` to `last` which are all alike.

    Attributes:
        nodes: those of the first layer of the section, one for each row.
        repeats: those of every layer in turn.
    """

    first: int | None
    last: int | None
    rows: tuple[Row, ...]
    repeats: tuple[tuple[Node, ...], ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the rows."""
        return self.repeats[0]

    @property
    def title(self) -> str:
        """What the section is of; empty where it is of no layer."""
        if self.first is None:
            return ""
        if self.first == self.last:
            return f"layer {self.first}"
        return f"layers {self.first} to {self.last}, {len(self.repeats)} times the same"


def sections(graph: Graph, *, fold: bool = True) -> list[Section]:
    """Cut a graph into its sections, in running order; `fold` puts layers that repeat each other into one."""
    found: list[Section] = []
    for layer, pairs in groupby(_with_layers(graph.nodes), lambda pair: pair[0]):
        section = _section(layer, tuple(node for _, node in pairs), "N")
        before = found[-1] if found else None
        if fold and before is not None and before.last is not None and layer == before.last + 1 and (
                before.rows == section.rows):
            found[-1] = Section(before.first, layer, before.rows, (*before.repeats, *section.repeats))
        else:
            found.append(section)
    return [one if one.first != one.last or one.first is None else _section(one.first, one.nodes, str(one.first))
            for one in found]


def _with_layers(nodes: Iterable[Node]) -> Iterator[tuple[int | None, Node]]:
    """Nodes and the layer that the name of their first output tells, or a later one that has begun already."""
    latest = 0
    for node in nodes:
        found = _LAYER.match(node.output.name)
        latest = max(latest, int(found[1])) if found else latest
        yield latest if found else None, node


def _section(layer: int | None, nodes: tuple[Node, ...], name: str) -> Section:
    return Section(layer, layer, tuple(_row(node, _Names(layer, name)) for node in nodes), (nodes,))


class _Names:
    """Names as they are seen from a layer."""

    def __init__(self, layer: int | None, name: str) -> None:
        self.layer, self.name = layer, name

    def __call__(self, name: str) -> str:
        """The name, short."""
        return name if self.layer is None else _LAYER.sub(self._other, name)

    def attribute(self, name: str, value: Attribute) -> str:
        """An attribute; the number of the layer by its name."""
        if name == "layer" and value == self.layer:
            return f"layer={self.name}"
        if isinstance(value, bool):
            return name if value else f"not {name}"
        return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}".replace(" ", "")

    def _other(self, found: re.Match[str]) -> str:
        away = int(found[1]) - (self.layer or 0)
        if away == 0:
            return ""
        return f"[{self.name}{away:+d}]." if self.name == "N" else f"[{found[1]}]."


def _row(node: Node, names: _Names) -> Row:
    inputs = (value for value in node.inputs if value.source is None)
    return Row(node.operator, tuple(names(value.name) for value in node.outputs),
               tuple(str(value.type) for value in node.outputs), tuple(names(value.name) for value in inputs),
               " ".join(names.attribute(*pair) for pair in node.attributes.items()),
               tuple(_weights(node.inputs, names)))


def _weights(values: Iterable[Value], names: _Names) -> Iterator[Weight]:
    for value in values:
        if value.source is not None:
            quantised = value.source if isinstance(value.source, Quantised) else None
            source, form = (quantised.of, _format(quantised)) if quantised else (value.source, "")
            shape = f"[{', '.join(map(str, value.type.shape))}]"
            yield Weight(names(value.name), shape, form, describe(source, names))


def _format(source: Quantised) -> str:
    if source.format in ("fp32", "bf16"):
        return source.format
    groups = f"groups of {source.group}" if source.group else "whole rows"
    return f"{source.format}, {groups}, {'symmetric' if source.symmetric else 'asymmetric'}"


def describe(source: Source, names: _Names) -> str:
    """What a source does, in a line: ``concat(a, b)``, ``a[0:8]``, ``a * b``."""
    if isinstance(source, Tensor):
        return names(source.name)
    if isinstance(source, Concat):
        return f"concat({', '.join(describe(part, names) for part in source.parts)})"
    of = describe(source.of, names)
    if isinstance(source, Rows):
        return f"{of}[{source.start}:{source.stop}]"
    if isinstance(source, Scaled):
        return f"{of} * {source.by if isinstance(source.by, float) else describe(source.by, names)}"
    return f"{source.format}({of})"
