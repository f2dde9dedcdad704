"""Linears that read the same value become one with all their rows, and a split: one pass over memory, not three."""

from __future__ import annotations

from collections.abc import Sequence

from openautoglm.graph.ir import Graph, Node, TensorType, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import Capture, Mul, Operation, Siblings, Silu
from openautoglm.graph.rewrite import ReplacePattern
from openautoglm.graph.sources import Concat, Source

_AnyLinear = Operation("linear", "quantised_linear")


def together(nodes: Sequence[Node]) -> bool:
    """Whether linears can be one: same operator and attributes, all or none with a bias, weights of one type."""
    first = nodes[0]
    return all(node.operator == first.operator and node.attributes == first.attributes
               and len(node.inputs) == len(first.inputs)
               and all(one.source is not None and one.type.dtype == other.type.dtype
                       and one.type.shape[1:] == other.type.shape[1:]
                       for one, other in zip(node.inputs[1:], first.inputs[1:], strict=True))
               for node in nodes)


def fuse(nodes: Sequence[Node], graph: Graph) -> list[Value]:
    """Append one linear and a split to the graph; return the values that stand for those of `nodes`."""
    first = nodes[0]
    weights = [_stacked([node.inputs[place] for node in nodes], graph) for place in range(1, len(first.inputs))]
    name = joined([node.output.name for node in nodes])
    whole = graph.apply(first.operator, first.inputs[0], *weights, name=name, before=None,
                        **first.attributes)
    sizes = tuple(int(node.output.type.shape[1]) for node in nodes)
    return graph.node("split", whole, name=f"{name}.split", sizes=sizes).outputs


def _stacked(weights: Sequence[Value], graph: Graph) -> Value:
    sources: list[Source] = [weight.source for weight in weights if weight.source is not None]
    rows = sum(int(weight.type.shape[0]) for weight in weights)
    type = TensorType(weights[0].type.dtype, (rows, *weights[0].type.shape[1:]))
    return graph.weight(joined([weight.name for weight in weights]), type, Concat(tuple(sources)))


def joined(names: Sequence[str]) -> str:
    """One name for several: ``q_proj``, ``k_proj`` and ``v_proj`` are ``qkv_proj``."""
    front = _shared_front(names)
    rests = [name[front:] for name in names]
    back = _shared_front([rest[::-1] for rest in rests])
    middles = [rest[: len(rest) - back] for rest in rests]
    glue = "" if all(len(one) == 1 for one in middles) else "_"
    return names[0][:front] + glue.join(middles) + rests[0][len(middles[0]):]


def _shared_front(names: Sequence[str]) -> int:
    """How many letters all names begin with."""
    return next((place for place, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1),
                min(map(len, names)))


fuse_qkv = ReplacePattern(
    pattern=Siblings(_AnyLinear(), _AnyLinear(), _AnyLinear()),
    replacement=lambda match, graph: fuse(match.roots, graph),
    where=lambda match: together(match.roots), name="fuse_qkv")


def _fuse_gate_up(match: Match, graph: Graph) -> dict[Value, Value]:
    gate, up = fuse([match.node("gate"), match.node("up")], graph)
    return {match["gate"]: gate, match["up"]: up}


fuse_gate_up = ReplacePattern(
    pattern=Mul(Silu(_AnyLinear(Capture("x")).as_("gate")), _AnyLinear(Capture("x")).as_("up")),
    replacement=_fuse_gate_up,
    where=lambda match: together([match.node("gate"), match.node("up")]), name="fuse_gate_up")
