"""Where a pattern lies in a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from openautoglm.core.errors import GraphError
from openautoglm.graph.ir import Attribute, Graph, Node, Value
from openautoglm.graph.pattern import COMMUTATIVE, Capture, OperatorPattern, Pattern, Siblings


class Readers:
    """Who reads which value of a graph, kept up to date while the graph is rewritten."""

    def __init__(self, graph: Graph) -> None:
        self._of: dict[Value, list[Node]] = {}
        self.asked = set(graph.outputs)
        for node in graph.nodes:
            self.add(node)

    def of(self, value: Value) -> Sequence[Node]:
        """The nodes that read a value, each once."""
        return self._of.get(value, ())

    def add(self, node: Node) -> None:
        """Take note of a node."""
        for value in dict.fromkeys(node.inputs):
            self._of.setdefault(value, []).append(node)

    def drop(self, node: Node) -> None:
        """Forget a node."""
        for value in dict.fromkeys(node.inputs):
            self._of[value].remove(node)

    def read(self, node: Node) -> bool:
        """Whether anybody reads a node's outputs, or the step asks for one."""
        return any(self._of.get(value) or value in self.asked for value in node.outputs)


@dataclass(frozen=True)
class Match:
    """One place where a pattern fits.

    Attributes:
        roots: the nodes that the pattern stands for: the last of a chain, or all siblings.
        nodes: all nodes that were matched, roots first.
        leaves: the values that go into the match, in the order of the pattern.
    """

    roots: tuple[Node, ...] = ()
    nodes: tuple[Node, ...] = ()
    leaves: tuple[Value, ...] = ()
    _bound: dict[str, Value | Node] = field(default_factory=dict)
    _closed: tuple[Value, ...] = ()

    def __getitem__(self, name: str) -> Value:
        """What was captured as `name`; of a node its first output.

        Raises:
            GraphError: nothing has that name.
        """
        found = self._find(name)
        return found.output if isinstance(found, Node) else found

    def node(self, name: str) -> Node:
        """The node that was named so.

        Raises:
            GraphError: there is none.
        """
        found = self._find(name)
        if not isinstance(found, Node):
            raise GraphError(f"{name!r} is a value of the pattern, not a node", remedy="name an operator with as_")
        return found

    def has(self, name: str) -> bool:
        """Whether something was captured as `name`."""
        return name in self._bound

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The outputs of the roots, in order: what a rule replaces."""
        return tuple(value for root in self.roots for value in root.outputs)

    @property
    def attributes(self) -> dict[str, Attribute]:
        """The attributes of all matched nodes together.

        Raises:
            GraphError: two nodes disagree on one.
        """
        together: dict[str, Attribute] = {}
        for node in self.nodes:
            for name, value in node.attributes.items():
                if together.setdefault(name, value) != value:
                    raise GraphError(f"the matched operators disagree on {name}", where=node.output.name,
                                     remedy="write the replacement as a function that chooses")
        return together

    def _find(self, name: str) -> Value | Node:
        if name not in self._bound:
            raise GraphError(f"the pattern captures nothing as {name!r}",
                             remedy=f"known are {', '.join(sorted(self._bound)) or 'none'}")
        return self._bound[name]

    def _with_node(self, node: Node, pattern: OperatorPattern) -> Match:
        bound = {**self._bound, pattern.name: node} if pattern.name else self._bound
        closed = (value for place, value in enumerate(node.outputs) if not pattern.is_open(place))
        return replace(self, nodes=(*self.nodes, node), _bound=bound, _closed=(*self._closed, *closed))

    def _with_leaves(self, values: Sequence[Value]) -> Match:
        return replace(self, leaves=(*self.leaves, *values)) if values else self


def matches(pattern: Pattern, node: Node, readers: Readers) -> Iterator[Match]:
    """Yield the ways in which `pattern` fits with `node` as its (first) root.

    Ways in which an inner value would be lost that others read, or that the step asks for, are left out.
    """
    if isinstance(pattern, Siblings):
        found = _siblings(pattern, node, readers)
    elif isinstance(pattern, OperatorPattern):
        found = (replace(match, roots=(node,)) for match in _node(pattern, node, Match()))
    else:
        raise GraphError("a rule needs an operator to look for, not a lone capture")
    return (match for match in found if _nothing_is_lost(match, readers))


def roots_of(pattern: Pattern) -> frozenset[str]:
    """The operators that a root of the pattern can have."""
    if isinstance(pattern, Siblings):
        return frozenset(pattern.patterns[0].operators)
    return frozenset(pattern.operators if isinstance(pattern, OperatorPattern) else ())


def _nothing_is_lost(match: Match, readers: Readers) -> bool:
    inside = set(match.nodes)
    return not any(value in readers.asked or any(reader not in inside for reader in readers.of(value))
                   for value in match._closed if value.producer not in match.roots)


def _siblings(pattern: Siblings, node: Node, readers: Readers) -> Iterator[Match]:
    first = pattern.patterns[0]
    if not first.accepts(node):
        return
    shared = node.inputs[0]
    family = [reader for reader in readers.of(shared) if reader.inputs[0] is shared]
    if pattern.at_least:
        fitting = tuple(reader for reader in family if next(_node(first, reader, Match()), None))
        if len(fitting) >= pattern.at_least and fitting[0] is node:
            for match in _all(((first, reader) for reader in fitting), Match()):
                yield replace(match, roots=fitting)
        return
    for match in _node(first, node, Match()):
        yield from _brothers(pattern.patterns[1:], family[family.index(node) + 1:], replace(match, roots=(node,)))


def _brothers(patterns: Sequence[OperatorPattern], family: Sequence[Node], match: Match) -> Iterator[Match]:
    if not patterns:
        yield match
        return
    for place, node in enumerate(family):
        for found in _node(patterns[0], node, match):
            yield from _brothers(patterns[1:], family[place + 1:], replace(found, roots=(*found.roots, node)))


def _all(pairs: Iterator[tuple[OperatorPattern, Node]], match: Match) -> Iterator[Match]:
    for pattern, node in pairs:
        found = next(_node(replace(pattern, name=""), node, match), None)
        if found is None:
            return
        match = found
    yield match


def _node(pattern: OperatorPattern, node: Node, match: Match) -> Iterator[Match]:
    known = match._bound.get(pattern.name) if pattern.name else None
    if known is not None:
        if known is node:
            yield match
        return
    if not pattern.accepts(node) or len(pattern.inputs) > len(node.inputs):
        return
    entered = match._with_node(node, pattern)
    yield from _inputs(pattern.inputs, node.inputs, entered)
    if pattern.inputs and node.operator in COMMUTATIVE and node.inputs[0] is not node.inputs[1]:
        yield from _inputs(pattern.inputs, node.inputs[::-1], entered)


def _inputs(patterns: Sequence[Pattern], values: Sequence[Value], match: Match) -> Iterator[Match]:
    if not patterns:
        yield match._with_leaves(values)
        return
    for found in _value(patterns[0], values[0], match):
        yield from _inputs(patterns[1:], values[1:], found)


def _value(pattern: Pattern, value: Value, match: Match) -> Iterator[Match]:
    if isinstance(pattern, Capture):
        known = match._bound.get(pattern.name)
        if known is not None:
            if known is value:
                yield match
        elif pattern.where is None or pattern.where(value):
            yield replace(match._with_leaves([value]), _bound={**match._bound, pattern.name: value})
    elif isinstance(pattern, OperatorPattern):
        node = value.producer
        if node is not None and pattern.place < len(node.outputs) and node.outputs[pattern.place] is value:
            yield from _node(pattern, node, match)
    else:
        raise GraphError("siblings can only stand at the top of a pattern")
