"""Rules and how they are applied: until none of them finds anything more.

Within a rule the graph is walked once from top to bottom, again and again until nothing matches. New nodes take the
place of the first root of their match; where that is too early or too late for somebody, nodes are moved, and otherwise
the order stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from openautoglm.core.errors import GraphError
from openautoglm.core.log import get
from openautoglm.graph.ir import Graph, Node, Value
from openautoglm.graph.match import Match, Readers, matches, roots_of
from openautoglm.graph.operators import operator_of
from openautoglm.graph.order import in_running_order
from openautoglm.graph.pattern import Capture, OperatorPattern, Pattern

MOST_ROUNDS = 16
MOST_PER_NODE = 4
"""A rule that is applied more often than this for each node of the graph has no end."""
Values = Value | Sequence[Value] | Mapping[Value, Value] | None
Replacement = Callable[[Match, Graph], Values]
_log = get(__name__)


@dataclass(frozen=True)
class Application:
    """A rule was applied: its name, and the name of the value where."""

    rule: str
    at: str


class Rule(Protocol):
    """One rewrite of a graph."""

    @property
    def name(self) -> str:
        """The name, unique among the rules."""

    def apply(self, graph: Graph) -> list[Application]:
        """Rewrite the graph in place, wherever the rule finds something to do."""


@dataclass(frozen=True)
class ReplacePattern:
    """Replace what a pattern matches.

    Attributes:
        pattern: what to look for.
        replacement: an operator with the leaves of the match as inputs (or those that it names) and the attributes of
            the matched nodes; or a function of match and graph. A function returns what takes the place of
            `Match.outputs` (a value, or several), or a mapping of old values to new ones, or None to decline.
            It appends its nodes with `Graph.apply` and gives no thought to their order.
        name: of the rule.
        where: a condition on the whole match.
    """

    pattern: Pattern
    replacement: OperatorPattern | Replacement
    name: str
    where: Callable[[Match], bool] | None = None

    def apply(self, graph: Graph) -> list[Application]:
        """Rewrite the graph in place until the pattern matches nowhere.

        Raises:
            GraphError: the replacement does not fit, or the rule never ends.
        """
        limit, roots = MOST_PER_NODE * len(graph.nodes) + 64, roots_of(self.pattern)
        done: list[Application] = []
        while any(node.operator in roots for node in graph.nodes):
            if not (found := _Pass(self, graph, limit - len(done)).run()):
                break
            done += found
        return done

    def values(self, match: Match, graph: Graph) -> Values:
        """Make the replacement of one match."""
        if not isinstance(self.replacement, OperatorPattern):
            return self.replacement(match, graph)
        wanted = self.replacement.inputs
        inputs = [match[one.name] for one in wanted if isinstance(one, Capture)] if wanted else match.leaves
        given = {name: value for name, value in self.replacement.attributes.items() if not callable(value)}
        return graph.node(self.replacement.operators[0], *inputs, name=match.outputs[0].name, before=None,
                          **(match.attributes | given)).outputs


@dataclass(frozen=True)
class RewriteGraph:
    """A rule about the graph as a whole: `function` changes it and returns the names of what it changed."""

    function: Callable[[Graph], Iterable[str]]
    name: str

    def apply(self, graph: Graph) -> list[Application]:
        """Rewrite the graph in place."""
        return [Application(self.name, at) for at in self.function(graph)]


def rewrite(graph: Graph, rules: Iterable[Rule]) -> list[Application]:
    """Apply rules in their order, again and again until none finds anything; return what was done.

    The graph is changed in place and verified after each rule that did something.

    Raises:
        GraphError: a rule breaks the graph, or the rules never end; the rule is named.
    """
    rules, done = tuple(rules), list[Application]()
    for _ in range(MOST_ROUNDS):
        busy: list[str] = []
        for rule in rules:
            if found := _apply(rule, graph):
                done += found
                busy.append(rule.name)
        if not busy:
            return done
    raise GraphError("the rules never end", where=", ".join(busy), remedy="look for rules that undo each other")


def _apply(rule: Rule, graph: Graph) -> list[Application]:
    try:
        found = rule.apply(graph)
        if found:
            graph.verify()
    except GraphError as error:
        raise GraphError(f"the rule {rule.name}: {error.message}", where=error.where, remedy=error.remedy) from error
    for one in found:
        _log.debug("rule applied", extra={"rule": one.rule, "at": one.at})
    return found


class _Pass:
    """One walk of a rule over a graph."""

    def __init__(self, rule: ReplacePattern, graph: Graph, limit: int) -> None:
        self.rule, self.graph, self.limit = rule, graph, limit
        self.readers = Readers(graph)
        self.order = tuple(graph.nodes)
        self.dead: set[Node] = set()
        self.made: dict[Node, list[Node]] = {}

    def run(self) -> list[Application]:
        """Replace what matches; return what was done."""
        done: list[Application] = []
        roots = roots_of(self.rule.pattern)
        for node in self.order:
            if node.operator in roots and node not in self.dead and self._replace(node):
                done.append(Application(self.rule.name, node.output.name))
                if len(done) > self.limit:
                    raise GraphError(f"never ends: applied more than {MOST_PER_NODE} times a node", where=done[-1].at,
                                     remedy="let the pattern not match what the replacement makes")
        if done:
            self._settle()
        return done

    def _replace(self, node: Node) -> bool:
        for match in matches(self.rule.pattern, node, self.readers):
            if self.rule.where is not None and not self.rule.where(match):
                continue
            count = len(self.graph.nodes)
            values = self.rule.values(match, self.graph)
            if values is not None:
                self._exchange(match, _pairs(match, values), self.graph.nodes[count:])
                return True
            del self.graph.nodes[count:]
        return False

    def _exchange(self, match: Match, pairs: Sequence[tuple[Value, Value]], new: list[Node]) -> None:
        """Let the readers of old values read new ones; new nodes may go on reading what they replace."""
        for old, value in pairs:
            if old.type != value.type:
                raise GraphError(f"{value.type} cannot take the place of {old.type}", where=old.name)
            for reader in tuple(self.readers.of(old)):
                self.readers.drop(reader)
                reader.inputs = [value if given is old else given for given in reader.inputs]
                self.readers.add(reader)
            if old in self.readers.asked:
                self.graph.outputs = [value if given is old else given for given in self.graph.outputs]
                self.readers.asked = set(self.graph.outputs)
        for node in new:
            self.readers.add(node)
        self.made.setdefault(match.roots[0], []).extend(new)
        self._bury(match.nodes)
        for old, value in pairs:
            if old.producer in self.dead and value.producer in new:
                value.name = old.name

    def _bury(self, nodes: Iterable[Node]) -> None:
        """Let nodes go that nobody needs any more, and those that only they needed."""
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node not in self.dead and not operator_of(node.operator).effect and not self.readers.read(node):
                self.dead.add(node)
                self.readers.drop(node)
                self.graph.nodes.remove(node)
                waiting += [value.producer for value in node.inputs if value.producer is not None]

    def _settle(self) -> None:
        nodes = (one for node in self.order for one in (*self.made.get(node, ()), node))
        self.graph.nodes = in_running_order([node for node in nodes if node not in self.dead])
        self.graph.remove_dead()


def _pairs(match: Match, values: Values) -> list[tuple[Value, Value]]:
    """What is replaced by what."""
    if isinstance(values, Mapping):
        pairs = list(values.items())
    else:
        given = [values] if isinstance(values, Value) else list(values or ())
        if len(given) != len(match.outputs):
            raise GraphError(f"gives {len(given)} values for {len(match.outputs)}", where=match.outputs[0].name,
                             remedy="return one value for each output of the match, or a mapping")
        pairs = list(zip(match.outputs, given, strict=True))
    if all(old is new for old, new in pairs):
        raise GraphError("replaces a value by itself", where=match.outputs[0].name, remedy="return None to decline")
    return pairs
