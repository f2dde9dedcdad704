"""The graph: values in single static assignment, made by nodes in an order that can be run from top to bottom.

A value is an input of a step, a weight, or the output of a node. Dimensions are numbers or names: ``rows`` are the
token rows of a flat batch (any mix of sequences, prefill and decode), ``wanted`` those whose logits are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from openautoglm.core.errors import GraphError

if TYPE_CHECKING:
    from openautoglm.graph.sources import Source

Dim = int | str
DType = Literal["fp32", "bf16", "int8", "int32", "layout"]
"""``layout`` is the opaque description of a step: to which sequence a row belongs, and where its cache pages lie."""
Attribute = int | float | str | bool | tuple[int, ...]


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a value."""

    dtype: DType
    shape: tuple[Dim, ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]" if self.shape else self.dtype


@dataclass(eq=False)
class Value:
    """Something that nodes read: compare by identity.

    Attributes:
        type: what it is.
        name: unique in its graph; a weight has that of its tensor in the checkpoint.
        producer: the node that makes it; None for inputs and weights.
        source: of a weight, how it comes from the checkpoint's tensors; None for everything else.
    """

    type: TensorType
    name: str
    producer: Node | None = None
    source: Source | None = None

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(eq=False)
class Node:
    """One operator at work: compare by identity."""

    operator: str
    inputs: list[Value]
    outputs: list[Value] = field(default_factory=list)
    attributes: dict[str, Attribute] = field(default_factory=dict)

    @property
    def output(self) -> Value:
        """The first output, for most operators the only one."""
        return self.outputs[0]


class Graph:
    """Nodes in running order, between the inputs of a step and its outputs."""

    def __init__(self) -> None:
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.outputs: list[Value] = []
        self.weights: dict[str, Value] = {}
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}

    def add_input(self, name: str, type: TensorType) -> Value:
        """Declare an input of every step.

        Raises:
            GraphError: the name is taken.
        """
        value = Value(type, self._own(name))
        self.inputs.append(value)
        return value

    def weight(self, name: str, type: TensorType, source: Source) -> Value:
        """Return the weight `name`, declared at its first use.

        Raises:
            GraphError: it was declared with another type, or the name is another value's.
        """
        known = self.weights.get(name)
        if known is None:
            known = self.weights[name] = Value(type, self._own(name), source=source)
        elif (known.type, known.source) != (type, source):
            raise GraphError(f"the weight was declared as {known.type}, not {type}", where=name)
        return known

    def apply(self, operator: str, *inputs: Value, name: str | None = None, before: Node | None = None,
              **attributes: Attribute) -> Value:
        """Append a node (or put it before another) and return its first output.

        Args:
            operator: a registered operator; it checks the inputs and says what comes out.
            name: of the first output; made from the operator when None.

        Raises:
            GraphError: no such operator, or the inputs do not fit it.
        """
        return self.node(operator, *inputs, name=name, before=before, **attributes).output

    def node(self, operator: str, *inputs: Value, name: str | None = None, before: Node | None = None,
             **attributes: Attribute) -> Node:
        """Like `apply`, but return the node, for operators with several outputs."""
        from openautoglm.graph.operators import infer

        types = infer(operator, [value.type for value in inputs], attributes)
        node = Node(operator, list(inputs), attributes=attributes)
        stem = name or operator
        node.outputs = [Value(type, self._own(stem if place == 0 else f"{stem}.{place}"), node)
                        for place, type in enumerate(types)]
        self.nodes.insert(len(self.nodes) if before is None else self.nodes.index(before), node)
        return node

    def users(self, value: Value) -> list[Node]:
        """The nodes that read a value, in order; one that reads it twice stands there once."""
        return [node for node in self.nodes if any(given is value for given in node.inputs)]

    def replace(self, old: Value, new: Value) -> None:
        """Let everything that read `old` read `new`.

        Raises:
            GraphError: the types differ.
        """
        if old.type != new.type:
            raise GraphError(f"{new.type} cannot take the place of {old.type}", where=old.name)
        for node in self.nodes:
            node.inputs = [new if given is old else given for given in node.inputs]
        self.outputs = [new if given is old else given for given in self.outputs]

    def rename(self, value: Value, name: str) -> None:
        """Give an output of a node another name; a taken one gets a number."""
        self._names.discard(value.name)
        value.name = self._own(name)

    def remove_dead(self) -> int:
        """Remove nodes whose outputs nobody reads, and weights that no node reads; return how many nodes went."""
        from openautoglm.graph.operators import operator_of

        needed = {id(value) for value in self.outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if operator_of(node.operator).effect or any(id(value) in needed for value in node.outputs):
                kept.append(node)
                needed |= {id(value) for value in node.inputs}
        gone = len(self.nodes) - len(kept)
        self.nodes = kept[::-1]
        self.weights = {name: value for name, value in self.weights.items() if id(value) in needed}
        self._names = {value.name for value in self.values()}
        return gone

    def values(self) -> Iterator[Value]:
        """All values: inputs, weights, outputs of nodes."""
        yield from self.inputs
        yield from self.weights.values()
        for node in self.nodes:
            yield from node.outputs

    def verify(self) -> None:
        """Check that every value is made before it is read, that types are what operators infer, and names unique.

        Raises:
            GraphError: naming the node.
        """
        from openautoglm.graph.operators import infer

        made = {id(value) for value in (*self.inputs, *self.weights.values())}
        for node in self.nodes:
            for value in node.inputs:
                if id(value) not in made:
                    raise GraphError(f"{value!r} is read before it is made", where=node.output.name)
            types = infer(node.operator, [value.type for value in node.inputs], node.attributes)
            if types != tuple(value.type for value in node.outputs):
                raise GraphError(f"outputs are not what {node.operator} infers", where=node.output.name)
            made |= {id(value) for value in node.outputs}
        if missing := [value for value in self.outputs if id(value) not in made]:
            raise GraphError(f"the output {missing[0]!r} is never made")
        names = [value.name for value in self.values()]
        if len(set(names)) != len(names):
            raise GraphError("two values have one name")

    def _own(self, name: str) -> str:
        """Claim a name; a taken one gets a number, weights and inputs excepted by their callers' checks."""
        free = name
        while free in self._names:
            self._numbers[name] = number = self._numbers.get(name, 1) + 1
            free = f"{name}.{number}"
        self._names.add(free)
        return free


def same(one: Sequence[Value], other: Sequence[Value]) -> bool:
    """Whether two lists hold the same values."""
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
