"""Add to the residual stream and norm it in one operator; the sum stays the residual stream."""

from __future__ import annotations

from openautoglm.graph.ir import Graph, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import Add, Capture, RmsNorm
from openautoglm.graph.rewrite import ReplacePattern


def _fuse(match: Match, graph: Graph) -> dict[Value, Value]:
    node = graph.node("add_rms_norm", match["x"], match["y"], match["weight"], name=match["sum"].name,
                      before=None, **match.node("norm").attributes)
    return {match["sum"]: node.outputs[0], match["norm"]: node.outputs[1]}


fuse_add_norm = ReplacePattern(
    pattern=RmsNorm(Add(Capture("x"), Capture("y")).as_("sum").shared(), Capture("weight")).as_("norm"),
    replacement=_fuse, name="fuse_add_norm")
