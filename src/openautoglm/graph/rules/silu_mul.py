"""The gate of the feed-forward in one operator: silu(gate) * up, from both halves of one product or from two."""

from __future__ import annotations

from openautoglm.graph.fused import SiluMul
from openautoglm.graph.ir import Node
from openautoglm.graph.pattern import Capture, Mul, Silu, Split
from openautoglm.graph.rewrite import ReplacePattern


def _halves(node: Node) -> bool:
    sizes = node.attributes["sizes"]
    return isinstance(sizes, tuple) and len(sizes) == 2 and sizes[0] == sizes[1]


_both = Split(Capture("gate_up"), where=_halves).as_("halves")
silu_mul = ReplacePattern(
    pattern=Mul(Silu(_both[0]), _both[1]),
    replacement=lambda match, graph: graph.apply("silu_mul", match["gate_up"], name=match.outputs[0].name),
    name="silu_mul")
silu_mul_of_two = ReplacePattern(
    pattern=Mul(Silu(Capture("gate")), Capture("up")),
    replacement=SiluMul(Capture("gate"), Capture("up")),
    name="silu_mul_of_two")
