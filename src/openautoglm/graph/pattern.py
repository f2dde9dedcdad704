"""What a rule looks for: small expressions over operators.

    RmsNorm() + Linear()                     a linear whose first input is a norm's output
    Add(Capture("x"), RmsNorm().as_("norm")) an add of anything and a norm, in either order
    Siblings(Linear(), Linear(), Linear())   three linears that read the same value
    halves = Split().as_("halves")
    Mul(Silu(halves[0]), halves[1])          both halves of one split

A pattern names the first inputs of a node; the others may be anything. A name stands for one thing: where it occurs
twice, both must be the same value or node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from openautoglm.core.errors import GraphError
from openautoglm.graph.ir import Attribute, Node, Value

Condition = Attribute | Callable[[Attribute], bool]
"""What an attribute must be: a value, or a question about it."""
COMMUTATIVE = frozenset({"add", "mul"})
"""Operators of two inputs whose order does not matter; patterns try both."""


class Pattern:
    """Something that a value (or a node) may match."""

    def __add__(self, then: OperatorPattern) -> OperatorPattern:
        """A chain: the output of this is the first input of `then`.

        Raises:
            GraphError: the first input of `then` is said already.
        """
        return then.reading(self)


@dataclass(frozen=True, eq=False)
class Capture(Pattern):
    """Any value, remembered as `name`; `where` may ask more of it."""

    name: str
    where: Callable[[Value], bool] | None = None


@dataclass(frozen=True, eq=False)
class OperatorPattern(Pattern):
    """A node of one of several operators.

    Attributes:
        operators: the operators that it may have.
        inputs: patterns of its first inputs.
        attributes: conditions on its attributes.
        where: one more condition, asked of the node.
        name: under which the node is remembered; empty for none.
        place: which of its outputs is meant, where the pattern stands for a value.
        open_: which of its outputs nodes outside of the match may read too.
    """

    operators: tuple[str, ...]
    inputs: tuple[Pattern, ...] = ()
    attributes: Mapping[str, Condition] = field(default_factory=dict)
    where: Callable[[Node], bool] | None = None
    name: str = ""
    place: int = 0
    open_: tuple[int, ...] | Literal["all"] = ()

    def as_(self, name: str) -> OperatorPattern:
        """Remember the node as `name`."""
        return replace(self, name=name)

    def shared(self, *places: int) -> OperatorPattern:
        """Allow other nodes to read its outputs (those of `places`) too; unless replaced, they stay for them."""
        return replace(self, open_=places or "all")

    def is_open(self, place: int) -> bool:
        """Whether others may read this output."""
        return self.open_ == "all" or place in self.open_

    def __getitem__(self, place: int) -> OperatorPattern:
        """Mean another output than the first."""
        return replace(self, place=place)

    def reading(self, first: Pattern) -> OperatorPattern:
        """Say what the first input is: of this node, or of the chain that ends in it."""
        if not self.inputs:
            return replace(self, inputs=(first,))
        head = self.inputs[0]
        if not isinstance(head, OperatorPattern):
            raise GraphError(f"the first input of {'/'.join(self.operators)} is given twice",
                             remedy="write a chain, or inputs in brackets, not both")
        return replace(self, inputs=(head.reading(first), *self.inputs[1:]))

    def accepts(self, node: Node) -> bool:
        """Whether operator, attributes and `where` fit; inputs are not looked at."""
        return (node.operator in self.operators
                and all(_holds(condition, node.attributes.get(name)) for name, condition in self.attributes.items())
                and (self.where is None or self.where(node)))


@dataclass(frozen=True, eq=False, init=False)
class Siblings(Pattern):
    """Nodes that have the same first input: one for each pattern, or `at_least` so many that match a single one."""

    patterns: tuple[OperatorPattern, ...]
    at_least: int

    def __init__(self, *patterns: OperatorPattern, at_least: int = 0) -> None:
        if not patterns or (at_least and len(patterns) != 1):
            raise GraphError("siblings take patterns, or a single one with at_least",
                             remedy="e.g. Siblings(Linear(), Linear()) or Siblings(Linear(), at_least=2)")
        object.__setattr__(self, "patterns", patterns)
        object.__setattr__(self, "at_least", at_least)


@dataclass(frozen=True, init=False)
class Operation:
    """The name of an operator, called to make patterns: ``Linear = Operation("linear")``, then ``Linear()``.

    Several operators may be given: ``Operation("linear", "quantised_linear")``.
    """

    operators: tuple[str, ...]

    def __init__(self, *operators: str) -> None:
        object.__setattr__(self, "operators", operators)

    def __call__(self, *inputs: Pattern, where: Callable[[Node], bool] | None = None, **attributes: Condition
                 ) -> OperatorPattern:
        """A pattern; `inputs` are its first ones, `attributes` values or questions."""
        return OperatorPattern(self.operators, inputs, attributes, where)


def _holds(condition: Condition, value: Attribute | None) -> bool:
    if callable(condition):
        return value is not None and condition(value)
    return value == condition


Embedding = Operation("embedding")
RmsNorm = Operation("rms_norm")
Linear = Operation("linear")
Split = Operation("split")
Rotary = Operation("rotary")
PagedAttention = Operation("paged_attention")
Silu = Operation("silu")
Add = Operation("add")
Mul = Operation("mul")
GatherRows = Operation("gather_rows")
