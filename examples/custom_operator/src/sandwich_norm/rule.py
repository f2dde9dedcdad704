"""The rule: what a sub-layer of GLM-4-0414 gives is normed, added to the residual stream, and the sum normed again."""

from __future__ import annotations

from openautoglm.graph.ir import Graph, Value
from openautoglm.graph.match import Match
from openautoglm.graph.pattern import Add, Capture, RmsNorm
from openautoglm.graph.rewrite import ReplacePattern

_INNER = RmsNorm(Capture("y"), Capture("inner")).as_("inner_norm")
_SUM = Add(Capture("x"), _INNER).as_("sum").shared()  # others read the sum, too: it is the residual stream


def _fuse(match: Match, graph: Graph) -> dict[Value, Value]:
    total, normed = graph.node("sandwich_norm", match["x"], match["y"], match["inner"], match["outer"],
                               name=match["sum"].name, eps=match.node("norm").attributes["eps"]).outputs
    return {match["sum"]: total, match["norm"]: normed}


def _alike(match: Match) -> bool:
    return match.node("inner_norm").attributes == match.node("norm").attributes


fuse_sandwich_norm = ReplacePattern(
    pattern=RmsNorm(_SUM, Capture("outer")).as_("norm"), replacement=_fuse, where=_alike, name="fuse_sandwich_norm")
